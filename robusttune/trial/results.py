"""A staged trial on disk: its plan, and what each arm came to with each seed."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from robusttune.measuring import failures
from robusttune.measuring.records import Records
from robusttune.run import folder as run_folder
from robusttune.run import log

PLAN, START, RECORDS = "plan.yaml", "start.safetensors", "records.jsonl"
NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:/(\d+(?:\.\d+)?))?", re.IGNORECASE)

Phase = Mapping[str, Any]  # {kind: {setting: value}}
Arms = dict[str, list[Phase]]


@dataclass(frozen=True)
class Result:
    """What one arm came to with one seed.

    Attributes:
        arm: its name in the plan.
        seed: of its training.
        records: of all evaluation items of the plan.
        seconds: of training, over all its phases; 0 for an arm that does not train.
    """

    arm: str
    seed: int
    records: Records
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A plan, and the results that there are so far.

    Attributes:
        plan: as in `plan.yaml`.
        results: by arm and seed, in the plan's order; those that have not ended are missing.
    """

    plan: Mapping[str, Any]
    results: list[Result]

    @classmethod
    def load(cls, folder: str | Path) -> "Trial":
        """Read what `robusttune.poc` wrote, and no results of arms, seeds or items that the plan does not name (any more).

        Raises:
            ValueError: there is no plan, or it cannot be read.
        """
        plan = read_plan(folder)
        pairs = [(arm, seed) for arm in plan["arms"] for seed in plan["seeds"]]
        found = [result_of(Path(folder), plan, arm, seed) for arm, seed in pairs]
        return cls(plan, [each for each in found if each is not None])


def read_plan(folder: str | Path) -> dict[str, Any]:
    """The plan in a trial's folder; numbers may be written as 8/255 or 1e-3.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = Path(folder) / PLAN
    if not path.exists():
        raise ValueError(f"{str(path)!r} is not there: robusttune.poc(…, plan_only=True) writes one")
    try:
        plan = numbers(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is no YAML: {' '.join(str(error).split())}") from error
    wrong = [
        f"{name} ({kind.__name__})"
        for name, kind in (("arms", dict), ("seeds", list), ("evaluation", dict))
        if not isinstance(plan, dict) or not isinstance(plan.get(name), kind)
    ]
    if wrong:
        raise ValueError(f"{str(path)!r} lacks {', '.join(wrong)}: mend it, or write a new plan into another folder")
    return dict(plan)


def result_of(folder: Path, plan: Mapping[str, Any], arm: str, seed: int) -> Result | None:
    """What an arm came to with a seed; None where an evaluation item is missing."""
    place = place_of(folder, plan, arm, seed)
    files = [item_place(place, plan, item) / RECORDS for item in plan["evaluation"]["items"]]
    if not all(path.exists() for path in files):
        return None
    return Result(arm, seed, joined([Records.load(path) for path in files]), seconds_of(place, plan["arms"][arm]))


def place_of(folder: Path, plan: Mapping[str, Any], arm: str, seed: int) -> Path:
    """Where an arm's training with a seed is kept: another place for whatever would make it another training."""
    phases = plan["arms"][arm]
    if not phases:
        return folder / "arms" / arm / "start"
    asked = [phases, seed, *(plan.get(name) for name in ("epochs", "settings", "data", "model")), threat_of(plan)]
    return folder / "arms" / arm / f"seed-{seed}-{digest(asked)}"


def item_place(place: Path, plan: Mapping[str, Any], item: Any) -> Path:
    """Where the records of an evaluation item of an arm and seed are kept."""
    name, _ = named(item)
    asked = [item, plan["evaluation"].get("images"), plan.get("data"), plan.get("model"), threat_of(plan)]
    return place / "evaluation" / f"{name}-{digest(asked)}"


def threat_of(plan: Mapping[str, Any]) -> tuple[str, float] | None:
    """The norm and the radius that arms train against, the first of the plan's threats."""
    return next(((str(norm), float(eps)) for norm, eps in (plan.get("threats") or {}).items()), None)


def unpretexted(plan: Mapping[str, Any]) -> str | None:
    """The arm of adversarial training without pretext task, to which those with one have to be compared."""
    for arm, phases in plan["arms"].items():
        if len(phases) == 1:
            name, settings = named(phases[0])
            radius = settings.get("eps", (threat_of(plan) or ("", 1.0))[1])
            if name == "harden" and not settings.get("tasks", "auto") and radius != 0:
                return str(arm)
    return None


def untouched(plan: Mapping[str, Any]) -> str | None:
    """The arm that does nothing."""
    return next((str(arm) for arm, phases in plan["arms"].items() if not phases), None)


def phase_place(place: Path, number: int, phase: Any) -> Path:
    """Where the run of an arm's phase is kept, counted from 0."""
    return place / f"{number + 1}-{named(phase)[0]}"


def named(given: Any) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a phase or an evaluation item, which is a name or {name: {setting: value}}.

    Raises:
        ValueError: it is neither.

    Example:
        >>> named({"sweep": {"steps": 20}})
        ('sweep', {'steps': 20})
    """
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and len(given) == 1:
        ((name, settings),) = given.items()
        if isinstance(name, str) and (settings is None or isinstance(settings, Mapping)):
            return name, dict(settings or {})
    raise ValueError(f"{given!r} is in the plan, but a name or {{name: {{setting: value}}}} is needed")


def seconds_of(place: Path, phases: Sequence[Any]) -> float:
    """The seconds of training so far, of all phases together."""
    paths = [phase_place(place, number, phase) / log.FILE for number, phase in enumerate(phases)]
    lines = [path.read_text(encoding="utf-8").splitlines() for path in paths if path.exists()]
    return float(sum(json.loads(each[-1])["seconds"] for each in lines if each))


def joined(parts: Sequence[Records]) -> Records:
    """The Records of several evaluations of one model as one list.

    Which images were right is kept where all of them saw the same ones.
    """
    first = next((part for part in parts if part.hashes), Records())
    same = all(part.hashes in (first.hashes, ()) for part in parts)
    spent: dict[str, Counter[str]] = {}
    for name, cost in (each for part in parts for each in part.facts.get("evaluations", {}).items()):
        spent.setdefault(name, Counter()).update(cost)
    facts = {**parts[0].facts, "evaluations": {name: dict(cost) for name, cost in spent.items()}} if spent else {}
    return Records(
        (record if same else replace(record, right=None) for part in parts for record in part),
        facts=facts,
        hashes=first.hashes if same else (),
        labels=first.labels if same else (),
        failures=failures.worst(failure for part in parts for failure in part.failures),
    )


def digest(asked: Any) -> str:
    """A short word that is another one where something else is asked for."""
    text = json.dumps(plain(asked), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def plain(given: Any) -> Any:
    """The same as JSON has it, with objects as words that are the same in every process."""
    return json.loads(json.dumps(given, default=lambda each: run_folder.ADDRESS.sub("", str(each))))


def numbers(given: Any) -> Any:
    """The same with strings such as 8/255 and 1e-3, which YAML takes for words, as numbers.

    Example:
        >>> numbers({"linf": "8/255"})
        {'linf': 0.0313...}
    """
    if isinstance(given, dict):
        return {key: numbers(value) for key, value in given.items()}
    if isinstance(given, list):
        return [numbers(each) for each in given]
    parts = NUMBER.fullmatch(given.strip()) if isinstance(given, str) else None
    if parts is None or (parts[2] is not None and not float(parts[2])):
        return given
    return float(parts[1]) / float(parts[2] or 1)
