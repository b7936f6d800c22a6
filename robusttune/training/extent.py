"""The extent of a run of `harden`: how many images, steps, epochs and validations it will have."""

import math
from typing import NamedTuple

from robusttune.data.loaders import images_an_epoch
from robusttune.training.loop import Training
from robusttune.training.profiling import Pace


class Extent(NamedTuple):
    """The extent of a run: training images of this process, seconds of its steps, steps, started epochs, validations."""

    images: float
    seconds: float
    steps: int
    epochs: int
    validations: int


def extent_of(training: Training, pace: Pace) -> Extent:
    """Compute the extent of a run at this pace, until its epochs, steps or seconds are used up.

    Raises:
        ValueError: the end of the run is not known.
    """
    length, batches, batch = training.progress.length, training.progress.batches, len(training.batches.peeked[0])
    steps_left = math.inf if length.max_steps is None else length.max_steps
    seconds_left = math.inf if length.time_budget is None else length.time_budget
    images: float | None = images_an_epoch(training.batches.loader, batch)
    steps = math.inf if batches is None else math.ceil(batches / length.accumulate)
    if images is None:
        # The loader may never end, so what ends the run is one long epoch.
        steps, step = steps_left, batch * length.accumulate
        images = min(steps_left * step, max(0.0, seconds_left - pace.startup) / pace.per_image)
        if images == math.inf:
            raise ValueError(
                "the loader does not say how many batches it has, so the length of the run is not known: pass "
                "max_steps= or time_budget="
            )
        steps = math.ceil(images / step)
    whole = pace.startup + images * pace.per_image
    taken, spent, done, validations, epoch = 0.0, 0.0, 0.0, 0, 0
    for epoch in range(1, length.epochs + 1):
        share = min(1.0, steps_left / steps, seconds_left / whole)
        taken, spent, done = taken + share * steps, spent + share * whole, done + share * images
        steps_left, seconds_left = steps_left - share * steps, seconds_left - share * whole
        over = share < 1 or steps_left <= 0 or seconds_left <= 0
        validations += over or epoch == length.epochs or epoch % training.validation.every == 0
        if over:
            break
    return Extent(done, spent, math.ceil(taken - 1e-9), epoch, validations)
