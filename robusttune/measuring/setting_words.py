"""Facts of a measurement in words, each by a name, for reports: the model, the images, the adversary, the training, the versions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robusttune.measuring.agreement import whose
from robusttune.measuring.attacked import trained_against
from robusttune.measuring.records import Records
from robusttune.run.settings import as_written, epochs_in_words

UNKNOWN = "not known"
SHOWN_CLASSES = 12
OF_AN_ATTACK = ("purpose", "preset", "norm", "attack", "steps", "step_size", "objective", "attack_tasks", "awp")
PLAIN = (  # arguments of harden that say how a model was trained, in this order
    *(
        "purpose",
        "preset",
        "norm",
        "eps",
        "attack",
        "steps",
        "step_size",
        "objective",
        "tasks",
        "attack_tasks",
        "epochs",
    ),
    *(
        "max_steps",
        "time_budget",
        "finetune",
        "pretrain_epochs",
        "optimizer",
        "lr",
        "weight_decay",
        "ema",
        "awp",
        "augment",
    ),
    *("min_clean", "precision", "seed"),
)
DEFAULT = (None, "auto", 0)  # values that say nothing
Facts = Mapping[str, Any]  # as `Records.facts`


def facts_in_words(runs: Mapping[str, Records]) -> list[list[str]]:
    """Return rows of a table: the name of a fact, then the fact of each model, "not known" where it is not."""
    return [[name, *(words(records) or UNKNOWN for records in runs.values())] for name, words in ROWS.items()]


def model_of(records: Records) -> str:
    """Name the model: by the user's notes, its run, or timm; with its type and size."""
    facts, run = records.facts, _run(records)
    kind = str(facts.get("model", "")).split(" ")[0]
    name = _note(records, "model") or run.get("model") or facts.get("architecture")
    count = facts.get("parameters")
    size = f"{count:,} parameters" if isinstance(count, int) else ""
    beside = ", ".join(each for each in (kind if name else "", size) if each)
    return f"{name or kind}{f' ({beside})' if beside and (name or kind) else ''}"


def fingerprint_of(records: Records) -> str:
    """Return the fingerprint of the weights that were measured; "" if it is not known."""
    return str(records.facts.get("model", "")).partition(" ")[2]


def start_of(records: Records) -> str:
    """Return the fingerprint of the weights before the training run; "" if it is not known."""
    return str(_run(records).get("start") or "")


def data_of(records: Records) -> str:
    """Name the images that were measured and their split, by the user's notes or the type of the data set."""
    name, split = (_note(records, key) or str(records.facts.get(other) or "") for key, other in DATA)
    return f"{name}{f', split {split}' if split else ''}"


DATA = (("data", "data set"), ("split", "split"))


def images_of(records: Records) -> str:
    """State the number, the shape and the fingerprint of the images; "" if they are not known."""
    count, _, code = str(records.facts.get("images", "")).partition(" ")
    shape = "x".join(map(str, records.facts.get("image shape", ())))
    if not count:
        return ""
    count = f"{int(count):,}" if count.isdecimal() else count  # of a file that somebody edited
    return f"{count}{f' of {shape} (channels, height, width)' if shape else ''}, fingerprint {code}"


def overlap_of(records: Records) -> str:
    """State how many of the images are among the training images; "" if nobody looked."""
    found = records.facts.get("overlap")
    if not found:
        return ""
    return (
        f"{found['shared']:,} of the images measured are among the {found['training images']:,} training images (fingerprint "
        f"{found['fingerprint']})"
    )


def training_of(records: Records) -> str:
    """State the function, the images and the settings of the training run, or the user's note on it; "" if not known."""
    run, note = _run(records), _note(records, "training")
    arguments = run.get("arguments") or {}
    silent = OF_AN_ATTACK if _is_ordinary(run) else () if _trains_on_tasks(arguments) else ("attack_tasks",)
    named = [name for name in PLAIN if name not in silent]
    said = [f"{name} {_written(arguments[name])}" for name in named if arguments.get(name) not in DEFAULT]
    if not run.get("function"):
        return note
    images = [f"{run['images']:,} images"] if isinstance(run.get("images"), int) else []
    split = f", split {run['split']}" if run.get("split") else ""
    data = [f"{run['data']}{split}"] if run.get("data") else []
    where = " ".join([*images, *data]) or "images that are not named"
    parts = [f"{_function(run)} on {where}{_labelled_by(run)}", *said]
    other = "" if run.get("weights") else "; the weights measured are not those that this run ended with"
    return f"{', '.join([*parts, *([note] if note else [])])}{other}"


def _trains_on_tasks(arguments: Facts) -> bool:
    """Return True if pretext losses are part of training; heads of weight 0 are fitted afterwards."""
    tasks = arguments.get("tasks")
    return bool(tasks) and not (isinstance(tasks, Mapping) and not any(tasks.values()))


def _labelled_by(run: Facts) -> str:
    """State who labelled images that had no labels, and how many are beside the labelled ones; "" for a run without a teacher."""
    teacher, count = run.get("teacher"), run.get("unlabeled")
    if not isinstance(teacher, str):
        return ""
    who = "the model as it was before hardening" if teacher == "self" else teacher
    images = f"and {count:,} without labels" if isinstance(count, int) else "without labels"
    return f", {images}, labelled by {who}"


def _is_ordinary(run: Facts) -> bool:
    """Return True for a run of harden that attacked nothing."""
    return run.get("function") == "harden" and (run.get("arguments") or {}).get("eps") == 0


def _function(run: Facts) -> str:
    return "ordinary training (harden with eps 0)" if _is_ordinary(run) else str(run["function"])


def trained_by(records: Records) -> str:
    """Name the function that trained the model and its adversary, or return the user's note; "" if they are not known."""
    run = _run(records)
    arguments = run.get("arguments") or {}
    if not run.get("function"):
        return _note(records, "training")
    known = trained_against(records)
    against = f" against {known}" if known and records.facts.get("eps from") == "run" else ""
    epochs = arguments.get("epochs")
    return f"{_function(run)}{against}{f', {epochs_in_words(epochs)}' if epochs else ''}"


def chosen_by(records: Records) -> str:
    """Return a sentence where the training run chose its epoch by the images measured, by its folder and the notes; else ""."""
    run = _run(records)
    judged = [run.get("data"), run.get("val_split")]
    if None in judged or judged != [_note(records, "data"), _note(records, "split")]:
        return ""
    return "Its training run chose its epoch by the images measured, so its accuracy on new ones may be a little lower."


def _classes(records: Records) -> str:
    names = records.classes
    if not names:
        return ""
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    return f"{len(names)}: {', '.join(names[:SHOWN_CLASSES])}{more}"


def _adversary(records: Records) -> str:
    known, origin = trained_against(records), ORIGINS.get(str(records.facts.get("eps from")), "")
    return "" if known is None else f"{known}{f' ({origin})' if origin else ''}"


ORIGINS = {
    "run": "that of the training run",
    "passed": "passed to `evaluate`",
    "customary": "customary; none was passed",
}


def versions_of(records: Records) -> str:
    """List the versions of the packages that measured; "" if they are not known."""
    return ", ".join(f"{package} {number}" for package, number in records.facts.get("versions", {}).items())


def notes_of(records: Records) -> str:
    """List the user's other notes; "" if there are none."""
    shown = {name: note for name, note in _notes(records).items() if name not in ("model", "data", "split", "training")}
    return ", ".join(f"{name}: {note}" for name, note in shown.items())


ROWS: dict[str, Callable[[Records], str]] = {
    "model": model_of,
    "fingerprint of its weights": fingerprint_of,
    "weights before training": start_of,
    "trained by": training_of,
    "adversary to withstand": _adversary,
    "data measured": data_of,
    "images": images_of,
    "training images among them": overlap_of,
    "epoch chosen by": lambda records: (
        "the images measured" if chosen_by(records) else str(_run(records).get("held out") or "")
    ),
    "classes": _classes,
    "labels": lambda records: whose(records.facts) or "those of the data",
    "pixels": lambda records: str(records.facts.get("pixels", "")),
    "measured on": lambda records: str(records.facts.get("date", "")).replace("T", " ").replace("+00:00", " UTC"),
    "commit of the working directory": lambda records: str(records.facts.get("commit", "")),
    "versions": versions_of,
    "device": lambda records: str(records.facts.get("device", "")),
    "seed of the measurement": lambda records: str(records.facts.get("seed", "")),
}


def _run(records: Records) -> Facts:
    run = records.facts.get("run")
    return run if isinstance(run, Mapping) else {}


def _notes(records: Records) -> Facts:
    notes = records.facts.get("notes")
    return notes if isinstance(notes, Mapping) else {}


def _note(records: Records, name: str) -> str:
    return str(_notes(records).get(name) or "")


def _written(value: object) -> str:
    if isinstance(value, float):
        return as_written(value)
    if isinstance(value, Mapping):  # tasks and their weights
        return (" and ".join(map(str, value)) or "none") + " (heads fitted afterwards)" * (
            not any(value.values()) and bool(value)
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " and ".join(map(str, value)) or "none"
    return str(value)
