"""Checks of the state in a checkpoint before a run is restored from it: it may be of another model, or be forged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from robusttune.run import distributed, files
from robusttune.run.about import read_facts
from robusttune.run.fields import FLAG, MAPPING, TEXTS, Kind, WrongFact, check_facts
from robusttune.types import shown

if TYPE_CHECKING:
    from robusttune.training.loop import Training

MOST = 2**63
SHOWN = 3  # names of weights in an error
COUNTED = ("images", "batches")  # of the data's facts in `run.json`
BESIDE = (
    (
        "held out",
        "val_loader",
        ", so that the accuracies of its epochs cannot be compared, and the best one may be another",
    ),
    ("without labels", "unlabeled_loader", ""),
)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST


def _is_count(value: object) -> bool:
    return _is_number(value) and isinstance(value, int)


COUNT = Kind("a whole number of at least 0", _is_count)
NUMBER = Kind("a finite number of at least 0, below 2**63", _is_number)
POSITIVE = Kind(
    "a number above 0", lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0
)
LIST = Kind("a list of dicts", lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value))
DICT = Kind("a dict", lambda value: isinstance(value, dict))
# Of the parts of the state. The weights, the optimiser and others have checks of their own where they are loaded.
KINDS: dict[str, dict[str, Kind]] = {
    "stepper": {"weights": MAPPING, "calls": COUNT, "ramp": FLAG, "optimizer": DICT},
    "plan": {"taken": COUNT, "elapsed": NUMBER},
    "best": {"epoch": COUNT, "weights": MAPPING},
    "meter": {"steps": COUNT, "images": COUNT, "sums": MAPPING},
    "place": {"epoch": COUNT, "consumed": COUNT, "fell_back": FLAG},
}
OF_RECOVERY = {
    "times": COUNT,
    "odd": TEXTS,
    "event": MAPPING,
    "unhelped": FLAG,
    "sound": FLAG,
    "knew": FLAG,
    "kept": MAPPING,
}
FLAGS = {"folded": FLAG, "replayed": FLAG}

logger = logging.getLogger("robusttune")


def check_shared(folder: Path) -> None:
    """Raise a ValueError, in every process, where some see a checkpoint in the folder and others, as on another machine, do not."""
    seen = distributed.gathered((folder / files.STATE).exists())
    if len(set(seen)) > 1:
        without = [str(rank) for rank, sees in enumerate(seen) if not sees]
        raise ValueError(
            f"{str(folder)!r} holds a checkpoint, but not where rank {', '.join(without)} runs, which would begin afresh: name a folder "
            "that all machines share, or copy it to each"
        )


def warn_of_other_data(folder: Path, facts: Mapping[str, Mapping[str, object]], *, over: bool) -> None:
    """Log a warning if a run is resumed with another number of images or batches, or with other images.

    Args:
        folder: the folder of the run.
        facts: the contents of `run.json` for the present call.
        over: True if the run has finished, and takes no more steps.
    """
    path = folder / files.RUN
    before = (read_facts(path).get("data") if path.exists() else None) or {}
    now = facts["data"]
    changed = [
        f"{before[name]} {name} and now {now[name]}" for name in COUNTED if before.get(name) not in (None, now[name])
    ]
    names = before.get("fingerprint"), now.get("fingerprint")
    if not changed and None not in names and names[0] != names[1]:
        changed = ["as many images as now, but other ones, or other labels of them"]
    if distributed.rank() == 0:
        _warn_of_others_beside(folder, before, now)
    if changed and distributed.rank() == 0:
        logger.warning(
            "the run in %s %s: its loader had %s. %s: pass the same data, or start afresh in another folder",
            folder,
            "has finished with other data than are passed now"
            if over
            else "goes on with other data than it was begun with",
            ", ".join(changed),
            "Its weights are returned, which learned from those images"
            if over
            else "Where images are held back from the loader, they are others now, and may have been trained on before",
        )


def _warn_of_others_beside(folder: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Log a warning where the images beside those of the loader are others, and the loader's are the same; see `warn_of_other_data`."""
    if before.get("fingerprint") != now["fingerprint"]:  # else a part of the loader's may be held out
        return
    for name, loader, why in BESIDE:
        if before.get(name) not in (None, now[name]):
            logger.warning(
                "the run in %s goes on with other images %s than it began with%s: pass the %s of before, or start afresh in another folder",
                folder,
                name,
                why,
                loader,
            )


def check_state(state: Mapping[str, object]) -> None:
    """Raise a WrongFact for facts in the state of a run, see `checkpoints.state_of`, that are not of their kind; {} has none."""
    check_facts(state, dict.fromkeys([*KINDS, "recovery", "states", "epoch_states"], MAPPING) | FLAGS)
    check_facts(cast("Mapping[str, object]", state.get("recovery") or {}), OF_RECOVERY)
    for part, kinds in KINDS.items() if state else ():
        facts = cast("Mapping[str, object]", state.get(part) or {})
        missing = [name for name in kinds if facts.get(name) is None]
        if missing:
            raise WrongFact(f"it has no {missing[0]} under {part!r}")
        check_facts(facts, kinds)


def check_fit(training: Training, state: Mapping[str, object]) -> None:
    """Raise a WrongFact for a checked state that is of another model or optimiser than a run has."""
    stepper = cast("Mapping[str, dict[str, object]]", state["stepper"])
    now = training.robust_loss.state_dict()
    _check_weights(files.completed(stepper["weights"], now), now)
    check_facts(stepper, {"clip_grad": POSITIVE})
    average = training.stepper.average
    if average is not None:
        check_facts(stepper, {"average": DICT})
        check_facts(stepper["average"], {"steps": COUNT, "shadow": DICT})
        _check_weights(cast("Mapping[str, object]", stepper["average"].get("shadow") or {}), average.shadow)
    _check_optimizer(stepper["optimizer"], training.stepper.optimizer.state_dict())


def _check_weights(saved: Mapping[str, object], now: Mapping[str, object]) -> None:
    shapes, before = ({name: files.shape_of(value) for name, value in each.items()} for each in (now, saved))
    wrong = [
        name
        for name in {**shapes, **before}
        if (name in shapes, shapes.get(name)) != (name in before, before.get(name))
    ]
    if wrong:
        raise WrongFact(
            f"its weights do not fit the model: {len(wrong)} names or shapes differ, such as {', '.join(wrong[:SHOWN])}"
        )


def _check_optimizer(saved: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raise a WrongFact if the settings of a torch optimiser are of other parameters, or no finite numbers."""
    if "param_groups" not in now:  # an optimiser of another kind
        return
    check_facts(saved, {"param_groups": LIST, "state": DICT})
    groups, current = (cast("Sequence[Mapping[str, object]]", each.get("param_groups") or ()) for each in (saved, now))
    if [group.get("params") for group in groups] != [group["params"] for group in current]:
        raise WrongFact("its optimizer has other parameters")
    for group, expected in zip(groups, current, strict=True):
        flags = {name: FLAG for name, value in expected.items() if isinstance(value, bool)}
        numbers = [name for name, value in expected.items() if _is_number(value) and name in group]
        wrong = next(
            (name for name in numbers if not isinstance(group[name], Tensor) and not _is_number(group[name])), None
        )
        if wrong is not None:
            raise WrongFact(f"{wrong} of its optimizer is {shown(group[wrong])}, but it must be {NUMBER.words}")
        check_facts(group, flags)
    parts = cast("Mapping[object, object]", saved.get("state") or {}).values()
    kinds = {(name, type(value)) for part in parts for name, value in _items(part) if value is not None}
    if len({name for name, _ in kinds}) != len(kinds):
        raise WrongFact("its optimizer has values of several types under one name")


def _items(part: object) -> Sequence[tuple[object, object]]:
    if not isinstance(part, Mapping):
        raise WrongFact(f"its optimizer has {shown(part)} in the place of the state of a parameter")
    return [*part.items()]
