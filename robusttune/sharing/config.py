"""Configuration of a published model, in timm's format where timm makes the model: its layers, its classes, its preprocessing."""

from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import nn

from robusttune.run.about import About
from robusttune.sharing.story import Story
from robusttune.types import Json

TIMM = "timm:"
# Facts of timm's about an architecture, which hold for other weights, too.
KEPT = ("pool_size", "first_conv", "classifier", "fixed_input_size", "min_input_size")
# For images of at least this side, the command line scales the shorter side to BEFORE times that side, then crops.
CROPPED, BEFORE = 160, 1.14
UNTOLD = "not known"
PIXELS = "pixels on [0, 1]"
NORMALISED = "(pixels on [0, 1] - mean) / std"


def architecture_of(about: About) -> str | None:
    """Return timm's name of the architecture; None for a model that timm does not make."""
    name = about.model or ""
    return name.removeprefix(TIMM) if name.startswith(TIMM) else None


def input_in_words(about: About) -> str:
    """Say what the model takes: pixels, normalised images, or that it is not known."""
    if not about.input_known:
        return UNTOLD
    return PIXELS if about.mean is None else NORMALISED


def config_of(story: Story, model: nn.Module) -> dict[str, Json]:
    """Return the contents of config.json: what timm needs to make the model, and what it has no place for.

    What is not known is left out, or said to be "not known" under "robusttune".
    """
    about, architecture = story.about, architecture_of(story.about)
    names = {} if about.classes is None else {"label_names": list(about.classes)}
    config: dict[str, Json] = {"num_classes": about.outputs, **names}
    if architecture is not None:
        features = getattr(model, "num_features", None)
        config = {
            "architecture": architecture,
            **config,
            **({"num_features": features} if isinstance(features, int) else {}),
            "model_args": _model_args(about),
            "pretrained_cfg": _pretrained(story, model),
        }
    return {**config, "robusttune": _facts(story, model)}


def _model_args(about: About) -> dict[str, Json]:
    """Return the arguments with which timm makes the model, beside the number of classes."""
    channels = {"in_chans": about.channels} if about.channels not in (None, 3) else {}
    return {**dict(about.model_args or {}), **channels}


def _pretrained(story: Story, model: nn.Module) -> dict[str, Json]:
    """Return what timm keeps about weights: their input and their classifier."""
    about, known = story.about, getattr(model, "pretrained_cfg", None)
    kept = {key: known[key] for key in KEPT if isinstance(known, dict) and key in known}
    if about.channels != 3:
        kept["first_conv"] = None  # or timm would convert the first layer, as if its weights were for colour
    if about.size is not None and about.channels is not None:
        kept["input_size"] = [about.channels, *about.size]
        kept["pool_size"] = None
    if story.squares and about.size is not None:
        kept |= scaling_of(about.size[0])
    if about.input_known:
        kept |= statistics_of(about)
    return {**kept, "num_classes": about.outputs, "custom_load": False}


def scaling_of(side: int) -> dict[str, Json]:
    """Return in timm's words how the command line scales images and crops them to squares of this side."""
    # timm rounds side / crop_pct down, and the command line rounds to the nearest: half a pixel more ends at the same size.
    crop = side / (round(side * BEFORE) + 0.5) if side >= CROPPED else 1.0
    return {"crop_pct": crop, "interpolation": "bilinear", "crop_mode": "center"}


def statistics_of(about: About) -> dict[str, list[float]]:
    """Return mean and std in timm's words: 0 and 1 for a model that takes pixels."""
    channels = about.channels or 1
    mean, std = about.mean or [0.0] * channels, about.std or [1.0] * channels
    return {"mean": _short(mean), "std": _short(std)}


def _short(values: Sequence[float]) -> list[float]:
    """Return numbers with the fewest digits that are the same in single precision, as 0.485 rather than 0.48500001430511475."""
    return [float(str(torch.tensor(value, dtype=torch.float32).numpy())) for value in values]


def _facts(story: Story, model: nn.Module) -> dict[str, Json]:
    about = story.about
    return {
        "version": version("robusttune"),
        "model": about.model
        or f"{type(model).__name__}, a torch.nn.Module that neither timm nor torchvision makes by a name",
        "input": input_in_words(about),
        **({"mean": _short(about.mean), "std": _short(about.std)} if about.mean and about.std else {}),
        "input_size": None if about.size is None else [about.channels, *about.size],
        "class_names": "label_names" if about.classes is not None else UNTOLD,
        "hardened_against": {"norm": about.norm, "eps": about.eps, "eps_unit": PIXELS} if story.attacked else None,
    }
