"""Where mean and std are found, which space images are taken to be in, and the way back and forth."""

import numpy as np
import pytest
import timm.data
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from guarded import GOOD, evaluated, everything, hardened, images, small_model
from hypothesis import given
from hypothesis import strategies as st
from kornia import augmentation, enhance
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split

from robusttune import RobustLoss, ThreatModel
from robusttune.data.pixels import Pixels, check_space, find_pixels
from robusttune.data.transforms import find_statistics, transforms_of

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.5, 0.2)
OTHER = (0.1, 0.2, 0.3)


class Pictures(Dataset):
    """Small pictures, as PIL images through a transform."""

    def __init__(self, transform=None):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, row):
        picture = Image.fromarray(GOOD[0][row].mul(255).byte().permute(1, 2, 0).numpy())
        return self.transform(picture) if self.transform else picture, int(GOOD[1][row])


class Wrapped(Pictures):
    """A data set of the user's own around another one, with one more transform, as is done with the parts of a split."""

    def __init__(self, dataset, transform):
        super().__init__(transform)
        self.dataset = dataset

    def __getitem__(self, row):
        picture, label = self.dataset[row]
        return self.transform(picture), label


def as_numbers(statistics):
    return [None if each is None else torch.as_tensor(each).flatten().tolist() for each in statistics]


def found(dataset):
    return as_numbers(find_statistics(DataLoader(dataset, batch_size=4)))


def normalised_pictures(mean=MEAN, std=STD):
    return Pictures(v1.Compose([v1.ToTensor(), v1.Normalize(mean, std)]))


def normalised(batch=None, mean=MEAN, std=STD):
    batch = images() if batch is None else batch
    return (batch - torch.tensor(mean).reshape(1, -1, 1, 1)) / torch.tensor(std).reshape(1, -1, 1, 1)


def approximately(values, tolerance=1e-6):
    return [pytest.approx(list(each), abs=tolerance) for each in values]


# Where mean and std are found

to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
TRANSFORMS = {
    "v1": v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD)]),
    "v1 alone": v1.Normalize(MEAN, STD),
    "v1 nested": v1.Compose([v1.Compose([v1.ToTensor(), v1.Compose([v1.Normalize(list(MEAN), list(STD))])])]),
    "v2": v2.Compose([*to_tensor, v2.Normalize(MEAN, STD)]),
    "v2 nested": v2.Compose([v2.Compose(to_tensor), v2.Compose([v2.Normalize(list(MEAN), list(STD))])]),
    "both": v2.Compose([v1.ToTensor(), v1.Normalize(np.array(MEAN), torch.tensor(STD))]),
    "sequential": nn.Sequential(v2.Resize(8), v2.Normalize(MEAN, STD)),
    "kornia enhance": v1.Compose([v1.ToTensor(), enhance.Normalize(torch.tensor(MEAN), torch.tensor(STD))]),
    "kornia augmentation": v1.Compose([v1.ToTensor(), augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD))]),
    "kornia sequential": augmentation.AugmentationSequential(
        augmentation.RandomHorizontalFlip(), augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD))
    ),
    "random before": v1.Compose([v1.RandomApply([v1.ColorJitter()]), v1.ToTensor(), v1.Normalize(MEAN, STD)]),
    "timm": timm.data.create_transform(16, is_training=True, mean=MEAN, std=STD, use_prefetcher=False),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_normalize_in_the_transform_is_found(transform):
    assert found(Pictures(transform)) == approximately((MEAN, STD))


class PerImage(nn.Module):
    """Normalises each image by its own mean and std, which it remembers."""

    def forward(self, image):
        self.mean, self.std = image.mean(), image.std()
        return (image - self.mean) / self.std


PerImage.__name__ = "Normalize"
per_image = PerImage()
per_image(torch.rand(3, 4, 4))


class Albumentations:
    """Has the attributes of albumentations' Normalize, which takes its arguments by name."""

    mean, std = MEAN, STD

    def __init__(self, normalization):
        self.normalization = normalization

    def __call__(self, *, image):
        raise NotImplementedError


Albumentations.__name__ = "Normalize"


@pytest.mark.parametrize("white", [255.0, 10000.0, 65535.0])
def test_a_normalize_that_only_brings_images_to_the_unit_interval_does_not_count(white):
    scaling = v2.Normalize([0.0] * 3, [white] * 3)
    assert found(Pictures(v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32), scaling]))) == [None, None]
    together = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32), scaling, v2.Normalize(MEAN, STD)])
    assert found(Pictures(together)) == approximately((MEAN, STD))


def test_several_normalize_count_as_the_one_that_does_the_same():
    first, second = v2.Normalize(MEAN, STD), v2.Normalize(OTHER, (2.0, 1.0, 0.5))
    mean, std = found(Pictures(v2.Compose([*to_tensor, first, second])))
    image = images()
    assert torch.allclose(second(first(image)), normalised(image, mean, std), atol=1e-5)


@pytest.mark.parametrize("step", [per_image, Albumentations("image"), Albumentations("image_per_channel")])
def test_a_normalize_by_each_image_s_own_values_is_refused(step):
    match = r"Normalize in the transform normalises each image by its own values, so eps has no meaning .*: let the loader yield pixels, and"
    with pytest.raises(ValueError, match=match):
        find_statistics(DataLoader(Pictures(v1.Compose([v1.ToTensor(), step]))))


def test_the_settings_of_other_packages_normalize_are_read():
    assert found(Pictures(Albumentations("standard"))) == approximately((MEAN, STD))
    assert found(Pictures(Albumentations("min_max"))) == [None, None]


NESTINGS = {
    "subset": lambda data: Subset(data, [0, 3, 5]),
    "subset of a subset": lambda data: Subset(Subset(data, [0, 3, 5]), [1]),
    "split": lambda data: random_split(data, [5, 3], generator=torch.Generator().manual_seed(0))[1],
    "parts": lambda data: ConcatDataset([data, data]),
    "split parts": lambda data: ConcatDataset(random_split(data, [5, 3], generator=torch.Generator().manual_seed(0))),
    "a subset of parts": lambda data: Subset(ConcatDataset([data, Subset(data, [2])]), [0]),
    "sums": lambda data: data + data,
    "another transform on top": lambda data: Wrapped(Subset(data, [0, 3]), v1.RandomHorizontalFlip()),
}


@pytest.mark.parametrize("nested", NESTINGS.values(), ids=NESTINGS)
def test_a_normalize_is_found_whatever_wraps_the_data_set(nested):
    assert found(nested(normalised_pictures())) == approximately((MEAN, STD))
    assert found(nested(Pictures(v1.ToTensor()))) == [None, None]


def test_a_normalize_of_a_wrapper_is_found():
    inner = Subset(Pictures(v1.ToTensor()), [0, 3])
    assert found(Wrapped(inner, v1.Normalize(MEAN, STD))) == approximately((MEAN, STD))


def test_steps_are_listed_from_the_inside_to_the_outside_with_their_containers():
    wrapped = Wrapped(Subset(normalised_pictures(), [0]), v1.RandomHorizontalFlip())
    names = [type(step).__name__ for step in transforms_of(DataLoader(wrapped))]
    assert names == ["Compose", "ToTensor", "Normalize", "RandomHorizontalFlip"]
    assert transforms_of([GOOD]) == []
    assert transforms_of(DataLoader(Pictures(v2.Normalize(MEAN, STD))))[0].mean == list(MEAN)


@pytest.mark.parametrize(
    ("others", "shown"),
    [
        (lambda: normalised_pictures(OTHER), r"mean=\(0\.5, 0\.4, 0\.3\).*mean=\(0\.1, 0\.2, 0\.3\)"),
        (lambda: Pictures(v1.ToTensor()), "mean=.*no Normalize"),
    ],
)
def test_parts_that_are_normalised_differently_are_refused(others, shown):
    loader = DataLoader(ConcatDataset([normalised_pictures(), others()]), batch_size=4)
    match = rf"the parts of the data set are normalised differently \({shown}.*\): give all of them the same Normalize"
    with pytest.raises(ValueError, match=match):
        find_statistics(loader)
    assert find_pixels(normalised(), loader, mean=MEAN, std=STD).known


def timm_loader(**settings):
    return timm.data.create_loader(
        Pictures(),
        (3, 8, 8),
        4,
        is_training=False,
        num_workers=0,
        device=torch.device("cpu"),
        mean=MEAN,
        std=STD,
        **settings,
    )


@pytest.mark.parametrize("settings", [{}, {"use_prefetcher": False}, {"img_dtype": torch.float16}], ids=str)
def test_the_statistics_of_a_timm_loader_are_found(settings):
    loader = timm_loader(persistent_workers=False, pin_memory=False, **settings)
    tolerance = 1e-3 if "img_dtype" in settings else 1e-6
    assert as_numbers(find_statistics(loader)) == approximately((MEAN, STD), tolerance)
    batch = next(iter(loader))[0]
    space = find_pixels(batch, loader)
    assert space.normalized
    whole = space.pixels(batch) * 255
    assert torch.allclose(whole, whole.round(), atol=0.2)
    assert float(whole.max() - whole.min()) > 200


def test_nothing_is_found_where_nothing_can_be_seen():
    for loader in ([GOOD], (batch for batch in [GOOD]), DataLoader(Pictures()), DataLoader(Pictures(lambda x: x))):
        assert find_statistics(loader) == (None, None)


def test_an_argument_wins_over_what_the_loader_says():
    loader = DataLoader(normalised_pictures(), batch_size=4)
    assert as_numbers((find_pixels(normalised(), loader).mean,)) == approximately((MEAN,))
    space = find_pixels(normalised(mean=OTHER), loader, mean=OTHER, std=STD)
    assert as_numbers((space.mean, space.std)) == approximately((OTHER, STD))


# Which space images are in


def test_images_are_judged_by_their_values():
    for batch, space in ((normalised(), True), (images(), False)):
        assert find_pixels(batch, mean=MEAN, std=STD).normalized is space
        assert find_pixels(batch, mean=MEAN, std=STD).known
    assert not find_pixels(images()).known
    assert not find_pixels(images()).normalized


def test_the_user_has_the_last_word():
    within = images() * 0.2 + 0.4
    assert find_pixels(within, mean=MEAN, std=STD, normalized=True).normalized
    assert not find_pixels(within, mean=MEAN, std=STD, normalized=False).normalized
    assert not find_pixels(within, normalized=False).known


def test_pixels_are_normalised_before_the_model_and_normalised_images_stay_as_they_are():
    space = find_pixels(images(), mean=MEAN, std=STD)
    assert torch.allclose(space.inputs(space.pixels(images())), normalised())
    space = find_pixels(normalised(), mean=MEAN, std=STD)
    assert torch.allclose(space.pixels(normalised()), images(), atol=1e-6)
    assert torch.allclose(space.inputs(space.pixels(normalised())), normalised(), atol=1e-5)


def test_bytes_are_pixels():
    whole = images().mul(255).byte()
    for settings in ({}, {"mean": MEAN, "std": STD}):
        space = find_pixels(whole, **settings)
        assert not space.normalized
        assert torch.equal(space.pixels(whole), whole.float() / 255)
        assert space.known == bool(settings)
    with pytest.raises(
        ValueError, match="normalized=True, but images are uint8, which are pixels: leave normalized out"
    ):
        find_pixels(whole, mean=MEAN, std=STD, normalized=True)


@pytest.mark.parametrize(
    ("batch", "settings", "match"),
    [
        (
            images() * 3 - 1,
            {},
            r"images span \[-1\.00, 2\.00\], but eps is in pixel units on \[0, 1\]: pass mean=… and",
        ),
        (
            images() * 5,
            {},
            r"images span \[0\.00, 5\.00\], but eps is in pixel units on \[0, 1\]: pass mean=… and std=…",
        ),
        (
            images() * 65535,
            {},
            r"images span \[\d+\.\d\d, 65\d+\.\d\d\].*: divide them by the value of white, such as 65535 for 16-bit",
        ),
        (
            images() * 1.1 - 0.05,
            {},
            r"span \[-0\.05, 1\.05\].*: clamp them to \[0, 1\], which bicubic .*; or, if they are normalised, pass mean",
        ),
        (
            images() * 1.1 - 0.05,
            {"mean": MEAN, "std": STD},
            r"may be pixels that leave \[0, 1\] a little, .* or normalised images: clamp the pixels .*normalized=True",
        ),
        (
            normalised(images() * 1.1 - 0.05),
            {"mean": MEAN, "std": STD},
            r"fall outside \[0, 1\]: clamp images to \[0, 1\] before Normalize",
        ),
        (
            images(),
            {"mean": 0.0, "std": 255.0},
            r"std is \(255\), but it is the std of pixels .*: divide mean and std by",
        ),
        (images() * 255, {}, r"images span \[0\.\d\d, 25\d\.\d\d\].*divide float images by 255, or pass uint8"),
        (
            images() * 9 - 4,
            {"mean": MEAN, "std": STD},
            r"span \[-4\.00, 5\.00\], and with images are normalised images \(mean=\(0\.5, .*\d\d% of the pixels fall outsi",
        ),
        (normalised(), {"mean": MEAN, "std": STD, "normalized": False}, r"images span .*: pass mean=… and std=…"),
        (
            images(4, 1, 8, 8),
            {"mean": MEAN, "std": STD},
            "mean and std have 3 and 3 values, but images have 1 channel: pass one of each",
        ),
        (images(), {"mean": MEAN, "std": (0.5, 0.5)}, "mean and std have 3 and 2 values, but images have 3 channels"),
    ],
)
def test_images_that_no_choice_explains_are_refused(batch, settings, match):
    with pytest.raises(ValueError, match=match):
        find_pixels(batch, **settings)


def test_a_later_batch_in_another_space_is_refused():
    normal, raw = find_pixels(normalised(), mean=MEAN, std=STD), find_pixels(images(), mean=MEAN, std=STD)
    check_space(normal, normalised(images(seed=1)))
    for space, batch, match in (
        (normal, images() * 255, r"\d\d% of the pixels fall outside \[0, 1\]: pass the mean=… and std=…"),
        (raw, normalised(), "those of the first batch lay within .* pass normalized=True if images are normalised"),
        (raw, images() * 1.1 - 0.05, r"clamp them to \[0, 1\], which bicubic resizing leaves"),
    ):
        with pytest.raises(ValueError, match=match):
            check_space(space, batch)


def test_held_out_images_with_another_normalize_are_refused():
    loader, other = (DataLoader(normalised_pictures(mean), batch_size=4) for mean in (MEAN, OTHER))
    with pytest.raises(
        ValueError, match=r"val_loader: its Normalize has mean=\(0\.1, 0\.2, 0\.3\) and std=.*, but in the"
    ):
        hardened(small_model(), loader, val_loader=other)
    hardened(small_model(), loader, val_loader=loader, max_steps=1)


def test_a_few_erased_pixels_do_not_matter():
    batch = normalised()
    batch[0, :, :1, :2] = 7.0
    assert find_pixels(batch, mean=MEAN, std=STD).normalized
    slightly = images() + 5e-4
    assert not find_pixels(slightly).known
    assert float(find_pixels(slightly).pixels(slightly).max()) <= 1


def test_one_value_stands_for_all_channels():
    for mean, std in ((0.5, 0.25), ((0.5,), (0.25,)), (torch.tensor([0.5]), np.array([0.25]))):
        space = Pixels(mean, std)
        assert torch.allclose(space.inputs(images()), (images() - 0.5) / 0.25)


class Configured(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.pretrained_cfg = {"mean": mean, "std": std}
        self.layers = small_model()

    def forward(self, batch):
        return self.layers(batch)


def test_a_disagreement_with_the_models_own_statistics_is_told_and_changes_nothing():
    model = Configured(OTHER, STD)
    match = r"mean is \(0\.5, 0\.4, 0\.3\), but the model's pretrained_cfg says \(0\.1, 0\.2, 0\.3\): if its weights are pre-"
    with pytest.warns(UserWarning, match=match):
        space = find_pixels(normalised(), mean=MEAN, std=STD, model=model)
    assert as_numbers((space.mean,)) == approximately((MEAN,))
    assert not find_pixels(images(), model=model).known
    assert find_pixels(normalised(), mean=MEAN, std=STD, model=Configured(MEAN, STD)).normalized


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (images() / 255, r"images span \[0, 0\.0039\] .*were they divided by 255 twice\? Divide once"),
        ((images() > 0.5).to(torch.uint8), r"were pixels on \[0, 1\] cast to uint8\? Multiply them by 255 before"),
    ],
    ids=["twice", "cast"],
)
def test_pixels_of_one_level_of_255_are_warned_of(batch, says):
    for way in (hardened, one_loss, evaluated):
        with pytest.warns(UserWarning, match=says) as warned:
            way(small_model(), [(batch, GOOD[1])])
        assert len(warned) == 1


def test_black_and_dark_pixels_are_not(recwarn):
    for batch in (images() * 0, images() * 0.01, (images() * 2.9).to(torch.uint8), images().to(torch.uint8) * 0):
        find_pixels(batch, model=small_model())
    assert [str(each.message) for each in recwarn if "images span" in str(each.message)] == []


def one_loss(model, loader, **settings):
    RobustLoss(model, ThreatModel("linf", 0.1), images=loader[0][0], tasks=None, **settings)


@pytest.mark.parametrize("way", [hardened, one_loss, evaluated])
def test_a_disagreement_is_told_once(way):
    with pytest.warns(UserWarning, match="pretrained_cfg says") as warned:
        way(Configured(OTHER, STD), [(normalised(), GOOD[1])], mean=MEAN, std=STD)
    assert len(warned) == 1


# Back and forth


@given(
    mean=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    std=st.lists(st.floats(0.05, 2), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_the_way_there_and_back_ends_where_it_began(mean, std, seed):
    space, pixels = Pixels(mean, std), images(4, 3, 5, 6, seed=seed)
    assert torch.allclose(space.pixels(space.inputs(pixels)), pixels, atol=1e-5)
    assert torch.allclose(Pixels(mean, std, normalized=False).pixels(pixels), pixels)


@pytest.mark.parametrize("space", [Pixels(), Pixels(MEAN, STD), Pixels(MEAN, STD, normalized=False)])
def test_saturated_pixels_keep_their_gradient(space):
    pixels = torch.tensor([0.0, 1.0]).repeat(2, 3, 4, 1).requires_grad_()
    space.inputs(pixels).sum().backward()
    slope = 1 / torch.tensor(STD) if space.known else torch.ones(3)
    assert torch.allclose(pixels.grad, slope.reshape(1, 3, 1, 1).expand(2, 3, 4, 2))


@pytest.mark.parametrize("space", [Pixels(), Pixels(MEAN, STD)])
def test_doubles_stay_double_and_halves_become_floats(space):
    batch = normalised().double() if space.known else images().double()
    exact = space.pixels(batch)
    assert exact.dtype == space.inputs(exact).dtype == torch.float64
    for kind in (torch.float16, torch.bfloat16):
        rough = space.pixels(batch.to(kind))
        assert rough.dtype == torch.float32
        assert torch.allclose(rough.double(), exact, atol=0.01)
        assert find_pixels(batch.to(kind), mean=MEAN, std=STD).normalized is space.known


def test_images_are_left_as_they_are():
    batch = normalised()
    before = batch.clone()
    space = find_pixels(batch, mean=MEAN, std=STD)
    space.inputs(space.pixels(batch)).add_(1)
    Pixels().pixels(batch)
    assert torch.equal(batch, before)


# Through the whole


def test_training_on_normalised_images_equals_training_on_pixels_with_the_same_statistics():
    states = []
    for batch in (normalised(), images()):
        model = small_model()
        before = everything(model)
        hardened(model, [(batch, GOOD[1])], mean=MEAN, std=STD, epochs=2)
        assert everything(model)[0] == before[0]
        states.append(model.state_dict())
    assert all(torch.allclose(states[0][key], states[1][key], atol=1e-5) for key in states[0])


def test_every_way_finds_the_same_in_a_loader(caplog):
    loader = DataLoader(normalised_pictures(), batch_size=4)
    with caplog.at_level("INFO", logger="robusttune"):
        hardened(small_model(), loader, max_steps=1)
    assert "normalised images (mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2))" in caplog.text
    plain = evaluated(small_model(), DataLoader(Pictures(v1.ToTensor()), batch_size=4), mean=MEAN, std=STD)
    assert evaluated(small_model(), loader)[0].value == plain[0].value


def test_the_space_is_told_in_words():
    assert str(Pixels()) == "images are pixels on [0, 1], and so is the model's input"
    assert str(Pixels(MEAN, STD)).startswith("images are normalised images (mean=(0.5, 0.4, 0.3), std=(0.25")
    assert "pixels, which are normalised before the model" in str(Pixels(MEAN, STD, normalized=False))
