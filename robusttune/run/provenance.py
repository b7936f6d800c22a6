"""Fingerprints of models and data, and versions of packages, as records and `run.json` keep them."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

PACKAGES = ("torch", "torchvision", "timm", "kornia", "torchattacks", "foolbox", "adv-lib")


def fingerprint(model: nn.Module) -> str:
    """Hash the names and values of the model's parameters and buffers; the hash is the same on every device."""
    state = model.state_dict().items()
    heads = (f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() for name, tensor in state)
    values = (tensor_bytes(tensor) for _, tensor in state)
    return digest(part for both in zip(heads, values, strict=True) for part in both)


def of_all(hashes: Iterable[str]) -> str:
    """Hash several hashes, sorted first, so that their order does not matter."""
    return digest(text.encode() for text in sorted(hashes))


def digest(parts: Iterable[bytes]) -> str:
    """Return the 16 hexadecimal digits of a blake2b hash of all parts in turn."""
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        total.update(part)
    return total.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Copy the values of a tensor of any type, on any device, as bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes()


def versions() -> dict[str, str]:
    """Return the versions of Python and of those in `PACKAGES` that are installed."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed
