"""Accuracy on corrupted images: by corruption and severity, by family, and their mean."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robusttune.corruptions import SEVERITIES, preset_of
from robusttune.corruptions._benchmark import SAVED_AT, family_of, generated, standard_names
from robusttune.corruptions._published import Published
from robusttune.data import sharding
from robusttune.data.batches import check_classes
from robusttune.evaluations import _mean_corruption_error
from robusttune.measuring.intervals import Z95
from robusttune.measuring.record import Record, accuracy, repeated
from robusttune.measuring.subject import Subject
from robusttune.model.seen_corruptions import trained_on
from robusttune.run import distributed

__all__ = ["corruptions"]

Key = tuple[str, int | None]
Answers = dict[Key, Tensor]


def corruptions(
    subject: Subject,
    *,
    names: Sequence[Any] | None = None,
    severities: Sequence[int] = SEVERITIES,
    jpeg_save: bool = False,
    preset: int | None = None,
    published: Any = None,
    images: int | None = None,
    wnids: Sequence[str] | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
    baseline: Mapping[str, Sequence[float]] | None = None,
) -> list[Record]:
    """The accuracy on corrupted images, and its mean over severities, families and all; the mean error over all.

    An interval of a mean knows that each image was seen many times. Corruptions are made from the loader's images, in
    8 bits, and the same whatever its batch size; or they are read from the files that others have published.

    Args:
        subject: the model and its images.
        names: corruptions by name, `Corruption` objects (`partial(frost, frost_dir=…)`), or Kornia augmentations; the
            fifteen of the benchmark unless given (of published files: all that are there).
        severities: out of 1 to 5.
        jpeg_save: store each corrupted image as JPEG of quality 85, as ImageNet-C's files were: noise loses a quarter.
        preset: whose severities to use, 32, 64 or 224 px; by the image size unless given.
        published: the folder of a published benchmark (CIFAR-10-C and -100-C, ImageNet-C, Tiny-ImageNet-C,
            ImageNet-C-bar, ImageNet-3DCC, MNIST-C); the loader then gives the clean images alone.
        images: how many of the published images to use, the same ones under each corruption; drawn with the seed.
        wnids: of published folders, those of the model's classes, in the order of its logits.
        transform: (N,C,H,W) in [0,1] -> what the model takes, for published images of another size.
        baseline: errors by corruption to divide by, in the place of AlexNet's.

    Raises:
        ValueError: unknown corruptions, or files that cannot be read.

    Source: Hendrycks and Dietterich, arXiv:1903.12261.
    """
    if published is None:
        answers, how = _of_generated(subject, names, severities, jpeg_save=jpeg_save, preset=preset)
    else:
        files = Published(published, wnids=wnids)
        answers, how = _of_published(subject, files, names, severities, images=images, transform=transform)
    how = {**how, "seed": subject.seed}
    records = [*_accuracies(answers, subject, how), *_means(answers, subject, how)]
    of_imagenet = (
        published is not None
        and subject.classes == _mean_corruption_error.CLASSES
        and _mean_corruption_error.is_complete(answers)
    )
    if baseline is not None or of_imagenet:
        records += _against_baseline(answers, subject, baseline, how)
    return records


def _of_generated(
    subject: Subject, names: Sequence[Any] | None, severities: Sequence[int], *, jpeg_save: bool, preset: int | None
) -> tuple[Answers, dict[str, Any]]:
    """Which images were right under each corruption that is made here, and how it was made."""
    example = torch.zeros(1, *subject.shape, device=subject.device)
    size = preset_of(example, preset)
    conditions = generated(
        standard_names() if names is None else names,
        severities,
        example,
        seed=subject.seed + distributed.rank(),
        jpeg_save=jpeg_save,
        preset=size,
    )
    saved = f"saved as JPEG of quality {SAVED_AT}" if jpeg_save else "8 bits"
    how = {"protocol": f"made here, severities for {size} px, {saved}"}
    subject.tell(f"corruptions: {how['protocol']}")
    right: dict[Key, list[Tensor]] = {(each.name, each.severity): [] for each in conditions}
    for pixels, labels in subject.batches():
        for each in conditions:
            right[each.name, each.severity].append((subject.predicted(each.change(pixels)) == labels).cpu())
    return {key: torch.cat(parts) if parts else torch.zeros(0) for key, parts in right.items()}, how


def _of_published(
    subject: Subject,
    files: Published,
    names: Sequence[Any] | None,
    severities: Sequence[int],
    *,
    images: int | None,
    transform: Callable[[Tensor], Tensor] | None,
) -> tuple[Answers, dict[str, Any]]:
    """Which images were right under each corruption that is read, and how it was read."""
    wanted = files.corruptions if names is None else list(names)
    kept = [each for each in files.severities if each is None or each in severities]
    rows = None if images is None else files.subset(images, subject.seed)
    right: dict[Key, list[Tensor]] = {(name, severity): [] for name in wanted for severity in kept}
    size = "as they are"
    for (name, severity), parts in right.items():
        batches = files.batches(name, severity, rows=rows)
        for levels, labels in sharding.own_share(subject.watched(batches)):
            check_classes(labels, subject.classes)  # of a part of the classes: wnids=
            pixels = levels.to(subject.device).float() / 255
            pixels, size = _fitted(pixels, subject, transform)
            parts.append((subject.predicted(pixels) == labels.to(subject.device)).cpu())
    counts = {key: sum(map(len, parts)) for key, parts in right.items()}
    if len(set(counts.values())) > 1:
        fewest, most = min(counts, key=lambda key: counts[key]), max(counts, key=lambda key: counts[key])
        raise ValueError(
            f"{files.name} has {counts[fewest]} images for {fewest} but {counts[most]} for {most}, and means are over the same "
            "images: name the corruptions that are complete in names="
        )
    how = {"protocol": f"published files, {files.name}, {size}"}
    subject.tell(f"corruptions: {how['protocol']}")
    return {key: torch.cat(parts) if parts else torch.zeros(0) for key, parts in right.items()}, how


def _fitted(pixels: Tensor, subject: Subject, transform: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, str]:
    """Published images (N,C,H,W) as the model takes them, and what was done to them."""
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


def _accuracies(answers: Answers, subject: Subject, how: Mapping[str, Any]) -> Iterator[Record]:
    """The accuracy under each condition."""
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
        # Published images are others than the loader's, by whose hashes single ones are known.
        single = None if how["protocol"].startswith("published") else right.tolist()
        setting = {"corruption": name, "severity": severity, **seen, **how}
        yield accuracy("corruptions", correct, images, setting, right=single)


def _means(answers: Answers, subject: Subject, how: Mapping[str, Any]) -> Iterator[Record]:
    """The mean over the severities of each corruption, over each family, and over all."""
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in answers:
        groups.setdefault(("corruption", key[0]), []).append(key)
    for key in answers:
        groups.setdefault(("over", family_of(key[0])), []).append(key)
    groups["over", "all"] = list(answers)
    for (kind, name), keys in groups.items():
        times = torch.stack([answers[key] for key in keys]).sum(0)
        right = subject.totals(int(times.sum()), int((times**2).sum()), len(times))
        seen = {"in training": True} if kind == "corruption" and name in trained_on(subject.model) else {}
        record = repeated("corruptions", right, len(keys), {kind: name, **seen, **how})
        yield record
        if (kind, name) == ("over", "all"):
            low, high = record.interval
            yield replace(record, metric="mean error", value=1 - record.value, interval=(1 - high, 1 - low))


def _against_baseline(
    answers: Answers, subject: Subject, baseline: Mapping[str, Sequence[float]] | None, how: Mapping[str, Any]
) -> Iterator[Record]:
    """The error divided by AlexNet's, or that of the baseline given; for AlexNet's the error beyond the clean one, too."""
    errors = _mean_corruption_error.ALEXNET if baseline is None else baseline
    lost = _mean_corruption_error.missing(answers, errors)
    if lost:
        raise ValueError(
            f"the baseline knows {len(lost)} corruptions and severities that were not measured, such as {lost[0]}: measure "
            "them, too, or leave them out of baseline="
        )
    how = {
        "over": f"{len(errors)} corruptions, {'AlexNet' if baseline is None else 'the baseline given'} = 100%",
        **how,
    }
    each = _mean_corruption_error.weights(errors)
    yield _weighted("mCE", answers, each, subject, how)
    if baseline is None:
        right = [(subject.predicted(pixels) == labels).cpu() for pixels, labels in subject.batches()]
        excess = _mean_corruption_error.weights(errors, _mean_corruption_error.ALEXNET_CLEAN)
        yield _weighted("relative mCE", answers, excess, subject, how, clean=torch.cat(right))


def _weighted(
    metric: str,
    answers: Answers,
    weights: Mapping[Key, float],
    subject: Subject,
    how: Mapping[str, Any],
    *,
    clean: Tensor | None = None,
) -> Record:
    """The weighted sum of errors, less that of the clean error where one is given; its interval is a normal one."""
    per_image = torch.stack([weight * (~answers[key]).double() for key, weight in weights.items()]).sum(0)
    value, variance = _mean_and_variance(per_image, subject)
    if clean is not None:
        error, own = _mean_and_variance((~clean).double(), subject)
        total = sum(weights.values())
        value, variance = value - total * error, variance + total**2 * own
    spread = Z95 * variance**0.5
    images = subject.totals(len(per_image))[0]
    return Record("corruptions", metric, value, images, (value - spread, value + spread), dict(how))


def _mean_and_variance(values: Tensor, subject: Subject) -> tuple[float, float]:
    """The mean of values (N,), over all processes, and the variance of that mean."""
    count, total, squares = distributed.summed(
        [len(values), float(values.sum()), float(values.square().sum())], subject.device
    )
    mean = total / count
    return mean, max(0.0, squares / count - mean**2) / count
