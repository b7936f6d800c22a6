"""Presets and purposes of a run: the attack, tasks, radius and pace that stand where the user names none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robusttune.attacks import Attack
from robusttune.model.input_shapes import is_large
from robusttune.plugins import configured, one_of
from robusttune.tasks._heads import TASKS
from robusttune.threat import ThreatModel, canonical, default_eps

# What harden is for: the norm and the augmentation unless given.
PURPOSES = {"attacks": ("linf", "auto"), "corruptions": ("l2", "augmix")}


@dataclass(frozen=True)
class Preset:
    """What a run is like where the user has not said otherwise.

    Attributes:
        attack: its name; "auto" for the one by image size and norm.
        tasks: pretext tasks and their weights.
        pace: the peak learning rate of the recipe for small images, as a multiple of the customary one.
        judged: epochs from one judgement on held-out images to the next; the last one is always judged.
        late: the attack of the last quarter of the run and its steps, where the first is not the user's; None for no other.
    """

    attack: str
    tasks: Mapping[Any, float] | None
    pace: float = 1.0
    judged: int = 1
    late: tuple[str, int] | None = None


PRESETS = {
    "standard": Preset("auto", TASKS),
    "fast": Preset("nfgsm", None, pace=4.0, judged=3, late=("pgd", 2)),
}


def chosen_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        ValueError: there is none.
    """
    return PRESETS[one_of("preset", name, tuple(PRESETS))]


def default_attack(
    images: Tensor, threat: ThreatModel, attack: Any, steps: int | None, preset: Preset = PRESETS["standard"]
) -> tuple[Any, int | None]:
    """The attack and its steps where the user says "auto": PGD-10 for small images; above 160 px PGD-7 in l2, and APGD-2
    in linf, where radii are small. A preset may name another; with steps that it has none of, that is APGD.

    Source: Pang et al., arXiv:2010.00467; above 160 px Singh et al., arXiv:2303.01870.
    """
    if attack != "auto":
        return attack, steps
    if preset.attack != "auto":
        return (preset.attack, None) if steps is None else ("apgd", steps)
    if not is_large(images):
        return "pgd", steps or 10
    return ("pgd", steps or 7) if threat.norm == "l2" else ("apgd", steps or 2)


def late_attack(preset: Preset) -> Attack | None:
    """The attack of the last quarter of a run, if the preset has one."""
    return None if preset.late is None else configured("attacks", preset.late[0], steps=preset.late[1], step_size=None)


def for_purpose(purpose: str, norm: Any, augment: Any) -> tuple[Any, Any]:
    """The norm and the augmentation that serve a purpose, unless the user gave them.

    Raises:
        ValueError: an unknown purpose.
    """
    usual_norm, usual_augment = PURPOSES[one_of("purpose", purpose, tuple(PURPOSES))]
    return usual_norm if norm is None else norm, usual_augment if augment == "auto" else augment


def default_radius(purpose: str, norm: Any, images: Tensor) -> float:
    """The customary radius for images (N,C,H,W); against corruptions a fifth of it, above 160 px a sixtieth.

    Source: Kireev et al., arXiv:2103.02325: l2 radii of 0.1 for CIFAR-10 and 0.05 for 224 px.
    """
    radius = default_eps(canonical(norm), tuple(images.shape[1:]))
    if purpose == "attacks":
        return radius
    return radius / (60 if is_large(images) else 5)
