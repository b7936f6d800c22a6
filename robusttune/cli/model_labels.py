"""The names of classes that a model came with: in its checkpoint or beside it, in its configuration, or those of ImageNet."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import timm
from safetensors import safe_open
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import nn
from torchvision import models as zoo

from robusttune.cli.errors import note
from robusttune.cli.folders import composed
from robusttune.cli.options import Sources
from robusttune.data.class_names import shown
from robusttune.run import files
from robusttune.run.checkpoints import read_checkpoint
from robusttune.types import from_json

CLASSES_FILE = "--classes_file with the names of the classes in the order of the model's outputs, one a line"
KEYS = ("classes", "class_names", "label_names", "labels", "id2label", "idx_to_class", "class_to_idx", "label2id")
BESIDE = "config.json"  # of Hugging Face and of timm
DEEPEST = 4  # dicts within dicts
PLACEHOLDER = re.compile(r"(?:label|class)?[ _-]?(\d+)", re.IGNORECASE)
MOST = 0.95  # share of the names of ImageNet's classes, whose spelling differs here and there

Names: TypeAlias = tuple[str, ...]


class Came(NamedTuple):
    """The class names that a model came with, and their source.

    Attributes:
        spellings: names by output: those that were found, then other names of the same classes.
        where: the source of the names, in words.
        stated: the names are written there; otherwise the number of outputs speaks for them.
        published: the head is that of a library, which is replaced where a model is trained on fewer classes.
        training: the model is to be trained.
        asked: `--classes` is this number of outputs.
    """

    spellings: tuple[Names, ...]
    where: str
    stated: bool = True
    published: bool = False
    training: bool = False
    asked: bool = False

    def names_for(self, own: Sequence[str] | None, images: str) -> Names | None:
        """Return the names by which labels go; None if none are stated, or the model gets another head.

        Args:
            own: the names of the classes that the images are of; None if they have none.
            images: names the images in messages.

        Raises:
            ValueError: the images are of other classes, and the head stays.
        """
        names = self.spellings[0]
        if own is None:
            return names if self.asked or not self.published else None
        sought = set(composed(own))
        fitting = next((each for each in self.spellings if sought <= set(composed(each))), None)
        if fitting is not None:
            if self.training and self.published and not self.asked and len(own) < len(names):
                return None
            rest = "" if len(own) == len(names) else f"; all {len(names)} outputs stay"
            note(f"{self.where} names {len(names)} classes, {shown(fitting)}: labels go by these names{rest}")
            return fitting
        if not self.stated:
            return None
        same = sought & set(composed(names))
        differ = (
            f"{self.where} names {len(names)} classes, {shown(names)}, but {images} has {len(own)}, {shown(own)}: "
            f"{len(same)} of them agree"
        )
        if self.training and len(own) != len(names):
            note(f"{differ}, and the model is trained on those of the images")
            return None
        raise ValueError(f"{differ}; rename the folders as the model's classes are called, or pass {CLASSES_FILE}")


def came_with(sources: Sources, model: nn.Module | None, *, training: bool) -> Came | None:
    """Find the class names that a model came with; None if there are none.

    Args:
        sources: the name of the model, its checkpoint, and how to make it.
        model: the model; None if it is made for the number of classes.
        training: it is to be trained.

    Raises:
        ValueError: `--classes` is another number than that of the names, and the model is not trained.
    """
    came = _in_checkpoint(sources.checkpoint) or _in_model(sources.model, model)
    made = came is not None
    if came is None and sources.checkpoint is None and sources.pretrained:
        came = _published(sources.model)
    if came is None and (model is not None or sources.checkpoint is not None):
        outputs = sources.classes or getattr(model, "num_classes", None) or _width_of(sources.checkpoint)
        came = _of_imagenet(outputs, f"ImageNet, which has as many classes as {sources.model} has outputs,")
    if came is None:
        return None
    outputs = len(came.spellings[0])
    if sources.classes not in (None, outputs):
        if made and not training:
            raise ValueError(f"classes is {sources.classes}, but {came.where} names {outputs}: leave --classes out")
        return None
    return came._replace(training=training, asked=sources.classes is not None)


def names_in(facts: object, depth: int = 0) -> Names | None:
    """Find the names of classes in dicts within dicts, some of which may be written as JSON; None if there are none.

    Example:
        >>> names_in({"epoch": 3, "meta": {"class_to_idx": {"dog": 1, "cat": 0}}})
        ('cat', 'dog')
        >>> names_in({"id2label": '{"0": "LABEL_0", "1": "LABEL_1"}'}) is None
        True
    """
    facts = _parsed(facts)
    if not isinstance(facts, Mapping) or depth > DEEPEST:
        return None
    by_key = {str(key).lower(): value for key, value in facts.items()}
    listed = (_names(by_key[key]) for key in KEYS if key in by_key)
    found = next((names for names in listed if names is not None), None)
    within = (names_in(value, depth + 1) for value in by_key.values())
    return found or next((names for names in within if names is not None), None)


def _names(value: object) -> Names | None:
    """Read the names of at least two classes from a list, {row: name} or {name: row}; None for placeholders."""
    value = _parsed(value)
    if isinstance(value, Mapping):
        value = _by_row(value)
    if not isinstance(value, list | tuple) or len(value) < 2 or not any(isinstance(name, str) for name in value):
        return None
    if not all(isinstance(name, str | int) for name in value):
        return None
    names = tuple(map(str, value))
    numbers = [PLACEHOLDER.fullmatch(name) for name in names]
    placeholders = all(found is not None and int(found[1]) == row for row, found in enumerate(numbers))
    return None if placeholders else names


def _by_row(value: Mapping[object, object]) -> list[object] | None:
    if all(isinstance(row, int) for row in value.values()):
        value = {row: name for name, row in value.items()}
    try:
        rows = {int(row): name for row, name in value.items()}  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return [rows[row] for row in range(len(rows))] if sorted(rows) == list(range(len(rows))) else None


def _parsed(value: object) -> object:
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return from_json(value)
    except ValueError:
        return None


def _in_checkpoint(checkpoint: str | None) -> Came | None:
    """Read the names in a file of weights, or in the configuration beside it; the weights themselves are read elsewhere."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    names = names_in(_facts_of(path)) if path.is_file() else None
    if names is not None:
        return Came(_spellings(names), f"the checkpoint {checkpoint!r}")
    beside = (path if path.is_dir() else path.parent) / BESIDE
    try:
        names = names_in(beside.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return None if names is None else Came(_spellings(names), f"the file {str(beside)!r} beside the weights")


def _facts_of(path: Path) -> object:
    """Read what a file of weights holds; None if it cannot be read, which is reported when its weights are."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return file.metadata()
        return read_checkpoint(path, mapped=True)
    except Exception:  # each format has errors of its own
        return None


def _width_of(checkpoint: str | None) -> int | None:
    """Return the number of outputs of a file's classifier, where it is that of a part of ImageNet; else None."""
    path = Path(checkpoint or "")
    path = path / files.MODEL if path.is_dir() else path
    try:
        weights = files.load_weights(path, quiet=True)
    except ValueError:  # which is reported when the model gets them
        return None
    widths = {len(weight) for name, weight in weights.items() if name.endswith("bias") and weight.ndim == 1}
    return next((width for width in sorted(widths) if infer_imagenet_subset({"num_classes": width})), None)


def _in_model(name: str, model: nn.Module | None) -> Came | None:
    """Read the names that a model, or a part of it, has in its configuration."""
    for module in () if model is None else model.modules():
        for holder in ("config", "pretrained_cfg"):
            facts = getattr(module, holder, None)
            names = names_in(facts if isinstance(facts, Mapping) else {key: getattr(facts, key, None) for key in KEYS})
            if names is not None:
                return Came(_spellings(names), f"the {holder} of {name}")
    return None


def _published(model: str) -> Came | None:
    """Look up the names of the classes that a library's published weights were trained on."""
    library, _, name = model.partition(":")
    try:
        facts = _facts_of_torchvision(name) if library == "torchvision" else _facts_of_timm(name)
    except Exception:  # there is no such model, or it cannot be fetched, which is reported when it is made
        return None
    names = _names(facts.get("label_names"))
    if names is None:
        return _of_imagenet(facts.get("num_classes"), f"{library}'s {name}")
    return Came(_spellings(names), f"{library}'s {name}", published=True)


def _facts_of_torchvision(name: str) -> Mapping[str, object]:
    categories = zoo.get_model_weights(name)["DEFAULT"].meta["categories"]
    return {"num_classes": len(categories)} if len(categories) == 1000 else {"label_names": categories}


def _facts_of_timm(name: str) -> Mapping[str, object]:
    source, identity = timm.models.parse_model_name(name)
    if source == "hf-hub":
        return dict(timm.models.load_model_config_from_hf(identity)[0])
    if source is None:
        return vars(timm.get_pretrained_cfg(name))
    facts = json.loads((Path(identity) / BESIDE).read_text(encoding="utf-8"))
    within = facts.get("pretrained_cfg") or {}
    return {key: facts.get(key, within.get(key)) for key in ("label_names", "num_classes")}


def _of_imagenet(outputs: object, where: str) -> Came | None:
    """Return the names of the part of ImageNet that has this number of classes; None if there is none."""
    subset = infer_imagenet_subset({"num_classes": outputs})
    return None if subset is None else Came(_spellings_in(subset), where, stated=False, published=True)


def _spellings_in(subset: str) -> tuple[Names, ...]:
    """List the names of ImageNet's classes: by WordNet's number, by all words, and as torchvision calls them."""
    known = ImageNetInfo(subset)
    words = tuple(known.label_descriptions())
    called = (tuple(zoo.ResNet18_Weights.DEFAULT.meta["categories"]),) if subset == "imagenet-1k" else ()
    numbers: Sequence[str] = known.label_names()  # type: ignore[no-untyped-call]
    return (tuple(numbers), words, *called)


def _spellings(names: Names) -> tuple[Names, ...]:
    """Return names, and the other names of the same classes where they are most likely those of ImageNet."""
    subset = infer_imagenet_subset({"num_classes": len(names)})
    known = () if subset is None else _spellings_in(subset)
    short = [name.split(",")[0].lower() for name in names]
    for spelling in known:
        same = sum(name == other.split(",")[0].lower() for name, other in zip(short, spelling, strict=True))
        if same >= MOST * len(names):
            return (names, *known)
    return (names,)
