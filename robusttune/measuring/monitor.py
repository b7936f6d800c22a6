"""Whether the images that a deployed model sees are still like those that it was made for."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images, first_batch, images_of
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.measuring.evaluate import heads_for
from robusttune.measuring.image_statistics import of_pixels
from robusttune.measuring.ood_score import strangeness
from robusttune.measuring.subject import Subject
from robusttune.model.borrowing import evaluating, frozen, gradients_kept
from robusttune.model.classifier import find_classifier
from robusttune.model.devices import device_of, dtype_of
from robusttune.model.features import Classifier
from robusttune.run import files
from robusttune.run.provenance import fingerprint
from robusttune.threat import ThreatModel

VALUES, FACTS = "reference.safetensors", "reference.json"
FORMAT = 1
LEAST = 64  # reference images: of fewer, the ends of a distribution say nothing
EXCEEDING = 100  # resampled batches that lie above the threshold, so that it is known to a tenth
CHUNK = 2_000_000  # images drawn at once

logger = logging.getLogger("robusttune")


@dataclass(frozen=True)
class Drift:
    """What a monitor says of one batch.

    Attributes:
        alarm: the batch is further from the reference than all but a share `false_alarms` of batches like it are.
        statistic: the one that is furthest.
        distances: by statistic, how far the batch's mean is from the reference's, in standard errors.
        threshold: the largest distance without an alarm.
        values: by statistic, the batch's mean.
        images: how many there were.
    """

    alarm: bool
    statistic: str
    distances: dict[str, float]
    threshold: float
    values: dict[str, float]
    images: int


class Monitor:
    """Scores incoming batches against a reference that was recorded on images of the right kind.

    Each image has some statistics: of its pixels, how sure the model is, and with a rotation head how strange it is to both.
    A batch raises an alarm where the mean of any of them is further from the reference's than chance explains; how far that
    is, for the largest of all distances together, is found by drawing batches of the same size from the reference. So the
    stated rate holds for batches of images drawn independently; frames of one film are alike and alarm more often.

    Args:
        model: images -> logits (N,K), hardened or not; it is left as it is.
        loader: the reference: images of the right kind, with or without labels, better held out than trained on, as a model
            is surer of what it was trained on.
        heads: pretext heads, one of them for rotation: the folder of a run, a RobustLoss, or what `load_heads` returns; None
            to do without.
        false_alarms: the share of batches like the reference that may raise an alarm.
        log: a file to which each batch adds a line of JSON; None for none.
        mean, std, normalized: of the model's input; found in the loader unless given.
        seed: of the batches that are drawn from the reference.

    Raises:
        ValueError: arguments or images that do not fit, or too few images.

    Source: the score of strangeness, Hendrycks et al., arXiv:1906.12340, section 4.2; the largest of several distances,
    calibrated by resampling, after Westfall and Young 1993.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images = torch.rand(500, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> monitor = Monitor(model, images.split(100))
        >>> monitor(images[:50]).alarm, monitor(images[:50] / 2).alarm
        (False, True)
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Any,
        *,
        heads: Any = None,
        false_alarms: float = 0.01,
        log: str | Path | None = None,
        mean: Any = None,
        std: Any = None,
        normalized: bool | None = None,
        seed: int = 0,
    ) -> None:
        check_loader(loader, passes=2)
        images = images_of(first_batch(loader))
        space = find_pixels(images, loader, mean=mean, std=std, normalized=normalized, model=model)
        self._set_up(model, heads, space, tuple(images.shape[1:]), false_alarms, log, seed)
        found = [self._measured(images_of(batch)) for batch in loader]
        self._compare_with({name: torch.cat([each[name] for each in found]) for name in found[0]})

    def _set_up(
        self,
        model: nn.Module,
        heads: Any,
        space: Pixels,
        shape: tuple[int, ...],
        false_alarms: float,
        log: str | Path | None,
        seed: int,
    ) -> None:
        if isinstance(false_alarms, bool) or not isinstance(false_alarms, float) or not 1e-4 <= false_alarms <= 0.5:
            raise ValueError(f"false_alarms is {false_alarms!r}, but a share of batches from 0.0001 to 0.5 is needed")
        self.model, self.shape, self.false_alarms, self.seed = model, shape, false_alarms, seed
        self.log = None if log is None else Path(log)
        self.heads = None if heads is None else heads_for(heads, model)
        if self.heads is None or "rotation" not in self.heads.tasks:
            self.heads = None
            logger.warning(
                "there is no rotation head, so the monitor goes by the images' pixels and the model's confidence alone: "
                "pass heads=, the folder of a run that had the rotation task"
            )
        self.space = space
        self._classifier: Classifier | None = None
        self._thresholds: dict[int, float] = {}

    def _compare_with(self, reference: dict[str, Tensor]) -> None:
        self.reference = reference
        count = len(next(iter(reference.values())))
        if count < LEAST:
            raise ValueError(
                f"the reference has {count} images, but at least {LEAST} are needed: some hundreds do better"
            )
        values = torch.stack(list(reference.values()), 1).double()
        # What is the same for all images, as the mean of an unused channel, has no scale of its own.
        self._mean, self._scale = values.mean(0), values.std(0).clamp(min=1e-9)
        self._standard = (values - self._mean) / self._scale

    @property
    def statistics(self) -> tuple[str, ...]:
        """What is looked at."""
        return tuple(self.reference)

    def __call__(self, images: Tensor) -> Drift:
        """What there is to say of a batch of images (N,C,H,W), given as the reference was.

        Raises:
            ValueError: images that the model cannot take, or of another shape than the reference's.
        """
        check_images(images)
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(f"images have shape {tuple(images.shape[1:])}, but the reference's have {self.shape}")
        found = self._measured(images)
        means = torch.stack([values.double().mean() for values in found.values()])
        count = len(images)
        # Of both means, the batch's and the reference's.
        error = self._scale * math.sqrt(1 / count + 1 / len(self._standard))
        far = dict(zip(found, ((means - self._mean) / error).tolist(), strict=True))
        statistic, threshold = max(far, key=lambda name: abs(far[name])), self.threshold(count)
        alarm = not abs(far[statistic]) <= threshold
        drift = Drift(alarm, statistic, far, threshold, dict(zip(found, means.tolist(), strict=True)), count)
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **asdict(drift)}
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return drift

    def threshold(self, images: int) -> float:
        """The largest distance that a share `false_alarms` of batches of so many reference images exceeds."""
        if images not in self._thresholds:
            chance = torch.Generator().manual_seed(self.seed)
            left, largest = math.ceil(EXCEEDING / self.false_alarms), []
            while left > 0:
                batches = min(left, max(1, CHUNK // images))
                rows = torch.randint(len(self._standard), (batches, images), generator=chance)
                sums = torch.stack([column[rows].sum(1) for column in self._standard.T], 1)
                largest.append((sums / math.sqrt(images)).abs().amax(1))
                left -= batches
            self._thresholds[images] = float(torch.quantile(torch.cat(largest), 1 - self.false_alarms))
        return self._thresholds[images]

    def _measured(self, images: Tensor) -> dict[str, Tensor]:
        """The statistics of images (N,C,H,W), each (N,)."""
        device = device_of(self.model)
        pixels = self.space.to(device).pixels(images.to(device))
        with self._subject(pixels) as subject:
            found = of_pixels(pixels)
            found["confidence"] = subject.logits(pixels).softmax(1).amax(1)
            if self.heads is not None:
                found["strangeness"] = strangeness(subject, pixels)
        return {name: values.float().cpu() for name, values in found.items()}

    @contextmanager
    def _subject(self, pixels: Tensor) -> Iterator[Subject]:
        model, device = self.model, device_of(self.model)
        with ExitStack() as stack:
            for each in (evaluating(model), gradients_kept(model), frozen(model.parameters()), torch.no_grad()):
                stack.enter_context(each)
            if self.heads is not None and self._classifier is None:
                inputs = self.space.inputs(pixels[:2]).to(dtype_of(model))
                self._classifier = find_classifier(model, inputs)
            threat = ThreatModel("linf", 0.0)  # of which nothing here asks
            yield Subject(
                model, self.space, threat, (), self.shape, 0, device, heads=self.heads, classifier=self._classifier
            )

    def save(self, folder: str | Path) -> Path:
        """Write the reference to a folder: `reference.safetensors` and `reference.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.save_weights(folder / VALUES, self.reference)
        known = self.space.known
        facts = {
            "format": FORMAT,
            "statistics": list(self.statistics),
            "shape": list(self.shape),
            "mean": self.space.mean.flatten().tolist() if known else None,
            "std": self.space.std.flatten().tolist() if known else None,
            "normalized": self.space.normalized,
            "model": fingerprint(self.model),
            "heads": None if self.heads is None else fingerprint(self.heads),
            "false_alarms": self.false_alarms,
            "seed": self.seed,
        }
        files.write_bytes(folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())
        return folder

    @classmethod
    def load(
        cls, folder: str | Path, model: nn.Module, *, heads: Any = None, log: str | Path | None = None
    ) -> "Monitor":
        """The monitor that `save` wrote, for the model and heads that it was recorded with.

        Raises:
            ValueError: the files are not there or damaged, or the model or its heads are others.
        """
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            names, told, own = facts["statistics"], facts["model"], facts["heads"]
            space = Pixels(facts["mean"], facts["std"], normalized=facts["normalized"])
            right = facts["format"] == FORMAT
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(folder)!r} holds no reference that can be read: record one with Monitor") from error
        if not right:
            raise ValueError(f"{str(folder)!r} has format {facts['format']}, but this version reads format {FORMAT}")
        if told != fingerprint(model):
            raise ValueError("the model has other weights than the one whose reference this is: record a new reference")
        if own is not None and heads is None:
            raise ValueError("the reference was recorded with pretext heads: pass heads=, the same ones")
        monitor = cls.__new__(cls)
        shape = tuple(facts["shape"])
        monitor._set_up(model, None if own is None else heads, space, shape, facts["false_alarms"], log, facts["seed"])
        if own is not None and (monitor.heads is None or fingerprint(monitor.heads) != own):
            raise ValueError(
                "heads= are others than those that the reference was recorded with: record a new reference"
            )
        values = files.load_weights(folder / VALUES)
        monitor._compare_with({name: values[name] for name in names})
        return monitor
