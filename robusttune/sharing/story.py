"""Facts about a model to publish ("story"): from its run, from measurements, and from the user."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from robusttune.data.class_names import moved
from robusttune.data.pixels import Pixels, normalised
from robusttune.data.transforms import Statistics, same_statistics
from robusttune.measuring.records import Records
from robusttune.measuring.setting_words import DEFAULT, OF_AN_ATTACK, PLAIN
from robusttune.model.named import LIBRARIES
from robusttune.model.probe import first_logits
from robusttune.model.saved import ALWAYS_PRETRAINED, model_options
from robusttune.model.timm_name import Name, timm_name
from robusttune.run.about import About, EarlierRun, check_same_names
from robusttune.run.provenance import fingerprint
from robusttune.run.settings import as_written, number
from robusttune.sharing.example import example_inputs
from robusttune.types import Channels, shown

# Beginnings of paths that name the folders of a machine.
OUTSIDE = re.compile(r"[/~]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\")


@dataclass(frozen=True)
class Story:
    """Facts about a model to publish.

    Attributes:
        name: the name of the model, for the card's title.
        about: its classes, its input, its adversary, and the name by which it is made again; None if not known.
        run: the run that trained it; None if it is not known.
        records: what was measured on it; None for nothing.
        license: its identifier on the Hub; None if the user names none.
        squares: the command line scaled and cropped its images to squares, so that it is known how.
    """

    name: str
    about: About
    run: EarlierRun | None = None
    records: Records | None = None
    license: str | None = None
    squares: bool = False

    @property
    def attacked(self) -> bool | None:
        """True if it was trained against an adversary, False at a radius of 0, which is ordinary training; None if that is not known."""
        about = self.about
        return None if about.norm is None or about.eps is None else number(about.eps) > 0

    @property
    def training(self) -> str:
        """Description of the training in words, without names of folders; "" if the training is not known."""
        if self.run is None or self.run.function == "save":
            return ""
        silent = ("norm", "eps", *(OF_AN_ATTACK if self.attacked is False else ()))
        kept = {name: self.run.arguments.get(name) for name in PLAIN if name not in silent}
        said = [f"{name} {_written(value)}" for name, value in kept.items() if value not in DEFAULT]
        images = [] if self.run.images is None else [f"{self.run.images:,} training images"]
        function = f"robusttune.{self.run.function}{' with eps 0' * (self.attacked is False)}"
        return ", ".join([function, *images, *said])


def story_of(
    model: nn.Module,
    run: EarlierRun | None,
    records: Records | None,
    *,
    name: str,
    license: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
) -> Story:
    """Collect the facts about a model: those of the user come before those of its run, and these before those of the records.

    Args:
        model: images -> logits (N,K).
        run: the run of harden, whose weights it has; None for none.
        records: the Records that evaluate measured on it.
        name, license: for the card.
        classes, mean, std, normalized: the user's values, as for `save`.

    Raises:
        ValueError: the records are of other weights, classes or preprocessing, or the classes are not those of the model's outputs.
    """
    if records is not None:
        _check_weights(records, model)
    known = _known(run, records)
    if classes is not None:
        if run is not None:
            check_same_names(known.classes, classes, run.folder, "classes=")
        known = replace(known, classes=[str(each) for each in classes])
    if mean is not None or std is not None or normalized is False:
        known = _with_statistics(known, Pixels(mean, std))
    _check_input(known, run, records)
    inputs = example_inputs(model, known)
    outputs = first_logits(model, inputs).shape[1]
    if known.classes is not None and len(known.classes) != outputs:
        raise ValueError(
            f"classes= names {len(known.classes)} classes ({shown(list(known.classes))}), but the model has {outputs} outputs: name "
            "each output's class, in their order"
        )
    channels = inputs.shape[1]
    if known.mean is not None and known.std is not None:
        known = replace(known, mean=_for_each(known.mean, channels), std=_for_each(known.std, channels))
    made_by = _name(model, run, inputs, outputs)
    arguments = None if made_by is None else made_by.model_args
    if "img_size" in (arguments or {}):  # the layers take images of this size alone
        known = replace(known, size=tuple(inputs.shape[2:]))
    made = None if made_by is None else made_by.model
    about = replace(known, outputs=outputs, channels=channels, model=made, model_args=arguments)
    squares = run is not None and run.command is not None and run.command.get("data") is not None
    shown_records = None if records is None else without_paths(records)
    return Story(" ".join(name.split()), about, run, shown_records, license, squares)


def _check_weights(records: Records, model: nn.Module) -> None:
    """Raise a ValueError if records were measured on other weights than those of the model."""
    measured = str(records.facts.get("model", "")).partition(" ")[2]
    if not measured:
        raise ValueError(
            "the records do not say which weights they were measured on, so they may be of another model: pass what evaluate returned"
        )
    if measured != fingerprint(model):
        raise ValueError(
            f"the records were measured on other weights (fingerprint {measured}) than those of the model ({fingerprint(model)}): "
            "evaluate the model that you save, or leave records= out"
        )


def _check_input(about: About, run: EarlierRun | None, records: Records | None) -> None:
    """Raise a ValueError if the run or the records are of another preprocessing, or another order of classes, than the card states."""
    facts = {} if records is None else records.facts
    measured, names = facts.get("classes") or [], about.classes or []
    if moved(names, measured):
        raise ValueError(
            f"the records were measured on the classes {shown(list(measured))}, but the card would name the outputs {shown(list(names))}: "
            "pass the names in the order of the model's outputs, and records of images with the same labels"
        )
    known: dict[str, Statistics] = {}
    if run is not None and run.about is not None and run.about.input_known:
        known["the run was trained"] = run.statistics
    if "mean" in facts:
        known["the records were measured"] = facts["mean"], facts["std"]
    for what, (mean, std) in known.items():
        if not same_statistics(cast(Statistics, (mean, std)), cast(Statistics, (about.mean, about.std))):
            raise ValueError(
                f"{what} on {normalised(mean, std)}, but the card would state {normalised(about.mean, about.std)}: leave "
                "mean=, std= and normalized= out, or evaluate the model with the preprocessing that it needs"
            )


def _known(run: EarlierRun | None, records: Records | None) -> About:
    """Join what a run and records know: of both, the run comes first."""
    if run is not None and run.about is not None:
        return run.about
    facts = {} if records is None else records.facts
    shape = facts.get("image shape")
    size, channels = (None, None) if not shape else (tuple(shape[1:]), shape[0])
    if run is not None:
        size, channels = run.size or size, run.channels or channels
    return About(
        classes=facts.get("classes"),
        size=size,
        channels=channels,
        mean=facts.get("mean"),
        std=facts.get("std"),
        input_known="mean" in facts,
    )


def _with_statistics(about: About, pixels: Pixels) -> About:
    mean, std = (column.flatten().tolist() if pixels.known else None for column in (pixels.mean, pixels.std))
    return replace(about, mean=mean, std=std, input_known=True)


def _for_each(values: Sequence[float], channels: int) -> list[float]:
    """Return one number for each channel, of which there may be one for all.

    Raises:
        ValueError: there are more numbers, or fewer.
    """
    if len(values) not in (1, channels):
        raise ValueError(
            f"mean and std have {len(values)} numbers, but the model takes images of {channels} channels: pass one for each channel, "
            "or one for all"
        )
    return list(values) * (channels // len(values))


def _name(model: nn.Module, run: EarlierRun | None, inputs: Tensor, outputs: int) -> Name | None:
    """Return the name by which timm or torchvision make the model, and its arguments; None for another model."""
    found = timm_name(model, inputs, outputs)
    options = {} if found is not None or run is None else model_options(run)
    name = str(options.get("model", ""))
    if found is not None or name.partition(":")[0] not in LIBRARIES or name in ALWAYS_PRETRAINED:
        return found
    return Name(name, options.get("model_args"))


def plain_name(text: str) -> str:
    """Return the last part of an absolute path, as a card should not reveal folders; return any other text unchanged.

    Example:
        >>> plain_name("torch/cifar10"), plain_name("/home/me/images"), plain_name("C:/data/cats")
        ('torch/cifar10', 'images', 'cats')
    """
    return Path(text.replace("\\", "/")).name or text if OUTSIDE.match(text) else text


def without_paths(records: Records) -> Records:
    """Return Records without absolute paths in their settings and in the name of their teacher."""
    kept = (
        replace(
            record,
            setting={
                key: plain_name(value) if isinstance(value, str) else value for key, value in record.setting.items()
            },
        )
        for record in records
    )
    facts, teacher = dict(records.facts), records.facts.get("agreement")
    if teacher is not None:
        facts["agreement"] = {**teacher, "name": plain_name(str(teacher["name"]))}
    return Records(kept, facts=facts, hashes=records.hashes, labels=records.labels)


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        return " and ".join(map(str, value)) or "none"
    return as_written(value) if isinstance(value, float) else str(value)
