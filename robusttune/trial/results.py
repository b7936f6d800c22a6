"""Results of a staged trial on disk: the folders of arms and seeds, and the records in them."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robusttune.measuring import failures
from robusttune.measuring.records import Records
from robusttune.run import log
from robusttune.run.folder import as_json
from robusttune.trial.arms import Phase
from robusttune.trial.arms._phase import Item, name_and_settings
from robusttune.trial.plan import TrialPlan
from robusttune.types import PathLike

START, RECORDS = "start.safetensors", "records.jsonl"


@dataclass(frozen=True)
class Result:
    """Accuracies and training time of one arm with one seed.

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
    """A plan and the results so far.

    Attributes:
        plan: the content of `plan.yaml`.
        results: by arm and seed, in the plan's order; unfinished ones are missing.
    """

    plan: TrialPlan
    results: list[Result]

    @classmethod
    def load(cls, folder: PathLike) -> "Trial":
        """Read a folder of `robusttune.poc`; results of arms, seeds or items that are not in the plan are left out.

        Raises:
            ValueError: there is no plan, or it cannot be read.
        """
        plan = TrialPlan.read(folder)
        pairs = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
        results = [result_of(Path(folder), plan, arm, seed) for arm, seed in pairs]
        return cls(plan, [result for result in results if result is not None])


def result_of(folder: Path, plan: TrialPlan, arm: str, seed: int) -> Result | None:
    """Read the result of an arm with a seed; None where an evaluation item is missing."""
    place = place_of(folder, plan, arm, seed)
    files = [item_place(place, plan, item) / RECORDS for item in plan.evaluation.items]
    if not all(path.exists() for path in files):
        return None
    return Result(arm, seed, joined([Records.load(path) for path in files]), seconds_of(place, plan.arms[arm]))


def place_of(folder: Path, plan: TrialPlan, arm: str, seed: int) -> Path:
    """Return the folder of an arm's training with a seed; its name changes with any setting that changes the training."""
    phases = plan.arms[arm]
    if not phases:
        return folder / "arms" / arm / "start"
    request = [phases, seed, plan.epochs, plan.settings, plan.data, plan.model, plan.threat]
    return folder / "arms" / arm / f"seed-{seed}-{digest(request)}"


def item_place(place: Path, plan: TrialPlan, item: Item) -> Path:
    """Return the folder of an evaluation item's records, inside the folder of an arm and seed."""
    name, _ = name_and_settings(item)
    request = [item, plan.evaluation.images, plan.data, plan.model, plan.threat]
    return place / "evaluation" / f"{name}-{digest(request)}"


def phase_place(place: Path, number: int, phase: Phase) -> Path:
    """Return the folder of the run of an arm's phase, counted from 0."""
    return place / f"{number + 1}-{name_and_settings(phase)[0]}"


def seconds_of(place: Path, phases: Sequence[Phase]) -> float:
    """Sum the seconds of training so far over all phases."""
    paths = [phase_place(place, number, phase) / log.FILE for number, phase in enumerate(phases)]
    lines = [path.read_text(encoding="utf-8").splitlines() for path in paths if path.exists()]
    return float(sum(json.loads(log_lines[-1])["seconds"] for log_lines in lines if log_lines))


def joined(parts: Sequence[Records]) -> Records:
    """Join the Records of several evaluations of one model.

    The answers to single images are kept where all parts are of the same images.
    """
    first = next((part for part in parts if part.hashes), Records())
    same = all(part.hashes in (first.hashes, ()) for part in parts)
    costs: dict[str, Counter[str]] = {}
    for name, cost in (pair for part in parts for pair in part.facts.get("evaluations", {}).items()):
        costs.setdefault(name, Counter()).update(cost)
    facts = {**parts[0].facts, "evaluations": {name: dict(cost) for name, cost in costs.items()}} if costs else {}
    return Records(
        (record if same else replace(record, right=None) for part in parts for record in part),
        facts=facts,
        hashes=first.hashes if same else (),
        labels=first.labels if same else (),
        failures=failures.worst(failure for part in parts for failure in part.failures),
    )


def digest(request: object) -> str:
    """Hash a request, with objects as words that are the same in every process: eight hexadecimal digits."""
    text = json.dumps(as_json(request), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
