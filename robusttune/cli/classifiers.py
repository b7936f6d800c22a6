"""The choice of a model's classifier for the classes of the data, and notes on parts that are not trained."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from robusttune.cli.errors import note
from robusttune.cli.model_labels import CLASSES_FILE
from robusttune.cli.options import Arguments, Sources
from robusttune.data.class_names import shown
from robusttune.model.named import LIBRARIES
from robusttune.model.new_classifier import give_classifier, sample_inputs_of
from robusttune.model.probe import first_logits
from robusttune.run.about import EarlierRun


class Untrained(NamedTuple):
    """A part of a model that is not trained, in words, and the way to a trained one."""

    what: str
    advice: str


def fit_classifier(
    model: nn.Module, sources: Sources, names: Sequence[str] | None, run: EarlierRun | None, *, strict: bool
) -> Untrained | None:
    """Replace the classifier if it has another number of classes; return the part of the model that is not trained, if any.

    The classifier that a library publishes is replaced. Another one comes with labels of its own, so that it is replaced
    only where --classes asks for that.

    Args:
        model: as its library or function made it; changed in place.
        sources: the sources of the model.
        names: the names of the classes that labels stand for; None if they are not known.
        run: the run that trained the weights; None for none.
        strict: the model is measured, so each of its outputs must be one of these classes.

    Raises:
        ValueError: it is not known which output is which class.
    """
    inputs = sample_inputs_of(model, sources.channels, sources.size)
    outputs, name = _outputs_of(model, inputs), sources.model
    if outputs is None or outputs < 2:
        return None  # reported where it is used
    asked, known = _asked_outputs(sources), None if run is None or run.about is None else run.about.outputs
    wanted = asked or known or (outputs if names is None else len(names))
    before = outputs
    if sources.checkpoint is None and name.partition(":")[0] in LIBRARIES:
        before = _published(model, sources, outputs)
    elif outputs != wanted and asked is None:
        raise ValueError(_unknown_outputs(outputs, names or (), strict=strict))
    if outputs != wanted:
        give_classifier(model, inputs, wanted)
    if strict and run is None and names is not None and wanted != len(names):
        raise ValueError(_unknown_outputs(wanted, names, strict=strict))
    if _has_random_weights(sources):
        return Untrained(f"{name} has random weights", "pass --pretrained, --checkpoint FILE, or")
    if before != wanted:
        had = f"has {before} outputs and is replaced by a new one" if before else "is missing; it gets a new one"
        return Untrained(f"the classifier of {name} {had} of {wanted}, which is not trained", "pass")
    if run is not None and run.function == "pretrain":
        return Untrained(f"the run in {str(run.folder)!r} learnt without labels and has no trained classifier", "pass")
    return None


def say_untrained(untrained: Untrained | None, *, allowed: bool, finetune: bool) -> None:
    """Print a note on the part of a model that is not trained.

    Raises:
        ValueError: it is not allowed, because results of such a model mean nothing.
    """
    if untrained is None:
        return
    what, advice = untrained
    if not allowed:
        first = f"{advice.removesuffix(', or')}; " if "--" in advice else ""
        raise ValueError(
            f"{what}, so its results mean nothing: {first}harden it with --finetune EPOCHS and evaluate that run, "
            "or pass --untrained"
        )
    note(f"{what}: {'--finetune trains it first' if finetune else f'{advice} --finetune EPOCHS, such as 5'}")


def gets_new_classifier(sources: Sources, run: EarlierRun | None, arguments: Arguments) -> bool:
    """Return True if --classes asks for another number of classes than the model of the run to start from has."""
    known = None if run is None or run.about is None else run.about.outputs
    return None not in (known, sources.classes) and known != sources.classes and not arguments.get("resume")


def as_before(sources: Sources, run: EarlierRun | None) -> Sources:
    """Return the sources with the number of outputs of an earlier run's model, to resume or repeat that run."""
    known = None if run is None or run.about is None else run.about.outputs
    return sources if known is None or sources.classes is not None else replace(sources, classes=known)


def _asked_outputs(sources: Sources) -> int | None:
    """Return the number of outputs that the user asks for, with --classes or timm's and torchvision's own argument."""
    settings = (sources.model_args or {}) if sources.model.partition(":")[0] in LIBRARIES else {}
    return int(settings["num_classes"]) if "num_classes" in settings else sources.classes


def _published(model: nn.Module, sources: Sources, outputs: int) -> int:
    """Return the number of outputs of the library's published weights, whose classifier timm may have replaced."""
    known = getattr(model, "pretrained_cfg", None)
    if sources.model.partition(":")[0] != "timm" or not isinstance(known, dict):
        return outputs
    return int(known.get("num_classes") or 0)


def _has_random_weights(sources: Sources) -> bool:
    passed = sources.pretrained or (sources.model_args or {}).get("checkpoint_path")
    return sources.model.partition(":")[0] in LIBRARIES and sources.checkpoint is None and not passed


def _outputs_of(model: nn.Module, images: Tensor) -> int | None:
    """Count the model's outputs for images (N,C,H,W); None if it cannot take them, which is reported later."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return first_logits(model, images).shape[1]
    except ValueError:
        return None


def _unknown_outputs(outputs: int, names: Sequence[str], *, strict: bool) -> str:
    head = f"--classes {len(names)} for a new classifier, which is not trained: then --finetune EPOCHS, such as 5, trains it"
    return (
        f"the model has {outputs} outputs, but there are {len(names)} classes ({shown(names)}), so it is not known which "
        f"output is which class: pass {CLASSES_FILE}; or {'harden it with ' * strict}{head}"
    )
