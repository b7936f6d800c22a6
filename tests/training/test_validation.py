"""Held-out scores: the choice of the best epoch, and the watch over single-step training."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from short_runs import a_loader, hardened, same, weights_of

import robusttune
from robusttune.attacks.nfgsm import nfgsm
from robusttune.attacks.pgd import pgd
from robusttune.run.files import load_weights
from robusttune.training import validation
from robusttune.training.validation import Best, Score, collapsed

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained


def score(clean, robust):
    return Score(clean, robust, robust, robust, 100)


def test_the_best_holds_the_clean_floor_first():
    best = Best(min_clean=0.8)
    assert best.offer(1, score(0.7, 0.6), {})
    assert best.offer(2, score(0.75, 0.5), {})  # nearer to the floor, while none holds it
    assert best.offer(3, score(0.81, 0.4), {})
    assert not best.offer(4, score(0.79, 0.7), {})
    assert best.offer(5, score(0.9, 0.41), {})
    assert best.epoch == 5


def test_a_clean_floor_that_no_epoch_reaches_is_warned_of(caplog):
    hardened(loader=a_loader(1000), tasks=None, min_clean=0.999)
    assert "no epoch has a clean accuracy of min_clean=0.999 on held-out images: epoch 1 has the highest" in caplog.text
    caplog.clear()
    hardened(loader=a_loader(1000), tasks=None, min_clean=0.001)
    assert "min_clean" not in caplog.text


def test_the_epoch_with_the_best_held_out_score_is_the_one_returned(tmp_path):
    seen = []
    settings = {"preset": "joint", "tasks": None, "epochs": 4, "lr": 0.5}
    model = hardened(loader=a_loader(1000), out=tmp_path / "run", on_epoch=seen.append, **settings)
    scores = [facts["held-out robust"] for facts in seen]
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["held-out robust"] for line in lines] == scores
    best, last = load_weights(tmp_path / "run"), load_weights(tmp_path / "run" / "last.safetensors")
    assert same(best, weights_of(model))
    assert same(best, last) == (max(scores) == scores[-1] and scores.count(max(scores)) == 1)


def test_a_collapse_is_a_fall_by_a_fifth():
    best = Best()
    best.offer(1, score(0.9, 0.6), {})
    assert collapsed(best, score(0.95, 0.39))
    assert not collapsed(best, score(0.95, 0.41))
    assert not collapsed(Best(), score(0.95, 0.0))
    assert collapsed(Best(), score(0.95, 0.05), trained=0.6)  # collapsed from the start
    assert not collapsed(Best(), score(0.95, 0.2), trained=0.6)  # overfitted, but not blind
    assert not collapsed(Best(), score(0.3, 0.02), trained=0.15)  # has learnt nothing yet


@pytest.mark.parametrize(
    ("epochs", "then"),
    [
        (2, "no step is left for a stronger attack and the weights of epoch 2 are returned: pass attack='pgd'"),
        (4, "it continues with 10 steps of PGD from the weights of epoch 3"),
    ],
)
def test_a_collapse_says_what_follows_and_names_no_best_before_the_first_score(caplog, monkeypatch, epochs, then):
    monkeypatch.setattr(validation, "collapsed", lambda *_: True)
    hardened(loader=a_loader(1000), steps=None, tasks=None, eps_ramp=False, epochs=epochs)
    (line,) = [record.message for record in caplog.records if "overfitted catastrophically" in record.message]
    assert then in line
    assert "at best" not in line


@pytest.mark.slow
def test_fgsm_on_fashion_mnist_collapses_and_is_caught(caplog, monkeypatch):
    """FGSM from the image itself, at a large radius and learning rate, is known to overfit to its single step."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    import images

    if not images.FASHION_MNIST.exists():
        pytest.skip("Fashion-MNIST is not installed: Debian's dataset-fashion-mnist")
    from ordinary import new_model

    torch.manual_seed(0)
    loader, _ = images.loaders("fashion-mnist", train=4000, test=32)
    seen = []
    settings = {
        "preset": "joint",
        "tasks": None,
        "eps_ramp": False,
        "ema": 0,
        "lr": 0.3,
        "epochs": 9,
        "tune": False,
        "progress": False,
    }
    robusttune.harden(new_model("test_resnet", 1, 10, images.SIDE), loader, norm="linf", eps=0.3,
                      attack=partial(nfgsm, noise=0.0), on_epoch=seen.append, **settings)  # fmt: skip
    robust = [facts["held-out robust"] for facts in seen]
    assert "single-step training has overfitted catastrophically" in caplog.text, robust
    fall = next(n for n, facts in enumerate(seen) if facts["robust accuracy"] > 0.3 and robust[n] < 0.08)
    assert max(robust[fall + 1 :]) > robust[fall] + 0.1


@pytest.mark.slow
def test_single_step_training_that_collapses_is_told_and_goes_on_with_several_steps(caplog, monkeypatch):
    """A run made to collapse: after three epochs its single step does nothing, and ordinary training takes over."""
    monkeypatch.setattr(validation, "COLLAPSE", 0.1)
    called = []

    def weakening(loss_of, images, threat, *, generator):
        called.append(1)
        return pgd(loss_of, images, threat, generator=generator, steps=5) if len(called) < 150 else images

    weakening.bounded = False
    seen = []
    settings = {"attack": weakening, "steps": None, "tasks": None, "eps": 0.6, "eps_ramp": False, "ema": 0, "lr": 0.1}
    hardened(loader=a_loader(1000, 20), preset="joint", epochs=16, on_epoch=seen.append, **settings)
    robust = [facts["held-out robust"] for facts in seen]
    assert "single-step training has overfitted catastrophically" in caplog.text, robust
    assert len(called) < 16 * 48  # the fallback has taken its place
    fall = next(n for n in range(1, 16) if max(robust[:n]) - robust[n] > 0.1)
    assert max(robust[fall + 1 :]) > robust[fall] + 0.1
