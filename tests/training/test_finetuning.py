"""Ordinary training before hardening: what it trains, that it resumes exactly, and that a failure costs no weights."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from short_runs import a_loader, a_model, hardened, same, weights_of

import robusttune
from robusttune.run import files
from robusttune.training import finetuning
from robusttune.training.finetuning import FOLDER, unchanged

SCRIPT = Path(__file__).parents[1] / "support" / "killed_run.py"


@contextmanager
def interrupted(monkeypatch, saves):
    """Raise Ctrl-C where this many checkpoints have been written inside this context."""
    save, written = files.save_state, []

    def saved(folder, state):
        save(folder, state)
        written.append(folder)
        if len(written) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(files, "save_state", saved)
        try:
            yield
        except KeyboardInterrupt:
            return
    pytest.fail("the run was over before")


def quick(model=None, **settings):
    return hardened(model, a_loader(160), **{"tasks": None, **settings})


def test_a_run_with_fine_tuning_is_ordinary_training_followed_by_a_run_without():
    by_hand = quick(quick(attack=unchanged, eps=0.0, eps_ramp=False, steps=None, epochs=2))
    assert same(weights_of(quick(finetune=2)), weights_of(by_hand))


class Unsized:
    def __iter__(self):
        return iter(a_loader(40))


SAVES = {"fine-tuning": 3, "after fine-tuning": 4, "hardening": 6}  # after 3 steps of 4, and at the end of an epoch


@pytest.mark.parametrize(
    "stage", ["fine-tuning", pytest.param("after fine-tuning", marks=pytest.mark.slow), "hardening"]
)
def test_a_run_that_is_interrupted_gives_the_weights_back_and_resumes_exactly(stage, tmp_path, monkeypatch):
    settings = {"finetune": 2, "epochs": 2, "checkpoint_every": 3}
    unbroken = weights_of(quick(out=tmp_path / "a", **settings))
    model = a_model()
    before, out = weights_of(model), tmp_path / "b"
    with interrupted(monkeypatch, SAVES[stage]):
        quick(model, out=out, **settings)
    assert same(weights_of(model), before)
    state = out / FOLDER / files.STATE
    written = state.stat().st_mtime_ns
    assert (out / files.STATE).exists() == (stage == "hardening")
    assert same(weights_of(quick(model, out=out, resume=True, **settings)), unbroken)
    assert (state.stat().st_mtime_ns == written) == (stage != "fine-tuning")  # what has ended is not trained again
    facts = [json.loads((folder / "run.json").read_text())["start"] for folder in (tmp_path / "a", out)]
    assert facts[0] == facts[1]


def test_a_failure_after_the_fine_tuning_gives_the_weights_back_that_came_in(monkeypatch):
    def fail(facts):
        raise RuntimeError("mine")

    model = a_model()
    before = weights_of(model)
    with pytest.raises(RuntimeError, match="mine"):
        quick(model, finetune=1, on_epoch=fail)
    assert same(weights_of(model), before)


def test_a_run_is_checked_before_its_fine_tuning(tmp_path):
    model = a_model()
    before = weights_of(model)
    with pytest.raises(ValueError, match="min_clean= chooses among epochs by held-out images, but there are none"):
        quick(model, finetune=1, min_clean=0.5, out=tmp_path / "a")
    assert not (tmp_path / "a" / FOLDER).exists()
    assert same(weights_of(model), before)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"full' is not empty: pass resume=True"):
        quick(model, finetune=1, out=tmp_path / "full")


def test_what_cannot_be_combined_with_a_fine_tuning_is_refused():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer= is an object, which would carry its state"):
        quick(model, finetune=1, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"finetune is -1, but a whole number of at least 0 is needed$"):
        quick(model, finetune=-1)
    with pytest.raises(ValueError, match="finetune=1 counts epochs, but the loader does not say how many batches"):
        hardened(model, Unsized(), finetune=1, max_steps=2)


@pytest.mark.parametrize("now", [0, 3])
def test_another_length_of_the_fine_tuning_is_refused_at_resume(now, tmp_path, monkeypatch):
    with interrupted(monkeypatch, 1):
        quick(finetune=2, out=tmp_path / "a")
    with pytest.raises(ValueError, match=f"began with finetune=2, but finetune is {now} now: pass the same"):
        quick(finetune=now, out=tmp_path / "a", resume=True)


def test_replay_repeats_the_fine_tuning(tmp_path):
    quick(finetune=1, out=tmp_path / "a")
    assert robusttune.replay(tmp_path / "a", a_model(), a_loader(160)).same


def test_the_estimate_counts_the_fine_tuning():
    settings = {"norm": "l2", "eps": 0.3, "steps": 2, "epochs": 1, "tasks": None}
    model = a_model()
    before = weights_of(model)
    expected = robusttune.estimate(model, a_loader(160), finetune=3, devices={"own": 3600.0}, **settings)
    assert expected.parts["fine-tuning"] > 0
    assert expected.seconds == pytest.approx(sum(expected.parts.values()))
    assert expected.cost["own"] == pytest.approx(expected.seconds)
    assert expected.passes["fine-tuning: update"] == (480, 480)
    assert "of it: fine-tuning" in expected.table()
    assert same(weights_of(model), before)


def test_the_fine_tuning_takes_what_belongs_to_the_images_and_the_updates_alone(tmp_path):
    def criterion(logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    quick(finetune=1, out=tmp_path / "a", criterion=criterion, lr=0.02, accumulate=2, max_steps=2, seed=5)
    inner = json.loads((tmp_path / "a" / FOLDER / "run.json").read_text())["arguments"]
    assert (inner["eps"], inner["tasks"], inner["epochs"], inner["max_steps"]) == (0.0, None, 1, None)
    assert (inner["lr"], inner["accumulate"], inner["seed"], inner["finetune"]) == (0.02, 2, 5, 0)
    assert "criterion" in inner["criterion"]


@pytest.mark.slow
def test_a_run_that_is_killed_in_both_stages_ends_in_the_same_weights(tmp_path):
    def started(*arguments):
        return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)])

    assert started(tmp_path / "a", tmp_path / "a.pt", "start", "6").wait() == 0
    generator, out = random.Random(0), tmp_path / "b"
    for number, place in enumerate((out / finetuning.FOLDER, out)):
        process = started(out, tmp_path / "b.pt", "resume" if number else "start", "6")
        while process.poll() is None and not (place / files.STATE).exists():
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert started(out, tmp_path / "b.pt", "resume", "6").wait() == 0
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    assert same(first, second)


def test_each_of_the_two_runs_says_what_it_starts_from_and_what_it_was_judged_by(capsys):
    command = {"command": {"model": "timm:x", "data": "photos"}}
    quick(finetune=1, max_steps=1, val_loader=a_loader(40), progress=True, notes=command)
    lines = capsys.readouterr().err.splitlines()
    assert "before hardening: 1 epoch of ordinary training of the whole model" in lines
    assert "fine-tuning   1 epoch before, of all weights" in lines
    weights = [line.removeprefix("weights").strip() for line in lines if line.startswith("weights")]
    assert weights == ["random", "random, then fine-tuned"]
    ordinary, hardening = (line for line in lines if line.startswith("kept epoch"))
    assert ("under attack" in ordinary, "under attack" in hardening) == (False, True)
