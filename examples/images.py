"""Real images for the examples: scikit-learn's digits, Fashion-MNIST where it is installed, or a folder."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

SIDE = 32
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it


def loaders(
    data: str, *, train: int | None = None, test: int | None = None, batch: int = 128
) -> tuple[DataLoader, DataLoader]:
    """A shuffled training loader and a test loader of (images (N,C,H,W) in [0,1], labels (N,)).

    Args:
        data: "digits", "fashion-mnist", or a folder with a folder of images for each class.
        train, test: how many images of each; all unless given.
        batch: images a batch.
    """
    known = {"digits": digits, "fashion-mnist": fashion_mnist}
    training, testing = known[data]() if data in known else folder(data)
    training = first(training, train)
    return DataLoader(training, batch, shuffle=True), DataLoader(first(testing, test), batch)


def digits() -> tuple[Dataset, Dataset]:
    """1,297 and 500 handwritten digits, enlarged from 8 px to 32 px."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = images[order], torch.tensor(data.target)[order]
    return TensorDataset(images[:-500], labels[:-500]), TensorDataset(images[-500:], labels[-500:])


def fashion_mnist() -> tuple[Dataset, Dataset]:
    """60,000 and 10,000 pictures of clothes, with a black border of 2 px around their 28 px."""
    return _idx("train"), _idx("t10k")


def folder(path: str) -> tuple[Dataset, Dataset]:
    """Four fifths and one fifth of the images in a folder of class folders, at 32 px."""
    from torchvision import datasets, transforms

    if not any(each.is_dir() for each in Path(path).glob("*")):
        raise SystemExit(
            f"{path!r} has no folders of images, one for each class: pass digits, fashion-mnist or such a folder"
        )
    shape = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor()])
    training, testing = random_split(datasets.ImageFolder(path, shape), [0.8, 0.2], torch.Generator().manual_seed(0))
    return training, testing


def first(images: Dataset, count: int | None) -> Dataset:
    """The first images of a data set, which is in random order already."""
    return images if count is None else torch.utils.data.Subset(images, range(min(count, len(images))))


def shape_and_classes(loader: DataLoader) -> tuple[int, int]:
    """The number of channels and of classes."""
    labels = torch.cat([labels for _, labels in loader])
    return next(iter(loader))[0].shape[1], int(labels.max()) + 1


def _idx(name: str) -> TensorDataset:
    pixels = _read(FASHION_MNIST / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = _read(FASHION_MNIST / f"{name}-labels-idx1-ubyte.gz", 8)
    images: Tensor = F.pad(torch.from_numpy(pixels).float() / 255, (2, 2, 2, 2))
    pictures = TensorDataset(images, torch.from_numpy(labels).long())
    pictures.classes = CLOTHES  # where robusttune looks for names
    return pictures


def _read(path: Path, header: int) -> np.ndarray:
    if not path.exists():
        raise SystemExit(f"{path} is not there: install Debian's dataset-fashion-mnist, or use --data digits")
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header).copy()
