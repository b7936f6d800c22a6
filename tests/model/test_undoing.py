"""The first error is the one that the user sees."""

import logging

import pytest
import torch
from torch import nn

from robusttune.model import borrowing
from robusttune.model.undoing import undone


def broken():
    raise ValueError("no way back")


def test_clean_up_runs_once_in_any_case():
    calls = []
    with undone(lambda: calls.append(1)):
        pass
    with pytest.raises(KeyboardInterrupt), undone(lambda: calls.append(2)):
        raise KeyboardInterrupt
    assert calls == [1, 2]


def test_clean_up_that_fails_says_so():
    with pytest.raises(ValueError, match="no way back"), undone(broken):
        pass


def test_clean_up_does_not_hide_the_first_error(caplog):
    with (
        caplog.at_level(logging.ERROR, "robusttune"),
        pytest.raises(RuntimeError, match="stop") as caught,
        undone(broken),
    ):
        raise RuntimeError("stop")
    note = "what was changed could not be restored in full afterwards (ValueError: no way back)"
    assert caplog.messages == [note]
    assert getattr(caught.value, "__notes__", [note]) == [note]


class Stuck(nn.Linear):
    """A layer that cannot go back to train mode."""

    def train(self, mode=True):
        if mode and not self.training:
            raise ValueError("no way back")
        return super().train(mode)


def stopped_in_eval_mode(model):
    model.eval()
    raise RuntimeError("stop")


@pytest.mark.parametrize("context", ["evaluating", "modes_kept", "borrowed"])
def test_contexts_do_not_hide_the_first_error(context):
    model = Stuck(2, 2)
    settings = (torch.device("cpu"), 0) if context == "borrowed" else ()
    with pytest.raises(RuntimeError, match="stop"), getattr(borrowing, context)(model, *settings):
        stopped_in_eval_mode(model)


def test_clean_up_is_done_again_where_a_worker_s_death_was_reported_in_it(caplog):
    calls = []

    def interrupted():
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(ConnectionError), undone(interrupted):
        raise ConnectionError
    assert calls == [0, 1]
    assert not caplog.messages
