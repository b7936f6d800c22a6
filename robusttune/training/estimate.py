"""What hardening will cost, before it is begun."""

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple

import torch
from torch import nn

from robusttune.data.loaders import check_loader
from robusttune.model import seen_corruptions
from robusttune.model.borrowing import restored, trainable
from robusttune.model.timing import synchronize
from robusttune.run import distributed, randomness
from robusttune.training import profiling
from robusttune.training.autotune import choose
from robusttune.training.harden import harden, prepared
from robusttune.training.loop import Training
from robusttune.training.memory import COUNTED, MEASURED
from robusttune.training.profiling import Pace, Passes
from robusttune.training.setup import checkpointed_if

# What a run would write or show; an estimate does neither.
UNUSED = {"out": None, "resume": False, "log": None, "progress": False}


@dataclass(frozen=True)
class Estimate:
    """What a run of `harden` will take on this machine; with several processes, images and memory are those of each.

    Attributes:
        seconds: of the whole run.
        seconds_per_epoch: of an epoch in the mean, judgements on held-out images included.
        images_per_second: training images, while steps are taken.
        parts: seconds by part: "first look" (all that comes before the first step), "steps", "judging" and "last look".
        epochs, steps: how many there will be, begun epochs included.
        passes: by part, images that go forward through the model and backward, in the whole run, as the algorithm asks
            for; in judging as if all held-out images were classified rightly.
        peak_bytes: memory that training takes at most.
        memory: what is counted in `peak_bytes`.
        batch: images in a batch of the loader.
        largest_batch: that would fit into the memory that is free, by a straight line through two small batches; None
            where it is not known how much is free.
        cost: money by device, for `devices`.
        device: where it was measured.
    """

    seconds: float
    seconds_per_epoch: float
    images_per_second: float
    parts: Mapping[str, float]
    epochs: int
    steps: int
    passes: Mapping[str, Passes]
    peak_bytes: int
    memory: str
    batch: int
    largest_batch: int | None
    device: str
    cost: Mapping[str, float] = field(default_factory=dict)

    def table(self) -> str:
        """A Markdown table of all of it."""
        rows = [
            ("in all", f"{shown(self.seconds)} for {self.epochs} epochs, {self.steps} steps"),
            ("an epoch", shown(self.seconds_per_epoch)),
            ("training", f"{self.images_per_second:.3g} images/s on {self.device}"),
            *((f"of it: {part}", shown(seconds)) for part, seconds in self.parts.items() if seconds),
            *(
                (f"images through the model: {part}", f"{each.forward:,.0f} forward, {each.backward:,.0f} backward")
                for part, each in self.passes.items()
                if each.forward
            ),
            ("memory at most", f"{self.peak_bytes / 2**20:,.0f} MiB ({self.memory})"),
            ("largest batch that fits", "not known here" if self.largest_batch is None else f"{self.largest_batch:,}"),
            *((f"cost on {name}", f"{money:.2f}") for name, money in self.cost.items()),
        ]
        return "\n".join(["| what | estimate |", "|---|---|", *(f"| {what} | {said} |" for what, said in rows)])

    def _repr_markdown_(self) -> str:
        return self.table()


def estimate(
    model: nn.Module, loader: Any, *, devices: Mapping[str, float] | None = None, **as_for_harden: Any
) -> Estimate:
    """What `harden` will take with these arguments on this machine: time, memory, passes and money.

    It does what `harden` does up to the first step, takes some real steps and a judgement on held-out images, and gives
    the model back as it came, weights, random states and an optimiser of your own included. The run is thought to start
    afresh; nothing is written, so what `out=` costs is not counted.

    Args:
        model, loader: see `harden`.
        devices: a price an hour by name, as {"spot": 0.9, "own": 0.4}, of machines as fast as this one.
        as_for_harden: arguments of `harden`; `out`, `resume`, `log`, `progress` and `on_epoch` are not used.

    Raises:
        TypeError: an argument that `harden` does not have.
        ValueError: as `harden` does; prices that are none; a loader that does not say how long it is, in a run without
            max_steps and time_budget.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> found = estimate(model, batches, norm="l2", epochs=5, devices={"spot": 1.5})
        >>> found.epochs, found.steps, round(found.cost["spot"] * 3600 / found.seconds, 6)
        (5, 5, 1.5)
    """
    given, prices = _given(model, loader, as_for_harden), checked_prices(devices)
    check_loader(loader, passes=2)
    with seen_corruptions.forgotten(model), restored(model), _untouched(given):
        began = profiling.clock()
        with prepared(given) as run:
            training, device = run.training, run.training.stepper.device
            synchronize(device)
            first = profiling.clock() - began
            with trainable(model), checkpointed_if(given):
                # Whether "auto" compiles is left to the run: to find out takes minutes.
                choose(training, {**given, "compile": given["compile"] is True}, resumed=False)
                pace, judging = profiling.pace(training), profiling.judging(training)
                training.robust_loss.passes.compile("no")
                passes, memory = profiling.passes(training), profiling.memory(training)
            extent = extent_of(training, pace)
    parts = {
        "first look": first + pace.warming,
        "steps": extent.seconds,
        "judging": extent.judged * judging.images * judging.per_image if judging else 0.0,
        "last look": judging.images * judging.heads if judging else 0.0,
    }
    seconds, images = sum(parts.values()), extent.images
    passes = {part: each.times(images) for part, each in passes.items()}
    passes["judging"] = profiling.JUDGED.times(extent.judged * judging.images) if judging else Passes(0.0, 0.0)
    return Estimate(
        seconds,
        (parts["steps"] + parts["judging"]) / extent.epochs,
        distributed.world() / pace.per_image,
        parts,
        extent.epochs,
        extent.steps,
        passes,
        memory.most,
        COUNTED if device.type == "cpu" else MEASURED,
        len(training.batches.peeked[0]),
        memory.largest_batch,
        str(device),
        {name: seconds / 3600 * price for name, price in prices.items()},
    )


class Extent(NamedTuple):
    """How far a run will come: training images of this process, seconds of its steps, epochs begun, and judgements."""

    images: float
    seconds: float
    steps: int
    epochs: int
    judged: int


def extent_of(training: Training, pace: Pace) -> Extent:
    """How far a run will come at this pace before epochs, steps or seconds are used up.

    Raises:
        ValueError: nothing says where it ends.
    """
    plan, batch = training.plan, len(training.batches.peeked[0])
    steps_left = math.inf if plan.max_steps is None else plan.max_steps
    seconds_left = math.inf if plan.time_budget is None else plan.time_budget
    images = _images_an_epoch(training.batches.loader, plan.batches, batch)
    steps = math.inf if plan.batches is None else math.ceil(plan.batches / plan.accumulate)
    if images is None:
        # The loader may never end, so what ends the run is one long epoch.
        steps, step = steps_left, batch * plan.accumulate
        images = min(steps_left * step, max(0.0, seconds_left - pace.opening) / pace.per_image)
        if images == math.inf:
            raise ValueError(
                "the loader does not say how many batches it has, so nothing says how long the run will be: pass "
                "max_steps= or time_budget="
            )
        steps = math.ceil(images / step)
    whole = pace.opening + images * pace.per_image
    taken, spent, done, judged, epoch = 0.0, 0.0, 0.0, 0, 0
    for epoch in range(1, plan.epochs + 1):
        share = min(1.0, steps_left / steps, seconds_left / whole)
        taken, spent, done = taken + share * steps, spent + share * whole, done + share * images
        steps_left, seconds_left = steps_left - share * steps, seconds_left - share * whole
        over = share < 1 or steps_left <= 0 or seconds_left <= 0
        judged += over or epoch == plan.epochs or epoch % training.judged == 0
        if over:
            break
    return Extent(done, spent, math.ceil(taken - 1e-9), epoch, judged)


def _images_an_epoch(loader: Any, batches: int | None, batch: int) -> float | None:
    """How many images this process trains on in an epoch."""
    if batches is None:
        return None
    sampler: Any = getattr(loader, "sampler", None)
    known = len(sampler) if hasattr(sampler, "__len__") and getattr(loader, "batch_size", None) else math.inf
    return float(min(known, batches * batch))


def _given(model: Any, loader: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of `harden`, with its own defaults, but for those that an estimate has no use for.

    Raises:
        TypeError: an argument that it does not have.
    """
    known = inspect.signature(harden).parameters
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f": did you mean {close[0]!r}?" if close else f": it takes {', '.join(known)}"
            raise TypeError(f"harden has no argument {name!r}{hint}")
    defaults = {name: parameter.default for name, parameter in known.items()}
    return {**defaults, "model": model, "loader": loader, **settings, **UNUSED}


def checked_prices(devices: Mapping[str, float] | None) -> dict[str, float]:
    """Prices an hour by device.

    Raises:
        ValueError: they are something else.
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
def _untouched(given: Mapping[str, Any]) -> Iterator[None]:
    """Give the chance of the user's loaders, and an optimiser of the user's own, back as they were."""
    loaders = [given[name] for name in ("loader", "val_loader", "unlabeled_loader")]
    states = [(source, source.get_state()) for loader in loaders for source in randomness.generators(loader)]
    optimizer, groups, state = given["optimizer"], 0, {}
    if isinstance(optimizer, torch.optim.Optimizer):
        groups, state = len(optimizer.param_groups), copy.deepcopy(optimizer.state_dict())
    try:
        yield
    finally:
        for source, before in states:
            source.set_state(before)
        if isinstance(optimizer, torch.optim.Optimizer):
            del optimizer.param_groups[groups:]
            optimizer.load_state_dict(state)


def shown(seconds: float) -> str:
    """A time in words.

    Example:
        >>> shown(0.5), shown(75), shown(7300)
        ('0.5 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
