"""Defaults of a trial's plan: threats, corruptions, arms, seeds, evaluation items and budget of a request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from robusttune import plugins
from robusttune.norms import NormLike, default_eps
from robusttune.run.settings import check_number, numbers, seconds_of
from robusttune.tasks import TASKS, TasksLike
from robusttune.tasks._weights import checked_weight, task_weights
from robusttune.threat import ThreatModel
from robusttune.trial.arms import Arm, Arms, Phase, Phases, Settings
from robusttune.trial.arms._phase import Item, name_and_settings
from robusttune.trial.data import Data
from robusttune.trial.decision.criteria import check_needs
from robusttune.trial.plan import Budget, PlannedEvaluation, TrialPlan
from robusttune.trial.plan_checks import check_arms
from robusttune.trial.plan_items import chosen_corruptions, needed_items, other_items, rounded, screened
from robusttune.trial.request_checks import SEED_COUNT, check_request
from robusttune.trial.screening import FEWEST, KEEP, SHORTER, Screening, fresh_seeds, looks_for
from robusttune.trial.screening import SEEDS as FIRST_SEEDS
from robusttune.types import shown

SEEDS = 8
RULE = (
    "Every arm starts from the weights in start.safetensors and takes, with each seed, as many forward and backward passes "
    "as `epochs` epochs of adversarial training without pretext tasks do. With K steps of attack an image costs K+1 passes "
    "(K is 1 by default, 2 in the last quarter; from 160 px 2 in linf, 7 in l2); with a pretext task that is not attacked "
    "K+2; with one attacked separately or jointly 2(K+1); ordinary training 1; pre-training one for each task; an attack by "
    "APGD, as from 160 px in linf, a third of a pass more. Judging epochs on held-out images is not counted."
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
    needs: str | Sequence[str]
    screening: Settings | bool | None
    seeds: Sequence[int] | None
    finetune: int
    epochs: float
    images: int
    evaluation: Sequence[Item] | None
    budget: float | str | None
    price: float | None
    currency: str | None
    cloud: Mapping[str, float] | None
    settings: Settings | None
    decision: Settings | None


def new_plan(request: PlanRequest, model: str, data: Data) -> TrialPlan:
    """Build the plan of a request.

    Args:
        request: arguments of `poc`.
        model: name and fingerprint of the model.
        data: the data of the trial.

    Raises:
        ValueError: unknown names, radii out of range, or a price without a budget.
    """
    check_request(request)
    threats = chosen_threats(request.threats, data.sizes.shape)
    corruptions = chosen_corruptions(request.corruptions)
    needs = [request.needs] if isinstance(request.needs, str) else list(request.needs)
    check_needs(needs)
    items, more = list(request.evaluation or []), list[Item]()
    if request.evaluation is None:
        items, more = needed_items(threats, needs), other_items(threats, needs, corruptions)
    arms = chosen_arms(request.arms, request.tasks, unlabelled=data.unlabeled is not None)
    check_arms(arms)
    if data.unlabeled is None and any(map(_has_teacher, arms.values())):
        raise ValueError(
            "an arm has a teacher, but there are no images without labels: pass unlabeled_loader=, or drop the arm"
        )
    seeds = _free_seeds(request.screening) if request.seeds is None else list(request.seeds)
    there = data.facts().get("test images")
    own = request.screening.get("images") if isinstance(request.screening, Mapping) else None
    images, first = shared_out(request.images, there, own)
    screening = chosen_screening(request, arms, seeds, first, screened(threats, needs))
    return TrialPlan(
        model=model,
        data=data.facts(),
        budget=chosen_budget(request.budget, request.price, request.currency, request.cloud),
        threats=threats,
        seeds=seeds,
        epochs=request.epochs if isinstance(request.epochs, int) else float(request.epochs),
        settings={"preset": "standard", **(request.settings or {})},
        arms=arms,
        needs=needs,
        screening=screening,
        looks=looks_for(len(seeds)),
        evaluation=PlannedEvaluation(
            images if screening else min(request.images, there or request.images), items, more
        ),
        decision=None if request.decision is None else dict(request.decision),
        rule=RULE,
    )


def _free_seeds(screening: Settings | bool | None) -> list[int]:
    """Return seeds that the screening does not take."""
    own = screening.get("seeds") if isinstance(screening, Mapping) else None
    used = own if isinstance(own, list | tuple) else []
    return [seed for seed in range(SEEDS + len(used)) if seed not in used][:SEEDS]


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


def chosen_arms(
    arms: ArmLike | Sequence[ArmLike] | None, tasks: Mapping[str, float] | None, *, unlabelled: bool = False
) -> Arms:
    """Return the phases of each arm by name, the arms with fewest phases first unless the user gave an order.

    Args:
        arms: None for all; or names of arms or of files in `robusttune/trial/arms`, functions as there, {name: phases}, or
            a list of such.
        tasks: pretext tasks and their weights; None for arms with a task where they are named alone.
        unlabelled: there are images without labels, for arms with a teacher.

    Raises:
        ValueError: an unknown name.
    """
    families = {name: _family(name)(TASKS if tasks is None else tasks) for name in plugins.names("trial.arms")}
    if arms is None:
        usual = {name: _family(name)(tasks or {}) for name in families}
        every = {arm: phases for family in usual.values() for arm, phases in family.items()}
        every = {arm: phases for arm, phases in every.items() if unlabelled or not _has_teacher(phases)}
        return dict(sorted(every.items(), key=lambda named: _complexity(named[1])))
    single = isinstance(arms, str | Mapping) or callable(arms)
    requested: Iterable[ArmLike] = [arms] if single else arms  # type: ignore[list-item, assignment]
    chosen: Arms = {}
    for arm in requested:
        chosen |= _arms_of(arm, TASKS if tasks is None else tasks, families)
    return chosen


def _has_teacher(phases: Sequence[Phase]) -> bool:
    return any(settings.get("teacher") is not None for _, settings in map(name_and_settings, phases))


def _family(name: str) -> Arm:
    family: Arm = plugins.find("trial.arms", name)
    return family


def _arms_of(arm: ArmLike, tasks: Mapping[str, float], families: Mapping[str, Arms]) -> Arms:
    if isinstance(arm, Mapping):
        return {str(name): [] if phases is None else phases for name, phases in arm.items()}
    if callable(arm) and not isinstance(arm, type) and not hasattr(arm, "forward"):
        made = arm(tasks)
        if not isinstance(made, Mapping):
            raise ValueError(f"the arms of {shown(arm)} are {shown(made)}, but {{name: phases}} is needed")
        return dict(made)
    if isinstance(arm, str) and arm in families:
        return families[arm]
    known = {name: phases for family in families.values() for name, phases in family.items()}
    if not isinstance(arm, str) or arm not in known:
        raise ValueError(
            f"unknown arm {shown(arm)}: known are {', '.join({**families, **known})}; pass {{name: phases}} for an arm of yours"
        )
    return {arm: known[arm]}


def _complexity(phases: Sequence[Phase]) -> tuple[bool, int]:
    """Return a key to sort arms by: pretext tasks beside the classifier, then the number of phases."""
    return any(kind != "pretrain" and settings.get("tasks") for kind, settings in map(name_and_settings, phases)), len(
        phases
    )


def shared_out(images: int, there: int | None, first: int | None = None) -> tuple[int, int]:
    """Return the numbers of held-out images for the second stage and for the screening, which takes none of those.

    Args:
        images: asked for in the second stage.
        there: how many there are; None if it is not known.
        first: for the screening; None for a third as many as in the second stage.

    Example:
        >>> shared_out(3000, 10_000), shared_out(3000, 1500)
        ((3000, 1000), (1000, 500))
    """
    if first is None:
        first = max(1, min(images if there is None else there, images) // SHORTER)
    return (images if there is None else max(1, min(images, there - first))), first


def chosen_screening(
    request: PlanRequest, arms: Arms, seeds: Sequence[int], images: int, items: list[Item]
) -> Settings | None:
    """Return the plan's entry for the first stage; None without one, and where a single arm trains.

    Raises:
        ValueError: settings that do not fit.
    """
    if not (request.screening is None or isinstance(request.screening, bool | Mapping)):
        raise ValueError(
            f"screening is {request.screening!r}, but settings such as {{'keep': 4}}, or False for none, are needed"
        )
    trained = sum(bool(phases) for phases in arms.values())
    if request.screening is False or trained < FEWEST:
        return None
    own = request.screening if isinstance(request.screening, Mapping) else {}
    usual = {
        "seeds": fresh_seeds(FIRST_SEEDS, seeds),
        "epochs": float(f"{max(float(request.epochs) / SHORTER, min(float(request.epochs), 1)):.3g}"),
        "images": images,
        "items": items,
        "keep": min(KEEP, trained),
    }
    chosen = {**usual, **own}
    if isinstance(chosen["seeds"], int):
        check_number("seeds", chosen["seeds"], SEED_COUNT)
        chosen["seeds"] = fresh_seeds(chosen["seeds"], seeds)
    return Screening.of(chosen).as_dict()


def chosen_tasks(tasks: TasksLike) -> dict[str, float] | None:
    """Return the weight of each pretext task by its name; None for none.

    Raises:
        ValueError: a task is unknown, has the weight 0, or is an object, which no plan can hold.
    """
    weights = task_weights(tasks)
    named = {name: checked_weight(name, each) for name, each in (weights or {}).items() if isinstance(name, str)}
    if weights is not None and len(named) < len(weights):
        raise ValueError(f"tasks is {tasks!r}, but a plan holds tasks by name: {', '.join(plugins.names('tasks'))}")
    zero = [name for name, weight in named.items() if weight == 0]
    if zero:
        raise ValueError(
            f"the weight of {' and '.join(zero)} is 0, which trains a head alone and leaves nothing to compare: pass a weight "
            "above 0, or leave it out"
        )
    return None if weights is None else named


def chosen_budget(
    limit: float | str | None,
    price: float | None,
    currency: str | None = None,
    cloud: Mapping[str, float] | None = None,
) -> Budget | None:
    """Return the budget as the plan has it: seconds, or money and its price an hour; a currency, and what a rented machine costs.

    Raises:
        ValueError: a price without a budget.
    """
    if price is not None and limit is None:
        raise ValueError("price= needs budget=: pass the money that the trial may cost, too")
    budget: Budget = {}
    if limit is not None:
        allowed = cast(float, seconds_of(limit, "budget") if price is None else limit)
        budget = {"seconds": allowed} if price is None else {"money": allowed, "price an hour": price}
    if currency is not None:
        budget["currency"] = currency
    if cloud is not None:
        budget["cloud"] = dict(cloud)  # type: ignore[typeddict-item]  # checked with the plan
    return budget or None
