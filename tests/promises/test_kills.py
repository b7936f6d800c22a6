"""SIGKILL at random moments of training, pre-training, evaluation and trial: what was killed goes on to the same result."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SUPPORT = Path(__file__).parents[1] / "support"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
LONGEST = 300  # seconds


def started(case, folder):
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(SUPPORT / "killed_work.py"), case, str(folder)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(case, folder):
    """The result of a run that nobody kills, and how long it took."""
    began = time.monotonic()
    process = started(case, folder)
    errors = process.communicate(timeout=LONGEST)[1]
    assert process.returncode == 0, errors.decode()[-2000:]
    return torch.load(folder / "result.pt", weights_only=True), time.monotonic() - began


def killed(case, folder, seconds):
    """Kill a run after so many seconds; returns whether it was still at work."""
    process = started(case, folder)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kills"), [("training", 20), ("pretraining", 12), ("evaluation", 10), ("trial", 8)])
def test_50_kills_at_random_moments_change_nothing(case, kills, tmp_path, capsys):
    whole, seconds = finished(case, tmp_path / "whole")
    generator, folder, hits = random.Random(case), 0, 0
    while hits < kills:
        folder += 1
        assert folder <= kills + 5, "runs end before they are killed"
        place = tmp_path / f"killed {folder}"
        # Some resumes get further than others, so that the kills are spread over all of the run and its start.
        while hits < kills and killed(case, place, generator.uniform(0.2, 0.9) * seconds):
            hits += 1
        again, took = finished(case, place)
        seconds = min(seconds, max(took, 0.8 * seconds))  # another program may have slowed the first one down
        assert again.keys() == whole.keys()
        assert all(torch.equal(again[name], whole[name]) for name in whole)
    with capsys.disabled():
        print(f"\n{case}: {hits} kills at work in {folder} folders, all of which went on to the same result")
