"""Whether an installation works, as text for a bug report."""

import platform
import shutil
from importlib.metadata import PackageNotFoundError, requires, version

import torch

from robusttune.modes import available_accelerator

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
    wrong = [problem for problem in (_operators(),) if problem]
    notes = [note for note in (_compiler(), _pins()) if note]
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name) or 'missing'}" for name in PACKAGES]
    lines += [
        f"{name} {_version(name)}" if _version(name) else f"{name}: not here (pip install 'robusttune[{extra}]')"
        for name, extra in EXTRAS.items()
    ]
    lines += [f"devices: {_devices()}", f"threads: {torch.get_num_threads()}"]
    lines += [f"note: {each}" for each in notes]
    lines += [f"PROBLEM: {each}" for each in wrong] or ["no problem found"]
    return "\n".join(lines), wrong


def _operators() -> str:
    """torchvision's own operators are missing where it was built for another torch."""
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        return (
            f"torchvision {_version('torchvision')} does not fit torch {torch.__version__} "
            f"({str(error).splitlines()[0]}): install both from the same index"
        )
    return ""


def _compiler() -> str:
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


def _devices() -> str:
    found = ["cpu"]
    accelerator = available_accelerator()
    if accelerator is not None:
        count = torch.accelerator.device_count()
        found.append(f"{count} × {accelerator.type}")
    if torch.cuda.is_available():
        found.append(f"{torch.cuda.get_device_name()}, bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}")
    return ", ".join(found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
