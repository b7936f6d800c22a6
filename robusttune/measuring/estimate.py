"""The cost of evaluations, estimated from a few passes of the model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.attacks import Attack, NoGradientError
from robusttune.measuring.evaluate import EvaluationLike, chosen_evaluations, evaluate
from robusttune.measuring.passes import Passes, count_images, passes_of
from robusttune.measuring.pretext_heads import HeadsLike
from robusttune.measuring.record import Record
from robusttune.measuring.subject import Subject
from robusttune.model.teacher import TeacherLike
from robusttune.model.timing import synchronize
from robusttune.norms import NormLike
from robusttune.run.costs import checked_prices
from robusttune.run.markdown import markdown_table
from robusttune.run.randomness import rewound
from robusttune.run.settings import duration
from robusttune.types import Channels, DeviceLike, Loader, PathLike

READ = 4  # batches that are read to time the loader
TURNS = 3  # measurements of a pass, of which the fastest counts
STEPS = 4  # of the attack that is timed
LONG_ENOUGH = 0.5  # seconds of work beside the model that are enough to go by
FEW, GROWTH = 2, 8


@dataclass(frozen=True)
class EvaluationCost:
    """The estimated cost of one evaluation.

    Attributes:
        name: the name of the evaluation.
        seconds: the seconds of the evaluation; None if the evaluation does not say how many passes it takes.
        images: the number of images that it uses.
        forward, backward: images forward and backward through the model.
        at_most: True if this is an upper bound, as attacks leave out images that are fooled.
    """

    name: str
    seconds: float | None
    images: int
    forward: float = 0.0
    backward: float = 0.0
    at_most: bool = False


@dataclass(frozen=True, repr=False)
class EvaluationEstimate:
    """The estimated cost of a call of `evaluate` on this machine.

    Attributes:
        seconds: the seconds of all evaluations whose cost is known.
        evaluations: the cost of each.
        device: the device that was measured.
        cost: money by device, for `devices`.
    """

    seconds: float
    evaluations: Sequence[EvaluationCost]
    device: str
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def at_most(self) -> bool:
        """True if `seconds` is an upper bound."""
        return any(each.at_most for each in self.evaluations)

    def table(self) -> str:
        """Format the estimate as a Markdown table."""
        rows = [
            (
                each.name,
                _time(each.seconds, each.at_most),
                f"{each.images:,}",
                f"{each.forward:,.0f}",
                f"{each.backward:,.0f}",
            )
            for each in self.evaluations
        ]
        unknown = [each.name for each in self.evaluations if each.seconds is None]
        without = f" (without {', '.join(unknown)})" if unknown else ""
        rows += [("in all", f"{_time(self.seconds, self.at_most)} on {self.device}{without}", "", "", "")]
        for name, money in self.cost.items():
            rows += [(f"cost on {name}", f"{'at most ' * self.at_most}{money:.2f}", "", "", "")]
        return markdown_table(["evaluation", "time", "images", "images forward", "images backward"], rows)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<EvaluationEstimate: {_time(self.seconds, self.at_most)}, on {self.device}>"

    def _repr_markdown_(self) -> str:
        return self.table()


def estimate_evaluations(
    model: nn.Module | PathLike,
    loader: Loader,
    which: EvaluationLike | Sequence[EvaluationLike],
    *,
    devices: Mapping[str, float] | None = None,
    norm: NormLike | None = None,
    eps: float | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    subset: int | None = None,
    heads: HeadsLike | None = None,
    teacher: TeacherLike | None = None,
    seed: int = 0,
    device: DeviceLike = "auto",
) -> EvaluationEstimate:
    """Estimate what `evaluate` would cost with these arguments: a timed pass, times the passes that evaluations take.

    Args:
        model, loader, which, norm, eps, mean, std, normalized, subset, heads, teacher, seed, device: see `evaluate`.
        devices: price per hour, by name, of machines as fast as this one.

    Raises:
        ValueError: as `evaluate` does; a price that is not a number of at least 0; a loader of unknown length.
    """
    prices = checked_prices(devices)
    evaluations = chosen_evaluations(which)
    found: list[EvaluationCost] = []
    places: list[torch.device] = []

    def timed(subject: Subject) -> list[Record]:
        pace = _Pace(subject)
        found.extend(pace.cost(title, passes_of(evaluation, subject)) for title, evaluation in evaluations)
        places.append(subject.device)
        return []

    with rewound(loader):
        evaluate(
            model,
            loader,
            timed,
            norm=norm,
            eps=eps,
            mean=mean,
            std=std,
            normalized=normalized,
            subset=subset,
            heads=heads,
            teacher=teacher,
            seed=seed,
            device=device,
            progress=False,
        )
    seconds = sum(each.seconds or 0.0 for each in found)
    cost = {name: seconds / 3600 * price for name, price in prices.items()}
    return EvaluationEstimate(seconds, tuple(found), str(places[0]), cost)


class _Pace:
    """Measured seconds for each image: of reading it, and of a forward and a backward pass.

    Raises:
        ValueError: the loader is empty, or does not say how many images it has.
    """

    def __init__(self, subject: Subject) -> None:
        began = time.perf_counter()
        batches = list(islice(subject.batches(), READ))
        reading = time.perf_counter() - began
        if not batches:
            raise ValueError("the loader is empty, so there is nothing to evaluate")
        images = count_images(subject.loader, len(batches[0][1]))
        if images is None:
            raise ValueError(
                "the loader does not say how many batches it has, so the length of an evaluation is not known: pass subset="
            )
        self.images = images
        self.read = reading / sum(len(labels) for _, labels in batches)
        self.subject, self.pixels = subject, batches[0][0]
        self.labels = subject.predicted(self.pixels)  # attacks leave out images that are wrong already
        self.forward = self._fastest(lambda: subject.answers(self.pixels))
        attack = plugins.configured("attacks", "apgd", steps=STEPS)
        try:
            whole = self._fastest(self._attack(attack))
            self.backward = max(0.0, (whole - (STEPS + 2) * self.forward) / STEPS)
        except NoGradientError:
            self.backward = self.forward

    def cost(self, name: str, passes: Passes | None) -> EvaluationCost:
        """Return the cost of an evaluation that takes these passes for each image."""
        if passes is None:
            return EvaluationCost(name, None, self.images)
        images = self.images if passes.images is None else min(self.images, passes.images)
        forward, backward = images * passes.forward + passes.once, images * passes.backward
        seconds = images * (self.read + (0.0 if passes.beside is None else self._beside(passes.beside)))
        seconds += forward * self.forward + backward * self.backward
        for attack, long in passes.attacks:
            usual = long.forward * self.forward + long.backward * self.backward
            seconds += images * max(0.0, (long.forward + long.backward) * self._pass(attack) - usual)
        return EvaluationCost(name, seconds, images, forward, backward, at_most=not passes.exact)

    def _attack(self, attack: Attack) -> Callable[[], object]:
        subject, alive = self.subject, torch.ones_like(self.labels, dtype=torch.bool)
        return lambda: subject.withstood(
            self.pixels,
            self.labels,
            alive,
            attack,
            subject.threat,
            loss="margin",
            generator=subject.generator(),
        )

    def _pass(self, attack: Attack) -> float:
        """Return the seconds of an attack for each image and pass."""
        work, run = self.subject.tally.work, self._attack(attack)
        before = work.total()
        seconds = self._seconds(run)
        return seconds / max(1, work.total() - before)

    def _fastest(self, run: Callable[[], object]) -> float:
        """Return the seconds for each image of the first batch; the first run, which warms up, does not count."""
        run()
        return min(self._seconds(run) for _ in range(TURNS)) / len(self.pixels)

    def _beside(self, work: Callable[[Tensor], object]) -> float:
        """Return the seconds for each image of work beside the model, from as few images as take long enough."""
        count, seconds = 0, 0.0
        while count < len(self.pixels) and seconds < LONG_ENOUGH:
            count = min(len(self.pixels), GROWTH * count or FEW)
            few = self.pixels[:count]
            seconds = self._seconds(partial(work, few))
        return seconds / count

    def _seconds(self, run: Callable[[], object]) -> float:
        synchronize(self.pixels.device)
        began = time.perf_counter()
        run()
        synchronize(self.pixels.device)
        return time.perf_counter() - began


def _time(seconds: float | None, at_most: bool) -> str:
    return "not known" if seconds is None else f"{'at most ' * at_most}{duration(seconds)}"
