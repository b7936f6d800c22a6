"""Clock: a progress bar over all evaluations of a call, with the time that is left."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from tqdm.auto import tqdm

from robusttune.run.settings import shown_radius
from robusttune.threat import ThreatModel

FORMAT = "{percentage:3.0f}%|{bar:6}| {elapsed}{postfix}: {desc}"  # the words last, as narrow terminals cut the end
INTERVAL = 0.1  # seconds between two drawings
ENDLESS = "{elapsed}: {desc}"


class Part(NamedTuple):
    """An evaluation of a call.

    Attributes:
        title: its name.
        images: the number of images; None if it is not known.
        passes: forward and backward passes for each image, at most; None if they are not known.
        once: passes whatever the number of images.
    """

    title: str
    images: int | None = None
    passes: float | None = None
    once: float = 0.0

    @property
    def work(self) -> float | None:
        """Passes of all images; without known passes, one for each image."""
        return None if self.images is None else self.images * (1.0 if self.passes is None else self.passes) + self.once


class Clock:
    """A progress bar in passes through the model, which names the evaluation, the adversary, the attack and its step.

    `Subject` tells it of every pass, so that the steps of an attack move it, also within a single batch. Passes that were
    expected, but are not needed, as their images were fooled before, are counted as done when the next batch comes.

    Args:
        parts: the evaluations, in their order.
        show: draw the bar; otherwise nothing happens.
    """

    def __init__(self, parts: Sequence[Part], *, show: bool) -> None:
        self.parts, self.show, self.number = parts, show, -1
        works = [part.work for part in parts]
        total = None if None in works else sum(work or 0.0 for work in works)
        self.bar = tqdm(
            total=total,
            bar_format=ENDLESS if total is None else FORMAT,
            disable=not show,
            leave=False,
            dynamic_ncols=True,
            mininterval=INTERVAL,
            miniters=0,
        )
        self.before = self.done = 0.0  # passes before this evaluation, and in it
        self.began = self.started = time.perf_counter()
        self.images = self.calls = self.work = self.counted = (
            0  # work and counted: passes, the latter before this attack
        )
        self.each = 0.0  # passes of the last attack for each image
        self.worked = False
        self.stage = self.adversary = self.attack = ""
        self.steps: int | None = None

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def begin(self) -> None:
        """Go on to the next evaluation."""
        self.before += self._part_work() if self.number >= 0 else 0.0
        self.number, self.done, self.images, self.worked = self.number + 1, 0.0, 0, False
        self.stage = self.attack = ""
        self.started = time.perf_counter()
        self._draw()

    def tell(self, stage: str) -> None:
        """Name what the evaluation does now, such as the corruption."""
        self.stage = stage
        self._draw()

    @contextmanager
    def attacking(self, attack: object, threat: ThreatModel, loss: str) -> Iterator[None]:
        """Name the attack that runs inside this context, and count its steps.

        Args:
            attack: with its settings, if it is a `partial`.
            threat: the adversary.
            loss: the name of the loss that it maximises; "" for none.
        """
        if self.show:
            settings = attack.keywords if isinstance(attack, partial) else {}
            function = attack.func if isinstance(attack, partial) else attack
            name = settings.get("name") or getattr(function, "__name__", type(function).__name__)
            # An attack of another package has a name, and a loss of its own.
            of = f" on {loss.replace('_', '-')}" if loss and "name" not in settings else ""
            self.adversary, self.attack = f"{threat.norm} eps {shown_radius(threat.eps)}", f"{name}{of}"
            steps = settings.get("steps")
            self.steps, self.calls = steps if isinstance(steps, int) else None, 0
        try:
            yield
        finally:
            self.attack = ""

    def add(self, images: int, *, backward: bool) -> None:
        """Count a pass of images through the model, forward alone or with a backward pass to come."""
        if self.show:
            self.calls, self.worked = self.calls + 1, True
            self.work += images * (2 if backward else 1)
            self._move(self.done + images * (2 if backward else 1))

    def add_skipped(self, images: int, *, attacked: int) -> None:
        """Count images that an attack skipped, each with the mean passes of an attacked image (of the attack before if there was none)."""
        if self.show:
            if attacked:
                self.each = (self.work - self.counted) / attacked
            self._move(self.done + images * self.each)
            self.counted = self.work

    def add_images(self, images: int) -> None:
        """Count finished images of the evaluation, and the expected passes that they did not need."""
        self.images += images
        part = self.parts[self.number]
        if self.show and self.worked and part.passes is not None:
            self.worked = False
            self._move(max(self.done, self.images * part.passes))

    def left(self) -> float | None:
        """Return the seconds that are left, of this evaluation at its own pace, of later ones at that of all; None if unknown."""
        if self.bar.total is None or not self.done:
            return None
        now = time.perf_counter()
        rest = max(0.0, self._part_work() - self.done) * (now - self.started) / self.done
        later = sum(part.work or 0.0 for part in self.parts[self.number + 1 :])
        return rest + later * (now - self.began) / (self.before + self.done)

    def _part_work(self) -> float:
        return self.parts[self.number].work or self.done

    def _move(self, done: float) -> None:
        self.done = min(done, self._part_work())
        self._draw()

    def _draw(self) -> None:
        """Draw the bar, if the last time is long enough ago."""
        if self.show:
            self.bar.set_description_str(self.text(), refresh=False)
            seconds = self.left()
            self.bar.set_postfix_str("" if seconds is None else f"{tqdm.format_interval(seconds)} left", refresh=False)
            self.bar.update(self.before + self.done - self.bar.n)

    def text(self) -> str:
        """Describe what is done now."""
        words = [self.parts[self.number].title, self.stage]
        if self.attack:
            # Attacks that begin with a pass before the first step take one more; some try several times.
            whole = self.steps is not None and self.calls <= self.steps + 1
            step = f"{min(self.calls, self.steps or 0)}/{self.steps}" if whole else f"{self.calls}"
            words += [self.adversary, f"step {step}", self.attack]
        return ", ".join(word for word in words if word)
