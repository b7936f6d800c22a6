"""Evaluations of a model on images, one file each: a function `(subject, …) -> list[Record]`, see `Evaluation`."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal, Protocol, TypeAlias, cast

from robusttune import plugins
from robusttune.attacks import AttackLike, has_own_loss
from robusttune.measuring.intervals import Z95, wilson
from robusttune.measuring.losses import LOSSES, LossName
from robusttune.measuring.passes import Passes, attack_passes, attacks_at, checked_by, takes
from robusttune.measuring.record import Record, accuracy, balanced, hits, named, repeated
from robusttune.measuring.subject import Subject
from robusttune.measuring.tally import Tally
from robusttune.types import says

__all__ = [
    "LOSSES",
    "STEPS",
    "Z95",
    "Evaluation",
    "LossName",
    "Passes",
    "Record",
    "Steps",
    "Subject",
    "Tally",
    "accuracy",
    "attack_passes",
    "attacks_at",
    "balanced",
    "checked_by",
    "hits",
    "losses_for",
    "named",
    "repeated",
    "steps_for",
    "takes",
    "wilson",
]

STEPS = 50  # of an attack that takes a number of steps
Steps: TypeAlias = int | Literal["auto"] | None


class Evaluation(Protocol):
    """The contract of a file in `evaluations/`: a function that measures a model on images.

    Settings are keyword arguments with defaults; users change them with `functools.partial`. Four decorators are for long
    evaluations: `plugins.requires` imports a package beyond the core's before anything is measured; `checked_by` checks heads,
    settings and files just as early; `takes` states the passes through the model for each image, for the progress bar and for
    `estimate`; `attacks_at` states the adversaries of an evaluation that attacks, so that a gate refuses a radius that will not
    be measured.
    """

    def __call__(self, subject: Subject, /) -> Iterable[Record] | Record:
        """Return the measured numbers, each with its setting and interval.

        Args:
            subject: the model, its images and the adversary.
        """


def steps_for(attack: AttackLike, steps: Steps) -> int | None:
    """Return the steps of an attack; for "auto", those of a `partial`, otherwise STEPS, and None for an attack that takes no steps.

    Raises:
        ValueError: the attack is a `partial` with other steps.

    Example:
        >>> from robusttune.attacks.pgd import pgd
        >>> steps_for("pgd", "auto"), steps_for("nfgsm", "auto"), steps_for(partial(pgd, steps=200), "auto"), steps_for("pgd", 3)
        (50, None, 200, 3)
    """
    settings = attack.keywords if isinstance(attack, partial) else {}
    if says(steps, "auto"):
        customary = STEPS if plugins.takes("attacks", attack, "steps") else None
        return cast(int | None, settings.get("steps", customary))
    if steps is not None and settings.get("steps", steps) != steps:
        raise ValueError(
            f"steps is {steps}, but the attack is a partial with steps={settings['steps']}: leave steps out, or the steps of the partial"
        )
    return cast(int | None, steps)


def losses_for(attack: AttackLike, losses: Sequence[LossName]) -> Sequence[LossName]:
    """Return the losses to attack with, one after the other: one alone, which does not count, for an attack with a loss of its own."""
    return losses[:1] if has_own_loss(plugins.find("attacks", attack)) else losses
