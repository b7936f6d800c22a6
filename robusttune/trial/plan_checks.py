"""Checks of the values in a trial's plan."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from robusttune import plugins
from robusttune.norms import canonical
from robusttune.run.markdown import as_text
from robusttune.run.settings import ANY_WHOLE, POSITIVE, in_range
from robusttune.threat import ThreatModel
from robusttune.trial.arms import Arms
from robusttune.trial.arms._phase import name_and_settings, shares

if TYPE_CHECKING:
    from robusttune.trial.plan import Budget, PlannedEvaluation


def check_seeds(seeds: list[int], name: str = "seeds") -> None:
    """Raise a ValueError for seeds that are not different whole numbers."""
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int and in_range(seed, ANY_WHOLE) for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise ValueError(f"{name} are {seeds!r}, but different whole numbers of 64 bits are needed, such as [0, 1, 2]")


def check_arms(arms: Arms) -> None:
    """Raise a ValueError for arms without phases or with names that no folder can have."""
    if not arms:
        raise ValueError(f"there are no arms: name some out of {', '.join(plugins.names('trial.arms'))}")
    for name, phases in arms.items():
        if not isinstance(name, str):
            raise ValueError(f"arm {name!r} is no text: write its name in quotes, or rename it")
        if not isinstance(phases, list):
            raise ValueError(f"arm {name!r} is {phases!r}, but a list of phases is needed, [] for no training")
        if "/" in str(name) or not str(name).strip(". "):
            raise ValueError(f"arm {name!r} cannot be the name of a folder: rename it")
        if as_text(str(name)) != str(name):
            raise ValueError(f"arm {name!r} has signs that mean something in the pages of a trial: rename it")
        shares(phases)


def check_evaluation(epochs: float, evaluation: "PlannedEvaluation") -> None:
    """Raise a ValueError for epochs, images or items that cannot be measured."""
    for name, value in (("epochs", epochs), ("images", evaluation.images)):
        if not in_range(value, POSITIVE):
            raise ValueError(f"{name} is {value!r} in the plan, but a number above 0 is needed")
    if not evaluation.items:
        raise ValueError(f"there are no evaluation items: name some out of {', '.join(plugins.names('evaluations'))}")
    for item in [*evaluation.items, *evaluation.more]:
        name, settings = name_and_settings(item)
        plugins.configured("evaluations", name, **settings)


def check_budget(budget: "Budget | None") -> None:
    """Raise a ValueError for a budget that is neither seconds nor money with a price, or whose currency or cloud makes no sense."""
    if budget is None:
        return
    limits = dict(budget) if isinstance(budget, Mapping) else {"": None}
    currency, cloud = limits.pop("currency", ""), limits.pop("cloud", None)
    known = set(limits) - {"price an hour"} in (set(), {"seconds"}) or set(limits) == {"money", "price an hour"}
    if not known or not all(in_range(value, POSITIVE) for value in limits.values()):
        raise ValueError(
            f"budget is {budget!r} in the plan, but {{seconds: …}} or {{money: …, price an hour: …}} above 0 is needed, or null"
        )
    if not isinstance(currency, str):
        raise ValueError(f"currency is {currency!r} in the plan's budget, but a name is needed, such as EUR")
    keys = {"price an hour", "times as fast"}
    fits = (
        isinstance(cloud, Mapping) and set(cloud) == keys and all(in_range(each, POSITIVE) for each in cloud.values())
    )
    if cloud is not None and not fits:
        raise ValueError(
            f"cloud is {cloud!r} in the plan's budget, but {{price an hour: …, times as fast: …}} above 0 is needed: what a rented "
            "machine costs, and how many times as fast as this one it is"
        )


def check_threats(threats: Mapping[str, float] | None) -> None:
    """Raise a ValueError for threats that are not radii by norm."""
    if not isinstance(threats, Mapping) or not threats:
        raise ValueError(f"threats is {threats!r} in the plan, but radii by norm are needed, such as {{linf: 8/255}}")
    for norm, eps in threats.items():
        name = canonical(norm)
        if ThreatModel(name, eps).eps == 0:
            raise ValueError(
                f"threats has a radius of 0 for {norm} in the plan, at which nothing is attacked: give one above 0"
            )
        if name != norm:  # what was measured goes by the other name, so that no radius would be found for it
            raise ValueError(f"threats names {norm!r} in the plan, but norms have one name there: write {name}")
