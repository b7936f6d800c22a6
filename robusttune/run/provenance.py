"""What was measured, with what: fingerprints and versions."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

PACKAGES = ("torch", "torchvision", "timm", "kornia", "torchattacks", "foolbox", "adv-lib")


def fingerprint(model: nn.Module) -> str:
    """A hash of the names and values of the model's parameters and buffers; the device does not matter."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def of_all(hashes: Iterable[str]) -> str:
    """One hash of many, whatever their order."""
    return hashlib.blake2b("".join(sorted(hashes)).encode(), digest_size=8).hexdigest()


def versions() -> dict[str, str]:
    """Those of Python and of the packages that take part in measuring, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
