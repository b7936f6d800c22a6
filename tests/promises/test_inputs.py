"""The tables of docs/inputs.md: each row is trained on and measured, or refused in the words that the page quotes."""

import io
import re
from functools import cache, partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from guarded import hardened
from odd_models import InPlace, Probe, adapted
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)
from torchvision.transforms import v2

import robusttune

PAGE = Path(__file__).parents[2] / "docs" / "inputs.md"
CLASSES = 4
SLOW = "transformers|torch.export|create_loader`$|datasets|webdataset|compile|worker processes|torchvision|distilled"


def rows(title):
    """(name, accepted, details) of each row of the table under a heading; rows that group others are left out."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = [re.split(r" *\| *", line.strip("| ")) for line in re.findall(r"^\| .*\|$", text, re.MULTILINE)][1:]
    cells = [[*row, "", ""][:3] for row in cells]
    return [tuple(row) for row in cells if not row[0].startswith("**") and not row[0].startswith("---")]


def cases(title):
    """The rows as cases; those that import much, or start processes, are slow."""
    return [
        pytest.param(*row, id=row[0][:50], marks=[pytest.mark.slow] if re.search(SLOW, row[0]) else [])
        for row in rows(title)
    ]


def quoted(details):
    return re.findall(r'"([^"]+)"', details)


@cache
def pictures(channels=3, side=8):
    return torch.rand(8, channels, side, side, generator=torch.Generator().manual_seed(0))


def labels():
    return torch.arange(8) % CLASSES


def data(transform=None, channels=3):
    return WithTransform(pictures(channels), transform)


class WithTransform(torch.utils.data.Dataset):
    """Images through a transform, as data sets of torchvision hold one."""

    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        image = self.images[row]
        return (image if self.transform is None else self.transform(image)), int(labels()[row])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([data()[row] for row in range(8)])


class Unsized:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def any_size(channels=3, *body):
    """A model for images of any size."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 6, 3), *body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES))


def with_batch_norm():
    return any_size(3, nn.BatchNorm2d(6))


def pair(images=None, targets=None):
    """A loader of one batch."""
    return [(pictures() if images is None else images, labels() if targets is None else targets)]


def png(row):
    held = io.BytesIO()
    Image.new("RGB", (8, 8), (30 * row, 9, 200)).save(held, "png")
    return held.getvalue()


def hugging_face():
    datasets, arrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    columns = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=CLASSES)})
    stored = {"image": [{"bytes": png(row), "path": None} for row in range(8)], "label": labels().tolist()}
    table = datasets.table.InMemoryTable(arrow.table(stored).cast(columns.arrow_schema))
    read = datasets.Dataset(table, info=datasets.DatasetInfo(features=columns), fingerprint="eight")
    return DataLoader(read.with_format("torch"), 4)


def web_loader(folder):
    webdataset = pytest.importorskip("webdataset")
    path = folder / "images-000.tar"
    with webdataset.TarWriter(str(path)) as tar:
        for row in range(8):
            tar.write({"__key__": f"{row:04d}", "png": png(row), "cls": row % CLASSES})
    stored = webdataset.WebDataset(str(path), shardshuffle=False)
    return webdataset.WebLoader(stored.decode("torchrgb").to_tuple("png", "cls"), batch_size=4)


class Files(torch.utils.data.Dataset):
    """PIL images through the transform that timm sets."""

    transform = None

    def __len__(self):
        return 8

    def __getitem__(self, row):
        return self.transform(Image.new("RGB", (8, 8), (30 * row, 9, 200))), row % CLASSES


def of_timm(prefetched):
    settings = {"input_size": (3, 8, 8), "batch_size": 4, "num_workers": 0, "use_prefetcher": prefetched}
    return timm.data.create_loader(Files(), **settings, **({"device": torch.device("cpu")} if prefetched else {}))


def one_hot():
    return F.one_hot(labels(), CLASSES).float()


normalize = v2.Normalize([0.4], [0.3])
# By the first cell of a row: () -> loader, or (loader, the model for it).
LOADERS = {
    "pairs of images and labels, from a `DataLoader`": lambda: DataLoader(data(), 4),
    "a list or a tuple of batches": lambda: tuple(DataLoader(data(), 4)),
    "longer tuples, such as (image, label, path)": lambda: [(pictures(), labels(), ["file.png"] * 8)],
    "dicts with known keys": lambda: [
        {"pixel_values": pictures(), "labels": labels()},
        {"img": pictures(), "y": labels()},
    ],
    "dicts with other keys": lambda: [{"photo": pictures(), "label": labels()}],
    'Hugging Face `datasets`, by `with_format("torch")` in a `DataLoader`': hugging_face,
    "webdataset's `WebLoader`": web_loader,
    "timm's `create_loader`": partial(of_timm, prefetched=False),
    "timm's `create_loader` with its prefetcher": partial(of_timm, prefetched=True),
    "an object with `__iter__` and without a length": lambda: Unsized(pair()),
    "a generator": lambda: iter(pair()),
    "an `IterableDataset` in a `DataLoader`": lambda: DataLoader(Stream(), 4),
    "a weighted or random sampler": lambda: DataLoader(data(), 4, sampler=WeightedRandomSampler([1.0] * 8, 6)),
    "a batch sampler": lambda: DataLoader(data(), batch_sampler=BatchSampler(SequentialSampler(data()), 4, False)),
    "whole batches from the data set (`batch_size=None`)": lambda: DataLoader(pair(), batch_size=None),
    "a `Subset` or a `ConcatDataset` in a `DataLoader`": lambda: DataLoader(
        ConcatDataset([Subset(data(normalize), range(4)), data(normalize)]), 4
    ),
    "a loader with worker processes (`num_workers=2`)": lambda: DataLoader(data(), 4, num_workers=2),
    "a last batch of one image, for a model with batch norm": lambda: (DataLoader(data(), 7), with_batch_norm()),
    "a data set without a `DataLoader`": lambda: TensorDataset(pictures(), labels()),
    "images alone, without labels": lambda: [pictures()],
    "uint8 images": lambda: pair(pictures().mul(255).byte()),
    "float64, float16 or bfloat16 images": lambda: [
        (pictures().to(each), labels()) for each in (torch.float64, torch.float16, torch.bfloat16)
    ],
    "normalised images, with `Normalize` in the data set's transform": lambda: DataLoader(data(normalize), 4),
    "normalised images in a list of batches": lambda: pair(normalize(pictures())),
    "floats from 0 to 255": lambda: pair(pictures() * 255),
    "int32 images": lambda: pair((pictures() * 255).int()),
    "16-bit images (uint16)": lambda: pair((pictures() * 65535).int().to(torch.uint16)),
    "greyscale images (N,1,H,W)": lambda: (pair(pictures(1)), any_size(1)),
    "another number of channels than the model takes": lambda: pair(pictures(1)),
    "five channels, such as satellite images": lambda: (pair(pictures(5)), any_size(5)),
    "(N,H,W,C)": lambda: pair(pictures().permute(0, 2, 3, 1)),
    "(N,C,H,W) in the memory format `channels_last`": lambda: pair(pictures().to(memory_format=torch.channels_last)),
    "other sizes from batch to batch": lambda: [*pair(), *pair(pictures(side=12))],
    "other sizes within a batch (a list of tensors)": lambda: pair(list(pictures())),
    "PIL images": lambda: pair([Image.new("RGB", (8, 8))] * 8),
    "NumPy arrays, such as those of `tf.data`": lambda: pair(pictures().numpy()),
    "NaN": lambda: pair(pictures() * float("nan")),
    "class numbers as int32, uint8, a list, an array, or (N,1)": lambda: [
        (pictures(), form(labels()))
        for form in (
            torch.Tensor.int,
            torch.Tensor.byte,
            torch.Tensor.tolist,
            torch.Tensor.numpy,
            lambda each: each[:, None],
        )
    ],
    "one-hot labels (N,K)": lambda: pair(targets=one_hot()),
    "soft labels (N,K), such as those of MixUp and CutMix": lambda: DataLoader(
        data(), 8, collate_fn=lambda batch: v2.CutMix(num_classes=CLASSES)(*torch.utils.data.default_collate(batch))
    ),
    "class numbers as floats": lambda: pair(targets=labels().float()),
    "numbers from 1 to K": lambda: pair(targets=labels() + 1),
    "texts": lambda: pair(targets=["cat"] * 8),
    "several classes for an image (multi-label)": lambda: pair(targets=(one_hot() + one_hot().roll(1, 1)).clamp(max=1)),
    "masks (N,H,W), as in segmentation": lambda: pair(targets=torch.zeros(8, 8, 8).long()),
}


class Returning(nn.Module):
    """A model whose output is wrapped, or comes from something else than its last layer."""

    def __init__(self, wrapped, outputs=CLASSES, **layers):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        layers = layers or {"head": nn.Linear(4, outputs)}
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.wrapped = wrapped

    def forward(self, images):
        return self.wrapped(self, self.body(images))


def of_transformers():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=32, patch_size=16, num_labels=CLASSES, **sizes)
    )


def frozen():
    model = with_batch_norm()
    model[1].eval()
    for parameter in (*model[0].parameters(), *model[1].parameters()):
        parameter.requires_grad_(False)
    return model


def compiled_in_place():
    model = any_size()
    model.compile()
    return model


def quantised():
    model = any_size()
    model[-1].weight = nn.Parameter(torch.ones(CLASSES, 6, dtype=torch.int8), requires_grad=False)
    return model


def scripted_part():
    model = any_size()
    model[0] = torch.jit.script(nn.Sequential(v2_free_normalisation(), model[0]))
    return model


def v2_free_normalisation():
    return torchvision.transforms.Normalize([0.5] * 3, [0.5] * 3)


def without_gradient():
    with torch.inference_mode():
        return any_size()


def digits_of(model):
    return [(pictures(1), labels())], model


def at_32(model):
    return [(pictures(side=32)[:4], labels()[:4])], model


def on_meta():
    return any_size().to("meta")


# By the first cell of a row: () -> model, or (loader, model).
MODELS = {
    "a convolutional net of timm": lambda: at_32(timm.create_model("test_resnet", num_classes=CLASSES)),
    "a vision transformer of timm": lambda: at_32(timm.create_model("test_vit", num_classes=CLASSES, img_size=32)),
    "a distilled transformer with two classifiers": lambda: at_32(
        timm.create_model(
            "deit_tiny_distilled_patch16_224", img_size=32, num_classes=CLASSES, depth=1, embed_dim=24, num_heads=2
        )
    ),
    "a model of torchvision": lambda: at_32(torchvision.models.squeezenet1_1(num_classes=CLASSES)),
    "an image classifier of Hugging Face transformers": lambda: at_32(of_transformers()),
    "your own `nn.Module`": any_size,
    "one that returns a tuple whose first item is the logits": lambda: Returning(
        lambda net, each: (net.head(each), each)
    ),
    "one that returns a dict with the key `logits`": lambda: Returning(
        lambda net, each: {"features": each, "logits": net.head(each)}
    ),
    "one that begins with its own normalisation": lambda: nn.Sequential(v2_free_normalisation(), any_size()),
    "one with frozen weights or frozen batch norms": frozen,
    "one with adapters (LoRA)": lambda: digits_of(adapted()),
    "one in float64": lambda: any_size().double(),
    "one in `channels_last`": lambda: any_size().to(memory_format=torch.channels_last),
    "one with dropout or stochastic depth": lambda: any_size(
        3, nn.Dropout(0.5), torchvision.ops.StochasticDepth(0.5, "row")
    ),
    "one that writes into its input": lambda: digits_of(InPlace()),
    "one whose classifier layer cannot be found": lambda: Returning(
        lambda net, each: net.one(each) - net.two(each), one=nn.Linear(4, CLASSES), two=nn.Linear(4, CLASSES)
    ),
    "one that ends in a softmax": lambda: any_size().append(nn.Softmax(1)),
    "one compiled by `torch.compile`": lambda: torch.compile(any_size(), backend="eager"),
    "one compiled in place by `model.compile()`": compiled_in_place,
    "`DataParallel` or `DistributedDataParallel`": lambda: nn.DataParallel(any_size()),
    "TorchScript": lambda: torch.jit.script(any_size()),
    "a part in TorchScript, without running statistics": scripted_part,
    "one from `torch.export`": lambda: torch.export.export(any_size(), (pictures(),)).module(),
    "a quantised model": quantised,
    "one with a single output, for sigmoid (yes or no)": lambda: Returning(lambda net, each: net.head(each), outputs=1),
    "one for detection or segmentation": lambda: nn.Conv2d(3, CLASSES, 1),
    "one without a classifier (timm's `num_classes=0`)": lambda: at_32(timm.create_model("test_resnet", num_classes=0)),
    "one with all weights frozen": lambda: any_size().requires_grad_(False),
    "one with lazy layers that never ran": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES)),
    "one on the meta device": on_meta,
    "one created in `torch.inference_mode()`": without_gradient,
    "one whose body runs under `torch.no_grad()`": lambda: digits_of(Probe()),
    "a function, a path, an ONNX session": lambda: any_size().forward,
}


def use(loader, model, **settings):
    """One epoch, in which something is learnt; then a measurement, of which harden's own settings are no part: of how many images."""
    before = [parameter.detach().clone() for parameter in model.parameters()] if isinstance(model, nn.Module) else []
    epochs = settings.pop("epochs", None)
    again = list(loader) if epochs else loader  # a generator's batches are gone once they were trained on
    hardened(model, iter(again) if epochs else loader, lr=0.01, **settings)
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    settings.pop("classifier", None)  # which evaluate does not need
    return robusttune.evaluate(model, again, "clean", progress=False, **settings)[0].images


def refused(loader, model, words):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        hardened(model, loader, epochs=2)
    assert isinstance(caught.value, ValueError)
    assert words, "the page must quote the error"
    for each in words:
        assert each in str(caught.value)


def tried(make, accepted, details):
    """Check a row, and return how many images were measured: `make` returns a new loader and a new model each time."""
    if accepted == "yes":
        return use(*make())
    if accepted == "with a warning":
        with pytest.warns(UserWarning, match=re.escape(quoted(details)[0])):
            return use(*make())
    refused(*make(), quoted(details))
    if accepted == "no":
        return 0
    argument = re.fullmatch(r"with `(.+)`", accepted)[1]
    return use(*make(), **eval(f"dict({argument})"))


@pytest.mark.parametrize(("name", "accepted", "details"), cases("Loaders"))
# webdataset leaves the file open of which a first batch alone was read.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_each_row_of_loaders(name, accepted, details, tmp_path):
    make = LOADERS[name]

    def made():
        loader = make(tmp_path) if make is web_loader else make()
        return loader if isinstance(loader, tuple) and isinstance(loader[1], nn.Module) else (loader, any_size())

    assert (tried(made, accepted, details) > 0) == (accepted != "no")


@pytest.mark.parametrize(("name", "accepted", "details"), cases("Models"))
@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:.*torch.ao")
def test_each_row_of_models(name, accepted, details):
    def made():
        model = MODELS[name]()
        return model if isinstance(model, tuple) else (pair(), model)

    assert (tried(made, accepted, details) > 0) == (accepted != "no")


def test_the_tables_and_the_cases_are_of_the_same_inputs():
    assert [name for name, *_ in rows("Loaders")] == list(LOADERS)
    assert [name for name, *_ in rows("Models")] == list(MODELS)


@pytest.mark.filterwarnings("ignore:.*torch.ao", "ignore:.*quantize", "ignore:.*quantized")
def test_evaluate_takes_models_that_cannot_be_trained():
    quantised_layers = torch.ao.quantization.quantize_dynamic(any_size().eval(), {nn.Linear})
    assert robusttune.evaluate(quantised_layers, pair(), "clean", progress=False)[0].images == 8
    frozen_weights = any_size().requires_grad_(False)
    attacked = robusttune.evaluate(frozen_weights, pair(), ["clean", "quick"], norm="linf", progress=False)
    assert {record.evaluation for record in attacked} == {"clean", "quick"}
