"""A budget becomes epochs by the seconds that were measured; memory that is short becomes smaller parts of a batch."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from robusttune.training.advice.advise import _chosen, _fit
from robusttune.training.advice.chosen import Wishes
from robusttune.training.advice.expectations import Timing, expectations
from robusttune.training.advice.situation import situation_of


def advised(budget, *, epoch=10.0, fixed=20.0, images=10_000, largest=None):
    """The choices, and what to expect, where an epoch takes so many seconds."""
    data = TensorDataset(torch.zeros(1, 1, 32, 32).expand(images, -1, -1, -1), torch.arange(images) % 10)
    situation = situation_of(None, DataLoader(data, 128))
    wishes = Wishes("linf", None, None, budget)
    chosen, timing = _chosen(situation, wishes, beside=False), Timing(fixed, epoch, 2**20, "all", largest, "cpu")
    _fit(chosen, situation, wishes, timing)
    return chosen, {each.name: each.value for each in expectations(chosen, situation, timing)}


@pytest.mark.parametrize(
    ("budget", "epochs", "limit", "seconds"),
    [
        (None, 10, None, "2 min 0 s"),  # 20 s and ten epochs
        (75, 5, 55, "1 min 10 s"),
        (120, 10, 100, "2 min 0 s"),
        (3600, 16, 3580, "3 min 0 s"),  # as many steps as were measured: 5,228 of 313 an epoch
        (25, 1, 5, "25 s"),  # half an epoch
        (10, 1, 1, "21 s"),
    ],
)
def test_a_budget_becomes_epochs(budget, epochs, limit, seconds):
    chosen, expected = advised(budget)
    assert chosen.settings["epochs"] == epochs
    assert chosen.settings.get("time_budget") == limit
    assert expected["time"].startswith(f"about {seconds} on cpu, an epoch 10 s")
    assert [each.value for each in chosen.choices if each.name == "epochs"] == [str(epochs)]
    todo = " ".join(chosen.todo)
    assert ("shorter than a run of one epoch (30 s)" in todo) == (budget in (25, 10))
    assert ("the budget has time for 358 epochs, but more than 16 are not advised" in todo) == (budget == 3600)


@pytest.mark.parametrize(("fixed", "said"), [(20.0, False), (70.0, True)])
def test_a_budget_that_goes_into_other_stages_is_said(fixed, said):
    todo = " ".join(advised(100, fixed=fixed)[0].todo)
    assert ("everything but hardening takes 1 min 10 s of the budget of 1 min 40 s" in todo) == said


@pytest.mark.parametrize(("largest", "micro"), [(None, None), (500, None), (128, None), (100, 64), (1, 1), (0, None)])
def test_a_batch_that_does_not_fit_into_memory_is_taken_in_parts(largest, micro):
    assert advised(None, largest=largest)[0].settings.get("micro_batch") == micro


def test_the_accuracy_is_that_of_the_nearest_case():
    _, expected = advised(None)
    assert expected["accuracy, nearest case"].startswith("unchanged 86.8%, at eps 82.3%, at 1.5 eps 78.2% (APGD)")
    assert expected["accuracy by eps, linf"].startswith("4/255: 88.4% clean, 85.0% at the radius")
    assert "3.9 epochs: 70.7% ± 0.4" in expected["accuracy by length"]
    assert expected["memory"] == "at most 1 MiB"
