"""Adapters to MAITE's protocols of image classification, in both directions; they need no import of maite."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from robusttune.data.batches import unpacked
from robusttune.data.class_names import class_names
from robusttune.data.pixels import Pixels, check_space, find_pixels
from robusttune.integration.judge import Judge
from robusttune.model.devices import check_module
from robusttune.model.features import logits_of, predicted_logits
from robusttune.threat import ThreatModel
from robusttune.types import Channels

# MAITE's protocols are structural, and its arrays those of any package.
Array: TypeAlias = Any
Structure: TypeAlias = Any
# Images (C,H,W), their targets (K,), and facts on them.
Batch: TypeAlias = tuple[Sequence[Array], Sequence[Array], Sequence[Mapping[str, object]]]


class MaiteModule(nn.Module):
    """A MAITE model as a module, images (N,C,H,W) -> logits (N,K), for `evaluate` and, if it has weights, `harden`.

    Attacks by gradients, such as those of `sweep`, need a MAITE model that answers with tensors that were computed by torch from the
    tensors that it gets. Attacks that need none, such as torchattacks' Square, work with any.

    Args:
        model: a MAITE image classification Model: a sequence of images (C,H,W) -> a sequence of (K,).
        white: the value of white in the images that the model takes: 1, or 255 for images of bytes.
        log: the model answers with probabilities: their logarithm is taken, as attacks need logits.

    Example:
        >>> module = MaiteModule(lambda images: [image.mean((1, 2)) for image in images])
        >>> module(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, model: Structure, *, white: float = 1.0, log: bool = False) -> None:
        super().__init__()
        self.model, self.white, self.log = model, white, log

    def forward(self, images: Tensor) -> Tensor:
        """Return the answers (N,K) of the MAITE model, as logits."""
        scaled = images * self.white
        try:
            answers = self.model(list(scaled))
        except RuntimeError as error:
            if "requires grad" not in str(error):
                raise
            answers = self.model(list(scaled.detach()))  # a model of numpy; attacks say that they find no gradient
        logits = torch.stack([torch.as_tensor(answer) for answer in answers]).to(images.device)
        return logits.clamp_min(1e-12).log() if self.log else logits


class MaiteImages(Dataset[tuple[Tensor, Tensor]]):
    """A MAITE data set as one of torch: images (C,H,W) as they are, and class numbers.

    Args:
        dataset: a MAITE image classification Dataset, whose targets are one-hot or probabilities (K,).

    Attributes:
        classes: names of the classes by number, from `index2label`, "class 3" for a number without a name; [] if there is none.
    """

    def __init__(self, dataset: Structure) -> None:
        self.dataset = dataset
        labels = {int(number): name for number, name in dataset.metadata.get("index2label", {}).items()}
        self.classes = [labels.get(number, f"class {number}") for number in range(max(labels, default=-1) + 1)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, target, _ = self.dataset[index]
        return torch.as_tensor(np.asarray(image)), _target(target).argmax()


def maite_loader(dataset: Structure, batch_size: int = 128) -> "DataLoader[tuple[Tensor, Tensor]]":
    """Return a loader of images (N,C,H,W) and labels (N,) of a MAITE image classification Dataset, in its order."""
    return DataLoader(MaiteImages(dataset), batch_size)


class MaiteModel:
    """A classifier of ours as a MAITE image classification Model: images (C,H,W) -> probabilities (K,), as numpy arrays.

    Args:
        model: images -> logits (N,K), judged in eval mode.
        mean, std, normalized: the normalisation of the model's input, as for `evaluate`; the first batch decides the space of the images.
        name: the id in `metadata`.
        classes: names of the classes, for `index2label`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Channels | None = None,
        std: Channels | None = None,
        normalized: bool | None = None,
        name: str | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        check_module(model)
        self.model, self.space = model, {"mean": mean, "std": std, "normalized": normalized}
        self.pixels: Pixels | None = None
        self.metadata = _metadata(name or type(model).__name__, classes)

    def __call__(self, batch: Sequence[Array], /) -> Sequence[Array]:
        """Return the probabilities (K,) of each image (C,H,W)."""
        images = _images(batch)
        if self.pixels is None:
            self.pixels = find_pixels(images, model=self.model, **self.space)  # type: ignore[arg-type]
        check_space(self.pixels, images)
        logits = logits_of(predicted_logits(self.model, self.pixels, images))
        return [row.numpy() for row in logits.float().softmax(1)]


class MaiteDataset:
    """A data set of torch as a MAITE image classification Dataset: image (C,H,W), one-hot target (K,), {"id": number}.

    Args:
        dataset: yields an image (C,H,W), as a tensor, and a class number.
        classes: the number of classes, or their names; None for those in `dataset.classes`.
        name: the id in `metadata`.

    Raises:
        ValueError: the classes are not known, or, when an image is read, its label is none of them.
    """

    def __init__(
        self, dataset: Structure, *, classes: int | Sequence[str] | None = None, name: str | None = None
    ) -> None:
        known = class_names(DataLoader(dataset)) or [] if classes is None else classes
        self.count = known if isinstance(known, int) else len(known)
        if not self.count:
            raise ValueError("the data set has no .classes: pass classes=, their number or their names")
        self.dataset = dataset
        self.metadata = _metadata(name or type(dataset).__name__, [] if isinstance(known, int) else known)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> tuple[Array, Array, dict[str, int]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        image, label = self.dataset[index][:2]
        number = int(label)
        if number != label or not 0 <= number < self.count:
            # An IndexError would end a loop over the images in silence, and -1 would count as the last class.
            raise ValueError(
                f"the label of image {index} is {label}, but a class number from 0 to {self.count - 1} is needed: pass all classes in classes=, "
                "and leave images without a label out"
            )
        return np.asarray(image), np.eye(self.count, dtype=np.float32)[number], {"id": index}


class MaiteAttack:
    """A MAITE Augmentation that replaces images by adversarial ones, so that MAITE's metrics measure robustness.

    Args:
        model: images -> logits (N,K), attacked in eval mode; a MAITE model as MaiteModule.
        threat: the adversary.
        settings: attack, steps, losses, mean, std, normalized and seed, as for `robusttune.integration.judge.Judge`.

    Example:
        >>> attack = MaiteAttack(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), ThreatModel("linf", 0.1), steps=2)
        >>> images, targets, facts = attack(([np.full((1, 8, 8), 0.5, np.float32)], [np.array([0.0, 1.0])], [{"id": 0}]))
        >>> bool(abs(images[0] - 0.5).max() <= 0.1 + 1e-6)
        True
    """

    def __init__(self, model: nn.Module, threat: ThreatModel, **settings: Structure) -> None:
        self.judge = Judge(model, threat, **settings)
        self.metadata = {"id": f"robusttune {threat.norm} eps={threat.eps:.4g}"}

    def __call__(self, batch: Batch, /) -> Batch:
        """Return the batch with adversarial images (C,H,W), floats in the range of those that come in."""
        inputs, targets, facts = batch
        images = _images(inputs)
        labels = torch.stack([_target(target).argmax() for target in targets])
        pixels, _, _ = self.judge.attacked([unpacked((images, labels))])
        space = self.judge.pixels
        assert space is not None
        found = 255 * pixels if images.dtype == torch.uint8 else space.inputs(pixels) if space.normalized else pixels
        return [image.numpy() for image in found.cpu()], targets, facts


def _images(batch: Sequence[Array]) -> Tensor:
    """Stack images (C,H,W) of any kind of array."""
    return torch.stack([torch.as_tensor(image if isinstance(image, Tensor) else np.asarray(image)) for image in batch])


def _target(target: Array) -> Tensor:
    """Return a target (K,) of any kind of array.

    Raises:
        ValueError: it is a class number, whose argmax would always be 0; or no class of it is likelier than 0.
    """
    found = torch.as_tensor(np.asarray(target))
    if found.dim() != 1 or len(found) < 2:
        raise ValueError(
            f"a target has the shape {tuple(found.shape)}, but MAITE's are one-hot or probabilities (K,), one for each of at least 2 classes: "
            "turn class numbers into one-hot targets, such as numpy.eye(K)[number]"
        )
    if not bool(torch.isfinite(found).all()) or not bool((found > 0).any()):
        raise ValueError(
            f"a target is {found.tolist()}, which names no class: leave images without a label out, and look for NaN in the others"
        )
    return found


def _metadata(name: str, classes: Sequence[str]) -> dict[str, object]:
    labels = {"index2label": dict(enumerate(classes))} if classes else {}
    return {"id": name, **labels}
