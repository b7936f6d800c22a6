"""What evaluations will cost: passes as they say them, times of a model whose pace is known, and nothing changed."""

import time

import pytest
import torch
from guarded import everything
from tables import unpadded
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.measuring.passes import Passes, passes_of


class Slow(nn.Module):
    """Takes 5 ms for each image of a pass."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, images):
        time.sleep(0.005 * len(images))
        return self.head(images.flatten(1))


def loader(**settings):
    images = torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(20) % 3), 4, **settings)


def one_pass(subject):
    return []


def test_time_is_that_of_the_passes():
    model = Slow()
    before = everything(model)
    generator = torch.Generator().manual_seed(3)
    shuffled = loader(shuffle=True, generator=generator)
    state = generator.get_state()
    found = robusttune.estimate(model, shuffled, which=["clean", "noise", "quick", one_pass], devices={"spot": 3600.0})
    assert everything(model) == before
    assert torch.equal(generator.get_state(), state)
    clean, noise, quick, own = found.evaluations
    assert (clean.forward, noise.forward) == (20, 20 * 40)
    assert 0.1 <= clean.seconds < 10 * 0.1  # others may use the machine, too
    assert noise.seconds >= 0.005 * 800
    assert quick.at_most
    assert not clean.at_most
    assert (own.name, own.seconds) == ("one_pass", None)
    assert found.seconds == pytest.approx(found.cost["spot"])
    assert found.seconds == pytest.approx(clean.seconds + noise.seconds + quick.seconds)
    rows = unpadded(str(found)).splitlines()
    assert rows[0] == "| evaluation | time | images | images forward | images backward |"
    assert "| one_pass | not known |" in rows[5]
    assert rows[6].startswith("| in all | at most ")
    assert rows[6].split("|")[2].strip().endswith(" on cpu (without one_pass)")
    assert repr(found).startswith("<EvaluationEstimate: at most ")


def test_a_subset_and_a_single_name_are_taken():
    found = robusttune.estimate(Slow(), loader(), which="clean", subset=5)
    assert [(each.name, each.images) for each in found.evaluations] == [("clean", 5)]
    assert not found.at_most


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"which": "clean", "epochs": 3},
            r"which= asks for the cost of evaluations, which take no epochs: leave it out",
        ),
        ({"which": "cleen"}, r"unknown evaluation 'cleen' \(did you mean 'clean'\?\)"),
        ({"which": "clean", "devices": {"spot": -1}}, r"the price of 'spot' is -1"),
        ({"subset": 5}, r"subset is 5, but it is of evaluations: name them in which="),
    ],
)
def test_what_does_not_fit_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        robusttune.estimate(Slow(), loader(), **settings)


def test_a_loader_without_a_length_is_refused():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from loader().dataset

    with pytest.raises(ValueError, match=r"does not say how many batches it has.*: pass subset="):
        robusttune.estimate(Slow(), DataLoader(Endless(), 4), which="clean")
    assert robusttune.estimate(Slow(), DataLoader(Endless(), 4), which="clean", subset=9).evaluations[0].images == 9


def test_passes_add_up():
    assert Passes(1).plus(Passes(3, 2, exact=False), 2) == Passes(7, 4, exact=False)
    assert passes_of(one_pass, None) is None
