"""Defaults of a trial's plan: threats, corruptions, arms, seeds, evaluation items and budget of a request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.corruptions._benchmark import family_of, standard_names
from robusttune.norms import NormLike, default_eps
from robusttune.run.settings import number, numbers, shown_radius
from robusttune.tasks import TasksLike
from robusttune.tasks._weights import task_weights
from robusttune.threat import ThreatModel
from robusttune.trial.arms import Arm, Arms, Phase, Phases, Settings
from robusttune.trial.arms._phase import Item, name_and_settings
from robusttune.trial.data import Data
from robusttune.trial.plan import Budget, PlannedEvaluation, TrialPlan

MULTIPLES = (0.5, 1.0, 1.5, 2.0)  # of a threat's radius, at which arms are attacked
STEPS, SEVERITIES = 20, (1, 3, 5)
RULE = (
    "Every arm starts from the weights in start.safetensors and takes, with each seed, as many forward and backward passes "
    "as `epochs` epochs of adversarial training without pretext tasks do. With K steps of attack an image costs K+1 passes "
    "(K is 1 by default, 2 in the last quarter; from 160 px 2 in linf, 7 in l2); with a pretext task that is not attacked "
    "K+2; with one attacked separately or jointly 2(K+1); ordinary training 1; pre-training one for each task. Judging "
    "epochs on held-out images is not counted."
)

# Norms, or {norm: eps} with None for the customary radius.
Threats: TypeAlias = str | Iterable[str] | Mapping[str, float | None] | ThreatModel
# A name, a function as in `trial/arms`, or {name: phases} with None for no phases.
ArmLike: TypeAlias = str | Arm | Mapping[str, Phases | None]


@dataclass(frozen=True)
class PlanRequest:
    """Arguments of `poc` that its plan is built from; each is described there."""

    threats: Threats
    corruptions: str | Sequence[str]
    arms: ArmLike | Sequence[ArmLike] | None
    tasks: Mapping[str, float] | None
    seeds: Sequence[int]
    finetune: int
    epochs: float
    images: int
    evaluation: Sequence[Item] | None
    budget: float | None
    price: float | None
    settings: Settings | None
    decision: Settings | None


def new_plan(request: PlanRequest, model: str, data: Data) -> TrialPlan:
    """Build the plan of a request.

    Args:
        request: arguments of `poc`.
        model: name and fingerprint of the model.
        data: of the trial.

    Raises:
        ValueError: unknown names, radii out of range, or a price without a budget.
    """
    threats = chosen_threats(request.threats, data.sizes.shape)
    corruptions = chosen_corruptions(request.corruptions)
    items = items_of(threats, corruptions) if request.evaluation is None else list(request.evaluation)
    return TrialPlan(
        model=model,
        data=data.facts(),
        budget=chosen_budget(request.budget, request.price),
        threats=threats,
        seeds=list(request.seeds),
        epochs=request.epochs,
        settings={"preset": "standard", **(request.settings or {})},
        arms=chosen_arms(request.arms, request.tasks or {}),
        evaluation=PlannedEvaluation(request.images, items),
        decision=None if request.decision is None else dict(request.decision),
        rule=RULE,
    )


def chosen_threats(threats: Threats, shape: tuple[int, ...]) -> dict[str, float]:
    """Return radii by norm, the one to train against first; norms that are not named follow at their customary radii.

    Raises:
        ValueError: an unknown norm or a radius out of range.
    """
    requested: dict[NormLike, float | None]
    if isinstance(threats, ThreatModel):
        requested = {threats.norm: threats.eps}
    elif isinstance(threats, Mapping):
        requested = dict(threats.items())
    else:
        requested = dict.fromkeys([threats] if isinstance(threats, str) else threats)
    if not requested:
        raise ValueError('threats is empty, but a norm is needed, such as threats={"linf": 8/255}')
    others = dict.fromkeys(name for name in plugins.names("norms") if name not in requested)
    radii: dict[str, float] = {}
    for norm, eps in {**numbers(requested), **others}.items():
        threat = ThreatModel(norm, default_eps(norm, shape) if eps is None else eps)
        if not isinstance(threat.norm, str):
            raise ValueError(
                f"{norm!r} is an object, but a plan holds norms by name: {', '.join(plugins.names('norms'))}"
            )
        radii.setdefault(threat.norm, rounded(threat.eps))
    return radii


def rounded(radius: float) -> float:
    """Round a number to a multiple of 1/255 that it is, or else to ten digits, as people would write it.

    Example:
        >>> rounded(1.5 * 0.1), rounded(4 * (2 / 255)) == 8 / 255
        (0.15, True)
    """
    shown = shown_radius(radius)
    return number(shown) if "/" in shown else float(f"{radius:.10g}")


def chosen_corruptions(names: str | Sequence[str]) -> list[str]:
    """Return names of corruptions, with the members of a family in its place.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> chosen_corruptions(["fog", "noise"])
        ['fog', 'gaussian_noise', 'impulse_noise', 'shot_noise']
    """
    result: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        if name not in FAMILIES:
            _check_corruption(name)
        result += [member for member in standard_names() if family_of(member) == name] if name in FAMILIES else [name]
    return list(dict.fromkeys(result))


def _check_corruption(name: str) -> None:
    known = plugins.names("corruptions")
    if name not in known:
        raise ValueError(
            f"unknown corruption {name!r}: families are {', '.join(FAMILIES)}, corruptions {', '.join(known)}"
        )


def chosen_arms(arms: ArmLike | Sequence[ArmLike] | None, tasks: Mapping[str, float]) -> Arms:
    """Return the phases of each arm by name, the arms with fewest phases first unless the user gave an order.

    Args:
        arms: None for all; or names of arms or of files in `robusttune/trial/arms`, functions as there, {name: phases}, or
            a list of such.
        tasks: pretext tasks and their weights.

    Raises:
        ValueError: an unknown name.
    """
    families = {name: _family(name)(tasks) for name in plugins.names("trial.arms")}
    if arms is None:
        every = {arm: phases for family in families.values() for arm, phases in family.items()}
        return dict(sorted(every.items(), key=lambda named: _complexity(named[1])))
    single = isinstance(arms, str | Mapping) or callable(arms)
    requested: Iterable[ArmLike] = [arms] if single else arms  # type: ignore[list-item, assignment]
    chosen: Arms = {}
    for arm in requested:
        chosen |= _arms_of(arm, tasks, families)
    return chosen


def _family(name: str) -> Arm:
    family: Arm = plugins.find("trial.arms", name)
    return family


def _arms_of(arm: ArmLike, tasks: Mapping[str, float], families: Mapping[str, Arms]) -> Arms:
    if isinstance(arm, Mapping):
        return {str(name): [] if phases is None else phases for name, phases in arm.items()}
    if callable(arm):
        return arm(tasks)
    if arm in families:
        return families[arm]
    known = {name: phases for family in families.values() for name, phases in family.items()}
    if arm not in known:
        raise ValueError(
            f"unknown arm {arm!r}: known are {', '.join({**families, **known})}; pass {{name: phases}} for an arm of yours"
        )
    return {arm: known[arm]}


def _complexity(phases: Sequence[Phase]) -> tuple[bool, int]:
    """Return a key to sort arms by: pretext tasks beside the classifier, then the number of phases."""
    return any(kind != "pretrain" and settings.get("tasks") for kind, settings in map(name_and_settings, phases)), len(
        phases
    )


def items_of(threats: Mapping[str, float], corruptions: Sequence[str]) -> list[Item]:
    """Return evaluation items: unchanged images, each threat below, at and above its radius, and corruptions."""
    items: list[Item] = ["clean"]
    for norm, eps in threats.items():
        radii = [rounded(multiple * eps) for multiple in MULTIPLES]
        items.append({"sweep": {"norms": [norm], "eps": radii, "steps": STEPS}})
    if corruptions:
        items.append({"corruptions": {"names": list(corruptions), "severities": list(SEVERITIES)}})
    return items


def chosen_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds themselves; a number n stands for 0 to n-1.

    Raises:
        ValueError: neither a number nor a list.

    Example:
        >>> chosen_seeds(3), chosen_seeds((4, 7))
        ([0, 1, 2], [4, 7])
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        return list(range(seeds))
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | Mapping):
        return list(seeds)
    raise ValueError(f"seeds is {seeds!r}, but their number is needed, such as 3, or a list of them, such as [0, 1, 2]")


def chosen_tasks(tasks: TasksLike) -> dict[str, float] | None:
    """Return the weight of each pretext task by its name; None for none.

    Raises:
        ValueError: a task is unknown, has the weight 0, or is an object, which no plan can hold.
    """
    weights = task_weights(tasks)
    named = {name: weight for name, weight in (weights or {}).items() if isinstance(name, str)}
    if weights is not None and len(named) < len(weights):
        raise ValueError(f"tasks is {tasks!r}, but a plan holds tasks by name: {', '.join(plugins.names('tasks'))}")
    zero = [name for name, weight in named.items() if weight == 0]
    if zero:
        raise ValueError(
            f"the weight of {' and '.join(zero)} is 0, which trains a head alone and leaves nothing to compare: pass a weight "
            "above 0, or leave it out"
        )
    return None if weights is None else named


def chosen_budget(budget: float | None, price: float | None) -> Budget | None:
    """Return the budget as the plan has it: seconds, or money and its price an hour.

    Raises:
        ValueError: a price without a budget.
    """
    if price is not None and budget is None:
        raise ValueError("price= needs budget=: pass the money that the trial may cost, too")
    if budget is None:
        return None
    return {"seconds": budget} if price is None else {"money": budget, "price an hour": price}
