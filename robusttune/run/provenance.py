"""Fingerprints of models and data, and versions of packages, as records and `run.json` keep them."""

import hashlib
import io
import platform
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

PACKAGES = ("torch", "torchvision", "timm", "kornia", "torchattacks", "foolbox", "adv-lib")


def fingerprint(model: nn.Module, *, trained: bool = False) -> str:
    """Hash the names and values of the model's parameters, buffers and extra state; it is the same on every device.

    Args:
        model: the model.
        trained: hash the parameters that require grad alone.
    """
    values = model.state_dict().items()
    if trained:
        values = {name: value for name, value in model.named_parameters() if value.requires_grad}.items()
    return digest(part for name, value in values for part in _parts(name, value))


def _parts(name: str, value: object) -> Iterator[bytes]:
    """Yield the name and the values of an entry of a state_dict, of which `_extra_state` may be any object."""
    if isinstance(value, Tensor):
        yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
        yield tensor_bytes(value)
    elif isinstance(value, Mapping):
        for key in value:
            yield from _parts(f"{name}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _parts(f"{name}.{number}", each)
    elif isinstance(value, io.BytesIO):
        yield name.encode() + value.getvalue()
    else:  # the text of other objects holds their address, which differs in each process
        plain = value is None or isinstance(value, str | bytes | bool | int | float)
        yield f"{name} {value!r}".encode() if plain else f"{name} {type(value).__name__}".encode()


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
    """Copy the values of a tensor of any type, on any device, as bytes; of a sparse one, indices and values."""
    if tensor.layout != torch.strided:
        sparse = tensor.detach().cpu().to_sparse().coalesce()
        return tensor_bytes(sparse.indices()) + tensor_bytes(sparse.values())
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


def commit() -> str | None:
    """Return the commit of the repository that the working directory is in; None if it is in none, or git is missing.

    Changes that are not committed are not looked at.
    """
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None
