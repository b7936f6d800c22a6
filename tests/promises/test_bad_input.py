"""Bad images, labels and loaders are refused in words before they cost anything: all stays as it was."""

import pytest
import torch
from guarded import CLASSES, GOOD, evaluated, hardened, images, labels, one_loss, refused, small_model, unchanged
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from robusttune import RobustLoss, ThreatModel

everywhere = pytest.mark.parametrize("way", [hardened, one_loss, evaluated])


def spoiled(value):
    found = images()
    found[3, 1, 2, 5] = value
    return found


BAD_IMAGES = {
    "normalised": (
        lambda: images() * 4 - 2,
        r"images span \[-2\.00, 2\.00\], but eps is in pixel units on \[0, 1\]: pass mean=… and std=…",
    ),
    "float 0 to 255": (lambda: images() * 255, r"images span \[0\.\d+, 25\d\.\d+\].*divide float images by 255"),
    "NaN": (lambda: spoiled(torch.nan), "images hold NaN or infinite values: look for broken files"),
    "infinite": (lambda: spoiled(-torch.inf), "images hold NaN or infinite values: look for broken files"),
    "single": (lambda: images()[0], r"images have shape \(3, 8, 8\), but \(N, C, H, W\).*Wrap the data set in a Data"),
    "flat": (lambda: images(8, 64), r"images have shape \(8, 64\), but \(N, C, H, W\) is needed"),
    "video": (lambda: images(8, 3, 2, 8, 8), r"images have shape \(8, 3, 2, 8, 8\), but \(N, C, H, W\) is needed"),
    "grey": (lambda: images(8, 1, 8, 8), "images have 1 channel, but the model's first convolution takes 3: convert"),
    "NHWC": (lambda: images(8, 8, 8, 3), r"shape \(8, 8, 8, 3\), which looks like \(N, H, W, C\): permute them"),
    "NHWC uint8": (lambda: images(8, 32, 24, 1).mul(255).byte(), r"looks like \(N, H, W, C\): permute them"),
    "complex": (lambda: images() + 0j, r"images are torch\.complex64, but floats or uint8 are needed: take \.abs\(\)"),
    "int32": (
        lambda: images().mul(255).int(),
        r"images are torch\.int32, but floats or uint8 are needed: call \.float",
    ),
    "16-bit": (
        lambda: images().mul(65535).int().to(torch.uint16),
        r"images are torch\.uint16, .*: call \.float\(\), and divide by the value of white: 255, or 65535",
    ),
    "none": (lambda: images()[:0], r"images have shape \(0, 3, 8, 8\): the batch has no images"),
    "files": (lambda: ["a.png", "b.png"], "images are a list of 2, but a tensor is needed: add ToTensor"),
    "PIL": (lambda: Image.new("RGB", (8, 8)), "images are an Image, but a tensor is needed: add ToTensor"),
    "arrays": (lambda: images().numpy(), "images are a ndarray, but a tensor is needed: add ToTensor"),
}


@everywhere
@pytest.mark.parametrize(("bad", "match"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_images_that_cannot_be_used(way, bad, match):
    refused(way, match, loader=[(bad(), labels())])


@pytest.mark.parametrize("way", [hardened, evaluated])
@pytest.mark.parametrize("kind", ["NaN", "infinite", "single", "int32", "PIL", "NHWC"])
def test_images_that_cannot_be_used_in_a_later_batch(way, kind):
    bad, match = BAD_IMAGES[kind]
    refused(way, "batch 3.*" + match, loader=[GOOD, GOOD, (bad(), labels())])


@pytest.mark.parametrize("kind", ["normalised", "float 0 to 255"])
def test_a_later_batch_that_is_no_pixels_is_refused_and_not_cut_off(kind):
    bad, match = BAD_IMAGES[kind]
    loader = [GOOD, GOOD, (bad(), labels())]
    refused(evaluated, "batch 3: " + match, loader=loader)
    refused(hardened, match, loader=loader)
    match = "those of the first batch lay within .* taken for pixels: pass normalized=True if images are normalised"
    for way in (evaluated, hardened):
        refused(way, match, loader=loader, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_later_and_held_out_images_have_the_channels_of_the_first():
    grey = (images(8, 1, 8, 8), labels())
    match = (
        'images have 1 channels, but those before them had 3: convert all of them alike, as with image.convert."RGB"'
    )
    refused(hardened, "batch 2 of epoch 1: " + match, loader=[GOOD, grey])
    refused(evaluated, "batch 2: " + match, loader=[GOOD, grey])
    refused(hardened, "val_loader: " + match, val_loader=[grey])


def test_images_with_gradients_are_measured_as_others():
    assert evaluated(small_model(), [(images().requires_grad_(), labels())]) == evaluated(small_model(), [GOOD])


def test_a_later_batch_is_named_with_its_epoch():
    class Decaying(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            # The first batch is looked at once more before the first epoch.
            return iter([GOOD, (spoiled(torch.nan), labels())] if self.passes == 3 else [GOOD])

    refused(hardened, "batch 2 of epoch 2: images hold NaN", loader=Decaying([GOOD]), epochs=3)


@pytest.mark.parametrize("kind", ["normalised", "float 0 to 255", "NaN", "infinite", "single", "int32"])
def test_a_loss_refuses_bad_images_in_any_call(kind):
    bad, match = BAD_IMAGES[kind]
    model = small_model()
    robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), images=images(), steps=1)
    with unchanged(model), pytest.raises(ValueError, match=match):
        robust_loss(bad(), labels())


BAD_LABELS = {
    "too large": (lambda: labels() + 1, "label 5 is out of range: the model has 5 classes, numbered 0 to 4"),
    "negative": (lambda: labels() - 100, "label -100 is out of range: the model has 5 classes, numbered 0 to 4"),
    "float": (lambda: labels().float(), r"labels are torch\.float32 of shape \(8,\), but class numbers.*call \.long"),
    "not distributions": (lambda: images(8, CLASSES), "soft labels sum to between .* but each row must sum to 1"),
    "negative distributions": (
        lambda: torch.tensor([2.0, -1, 0, 0, 0]).repeat(8, 1),
        "soft labels hold negative or non-finite values",
    ),
    "NaN": (lambda: torch.full((8, CLASSES), torch.nan), "soft labels hold negative or non-finite values"),
    "several": (
        lambda: F.one_hot(labels(), CLASSES) | F.one_hot(labels().flip(0), CLASSES),
        "multi-label models cannot",
    ),
    "several, float": (
        lambda: torch.ones(8, CLASSES),
        "labels mark several classes.*multi-label models cannot be hard",
    ),
    "other classes": (
        lambda: F.one_hot(labels(), 7),
        "soft labels have 7 columns, but the model has 5 classes: give them one column for each class",
    ),
    "masks": (lambda: torch.zeros(8, 8, 8).long(), r"labels have shape \(8, 8, 8\).*masks and boxes cannot be used"),
    "boxes": (
        lambda: [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1).long()}] * 8,
        "labels are a list of 8 of dict, but class numbers are needed: a tensor of integers",
    ),
    "words": (lambda: ["cat"] * 8, "labels are a list of 8 of str, but class numbers are needed: a tensor of integers"),
    "nothing": (lambda: None, "labels are None, but class numbers are needed: a tensor of integers"),
    "another number": (lambda: labels()[:5], r"there are 8 images but labels of shape \(5,\): one label for each"),
    "one": (lambda: torch.tensor(3), r"there are 8 images but labels of shape \(\): one label for each is needed"),
}


@everywhere
@pytest.mark.parametrize(("bad", "match"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_cannot_be_used(way, bad, match):
    refused(way, match, loader=[(images(), bad())])


@pytest.mark.parametrize("way", [hardened, evaluated])
@pytest.mark.parametrize("kind", ["too large", "negative", "several", "words"])
def test_labels_that_cannot_be_used_in_a_later_batch(way, kind):
    bad, match = BAD_LABELS[kind]
    refused(way, match, loader=[GOOD, GOOD, (images(), bad())])


# Loaders


class Once:
    """A loader that yields nothing when it is gone through again."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        yield from self.batches
        self.batches = []

    def __len__(self):
        return 2


def data():
    return TensorDataset(*GOOD)


BAD_LOADERS = {
    "empty": (list, "the loader is empty: check the data set's length"),
    "over nothing": (lambda: DataLoader(TensorDataset(images()[:0], labels()[:0])), "the loader is empty: check"),
    "drops all": (lambda: DataLoader(data(), batch_size=9, drop_last=True), "the loader is empty.*drop_last"),
    "data set": (data, "the loader is a TensorDataset, a data set of single images.*wrap it in a DataLoader"),
    "nothing": (
        lambda: None,
        "the loader is a NoneType, but something that yields batches is needed: pass a DataLoader",
    ),
    "path": (
        lambda: "data/train",
        "the loader is a str, but something that yields batches is needed: pass a DataLoader",
    ),
    "split": (lambda: {"train": [GOOD]}, "the loader is a dict, but something that yields batches is needed"),
    "tensor": (images, "the loader is a Tensor, but something that yields batches is needed"),
    "pair": (lambda: GOOD, r"the loader yields a tensor of shape \(8, 3, 8, 8\), but \(images, labels\) or a dict"),
    "words": (lambda: ["a"], r"the loader yields a str, but \(images, labels\) or a dict of both is needed"),
    "unknown image key": (
        lambda: [{"picture": images(), "label": labels()}],
        r"keys picture, label, but none of them is known to hold images: rename one to 'pixel_values' \(known: pixel_v",
    ),
    "unknown label key": (
        lambda: [{"pixel_values": images(), "kind": labels()}],
        "keys pixel_values, kind, but none of them is known to hold labels: rename one to 'labels'",
    ),
}


@pytest.mark.parametrize("way", [hardened, evaluated])
@pytest.mark.parametrize(("bad", "match"), BAD_LOADERS.values(), ids=BAD_LOADERS)
def test_loaders_that_cannot_be_used(way, bad, match):
    model = small_model()
    with unchanged(model), pytest.raises(ValueError, match=match):
        way(model, bad())


@pytest.mark.parametrize("name", ["val_loader", "unlabeled_loader"])
@pytest.mark.parametrize("kind", ["empty", "data set", "path", "unknown image key"])
def test_other_loaders_that_cannot_be_used(name, kind):
    bad, match = BAD_LOADERS[kind]
    settings = {"tasks": {"rotation": 1.0}} if name == "unlabeled_loader" else {}
    refused(hardened, match.replace("the loader is", f"the {name} is"), **{name: bad()}, **settings)


def test_held_out_images_are_looked_at_before_training():
    for name in ("NaN", "normalised"):
        refused(hardened, "val_loader: " + BAD_IMAGES[name][1], val_loader=[(BAD_IMAGES[name][0](), labels())])
    refused(hardened, "val_loader: label 5 is out of range", val_loader=[(images(), labels() + 1)])
    refused(hardened, "the val_loader is an iterator.*2 times", val_loader=iter([GOOD]))


def test_held_out_images_must_be_in_the_space_of_the_others():
    space = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    normalised = (images() * 4 - 2, labels())
    match = (
        "val_loader: images are pixels.*but in the loader images are normalised images.*use the same transform in both"
    )
    refused(hardened, match, loader=[normalised], val_loader=[GOOD], **space)
    match = (
        "val_loader: images are normalised images.*but in the loader images are pixels.*use the same transform in both"
    )
    refused(hardened, match, loader=[GOOD], val_loader=[normalised], **space)
    for held in (normalised, (GOOD[0].mul(255).byte(), labels())):
        hardened(small_model(), [normalised], val_loader=[held], **space)


def generator(batches):
    yield from batches


@pytest.mark.parametrize("once", [iter, generator, lambda batches: iter(DataLoader(data()))])
def test_what_can_be_gone_through_once_cannot_be_trained_on_for_several_epochs(once):
    loader = once([GOOD])
    refused(
        hardened,
        "the loader is an iterator .*only once, but it is needed 3 times: pass the DataLoader itself",
        loader=loader,
        epochs=3,
    )
    refused(
        evaluated, "the loader is an iterator .*only once, but it is needed 2 times: pass the DataLoader", loader=loader
    )


def test_a_loader_that_runs_dry_is_noticed_and_the_weights_come_back():
    match = "the loader had no batch in epoch 2: it must yield its batches again each time"
    refused(hardened, match, loader=Once([GOOD, GOOD]), epochs=3)


def test_a_loader_is_not_started_to_see_what_it_is():
    class Counted(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    loader = Counted([GOOD])
    refused(hardened, "lr is -1", loader=loader, lr=-1)
    assert loader.passes == 0


# Files


def test_a_refusal_makes_no_folder(tmp_path):
    refused(hardened, "lr is -1", lr=-1, out=tmp_path / "run")
    refused(hardened, "wrap it in a DataLoader", loader=data(), out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("loader", [[], [(spoiled(torch.nan), labels())], [(images(), labels() + 1)]])
def test_a_refusal_leaves_the_files_of_an_earlier_run_alone(tmp_path, loader):
    hardened(small_model(), [GOOD], out=tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(before) > 3
    with pytest.raises(ValueError, match=r"loader|images|label"):
        hardened(small_model(), loader, out=tmp_path / "run", resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
