"""The adversary that is advised: its norm and radius, or augmentation where nobody attacks."""

from torch import Tensor

from robusttune.model.input_shapes import is_large
from robusttune.norms import canonical, checked_eps
from robusttune.run.settings import shown_radius
from robusttune.training.advice.chosen import DEFAULT, YOURS, Chosen, Wishes
from robusttune.training.advice.figures import measured, percent, published, rows
from robusttune.training.advice.situation import Situation
from robusttune.training.presets import default_radius, for_purpose
from robusttune.training.settings import Purpose

NOTHING, PURPOSE = "no more training", 'the same, by today\'s default (purpose="corruptions")'  # arms of the study
WITHOUT_ADVERSARY = {"norm": "l2", "eps": 0.0, "steps": 1, "eps_ramp": False, "tasks": None}
TOO_LARGE = 2  # times the customary radius
NORMS = (
    "linf: the attacker may change every pixel, each by at most eps. l2: all changes together are at most eps, so that a few pixels "
    "may change by much. Take the one that describes your attacker, and evaluate in both"
)


def choose_adversary(chosen: Chosen, situation: Situation, wishes: Wishes) -> None:
    """Add norm and eps, or the augmentation for a purpose without attackers.

    Raises:
        ValueError: eps without a norm, an unknown norm, or an invalid radius.
    """
    if wishes.eps is not None and wishes.norm is None:
        raise ValueError(
            f"eps is {shown_radius(wishes.eps)}, but the same number is another radius in each norm: pass norm='linf' or norm='l2' with it"
        )
    if wishes.purpose == "corruptions" and wishes.norm is None:
        _without_adversary(chosen)
        return
    purpose: Purpose = "corruptions" if wishes.purpose == "corruptions" else "attacks"
    norm = canonical(for_purpose(purpose, wishes.norm, "auto")[0])
    if wishes.norm is None:
        chosen.say("norm", str(norm), f"norm was left out, so the default is taken. {NORMS}", DEFAULT)
        chosen.todo.append("choose the norm by what your attacker can do: the reason for norm says how")
    else:
        chosen.say("norm", str(norm), "", YOURS)
    usual = default_radius(purpose, norm, situation.images)
    eps = usual if wishes.eps is None else checked_eps(wishes.eps, norm)
    if wishes.eps is None:
        why, source = _customary(norm, situation.images, purpose)
    else:
        why, source = f"the customary radius for images of this size is {shown_radius(usual)}", YOURS
    if eps > TOO_LARGE * usual:
        why += f": this one is {eps / usual:.1f} times as large, and costs clean accuracy (see below); look at it with draw_eps"
    chosen.say("eps", shown_radius(eps), why, source)
    chosen.settings |= {"norm": norm, "eps": eps}
    if purpose == "corruptions":
        chosen.settings["purpose"] = purpose
        chosen.say(
            "purpose", purpose, "AugMix, and a radius far below that against attackers", published("corruptions")
        )


def _customary(norm: object, images: Tensor, purpose: str) -> tuple[str, str]:
    """Explain the customary radius, and say where it comes from."""
    if purpose == "corruptions":
        return "the small radius that helps against noise and blur, too", published("corruptions")
    if is_large(images):
        return (
            "the customary radius for images of this size; robust accuracy was not measured by us there",
            published("large linf" if norm == "linf" else "large l2"),
        )
    side = max(images.shape[-2:])
    why = "the customary radius for images of this size"
    if norm != "linf":
        why += ", which grows with the number of their values"
    elif side > 64:
        why += ", between that for 64 px and that for 160 px"
    return why + "; draw it on your images with draw_eps", published("small")


def _without_adversary(chosen: Chosen) -> None:
    """Add the augmentation that did best against corruptions, without an adversary."""
    known = [row for row in rows("corruptions") if row["augment"] is not None]
    best = max(known, key=lambda row: float(row["all"]))
    told = [row for row in rows("corruptions") if row["augment"] is not None or row["arm"] in (NOTHING, PURPOSE)]
    others = "; ".join(f"{row['arm']} {percent(row, 'all')}" for row in told)
    chosen.settings |= {**WITHOUT_ADVERSARY, "augment": best["augment"]}
    chosen.say(
        "augment",
        f"{best['augment']!r}, without an adversary (eps=0)",
        f"in the mean over 15 corruptions, of 1,000 test images of 32 px: {others}. Where attackers count, too, pass "
        "norm= and get a small radius beside AugMix. Never train on the corruption that you report",
        measured("corruptions"),
    )
