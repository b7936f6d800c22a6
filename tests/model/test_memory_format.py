"""The memory format that a model works in, and the one that it comes back in."""

import pytest
import torch
from short_runs import a_loader, a_model, hardened
from torch import nn

import robusttune

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def test_channels_last_is_for_the_run_alone():
    model = a_model()
    before = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    inside = []
    hardened(model, channels_last=True, on_epoch=lambda _: inside.append(model[3].weight.stride()))
    assert inside[0] != before["3.weight"]
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == before


class Flattened(nn.Module):
    """Layers whose output is flattened by `view`, which has one memory format alone."""

    def __init__(self):
        super().__init__()
        shapes = [(1, 4), (4, 4), (4, 4), (4, 4)]
        self.body = nn.Sequential(*(nn.Conv2d(*shape, 3, padding=1) for shape in shapes))
        self.fc = nn.Linear(4 * 8 * 8, 10)

    def forward(self, images):
        return self.fc(self.body(images).view(len(images), -1))


def test_a_model_that_no_other_format_fits_is_left_in_its_own():
    model = Flattened()
    inside = []
    hardened(model, on_epoch=lambda _: inside.append(model.body[1].weight.is_contiguous()))
    assert inside == [True]
    robusttune.evaluate(model, a_loader(), "clean", progress=False)
    robusttune.pretrain(model, [images for images, _ in a_loader()], epochs=1, progress=False)
    with pytest.raises(ValueError, match="view size is not compatible"):
        hardened(model, channels_last=True)


@pytest.mark.slow
def test_an_evaluation_works_in_channels_last_and_leaves_the_weights_where_they_were():
    model = nn.Sequential(Flattened().body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    weight, inside = model[0][1].weight, []
    before = weight.data_ptr(), weight.detach().clone()
    model.register_forward_hook(lambda *_: inside.append(weight.is_contiguous()))
    robusttune.evaluate(model, a_loader(), "clean", progress=False)
    assert not any(inside)
    assert weight.data_ptr() == before[0]
    assert weight.is_contiguous()
    assert torch.equal(weight, before[1])
    model.compile(backend="eager")  # which would be compiled anew for another format
    inside.clear()
    robusttune.evaluate(model, a_loader(), "clean", progress=False)
    assert all(inside)
