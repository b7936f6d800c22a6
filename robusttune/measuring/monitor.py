"""Monitor of a deployed model: compares the images that it sees with reference images."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images, first_batch, images_of
from robusttune.data.class_names import class_names
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.measuring.image_statistics import image_statistics
from robusttune.measuring.ood_score import ood_score
from robusttune.measuring.pretext_heads import HeadsLike
from robusttune.measuring.record import named
from robusttune.measuring.reference import Reference, furthest
from robusttune.measuring.run_defaults import with_run
from robusttune.measuring.subject import Subject
from robusttune.model.borrowing import evaluating, frozen, gradients_kept, restored
from robusttune.model.classifier import find_classifier
from robusttune.model.devices import check_module, device_of, dtype_of
from robusttune.model.features import Classifier
from robusttune.model.probe import first_logits
from robusttune.run import files
from robusttune.run.provenance import digest, fingerprint
from robusttune.run.seal import CHECKSUM
from robusttune.run.settings import FALSE_ALARMS, check_number, check_settings
from robusttune.run.writing import write_text
from robusttune.tasks._heads import Heads
from robusttune.threat import ThreatModel
from robusttune.types import Channels, Loader, PathLike, check_path, from_json, to_json

VALUES, FACTS = "reference.safetensors", "reference.json"
FORMAT = 1
NO_THREAT = ThreatModel("linf", 0.0)  # the statistics involve no attack

logger = logging.getLogger("robusttune")


@dataclass(frozen=True)
class Drift:
    """The monitor's result for one batch.

    Attributes:
        alarm: True if the batch is further from the reference than the rate `false_alarms` allows.
        statistic: the statistic with the largest distance.
        distances: by statistic, the difference of the batch's mean from the reference's, in standard errors.
        threshold: the largest distance without an alarm.
        values: by statistic, the batch's mean.
        images: the number of images.
        answers: the number of images that the model put into each class, the most frequent first; by the name of the class,
            or by its number if the reference's loader does not name its classes.
    """

    alarm: bool
    statistic: str
    distances: dict[str, float]
    threshold: float
    values: dict[str, float]
    images: int
    answers: dict[str, int] = field(default_factory=dict)


class Monitor:
    """Drift detection: a test whether incoming batches are like reference images of the right kind.

    Each image has several statistics: some of its pixels, the model's confidence, and with a rotation head an
    out-of-distribution score. A batch raises an alarm if the mean of any statistic is further from the reference's than
    random sampling explains. The limit for the largest distance over all statistics comes from batches of the same size that are
    drawn from the reference. So the stated rate of false alarms holds for batches of independent images; frames of one
    video are alike and raise alarms more often.

    Args:
        model: images -> logits (N,K), hardened or not; it does not change. Or the folder of a run of harden, from which the
            model is loaded, and mean, std and heads are taken where they are not passed.
        loader: the reference: images of the right kind, with or without labels. Take held-out images, because a model is more
            confident on its training images.
        heads: pretext heads, one of them for rotation: the folder of a run, a RobustLoss, or the result of `load_heads`;
            None for no heads.
        false_alarms: the share of batches like the reference that may raise an alarm.
        log: a file to which each batch adds a line of JSON; None for none.
        mean, std, normalized: mean and std of the Normalize before the model; None takes them from the run, or else the loader.
        seed: seed of the batches that are drawn from the reference.

    Raises:
        ValueError: arguments or images that do not fit, or too few images.

    Source: out-of-distribution score, Hendrycks et al., arXiv:1906.12340, section 4.2; the largest of several distances,
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
        model: nn.Module | PathLike,
        loader: Loader,
        *,
        heads: HeadsLike | None = None,
        false_alarms: float = 0.01,
        log: PathLike | None = None,
        mean: Channels | None = None,
        std: Channels | None = None,
        normalized: bool | None = None,
        seed: int = 0,
    ) -> None:
        check_loader(loader, passes=2)
        check_settings({"seed": seed, "normalized": normalized})
        check_number("false_alarms", false_alarms, FALSE_ALARMS)
        model, run = with_run(model)
        check_module(model)
        mean, std = run.statistics(mean, std, loader)
        images = images_of(first_batch(loader))
        run.check_images(images)
        space = find_pixels(images, loader, mean=mean, std=std, normalized=normalized, model=model)
        with restored(model, weights=False):
            first_logits(model, space.inputs(space.pixels(images[:2].cpu())).to(device_of(model), dtype_of(model)))
        shape = tuple(images.shape[1:])
        self._set_up(model, space, shape, heads=run.heads(heads, model, shape), classifier=run.classifier, log=log)
        self.classes: tuple[str, ...] = run.classes or tuple(class_names(loader) or ())
        batches = [self._measured(images_of(batch))[0] for batch in loader]
        values = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        self._reference = Reference(values, float(false_alarms), int(seed))

    def _set_up(
        self,
        model: nn.Module,
        space: Pixels,
        shape: Sequence[int],
        *,
        heads: Heads | None,
        classifier: str | None,
        log: PathLike | None,
    ) -> None:
        """Set all but the reference."""
        self.model, self.space, self.shape = model, space, tuple(shape)
        self.log = None if log is None else check_path("log", log)
        if self.log is not None and self.log.is_dir():
            raise ValueError(f"log is {str(log)!r}, which is a folder: name a file, such as runs/monitor.jsonl")
        self.heads = heads
        if self.heads is None or "rotation" not in self.heads.tasks:
            self.heads = None
            logger.warning(
                "there is no rotation head, so the monitor uses only the images' pixels and the model's confidence: "
                "pass heads=, the folder of a run that had the rotation task"
            )
        self._classifier: Classifier | None = None
        self._name = classifier

    @property
    def reference(self) -> dict[str, Tensor]:
        """By statistic, the value of each reference image (N,)."""
        return self._reference.values

    @property
    def statistics(self) -> tuple[str, ...]:
        """The names of the statistics."""
        return tuple(self.reference)

    def __call__(self, images: Tensor) -> Drift:
        """Compare a batch of images (N,C,H,W), in the space of the reference's, with the reference.

        Raises:
            ValueError: images that the model cannot take, or of another shape than the reference's.
        """
        check_images(images, wait=True)
        if tuple(images.shape[1:]) != self.shape:
            got = tuple(images.shape[1:])
            raise ValueError(f"images have shape {got}, but the reference's have {self.shape}: use the same transform")
        statistics, answers = self._measured(images)
        means, count = {name: float(values.double().mean()) for name, values in statistics.items()}, len(images)
        distances, threshold = self._reference.distances(means, count), self.threshold(count)
        statistic = furthest(distances)
        alarm = not abs(distances[statistic]) <= threshold  # NaN alarms, too
        names = Counter(named(label, self.classes) for label in answers.tolist())
        drift = Drift(alarm, statistic, distances, threshold, means, count, dict(names.most_common()))
        if self.log is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **asdict(drift)}
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(to_json(line) + "\n")
        return drift

    def threshold(self, images: int) -> float:
        """Return the largest distance without an alarm, for a batch of this number of images."""
        return self._reference.threshold(images)

    def _measured(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the statistics of images (N,C,H,W), each (N,), and the model's classes (N,)."""
        device = device_of(self.model)
        pixels = self.space.to(device).pixels(images.to(device))
        with self._subject(pixels) as subject:
            statistics = image_statistics(pixels)
            statistics["confidence"], answers = subject.logits(pixels).softmax(1).max(1)
            if self.heads is not None:
                statistics["strangeness"] = ood_score(subject, pixels)  # the name in saved references
        return {name: values.float().cpu() for name, values in statistics.items()}, answers

    @contextmanager
    def _subject(self, pixels: Tensor) -> Iterator[Subject]:
        model, device = self.model, device_of(self.model)
        with ExitStack() as stack:
            kept = restored(model, weights=False), evaluating(model), gradients_kept(model), frozen(model.parameters())
            for each in (*kept, torch.no_grad()):
                stack.enter_context(each)
            if self.heads is not None and self._classifier is None:
                self._classifier = find_classifier(model, self.space.inputs(pixels[:2]).to(dtype_of(model)), self._name)
            heads, classifier = self.heads, self._classifier
            yield Subject(model, self.space, NO_THREAT, (), self.shape, 0, device, heads=heads, classifier=classifier)

    def save(self, folder: PathLike) -> Path:
        """Write the reference to a folder, as `reference.safetensors` and `reference.json`; return the folder's path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.save_weights(folder / VALUES, self.reference)
        known = self.space.known
        facts = {
            "format": FORMAT,
            "statistics": list(self.statistics),
            "classes": list(self.classes),
            "shape": list(self.shape),
            "mean": self.space.mean.flatten().tolist() if known else None,
            "std": self.space.std.flatten().tolist() if known else None,
            "normalized": self.space.normalized,
            "model": _fingerprint(self.model),
            "heads": None if self.heads is None else fingerprint(self.heads),
            "false_alarms": self._reference.false_alarms,
            "seed": self._reference.seed,
        }
        write_text(folder / FACTS, json.dumps({**facts, CHECKSUM: _checksum(facts)}, indent=1) + "\n")
        return folder

    @classmethod
    def load(
        cls,
        folder: PathLike,
        model: nn.Module | PathLike,
        *,
        heads: HeadsLike | None = None,
        log: PathLike | None = None,
    ) -> "Monitor":
        """Return the monitor that `save` wrote; pass the same model and heads, or the same run folder, as when it was made.

        Raises:
            ValueError: the files are missing or damaged, or the model or its heads differ from those of the reference.
        """
        folder = Path(folder)
        try:
            facts = from_json((folder / FACTS).read_text(encoding="utf-8"))
            names, of_model, of_heads = facts["statistics"], facts["model"], facts["heads"]
            space = Pixels(facts["mean"], facts["std"], normalized=facts["normalized"])
            version, checksum = facts["format"], facts.pop(CHECKSUM, None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{str(folder)!r} holds no reference that can be read: record one with Monitor") from error
        if version != FORMAT:
            raise ValueError(f"{str(folder)!r} has format {version}, but {FORMAT} is needed: record a new reference")
        if checksum is not None and checksum != _checksum(facts):
            advice = "restore it from a copy, or record a new reference"
            raise ValueError(f"{str(folder / FACTS)!r} does not match its checksum: it was damaged or edited; {advice}")
        model, run = with_run(model)
        if of_model != _fingerprint(model):
            raise ValueError(
                "the model has other weights than that of the reference: record a new reference with Monitor"
            )
        found = None if of_heads is None else run.heads(heads, model, facts["shape"])
        if of_heads is not None and found is None:
            raise ValueError("the reference was recorded with pretext heads: pass heads=, the same ones")
        monitor = cls.__new__(cls)
        monitor._set_up(model, space, facts["shape"], heads=found, classifier=run.classifier, log=log)
        monitor.classes = tuple(facts.get("classes", ()))  # references of earlier versions have none
        if of_heads is not None and (monitor.heads is None or fingerprint(monitor.heads) != of_heads):
            raise ValueError("heads= are others than those of the reference: pass those, or record a new reference")
        values = files.load_weights(folder / VALUES)
        if not values.keys() >= set(names):
            raise ValueError(f"{str(folder / VALUES)!r} is of something else: record a new reference with Monitor")
        monitor._reference = Reference({name: values[name] for name in names}, facts["false_alarms"], facts["seed"])
        return monitor


def _checksum(facts: Mapping[str, object]) -> str:
    return digest([json.dumps(facts, sort_keys=True).encode()])


def _fingerprint(model: nn.Module) -> str:
    """Hash the model in eval mode, as the modes of some modules change their weights."""
    with evaluating(model):
        return fingerprint(model)
