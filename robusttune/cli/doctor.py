"""Whether an installation works, as text for a bug report; torch and torchvision need not be importable for this."""

import platform
import shutil
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

PACKAGES = ("robusttune", "torch", "torchvision", "timm", "kornia", "accelerate", "numpy")
EXTRAS = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "matplotlib": "report",
    "markdown": "report",
    "scipy": "certified",
    "jsonargparse": "cli",
}


def doctor() -> tuple[str, list[str]]:
    """What is installed here, line by line, and what is wrong with it."""
    wrong = [problem for problem in (_torch() or _operators() or _library(),) if problem]
    notes = [] if wrong else [note for note in (_compiler(), _pins()) if note]
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name) or 'missing'}" for name in PACKAGES]
    lines += [
        f"{name} {_version(name)}" if _version(name) else f"{name}: not here (pip install 'robusttune[{extra}]')"
        for name, extra in EXTRAS.items()
    ]
    lines += [] if _torch() else _hardware()
    lines += [f"note: {each}" for each in notes]
    lines += [f"PROBLEM: {each}" for each in wrong] or ["no problem found"]
    return "\n".join(lines), wrong


def unusable(error: Exception) -> Callable[[str], Any]:
    """A module-level `__getattr__` that raises why the library could not be imported."""

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(why_unusable(error)) from error

    return missing


def why_unusable(error: Exception) -> str:
    """The fault of this installation behind an error of importing the library, in one line."""
    fault = _torch() or _operators() or f"{type(error).__name__}: {error}"
    return f"robusttune cannot work here: {fault}; `python -m robusttune doctor` says more"


def _torch() -> str:
    try:
        import torch
    except Exception as error:
        return f"torch {_version('torch') or '(missing)'} cannot be imported ({_first(error)}): install it anew"
    return "" if hasattr(torch, "accelerator") else f"torch {torch.__version__} is too old: install 2.6 or later"


def _operators() -> str:
    """torchvision's own operators are missing where it was built for another torch."""
    import torch

    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        return (
            f"torchvision {_version('torchvision') or '(missing)'} does not fit torch {torch.__version__} "
            f"({_first(error)}): install both from the same index"
        )
    return ""


def _library() -> str:
    try:
        import_module("robusttune.training.harden")
    except Exception as error:
        return f"robusttune cannot be imported ({type(error).__name__}: {_first(error)})"
    return ""


def _compiler() -> str:
    import torch

    if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return ""
    return "no C++ compiler: compile=True will say so and go on without"


def _pins() -> str:
    """torchattacks asks for an old version of requests that it never imports."""
    try:
        needs = [each for each in requires("torchattacks") or [] if each.startswith("requests")]
    except PackageNotFoundError:
        return ""
    here = _version("requests")
    if not needs or here is None or not here.startswith("2.25."):
        return ""  # installed without its dependencies, as the README advises beside newer packages
    held = f"requests {here} is held back by torchattacks ({needs[0]})"
    return f"{held}: where another package needs a newer one, pip install --no-deps torchattacks"


def _hardware() -> list[str]:
    """Devices, precisions and threads."""
    import torch

    from robusttune.model.devices import available_accelerator

    found, precisions = ["cpu"], ["fp32", "bf16 (slow where the processor has no instructions for it)"]
    accelerator = available_accelerator()
    if accelerator is not None:
        found.append(f"{torch.accelerator.device_count()} × {accelerator.type}")
        precisions = ["fp32", "fp16"]
    if torch.cuda.is_available():
        found.append(torch.cuda.get_device_name())
        precisions += ["bf16"] if torch.cuda.is_bf16_supported() else []
    return [
        f"devices: {', '.join(found)}",
        f"precisions: {', '.join(precisions)}",
        f"threads: {torch.get_num_threads()}",
    ]


def _first(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
