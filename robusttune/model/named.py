"""Models by name: of timm, of torchvision, or of a function."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import timm
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision import models as zoo

from robusttune.model.new_classifier import give_weights_and_classifier, sample_inputs_of
from robusttune.model.trust import LIBRARIES as LIBRARIES
from robusttune.plugins import did_you_mean
from robusttune.run import files

NAMES = "'timm:NAME', 'torchvision:NAME' or 'package.module:function'"

T = TypeVar("T")


@dataclass(frozen=True)
class NamedModel:
    """The facts that a model is made from.

    Attributes:
        model: 'timm:NAME', 'torchvision:NAME' or 'package.module:function'.
        model_args: more arguments of the function that makes it.
        pretrained: fetch the weights that timm or torchvision publish.
        channels: the number of channels of its images; only timm's models can have another number than three.
        checkpoint: its weights: a file, or the folder of a run; None for those that it is made with.
        size: side of its images in pixels.
    """

    model: str
    model_args: Mapping[str, Any] | None = None
    pretrained: bool = False
    channels: int = 3
    checkpoint: str | None = None
    size: int = 224

    @property
    def of_library(self) -> bool:
        """True for a model of timm or torchvision, which can be made with any number of outputs."""
        return self.model.partition(":")[0] in LIBRARIES


def model_of(sources: NamedModel, classes: int | None) -> nn.Module:
    """Make the model, with weights from its checkpoint if there is one.

    Args:
        sources: the name of the model, and how to make it. A module in the working directory counts, too; only timm's
            models can have another number of channels than three.
        classes: outputs of a new classifier; None for those that the model has.

    Raises:
        ValueError: there is no such model, or the weights do not fit it.
    """
    name, pretrained = sources.model, sources.pretrained
    library, _, model = name.partition(":")
    if not model:
        raise ValueError(f"the model is {name!r}, but {NAMES} is needed, such as timm:resnet18")
    outputs = {} if classes is None else {"num_classes": classes}
    settings = dict(sources.model_args or {})
    module: object
    if library == "timm":
        if not timm.is_model(model.split(".")[0]) and "/" not in model:
            raise ValueError(
                f"timm has no model {model!r}{did_you_mean(model, timm.list_models())}: timm.list_models() lists them"
            )
        settings = {"in_chans": sources.channels, "pretrained": pretrained, **outputs, **settings}
        module = called(name, timm.create_model, model, **settings)
    elif library == "torchvision":
        settings = {
            "weights": "DEFAULT" if pretrained else None,
            **({} if pretrained or settings.get("weights") else outputs),
            **settings,
        }
        if settings["weights"]:
            called(name, _read_without_pickle, model, settings["weights"])
        module = called(name, zoo.get_model, model, **settings)
    else:
        module = called(name, _function(library, model), **settings)
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name} returned a {type(module).__name__}, but a torch.nn.Module is needed")
    if sources.checkpoint is not None:
        inputs = sample_inputs_of(module, sources.channels, sources.size)
        give_weights_and_classifier(module, files.load_weights(sources.checkpoint), sources.checkpoint, inputs)
    return module


def _read_without_pickle(model: str, weights: object) -> None:
    """Fetch torchvision's weights, and read them as tensors alone: torchvision then reads the same file with pickle.

    Raises:
        Exception: the file holds something else, or its hash is another.
    """
    known = zoo.get_model_weights(model)
    chosen = known[str(weights).rpartition(".")[2]] if isinstance(weights, str) else weights
    assert isinstance(chosen, zoo.WeightsEnum)
    chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)


def _function(module: str, name: str) -> Callable[..., object]:
    """Import a function by the name of its module, which may be in the working directory."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function: Callable[..., object] = getattr(importlib.import_module(module), name)
        return function
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise  # the module exists, but imports one that does not
        raise ValueError(f"there is no module {module!r} here: the model is {NAMES}") from error
    except AttributeError as error:
        raise ValueError(
            f"the module {module!r} has no {name!r}: name a function in it that makes the model"
        ) from error


def called(subject: str, create: Callable[..., T], *arguments: object, **keywords: object) -> T:
    """Call a function of another library; its errors become ValueErrors that name the object it should create."""
    try:
        return create(*arguments, **keywords)
    except Exception as error:
        raise ValueError(f"{subject} cannot be created: {error}") from error


def statistics_of(sources: NamedModel, model: nn.Module) -> tuple[Sequence[float], Sequence[float]] | tuple[None, None]:
    """Look up the mean and std that the model's images are usually normalised with; (None, None) if they are unknown."""
    known = getattr(model, "pretrained_cfg", None)
    library = sources.model.partition(":")[0]
    if library == "timm" and isinstance(known, dict) and len(known.get("mean", ())) == sources.channels:
        return known["mean"], known["std"]
    if library == "torchvision" and sources.pretrained:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return None, None
