"""What stops runs in practice: kills between two files, two runs in one folder, disks that are full or read-only."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

import robusttune
from robusttune.measuring.records import Records
from robusttune.run import files, folder

IMAGES, LABELS = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 4
SETTINGS = {"norm": "l2", "eps": 0.3, "steps": 2, "tasks": None, "progress": False, "device": "cpu"}
KILLED = """
import os, signal, sys
from tests.promises import test_faults as here
from robusttune.run import folder
written = folder.save_outputs
def save_outputs(*arguments):
    global calls
    calls += 1
    if calls == int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)
    written(*arguments)
calls, folder.save_outputs = 0, save_outputs
here.hardened(sys.argv[1], epochs=int(sys.argv[2]))
"""
TWO = """
import sys, time
from tests.promises import test_faults as here
class Slow:
    def __iter__(self): time.sleep(1.0); return iter([(here.IMAGES, here.LABELS)] * 3)
    def __len__(self): return 3
try:
    here.hardened(sys.argv[1], loader=Slow(), lr=float(sys.argv[2]), resume=False, epochs=3)
    print("finished", sys.argv[2])
except ValueError as error:
    print(error)
"""
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def hardened(out, *, loader=None, resume=True, **more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    robusttune.harden(model, loader or [(IMAGES, LABELS)] * 4, out=out, resume=resume, **SETTINGS, **more)
    return model


def same(model, weights):
    return all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def started(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.sample(1)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_kill_between_the_last_checkpoint_and_the_weights_is_mended_by_a_resume(epochs, tmp_path):
    process = started(KILLED, tmp_path, epochs)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    model, whole = hardened(tmp_path, epochs=epochs), hardened(tmp_path / "whole", epochs=epochs)
    assert same(model, whole.state_dict())
    assert same(model, files.load_weights(tmp_path))
    assert same(model, files.load_weights(tmp_path / files.LAST))


@pytest.mark.slow
def test_two_runs_with_other_settings_do_not_mix_in_one_folder(tmp_path):
    out = tmp_path / "run"
    processes = [started(TWO, out, lr) for lr in (0.01, 0.3)]
    said = [process.communicate()[0].strip() for process in processes]
    finished = [each for each in said if each.startswith("finished")]
    assert len(finished) == 1, said
    (refused,) = set(said) - set(finished)
    assert "is in use by another run" in refused or "is not empty" in refused
    lr = float(finished[0].split()[1])
    assert json.loads((out / "run.json").read_text())["arguments"]["lr"] == lr
    again = hardened(tmp_path / "alone", loader=[(IMAGES, LABELS)] * 3, lr=lr, epochs=3)
    assert same(again, files.load_weights(out))


@pytest.mark.slow
def test_a_folder_in_use_is_refused_with_the_model_as_it_was(tmp_path):
    with folder.prepared(tmp_path, resume=True):
        code = "from tests.promises.test_faults import hardened\nimport sys\ntry: hardened(sys.argv[1], epochs=1)\nexcept ValueError as error: print(error)"
        said = started(code, tmp_path).communicate()[0]
    assert f"is in use by another run (process {os.getpid()} on " in said
    assert "nothing was written" in said
    assert list(tmp_path.iterdir()) == []


class Counted:
    """A loader that counts its batches."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        for _ in range(3):
            self.taken += 1
            yield IMAGES, LABELS

    def __len__(self):
        return 3


@pytest.fixture
def disk(tmp_path):
    """A disk of two megabytes, and how it is made read-only; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield place, lambda mode: subprocess.run(["mount", "-o", f"remount,{mode}", place], check=True)
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_is_read_only_or_full_is_found_out_before_anything_is_measured(disk):
    place, remount = disk
    loader, model = Counted(), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    remount("ro")
    with pytest.raises(ValueError, match=r"cannot be (written to|created) \(Read-only file system\)"):
        robusttune.evaluate(model, loader, ["clean", "sweep"], out=place, progress=False)
    remount("rw")
    (place / "filler").write_bytes(bytes(2**20 + 2**19))
    with pytest.raises(ValueError, match=r"cannot be written to \(No space left on device\): make room"):
        robusttune.evaluate(model, loader, ["clean", "sweep"], out=place / "e", progress=False)
    assert loader.taken == 0


@pytest.mark.parametrize(("copies", "enough"), [(5, False), (6.5, True)])
def test_a_disk_needs_room_for_the_checkpoint_that_replaces_another(copies, enough, tmp_path, monkeypatch):
    bytes_of_weights = 4 * (64 * 4 + 4)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=int(copies * bytes_of_weights)))
    if enough:
        hardened(tmp_path / "run")
        return
    with pytest.raises(
        ValueError, match=r"has room for 0 MiB, but a checkpoint and the weights of this run take at least"
    ):
        hardened(tmp_path / "run")


def test_a_disk_that_fills_up_in_training_says_so_and_the_run_goes_on_exactly_once_there_is_room(disk):
    place, _ = disk
    whole = hardened(place.parent / "whole", epochs=3)

    def fill(facts):
        if facts["epoch"] == 1:
            file = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
            with suppress(OSError):
                while True:
                    os.write(file, bytes(1024))
            os.close(file)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(OSError, match=r"cannot be written \(No space left on device\): make room for it") as raised:
        robusttune.harden(model, [(IMAGES, LABELS)] * 4, out=place / "run", epochs=3, on_epoch=fill, **SETTINGS)
    assert raised.value.errno == errno.ENOSPC
    assert same(model, before)
    (place / "filler").unlink()
    assert same(hardened(place / "run", epochs=3), whole.state_dict())
    assert same(whole, files.load_weights(place / "run"))


def test_what_was_measured_is_returned_and_kept_elsewhere_where_the_folder_fails_at_the_end(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    saved = Records.save

    def save(self, path):
        if "gone" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return saved(self, path)

    monkeypatch.setattr(Records, "save", save)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    records = robusttune.evaluate(model, Counted(), "clean", out=tmp_path / "gone", progress=False)
    (kept,) = tmp_path.glob("robusttune-*/records.jsonl")
    assert list(Records.load(kept)) == list(records)
    assert "does not take them (No space left on device): they are in" in caplog.text


@pytest.mark.parametrize("damage", [b"\xff\xfe broken \x80\n", b'{"epoch": "?"}\n', b'{"epo'])
def test_a_damaged_line_of_the_log_does_not_cost_a_resume(damage, tmp_path):
    whole = hardened(tmp_path / "whole", epochs=3)
    hardened(tmp_path / "run", epochs=2)
    log = tmp_path / "run" / "log.jsonl"
    log.write_bytes(damage + log.read_bytes() if damage.endswith(b"\n") else log.read_bytes() + damage)
    assert same(hardened(tmp_path / "run", epochs=2), files.load_weights(tmp_path / "run"))
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2]
    assert not same(whole, files.load_weights(tmp_path / "run"))


@pytest.mark.slow
def test_a_loader_worker_of_a_killed_run_does_not_keep_its_folder(tmp_path):
    code = (
        "import sys, torch\nfrom torch.utils.data import DataLoader, TensorDataset\nfrom tests.promises import test_faults as here\n"
        "data = TensorDataset(here.IMAGES, here.LABELS)\n"
        "here.hardened(sys.argv[1], loader=DataLoader(data, 4, num_workers=2), epochs=500)"
    )
    process = started(code, tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "state.pt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    with folder.prepared(tmp_path, resume=True):
        assert (tmp_path / "state.pt").exists()
