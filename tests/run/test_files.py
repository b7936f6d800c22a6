"""Files of weights and checkpoints: written in one step, and refused where they do not fit."""

import pytest
import torch
from odd_models import versioned, with_buffer
from torch import nn

from robusttune.run import files


def test_a_checkpoint_is_read_back(tmp_path):
    assert files.load_state(tmp_path) is None
    files.save_state(tmp_path, {"epoch": 3, "weights": torch.arange(4)})
    state = files.load_state(tmp_path)
    assert state["epoch"] == 3
    assert torch.equal(state["weights"], torch.arange(4))


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    files.save_state(tmp_path, {})
    monkeypatch.setattr(files, "FORMAT", 2)
    with pytest.raises(
        ValueError, match=r"state\.pt' has format 1, but this version reads format 2: it may be damaged"
    ):
        files.load_state(tmp_path)


def test_tensors_that_share_memory_are_each_written(tmp_path):
    weight = torch.arange(6.0)
    files.save_weights(tmp_path / "weights.safetensors", {"one": weight, "tied": weight[:3]})
    loaded = files.load_weights(tmp_path / "weights.safetensors")
    assert torch.equal(loaded["one"], weight)
    assert torch.equal(loaded["tied"], weight[:3])


@pytest.mark.parametrize("content", [{}, {"weight": 1}, [torch.ones(2)]])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="does not hold a state_dict"):
        files.load_weights(tmp_path / "weights.pt")


def test_weights_must_fit_in_names_and_shapes_and_else_change_nothing():
    model = nn.Linear(2, 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for wrong in ({"weight": torch.ones(3, 2)}, {**before, "more": torch.ones(1)}, {**before, "bias": torch.ones(2)}):
        with pytest.raises(ValueError, match="a file does not fit the model: 1 names or shapes differ, such as"):
            files.give_weights(model, wrong, "a file")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    files.give_weights(model, {name: tensor + 1 for name, tensor in before.items()}, "a file")
    assert torch.equal(model.bias, before["bias"] + 1)


def test_weights_of_heads_are_those_of_a_module_or_a_folder(tmp_path):
    heads = nn.Linear(2, 4)
    assert files.heads_of(None) is None
    assert torch.equal(files.heads_of(heads)["weight"], heads.weight)
    files.save_weights(tmp_path / files.HEADS, heads.state_dict())
    for source in (tmp_path, str(tmp_path), tmp_path / files.HEADS):
        assert torch.equal(files.heads_of(source)["weight"], heads.weight)


def test_a_safetensors_file_does_without_what_it_cannot_hold(tmp_path, caplog):
    path = tmp_path / "weights.safetensors"
    for model, name in ((versioned(), "1._extra_state"), (with_buffer(torch.eye(3).to_sparse()), "table")):
        files.save_weights(path, model.state_dict())
        weights = files.load_weights(path)
        assert name not in weights
        files.give_weights(model, weights, "the file")
        said = f"the file does not hold {name}, which is no dense tensor: it stays as the model has it"
        assert said in caplog.messages
        with pytest.raises(
            ValueError, match=r"the file does not fit the model: 1 names or shapes differ, such as 1\.bias"
        ):
            files.give_weights(model, {each: weights[each] for each in weights if each != "1.bias"}, "the file")


def test_a_torch_file_brings_its_extra_state(tmp_path):
    torch.save(versioned({"version": 7}).state_dict(), tmp_path / "weights.pt")
    model = versioned()
    files.give_weights(model, files.load_weights(tmp_path / "weights.pt"), "the file")
    assert model[1].extra == {"version": 7}
