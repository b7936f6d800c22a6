"""The average of a model's weights during training."""

import torch
from odd_models import versioned, with_buffer
from short_runs import same, weights_of
from torch import nn

from robusttune.training.ema import Average


def test_an_average_follows_and_gives_back():
    model = nn.Linear(3, 2)
    start = weights_of(model)
    average = Average(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    average.update()  # early: (1 + 1) / (10 + 1) of the old
    expected = start["weight"] + (1 - 2 / 11)
    moved = weights_of(model)
    with average.applied():
        assert torch.allclose(model.weight, expected)
    assert same(weights_of(model), moved)
    assert torch.allclose(average.weights()["weight"], expected)


def test_an_average_of_tied_weights_holds_one_of_them():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    average = Average(model, 0.9)
    with torch.no_grad():
        model[0].weight += 1
    average.update()
    kept = average.weights()
    assert torch.equal(kept["0.weight"], kept["1.weight"])
    model.load_state_dict(kept)
    assert torch.equal(model[0].weight, kept["0.weight"])


def test_tensors_without_a_mean_are_copied():
    for kind in (torch.eye(3).to_sparse(), torch.ones(3).to(torch.float8_e4m3fn)):
        model = with_buffer(kind)
        average = Average(model, 0.5)
        average.update()
        kept = average.weights()["table"]
        assert kept.layout == kind.layout
        assert torch.equal(kept.to_dense().float(), kind.to_dense().float())


def test_complex_numbers_have_a_mean():
    model = with_buffer(torch.zeros(2, dtype=torch.complex64))
    average = Average(model, 0.5)
    model.table += 1
    average.update()
    assert torch.allclose(average.weights()["table"], torch.full((2,), 9 / 11, dtype=torch.complex64))


def test_extra_state_stays_in_the_average():
    model = versioned()
    kept = Average(model, 0.5).weights()
    assert kept["1._extra_state"] == {"version": 2}
    model.load_state_dict(kept)
