"""The facts that a run folder holds about its model: its classes, the images that it takes, and its adversary."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from robusttune.run.fields import (
    ABOUT,
    OF_COMMAND,
    OF_DATA,
    OF_RUN,
    TEXT,
    WrongFact,
    check_facts,
    check_input,
    check_statistics,
)
from robusttune.types import Json, PathLike, from_json

RUN = "run.json"
STATE, MODEL, LAST, HEADS = "state.pt", "model.safetensors", "last.safetensors", "heads.safetensors"
METADATA = "robusttune"
TRAINED = ("harden", "save")  # functions after which the classifier of a model is trained; pretrain trains none
LOCAL, REMOTE = ("local-dir",), ("hf-hub", "hf_hub")  # kinds of names of published models, as timm has them
NOTHING_HELD = "nothing: no images were held out, so the last epoch was kept"
BY_LOADER = "loader.dataset.classes"
# The options of a command that say where its model and its images came from.
SOURCES = (
    "model",
    "model_args",
    "pretrained",
    "channels",
    "classes",
    "data",
    "data_dir",
    "data_args",
    "split",
    "val_split",
)


@dataclass(frozen=True)
class About:
    """The facts about a run's model that its weights do not hold; None for those that are not known.

    Attributes:
        classes: their names, in the order of the model's outputs.
        outputs: the number of outputs of the model; None for a run without labels.
        size: height and width of the images.
        channels: the number of channels of the images.
        mean, std: the normalisation of the model's input, one number for each channel; None for a model that takes pixels.
        input_known: False if nobody said whether the model takes pixels or normalised images, so that mean and std are
            not known, rather than none.
        norm: the norm of the adversary.
        eps: its radius as people write it, such as "8/255".
        held_out: the images that the epochs were judged on, in words.
        model, model_args: for a run begun from Python, the name of its model, and arguments of the function that makes it.
        seen_corruptions: the names of those that the model was trained on.
    """

    classes: Sequence[str] | None = None
    outputs: int | None = None
    size: Sequence[int] | None = None
    channels: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    input_known: bool = True
    norm: str | None = None
    eps: str | None = None
    held_out: str | None = None
    model: str | None = None
    model_args: Mapping[str, Json] | None = None
    seen_corruptions: Sequence[str] | None = None

    def as_json(self) -> dict[str, Json]:
        """Return the facts as `run.json` holds them, under "about"."""
        return asdict(self)


@dataclass(frozen=True)
class EarlierRun:
    """A run, as its folder describes it.

    Attributes:
        folder: the folder of the run.
        function: "harden" or "pretrain"; "poc" for a trial.
        command: where model and images came from, by the options of the command line; None for a run begun from Python.
        arguments: the arguments of the function.
        about: the facts about its model; None for a run of a version that did not write them.
        shape: (N,C,H,W) of its first batch, where there is no `about`.
        start: the fingerprint of the model before the run; None if it is not known.
        images: the number of training images; None if it is not known.
        unlabeled: the number of images without labels beside these, if a teacher labelled them; None for none.
        teacher: the name of who labelled images, see `Teacher`: those, or all if there are none beside; None for nobody.
        held_out: what its epochs were judged on, NOTHING_HELD for nothing; None if it is not known.
        versions: the versions of packages, during the run.
    """

    folder: Path
    function: str
    command: Mapping[str, Any] | None
    arguments: Mapping[str, Any]
    about: About | None
    shape: Sequence[int] | None = None
    start: str | None = None
    images: int | None = None
    unlabeled: int | None = None
    teacher: str | None = None
    held_out: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def statistics(self) -> tuple[Sequence[float], Sequence[float]] | tuple[None, None]:
        """Mean and std of the model's input; (None, None) for a model that takes pixels."""
        of = vars(self.about) if self.about is not None else self.arguments
        mean, std = of.get("mean"), of.get("std")
        return (None, None) if mean is None or std is None else (mean, std)

    @property
    def facts(self) -> dict[str, Json]:
        """The facts about its training, for the provenance of what is measured on its model; those that are not known are left out."""
        command, about = self.command or {}, self.about or About()
        known: dict[str, Json] = {
            "function": self.function,
            "model": command.get("model") or about.model,
            "data": command.get("data"),
            "split": command.get("split"),
            "held out": self.held_out,
            "val_split": command.get("val_split"),
            "start": self.start,
            "images": self.images,
            "unlabeled": self.unlabeled,
            "teacher": self.teacher,
            "versions": dict(self.versions) or None,
            "arguments": {name: value for name, value in self.arguments.items() if value is not None},
        }
        return {name: value for name, value in known.items() if value is not None}

    @property
    def metadata(self) -> dict[str, str] | None:
        """The facts as a file of weights holds them, under METADATA; None if they are not known."""
        if self.about is None:
            return None
        command = self.command or {}
        named = {name: command[name] for name in SOURCES if name in command}
        facts = {"run": self.function, "about": self.about.as_json(), "purpose": self.arguments.get("purpose")}
        return {METADATA: json.dumps({**named, **facts}, sort_keys=True)}

    @property
    def seen_corruptions(self) -> Sequence[str]:
        """The names of the corruptions that the model was trained on; none where they are not known."""
        return () if self.about is None else self.about.seen_corruptions or ()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images that the model was trained on; None if they are not known."""
        size = self.about.size if self.about is not None else self.shape and self.shape[2:]
        return None if not size else (size[0], size[1])

    @property
    def channels(self) -> int | None:
        """Channels of these images; None if they are not known."""
        return self.about.channels if self.about is not None else self.shape[1] if self.shape else None


def is_published(name: object) -> bool:
    """Return True for a name of a published model: local-dir:FOLDER, hf-hub:USER/NAME or hf_hub:USER/NAME.

    Example:
        >>> is_published("local-dir:cats"), is_published("hf_hub:me/cats"), is_published("timm:resnet18")
        (True, True, False)
    """
    return isinstance(name, str) and name.partition(":")[0] in (*LOCAL, *REMOTE)


def arguments_in(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in the facts of a run, with the name that an earlier version's default preset has now."""
    arguments = dict(facts["arguments"])
    if "update_batch" not in arguments and arguments.get("preset") == "standard":
        arguments["preset"] = "joint"
    return arguments


def read_run(folder: PathLike) -> EarlierRun | None:
    """Read the `run.json` of a run's folder; None if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(folder) / RUN
    if not path.is_file():
        return None
    facts = read_facts(path)
    data, about, labelling = facts.get("data") or {}, _about(facts.get("about")), facts.get("labelling") or {}
    return EarlierRun(
        *(Path(folder), facts.get("run", "poc"), facts.get("command"), arguments_in(facts), about, data.get("shape")),
        start=facts.get("start"),
        images=data.get("images") or labelling.get("labelled"),
        unlabeled=labelling.get("images") if "unlabeled_loader" in facts.get("loaders", ()) else None,
        teacher=(facts.get("teacher") or {}).get("name"),
        held_out=_held_out(facts.get("about") or {}),
        versions=facts.get("versions") or {},
    )


def _held_out(about: Mapping[str, Any]) -> str | None:
    """Return what epochs were judged on, by the facts of `About`; those of an earlier version do not say."""
    return (about["held_out"] or NOTHING_HELD) if "held_out" in about else None


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts in a `run.json`, each of which is of its kind or None.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        facts: dict[str, Any] = from_json(path.read_text(encoding="utf-8"))
        check_facts(facts, OF_RUN)
        for name, kinds in (("data", OF_DATA), ("command", OF_COMMAND)):
            check_facts(facts.get(name) or {}, kinds)
        if _about(facts.get("about")) is None:
            check_input(facts["arguments"])
        arguments_in(facts)
        return facts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read: it may be damaged or of another program{_why(error)}; restore it from a copy"
        ) from error


def run_of_metadata(path: Path, text: str) -> EarlierRun | None:
    """Read the metadata of a file of weights, as `EarlierRun.metadata` returns it; None if it describes no run."""
    try:
        facts = from_json(text)
        if "run" not in facts:
            return None
        check_facts(facts, OF_RUN | OF_COMMAND | {"data": TEXT})
        return _run_of(path, facts)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{str(path)!r} has metadata of another program, or damaged ones{_why(error)}: restore it from a copy"
        ) from error


def _why(error: Exception) -> str:
    return f" ({error})" if isinstance(error, WrongFact) else ""


def _run_of(path: Path, facts: Mapping[str, Any]) -> EarlierRun:
    command = facts if "model" in facts else None
    return EarlierRun(path, facts["run"], command, {"purpose": facts["purpose"]}, _about(facts["about"]))


def _about(known: Mapping[str, Any] | None) -> About | None:
    if known is None:
        return None
    check_facts(known, ABOUT)
    check_statistics(known)
    names = {each.name for each in fields(About)}  # a later version may write more
    return About(**{name: known[name] for name in known if name in names})


def check_same_names(
    before: Sequence[str] | None, now: Sequence[str] | None, run: PathLike, by: str = BY_LOADER
) -> None:
    """Raise a ValueError if both of the names of classes are known, and are not the same in the same order.

    Args:
        before: the names of the run's classes.
        now: the names to compare with.
        run: its folder.
        by: where the names to compare with come from.
    """
    if before is None or now is None or list(before) == list(now):
        return
    row = next((row for row, (one, other) in enumerate(zip(before, now, strict=False)) if one != other), None)
    what = f"there are {len(now)}" if row is None else f"class {row} is {now[row]!r} and not {before[row]!r}"
    raise ValueError(
        f"the run in {str(run)!r} has {len(before)} classes, {', '.join(before[:8])}{' …' * (len(before) > 8)}, but by "
        f"{by} {what}: pass images of the same classes in the same order"
        f"{', or map their labels to those of the run in the target_transform of the data set' if by == BY_LOADER else ''}"
    )
