"""Names by which timm makes a model again."""

import pytest
import timm
import torch
from torch import nn

from robusttune.model.timm_name import timm_name


def a_model(**arguments):
    return timm.create_model("test_vit", num_classes=4, **{"img_size": 32, **arguments}).train()


def a_resnet(**arguments):
    return timm.create_model("test_resnet", num_classes=4, **arguments)


def with_another_activation():
    model = a_resnet()
    model.act1 = nn.SiLU()
    return model


def with_another_forward():
    model = a_resnet()
    model.forward = lambda images: 2 * type(model).forward(model, images)
    return model


def with_another_head():
    model = a_resnet()
    model.fc = nn.Sequential(nn.Dropout(), model.fc)
    return model


CASES = {
    "a ResNet": (a_resnet, ("timm:test_resnet", None)),
    "a ViT of another size": (a_model, ("timm:test_vit", {"img_size": [32, 32]})),
    "other arguments": (lambda: a_model(patch_size=8), None),
    "arguments that only the logits show": (
        lambda: a_model(img_size=160, dynamic_img_size=True, global_pool="avg"),
        None,
    ),
    "another activation": (with_another_activation, None),
    "another forward": (with_another_forward, None),
    "another head": (with_another_head, None),
    "no model of timm": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), None),
}


@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_a_name_is_given_where_timm_makes_the_same_model(make, expected):
    model, inputs = make(), torch.rand(3, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    assert timm_name(model, inputs, 4) == expected
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
