"""The teacher of a RobustLoss, which labels the images that a call gets without labels."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from robusttune import plugins
from robusttune.data.batches import check_images, checked_labels
from robusttune.data.unlabeled import joined
from robusttune.model.devices import device_of
from robusttune.model.teacher import Teacher, TeacherLike, check_teacher, teacher_of
from robusttune.objectives import Objective, ObjectiveLike

if TYPE_CHECKING:
    from robusttune.training.robust_loss import RobustLoss


def needs_teacher(objective: ObjectiveLike | None) -> bool:
    """Return True for an objective whose `clean_logits` are a teacher's."""
    return objective is not None and bool(getattr(plugins.instance("objectives", objective), "needs_teacher", False))


class Labeller:
    """The labels that a RobustLoss gives to images without labels, and the logits that its objective may need.

    It is no module, so that neither the optimiser nor a state_dict of the RobustLoss finds the teacher.

    Args:
        teacher: of the user; None to label nothing.
        model: to be trained.
        objective: of the loss.

    Raises:
        ValueError: the teacher is none, or shares weights with the model, or the objective needs one.
    """

    def __init__(self, teacher: TeacherLike | None, model: nn.Module, objective: Objective | None) -> None:
        self.choice, self.needed = teacher, needs_teacher(objective)
        self.teacher = teacher if isinstance(teacher, Teacher) else None
        if teacher is None and self.needed:
            raise ValueError(
                f"the objective {type(objective).__name__} needs a teacher's answers: pass teacher='self' (the model as it is now), "
                "or another teacher"
            )
        if teacher is not None and self.teacher is None:
            check_teacher(teacher, model)

    def joined(
        self, robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None, unlabeled: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Join the images without labels, once labelled, to those with labels; without a teacher, all stay as they are."""
        if self.choice is None or unlabeled is None or labels is None:
            return images, labels, unlabeled
        check_images(unlabeled)
        more = self._teacher(robust_loss, self.choice)(unlabeled)
        return *joined([(images, checked_labels(labels, len(images))), (unlabeled, more)]), None

    def answers(self, robust_loss: "RobustLoss", images: Tensor, labels: Tensor | None) -> Tensor | None:
        """Return the teacher's logits (N,K) for images as the loader yields them; None where the objective needs none."""
        if labels is None or self.choice is None or not self.needed:
            return None
        return self._teacher(robust_loss, self.choice).logits(images)

    def _teacher(self, robust_loss: "RobustLoss", choice: TeacherLike) -> Teacher:
        if self.teacher is None:
            model, space, classes = robust_loss.model, robust_loss.pixels, robust_loss.classifier.classes
            self.teacher = teacher_of(choice, model, space, device_of(model), classes)
        return self.teacher
