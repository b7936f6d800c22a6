"""Accuracy on corrupted images: by corruption and severity, by family, and over all."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from robusttune.corruptions import SEVERITIES, Corruption, preset_of
from robusttune.corruptions._benchmark import SAVED_AT, Condition, family_of, generated, standard_names
from robusttune.corruptions._published import Published
from robusttune.data import sharding
from robusttune.data.batches import check_classes
from robusttune.evaluations import Z95, Passes, Record, Subject, accuracy, checked_by, repeated, takes
from robusttune.evaluations import _mean_corruption_error as mce
from robusttune.evaluations._mean_corruption_error import Key
from robusttune.measuring.record import Setting
from robusttune.model.seen_corruptions import trained_on
from robusttune.run import distributed
from robusttune.types import PathLike

__all__ = ["corruptions"]

Answers: TypeAlias = dict[Key, Tensor]
CorruptionLike: TypeAlias = str | Corruption | Callable[..., Tensor]


def _passes(
    subject: Subject,
    *,
    names: Sequence[CorruptionLike] | None,
    severities: Sequence[int],
    jpeg_save: bool,
    preset: int | None,
    published: PathLike | None,
) -> Passes | None:
    if published is not None:
        return None
    conditions = _conditions(subject, names, severities, jpeg_save=jpeg_save, preset=preset)

    def beside(pixels: Tensor) -> None:
        for condition in conditions:
            condition.change(pixels)

    return Passes(len(conditions), beside=beside)


def _check(
    subject: Subject,
    *,
    names: Sequence[CorruptionLike] | None,
    severities: Sequence[int],
    preset: int | None,
    published: PathLike | None,
    wnids: Sequence[str] | None,
) -> None:
    if published is None:
        _conditions(subject, names, severities, jpeg_save=False, preset=preset)
    else:
        Published(published, wnids=wnids, names=subject.names, outputs=subject.classes)


@checked_by(_check)
@takes(_passes)
def corruptions(
    subject: Subject,
    *,
    names: Sequence[CorruptionLike] | None = None,
    severities: Sequence[int] = SEVERITIES,
    jpeg_save: bool = False,
    preset: int | None = None,
    published: PathLike | None = None,
    images: int | None = None,
    wnids: Sequence[str] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    baseline: Mapping[str, Sequence[float]] | None = None,
) -> list[Record]:
    """Measure the accuracy on corrupted images, its means over severities, families and all, and the mean error.

    The interval of a mean takes into account that each image was seen many times. Corruptions are computed from the
    loader's images, in 8 bits, and the same for every batch size; or they are read from published files.

    Args:
        subject: the model and its images.
        names: corruptions by name, `Corruption` objects (`partial(frost, frost_dir=…)`), or Kornia augmentations; the
            fifteen of the benchmark unless given (of published files: all of them).
        severities: out of 1 to 5.
        jpeg_save: save each corrupted image as JPEG of quality 85, as ImageNet-C's files were: noise loses a quarter.
        preset: the image size whose severities to use, 32, 64 or 224 px; by the image size unless given.
        published: the folder of a published benchmark (CIFAR-10-C and -100-C, ImageNet-C, Tiny-ImageNet-C,
            ImageNet-C-bar, ImageNet-3DCC, MNIST-C); the loader then yields the clean images alone.
        images: the number of published images to use, the same ones under each corruption; drawn with the seed.
        wnids: WordNet numbers that name the published folders of the model's classes, in the order of its logits; by default those that it knows.
        transform: (N,C,H,W) in [0,1] -> the model's images, for published images of another size.
        baseline: errors by corruption to divide by, instead of AlexNet's.

    Raises:
        ValueError: unknown corruptions, or files that cannot be read.

    Source: Hendrycks and Dietterich, arXiv:1903.12261.
    """
    if published is None:
        answers, protocol = _of_generated(subject, names, severities, jpeg_save=jpeg_save, preset=preset)
    else:
        files = Published(published, wnids=wnids, names=subject.names, outputs=subject.classes)
        answers, protocol = _of_published(subject, files, names, severities, images=images, transform=transform)
    setting = {"protocol": protocol, "seed": subject.seed}
    own_images = published is None
    records = [*_accuracies(answers, subject, setting, own_images), *_means(answers, subject, setting)]
    imagenet_c = published is not None and subject.classes == mce.CLASSES and not mce.missing(answers)
    if baseline is not None or imagenet_c:
        records += _against_baseline(answers, subject, baseline, setting)
    return records


def _of_generated(
    subject: Subject,
    names: Sequence[CorruptionLike] | None,
    severities: Sequence[int],
    *,
    jpeg_save: bool,
    preset: int | None,
) -> tuple[Answers, str]:
    """Return the right answers under each corruption of the loader's images, and the protocol."""
    conditions = _conditions(subject, names, severities, jpeg_save=jpeg_save, preset=preset)
    size = preset_of(_example(subject), preset)
    saved = f"saved as JPEG of quality {SAVED_AT}" if jpeg_save else "8 bits"
    protocol = f"made here, severities for {size} px, {saved}"
    subject.tell(f"corruptions: {protocol}")
    right: dict[Key, list[Tensor]] = {(condition.name, condition.severity): [] for condition in conditions}
    for pixels, labels in subject.batches():
        for condition in conditions:
            subject.stage(f"{condition.name} {condition.severity or ''}".rstrip())
            answers = subject.predicted(condition.change(pixels)) == labels
            right[condition.name, condition.severity].append(answers.cpu())
    return _joined(right), protocol


def _conditions(
    subject: Subject,
    names: Sequence[CorruptionLike] | None,
    severities: Sequence[int],
    *,
    jpeg_save: bool,
    preset: int | None,
) -> list[Condition]:
    return generated(
        standard_names() if names is None else names,
        severities,
        _example(subject),
        seed=subject.seed + distributed.rank(),
        jpeg_save=jpeg_save,
        preset=preset_of(_example(subject), preset),
    )


def _example(subject: Subject) -> Tensor:
    return torch.zeros(1, *subject.shape, device=subject.device)


def _of_published(
    subject: Subject,
    files: Published,
    names: Sequence[CorruptionLike] | None,
    severities: Sequence[int],
    *,
    images: int | None,
    transform: Callable[[Tensor], Tensor] | None,
) -> tuple[Answers, str]:
    """Return the right answers under each corruption of published images, and the protocol."""
    wanted = files.corruptions if names is None else list(map(str, names))
    kept = [severity for severity in files.severities if severity is None or severity in severities]
    rows = None if images is None else files.subset(images, subject.seed)
    right: dict[Key, list[Tensor]] = {(name, severity): [] for name in wanted for severity in kept}
    size = "as they are"
    for (name, severity), parts in right.items():
        batches = files.batches(name, severity, rows=rows)
        for number, (levels, labels) in enumerate(sharding.own_share(batches), 1):
            subject.stage(f"{name} {severity or ''}, batch {number}")
            check_classes(labels, subject.classes)  # of a part of the classes: wnids=
            pixels, size = _fitted(levels.to(subject.device).float() / 255, subject, transform)
            parts.append((subject.predicted(pixels) == labels.to(subject.device)).cpu())
    counts = {key: sum(map(len, parts)) for key, parts in right.items()}
    if len(set(counts.values())) > 1:
        fewest, most = min(counts, key=lambda key: counts[key]), max(counts, key=lambda key: counts[key])
        raise ValueError(
            f"{files.name} has {counts[fewest]} images for {fewest} but {counts[most]} for {most}, and means are over the same "
            "images: name the corruptions that are complete in names="
        )
    protocol = f"published files, {files.name}, {size}"
    subject.tell(f"corruptions: {protocol}")
    return _joined(right), protocol


def _joined(right: Mapping[Key, Sequence[Tensor]]) -> Answers:
    return {key: torch.cat(list(parts)) if parts else torch.zeros(0) for key, parts in right.items()}


def _fitted(pixels: Tensor, subject: Subject, transform: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, str]:
    """Return published images (N,C,H,W) in the size of the loader's, and the change in words."""
    if transform is not None:
        return transform(pixels), "changed by the transform given"
    height, width = subject.shape[-2:]
    if pixels.shape[1:] == subject.shape:
        return pixels, "as they are"
    if pixels.shape[1] != subject.shape[0] or pixels.shape[2] < height or pixels.shape[3] < width:
        raise ValueError(
            f"the published images are {tuple(pixels.shape[1:])}, but the loader's are {subject.shape}: pass "
            "transform=, a function of images (N,C,H,W) in [0,1], such as torchvision.transforms.Resize"
        )
    top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
    return pixels[..., top : top + height, left : left + width], f"middle {height}×{width} px"


def _accuracies(answers: Answers, subject: Subject, setting: Setting, own_images: bool) -> Iterator[Record]:
    """Yield the accuracy at each corruption and severity; answers to single images only of the loader's images."""
    overlap = trained_on(subject.model) & {name for name, _ in answers}
    if overlap:
        warnings.warn(
            f"the model was trained on {', '.join(sorted(overlap))}: its accuracy on that says little about corruptions "
            "it has not seen; leave it out of names=, or out of training",
            stacklevel=2,
        )
    for (name, severity), right in answers.items():
        correct, images = subject.totals(int(right.sum()), len(right))
        seen = {"in training": True} if name in overlap else {}
        at_severity = {"corruption": name, "severity": severity, **seen, **setting}
        yield accuracy("corruptions", correct, images, at_severity, right=right.tolist() if own_images else None)


def _means(answers: Answers, subject: Subject, setting: Setting) -> Iterator[Record]:
    """Yield the mean accuracy over the severities of each corruption, over each family, and over all; the mean error."""
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in answers:
        groups.setdefault(("corruption", key[0]), []).append(key)
    for key in answers:
        groups.setdefault(("over", family_of(key[0])), []).append(key)
    groups["over", "all"] = list(answers)
    for (kind, name), keys in groups.items():
        times = torch.stack([answers[key] for key in keys]).sum(0)
        right = subject.totals(int(times.sum()), int((times**2).sum()), len(times))
        seen = {"in training": True} if trained_on(subject.model) & {key[0] for key in keys} else {}
        record = repeated("corruptions", right, len(keys), {kind: name, **seen, **setting})
        yield record
        if (kind, name) == ("over", "all"):
            low, high = record.interval
            yield replace(record, metric="mean error", value=1 - record.value, interval=(1 - high, 1 - low))


def _against_baseline(
    answers: Answers, subject: Subject, baseline: Mapping[str, Sequence[float]] | None, setting: Setting
) -> Iterator[Record]:
    """Yield the mean error divided by AlexNet's or the baseline's; for AlexNet's, the relative error, too."""
    errors = mce.ALEXNET if baseline is None else baseline
    lost = mce.missing(answers, errors)
    if lost:
        raise ValueError(
            f"the baseline knows {len(lost)} corruptions and severities that were not measured, such as {lost[0]}: measure "
            "them, too, or leave them out of baseline="
        )
    unit = "AlexNet" if baseline is None else "the baseline given"
    setting = {"over": f"{len(errors)} corruptions, {unit} = 100%", **setting}
    yield _weighted("mCE", answers, mce.weights(errors), subject, setting)
    if baseline is None:
        right = [(subject.predicted(pixels) == labels).cpu() for pixels, labels in subject.batches()]
        excess = mce.weights(errors, mce.ALEXNET_CLEAN)
        yield _weighted("relative mCE", answers, excess, subject, setting, clean=torch.cat(right))


def _weighted(
    metric: str,
    answers: Answers,
    weights: Mapping[Key, float],
    subject: Subject,
    setting: Setting,
    *,
    clean: Tensor | None = None,
) -> Record:
    """Return the weighted sum of errors, minus the weighted clean error if there are `clean` answers."""
    per_image = torch.stack([weight * (~answers[key]).double() for key, weight in weights.items()]).sum(0)
    value, variance = _mean_and_variance(per_image, subject)
    if clean is not None:
        error, of_error = _mean_and_variance((~clean).double(), subject)
        total = sum(weights.values())
        value, variance = value - total * error, variance + total**2 * of_error
    spread = Z95 * variance**0.5
    images = subject.totals(len(per_image))[0]
    return Record("corruptions", metric, value, images, (value - spread, value + spread), dict(setting))


def _mean_and_variance(values: Tensor, subject: Subject) -> tuple[float, float]:
    """Return the mean of values (N,) over all processes, and the variance of that mean."""
    count, total, squares = distributed.summed(
        [len(values), float(values.sum()), float(values.square().sum())], subject.device
    )
    mean = total / count
    return mean, max(0.0, squares / count - mean**2) / count
