"""Results of a staged trial on disk: the folders of arms and seeds, and the records in them."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robusttune.measuring import failures
from robusttune.measuring.records import Records
from robusttune.norms import canonical
from robusttune.run import log
from robusttune.run.folder import as_json
from robusttune.run.writing import write_text
from robusttune.trial.arms import Phase
from robusttune.trial.arms._phase import Item, name_and_settings
from robusttune.trial.plan import Power, TrialPlan
from robusttune.trial.screening import screening_of
from robusttune.types import PathLike, from_json

START, RECORDS, LOOKS, POWER = "start.safetensors", "records.jsonl", "looks.json", "power.json"
TOGETHER = "together.json"  # there where jobs ran at the same time


@dataclass(frozen=True)
class Result:
    """Accuracies and training time of one arm with one seed.

    Attributes:
        arm: its name in the plan.
        seed: the seed of its training.
        records: the Records of all evaluation items of the plan.
        seconds: the seconds of training, over all its phases; 0 for an arm that does not train.
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
        results: by arm and seed, in the plan's order; unfinished ones are missing. With two stages, those of the second.
        first: plan and results of the first stage; None if there is one stage.
        kept: arms that went on to the second stage; None if that is not known, or where there is one stage.
        power: the differences that the trial can detect; None if they were not computed for the present plan.
        changed: True if the plan was changed after a look at the results.
        together: True if trainings ran at the same time, so that each took longer than alone.
    """

    plan: TrialPlan
    results: list[Result]
    first: "Trial | None" = None
    kept: tuple[str, ...] | None = None
    power: Power | None = None
    changed: bool = False
    together: bool = False

    @classmethod
    def load(cls, folder: PathLike, plan: TrialPlan | None = None) -> "Trial":
        """Read a folder of `robusttune.poc`; results of arms, seeds or items that are not in the plan are left out.

        Args:
            folder: the folder of the trial.
            plan: the plan of the trial; None for the one in the folder.

        Raises:
            ValueError: there is no plan, or it cannot be read.
        """
        plan = TrialPlan.read(folder) if plan is None else plan
        first, place = screening_of(plan), Path(folder)
        return replace(
            cls.of(plan, place),
            first=None if first is None else cls.of(first, place),
            power=_power_of(plan, place),
            changed=plan.looks is not None and not all(_is_of(plan, look) for look in _looks_taken(place)),
            together=(place / TOGETHER).exists(),
        )

    @property
    def mixed(self) -> str:
        """The packages of which the results are of several versions, in words; "" where all are of the same ones."""
        found: dict[str, set[str]] = {}
        for result in [*self.results, *(self.first.results if self.first else [])]:
            for name, version in (result.records.facts.get("versions") or {}).items():
                found.setdefault(name, set()).add(version)
        return ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in found.items() if len(each) > 1)

    @classmethod
    def of(cls, plan: TrialPlan, folder: Path) -> "Trial":
        """Read the results of one stage, by its plan."""
        pairs = [(arm, seed) for arm in plan.arms for seed in plan.seeds]
        results = [result_of(folder, plan, arm, seed) for arm, seed in pairs]
        return cls(plan, [result for result in results if result is not None])


def note_look(folder: Path, plan: TrialPlan, look: int) -> None:
    """Write down that the results were tested after so many seeds, and by which plan."""
    taken = _looks_taken(folder)
    if look not in [each["seeds"] for each in taken]:
        write_text(folder / LOOKS, json.dumps([*taken, {"seeds": look, **_asked(plan)}], indent=1))


def note_together(folder: Path, executor: object) -> None:
    """Write down that jobs ran at the same time, and by which executor."""
    name = executor if isinstance(executor, str) else type(executor).__name__
    write_text(folder / TOGETHER, json.dumps({"executor": name}) + "\n")


def _looks_taken(folder: Path) -> list[dict[str, object]]:
    path = folder / LOOKS
    return list(from_json(path.read_text(encoding="utf-8"))) if path.exists() else []


def _asked(plan: TrialPlan) -> dict[str, str]:
    """Return hashes of the parts of a plan on which tests and power depend: the questions, and what is trained and measured."""
    asked = [plan.needs, plan.seeds, plan.looks, plan.decision, plan.screening, list(plan.arms)]
    ran = [plan.evaluation.images, plan.evaluation.items, plan.epochs, plan.settings, plan.threats, plan.arms]
    return {"plan": digest(asked), "runs": digest(ran)}


def _is_of(plan: TrialPlan, written: Mapping[str, object]) -> bool:
    """Return True if facts in a file were written for this plan; files of earlier versions do not say what was run."""
    asked = _asked(plan)
    return all(written.get(name, known) == known for name, known in asked.items())


def write_power(folder: Path, power: Power, plan: TrialPlan) -> None:
    """Write which differences a plan finds, beside the plan, which is left as people have edited it."""
    write_text(folder / POWER, json.dumps({**power, "of": _asked(plan)}, indent=1))


def _power_of(plan: TrialPlan, folder: Path) -> Power | None:
    """Read which differences a plan finds; None if that is not known, or where it was computed for a plan that was edited since."""
    path = folder / POWER
    power: Power | None = from_json(path.read_text(encoding="utf-8")) if path.exists() else None
    return power if power is not None and _is_of(plan, power.get("of", {})) else None


def result_of(folder: Path, plan: TrialPlan, arm: str, seed: int) -> Result | None:
    """Read the result of an arm with a seed; None if an evaluation item is missing."""
    place = place_of(folder, plan, arm, seed)
    files = [item_place(place, plan, item) / RECORDS for item in plan.items_with(seed)]
    if not all(path.exists() for path in files):
        return None
    return Result(arm, seed, joined([Records.load(path) for path in files]), seconds_of(place, plan.arms[arm]))


def place_of(folder: Path, plan: TrialPlan, arm: str, seed: int) -> Path:
    """Return the folder of an arm's training with a seed; its name changes with any setting that changes the training."""
    phases = plan.arms[arm]
    if not phases:
        return folder / "arms" / arm / "start"
    request: list[object] = [phases, seed, plan.epochs, plan.settings, plan.data, plan.model, plan.threat]
    radii = [radius for phase in phases for radius in _radii_of(phase, plan)]
    return folder / "arms" / arm / f"seed-{seed}-{digest([*request, radii] if radii else request)}"


def _radii_of(phase: Phase, plan: TrialPlan) -> list[float | None]:
    """Return the radius of a phase that names a norm alone, which is the plan's, or a radius alone; of others nothing."""
    kind, of_phase = name_and_settings(phase)
    settings = {**(plan.settings or {}), **of_phase}
    norm, eps = settings.get("norm"), settings.get("eps")
    if kind != "harden" or "purpose" in settings or (norm is None) == (eps is None):
        return []
    radii = {canonical(name): radius for name, radius in (plan.threats or {}).items()}
    return [eps if norm is None else radii.get(canonical(norm))]


def item_place(place: Path, plan: TrialPlan, item: Item) -> Path:
    """Return the folder of an evaluation item's records, inside the folder of an arm and seed."""
    name, _ = name_and_settings(item)
    request: list[object] = [item, plan.evaluation.images, plan.data, plan.model, plan.threat]
    if plan.looks is not None:  # with two stages, on images that the first one did not take
        request.append(["second stage", (plan.screening or {}).get("images")])
    return place / "evaluation" / f"{name}-{digest(request)}"


def phase_place(place: Path, number: int, phase: Phase) -> Path:
    """Return the folder of the run of an arm's phase, counted from 0."""
    return place / f"{number + 1}-{name_and_settings(phase)[0]}"


def seconds_of(place: Path, phases: Sequence[Phase]) -> float:
    """Sum the seconds of training so far over all phases."""
    paths = [phase_place(place, number, phase) / log.FILE for number, phase in enumerate(phases)]
    return float(sum(max(map(_seconds, _lines(path)), default=0.0) for path in paths if path.exists()))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _seconds(line: str) -> float:
    """Read the seconds so far in a line of a log; 0 in a damaged one."""
    try:
        return float(from_json(line)["seconds"])
    except (ValueError, KeyError, TypeError):
        return 0.0


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
