"""A model leaves as it came: saved, exported and traced, it answers the same before and after hardening."""

import io
import warnings

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load, save
from torch import nn

import robusttune

SIDE = 32


def resnet():
    return timm.create_model("test_resnet", num_classes=4)


def vit():
    return timm.create_model("test_vit", num_classes=4, img_size=SIDE)


def convnext():
    return timm.create_model("test_convnext", num_classes=4)


def squeezenet():
    return torchvision.models.squeezenet1_1(num_classes=4)


MAKERS = [resnet, vit, convnext, squeezenet]


def images(count, seed=0):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def made(maker):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return maker().eval()


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def before_and_after(request):
    """The maker of a model, such a model, and another that has been hardened."""
    model = made(request.param)
    batch = images(8, seed=1), torch.arange(8) % 4
    settings = {"tasks": {"rotation": 0.5}, "epochs": 1, "steps": 1, "lr": 0.01, "progress": False}
    hardened = robusttune.harden(made(request.param), [batch], norm="l2", **settings)
    assert not torch.equal(answers(hardened), answers(model))
    return request.param, model, hardened


def answers(model, count=3):
    with torch.no_grad():
        return model(images(count))


def both(before_and_after):
    return before_and_after[1:]


def test_state_dict_and_safetensors_load_strictly_into_a_fresh_model(before_and_after):
    maker, *models = before_and_after
    for model in models:
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        for weights in (torch.load(file, weights_only=True), load(save(model.state_dict()))):
            fresh = maker().eval()
            assert fresh.load_state_dict(weights, strict=True)
            assert torch.equal(answers(fresh), answers(model))


@pytest.mark.sample(1)
def test_torch_export_gives_a_program_of_the_same_answers_for_batches_of_any_size(before_and_after):
    graphs = []
    for model in both(before_and_after):
        sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
        program = torch.export.export(model, (images(2),), dynamic_shapes=sizes)
        graphs.append([node.name for node in program.graph.nodes])
        for count in (1, 3):
            assert torch.allclose(answers(program.module(), count), answers(model, count), atol=1e-5)
    assert graphs[0] == graphs[1]


# The exporter that torch 2.6 has over torch.export knows no batch norm together with current versions of onnxscript.
EXPORTER = {"dynamo": tuple(map(int, torch.__version__.split(".")[:2])) > (2, 6)}


@pytest.mark.sample(1)
def test_onnx_runtime_gives_the_same_answers(before_and_after, tmp_path):
    runtime, checker = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx").checker
    pytest.importorskip("onnxscript")
    for model in both(before_and_after):
        path = tmp_path / "model.onnx"
        with warnings.catch_warnings():  # the exporter's own, of what torch deprecates
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (images(2),), path, **EXPORTER, verbose=False)
        checker.check_model(path, full_check=True)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: images(2).numpy()})
        assert torch.allclose(torch.from_numpy(found), answers(model, 2), atol=1e-4)


@pytest.mark.sample(2)
@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", ["script", "trace"])
def test_torchscript_gives_the_same_answers(before_and_after, way):
    for model in both(before_and_after):
        compiled = torch.jit.script(model) if way == "script" else torch.jit.trace(model, images(3))
        file = io.BytesIO()
        torch.jit.save(compiled, file)
        file.seek(0)
        assert torch.allclose(answers(torch.jit.load(file)), answers(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_model_that_torchscript_does_not_take_is_no_other_after_hardening():
    class Untyped(nn.Sequential):
        def forward(self, given):
            return super().forward(given) if isinstance(given, object) else None

    model = Untyped(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    told = []
    for _ in range(2):
        with pytest.raises(Exception, match=r"(?s).+") as error:
            torch.jit.script(model)
        told.append(type(error.value))
        robusttune.harden(model, [(images(4), torch.arange(4))], tasks=None, epochs=1, steps=1, progress=False)
    assert told[0] is told[1]
