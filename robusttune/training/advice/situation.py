"""The situation that advice is sought for: facts about a model and its images, read without training anything."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.utils.data import Subset

from robusttune.data.batches import first_batch, images_of, unpacked, yields_images_alone
from robusttune.data.class_names import class_names
from robusttune.data.loaders import check_loader, images_an_epoch, is_plain, length_of
from robusttune.data.splits import HELD_BACK, LEAST_HELD
from robusttune.data.transforms import find_statistics
from robusttune.measuring.chance import first_guess
from robusttune.model.checks import check_model, has_batch_norm
from robusttune.model.devices import device_of
from robusttune.model.input_shapes import is_large, patch_size_of
from robusttune.model.probe import probe
from robusttune.run.randomness import own_randomness, rewound
from robusttune.training.settings import PixelSettings
from robusttune.training.start import model_in_words
from robusttune.types import Loader


@dataclass(frozen=True)
class ModelFacts:
    """A model, as far as advice depends on it.

    Attributes:
        words: its name and size.
        patches: it cuts images into patches, as transformers, mixers and ConvNeXt do.
        batch_norm: it has batch norm.
        classes: its outputs.
        right: the share of a few images that it classifies correctly; None if there are no labels.
        trained: it is better than guessing; None if there are no labels, or too few images to tell.
    """

    words: str
    patches: bool
    batch_norm: bool
    classes: int
    right: float | None
    trained: bool | None


@dataclass(frozen=True)
class Situation:
    """Images, labels and model to harden.

    Attributes:
        images: (N,C,H,W), the first batch.
        labels: images with a label; 0 for none, None if their number is not known.
        others: images without a label, of both loaders; None if their number is not known.
        classes: their number; None if neither images nor model say it.
        per_class: the smallest and the largest number of images of a class; None if the data set does not list labels.
        held_back: `harden` holds images back to choose the epoch by.
        model: None for no model.
    """

    images: Tensor
    labels: int | None
    others: int | None
    classes: int | None
    per_class: tuple[int, int] | None
    held_back: bool
    model: ModelFacts | None

    @property
    def large(self) -> bool:
        """The images are treated as the field treats ImageNet's."""
        return is_large(self.images)

    @property
    def total(self) -> int | None:
        """All images, with labels and without; None if their number is not known."""
        return None if self.labels is None or self.others is None else self.labels + self.others

    def rows(self) -> list[tuple[str, str]]:
        """Return the facts as names and words."""
        channels, height, width = self.images.shape[1:]
        colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
        rows = [
            ("image size", f"{channels}x{height}x{width}, {colour}"),
            ("images with labels", "number not known" if self.labels is None else f"{self.labels:,}"),
            ("images without labels", "number not known" if self.others is None else f"{self.others:,}"),
            ("classes", "not known" if self.classes is None else str(self.classes)),
        ]
        if self.per_class is not None:
            rows.append(("images of a class", " to ".join(f"{count:,}" for count in dict.fromkeys(self.per_class))))
        return rows + (
            [("model", "none: pass one for time, memory and more exact advice")]
            if self.model is None
            else _model(self.model)
        )


def _model(model: ModelFacts) -> list[tuple[str, str]]:
    family = "cuts images into patches, as a transformer" if model.patches else "convolutional"
    rows = [("model", f"{model.words}; {family}; {'with' if model.batch_norm else 'without'} batch norm")]
    if model.right is None:
        return rows
    knows = {True: "trained", False: "not trained on these classes", None: "too few images to tell"}[model.trained]
    return [*rows, ("model on these images", f"{model.right:.0%} right before hardening: {knows}")]


def situation_of(
    model: nn.Module | None,
    loader: Loader,
    *,
    unlabeled_loader: Loader | None = None,
    labels: int | None = None,
    pixels: PixelSettings | None = None,
    seed: int = 0,
) -> Situation:
    """Read the facts of a model and its images; nothing is trained, and no random state changes.

    Args:
        model: None to do without one.
        loader, unlabeled_loader: as in `harden`.
        labels: how many of the loader's images have a label; None for all of them, or none where it yields images alone.
        pixels: the normalisation of the model's input.
        seed: the seed of the images that the model is tried on.

    Raises:
        ValueError: no loader or model, or more labels than images.
    """
    check_loader(loader)
    with own_randomness(seed), rewound(loader, unlabeled_loader):
        batch = first_batch(loader)
        alone = yields_images_alone(loader, batch)
        images, targets = (images_of(batch), None) if alone else unpacked(batch)
        more = (
            0
            if unlabeled_loader is None
            else _count(unlabeled_loader, images_of(first_batch(unlabeled_loader, "unlabeled_loader")))
        )
    count = _count(loader, images)
    if labels is not None and alone and labels:
        raise ValueError(
            f"labels is {labels}, but the loader yields images alone: leave labels out, or pass a loader with labels"
        )
    if labels is not None and count is not None and labels > count:
        raise ValueError(
            f"labels is {labels:,}, but the loader has {count:,} images: pass how many of them have a label"
        )
    labelled = (0 if alone else count) if labels is None else labels
    rest = count if alone else 0 if labelled is None or count is None else count - labelled
    others = None if more is None or rest is None else more + rest
    listed = None if alone else labels_of(getattr(loader, "dataset", None))
    names = class_names(loader)
    counts = _counts(listed, names or ()) if listed else []
    facts = None if model is None else _facts_of(model, loader, images, targets, pixels or PixelSettings(), seed)
    return Situation(
        images,
        labelled,
        others,
        facts.classes if facts is not None else len(names) if names else len(counts) or None,
        (min(counts), max(counts)) if counts else None,
        is_plain(loader) and round(HELD_BACK * (count or 0)) >= LEAST_HELD,
        facts,
    )


def _count(loader: Loader, images: Tensor) -> int | None:
    """Count the images of a loader: those of its data set, else those of its batches."""
    known = length_of(getattr(loader, "dataset", None)) if is_plain(loader) else None
    return images_an_epoch(loader, len(images)) if known is None else known


def _facts_of(
    model: nn.Module, loader: Loader, images: Tensor, targets: Tensor | None, pixels: PixelSettings, seed: int
) -> ModelFacts:
    check_model(model)
    mean, std = (pixels.mean, pixels.std) if pixels.mean is not None else find_statistics(loader)
    with own_randomness(seed):
        space, classifier = probe(model, images, mean, std, pixels.normalized, None)
    right: float | None = None
    trained: bool | None = None
    if targets is not None:
        with rewound(loader):
            guess = first_guess(model, space.to(device_of(model)), images, targets, loader, seed)
        right = guess.right / max(1, guess.images)
        trained = False if guess else True if guess.better() else None
    words = model_in_words(model, {})
    return ModelFacts(
        words, patch_size_of(model) is not None, has_batch_norm(model), classifier.classes, right, trained
    )


def labels_of(dataset: object) -> list[int] | None:
    """List the labels of a data set where it holds them, as its `target_transform` returns them; None if reading them would read the images.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> labels_of(Subset(TensorDataset(torch.zeros(3, 1, 2, 2), torch.tensor([4, 5, 6])), [2, 0]))
        [6, 4]
    """
    if isinstance(dataset, Subset):
        inner = labels_of(dataset.dataset)
        return None if inner is None else [inner[row] for row in dataset.indices]
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) > 1 and isinstance(tensors[1], Tensor):
        return _whole(tensors[1])
    for holder, name in ((dataset, "targets"), (dataset, "samples"), (getattr(dataset, "reader", None), "samples")):
        held = getattr(holder, name, None)
        if held is not None:
            found = _whole([each[1] for each in held] if name == "samples" else held)
            if found is not None:
                return _moved(found, getattr(dataset, "target_transform", None))
    return None


def _moved(labels: list[int], target_transform: object) -> list[int] | None:
    """Return labels as a `target_transform` returns them; None if it wants others, or returns no whole numbers."""
    if not callable(target_transform):
        return labels
    try:
        moved = {label: int(target_transform(label)) for label in set(labels)}
    except Exception:  # of the user's function
        return None
    return [moved[label] for label in labels]


def _counts(labels: Sequence[int], names: Sequence[str]) -> list[int]:
    """Count the images of each class; where classes have names, also of those without images."""
    found = Counter(labels)
    known = range(len(names)) if set(found) <= set(range(len(names))) else found
    return [found[label] for label in known]


def _whole(values: object) -> list[int] | None:
    """Return labels as whole numbers; None for anything else, such as soft labels."""
    if isinstance(values, Tensor):
        values = values.tolist() if values.dim() == 1 and not values.is_floating_point() else None
    try:
        found = [int(value) for value in cast("Sequence[int]", values)]
    except (TypeError, ValueError):
        return None
    return found or None
