"""The plan of a staged trial: the content of `plan.yaml`, which people may edit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import yaml

from robusttune import plugins
from robusttune.norms import canonical
from robusttune.run.files import write_text
from robusttune.run.settings import POSITIVE, in_range, numbers, with_fractions
from robusttune.threat import ThreatModel
from robusttune.trial.arms import Arms, Phases, Settings
from robusttune.trial.arms._phase import Item, name_and_settings, shares
from robusttune.trial.decision.criteria import criteria
from robusttune.types import PathLike

PLAN = "plan.yaml"
HOUR = 3600
HEAD = """\
# The plan of a staged trial. Edit what you like (drop or add arms, seeds, items; change epochs), then go on with
# resume=True, or --resume: what is finished and still fits is kept. Arms are lists of phases, {pretrain | ordinary |
# harden: {setting: value}} with the settings of those functions; `settings` go to all of them, and `share` is a phase's
# share of its arm's compute. Arms train against the first of the threats. `estimated` and `rule` are written, not read.

"""

DataFacts = TypedDict(
    "DataFacts",
    {
        "training images": int | None,
        "batch": int,
        "batches": int,
        "shape": list[int],
        "held out": int | None,
        "test images": int | None,
        "unlabelled images": int | None,
    },
    total=False,
)
# Either seconds, or money and its price.
Budget = TypedDict("Budget", {"seconds": float, "money": float, "price an hour": float}, total=False)
Estimate = TypedDict("Estimate", {"in all": str, "seconds with one seed": dict[str, dict[str, Any]]})


@dataclass(frozen=True)
class PlannedEvaluation:
    """The evaluation of every arm: `images` test images, on which `items` are measured."""

    images: int
    items: list[Item]


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The plan of a staged trial, in the order of its file.

    Attributes:
        model: name and fingerprint of the model that every arm starts from.
        data: counts and shapes by which these images are recognised.
        budget: what the trial may cost; None for no limit.
        threats: radii by norm, in pixel units on [0,1]; arms train against the first.
        seeds: of training.
        epochs: of adversarial training without pretext tasks; the other arms take as many passes through the model.
        settings: of `harden`, for all arms; without a preset, that of plans of before: "joint".
        arms: phases by the arm's name.
        evaluation: of every arm.
        decision: settings of `robusttune.trial.decision.decide.decide`.
        rule: how compute is shared out, in words.
        estimated: cost of the trial.
    """

    model: str | None = None
    data: DataFacts | None = None
    budget: Budget | None = None
    threats: Mapping[str, float] | None = None
    seeds: list[int]
    epochs: float
    settings: Settings | None = None
    arms: Arms
    evaluation: PlannedEvaluation
    decision: Settings | None = None
    rule: str | None = None
    estimated: Estimate | None = None

    @classmethod
    def read(cls, folder: PathLike) -> "TrialPlan":
        """Read the plan in a trial's folder; numbers may be written as 8/255 or 1e-3.

        Raises:
            ValueError: there is no plan, or it is not YAML, or it lacks arms, seeds or the evaluation. Values out of
                range are left to `check`.
        """
        path = Path(folder) / PLAN
        if not path.exists():
            raise ValueError(f"{str(path)!r} is not there: robusttune.poc(…, plan_only=True) writes one")
        try:
            values = numbers(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(path)!r} is no YAML: {' '.join(str(error).split())}") from error
        missing = [
            f"{name} ({kind.__name__})"
            for name, kind in (("arms", dict), ("seeds", list), ("evaluation", dict))
            if not isinstance(values, dict) or not isinstance(values.get(name), kind)
        ]
        if missing:
            raise ValueError(
                f"{str(path)!r} lacks {', '.join(missing)}: add them, or write a new plan into another folder"
            )
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialPlan":
        """Build a plan from the content of its file: a missing entry is None, an unknown one is left out."""
        entries: dict[str, Any] = {field.name: values.get(field.name) for field in fields(cls)}
        evaluation = values["evaluation"]
        entries["evaluation"] = PlannedEvaluation(evaluation.get("images"), evaluation.get("items") or [])
        return cls(**entries)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the plan's file, without the decision and the estimate where there are none."""
        entries = {field.name: getattr(self, field.name) for field in fields(self)}
        entries["evaluation"] = {"images": self.evaluation.images, "items": self.evaluation.items}
        optional = ("decision", "estimated")
        return {name: value for name, value in entries.items() if value is not None or name not in optional}

    def write(self, folder: Path) -> Path:
        """Write `plan.yaml` and return its path.

        Raises:
            ValueError: a value is an object, which no file can hold.
        """
        values = _without_anchors(self.as_dict())
        values["threats"] = with_fractions(values["threats"])
        values["evaluation"] = _with_radii(values["evaluation"])
        try:
            text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
        except yaml.representer.RepresenterError as error:
            value = f"{error.args[-1]!r}" if error.args else "a value"
            raise ValueError(
                f"{value} is an object, which no plan can hold: use names, numbers and lists of them"
            ) from error
        write_text(folder / PLAN, HEAD + text)
        return folder / PLAN

    @property
    def threat(self) -> tuple[str, float] | None:
        """Norm and radius of the first threat, which arms train against."""
        return next(((str(norm), float(eps)) for norm, eps in (self.threats or {}).items()), None)

    @property
    def untrained_arm(self) -> str | None:
        """Name of the arm without phases, which is the model as it is."""
        return next((str(arm) for arm, phases in self.arms.items() if not phases), None)

    @property
    def plain_arm(self) -> str | None:
        """Name of the arm of adversarial training alone, the baseline of arms with pretext tasks."""
        default_eps = 1.0 if self.threat is None else self.threat[1]
        return next((str(arm) for arm, phases in self.arms.items() if _is_plain(phases, default_eps)), None)

    @property
    def price(self) -> float | None:
        """Money for an hour, where the budget is in money."""
        return (self.budget or {}).get("price an hour")

    @property
    def training_images(self) -> int | None:
        """Number of images to train on, where it is known."""
        return (self.data or {}).get("training images")

    @property
    def seconds_allowed(self) -> float:
        """The budget in seconds; infinite without one."""
        if self.budget is None:
            return math.inf
        if "seconds" in self.budget:
            return float(self.budget["seconds"])
        return float(HOUR * self.budget["money"] / self.budget["price an hour"])

    def check(self) -> None:
        """Check all that can be checked without the model; settings of phases are checked where they are used.

        Raises:
            ValueError: values out of range, or unknown evaluations, norms or criteria.
        """
        _check_seeds(self.seeds)
        _check_arms(self.arms)
        _check_evaluation(self.epochs, self.evaluation)
        criteria(self.decision)
        _check_budget(self.budget)
        _check_threats(self.threats)


def _is_plain(phases: Phases, default_eps: float) -> bool:
    """Return True for one phase of adversarial training without pretext tasks."""
    if len(phases) != 1:
        return False
    name, settings = name_and_settings(phases[0])
    return name == "harden" and not settings.get("tasks", "auto") and settings.get("eps", default_eps) != 0


def _with_radii(values: object) -> object:
    """Replace radii in evaluation items."""
    if isinstance(values, Mapping):
        return {key: with_fractions(value) if key == "eps" else _with_radii(value) for key, value in values.items()}
    return [_with_radii(value) for value in values] if isinstance(values, list) else values


def _without_anchors(values: Any) -> Any:
    """Copy nested values so that no part is shared, as YAML would write shared parts as anchors."""
    if isinstance(values, Mapping):
        return {key: _without_anchors(value) for key, value in values.items()}
    return [_without_anchors(value) for value in values] if isinstance(values, list | tuple) else values


def _check_seeds(seeds: list[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds are {seeds!r}, but different whole numbers are needed, such as [0, 1, 2]")


def _check_arms(arms: Arms) -> None:
    if not arms:
        raise ValueError(f"there are no arms: name some out of {', '.join(plugins.names('trial.arms'))}")
    for name, phases in arms.items():
        if not isinstance(phases, list):
            raise ValueError(f"arm {name!r} is {phases!r}, but a list of phases is needed, [] for no training")
        if "/" in str(name) or not str(name).strip(". "):
            raise ValueError(f"arm {name!r} cannot be the name of a folder: rename it")
        shares(phases)


def _check_evaluation(epochs: float, evaluation: PlannedEvaluation) -> None:
    for name, value in (("epochs", epochs), ("images", evaluation.images)):
        if not in_range(value, POSITIVE):
            raise ValueError(f"{name} is {value!r} in the plan, but a number above 0 is needed")
    if not evaluation.items:
        raise ValueError(f"there are no evaluation items: name some out of {', '.join(plugins.names('evaluations'))}")
    for item in evaluation.items:
        name, settings = name_and_settings(item)
        plugins.configured("evaluations", name, **settings)


def _check_budget(budget: Budget | None) -> None:
    if budget is None:
        return
    known = isinstance(budget, Mapping) and set(budget) in ({"seconds"}, {"money", "price an hour"})
    if not known or not all(in_range(value, POSITIVE) for value in budget.values()):
        raise ValueError(
            f"budget is {budget!r} in the plan, but {{seconds: …}} or {{money: …, price an hour: …}} above 0 is needed, or null"
        )


def _check_threats(threats: Mapping[str, float] | None) -> None:
    if not isinstance(threats, Mapping) or not threats:
        raise ValueError(f"threats is {threats!r} in the plan, but radii by norm are needed, such as {{linf: 8/255}}")
    for norm, eps in threats.items():
        ThreatModel(canonical(norm), eps)
