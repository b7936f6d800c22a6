"""The teacher of a RobustLoss, which labels the images that a call gets without labels."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robusttune.data.batches import check_images, checked_labels
from robusttune.data.pixels import settle
from robusttune.data.unlabeled import joined
from robusttune.model.devices import device_of
from robusttune.model.teacher import SELF, Teacher, TeacherLike, check_teacher, teacher_of
from robusttune.run.provenance import digest, fingerprint

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss

KEY = "teacher_fingerprint"  # in the state_dict of a RobustLoss, as a tensor, since some formats hold nothing else


class Labeller:
    """The labels that a RobustLoss gives to images without labels.

    It is no module, so that neither the optimiser nor a state_dict of the RobustLoss finds the teacher. Of one that has labelled
    images the state_dict holds a fingerprint, and another teacher is refused where that state is loaded.

    Args:
        teacher: the user's teacher; None to label nothing.
        robust_loss: around the model to be trained.

    Raises:
        ValueError: the teacher is none, or shares weights with the model.
    """

    def __init__(self, teacher: TeacherLike | None, robust_loss: "RobustLoss") -> None:
        self.choice = teacher
        self.teacher: Teacher | None = None
        self._fingerprint: str | None = None
        if teacher is not None:
            check_teacher(teacher, robust_loss.model)
        # After the weights: averages of weights go through two state_dicts in step, of which one may have no teacher yet.
        robust_loss.register_state_dict_post_hook(_add_fingerprint)  # type: ignore[no-untyped-call]
        robust_loss.register_load_state_dict_pre_hook(_check_fingerprint)  # type: ignore[no-untyped-call]

    def joined(
        self, robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None, unlabeled: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Join the images without labels, once labelled, to those with labels; without a teacher, all stay as they are."""
        if self.choice is None or unlabeled is None or labels is None:
            return images, labels, unlabeled
        settle(robust_loss.pixels, images)
        if self.teacher is None:
            self.teacher = self._made(robust_loss, self.choice)
        check_images(unlabeled)
        return *joined([(images, checked_labels(labels, len(images))), (unlabeled, self.teacher(unlabeled))]), None

    @property
    def fingerprint(self) -> str | None:
        """The hash of the teacher's weights, or of the name of a function; None before it has labelled any images."""
        if self._fingerprint is None and self.teacher is not None:
            self._fingerprint = _fingerprint_of(self.teacher)
        return self._fingerprint

    def expect(self, robust_loss: "RobustLoss", before: str | None) -> None:
        """Fix the teacher before a state is loaded, as "self" copies the model before it gets the weights of that state.

        Args:
            before: the fingerprint in the state; None if no image had been labelled, or in states of earlier versions.

        Raises:
            ValueError: the teacher is another one.
        """
        if self.choice is None or before is None:
            return
        teacher = self._made(robust_loss, self.choice) if self.teacher is None else self.teacher
        now = _fingerprint_of(teacher)
        if now != before:
            whose = "the model as it is now" if self.teacher is None and teacher.name == SELF else "the teacher"
            raise ValueError(
                f"this state is of a RobustLoss whose teacher has the fingerprint {before}, but {whose} has {now}, so that images "
                "without labels would get other labels from here on: make RobustLoss of the model as it came in, and load this "
                "state before the model gets its trained weights, or pass the model as it came in as teacher="
            )
        self.teacher = teacher

    def _made(self, robust_loss: "RobustLoss", choice: TeacherLike) -> Teacher:
        model, space, classes = robust_loss.model, robust_loss.pixels, robust_loss.classifier.classes
        return teacher_of(choice, model, space, device_of(model), classes)


def _fingerprint_of(teacher: Teacher) -> str:
    answers = teacher.answers
    return fingerprint(answers) if isinstance(answers, nn.Module) else digest([teacher.name.encode()])


def _add_fingerprint(robust_loss: "RobustLoss", state: dict[str, Tensor], prefix: str, _: object) -> None:
    known = robust_loss.labeller.fingerprint
    if known is not None:
        state[prefix + KEY] = torch.tensor(list(bytes.fromhex(known)), dtype=torch.uint8)


def _check_fingerprint(robust_loss: "RobustLoss", state: dict[str, Tensor], prefix: str, *_: object) -> None:
    before = state.pop(prefix + KEY, None)
    robust_loss.labeller.expect(robust_loss, None if before is None else bytes(before.tolist()).hex())
