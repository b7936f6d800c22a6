"""Names by which timm makes a model again."""

from functools import partial

import pytest
import timm
import timm.layers
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


def with_another_forward(scale=2.0):
    model = a_resnet()
    model.forward = lambda images: scale * type(model).forward(model, images)
    return model


def with_other_logits():
    model = a_resnet()
    model.register_forward_hook(lambda module, images, logits: logits * 1.00001)
    return model


def with_another_block():
    model = a_resnet()
    model.layer1[0].forward = partial(type(model.layer1[0]).forward, model.layer1[0])
    return model


def unwrapped():
    """A model as accelerate gives it back after mixed precision."""
    model = a_resnet()
    model.forward = model.forward
    return model


class Norm(timm.layers.BatchNormAct2d):
    """A layer of the user's own with the name of timm's."""


Norm.__name__ = "BatchNormAct2d"


def with_a_layer_of_the_same_name():
    model = timm.create_model("test_efficientnet", num_classes=4)
    model.bn1.__class__ = Norm
    return model


def compiled():
    model = a_resnet()
    model.compile(fullgraph=True, backend=lambda graph, inputs: pytest.fail("it is compiled"))
    return model


def in_another_format():
    return a_resnet().to(torch.float64, memory_format=torch.channels_last)


def with_weights_in_one_file():
    """A model whose weights begin at any byte of one block of memory, as those of a file that is mapped."""
    model = a_resnet()
    block, begin = torch.empty(1 + sum(each.numel() for each in model.parameters())), 1
    for parameter in model.parameters():
        place = block[begin : begin + parameter.numel()].view(parameter.shape)
        parameter.data, begin = place.copy_(parameter.data), begin + parameter.numel()
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
    "a forward that differs by rounding": (lambda: with_another_forward(1 + 1e-7), None),
    "logits that hardly differ": (with_other_logits, None),
    "its own forward on the instance": (unwrapped, ("timm:test_resnet", None)),
    "another forward of a block": (with_another_block, None),
    "a layer of the same name": (with_a_layer_of_the_same_name, None),
    "a compiled model": (compiled, ("timm:test_resnet", None)),
    "another type and memory format": (in_another_format, ("timm:test_resnet", None)),
    "weights in one block of memory": (with_weights_in_one_file, ("timm:test_resnet", None)),
    "another head": (with_another_head, None),
    "no model of timm": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)), None),
}


@pytest.mark.parametrize(("make", "expected"), CASES.values(), ids=CASES)
def test_a_name_is_given_where_timm_makes_the_same_model(make, expected):
    model, inputs = make(), torch.rand(3, 3, 32, 32)
    inputs = inputs.to(next(model.parameters()).dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    assert timm_name(model, inputs, 4) == expected
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", timm.list_models("test_*"))
def test_a_trained_model_of_each_family_keeps_its_name(name):
    model, inputs = timm.create_model(name, num_classes=4), torch.rand(2, 3, 160, 160)
    model(inputs).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype, memory_format=torch.channels_last)
        assert timm_name(model, inputs.to(dtype), 4) == (f"timm:{name}", None)


def test_a_model_that_accelerate_has_wrapped_is_named_once_it_is_unwrapped(caplog):
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(True)
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
    try:
        inputs, plain = torch.rand(2, 3, 32, 32), timm.create_model("test_resnet", num_classes=3)
        model = accelerator.prepare(plain)
        assert timm_name(model, inputs, 3) is None
        assert (
            "pass accelerator.unwrap_model(model, keep_fp32_wrapper=False), with precision= of this run" in caplog.text
        )
        caplog.clear()
        named = timm_name(accelerator.unwrap_model(model, keep_fp32_wrapper=False), inputs, 3)
        assert (named.model, caplog.text) == ("timm:test_resnet", "")
    finally:
        accelerate.state.AcceleratorState._reset_state(True)
