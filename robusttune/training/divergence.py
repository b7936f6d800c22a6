"""Signs that a run diverges: weights that are not finite, an accuracy that falls, a model that comes to guess."""

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robusttune.data.loaders import is_plain
from robusttune.measuring.chance import LEAST, Guess, first_guess
from robusttune.model.snapshot import is_dense_float
from robusttune.run import distributed
from robusttune.training.schedule import RAMP

if TYPE_CHECKING:
    from robusttune.training.loop import Training

RETAINED = 0.15  # share of the best accuracy so far; noisy runs, and a growing radius, leave more
LEAST_FALL = 0.1
ERRORS = 4.0  # standard errors of a difference


def ramping(training: "Training") -> bool:
    """Return True if the radius was still growing when the present epoch, at its end, began."""
    epoch = training.epoch
    at_start = training.progress.share(epoch, 0) * epoch / (epoch + 1)
    return training.stepper.ramp and at_start < RAMP[1]


def fell(best: float, now: float, images: int, guessing: float = 0.0) -> bool:
    """Return True if an accuracy has fallen far below the best so far, by more than chance can explain.

    Args:
        best, now: shares of as many images.
        images: their number.
        guessing: the accuracy of a guess.

    Example:
        >>> fell(0.2, 0.02, 500), fell(0.2, 0.1, 500), fell(0.8, 0.1, 500, guessing=0.1), fell(0.3, 0.03, 32)
        (True, False, True, False)
    """
    middle = (best + now) / 2
    error = math.sqrt(2 * middle * (1 - middle) / images)
    return best - now > max(LEAST_FALL, ERRORS * error) and now - guessing < RETAINED * (best - guessing)


def guessing(training: "Training") -> str:
    """Describe the accuracy of the averaged weights on the first images if they only guess; return "" if not, or if unknown.

    All processes return the answer of the first one.
    """
    batches, robust_loss, average = training.batches, training.robust_loss, training.stepper.average
    guess: Guess | None = None
    if batches.labelled and batches.rereadable and (len(batches.peeked[0]) >= LEAST or is_plain(batches.loader)):
        with nullcontext() if average is None else average.applied():
            guess = first_guess(
                robust_loss.model, robust_loss.pixels, *batches.peeked, batches.loader, robust_loss.seed
            )
    guesses = guess is not None and bool(guess) and guess.images >= LEAST
    return str(guess) if distributed.agreed(float(guesses), training.stepper.device) else ""


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of dense floating-point tensors that hold NaN or infinite values."""
    dense = {name: value for name, value in weights.items() if isinstance(value, Tensor) and is_dense_float(value)}
    return [name for name, value in dense.items() if not bool(torch.isfinite(value).all())]


def advice(seen: str, why: str = "") -> FloatingPointError:
    """Return the error for a run that cannot go on: what was seen, and what to do."""
    more = f" ({why})" if why else ""
    return FloatingPointError(
        f"{seen}: lower lr= or clip_grad= (a limit of the gradient), or look for broken images in that batch{more}; the model has its old "
        "weights back"
    )
