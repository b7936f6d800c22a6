"""Evaluation items of a trial's plan: what the second stage measures, and what the screening does."""

from collections.abc import Mapping, Sequence

from robusttune import plugins
from robusttune.corruptions import FAMILIES
from robusttune.corruptions._benchmark import family_of, standard_names
from robusttune.run.settings import number, shown_radius
from robusttune.trial.arms._phase import Item
from robusttune.trial.decision.criteria import ATTACK

MULTIPLES = (0.5, 1.0, 1.5, 2.0)  # of a threat's radius, at which arms are attacked
STEPS, SEVERITIES = 20, (1, 3, 5)
FEW_STEPS = 10  # of the attacks of the screening
STRONG = {"steps": 30, "targets": 3, "target_steps": 20}  # of the attacks with every seed


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


def needed_items(threats: Mapping[str, float], needs: Sequence[str]) -> list[Item]:
    """Return what is measured with every seed: unchanged images, and the needs, by attacks stronger than the sweep's."""
    items: list[Item] = ["clean"]
    items += [{"strong": {"norm": norm, "eps": threats[norm], **STRONG}} for norm in _norms(threats, needs)]
    families = [need for need in needs if need in FAMILIES]
    if families:
        items.append({"corruptions": {"names": chosen_corruptions(families), "severities": list(SEVERITIES)}})
    return items


def other_items(threats: Mapping[str, float], needs: Sequence[str], corruptions: Sequence[str]) -> list[Item]:
    """Return the exploratory items: each threat below, at and above its radius, and corruptions.

    The radius of a need is left out, as it is measured with every seed, and so are families that are needs.
    """
    items: list[Item] = []
    for norm, eps in threats.items():
        asked = norm in _norms(threats, needs)
        radii = [rounded(multiple * eps) for multiple in MULTIPLES if not (asked and multiple == 1)]
        items.append({"sweep": {"norms": [norm], "eps": radii, "steps": STEPS}})
    others = [name for name in corruptions if family_of(name) not in needs]
    if others:
        items.append({"corruptions": {"names": others, "severities": list(SEVERITIES)}})
    return items


def screened(threats: Mapping[str, float], needs: Sequence[str]) -> list[Item]:
    """Return what the screening measures: the needs alone, and unchanged images."""
    items: list[Item] = ["clean"]
    items += [
        {"sweep": {"norms": [norm], "eps": [threats[norm]], "steps": FEW_STEPS}} for norm in _norms(threats, needs)
    ]
    families = [need for need in needs if need in FAMILIES]
    if families:
        items.append({"corruptions": {"names": chosen_corruptions(families), "severities": [SEVERITIES[1]]}})
    return items


def _norms(threats: Mapping[str, float], needs: Sequence[str]) -> list[str]:
    """Return the norms of the needs that are attacks: "attack" stands for the one that arms train against."""
    named = [next(iter(threats)) if need == ATTACK else need for need in needs]
    return [norm for norm in dict.fromkeys(named) if norm in threats]
