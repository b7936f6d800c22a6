"""Checkpoints of other programs: the weights in them, and their names without what wrappers put before them."""

import argparse
import logging
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from robusttune.run.advisories import check_unpickler
from robusttune.run.archives import check_expansion

NESTED = ("state_dict", "model", "model_state_dict")  # keys of the weights in checkpoints of other programs
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema")  # beside those
REFUSED = re.compile(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)|TorchScript")

logger = logging.getLogger("robusttune")


class NotRead(ValueError):
    """A file that is not read, as that may run code."""


def read_checkpoint(path: Path, *, mapped: bool = False) -> object:
    """Read what a file of torch holds, with its tensors on the CPU, and without running code in it.

    The training scripts of timm and torchvision keep their options in it as an argparse.Namespace, which is data alone.

    Args:
        path: the file.
        mapped: leave tensors on the disk until they are used, which is quick; the file must stay as it is that long.

    Raises:
        NotRead: the file holds an object of another class, which only code could make, or this torch has a fault.
        Exception: of torch's, for a damaged file.
    """
    try:
        check_unpickler(path)
    except ValueError as error:
        raise NotRead(str(error)) from error
    check_expansion(path, "the weights")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except Exception as error:
        refused = REFUSED.search(str(error))
        if refused is None:
            raise
        what = "a TorchScript model" if refused[1] is None else f"a pickled {refused[1]}"
        raise NotRead(
            f"{str(path)!r} holds {what}, which is code, and is not run here: if you trust the file, load it in Python, and save "
            "the model's state_dict() to another file"
        ) from error


def weights_in(content: object, source: str | None) -> dict[str, Tensor]:
    """Return the weights in what a file holds; where it has averaged ones, too, a line says which are taken.

    Args:
        content: of the file.
        source: names the file in the line; None for no line.
    """
    held = content if isinstance(content, dict) else {}
    taken = next((key for key in NESTED if isinstance(held.get(key), dict)), None)
    if taken is None:
        return held
    averaged = next((key for key in AVERAGED if isinstance(held.get(key), dict)), None)
    if averaged is not None and source is not None:
        logger.warning(
            "%r holds two sets of weights: %r is read, and %r (averaged ones) is not; to use that one, save it to a file of its own",
            *(source, taken, averaged),
        )
    return dict(held[taken])


def without_wrapper(weights: Mapping[str, Tensor], names: Iterable[str], source: str) -> Mapping[str, Tensor]:
    """Return weights by the names that the model has, where all of theirs begin with the name of one and the same wrapper.

    DataParallel puts "module." before each name, torch.compile "_orig_mod.", and Lightning that of an attribute. A line says
    what was left out. Other weights are returned as they are.

    Args:
        weights: by name.
        names: of the model's weights.
        source: names the weights in the line.

    Example:
        >>> without_wrapper({"module.bias": torch.ones(1)}, ["bias"], "a file")
        {'bias': tensor([1.])}
    """
    names = set(names)
    some = min(names, default="")
    wrappers = {name.removesuffix(some) for name in weights if name.endswith(f".{some}")}
    for wrapper in wrappers:
        if {wrapper + name for name in names} == set(weights):
            logger.warning("the names in %s begin with %r, which is left out", source, wrapper)
            return {name.removeprefix(wrapper): value for name, value in weights.items()}
    return weights
