"""Runs that diverge: back to the best weights with a lower learning rate, said once; and the error where that does not help."""

import copy
import json
import math
import re
from functools import partial

import pytest
import torch
from short_runs import a_loader, a_model, an_explosive_model, hardened, same, weights_of

import robusttune
from robusttune.training import checkpoints, validation
from robusttune.training.divergence import fell
from robusttune.training.validation import Score

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

RATE = 1.0  # ends in NaN without a recovery, with this model


@pytest.fixture(scope="module")
def trained():
    model = an_explosive_model()
    assert accuracy(model) > 0.9
    return model


def run(model, loader=None, **settings):
    """A run of SGD with a copy of the model and these settings, without pretext tasks; without a loader none are held out."""
    chosen = {
        "preset": "joint",
        "tasks": None,
        "optimizer": "sgd",
        "lr": RATE,
        "epochs": 6,
        "eps_ramp": False,
        "steps": 1,
        **settings,
    }
    torch.manual_seed(0)
    return hardened(copy.deepcopy(model), list(a_loader(1000, 100)) if loader is None else loader, **chosen)


def accuracy(model):
    loader = a_loader(1000, 200)
    with torch.no_grad():
        right = [(model.eval()(images).argmax(1) == labels).float().mean() for images, labels in loader]
    return float(sum(right) / len(right))


def said(caplog):
    return [record.message for record in caplog.records if "so the run goes back to" in record.message]


@pytest.mark.filterwarnings("ignore:the model classifies .* before this run")
@pytest.mark.parametrize("held", [True, False], ids=["held out", "none held out"])
def test_a_learning_rate_far_too_high_is_lowered_and_the_run_ends_well(trained, caplog, tmp_path, held):
    seen = []
    model = run(trained, a_loader(1000, 100) if held else None, out=tmp_path / "run", on_epoch=seen.append)
    assert accuracy(model) > 0.3
    lines = said(caplog)
    assert 1 <= len(lines) <= 3
    assert re.fullmatch(
        r"step 10: the loss was not finite in batch \d+ of the epoch, so the run goes back to the weights that it started "
        r"from, and on with a learning rate of at most 0.25 in place of 1", lines[0]
    )  # fmt: skip
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    events = [(line["diverged at step"], line["peak lr"]) for line in log if "diverged at step" in line]
    assert events[-1] == (int(lines[-1].split()[1].strip(":")), RATE / 4 ** len(lines))
    assert [line["epoch"] for line in log] == [*range(1, 7)]
    assert [facts["loss"] for facts in seen] == [line["loss"] for line in log]
    assert all(math.isfinite(line["loss"]) for line in log)


def test_a_run_that_diverges_at_every_rate_ends_in_an_error_that_says_so(trained, caplog):
    before = weights_of(trained)
    model = copy.deepcopy(trained)
    with pytest.raises(
        FloatingPointError, match=r"lower lr=.*went back 3 times, .*at last with lr=1.56.*e\+28.*old weights"
    ):
        hardened(model, list(a_loader(1000, 100)), tasks=None, lr=1e30, epochs=8)
    assert len(said(caplog)) == 3
    assert same(weights_of(model), before)


def test_the_rate_of_a_scheduler_of_the_user_is_not_lowered(trained):
    with pytest.raises(FloatingPointError, match=r"scheduler= sets the learning rate, so that it is not lowered"):
        run(trained, lr=1e30, scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1))


@pytest.mark.parametrize("held", [True, False], ids=["held out", "none held out"])
def test_a_run_that_diverges_at_its_very_end_does_not_return_the_model_it_started_from(trained, held):
    with pytest.raises(FloatingPointError, match=r"no step is left for a lower rate"):
        run(trained, a_loader(1000, 100) if held else None, max_steps=8)


class Killed(Exception):
    """A stop at any moment."""


def logged(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.filterwarnings(
    "ignore:.*ended with a model that guesses", "ignore:the model classifies .* before this run"
)
@pytest.mark.parametrize(
    "kill", [13, pytest.param(9, marks=pytest.mark.slow)], ids=["after", "before the loss is read"]
)
def test_a_kill_around_the_fall_back_resumes_exactly(trained, tmp_path, monkeypatch, kill):
    settings = {"checkpoint_every": 3, "ema": 0.9, "optimizer": "momentum", "epochs": 3}
    whole = run(trained, out=tmp_path / "whole", **settings)
    saving = checkpoints.Checkpoints.save_if_due

    def stop(self, training):
        saving(self, training)
        if training.progress.taken == kill:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", stop)
    with pytest.raises(Killed):
        run(trained, out=tmp_path / "killed", **settings)
    monkeypatch.setattr(checkpoints.Checkpoints, "save_if_due", saving)
    assert same(weights_of(run(trained, out=tmp_path / "killed", resume=True, **settings)), weights_of(whole))
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")
    assert "diverged at step" in logged(tmp_path / "whole")[0]


@pytest.mark.filterwarnings(
    "ignore:.*ended with a model that guesses", "ignore:the model classifies .* before this run"
)
def test_replay_repeats_the_fall_back(trained, tmp_path):
    run(trained, out=tmp_path / "run", epochs=2)
    assert "diverged at step" in (tmp_path / "run" / "log.jsonl").read_text()
    torch.manual_seed(0)
    again = robusttune.replay(tmp_path / "run", trained, list(a_loader(1000, 100)))
    assert again.same
    assert again.close


def test_pre_training_recovers_too(trained, caplog):
    torch.manual_seed(0)
    images = [images for images, _ in a_loader(1000, 100)]
    robusttune.pretrain(
        copy.deepcopy(trained), images, epochs=4, lr=RATE, optimizer="sgd", augment="none", progress=False
    )
    assert said(caplog)


def ruining(model, after):
    """Move the classes of the model by one once this epoch has ended."""

    def ruin(facts):
        if facts["epoch"] == after:
            with torch.no_grad():
                model[-1].weight.copy_(model[-1].weight.roll(1, 0))
                model[-1].bias.copy_(model[-1].bias.roll(1, 0))

    return ruin


@pytest.mark.parametrize(
    ("held", "seen"),
    [
        (True, r"step \d+: [\d.]+% of held-out images were right, after \d\d.\d%, so the run goes back to the weights of epoch 2"),
        (False, r"step \d+: the model gets \d+ of 100 images right, .*, so the run goes back to the weights of epoch 2"),
    ],
    ids=["held out", "none held out"],
)  # fmt: skip
def test_a_collapse_half_way_is_seen_and_taken_back(trained, caplog, held, seen):
    model = a_model() if held else copy.deepcopy(trained)
    loader = a_loader(1000, 40) if held else list(a_loader(1000, 100))
    settings = {"preset": "joint", "tasks": None, "ema": 0.0, "epochs": 4, "eps_ramp": False, "steps": 1}
    settings["on_epoch"] = ruining(model, 2)
    torch.manual_seed(0)
    hardened(model, loader, lr=0.05 if held else 1e-3, optimizer="sgd", **settings)
    (line,) = said(caplog)
    assert re.match(seen, line), line
    assert accuracy(model) > 0.5


def test_a_fall_of_robust_accuracy_alone_is_seen_and_left_where_a_scheduler_sets_the_rate(trained, caplog, monkeypatch):
    for settings, told in (
        ({}, "so the run goes back"),
        ({"scheduler": "cosine"}, "scheduler= sets the learning rate"),
    ):
        caplog.clear()
        robust = iter([0.2, 0.02, 0.02, 0.02])
        monkeypatch.setattr(validation, "score", lambda *_, robust=robust: Score(0.9, next(robust), 0.2, 0.1, 500))
        run(trained, a_loader(1000, 200), lr=1e-4, epochs=4, steps=2, **settings)
        lines = [record.message for record in caplog.records if "withstood the attack, after 20.0%" in record.message]
        assert told in lines[0]
        assert len(lines) == (1 if settings else 2)  # epochs 2 and 3; epoch 4 ends the run with the best weights


def test_a_fall_is_far_below_the_best_and_more_than_chance():
    assert fell(0.2, 0.02, 500)
    assert not fell(0.2, 0.02, 40)  # five images
    assert not fell(0.6, 0.2, 5000)
    assert fell(0.6, 0.12, 500, guessing=0.1)
    assert not fell(0.6, 0.2, 5000, guessing=0.1)
    assert not fell(0.09, 0.0, 100_000)
