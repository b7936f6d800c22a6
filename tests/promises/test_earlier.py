"""Folders written by an earlier version (`earlier.py`) are resumed, replayed and read by this one."""

import shutil
from pathlib import Path

import pytest
import torch
from earlier import a_loader, a_model, hardened, tried
from safetensors.torch import load_file

import robusttune
from robusttune.trial.results import Trial

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")
EARLIER = Path(__file__).parents[1] / "support" / "earlier_folders"
CLOSE = 2e-3  # other processors and versions of torch round otherwise


@pytest.fixture
def copied(tmp_path):
    """A function of a folder's name that gives a copy of it to work in."""
    return lambda name: Path(shutil.copytree(EARLIER / name, tmp_path / name))


def test_a_killed_run_ends_as_it_would_have_without_the_kill(copied):
    folder = copied("killed")
    model = hardened(folder, checkpoint_every=3, resume=True)
    expected = load_file(EARLIER / "ended" / "last.safetensors")
    assert (folder / "log.jsonl").read_text().count("\n") == 3
    last = load_file(folder / "last.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(last[name], tensor, atol=CLOSE, rtol=CLOSE)
    assert model.state_dict().keys() == expected.keys()


def test_a_killed_run_with_other_settings_is_refused(copied):
    with pytest.raises(ValueError, match=r"other arguments \(checkpoint_every was 3 and is 7\)"):
        hardened(copied("killed"), resume=True, checkpoint_every=7)


def test_a_run_that_ended_is_repeated(copied):
    held = a_loader(1000, 1096, shuffle=False)
    torch.set_num_threads(1)
    found = robusttune.replay(copied("ended"), a_model(), a_loader(), val_loader=held)
    assert found.close
    assert max(found.weights.values()) < CLOSE
    assert "the model began with other weights" not in found.differences


def test_a_trial_keeps_what_is_finished_and_takes_what_is_left(copied):
    folder = copied("trial")
    before = {(result.arm, result.seed): list(result.records) for result in Trial.load(folder).results}
    assert len(before) == 4  # an arm without training is measured once for both seeds
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("records.jsonl")}
    page = tried(folder, resume=True)
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
