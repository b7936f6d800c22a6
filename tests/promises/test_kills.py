"""SIGKILL at random moments of training, pre-training, evaluation and trial: what was killed goes on to the same result."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"
LONGEST = 500  # seconds


@pytest.fixture(scope="module")
def processes():
    """A context whose processes have the packages imported at their start, so that kills meet them at work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setenv("PYTHONWARNINGS", "ignore")
        patch.syspath_prepend(str(SUPPORT))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["killed_work"])
        yield context


def started(processes, case, folder):
    """Start a run, or the resume of one, and return its process once it is at work, and when that was."""
    import killed_work

    folder.mkdir(exist_ok=True)
    (folder / killed_work.AT_WORK).unlink(missing_ok=True)
    process = processes.Process(target=killed_work.work, args=(case, folder))
    process.start()
    until = time.monotonic() + LONGEST
    while not (folder / killed_work.AT_WORK).exists() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    return process, time.monotonic()


def finished(processes, case, folder):
    """The result of a run that nobody kills, and how long it took."""
    process, began = started(processes, case, folder)
    process.join(LONGEST)
    assert process.exitcode == 0, process.exitcode
    return torch.load(folder / "result.pt", weights_only=True), time.monotonic() - began


def killed(processes, case, folder, seconds):
    """Kill a run that has been at work for so many seconds; returns whether it still was."""
    process, _ = started(processes, case, folder)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kills"), [("training", 20), ("pretraining", 12), ("evaluation", 10), ("trial", 8)])
def test_50_kills_at_random_moments_change_nothing(case, kills, processes, tmp_path, capsys):
    whole, seconds = finished(processes, case, tmp_path / "whole")
    generator, folder, hits = random.Random(case), 0, 0
    while hits < kills:
        folder += 1
        assert folder <= kills + 5, "runs end before they are killed"
        place = tmp_path / f"killed {folder}"
        # Some resumes get further than others, so that the kills are spread over all of the run and its start.
        while hits < kills and killed(processes, case, place, generator.uniform(0.05, 0.9) * seconds):
            hits += 1
        again, took = finished(processes, case, place)
        seconds = min(seconds, max(took, 0.8 * seconds))  # another program may have slowed the first one down
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[name], whole[name]) for name in whole)
    with capsys.disabled():
        print(f"\n{case}: {hits} kills at work in {folder} folders, all of which went on to the same result")
