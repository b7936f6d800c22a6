"""The stages before hardening: what they train, that they resume exactly, and that a failure costs no weights."""

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
from short_runs import a_loader, a_model, digits, hardened, same, weights_of
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.transforms import Normalize

import robusttune
from robusttune.data.unlabeled import AllImages
from robusttune.run import files
from robusttune.training.stages import FOLDER, unchanged

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
    return hardened(model, a_loader(160), **{"preset": "joint", "tasks": None, **settings})


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
    with pytest.raises(ValueError, match=r"finetune is -1, but a whole number from 0 to 100,000 is needed$"):
        quick(model, finetune=-1)
    with pytest.raises(ValueError, match="finetune=1 counts epochs, but the loader does not say how many batches"):
        hardened(model, Unsized(), finetune=1, max_steps=2)


@pytest.mark.parametrize("now", [0, 3])
def test_another_length_of_the_fine_tuning_is_refused_at_resume(now, tmp_path, monkeypatch):
    with interrupted(monkeypatch, 1):
        quick(finetune=2, out=tmp_path / "a")
    with pytest.raises(ValueError, match=f"began with finetune=2, but finetune is {now} now: pass the same"):
        quick(finetune=now, out=tmp_path / "a", resume=True)


def test_a_run_that_was_stopped_in_its_fine_tuning_is_not_resumed_with_another_radius(tmp_path, monkeypatch):
    out = tmp_path / "a"
    with interrupted(monkeypatch, 1):
        quick(finetune=2, out=out, notes={"ticket": "A-17"})
    held = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"other arguments \(eps was 0\.3 and is 0\.1\); it was in its fine-tuning"):
        quick(finetune=2, out=out, resume=True, eps=0.1)
    with pytest.raises(ValueError, match=r"tasks was None and is .*rotation.*\); it was in its fine-tuning"):
        quick(finetune=2, out=out, resume=True, tasks={"rotation": 0.5})
    assert {path: path.read_bytes() for path in held} == held
    quick(finetune=2, out=out, resume=True)
    facts = [json.loads((folder / "run.json").read_text()) for folder in (out, out / FOLDER)]
    assert "followed by" not in facts[0]
    assert facts[1]["followed by"]["eps"] == 0.3


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


def both(seed=1):
    """100 images with labels and 150 alone, in orders that generators draw."""
    images, orders = digits(250), [torch.Generator().manual_seed(seed + number) for number in range(2)]
    labelled = DataLoader(Subset(images, range(100)), 20, shuffle=True, generator=orders[0])
    return labelled, DataLoader(Subset(images, range(100, 250)), 30, shuffle=True, generator=orders[1])


def in_stages(model=None, sources=None, **settings):
    loader, more = both() if sources is None else sources
    chosen = {"unlabeled_loader": more, "pretrain_epochs": 2, "finetune": 2, "tasks": None, **settings}
    return hardened(model, loader, **chosen)


@pytest.mark.sample(1)
@pytest.mark.parametrize("tasks", [None, {"rotation": 0.1}, {"jigsaw": 0.0}])
def test_a_run_in_stages_is_what_its_stages_are_by_hand(tasks, caplog):
    images, model = digits(250), a_model()
    loader, more = (DataLoader(Subset(images, rows), 20, shuffle=True) for rows in (range(100), range(100, 250)))
    names = list(tasks or ["rotation", "jigsaw"])
    heads = robusttune.pretrain(model, AllImages(loader, more, batches=(20, 20)), tasks=names, epochs=2, progress=False)
    ordinary = {"attack": unchanged, "eps": 0.0, "eps_ramp": False, "steps": None}
    hardened(model, loader, preset="joint", tasks=None, epochs=2, **ordinary)
    hardened(model, loader, tasks=tasks, unlabeled_loader=more, heads=heads if tasks else None)
    caplog.clear()
    assert same(weights_of(in_stages(sources=(loader, more), tasks=tasks)), weights_of(model))
    assert caplog.text.count("how often the teacher's labels are right is not known") == 1


SAVES_OF_THREE = {"pre-training": 2, "fine-tuning": 7, "hardening": 11}


@pytest.mark.sample(1)
@pytest.mark.parametrize("stage", SAVES_OF_THREE)
def test_a_run_that_is_interrupted_in_any_stage_resumes_exactly(stage, tmp_path, monkeypatch):
    settings = {"epochs": 2, "checkpoint_every": 7, "tasks": {"rotation": 0.5}, "views": 1}
    unbroken = weights_of(in_stages(out=tmp_path / "a", **settings))
    model, out = a_model(), tmp_path / "b"
    before = weights_of(model)
    with interrupted(monkeypatch, SAVES_OF_THREE[stage]):
        in_stages(model, out=out, **settings)
    assert same(weights_of(model), before)
    begun = [(folder / files.STATE).exists() for folder in (out / "pretrain", out / "finetune", out)]
    assert begun == [True, stage != "pre-training", stage == "hardening"]
    assert same(weights_of(in_stages(model, out=out, resume=True, **settings)), unbroken)


def test_pre_training_leaves_the_classifier_and_the_images_that_are_held_back_alone(tmp_path, caplog):
    caplog.set_level("INFO", "robusttune")
    model = a_model()
    before = weights_of(model)

    def stop(facts):
        raise KeyboardInterrupt

    images = digits(700)
    with pytest.raises(KeyboardInterrupt):
        hardened(
            model, DataLoader(images, 100), tasks=None, pretrain_epochs=1, max_steps=1, on_epoch=stop, out=tmp_path
        )
    facts = json.loads((tmp_path / "pretrain/run.json").read_text())
    after = files.load_weights(tmp_path / "pretrain")
    assert (facts["run"], facts["data"]["images"], facts["arguments"]["norm"]) == ("pretrain", 665, None)
    assert [torch.equal(after[name], before[name]) for name in ("0.weight", "6.weight", "6.bias")] == [
        False,
        True,
        True,
    ]
    assert "before hardening: 1 epoch of rotation and jigsaw on all images" in caplog.text
    assert "pre-training    1 epoch before, on all images" in caplog.text.replace("pre-training  ", "pre-training    ")


def test_what_cannot_be_combined_with_a_pre_training_is_refused():
    model, images = a_model(), DataLoader(digits(80).tensors[0], 40)
    before = weights_of(model)
    for message, settings in {
        "heads= are of an earlier pre-training, but pretrain_epochs=2 trains new ones": {"heads": model},
        "drop_foreign leaves images out of the hardening, but pretrain_epochs=2": {"drop_foreign": True},
        "the unlabeled_loader is an iterator": {"unlabeled_loader": iter(images)},
        "pretrain_epochs is 0.5, but a whole number from 0 to 100,000 is needed": {"pretrain_epochs": 0.5},
        "the loader has no labels, so that unlabeled_loader= adds nothing new": {"sources": (images, images)},
        "images of unlabeled_loader have shape": {"unlabeled_loader": [torch.rand(4, 1, 9, 9)], "pretrain_epochs": 0},
        "the teacher must have the same ones": {"teacher": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))},
        "finetune=2 trains on labels, but the loader yields images alone": {"sources": (images, None)},
        "the model cannot label its own images afterwards": {"sources": (images, None), "finetune": 0},
    }.items():
        with pytest.raises(ValueError, match=message):
            in_stages(model, **settings)
    assert same(weights_of(model), before)


def test_images_in_another_pixel_space_are_refused_before_the_stages(tmp_path):
    class Normalised(TensorDataset):
        transform = Normalize([0.5], [0.25])

    loader, _ = both()
    other = DataLoader(Normalised(torch.randn(40, 1, 8, 8)), 20)
    with pytest.raises(ValueError, match="unlabeled_loader: its Normalize has"):
        in_stages(sources=(loader, other), out=tmp_path / "a")
    assert not (tmp_path / "a/pretrain").exists()


@pytest.mark.sample(2)
@pytest.mark.parametrize("source", ["val_loader", "held back", "pretext tasks"])
def test_held_out_images_among_those_without_labels_are_refused_before_the_stages(source, tmp_path):
    images, model = digits(700), a_model()
    before = weights_of(model)
    loader, more = (DataLoader(Subset(images, rows), 50, shuffle=True) for rows in (range(650), range(600, 700)))
    settings = {"sources": (loader, more), "out": tmp_path / "a"}
    if source != "held back":  # 5% of 650
        settings["val_loader"] = DataLoader(Subset(images, range(680, 700)), 10)
    if source == "pretext tasks":
        settings |= {"teacher": None, "tasks": {"rotation": 0.5}}
    count = "20" if source != "held back" else r"[1-9]\d*"
    with pytest.raises(ValueError, match=f"^{count} images without labels are also among the held-out images"):
        in_stages(model, **settings)
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").iterdir())
    assert same(weights_of(model), before)


def test_other_lengths_of_the_stages_are_refused_at_resume(tmp_path, monkeypatch):
    with interrupted(monkeypatch, 1):
        in_stages(out=tmp_path / "a")
    with pytest.raises(ValueError, match="began with pretrain_epochs=2, but pretrain_epochs is 0 now: pass the same"):
        in_stages(out=tmp_path / "a", resume=True, pretrain_epochs=0)
    with interrupted(monkeypatch, 1):
        quick(finetune=2, out=tmp_path / "b")
    with pytest.raises(ValueError, match="began with pretrain_epochs=0, but pretrain_epochs is 1 now"):
        quick(finetune=2, pretrain_epochs=1, out=tmp_path / "b", resume=True)
    quick(max_steps=1, out=tmp_path / "c")
    with pytest.raises(ValueError, match="began with finetune=0, but finetune is 1 now"):
        quick(max_steps=1, finetune=1, out=tmp_path / "c", resume=True)


@pytest.mark.slow
def test_replay_and_estimate_know_both_stages(tmp_path, caplog):
    in_stages(out=tmp_path / "a")
    caplog.clear()
    loader, more = both()
    assert robusttune.replay(tmp_path / "a", a_model(), loader, unlabeled_loader=more).same
    sources, caplog_before = both(), len(caplog.records)
    states = [each.generator.get_state() for each in sources]
    settings = {"norm": "l2", "steps": 2, "epochs": 1, "tasks": None, "unlabeled_loader": sources[1]}
    expected = robusttune.estimate(a_model(), sources[0], pretrain_epochs=3, finetune=2, **settings)
    assert expected.passes["pre-training: views"] == (1500, 1500)
    assert "pre-training: update" not in expected.table()
    assert expected.seconds == pytest.approx(sum(expected.parts.values()))
    assert min(expected.parts["pre-training"], expected.parts["fine-tuning"]) > 0
    assert all(torch.equal(each.generator.get_state(), state) for each, state in zip(sources, states, strict=True))
    assert not [each for each in caplog.records[caplog_before:] if "teacher" in each.message]  # it is not trained yet


@pytest.mark.slow
def test_a_run_that_is_killed_in_every_stage_ends_in_the_same_weights(tmp_path):
    def started(*arguments):
        return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)])

    assert started(tmp_path / "a", tmp_path / "a.pt", "start", "6", "4").wait() == 0
    generator, out = random.Random(0), tmp_path / "b"
    for number, place in enumerate((out / "pretrain", out / "finetune", out)):
        process = started(out, tmp_path / "b.pt", "resume" if number else "start", "6", "4")
        while process.poll() is None and not (place / files.STATE).exists():
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert started(out, tmp_path / "b.pt", "resume", "6", "4").wait() == 0
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
    objectives = [line.removeprefix("objective").strip() for line in lines if line.startswith("objective")]
    assert objectives == ["adversarial"]  # of hardening: nothing attacks in fine-tuning
    ordinary, hardening = (line for line in lines if line.startswith("kept epoch"))
    assert ("under attack" in ordinary, "under attack" in hardening) == (False, True)


def test_the_stages_after_the_pre_training_say_that_the_weights_are_pre_trained(capsys):
    quick(pretrain_epochs=1, finetune=1, max_steps=1, progress=True, notes={"command": {"model": "timm:x"}})
    lines = capsys.readouterr().err.splitlines()
    weights = [line.removeprefix("weights").strip() for line in lines if line.startswith("weights")]
    assert weights == ["random", "random, then pre-trained", "random, then pre-trained, then fine-tuned"]
