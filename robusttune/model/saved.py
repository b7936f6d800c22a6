"""Models of earlier runs, made again from the run's folder."""

import logging
import warnings
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from robusttune.model import seen_corruptions
from robusttune.model.devices import check_module
from robusttune.model.hub import folder_of
from robusttune.model.named import NamedModel, model_of
from robusttune.model.new_classifier import give_outputs, sample_inputs_of
from robusttune.model.trust import check_named_by_file, trusting
from robusttune.run import files
from robusttune.run.about import RUN, TRAINED, About, EarlierRun, read_run
from robusttune.run.manifest import warn_if_changed
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings
from robusttune.types import PathLike

# Published weights come with other arguments of these functions, so that the same weights need them again.
ALWAYS_PRETRAINED = ("torchvision:googlenet", "torchvision:inception_v3")
WEIGHTS = (files.MODEL, files.LAST)

logger = logging.getLogger("robusttune")


def load(run: PathLike, model: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Return the model of a run with its best weights, in eval mode on the CPU.

    It takes images as in the run: `run.json` holds under "about" their size, channels, mean and std, and the names of the
    classes in the order of the outputs. `evaluate(run, loader)` reads them from there.

    Args:
        run: the folder of a run of harden or pretrain, or one of its files of weights; the folder that `robusttune.save` wrote,
            local-dir:FOLDER or, from the Hugging Face Hub, hf-hub:USER/NAME.
        model: a model of the same architecture, into which the weights are loaded. It is needed if the run does not name its model,
            because it was begun from Python with one that timm does not make. None to build the model by its name.
        trust: allow the run to name a function (code) that makes the model; otherwise only models of timm and torchvision are
            made by name.

    Raises:
        ValueError: there is no such run, it does not name its model or names code, or the model cannot be made here.

    Example:
        >>> import tempfile, timm, torch, robusttune
        >>> model = timm.create_model("test_resnet", num_classes=3)
        >>> batches = [(torch.rand(8, 3, 16, 16), torch.arange(8) % 3)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = robusttune.harden(model, batches, epochs=1, steps=1, tasks=None, out=folder, progress=False)
        ...     again = load(folder)
        >>> type(again).__name__, again.num_classes, again.training
        ('ResNet', 3, False)
    """
    check_settings({"run": run, "trust": trust})
    run = folder_of(run)
    if model is not None:
        check_module(model)
    with trusting(all_of_them=True) if trust else nullcontext():
        model = loaded(run, model)
    earlier = _trained_run(run)
    mean, std = earlier.statistics
    if earlier.about is not None and not earlier.about.input_known:
        logger.warning(
            "%r does not say whether its model takes pixels or normalised images: ask who saved it", str(run)
        )
    if mean is not None:
        logger.warning(
            "the model of %r takes images normalised with mean=%s and std=%s: pass these to evaluate and harden, or the folder "
            "in the place of the model",
            *(str(run), mean, std),
        )
    if earlier.function == "pretrain":
        warnings.warn("the run learnt without labels, so the classifier of its model is not trained", stacklevel=2)
    return model


def loaded(run: PathLike, model: nn.Module | None = None) -> nn.Module:
    """Build the model of a run, or load its weights into a model, as `load` does, without a log line about its input."""
    earlier = _trained_run(run)
    if model is None:
        named = replace(named_model(earlier), checkpoint=str(run))
        with own_randomness(0):
            model = model_of(named, outputs_of(earlier))
    else:
        files.give_weights(model, files.load_weights(run), str(run))
    seen_corruptions.remember(model, earlier.seen_corruptions)
    return model.eval()


def hardened_run(folder: PathLike) -> EarlierRun:
    """Read a run of harden.

    Raises:
        ValueError: the folder holds none.
    """
    run = run_of_checkpoint(folder)
    if run is None or run.function not in (*TRAINED, "pretrain"):
        raise ValueError(
            f"{str(folder)!r} holds no {RUN} of a run, and no model of robusttune.save: pass the folder that harden or save wrote to"
        )
    if run.function == "pretrain":
        raise ValueError(
            f"the run in {str(folder)!r} learnt without labels, so its classifier is not trained: harden it first"
        )
    return run


def start_model(run: EarlierRun) -> nn.Module:
    """Make the model of a run as it was at the run's start.

    Raises:
        ValueError: the run was not begun on the command line, so that it does not know the weights it began with.
    """
    if run.command is None or run.command.get("data") is None:
        raise ValueError(
            f"the run in {str(run.folder)!r} was begun from Python, so it does not say which weights its model began with: "
            "pass model=, with these weights"
        )
    named = replace(
        named_model(run),
        checkpoint=run.command.get("checkpoint"),
        pretrained=bool(run.command.get("pretrained")),
    )
    seed, outputs = run.arguments.get("seed", 0), outputs_of(run)
    with own_randomness(seed):
        model = model_of(named, outputs)
    with own_randomness(seed):  # as the command line does
        give_outputs(model, sample_inputs_of(model, named.channels, named.size), outputs)
    return model


def named_model(run: EarlierRun) -> NamedModel:
    """Return the facts that a run's model is made from, but for its weights.

    Raises:
        ValueError: the run does not name its model.
    """
    options = model_options(run)
    if "model" not in options:
        raise ValueError(
            f"the run in {str(run.folder)!r} does not name its model, as it was begun from Python: make the model as it was, "
            f"and call robusttune.load({str(run.folder)!r}, model), which gives it the run's weights"
        )
    check_named_by_file(options["model"], options.get("model_args"), run.folder)
    names = {each.name for each in fields(NamedModel)}
    if run.size is not None:
        options["size"] = run.size[0]
    return NamedModel(**{name: value for name, value in options.items() if name in names})


def model_options(run: EarlierRun) -> dict[str, Any]:
    """Return the options from which the model of a run is made again, but for its weights."""
    about = run.about or About()
    options: dict[str, Any] = {}
    if run.command is not None and "model" in run.command:
        names = ("model", "model_args", "channels", "classes")
        options = {name: run.command[name] for name in names if name in run.command}
        options["pretrained"] = options["model"] in ALWAYS_PRETRAINED and bool(run.command.get("pretrained"))
    elif about.model is not None:
        options = {"model": about.model, "model_args": about.model_args, "pretrained": False}
    known = {"channels": run.channels, "classes": about.outputs}
    return {**options, **{name: value for name, value in known.items() if value is not None}}


def outputs_of(run: EarlierRun) -> int | None:
    """Return the number of outputs with which to make a run's model again; None for the default of its function.

    If the run does not know it, the number is read from its classifier: the weights whose shapes differ from those of a model
    that is made without a number of outputs.
    """
    known: int | None = model_options(run).get("classes")
    named = named_model(run)
    if known is not None or not named.of_library:
        return known
    with own_randomness(0):
        shapes = {name: value.shape for name, value in model_of(named, None).state_dict().items()}
    weights = files.load_weights(run.folder)
    rows = {value.shape[0] for name, value in weights.items() if value.dim() and value.shape != shapes.get(name)}
    return rows.pop() if len(rows) == 1 else None  # weights that do not fit are refused where they are loaded


def run_of_checkpoint(place: PathLike | None) -> EarlierRun | None:
    """Read the run that a folder holds, or that wrote a file of weights; None if there is none.

    A file beside the run's `run.json` is known by its name, another one by its metadata, as is the file in a folder that
    `save` wrote.
    """
    if place is None:
        return None
    path = Path(place)
    folder = path if path.is_dir() else path.parent
    beside = read_run(folder) if path.is_dir() or path.name in WEIGHTS else None
    if beside is not None:
        warn_if_changed(folder)
    weights = (
        path if path.is_file() else path / files.MODEL
    )  # in a folder that `save` wrote, the weights carry all facts
    return beside or (files.run_of_weights(weights) if weights.is_file() else None)


def _trained_run(place: PathLike) -> EarlierRun:
    """Read a run of harden or pretrain from its folder, or from one of its files of weights."""
    run = run_of_checkpoint(place)
    if run is None:
        raise ValueError(f"{str(place)!r} holds no {RUN}: pass the folder that harden or pretrain wrote to")
    if run.function not in (*TRAINED, "pretrain"):
        raise ValueError(
            f"{str(place)!r} is a trial of several models: pass the folder of a run, such as arms/…/1-harden in it"
        )
    return run
