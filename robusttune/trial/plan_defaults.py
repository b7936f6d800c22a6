"""The plan of a staged trial: made from what the user asks for, written for people to edit, and checked when it is read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.corruptions._benchmark import family_of, standard_names
from robusttune.norms import canonical, default_eps
from robusttune.run.files import write_bytes
from robusttune.threat import ThreatModel
from robusttune.trial.decision.criteria import criteria
from robusttune.trial.equal_compute import shares
from robusttune.trial.results import PLAN, Arms, named, numbers

MULTIPLES = (0.5, 1.0, 1.5, 2.0)  # of a threat's radius, at which arms are attacked
STEPS, SEVERITIES = 20, (1, 3, 5)
RULE = (
    "Every arm starts from the weights in start.safetensors and takes, with each seed, as many forward and backward passes "
    "as `epochs` epochs of adversarial training without pretext tasks do. With K steps of attack an image costs that K+1 "
    "passes; with a pretext task that is not attacked K+2; with one attacked separately or jointly 2(K+1), so half the "
    "epochs; ordinary training 1; pre-training one for each task. Judging epochs on held-out images is not counted."
)
HEAD = """\
# The plan of a staged trial. Edit what you like (drop or add arms, seeds, items; change epochs), then go on with
# resume=True: what is finished and still fits is kept. Arms are lists of phases, {pretrain | ordinary |
# harden: {setting: value}} with the settings of those functions; `settings` go to all of them, and `share` is a phase's
# share of its arm's compute. Arms train against the first of the threats. `estimated` and `rule` are written, not read.

"""


def chosen_threats(threats: Any, shape: tuple[int, ...]) -> dict[str, float]:
    """Radii by norm, the one to train against first; norms without a radius, and those not named, have the customary one.

    Raises:
        ValueError: an unknown norm or a radius that is none.
    """
    if isinstance(threats, ThreatModel):
        threats = {threats.norm: threats.eps}
    if isinstance(threats, str):
        threats = [threats]
    given = dict(threats) if isinstance(threats, Mapping) else dict.fromkeys(threats)
    if not given:
        raise ValueError('threats is empty, but a norm is needed, such as threats={"linf": 8/255}')
    found: dict[str, float] = {}
    for norm, eps in {
        **numbers(given),
        **dict.fromkeys(each for each in plugins.names("norms") if each not in given),
    }.items():
        known = ThreatModel(norm, default_eps(norm, shape) if eps is None else eps)
        if not isinstance(known.norm, str):
            raise ValueError(
                f"{norm!r} is an object, but a plan can name norms alone: {', '.join(plugins.names('norms'))}"
            )
        found.setdefault(known.norm, short(known.eps))
    return found


def short(number: float) -> float:
    """The same to ten digits, as people would write it.

    Example:
        >>> short(1.5 * 0.1), short(8 / 255)
        (0.15, 0.03137254902)
    """
    return float(f"{number:.10g}")


def chosen_corruptions(wanted: str | Sequence[str]) -> list[str]:
    """Names of corruptions, with families in the place of which their members stand.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> chosen_corruptions(["fog", "noise"])
        ['fog', 'gaussian_noise', 'impulse_noise', 'shot_noise']
    """
    found: list[str] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in FAMILIES:
            _check_corruption(name)
        found += [each for each in standard_names() if family_of(each) == name] if name in FAMILIES else [name]
    return list(dict.fromkeys(found))


def _check_corruption(name: Any) -> None:
    known = plugins.names("corruptions")
    if name not in known:
        raise ValueError(
            f"unknown corruption {name!r}: families are {', '.join(FAMILIES)}, corruptions {', '.join(known)}"
        )


def chosen_arms(wanted: Any, tasks: Mapping[str, float] | None) -> Arms:
    """Arms by name, the plainest first unless the user gave an order.

    Args:
        wanted: None for all; or names of arms or of files in `robusttune/trial/arms`, functions as those there, {name: phases}, or
            a list of such.
        tasks: pretext tasks and their weights.

    Raises:
        ValueError: an unknown name.
    """
    made = {name: plugins.find("trial.arms", name)(tasks or {}) for name in plugins.names("trial.arms")}
    every: Arms = {arm: phases for family in made.values() for arm, phases in family.items()}
    if wanted is None:
        return dict(sorted(every.items(), key=lambda each: _elaborate(each[1])))
    found: Arms = {}
    for each in [wanted] if isinstance(wanted, str | Mapping) or callable(wanted) else wanted:
        if isinstance(each, Mapping):
            found |= {str(name): [] if phases is None else phases for name, phases in each.items()}
        elif callable(each):
            found |= each(tasks or {})
        elif each in made:
            found |= made[each]
        elif each in every:
            found[each] = every[each]
        else:
            raise ValueError(
                f"unknown arm {each!r}: known are {', '.join({**made, **every})}; pass {{name: phases}} for one of your own"
            )
    return found


def _elaborate(phases: Sequence[Any]) -> tuple[bool, int]:
    """Whether pretext tasks stand beside the class, and how many phases there are."""
    return any(kind != "pretrain" and own.get("tasks") for kind, own in map(named, phases)), len(phases)


def items_of(threats: Mapping[str, float], corruptions: Sequence[str]) -> list[Any]:
    """What arms are measured by: unchanged images, each threat below, at and above its radius, and corruptions."""
    attacks = [
        {"sweep": {"norms": [norm], "eps": [short(multiple * eps) for multiple in MULTIPLES], "steps": STEPS}}
        for norm, eps in threats.items()
    ]
    changed = {"corruptions": {"names": list(corruptions), "severities": list(SEVERITIES)}}
    return ["clean", *attacks, *([changed] if corruptions else [])]


def chosen_seeds(seeds: int | Sequence[int]) -> list[int]:
    """So many seeds, or those given."""
    return list(range(seeds)) if isinstance(seeds, int) else list(seeds)


def chosen_budget(budget: float | None, price: float | None) -> dict[str, float] | None:
    """The budget as the plan has it: seconds, or money and its price an hour."""
    if price is not None and budget is None:
        raise ValueError("price= is given without budget=: pass the money that the trial may cost, too")
    if budget is None:
        return None
    return {"seconds": budget} if price is None else {"money": budget, "price an hour": price}


def write_plan(folder: Path, plan: Mapping[str, Any]) -> Path:
    """Write `plan.yaml`, as people read it.

    Raises:
        ValueError: something in it is an object, which no file can hold.
    """
    try:
        text = yaml.safe_dump(_plain(plan), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    except yaml.representer.RepresenterError as error:
        what = f"{error.args[-1]!r}" if error.args else "something"
        raise ValueError(
            f"{what} is an object, which no plan can hold: use names, numbers and lists of them"
        ) from error
    write_bytes(folder / PLAN, (HEAD + text).encode())
    return folder / PLAN


def _plain(given: Any) -> Any:
    """The same without tuples and shared parts, which YAML would write as anchors."""
    if isinstance(given, Mapping):
        return {key: _plain(value) for key, value in given.items()}
    return [_plain(each) for each in given] if isinstance(given, list | tuple) else given


def check_plan(plan: Mapping[str, Any]) -> None:
    """Raise a ValueError for what in a plan can be seen not to fit; settings of phases are looked at where they are used."""
    seeds, arms, evaluation = plan["seeds"], plan["arms"], plan["evaluation"]
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds are {seeds!r}, but different whole numbers are needed, such as [0, 1, 2]")
    if not arms:
        raise ValueError(f"there are no arms: name some out of {', '.join(plugins.names('trial.arms'))}")
    for name, phases in arms.items():
        if not isinstance(phases, list):
            raise ValueError(f"arm {name!r} is {phases!r}, but a list of phases is needed, [] for no training")
        if "/" in str(name) or not str(name).strip(". "):
            raise ValueError(f"arm {name!r} cannot be the name of a folder: give it another one")
        shares(phases)
    for name in ("epochs", "images"):
        value = (plan if name == "epochs" else evaluation).get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise ValueError(f"{name} is {value!r} in the plan, but a number above 0 is needed")
    if not evaluation.get("items"):
        raise ValueError(f"there are no evaluation items: name some out of {', '.join(plugins.names('evaluations'))}")
    for item in evaluation["items"]:
        name, settings = named(item)
        plugins.configured("evaluations", name, **settings)
    criteria(plan.get("decision"))
    _check_budget(plan.get("budget"))
    threats = plan.get("threats")
    if not isinstance(threats, Mapping) or not threats:
        raise ValueError(f"threats is {threats!r} in the plan, but radii by norm are needed, such as {{linf: 8/255}}")
    for norm, eps in threats.items():
        ThreatModel(canonical(norm), eps)


def _check_budget(budget: Any) -> None:
    if budget is None:
        return
    known = [{"seconds"}, {"money", "price an hour"}]
    fits = isinstance(budget, Mapping) and set(budget) in known
    if not fits or not all(isinstance(value, int | float) and value > 0 for value in budget.values()):
        raise ValueError(
            f"budget is {budget!r} in the plan, but {{seconds: …}} or {{money: …, price an hour: …}} above 0 is needed, or null"
        )
