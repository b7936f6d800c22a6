"""Checkpoints of other programs: the weights in them are found, or the message says what the file holds."""

import argparse
from collections import OrderedDict

import pytest
import torch
from torch import nn

from robusttune.model.new_classifier import give_weights_and_classifier
from robusttune.run import files
from robusttune.run.checkpoints import without_wrapper


def weights_of(model, wrapper=""):
    return OrderedDict((wrapper + name, tensor + 1) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.backbone."])
def test_weights_by_the_names_of_a_wrapper_are_given_and_reported(wrapper, caplog):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    expected = weights_of(model)
    files.give_weights(model, weights_of(model, wrapper), "a file")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert caplog.messages == [f"the names in a file begin with {wrapper!r}, which is left out"]


def test_a_classifier_of_another_width_is_known_behind_a_wrapper():
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(4, classes)) for classes in (3, 5))
    give_weights_and_classifier(model, weights_of(other, "module."), "a file", torch.rand(2, 1, 2, 2))
    assert torch.equal(model[1].weight, other[1].weight + 1)


def test_weights_of_another_model_are_refused_with_names_of_both():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"such as weight, bias, conv\.bias \(its own names are such as conv\.bias\)"):
        files.give_weights(model, {"conv.bias": torch.ones(3)}, "a file")
    half = {"module.weight": model.weight, "bias": model.bias}
    assert without_wrapper(half, model.state_dict(), "a file") is half


def test_a_checkpoint_of_a_training_script_is_read_and_its_averaged_weights_are_mentioned(tmp_path, caplog):
    model, path = nn.Linear(2, 3), tmp_path / "checkpoint.pth.tar"
    averaged = weights_of(model)
    options = argparse.Namespace(model="resnet18", opt="sgd", lr=0.1)
    torch.save({"arch": "x", "state_dict": model.state_dict(), "state_dict_ema": averaged, "args": options}, path)
    assert torch.equal(files.load_weights(path)["bias"], model.bias)
    said = "holds two sets of weights: 'state_dict' is read, and 'state_dict_ema' (averaged ones) is not"
    assert len(caplog.messages) == 1
    assert said in caplog.text


def test_a_pickled_model_is_refused_as_code_and_not_as_damaged(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "model.pt")
    with pytest.raises(
        ValueError, match=r"a pickled torch\.nn\.modules\.linear\.Linear, which is code, and is not run"
    ):
        files.load_weights(tmp_path / "model.pt")
    torch.save(object(), tmp_path / "object.pt")
    with pytest.raises(ValueError, match="which is code, and is not run here: if you trust the file, load it in"):
        files.load_weights(tmp_path / "object.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_torchscript_model_is_refused_as_code(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 3), torch.ones(1, 2)), tmp_path / "script.pt")
    with pytest.raises(ValueError, match="holds a TorchScript model, which is code, and is not run here"):
        files.load_weights(tmp_path / "script.pt")


@pytest.mark.parametrize("content", [b"", b"hello" * 9])
def test_a_damaged_file_is_called_damaged(tmp_path, content):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as weights: it may be damaged"):
        files.load_weights(tmp_path / "weights.pt")


def test_shapes_that_differ_are_shown():
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"such as weight \(\(3, 2\) in the model, \(3, 4\) in the file\)"):
        files.give_weights(model, nn.Linear(4, 3).state_dict(), "a file")
