"""Folders written by an earlier version (`earlier.py`) are resumed, replayed and read by this one."""

import shutil
from pathlib import Path

import pytest
import torch
from brightness import numbered, write
from earlier import a_loader, a_model, hardened, tried
from safetensors.torch import load_file

import robusttune
from robusttune.cli import main
from robusttune.run.about import read_run
from robusttune.trial.results import Trial

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*held-out accuracy"),
    # timm's data sets leave the files that they have read to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
EARLIER = Path(__file__).parents[1] / "support" / "earlier_folders"
CLOSE = 2e-3  # other processors and versions of torch round otherwise


@pytest.fixture
def copied(tmp_path):
    """A function of a folder's name that gives a copy of it to work in."""
    return lambda name: Path(shutil.copytree(EARLIER / name, tmp_path / name))


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of a run this short
def test_a_killed_run_ends_as_it_would_have_without_the_kill(copied):
    folder = copied("killed")
    model = hardened(folder, checkpoint_every=3, resume=True)
    expected = load_file(EARLIER / "ended" / "last.safetensors")
    assert (folder / "log.jsonl").read_text().count("\n") == 3
    last = load_file(folder / "last.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(last[name], tensor, atol=CLOSE, rtol=CLOSE)
    assert model.state_dict().keys() == expected.keys()


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of a run this short
def test_a_run_goes_on_with_the_default_that_it_was_begun_with(copied, capsys):
    folder = copied("killed")
    assert read_run(folder).arguments["preset"] == "joint"
    hardened(folder, checkpoint_every=3, resume=True, progress=True)
    assert "begun with an earlier default: it goes on with preset='joint'" in capsys.readouterr().err


def test_a_killed_run_with_other_settings_is_refused(copied):
    with pytest.raises(ValueError, match=r"other arguments \(checkpoint_every was 3 and is 7\)"):
        hardened(copied("killed"), resume=True, checkpoint_every=7)


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of a run this short
def test_a_run_that_ended_is_repeated(copied):
    held = a_loader(1000, 1096, shuffle=False)
    torch.set_num_threads(1)
    found = robusttune.replay(copied("ended"), a_model(), a_loader(), val_loader=held)
    assert found.close
    assert max(found.weights.values()) < CLOSE
    assert "the model began with other weights" not in found.differences


@pytest.mark.slow
def test_a_trial_keeps_what_is_finished_and_takes_what_is_left(copied, capsys):
    folder = copied("trial")
    before = {(result.arm, result.seed): list(result.records) for result in Trial.load(folder).results}
    assert len(before) == 4  # an arm without training is measured once for both seeds
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("records.jsonl")}
    page = tried(folder, resume=True, progress=True)
    assert "names no preset, like earlier plans: its arms take preset='joint'" in capsys.readouterr().err
    after = {(result.arm, result.seed): list(result.records) for result in Trial.load(folder).results}
    assert len(after) == 6
    assert {pair: after[pair] for pair in before} == before
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    assert page.exists()


def test_records_of_an_earlier_version_are_compared_by_image():
    first, second = (
        robusttune.Records.load(next(EARLIER.glob(f"trial/arms/{arm}/*/evaluation/clean-*/records.jsonl")))
        for arm in ("nothing", "ordinary")
    )
    (compared,) = robusttune.compare(first, second)
    assert compared.images == 64


@pytest.mark.parametrize("name", ["ended", "trial/arms/adversarial/seed-0-fa2a13d6/1-harden"])
def test_a_run_is_evaluated_and_says_what_it_does_not_know(name, caplog):
    folder, held = EARLIER / name, a_loader(1000, 1096, shuffle=False)
    with pytest.raises(
        ValueError, match=r"does not name its model, .*make the model as it was, and call robusttune\.load"
    ):
        robusttune.evaluate(folder, held, "clean")
    model = robusttune.load(folder, a_model())
    found = robusttune.evaluate(model, held, "clean", run=folder, progress=False)
    assert found[0].images == 96
    assert found.facts["threat"] == ("l2 eps 0.5" if name == "ended" else "linf eps 0.1")
    assert "does not know its classes by name (labels count as they are)" in caplog.text


def test_a_run_is_evaluated_by_the_shell(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data", numbered("0123456789"), classes=10, size=16)
    run = ["evaluate", str(EARLIER / "ended"), "--data", "data", "--which", "clean", "--progress", "false"]
    assert main([*run, "--model", "earlier:a_model", "--out", "found"]) == 0
    assert "does not know its classes by name" in capsys.readouterr().err
    assert "does not know its classes by name" in caplog.text
    assert robusttune.Records.load("found").facts["threat"] == "l2 eps 0.5"
