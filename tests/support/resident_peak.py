"""The real peak of memory of a short run on the processor, beside what `estimate` said; a program, as peaks need a fresh process.

`python tests/support/resident_peak.py '{"model": "resnet50", "side": 224, "batch": 4}'` prints both in bytes. Other keys are
arguments of `harden`, and "unlabeled", a number of images without labels that a teacher labels.
"""

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path

import timm
import torch
from whole_photographs import photographs

import robusttune
from robusttune.training import profiling

COMMON = {
    "norm": "linf",
    "eps": 4 / 255,
    "lr": 1e-4,
    "epochs": 1,
    "update_batch": None,
    "progress": False,
    "device": "cpu",
}
BATCHES = 3


def status(key):
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def network(name, side):
    """A model of timm with random weights."""
    return timm.create_model(name, num_classes=10, **({"img_size": side} if "vit" in name else {}))


def measured(model, side, batch, unlabeled=0, **settings):
    """Resident memory above what the process had before there was a model, at its peak; and the estimate."""
    small = [(torch.rand(4, 3, 32, 32), torch.arange(4))]
    robusttune.harden(network("test_resnet", 32), small, **COMMON)  # loads what is loaded once
    images = photographs(side).repeat(-(-batch // 6), 1, 1, 1)[:batch].clone()
    gc.collect()
    before = status("VmRSS")
    net = network(model, side)
    loader = [(images, torch.arange(batch) % 10)] * BATCHES
    chosen = {**COMMON, **settings, **({"unlabeled_loader": [images[:unlabeled]] * BATCHES} if unlabeled else {})}
    Path("/proc/self/clear_refs").write_text("5")  # the peak of before is forgotten
    robusttune.harden(net, loader, **chosen)
    real = status("VmHWM") - before
    profiling.WARM_UP, profiling.LEAST, profiling.ENOUGH = 1, 1, 0.0  # seconds do not matter here
    said = robusttune.estimate(net, loader, **chosen)
    return {"real": real, "said": said.peak_bytes, "largest batch": said.largest_batch, "counted": said.memory}


def in_a_fresh_process(case):
    """What `measured` returns for these arguments, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, json.dumps(case)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(json.dumps(measured(**json.loads(sys.argv[1]))))
