"""Fashion-MNIST with other numbers of classes than ten."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from examples.images import fashion_mnist


def two_classes() -> tuple[TensorDataset, TensorDataset]:
    """T-shirts and shirts, the two classes that are taken for each other most often."""
    return tuple(_two(*kind.tensors) for kind in fashion_mnist())


def pairs() -> tuple[TensorDataset, TensorDataset]:
    """Two images side by side, each squeezed to half its width: 100 classes."""
    return tuple(_pairs(*kind.tensors) for kind in fashion_mnist())


def _two(images: Tensor, labels: Tensor) -> TensorDataset:
    shirts = (labels == 0) | (labels == 6)
    return TensorDataset(images[shirts], (labels[shirts] == 6).long())


def _pairs(images: Tensor, labels: Tensor) -> TensorDataset:
    others = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    narrow = F.avg_pool2d(images, (1, 2))
    return TensorDataset(torch.cat([narrow, narrow[others]], dim=3), 10 * labels + labels[others])
