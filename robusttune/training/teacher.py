"""The teacher of a RobustLoss, which labels the images that a call gets without labels."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from robusttune.data.batches import check_images, checked_labels
from robusttune.data.pixels import settle
from robusttune.data.unlabeled import joined
from robusttune.model.devices import device_of
from robusttune.model.teacher import Teacher, TeacherLike, check_teacher, teacher_of

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss


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
        settle(robust_loss.pixels, images)
        if self.teacher is None:
            model, space, classes = robust_loss.model, robust_loss.pixels, robust_loss.classifier.classes
            self.teacher = teacher_of(self.choice, model, space, device_of(model), classes)
        check_images(unlabeled)
        return *joined([(images, checked_labels(labels, len(images))), (unlabeled, self.teacher(unlabeled))]), None
