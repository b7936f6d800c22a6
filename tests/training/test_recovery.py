"""Runs that diverge: back to the best weights with a lower learning rate, said once; and the error where that does not help."""

import copy
import json
import math
import re
from functools import partial

import pytest
import torch
from short_runs import a_loader, a_model, hardened, same, weights_of

import robusttune
from robusttune.run.files import load_weights
from robusttune.training import checkpoints
from robusttune.training.divergence import fell

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

FORMER = 20.0  # ends in NaN without a recovery, with this net


def run(loader=None, model=None, **settings):
    """A run of SGD with these settings, without pretext tasks."""
    chosen = {"tasks": None, "optimizer": "sgd", "lr": FORMER, "epochs": 4, "eps_ramp": False, "steps": 1, **settings}
    return hardened(model, loader or a_loader(1000), **chosen)


def accuracy(model):
    loader = a_loader(1000, 200)
    with torch.no_grad():
        right = [(model.eval()(images).argmax(1) == labels).float().mean() for images, labels in loader]
    return float(sum(right) / len(right))


def said(caplog):
    return [record.message for record in caplog.records if "so the run goes back to" in record.message]


@pytest.mark.parametrize("held", [True, False], ids=["held out", "none held out"])
def test_a_learning_rate_far_too_high_is_lowered_and_the_run_ends_well(caplog, tmp_path, held):
    torch.manual_seed(0)
    loader = a_loader(1000) if held else list(a_loader(1000, 100))
    seen = []
    model = run(loader, epochs=8, out=tmp_path / "run", on_epoch=seen.append)
    assert accuracy(model) > 0.3
    lines = said(caplog)
    assert 1 <= len(lines) <= 3
    assert re.fullmatch(
        r"step \d+: the loss was not finite in batch \d+ of the epoch, so the run goes back to the weights that it started "
        r"from, and on with a learning rate of at most 5 in place of 20", lines[0]
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    events = [(line["diverged at step"], line["peak lr"]) for line in log if "diverged at step" in line]
    assert events[-1] == (int(lines[-1].split()[1].strip(":")), FORMER / 4 ** len(lines))
    assert [line["epoch"] for line in log] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [facts["loss"] for facts in seen] == [line["loss"] for line in log]
    assert all(map(math.isfinite, (line["loss"] for line in log)))


def test_a_run_that_diverges_at_every_rate_ends_in_an_error_that_says_so(caplog):
    model = a_model()
    before = weights_of(model)
    with pytest.raises(
        FloatingPointError, match=r"lower lr=.*went back 3 times, .*at last with lr=1.56.*e\+28.*old weights"
    ):
        run(lr=1e30, model=model, epochs=8)
    assert len(said(caplog)) == 3
    assert same(weights_of(model), before)


def test_the_rate_of_a_scheduler_of_the_user_is_not_lowered():
    with pytest.raises(FloatingPointError, match=r"scheduler= sets the learning rate, so that it is not lowered"):
        run(lr=1e30, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1))


def test_a_run_that_diverges_at_its_very_end_does_not_return_the_model_it_started_from(caplog):
    model = a_model()
    with pytest.raises(FloatingPointError, match=r"no step is left for a lower rate"):
        run(lr=1e30, model=model, max_steps=8)


class Killed(Exception):
    """A stop at any moment."""


def test_a_kill_after_the_fall_back_resumes_exactly(tmp_path, monkeypatch):
    settings = {"checkpoint_every": 4, "ema": 0.9}
    torch.manual_seed(0)
    loader = a_loader(1000)
    loader.generator = torch.Generator().manual_seed(0)
    states = loader.generator.get_state()
    whole = run(loader, out=tmp_path / "whole", **settings)
    for kill in (9, 14, 45):  # before the loss is read, after, and in the next epoch
        folder = tmp_path / f"killed at {kill}"
        saving = checkpoints.Checkpoints.save_if_due

        def stop(self, training, kill=kill, saving=saving):
            saving(self, training)
            if training.progress.taken == kill:
                raise Killed

        loader.generator.set_state(states)
        monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", stop)
        with pytest.raises(Killed):
            run(loader, out=folder, **settings)
        monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", saving)
        loader.generator.set_state(states)
        model = run(loader, out=folder, resume=True, **settings)
        assert same(weights_of(model), weights_of(whole))
        assert same(load_weights(folder / "last.safetensors"), load_weights(tmp_path / "whole" / "last.safetensors"))
        logs = [
            [
                {key: value for key, value in json.loads(line).items() if key != "seconds"}
                for line in (place / "log.jsonl").read_text().splitlines()
            ]
            for place in (folder, tmp_path / "whole")
        ]
        assert logs[0] == logs[1]
    assert any("diverged at step" in line for line in logs[0])


def test_replay_repeats_the_fall_back(tmp_path):
    model, loader = a_model(), list(a_loader(1000))
    run(loader, copy.deepcopy(model), out=tmp_path / "run", epochs=2)
    assert "diverged at step" in (tmp_path / "run" / "log.jsonl").read_text()
    again = robusttune.replay(tmp_path / "run", model, loader)
    assert again.same
    assert again.close


def test_a_fall_is_far_below_the_best_and_more_than_chance():
    assert fell(0.2, 0.02, 500)
    assert not fell(0.2, 0.02, 40)  # five images
    assert not fell(0.6, 0.2, 5000)
    assert fell(0.6, 0.12, 500, guessing=0.1)
    assert not fell(0.6, 0.2, 5000, guessing=0.1)
    assert not fell(0.09, 0.0, 100_000)
