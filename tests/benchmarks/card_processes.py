"""On a card: short runs of harden in two processes that share it, then in one; see gpu.py.

torchrun starts this file as each of the two. An alarm ends them, as they outlive a torchrun that is killed.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from attacks import scene as network
from card import Scene
from steps import NORM
from torch import distributed
from torch.utils.data import DataLoader, TensorDataset

COUNT = 2
CASES = {"default": {}, "bf16, folded, CUDA graphs": {"precision": "bf16", "tune": True}}
BUDGET = 4.0  # seconds of each run at most


def processes(scene):
    """Two processes on one card, whose weights must end alike, and one process alone with the same images."""
    if not scene.cuda:
        torch.set_num_threads(1)  # as torchrun sets it for its processes
    failed = together(scene) if scene.has(20, "two processes") else []
    for name in CASES:
        if scene.has(BUDGET + 4, f"one process, {name}"):
            scene.add(row_of(f"one process, {name}", [hardened(scene, name)]))
    return {"failed": failed} if failed else {}


def together(scene):
    """Add rows of two processes; returns what failed."""
    with tempfile.TemporaryDirectory() as folder:
        failed = launched(scene, folder)
        for name in CASES:
            files = [file_of(folder, name, rank) for rank in range(COUNT)]
            if all(file.exists() for file in files):
                row = row_of(f"two processes, {name}", [torch.load(file, weights_only=True) for file in files])
                scene.add(row)
                failed += ["the weights of two processes differ"] * (row["weights differ by"] != 0)
            elif not failed:
                failed = [f"{name}: a process left no results"]
    return failed


def file_of(folder, name, rank):
    """The file of what a process found in a case."""
    return Path(folder) / f"{list(CASES).index(name)}-{rank}.pt"


def launched(scene, folder):
    """Run torchrun; returns its last lines where it failed or did not end in time, else nothing."""
    seconds = max(2, min(60, int(scene.left) - 4))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(COUNT)]
    command += [__file__, "--device", scene.device, "--out", folder, "--seconds", str(seconds)] + [
        "--tiny"
    ] * scene.tiny
    # Where there are several cards, both processes see the first one alone.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": first} if scene.cuda else {})}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            process.terminate()  # torchrun ends its processes
        finally:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.seek(0)
        last = [line[:300] for line in log.read().splitlines()[-11:]]
    if status is None:
        return [*last, f"torchrun was ended after {seconds} s"]
    return [*last, f"torchrun ended with status {status}"] if status else []


def hardened(scene, name):
    """What this process finds in a case: weights, seconds, steps, images, an accuracy, warnings."""
    import robusttune
    from robusttune.run import distributed as processes_of

    count, batch = (64, 16) if scene.tiny else (8192, 256)
    generator, warnings = torch.Generator().manual_seed(0), []
    data = TensorDataset(
        torch.rand(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)
    )
    model, handler = network("test_resnet", 32, 1, "cpu")[0], logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    settings = {"norm": NORM, "device": scene.device, "progress": False, **CASES[name]}
    logging.getLogger("robusttune").addHandler(handler)
    loader, facts = DataLoader(data, batch, shuffle=True, pin_memory=scene.cuda), []
    try:
        robusttune.harden(model, loader, max_steps=2, **settings)  # which warms up
        settings |= {"epochs": 2, "time_budget": BUDGET, "on_epoch": facts.append}
        seconds = scene.seconds(lambda: robusttune.harden(model, loader, **settings))
        (record,) = robusttune.evaluate(model, loader, "clean", device=scene.device, progress=False)[:1]
    finally:
        logging.getLogger("robusttune").removeHandler(handler)
    return {
        "weights": model.state_dict(),
        "backend": distributed.get_backend() if processes_of.together() else "",
        "seconds": seconds,
        "steps": facts[-1]["step"],
        "images": [record.images, count],
        "clean": record.value,
        "log": warnings,
    }


def row_of(name, found):
    """A row of the table, of what the processes found."""
    row = {"run": name, "backend": found[0]["backend"], "seconds": max(each["seconds"] for each in found)}
    row |= {"steps": found[0]["steps"], "clean": found[0]["clean"], "log": [each["log"] for each in found]}
    row["images counted"] = " of ".join(map(str, found[0]["images"]))
    first, *others = (each["weights"] for each in found)
    for other in others:
        row["weights differ by"] = max(float((first[key].double() - other[key].double()).abs().max()) for key in first)
    return row


def main():
    """One of the two processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    signal.alarm(int(options.seconds))
    scene = Scene(options)
    for name in CASES:
        file = file_of(options.out, name, os.environ["RANK"])
        torch.save(hardened(scene, name), file.with_suffix(".new"))
        file.with_suffix(".new").rename(file)


if __name__ == "__main__":
    main()
