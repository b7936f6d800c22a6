"""The cost of hardening, estimated before a run."""

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from typing_extensions import Unpack

from robusttune.data.loaders import check_loader, length_of
from robusttune.model import seen_corruptions
from robusttune.model.borrowing import restored
from robusttune.model.timing import synchronize
from robusttune.model.undoing import undone
from robusttune.run import distributed, randomness
from robusttune.run.markdown import markdown_table
from robusttune.training import profiling
from robusttune.training.autotune import choose_fast_path
from robusttune.training.loop import Training
from robusttune.training.memory import COUNTED, MEASURED
from robusttune.training.place import blocks_checkpointed
from robusttune.training.presets import with_preset
from robusttune.training.profiling import Pace, PassCount
from robusttune.training.settings import HardenSettings, RunSettings, run_settings
from robusttune.training.setup import hardening
from robusttune.types import Loader


@dataclass(frozen=True, repr=False)
class Estimate:
    """The estimated cost of a run of `harden` on this machine; with several processes, images and memory are per process.

    Attributes:
        seconds: of the whole run.
        seconds_per_epoch: of an epoch on average, including validation.
        images_per_second: training images, while steps are taken.
        parts: seconds by part: "first look" (everything before the first step), "steps", "judging" (validations on
            held-out images) and "last look" (at the pretext heads).
        epochs, steps: their expected numbers, started epochs included.
        passes: by part, the images in forward and backward passes of the whole run; in validations as if all held-out
            images were classified correctly.
        peak_bytes: peak memory of training.
        memory: what is counted in `peak_bytes`.
        batch: images in a batch of the loader.
        largest_batch: that fits into free memory, extrapolated from two small batches; None where free memory is not
            known.
        cost: money by device, for `devices`.
        device: that was measured.
    """

    seconds: float
    seconds_per_epoch: float
    images_per_second: float
    parts: Mapping[str, float]
    epochs: int
    steps: int
    passes: Mapping[str, PassCount]
    peak_bytes: int
    memory: str
    batch: int
    largest_batch: int | None
    device: str
    cost: Mapping[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """Format the estimate as a Markdown table."""
        rows = [
            ("in all", f"{shown(self.seconds)} for {self.epochs} epochs, {self.steps} steps"),
            ("an epoch", shown(self.seconds_per_epoch)),
            ("training", f"{self.images_per_second:.3g} images/s on {self.device}"),
            *((f"of it: {part}", shown(seconds)) for part, seconds in self.parts.items() if seconds),
            *(
                (f"images through the model: {part}", f"{count.forward:,.0f} forward, {count.backward:,.0f} backward")
                for part, count in self.passes.items()
                if count.forward
            ),
            ("memory at most", f"{self.peak_bytes / 2**20:,.0f} MiB ({self.memory})"),
            ("largest batch that fits", "not known here" if self.largest_batch is None else f"{self.largest_batch:,}"),
            *((f"cost on {name}", f"{money:.2f}") for name, money in self.cost.items()),
        ]
        return markdown_table(["what", "estimate"], rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Estimate: {shown(self.seconds)}, {self.epochs} epochs, {self.steps} steps, on {self.device}>"

    def _repr_markdown_(self) -> str:
        return self.table()


def estimate(
    model: nn.Module,
    loader: Loader,
    *,
    devices: Mapping[str, float] | None = None,
    **settings: Unpack[HardenSettings],
) -> Estimate:
    """Estimate what `harden` would cost with these arguments on this machine: time, memory, passes and money.

    It does what `harden` does up to the first step, takes some real steps, validates once on held-out images, and then
    restores the model, its weights, random states and the user's optimiser. It assumes a new run; nothing is written, so
    the cost of `out=` is not counted.

    Args:
        model, loader: see `harden`.
        devices: a price an hour by name, as {"spot": 0.9, "own": 0.4}, of machines as fast as this one.
        settings: arguments of `harden`; `out`, `resume`, `log`, `progress` and `on_epoch` are not used.

    Raises:
        TypeError: an argument that `harden` does not have.
        ValueError: as `harden` does; a price that is not a number of at least 0; a loader of unknown length, in a run
            without max_steps and time_budget.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> expected = estimate(model, batches, norm="l2", epochs=5, devices={"spot": 1.5})
        >>> expected.epochs, expected.steps, round(expected.cost["spot"] * 3600 / expected.seconds, 6)
        (5, 5, 1.5)
    """
    wanted, prices = run_settings(loader, **settings), checked_prices(devices)
    silent = replace(wanted.output, out=None, resume=False, log=None, progress=False)
    wanted = replace(with_preset(wanted), output=silent)
    check_loader(loader, passes=2)
    with seen_corruptions.forgotten(model), restored(model), _untouched(wanted):
        began = profiling.clock()
        with hardening(model, wanted) as (training, _):
            device = training.stepper.device
            synchronize(device)
            first = profiling.clock() - began
            with blocks_checkpointed(model, wanted.speed, show=False):
                # With "auto", the run itself decides about compiling, as measuring that takes minutes.
                speed = replace(wanted.speed, compile=wanted.speed.compile is True)
                choose_fast_path(training, speed, resumed=False, show=False)
                pace, validation = profiling.pace(training), profiling.validation_cost(training)
                training.robust_loss.passes.compile("no")
                passes, memory = profiling.pass_counts(training), profiling.memory(training)
            extent = extent_of(training, pace)
    parts = {
        "first look": first + pace.warm_up,
        "steps": extent.seconds,
        "judging": extent.validations * validation.images * validation.per_image if validation else 0.0,
        "last look": validation.images * validation.heads if validation else 0.0,
    }
    seconds, images = sum(parts.values()), extent.images
    passes = {part: count.times(images) for part, count in passes.items()}
    passes["judging"] = profiling.PER_VALIDATION.times(extent.validations * validation.images if validation else 0)
    return Estimate(
        seconds,
        (parts["steps"] + parts["judging"]) / extent.epochs,
        distributed.world() / pace.per_image,
        parts,
        extent.epochs,
        extent.steps,
        passes,
        memory.peak,
        COUNTED if device.type == "cpu" else MEASURED,
        len(training.batches.peeked[0]),
        memory.largest_batch,
        str(device),
        {name: seconds / 3600 * price for name, price in prices.items()},
    )


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
    images = _images_an_epoch(training.batches.loader, batches, batch)
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


def _images_an_epoch(loader: Any, batches: int | None, batch: int) -> float | None:
    """Return the number of images that this process trains on in an epoch; None if it is not known."""
    if batches is None:
        return None
    known = length_of(getattr(loader, "sampler", None)) if getattr(loader, "batch_size", None) else None
    return float(batches * batch if known is None else min(known, batches * batch))


def checked_prices(devices: Mapping[str, float] | None) -> dict[str, float]:
    """Check prices per hour by device.

    Raises:
        ValueError: not a mapping of names to finite numbers of at least 0.
    """
    if devices is None:
        return {}
    if not isinstance(devices, Mapping):
        raise ValueError(
            f'devices is {devices!r}, but prices an hour by name are needed, as {{"spot": 0.9, "own": 0.4}}'
        )
    for name, price in devices.items():
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise ValueError(f"the price of {name!r} is {price!r}, but a finite number of at least 0 an hour is needed")
    return {str(name): float(price) for name, price in devices.items()}


@contextmanager
def _untouched(settings: RunSettings) -> Iterator[None]:
    """Restore the generators of the user's loaders, and the user's optimiser, after this context."""
    loaders = vars(settings.loaders).values()
    states = [(source, source.get_state()) for loader in loaders for source in randomness.generators(loader)]
    optimizer, groups, state = settings.updates.optimizer, 0, {}
    if isinstance(optimizer, torch.optim.Optimizer):
        groups, state = len(optimizer.param_groups), copy.deepcopy(optimizer.state_dict())

    def restore() -> None:
        for source, before in states:
            source.set_state(before)
        if isinstance(optimizer, torch.optim.Optimizer):
            del optimizer.param_groups[groups:]
            optimizer.load_state_dict(state)

    with undone(restore):
        yield


def shown(seconds: float) -> str:
    """Format seconds for people.

    Example:
        >>> shown(0.5), shown(75), shown(7300)
        ('0.5 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
