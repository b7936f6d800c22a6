"""The cost of hardening, estimated before a run."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import nn
from typing_extensions import Unpack

from robusttune.data.loaders import check_loader
from robusttune.measuring.estimate import EvaluationEstimate, estimate_evaluations
from robusttune.measuring.evaluate import EvaluationLike
from robusttune.model import seen_corruptions
from robusttune.model.borrowing import restored
from robusttune.model.checks import check_model
from robusttune.model.timing import synchronize
from robusttune.model.undoing import undone
from robusttune.run import distributed
from robusttune.run.costs import checked_prices
from robusttune.run.markdown import markdown_table
from robusttune.run.randomness import rewound
from robusttune.run.settings import duration, epochs_in_words
from robusttune.training import footprint, profiling
from robusttune.training.autotune import choose_fast_path
from robusttune.training.checks import check_start
from robusttune.training.extent import extent_of
from robusttune.training.memory import counted_on
from robusttune.training.place import blocks_checkpointed
from robusttune.training.presets import with_preset
from robusttune.training.profiling import PassCount
from robusttune.training.range_test import find_limit
from robusttune.training.settings import HardenSettings, RunSettings, run_settings
from robusttune.training.stages import check_stages, set_up, stages_of
from robusttune.types import Loader

# Arguments of `evaluate`, and arguments of both that an estimate does not use.
OF_EVALUATIONS = ("norm", "eps", "mean", "std", "normalized", "heads", "teacher", "seed", "device")
NOT_USED = ("out", "resume", "progress")


@dataclass(frozen=True, repr=False)
class Estimate:
    """The estimated cost of a run of `harden` on this machine; with several processes, images and memory are per process.

    Attributes:
        seconds: seconds of the whole run.
        seconds_per_epoch: seconds of an epoch on average, including validation.
        images_per_second: training images in a second, while steps are taken.
        parts: seconds by part: "first look" (everything before the first step), "steps", "judging" (validations on
            held-out images), "heads alone" (their fit, which needs `out=`), "last look" (at the pretext heads), and
            "pre-training" and "fine-tuning" (all of each, before the rest).
        epochs, steps: expected numbers of epochs (a started one counts) and steps, without those of the stages before.
        passes: by part, the images in forward and backward passes, the range test included; validations count as if all images were right.
        peak_bytes: peak memory of training.
        memory: what is counted in `peak_bytes`.
        batch: images in a batch of the loader.
        largest_batch: the largest batch that fits into free memory, extrapolated from two small batches; 0 if none does, None if that is
            not known.
        cost: money by device, for `devices`.
        device: the device that was measured.
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
            ("in all", f"{duration(self.seconds)} for {epochs_in_words(self.epochs)}, {self.steps} steps"),
            ("an epoch", duration(self.seconds_per_epoch)),
            ("training", f"{self.images_per_second:.3g} images/s on {self.device}"),
            *((f"of it: {part}", duration(seconds)) for part, seconds in self.parts.items() if seconds),
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
        return f"<Estimate: {duration(self.seconds)}, {epochs_in_words(self.epochs)}, {self.steps} steps, on {self.device}>"

    def _repr_markdown_(self) -> str:
        return self.table()


@overload
def estimate(
    model: nn.Module,
    loader: Loader,
    *,
    which: None = None,
    subset: None = None,
    devices: Mapping[str, float] | None = None,
    **settings: Unpack[HardenSettings],
) -> Estimate: ...
@overload
def estimate(
    model: nn.Module,
    loader: Loader,
    *,
    which: EvaluationLike | Sequence[EvaluationLike],
    subset: int | None = None,
    devices: Mapping[str, float] | None = None,
    **settings: Unpack[HardenSettings],
) -> EvaluationEstimate: ...
def estimate(
    model: nn.Module,
    loader: Loader,
    *,
    which: EvaluationLike | Sequence[EvaluationLike] | None = None,
    subset: int | None = None,
    devices: Mapping[str, float] | None = None,
    **settings: Unpack[HardenSettings],
) -> Estimate | EvaluationEstimate:
    """Estimate what `harden` would cost with these arguments on this machine: time, memory, passes and money.

    With `which=`, estimate what `evaluate` would cost instead: a forward and a backward pass are timed on a batch, and
    multiplied by the passes that the evaluations take. These are upper bounds for attacks, which leave out images that are
    fooled.

    For `harden`, it does what `harden` does up to the first step, takes some real steps, validates once on held-out images, and then
    restores the model, its weights, random states and the user's optimiser. It assumes a new run, without the cost of `out=`.

    Args:
        model, loader: see `harden`.
        which: evaluations, see `evaluate`; None to estimate `harden`.
        subset: the number of images to evaluate on, see `evaluate`.
        devices: price per hour, by name, of machines as fast as this one, such as {"spot": 0.9, "own": 0.4}.
        settings: arguments of `harden`; `out`, `resume`, `log`, `progress` and `on_epoch` are ignored. With `which=`, only
            arguments that `evaluate` has, too.

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
    if which is not None:
        return _of_evaluations(model, loader, which, subset, devices, settings)
    if subset is not None:
        raise ValueError(f"subset is {subset}, but it is of evaluations: name them in which=, or leave it out")
    wanted, prices = run_settings(loader, **settings), checked_prices(devices)
    expected = estimate_of(model, wanted)
    return replace(expected, cost={name: expected.seconds / 3600 * price for name, price in prices.items()})


def estimate_of(model: nn.Module, settings: RunSettings, *, warned: bool = False) -> Estimate:
    """Estimate a run of `harden`, with the stages before it; `warned` says that the user knows if the model is at chance."""
    check_model(model)
    silent = replace(settings.output, out=None, resume=False, log=None, progress=False)
    wanted = replace(with_preset(settings), output=silent)
    check_stages(wanted)
    check_loader(wanted.loaders.loader, passes=2)
    with _untouched(wanted):
        stages = stages_of(wanted)
    expected = _estimated(model, wanted, warned or bool(stages))
    for name, stage in stages.items():
        expected = _with_stage(expected, name, _estimated(model, stage, warned))
    return expected


def _with_stage(expected: Estimate, name: str, before: Estimate) -> Estimate:
    """Add the estimate of a stage before a run to that of the run."""
    return replace(
        expected,
        seconds=expected.seconds + before.seconds,
        parts={**expected.parts, name: before.seconds},
        passes={**expected.passes, **{f"{name}: {part}": count for part, count in before.passes.items()}},
        peak_bytes=max(expected.peak_bytes, before.peak_bytes),
        largest_batch=min(
            (fits for fits in (expected.largest_batch, before.largest_batch) if fits is not None), default=None
        ),
    )


def _estimated(model: nn.Module, wanted: RunSettings, warned: bool) -> Estimate:
    """Estimate a run without the stages before it."""
    with seen_corruptions.forgotten(model), restored(model), _untouched(wanted):
        began = profiling.clock()
        with set_up(model, wanted) as training:
            if not warned:
                check_start(training, wanted)
            tried = profiling.passes_in(model, lambda: find_limit(training, wanted, resumed=False))
            device = training.stepper.device
            synchronize(device)
            first = profiling.clock() - began
            with blocks_checkpointed(model, wanted.speed, show=False):
                # With "auto", the run itself decides about compiling, as measuring that takes minutes.
                speed = replace(wanted.speed, compile=wanted.speed.compile is True)
                choose_fast_path(training, speed, resumed=False, show=False)
                pace, validation = profiling.pace(training), profiling.validation_cost(training)
                replayed = training.robust_loss.passes.release()
                passes, memory = profiling.pass_counts(training), footprint.memory(training)
                fit = profiling.fit_cost(training)
            extent = extent_of(training, pace)
    parts = {
        "first look": first + pace.warm_up,
        "steps": extent.seconds,
        "judging": extent.validations * validation.images * validation.per_image if validation else 0.0,
        "heads alone": fit.seconds,
        "last look": validation.images * validation.heads if validation else 0.0,
    }
    passes = {part: count.times(extent.images) for part, count in passes.items()}
    passes |= {"range test": tried, "heads alone": fit.passes}
    judged = extent.validations * validation.images if validation else 0
    passes["judging"] = profiling.per_validation(training.stepper.threat.eps).times(judged)
    return Estimate(
        sum(parts.values()),
        (parts["steps"] + parts["judging"]) / extent.epochs,
        distributed.world() / pace.per_image,
        parts,
        extent.epochs,
        extent.steps,
        passes,
        memory.peak + replayed,
        counted_on(device),
        len(training.batches.peeked[0]),
        memory.largest_batch,
        str(device),
    )


def _of_evaluations(
    model: nn.Module,
    loader: Loader,
    which: EvaluationLike | Sequence[EvaluationLike],
    subset: int | None,
    devices: Mapping[str, float] | None,
    settings: HardenSettings,
) -> EvaluationEstimate:
    """Estimate evaluations.

    Raises:
        ValueError: settings that `evaluate` does not have.
    """
    wrong = [name for name in settings if name not in OF_EVALUATIONS and name not in NOT_USED]
    if wrong:
        raise ValueError(
            f"which= asks for the cost of evaluations, which take no {' and no '.join(wrong)}: leave it out"
        )
    return estimate_evaluations(
        model,
        loader,
        which,
        subset=subset,
        devices=devices,
        norm=settings.get("norm"),
        eps=settings.get("eps"),
        mean=settings.get("mean"),
        std=settings.get("std"),
        normalized=settings.get("normalized"),
        heads=settings.get("heads"),
        teacher=settings.get("teacher"),
        seed=settings.get("seed", 0),
        device=settings.get("device", "auto"),
    )


@contextmanager
def _untouched(settings: RunSettings) -> Iterator[None]:
    """Restore the generators of the user's loaders, and the user's optimiser, after this context."""
    optimizer, groups, state = settings.updates.optimizer, 0, {}
    if isinstance(optimizer, torch.optim.Optimizer):
        groups, state = len(optimizer.param_groups), copy.deepcopy(optimizer.state_dict())

    def restore() -> None:
        if isinstance(optimizer, torch.optim.Optimizer):
            del optimizer.param_groups[groups:]
            optimizer.load_state_dict(state)

    with rewound(*vars(settings.loaders).values()), undone(restore):
        yield
