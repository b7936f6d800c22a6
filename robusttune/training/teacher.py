"""The teacher of a run: a frozen classifier whose answers stand in for the labels that images lack."""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images, checked_labels
from robusttune.data.pixels import Pixels
from robusttune.data.unlabeled import joined
from robusttune.model.borrowing import evaluating, restored
from robusttune.model.devices import device_of, dtype_of, placed, tensors_of
from robusttune.model.features import logits_of
from robusttune.run.provenance import digest, fingerprint, tensor_bytes
from robusttune.training.settings import TeacherLike

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss

SELF = "self"
REMEMBERED = 1_000_000  # labels
PATIENCE = 20  # batches of images that are not remembered, after which none is looked for any more


class Teacher:
    """The teacher's labels for images as the loader yields them.

    Args:
        answers: inputs (N,C,H,W) -> logits (N,K), or an output that holds them; it gets what the trained model would get.
        space: the maps from the loader's images to the model's input, on the device.
        device: to work on.
        classes: of the trained model, which must be the teacher's, too.
        name: "self", or the type of the user's teacher.
    """

    def __init__(
        self, answers: Callable[[Tensor], object], space: Pixels, device: torch.device, classes: int, name: str
    ) -> None:
        self.answers, self.space, self.device = answers, space, device
        self.classes, self.name = classes, name
        self.memory: dict[int, int] | None = {} if device.type == "cpu" else None
        self.misses = 0

    def __call__(self, images: Tensor, *, remember: bool = False) -> Tensor:
        """Return the most likely class (N,) of each of the images (N,C,H,W), as the loader yields them.

        Args:
            images: without labels.
            remember: keep the labels, so that the same images need no forward pass again; on the CPU alone, where comparing
                images costs less than a forward pass.

        Raises:
            ValueError: the teacher's output holds no logits, or other classes than the model's.
        """
        if self.memory is None:
            return self._labels(images)
        keys = [hash(tensor_bytes(image)) for image in images]
        known = [self.memory.get(key) for key in keys]
        if None not in known:
            return torch.tensor(known)
        labels = self._labels(images)
        if remember and len(self.memory) < REMEMBERED:
            self.memory.update(zip(keys, labels.tolist(), strict=True))
        elif self.misses == PATIENCE:  # random transforms make new images each time
            self.memory = None
        else:
            self.misses += 1
        return labels

    def _labels(self, images: Tensor) -> Tensor:
        inputs = self.space.inputs(self.pixels(images))
        with torch.no_grad(), ExitStack() as stack:
            if isinstance(self.answers, nn.Module):
                stack.enter_context(evaluating(self.answers))
                inputs = inputs.to(dtype_of(self.answers))
            logits = logits_of(self.answers(inputs))
        if logits.shape != (len(images), self.classes):
            raise ValueError(
                f"the teacher returned logits of shape {tuple(logits.shape)} for {len(images)} images, but the model has "
                f"{self.classes} classes: the teacher must have the same ones"
            )
        return logits.argmax(1)

    def pixels(self, images: Tensor) -> Tensor:
        """Return the pixels (N,C,H,W) on [0,1] of images as the loader yields them, on the device."""
        return self.space.pixels(images.to(self.device, non_blocking=True))

    def facts(self, images: Tensor) -> dict[str, str]:
        """Return what `run.json` keeps of the teacher: its name, and a hash of its weights or of a function's answers to images."""
        if isinstance(self.answers, nn.Module):
            return {"name": self.name, "fingerprint": fingerprint(self.answers)}
        return {"name": self.name, "fingerprint": digest([str(self(images).tolist()).encode()])}


def teacher_of(teacher: TeacherLike, model: nn.Module, space: Pixels, device: torch.device, classes: int) -> Teacher:
    """Make a teacher of what the user passed: "self" for a copy of the model with its present weights, a module, a function.

    Raises:
        ValueError: it is none of these, shares weights with the model, or the model cannot be copied.
    """
    check_teacher(teacher, model)
    if teacher is model or isinstance(teacher, str):
        return Teacher(_frozen_copy(model), space, device, classes, SELF)
    return Teacher(teacher, space, device, classes, getattr(teacher, "__name__", type(teacher).__name__))


def check_teacher(teacher: object, model: nn.Module) -> None:
    """Raise a ValueError for a teacher that is none, or that training the model would change."""
    if (isinstance(teacher, str) and teacher != SELF) or (not isinstance(teacher, str) and not callable(teacher)):
        shown = repr(teacher) if isinstance(teacher, str) else f"a {type(teacher).__name__}"
        raise ValueError(
            f"teacher is {shown}, but it must be 'self' (the model as it is now), a module, a function from images to logits, "
            "or None"
        )
    if not isinstance(teacher, nn.Module) or teacher is model:
        return
    mine = {id(tensor) for tensor in tensors_of(model)}
    if any(id(tensor) in mine for tensor in tensors_of(teacher)):
        raise ValueError(
            "the teacher shares weights with the model, so it would change while the model is trained: pass teacher='self', "
            "which copies the model, or copy.deepcopy(…) of the teacher"
        )


@contextmanager
def teaching(
    teacher: TeacherLike, model: nn.Module, space: Pixels, device: torch.device, classes: int
) -> Iterator[Teacher]:
    """Yield the teacher of a run, see `teacher_of`; a module of the user's is in eval mode meanwhile, and restored after it."""
    with ExitStack() as stack:
        if isinstance(teacher, nn.Module) and teacher is not model:
            for each in (placed(teacher, device), restored(teacher, weights=False), evaluating(teacher)):
                stack.enter_context(each)
        yield teacher_of(teacher, model, copy.deepcopy(space).to(device), device, classes)


class Labeller:
    """The labels that a RobustLoss gives to images without labels.

    It is no module, so that neither the optimiser nor a state_dict of the RobustLoss finds the teacher.

    Args:
        teacher: of the user; None to label nothing.
        model: to be trained.

    Raises:
        ValueError: the teacher is none, or shares weights with the model.
    """

    def __init__(self, teacher: TeacherLike | None, model: nn.Module) -> None:
        self.choice = teacher
        self.teacher: Teacher | None = None
        if teacher is not None:
            check_teacher(teacher, model)

    def joined(
        self, robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None, unlabeled: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Join the images without labels, once labelled, to those with labels; without a teacher, all stay as they are."""
        if self.choice is None or unlabeled is None or labels is None:
            return images, labels, unlabeled
        if self.teacher is None:
            model, space, classes = robust_loss.model, robust_loss.pixels, robust_loss.classifier.classes
            self.teacher = teacher_of(self.choice, model, space, device_of(model), classes)
        check_images(unlabeled)
        return *joined([(images, checked_labels(labels, len(images))), (unlabeled, self.teacher(unlabeled))]), None


def _frozen_copy(model: nn.Module) -> nn.Module:
    """Copy a model, in eval mode and without gradients.

    Raises:
        ValueError: it cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        raise ValueError(
            f"the model cannot be copied ({type(error).__name__}: {error}), so it cannot label images while it is trained: "
            "pass teacher=, the same model loaded a second time"
        ) from error
    return twin.eval().requires_grad_(False)
