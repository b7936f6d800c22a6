"""A run that is killed goes on exactly where it was; what it goes on from is checked before it is believed."""

import json
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from killed_run import Noisy, a_model, run
from torch.utils.data import DataLoader

import robusttune
from robusttune.run import files
from robusttune.run.log import Journal
from robusttune.training import checkpoint_checks, loop, place
from robusttune.training.checkpoint_checks import check_shared
from robusttune.training.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained

SCRIPT = Path(__file__).parents[1] / "support" / "killed_run.py"


def started(folder, weights, *resume):
    return subprocess.Popen([sys.executable, str(SCRIPT), str(folder), str(weights), *resume])


def killed_once_it_has_begun(folder, weights, pause, *resume):
    """Kill a run a moment after it has written a checkpoint of its own; whether it was still at work."""
    state = folder / files.STATE
    before = state.stat().st_mtime_ns if state.exists() else 0
    process = started(folder, weights, *resume)
    deadline = time.monotonic() + 120
    while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def timeless_log(folder):
    """The lines of a run's log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = run(folder / "run", resume=False)
    torch.set_num_threads(torch_threads)
    return folder / "run", {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_in_the_same_weights(unbroken, tmp_path, kills):
    generator = random.Random(kills)
    folder, weights = tmp_path / "run", tmp_path / "weights.pt"
    hit = [killed_once_it_has_begun(folder, weights, generator.uniform(0, 0.6))]
    hit += [killed_once_it_has_begun(folder, weights, generator.uniform(0, 0.6), "resume") for _ in range(kills - 1)]
    assert any(hit)
    assert same(run(folder, resume=True).state_dict(), unbroken[1])
    assert timeless_log(folder) == timeless_log(unbroken[0])


@pytest.mark.slow
def test_an_epoch_cut_off_after_its_line_was_written_is_told_once(unbroken, tmp_path, monkeypatch):
    class Cut(Journal):
        def write(self, facts):
            super().write(facts)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, "Journal", Cut)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", resume=False)
    assert len(timeless_log(tmp_path / "run")) == 1
    assert same(run(tmp_path / "run", resume=True).state_dict(), unbroken[1])
    assert timeless_log(tmp_path / "run") == timeless_log(unbroken[0])


def test_a_run_that_is_killed_while_its_last_epoch_is_judged_is_judged_when_it_is_resumed(tmp_path, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    settings = {"max_steps": 6, "tasks": None}  # of 21 in an epoch
    whole = run(tmp_path / "whole", resume=False, **settings).state_dict()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", resume=False, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "no weight of the model has changed")
        assert same(run(tmp_path / "run", resume=True, **settings).state_dict(), whole)
    assert timeless_log(tmp_path / "run") == timeless_log(tmp_path / "whole")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    assert same(files.load_weights(tmp_path / "run"), files.load_weights(tmp_path / "whole"))


def test_a_run_that_is_killed_before_its_first_state_tells_no_epoch_twice(tmp_path, monkeypatch):
    def killed(*given, **more):
        raise KeyboardInterrupt

    settings = {"max_steps": 2, "epochs": 1, "tasks": None}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", resume=False, **settings)
    assert len(timeless_log(tmp_path / "run")) == 1
    run(tmp_path / "run", resume=True, **settings)
    assert [line["epoch"] for line in timeless_log(tmp_path / "run")] == [1]


def a_shuffled_loader(seed):
    return DataLoader(Noisy(120), 16, shuffle=True, generator=torch.Generator().manual_seed(seed))


def test_generators_of_all_loaders_go_on_where_they_were(tmp_path):
    def stop(facts):
        if facts["epoch"] == 2:
            raise InterruptedError

    def taken(folder, **more):
        torch.manual_seed(0)
        loaders = {"val_loader": a_shuffled_loader(2), "unlabeled_loader": a_shuffled_loader(3), "teacher": None}
        settings = {"norm": "l2", "tasks": ["rotation"], "epochs": 3, "steps": 1, "progress": False, **loaders}
        robusttune.harden(a_model(), a_shuffled_loader(1), out=folder, **settings, **more)

    taken(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        taken(tmp_path / "run", on_epoch=stop)
    taken(tmp_path / "run", resume=True)
    assert timeless_log(tmp_path / "run") == timeless_log(tmp_path / "whole")


def test_a_run_that_goes_on_with_other_images_is_warned_of(tmp_path, caplog):
    def stop(facts):
        raise InterruptedError

    def taken(count, **more):
        loader = DataLoader(Noisy(count), 16, shuffle=True)
        settings = {"norm": "l2", "tasks": None, "epochs": 2, "steps": 1, "progress": False}
        robusttune.harden(a_model(), loader, out=tmp_path / "run", **settings, **more)

    with pytest.raises(InterruptedError):
        taken(800, on_epoch=stop)
    with pytest.raises(InterruptedError):
        taken(800, resume=True, on_epoch=stop)
    assert "other data" not in caplog.text
    (tmp_path / "run" / "state.pt").unlink()
    with pytest.raises(InterruptedError):
        taken(800, resume=True, on_epoch=stop)
    taken(720, resume=True)
    assert "its loader had 760 images and now 684, 48 batches and now 43" in caplog.text


def test_a_run_that_goes_on_with_as_many_other_images_is_warned_of(tmp_path, caplog):
    def taken(folder, loader, **more):
        settings = {"norm": "l2", "tasks": None, "epochs": 2, "steps": 1, "progress": False}
        robusttune.harden(a_model(), loader, out=tmp_path / folder, **settings, **more)

    def stop(facts):
        raise InterruptedError

    batches, others = ([(each * more, labels) for each, labels in DataLoader(Noisy(32), 16)] for more in (1, 0.99))
    with pytest.raises(InterruptedError):
        taken("run", batches, on_epoch=stop)
    taken("run", others, resume=True)
    assert (
        "goes on with other data than it was begun with: its loader had as many images as now, but other" in caplog.text
    )
    caplog.clear()
    taken("run", batches, resume=True)
    assert "has finished with other data than are passed now" not in caplog.text
    taken("run", others, resume=True)
    assert "has finished with other data than are passed now" in caplog.text
    caplog.clear()
    written = json.loads((tmp_path / "run" / files.RUN).read_text())
    del written["data"]["fingerprint"]  # as runs of before have it
    (tmp_path / "run" / files.RUN).write_text(json.dumps(written))
    taken("run", others, resume=True)
    assert "other data" not in caplog.text


def test_a_run_that_goes_on_with_other_held_out_images_is_warned_of(tmp_path, caplog):
    batches, held, others = (
        [(each * more, labels) for each, labels in DataLoader(Noisy(32), 16)] for more in (1, 0.99, 0.98)
    )

    def taken(val_loader, **more):
        settings = {"norm": "l2", "tasks": None, "epochs": 2, "steps": 1, "progress": False, "val_loader": val_loader}
        robusttune.harden(a_model(), batches, out=tmp_path, **settings, **more)

    def stop(facts):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        taken(held, on_epoch=stop)
    with pytest.raises(InterruptedError):
        taken(held, resume=True, on_epoch=stop)
    assert "goes on with other" not in caplog.text
    taken(others, resume=True)
    assert "goes on with other images held out than it began with, so that the accuracies" in caplog.text
    caplog.clear()
    taken(None, resume=True)
    assert "goes on with other images held out" in caplog.text


def test_a_checkpoint_that_some_processes_do_not_see_is_not_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_checks.distributed, "gathered", lambda seen: [seen, False, True])
    (tmp_path / files.STATE).touch()
    with pytest.raises(ValueError, match=r"not where rank 1 runs, which would begin afresh"):
        check_shared(tmp_path)


def test_a_finished_run_is_not_run_again_and_its_files_hold_the_best_weights(unbroken, tmp_path):
    folder, weights = unbroken
    before = (folder / "log.jsonl").read_text()
    assert same(run(folder, resume=True).state_dict(), weights)
    assert (folder / "log.jsonl").read_text() == before
    fresh = a_model()
    fresh.load_state_dict(files.load_weights(folder), strict=True)
    assert same(fresh.state_dict(), weights)
    assert {path.name for path in folder.iterdir()} == {
        "state.pt", "model.safetensors", "last.safetensors", "heads.safetensors", "run.json", "log.jsonl", "manifest.json",
    }  # fmt: skip


@pytest.mark.slow
def test_resume_without_a_checkpoint_starts_afresh(unbroken, tmp_path):
    assert same(run(tmp_path / "new", resume=True).state_dict(), unbroken[1])


def test_a_full_folder_is_not_written_into(unbroken, tmp_path):
    with pytest.raises(ValueError, match=r"is not empty: pass resume=True"):
        run(unbroken[0], resume=False)
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"is a file, but a folder is needed"):
        run(file, resume=False)
    with pytest.raises(ValueError, match=r"resume=True needs out="):
        run(None, resume=True)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("resume", [False, True])
def test_weights_that_no_run_wrote_are_not_replaced(resume, tmp_path):
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=r"holds 'model.safetensors', but no run.json, .* this one would replace it: name"
    ):
        run(tmp_path, resume=resume)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(mine.name, b"mine")]


def copy_of(folder, to):
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_cut_checkpoint_is_refused_by_name(unbroken, tmp_path, share):
    folder = copy_of(unbroken[0], tmp_path / "cut")
    whole = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError, match=r"state\.pt.*cannot be read as a checkpoint of robusttune.*start the run afresh"
    ):
        run(folder, resume=True)


def test_a_checkpoint_with_a_changed_byte_is_refused(unbroken, tmp_path):
    folder = copy_of(unbroken[0], tmp_path / "changed")
    whole = bytearray((folder / "state.pt").read_bytes())
    whole[len(whole) // 2] ^= 1
    (folder / "state.pt").write_bytes(whole)
    with pytest.raises(ValueError, match=r"state\.pt.*(cannot be read|checksum)"):
        run(folder, resume=True)


def test_a_foreign_checkpoint_is_refused(unbroken, tmp_path):
    folder = copy_of(unbroken[0], tmp_path / "foreign")
    torch.save({"weights": torch.ones(2)}, folder / "state.pt")
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint of robusttune"):
        run(folder, resume=True)


def test_a_run_with_other_arguments_is_not_resumed(unbroken):
    with pytest.raises(ValueError, match=r"other arguments \(epochs was 5 and is 4\).*init_from="):
        run(unbroken[0], resume=True, epochs=4)
