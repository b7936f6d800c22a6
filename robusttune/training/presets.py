"""Presets and purposes of a run: its threat, attack, tasks and pace where the user names none."""

from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from torch import Tensor

from robusttune.attacks import Attack, AttackLike, stays_in_ball
from robusttune.augmentations import AugmentLike
from robusttune.model.input_shapes import is_large
from robusttune.norms import NormLike, canonical, default_eps
from robusttune.plugins import configured, one_of
from robusttune.run.about import read_run
from robusttune.run.log import tell
from robusttune.run.settings import COUNT, check_number
from robusttune.tasks import HEADS_ALONE, TASKS, TaskWeights
from robusttune.tasks._weights import task_weights
from robusttune.threat import ThreatModel
from robusttune.training.settings import Adversary, PresetName, Purpose, RunSettings
from robusttune.types import says

# The norm and the augmentation of each purpose, where the user passes none.
PURPOSES = {"attacks": ("linf", "auto"), "corruptions": ("l2", "augmix")}


@dataclass(frozen=True)
class Preset:
    """The settings of a run that the user has not chosen.

    Attributes:
        attack: its name; "auto" for the one by image size and norm.
        tasks: pretext tasks and their weights.
        pace: the peak learning rate of the recipe for small images, as a multiple of the customary one.
        clip_grad: largest norm of the gradient for small images, where the optimiser is not the user's; None for the backbone's own.
        judged: epochs from one validation on held-out images to the next; the last epoch is always validated.
        update_batch: most images of one step, in each process, for small images where optimizer, scheduler, lr and accumulate are not
            the user's; None for the loader's batches as they are.
        late: the attack of the last quarter of the run and its steps, where the first is not the user's; None for no other.
        published: whether large images are attacked as in published recipes, which were tried at their size.
    """

    attack: str
    tasks: TaskWeights | None
    pace: float = 1.0
    clip_grad: float | None = None
    judged: int = 1
    update_batch: int | None = None
    late: tuple[str, int] | None = None
    published: bool = True

    def at(self, images: Tensor) -> "Preset":
        """Return the preset for images (N,C,H,W) of this size."""
        return replace(self, attack="auto", judged=1, late=None) if self.published and is_large(images) else self


EARLIER: PresetName = "joint"  # what "standard" was before `update_batch`
PRESETS = {
    "standard": Preset("nfgsm", HEADS_ALONE, pace=4.0, clip_grad=1.0, judged=3, update_batch=32, late=("wide_pgd", 2)),
    "thorough": Preset("auto", HEADS_ALONE, pace=4.0, clip_grad=1.0, update_batch=32, late=("wide_pgd", 10)),
    "fast": Preset("nfgsm", None, pace=4.0, judged=3, late=("pgd", 2), published=False),
    EARLIER: Preset("auto", TASKS),
}


def chosen_preset(name: PresetName) -> Preset:
    """Return the preset of this name.

    Raises:
        ValueError: there is no preset of this name.
    """
    return PRESETS[one_of("preset", name, tuple(PRESETS))]


def images_of_a_step(settings: RunSettings, images: Tensor) -> int | None:
    """Return the most images of one optimiser step; None for the loader's batches as they are.

    Args:
        images: (N,C,H,W), the first batch.

    Raises:
        ValueError: batches are to be cut and to be joined.
    """
    length, updates = settings.length, settings.updates
    chosen = updates.optimizer, updates.scheduler, updates.lr
    if not says(length.update_batch, "auto"):
        if length.update_batch is not None and length.accumulate > 1:
            raise ValueError(
                f"update_batch={length.update_batch} cuts batches and accumulate={length.accumulate} joins them: pass one of the two"
            )
        if length.update_batch is not None:
            check_number("update_batch", length.update_batch, COUNT)
        return cast(int | None, length.update_batch)
    if length.accumulate > 1 or any(value is not None for value in chosen) or is_large(images):
        return None
    return chosen_preset(settings.adversary.preset).update_batch


def with_preset(settings: RunSettings) -> RunSettings:
    """Return settings with the weight of each task in place of names and "auto"; a resumed run keeps the preset of its start.

    Raises:
        ValueError: an unknown preset or task.
    """
    settings = _as_begun(settings)
    preset, learning = chosen_preset(settings.adversary.preset), settings.learning
    return replace(settings, learning=replace(learning, tasks=task_weights(learning.tasks, preset.tasks)))


def _as_begun(settings: RunSettings) -> RunSettings:
    """Return settings with the default preset of an earlier version if the run to resume was begun with it."""
    output, adversary = settings.output, settings.adversary
    if output.out is None or not output.resume or adversary.preset != "standard":
        return settings
    begun = read_run(output.out)
    if begun is None or begun.function != "harden" or begun.arguments.get("preset") != EARLIER:
        return settings
    tell(f"the run was begun with an earlier default: it goes on with preset={EARLIER!r}", output.progress)
    return replace(settings, adversary=replace(adversary, preset=EARLIER))


def default_attack(
    images: Tensor, threat: ThreatModel, attack: AttackLike, steps: int | None, preset: Preset = PRESETS[EARLIER]
) -> tuple[AttackLike, int | None]:
    """Choose the attack and its steps where the user says "auto".

    PGD-10 for small images; from 160 px PGD-7 in l2, and APGD-2 in linf, where radii are small. A preset may name another
    attack, which takes no steps: where the user gives them, they are those of the above, with the fast preset of APGD.

    Source: Pang et al., arXiv:2010.00467; above 160 px Singh et al., arXiv:2303.01870.
    """
    if not says(attack, "auto"):
        return attack, steps
    if preset.attack != "auto" and steps is None:
        return preset.attack, None
    if not preset.published:
        return "apgd", steps
    if not is_large(images):
        return "pgd", steps or 10
    return ("pgd", steps or 7) if threat.norm == "l2" else ("apgd", steps or 2)


@dataclass(frozen=True)
class Attacker:
    """The threat of a run, and the attack that trains against it.

    Attributes:
        threat: with the run's full radius.
        attack: a name, or the user's own.
        steps: the number of steps of a named attack; None for its own default.
        late: the attack of the last quarter of the run; None for no other.
    """

    threat: ThreatModel
    attack: AttackLike
    steps: int | None
    late: Attack | None


def chosen_attacker(adversary: Adversary, preset: Preset, images: Tensor) -> Attacker:
    """Choose the threat and the attack of a run: the user's, else those of the purpose, the preset and the image size.

    Args:
        images: (N,C,H,W), the first batch.

    Raises:
        ValueError: an unknown purpose or norm, or a radius that is not a number of at least 0.
    """
    preset = preset.at(images)
    norm, _ = for_purpose(adversary.purpose, adversary.norm, "auto")
    eps = default_radius(adversary.purpose, norm, images) if adversary.eps is None else adversary.eps
    threat = ThreatModel(norm, eps)
    attack, steps = default_attack(images, threat, adversary.attack, adversary.steps, preset)
    if preset.late is None or not says(adversary.attack, "auto") or adversary.steps is not None:
        return Attacker(threat, attack, steps, None)
    name, late_steps = preset.late
    late: Attack = configured("attacks", name, steps=late_steps)
    return Attacker(threat, attack, steps, late)


def is_single_step(attack: Attack, steps: int | None) -> bool:
    """Return True if training may overfit to a single step of the attack, and has to be watched for that."""
    settings = attack.keywords if isinstance(attack, partial) else {}
    return not stays_in_ball(attack) or settings.get("steps", steps) == 1


def for_purpose(purpose: Purpose, norm: NormLike | None, augment: AugmentLike) -> tuple[NormLike, AugmentLike]:
    """Return the norm and the augmentation of a purpose, unless the user gave them.

    Raises:
        ValueError: an unknown purpose.
    """
    usual_norm, usual_augment = PURPOSES[one_of("purpose", purpose, tuple(PURPOSES))]
    return usual_norm if norm is None else norm, usual_augment if says(augment, "auto") else augment


def augment_for(purpose: Purpose, augment: AugmentLike) -> AugmentLike:
    """Return the user's augmentation, or with "auto" that of the purpose."""
    return for_purpose(purpose, None, augment)[1]


def default_radius(purpose: Purpose, norm: NormLike, images: Tensor) -> float:
    """Return the customary radius for images (N,C,H,W); against corruptions a fifth of it, above 160 px a sixtieth.

    Source: Kireev et al., arXiv:2103.02325: l2 radii of 0.1 for CIFAR-10 and 0.05 for 224 px.
    """
    radius = default_eps(canonical(norm), tuple(images.shape[1:]))
    if purpose == "attacks":
        return radius
    return radius / (60 if is_large(images) else 5)
