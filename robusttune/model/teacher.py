"""The teacher of a run: a frozen classifier whose answers replace missing labels."""

import copy
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from robusttune.data.batches import sent
from robusttune.data.pixels import Pixels
from robusttune.model.borrowing import evaluating, restored
from robusttune.model.devices import dtype_of, placed, tensors_of
from robusttune.model.features import logits_of
from robusttune.model.saved import hardened_run, loaded
from robusttune.run.about import EarlierRun, check_same_names
from robusttune.run.provenance import digest, fingerprint, tensor_bytes
from robusttune.types import PathLike, check_path, says

# Answers that stand in for labels: of the model as it was before the run, or of another classifier of the same classes.
TeacherLike: TypeAlias = Literal["self"] | PathLike | nn.Module | Callable[[Tensor], Tensor]
SELF = "self"
REMEMBERED = 1_000_000  # labels
PATIENCE = 20  # batches of images that are not remembered, after which none is looked for any more

logger = logging.getLogger("robusttune")


class Teacher:
    """The teacher's labels for images as the loader yields them.

    Args:
        answers: inputs (N,C,H,W) -> logits (N,K), or an output that holds them; it gets what the trained model would get.
        space: the maps from the loader's images to the model's input, on the device.
        device: to work on.
        classes: the number of classes of the trained model, which must be the teacher's, too.
        name: "self", the folder of the teacher's run, or the type of the user's teacher.
        own: the map to the teacher's input, where it is another than to the model's.
    """

    def __init__(
        self,
        answers: Callable[[Tensor], object],
        space: Pixels,
        device: torch.device,
        classes: int,
        name: str,
        own: Pixels | None = None,
    ) -> None:
        self.answers, self.space, self.device = answers, space, device
        self.classes, self.name, self.own = classes, name, space if own is None else own
        self.memory: dict[int, int] | None = {} if device.type == "cpu" else None
        self.hits, self.misses = 0, 0

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
            self.hits += 1
            return torch.tensor(known)
        labels = self._labels(images)
        if remember and len(self.memory) < REMEMBERED:
            self.memory.update(zip(keys, labels.tolist(), strict=True))
        elif self.misses == PATIENCE:  # random transforms make new images each time
            self.memory = None
        else:
            self.misses += 1
        return labels

    @property
    def remembers(self) -> bool:
        """True if most batches since the first look at the labels held images whose labels were in memory."""
        return self.memory is not None and self.hits > self.misses

    def _labels(self, images: Tensor) -> Tensor:
        inputs = self.own.inputs(self.pixels(images))
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
        return self.space.pixels(sent(images, self.device))

    def facts(self, images: Tensor) -> dict[str, str]:
        """Return what `run.json` keeps of the teacher: its name, and a hash of its weights or of a function's answers to images."""
        if isinstance(self.answers, nn.Module):
            return {"name": self.name, "fingerprint": fingerprint(self.answers)}
        return {"name": self.name, "fingerprint": digest([str(self(images).tolist()).encode()])}


def teacher_of(
    teacher: TeacherLike,
    model: nn.Module,
    space: Pixels,
    device: torch.device,
    classes: int,
    names: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
) -> Teacher:
    """Make a teacher from "self" (a copy of the model with its present weights), the folder of a run, a module or a function.

    Args:
        teacher: the user's teacher.
        model, space, device, classes: see `Teacher`; `model` is the one that is trained or measured.
        names: the names of the model's classes, which must be those of a teacher's run; None if they are not known.
        shape: (C,H,W) of the images, to compare with those of a teacher's run; None not to.

    Raises:
        ValueError: it is none of these, has other classes, shares weights with the model, or the model cannot be copied.
    """
    check_teacher(teacher, model)
    if teacher is model or says(teacher, SELF):
        return Teacher(_frozen_copy(model), space, device, classes, SELF)
    if isinstance(teacher, str | os.PathLike):
        run = hardened_run(teacher)
        check_same_names(None if run.about is None else run.about.classes, names, teacher)
        if shape is not None:
            _check_shape(run, shape)
        trained = loaded(teacher).to(device).requires_grad_(False)
        own = None if run.about is None else Pixels(*run.statistics).to(device)
        return Teacher(trained, space, device, classes, str(teacher), own)
    return Teacher(teacher, space, device, classes, getattr(teacher, "__name__", type(teacher).__name__))


def check_teacher(teacher: object, model: nn.Module) -> None:
    """Raise a ValueError for an object that cannot be a teacher, or that would change while the model trains."""
    place = isinstance(teacher, str | os.PathLike)
    if place and teacher != SELF and check_path("teacher", teacher).exists():
        hardened_run(teacher)  # type: ignore[arg-type]
        return
    if (place and teacher != SELF) or (not place and not callable(teacher)):
        shown = repr(teacher) if place else f"a {type(teacher).__name__}"
        raise ValueError(
            f"teacher is {shown}, but it must be 'self' (the model as it is now), the folder of a run, a module, a function from "
            "images to logits, or None"
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
    teacher: TeacherLike,
    model: nn.Module,
    space: Pixels,
    device: torch.device,
    classes: int,
    names: Sequence[str] | None = None,
    shape: Sequence[int] | None = None,
) -> Iterator[Teacher]:
    """Yield a teacher as `teacher_of` makes it.

    A module of the user's is put on the device and in eval mode inside the context, and restored after it.
    """
    with ExitStack() as stack:
        if isinstance(teacher, nn.Module) and teacher is not model:
            for each in (placed(teacher, device), restored(teacher, weights=False), evaluating(teacher)):
                stack.enter_context(each)
        yield teacher_of(teacher, model, copy.deepcopy(space).to(device), device, classes, names, shape)


def _check_shape(run: EarlierRun, shape: Sequence[int]) -> None:
    """Log if images (C,H,W) are of another size than those of a teacher's run.

    Raises:
        ValueError: they have another number of channels.
    """
    channels, *size = shape
    if run.channels not in (None, channels):
        raise ValueError(
            f"the teacher {str(run.folder)!r} takes images with {run.channels} channels, but these have {channels}: pass another "
            "teacher="
        )
    if run.size not in (None, tuple(size)):
        before, now = ("x".join(map(str, each)) for each in (run.size or (), size))
        logger.warning("the teacher %r was trained on images of %s, and gets %s", str(run.folder), before, now)


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
