"""Two runs in one folder at the same time: one works, the other is refused, and what they write is never mixed."""

import copy
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import small_trials
import torch
from small_trials import tried

import robusttune
from robusttune.measuring.records import Records
from robusttune.run import files, folder

SUPPORT, ROOT = Path(__file__).parents[1] / "support", Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{SUPPORT}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
IMAGES, LABELS = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3
QUIET = {"progress": False, "device": "cpu"}
MODEL = small_trials.small()


def small():
    """A copy, which draws nothing from the random states that the run of another thread uses."""
    return copy.deepcopy(MODEL)


class Slow:
    """Batches that take a while, so that the runs overlap."""

    def __iter__(self):
        time.sleep(0.2)
        return iter([(IMAGES, LABELS)] * 2)

    def __len__(self):
        return 2


class SlowImages(Slow):
    def __iter__(self):
        time.sleep(0.2)
        return iter([IMAGES] * 2)


def hardened(out, *, lr=0.01, resume=False, epochs=2):
    settings = {"norm": "l2", "eps": 0.3, "steps": 1, "tasks": None, "epochs": epochs, "lr": lr, **QUIET}
    return robusttune.harden(small(), Slow(), out=out, resume=resume, **settings)


KINDS = {
    "harden": hardened,
    "harden, other rate": lambda out: hardened(out, lr=0.3),
    "resume": lambda out: hardened(out, resume=True),
    "resume, other rate": lambda out: hardened(out, lr=0.3, resume=True),
    "pretrain": lambda out: robusttune.pretrain(
        small(), SlowImages(), tasks={"rotation": 1.0}, epochs=2, out=out, **QUIET
    ),
    "evaluate": lambda out: robusttune.evaluate(small(), Slow(), ["clean", "sweep"], out=out, **QUIET),
    "evaluate, resumed": lambda out: robusttune.evaluate(small(), Slow(), ["clean"], out=out, resume=True, **QUIET),
    "poc": lambda out: tried(out, epochs=1, seeds=1),
    "report": lambda out: robusttune.report(
        robusttune.evaluate(small(), Slow(), "clean", **QUIET), out, sections=("summary",)
    ),
}
PAIRS = [
    ("harden", "harden, other rate"), ("harden", "harden"), ("harden", "resume"), ("harden", "resume, other rate"),
    ("resume", "resume, other rate"), ("harden", "pretrain"), ("pretrain", "pretrain"), ("harden", "evaluate"),
    ("evaluate", "evaluate"), ("evaluate", "evaluate, resumed"), ("harden", "poc"), ("poc", "poc"), ("resume", "resume"),
]  # fmt: skip


def outcome(kind, out):
    """Make the call; "done", or the words of a refusal."""
    try:
        KINDS[kind](out)
    except ValueError as refused:
        return str(refused)
    return "done"


def in_threads(pair, out):
    said, start = [None, None], threading.Barrier(2)

    def call(place):
        start.wait()
        said[place] = outcome(pair[place], out)

    threads = [threading.Thread(target=call, args=(place,)) for place in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return said


def in_processes(pair, out):
    """Each imports first, and begins when both are there."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.promises import test_pairs as here\n"
        "kind, out, me = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])\nme.touch()\n"
        "while len(list(me.parent.glob('ready*'))) < 2: time.sleep(0.005)\nprint('SAID' + here.outcome(kind, out))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code, kind, str(out), str(out.parent / f"ready{place}")],
            env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for place, kind in enumerate(pair)
    ]  # fmt: skip
    return [each.communicate()[0].rpartition("SAID")[2].strip() for each in started]


def check_not_mixed(pair, said, out):
    """At least one is done; who is not was refused in words; what is in the folder is that of one run alone."""
    assert "done" in said, said
    words = (
        "is in use by another run",
        "is not empty",
        "holds a run with other arguments",
        "holds no run",
        "resume=True",
    )
    assert all(each == "done" or any(word in each for word in words) for each in said), said
    if (out / "run.json").exists():
        facts = json.loads((out / "run.json").read_text())
        done = [KINDS[kind] for kind, end in zip(pair, said, strict=True) if end == "done"]
        if facts.get("run") == "harden" and facts["arguments"]["epochs"] == 2:
            alone = hardened(out.parent / "alone", lr=facts["arguments"]["lr"])
            best = files.load_weights(out)
            assert all(torch.equal(best[name], tensor) for name, tensor in alone.state_dict().items())
        assert done
    if (out / "log.jsonl").exists():
        logged = [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()]
        assert logged == sorted(set(logged))
    for path in out.rglob("records.jsonl"):
        assert list(Records.load(path))
    with folder.prepared(out, resume=True):  # nobody holds it any more
        assert not list(out.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("together", [in_threads, in_processes])
@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
@pytest.mark.filterwarnings("ignore")
def test_pairs_of_runs_in_one_folder_are_not_mixed(pair, together, tmp_path):
    said = together(pair, tmp_path / "run")
    check_not_mixed(pair, said, tmp_path / "run")


@pytest.mark.filterwarnings("ignore")
def test_a_second_run_in_a_folder_is_refused_in_a_thread_too(tmp_path):
    pair = ("harden", "harden, other rate")
    said = in_threads(pair, tmp_path / "run")
    assert said.count("done") == 1
    check_not_mixed(pair, said, tmp_path / "run")
