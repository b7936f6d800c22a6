"""The check of an installation, as text for a bug report; it works where torch and torchvision cannot be imported."""

import os
import platform
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

PACKAGES = ("robusttune", "torch", "torchvision", "timm", "kornia", "accelerate", "numpy")
EXTRAS = {
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "matplotlib": "report",
    "markdown": "report",
    "scipy": "certified",
    "shtab": "cli",
}
BUSY = 1.5  # programs that want to run, for each core
READERS = ("safetensors", "pillow", "PyYAML")  # of files that others may have written


def run_doctor(*, security: bool = False) -> int:
    """Check the installation, and print what a bug report needs: the exit code is 1 if something is wrong.

    Args:
        security: list the faults that are published for the installed versions, too: those that this library knows of, and those
            that the database of osv.dev has, which is asked for them by name and version.
    """
    text, wrong = doctor()
    print(text)
    found = published() if security else []
    for line in found:
        print(line)
    return 1 if wrong or any(line.startswith("PROBLEM") for line in found) else 0


def published() -> list[str]:
    """List the published faults of the installed packages, line by line."""
    from robusttune.run.advisories import ADVISORIES, looked_up, numbers_of

    installed = {name: found for name in (*PACKAGES, *EXTRAS, *READERS) if (found := _version(name))}
    lines = [
        f"PROBLEM: {each.package} {installed[each.package]} has {each.name}: {each.what} ({each.source}); fixed in "
        f"{'.'.join(map(str, each.fixed))}"
        for each in ADVISORIES
        if each.package in installed and numbers_of(installed[each.package]) < each.fixed
    ]
    try:
        known = looked_up(installed)
    except OSError as error:
        return [
            *lines,
            f"note: osv.dev cannot be asked ({error}); only the {len(ADVISORIES)} faults known to this version were looked at",
        ]
    lines += [
        f"PROBLEM: {name} {installed[name]} has {', '.join(ids)}: see https://osv.dev/{ids[0]}"
        for name, ids in known.items()
    ]
    return lines or [f"no fault is published for {len(installed)} packages, by osv.dev"]


def doctor() -> tuple[str, list[str]]:
    """Describe the installation line by line, and list what is wrong with it."""
    wrong = [problem for problem in (_torch() or _operators() or _library(),) if problem]
    notes = [] if wrong else [note for note in (_compiler(), _pins(), _load()) if note]
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines += [f"{name} {_version(name) or 'missing'}" for name in PACKAGES]
    lines += [
        f"{name} {_version(name)}" if _version(name) else f"{name}: not installed (pip install 'robusttune[{extra}]')"
        for name, extra in EXTRAS.items()
    ]
    lines += [] if _torch() else _hardware()
    lines += [f"note: {note}" for note in notes]
    lines += [f"PROBLEM: {problem}" for problem in wrong] or ["no problem found"]
    return "\n".join(lines), wrong


def why_unusable(error: Exception) -> str:
    """Explain in one line why the library cannot be imported."""
    fault = _torch() or _operators() or f"{type(error).__name__}: {error}"
    return f"robusttune cannot work here: {fault}; `python -m robusttune doctor` says more"


def _torch() -> str:
    """Describe what is wrong with torch; empty if nothing is."""
    try:
        import torch
    except Exception as error:
        return f"torch {_version('torch') or '(missing)'} cannot be imported ({_first(error)}): install it again"
    return "" if hasattr(torch, "accelerator") else f"torch {torch.__version__} is too old: install 2.6 or later"


def _operators() -> str:
    """Describe why torchvision's operators fail, as they do where it was built for another torch."""
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
    """Describe why the library cannot be imported."""
    try:
        import_module("robusttune.training.harden")
    except Exception as error:
        return f"robusttune cannot be imported ({type(error).__name__}: {_first(error)})"
    return ""


def _compiler() -> str:
    """Note that there is no compiler for torch.compile."""
    import torch

    if torch.cuda.is_available() or any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return ""
    return "no C++ compiler: compile=True will warn, and train without compiling"


def _pins() -> str:
    """Note that torchattacks holds requests at an old version, which it never imports."""
    try:
        needs = [need for need in requires("torchattacks") or [] if need.startswith("requests")]
    except PackageNotFoundError:
        return ""
    here = _version("requests")
    if not needs or here is None or not here.startswith("2.25."):
        return ""  # torchattacks was installed without its dependencies, as the README advises beside newer packages
    return (
        f"torchattacks holds requests at {here} ({needs[0]}): where another package needs a newer one, pip install "
        "--no-deps torchattacks"
    )


def _load() -> str:
    """Note that other programs use the processor, as several threads then wait for each other."""
    import torch

    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or load < BUSY * cores:
        return ""
    return (
        f"other programs use the processor (load {load:.1f} on {cores} cores): a run with {threads} threads may be far slower than with one, "
        "so set the environment variable OMP_NUM_THREADS=1 while they run"
    )


def _hardware() -> list[str]:
    """Describe devices, precisions and threads."""
    import torch

    from robusttune.model.devices import available_accelerator

    devices, precisions = ["cpu"], ["fp32", "bf16 (slow where the processor has no instructions for it)"]
    accelerator = available_accelerator()
    if accelerator is not None:
        devices.append(f"{torch.accelerator.device_count()} × {accelerator.type}")
        precisions = ["fp32", "fp16"]
    if torch.cuda.is_available():
        devices.append(torch.cuda.get_device_name())
        precisions += ["bf16"] if torch.cuda.is_bf16_supported() else []
    return [
        f"devices: {', '.join(devices)}",
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
