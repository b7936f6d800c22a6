"""The plan of a staged trial: the content of `plan.yaml`, which people may edit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import yaml

from robusttune.run.decimal_yaml import DecimalLoader
from robusttune.run.settings import numbers, with_fractions
from robusttune.run.writing import write_text
from robusttune.trial.arms import Arms, Settings
from robusttune.trial.arms._phase import Item, plain_settings
from robusttune.trial.decision.criteria import check_needs, criteria
from robusttune.trial.plan_checks import check_arms, check_budget, check_evaluation, check_seeds, check_threats
from robusttune.trial.screening import check_stages, looks_for
from robusttune.types import Json, PathLike

PLAN = "plan.yaml"
HOUR = 3600
HEAD = """\
# The plan of a staged trial. Edit what you like (drop or add arms, seeds, items; change epochs), then go on with
# resume=True, or --resume: what is finished and still fits is kept. Arms are lists of phases, {pretrain | ordinary |
# harden: {setting: value}} with the settings of those functions; `settings` go to all of them, and `share` is a phase's
# share of its arm's compute. Arms train against the first of the threats. All arms are screened in short runs; those that
# are kept are confirmed with `seeds`, and the trial ends at the first of the `looks` (after so many seeds) at which its
# answer to the `needs` stands. `estimated` and `rule` are written, not read.

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
        "training fingerprint": str,
        "unlabelled fingerprint": str,
    },
    total=False,
)
Cloud = TypedDict("Cloud", {"price an hour": float, "times as fast": float})
# Either seconds, or money and its price, or neither; and what is needed to state costs in money.
Budget = TypedDict(
    "Budget",
    {"seconds": float, "money": float, "price an hour": float, "currency": str, "cloud": Cloud},
    total=False,
)
OfArms: TypeAlias = dict[str, dict[str, Json]]
Estimate = TypedDict(
    "Estimate",
    {
        "in all": str,
        "seconds with one seed": OfArms,
        "of the screening": str,
        "seconds with one seed of the screening": OfArms,
    },
    total=False,
)


Power = TypedDict(
    "Power",
    {
        "scatter": str,
        "chance to find": dict[str, str],
        "8 times in 10": dict[str, str],
        "not known": str,
        "of": dict[str, str],
    },
    total=False,
)


@dataclass(frozen=True)
class PlannedEvaluation:
    """The evaluation of every arm.

    Attributes:
        images: number of test images.
        items: the items that are measured with every seed.
        more: exploratory items: measured with the seeds of the first look alone.
    """

    images: int
    items: list[Item]
    more: list[Item] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """The plan of a staged trial, in the order of its file.

    Attributes:
        model: name and fingerprint of the model that every arm starts from.
        data: counts, shapes and fingerprints by which these images are recognised.
        budget: what the trial may cost; None for no limit.
        threats: radii by norm, in pixel units on [0,1]; arms train against the first.
        seeds: the seeds of training.
        epochs: the number of epochs of adversarial training without pretext tasks; the other arms take as many passes through the model.
        settings: settings of `harden`, for all arms; without a preset, that of earlier versions: "joint".
        arms: phases by the arm's name.
        needs: what the trial must answer: "attack", "clean", a norm, or a family of corruptions; None for all that was measured.
        screening: a first stage that chooses arms, see `robusttune.trial.screening.Screening`; None for none.
        looks: numbers of seeds after which the trial is looked at, and may end; None for all seeds at once.
        evaluation: the evaluation of every arm, in the second stage if there are two.
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
    needs: list[str] | None = None
    screening: Settings | None = None
    looks: list[int] | None = None
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
            values = numbers(yaml.load(path.read_text(encoding="utf-8"), DecimalLoader))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(path)!r} is no YAML: {' '.join(str(error).split())}") from error
        except (RecursionError, ValueError) as error:
            raise ValueError(
                f"{str(path)!r} holds a number that is too long, or lists that are nested too deeply"
            ) from error
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
        entries: dict[str, Any] = {each.name: values.get(each.name) for each in fields(cls)}
        evaluation = values["evaluation"]
        looks, seeds = entries["looks"], entries["seeds"]
        if isinstance(looks, list) and isinstance(seeds, list) and looks and looks[-1] != len(seeds):
            entries["looks"] = looks_for(len(seeds))  # seeds were added or dropped in the file
        entries["evaluation"] = PlannedEvaluation(
            evaluation.get("images"), evaluation.get("items") or [], evaluation.get("more") or []
        )
        return cls(**entries)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the plan's file, without what this trial does not have."""
        entries = {each.name: getattr(self, each.name) for each in fields(self)}
        entries["evaluation"] = {
            name: value for name, value in vars(self.evaluation).items() if value or name != "more"
        }
        optional = ("decision", "estimated", "needs", "screening", "looks")
        return {name: value for name, value in entries.items() if value is not None or name not in optional}

    def write(self, folder: Path) -> Path:
        """Write `plan.yaml` and return its path.

        Raises:
            ValueError: a value is an object, which no file can hold.
        """
        values = _without_anchors(self.as_dict())
        values["threats"] = with_fractions(values["threats"])
        for stage in ("screening", "evaluation"):
            if stage in values:
                values[stage] = _with_radii(values[stage])
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
        """Name of the arm of adversarial training alone, the baseline of the others: of several the one with the fewest settings."""
        alone = {str(arm): plain_settings(phases, self.settings or {}) for arm, phases in self.arms.items()}
        plain = {arm: settings for arm, settings in alone.items() if settings is not None}
        if self.needs is None:  # as in trials of earlier versions
            return next((arm for arm, settings in plain.items() if not settings.get("tasks", "auto")), None)
        untaught = [arm for arm, settings in plain.items() if settings.get("teacher") is None]
        return min(untaught, key=lambda arm: len(plain[arm].keys() - {"tasks"}), default=None)

    @property
    def first_seeds(self) -> list[int]:
        """The seeds of the first look."""
        return self.seeds[: self.looks[0]] if self.looks else self.seeds

    def items_with(self, seed: int) -> list[Item]:
        """Return the evaluation items that are measured with a seed."""
        return [*self.evaluation.items, *(self.evaluation.more if seed in self.first_seeds else [])]

    @property
    def price(self) -> float | None:
        """Money for an hour; None if it is not known."""
        return (self.budget or {}).get("price an hour")

    def money(self, hours: float, price: float) -> str:
        """Return the cost of hours at a price, in the plan's currency.

        Example:
            >>> TrialPlan(seeds=[0], epochs=1, arms={}, evaluation=PlannedEvaluation(1, []), budget={"currency": "EUR"}).money(1.5, 2)
            '3.00 EUR'
        """
        currency = (self.budget or {}).get("currency", "")
        cost = hours * price
        return f"{cost:,.2f} {currency}".strip() if cost >= 0.01 or cost == 0 else f"{cost:.1g} {currency}".strip()

    @property
    def training_images(self) -> int | None:
        """Number of images to train on, where it is known."""
        return (self.data or {}).get("training images")

    @property
    def seconds_allowed(self) -> float:
        """The budget in seconds; infinite without one."""
        budget = self.budget or {}
        if "money" in budget:
            return float(HOUR * budget["money"] / budget["price an hour"])
        return float(budget.get("seconds", math.inf))

    def check(self) -> None:
        """Check all that can be checked without the model; settings of phases are checked where they are used.

        Raises:
            ValueError: values out of range, or unknown evaluations, norms or criteria.
        """
        if not isinstance(self.data, Mapping | None):
            raise ValueError(f"data is {self.data!r} in the plan, but {{training images: …}} is needed")
        if not isinstance(self.settings, Mapping | None):
            raise ValueError(f"settings is {self.settings!r} in the plan, but {{name: value}} is needed, as for harden")
        check_seeds(self.seeds)
        check_arms(self.arms)
        check_evaluation(self.epochs, self.evaluation)
        criteria(self.decision)
        check_needs(self.needs)
        check_budget(self.budget)
        check_threats(self.threats)
        check_stages(self)


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
