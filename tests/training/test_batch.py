"""What RobustLoss checks of a batch, and what it makes of its images in eval mode."""

import pytest
import torch
from third_parties import Tiny, a_batch, a_loss

from robusttune.training.batch import check_batch


class Elsewhere(torch.Tensor):
    """A tensor that says it is on an accelerator, to see what is read of it on a machine without one."""

    device = property(lambda self: torch.device("cuda"))
    reads = 0

    def min(self, *arguments):
        Elsewhere.reads += 1
        return super().min(*arguments)


@pytest.mark.parametrize("attack_tasks", ["none", "separate", "joint"])
def test_in_eval_mode_the_answers_are_those_to_the_images_themselves(attack_tasks):
    """A task that turns parts of the images would make every accuracy on validation images one of turned images."""
    images, labels = a_batch()
    settings = {"tasks": {"patch_rotation": 0.5, "rotation": 0.5}, "attack_tasks": attack_tasks, "images": images}
    model = Tiny().double().eval()
    robust_loss = a_loss(model=model, eps=0.0, **settings).eval()
    out = robust_loss(images, labels)
    assert torch.allclose(out["output"], model(images), atol=1e-9)
    assert {"patch_rotation", "rotation"} <= out.keys()
    in_training = a_loss(model=Tiny().double(), eps=0.0, **settings)(images, labels)["output"]
    assert not torch.allclose(in_training, Tiny().double()(images), atol=1e-3)


def test_the_first_batch_on_an_accelerator_is_checked_and_later_ones_are_not_waited_for():
    """Normalised images without mean and std would be clamped to [0, 1], and the model would learn from what is left."""
    images, _ = a_batch()
    labels = torch.arange(4)
    robust_loss = a_loss(images=None)
    with pytest.raises(ValueError, match=r"images span .* but eps is in pixel units"):
        check_batch(robust_loss, ((images - 0.3) / 0.2).as_subclass(Elsewhere), labels)
    Elsewhere.reads = 0
    check_batch(robust_loss, images.as_subclass(Elsewhere), labels)
    assert Elsewhere.reads == 1
    check_batch(robust_loss, images.as_subclass(Elsewhere), labels)
    assert Elsewhere.reads == 1
