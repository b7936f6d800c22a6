"""On a card: the tests, agreement with the CPU, the ceilings of arithmetic and memory, corruptions; see gpu.py."""

import re
import subprocess
import sys
from collections import Counter
from functools import partial
from statistics import median

import torch
from attacks import scene as network
from card import ROOT, tf32, warm

COPIED = "GB/s read and written"


def tests(scene):
    """The tests that need an accelerator."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/repository/test_gpu.py",
        "-m",
        "gpu",
        "-n",
        "0",
        "-p",
        "no:benchmark",
        "-v",
        "--tb=short",
    ]
    counts, lines = Counter(), []
    row = scene.add({"passed": 0, "failed": 0, "skipped": 0, "error": 0})
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        lines.append(line.rstrip()[:300])
        counts.update(word.lower() for word in re.findall(r"::\S+ (PASSED|FAILED|SKIPPED|ERROR)", line))
        row.update(counts)
        scene.found["lines"] = [each for each in lines if each.startswith(("E  ", "FAILED", "tests/", "____"))][-300:]
        scene.save()
    status = process.wait()
    return {"exit status": status} if counts else {"exit status": status, "lines": lines[-12:]}


def agreement(scene):
    """How far the results on the card are from those on the CPU."""
    from test_gpu import gradients_on

    def far(there, here):
        return float((there.cpu().double() - here.double()).norm() / here.double().norm().clamp(min=1e-30))

    for tasks in ("none", "separate", "joint"):
        (there, found), (here, expected) = (gradients_on(torch.device(each), tasks) for each in (scene.device, "cpu"))
        gradients = far(*(torch.cat([each[name].flatten() for name in expected]) for each in (found, expected)))
        loss = abs(there - here) / abs(here)
        scene.add({"what": f"a step in float64, {tasks}", "loss": loss, "gradients": gradients})
    net, images, _ = network(scene.sizes[0][0], 32, 64, "cpu")
    with torch.no_grad():
        expected = net(images)
        net, images = net.to(scene.device), images.to(scene.device)
        for name, allowed, short in (("torch's setting", None, False), ("no TF32", False, False), ("bf16", None, True)):
            with tf32(allowed), torch.autocast(scene.device, torch.bfloat16, enabled=short):
                scene.add({"what": f"{scene.sizes[0][0]} in float32, {name}", "logits": far(net(images), expected)})
    return {}


def ceilings(scene):
    """The rates of matrix products and of a copy, which bound those of a step."""

    def timed(work, times=10):
        for _ in range(3):
            work()
        if not scene.cuda:
            return median(scene.seconds(work) for _ in range(times))
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(times)]
        for first, last in marks:
            first.record()
            work()
            last.record()
        torch.cuda.synchronize()
        return median(first.elapsed_time(last) for first, last in marks) / 1000

    side, rates = 256 if scene.tiny else 8192, {}
    for name, allowed in (("bf16", None), ("tf32", True), ("fp32", False)):
        kind = torch.bfloat16 if name == "bf16" else torch.float32
        factors = [torch.randn(side, side, device=scene.device).to(kind) for _ in range(2)]
        with tf32(allowed):
            rates[name] = 2e-12 * side**3 / timed(partial(torch.matmul, *factors))
        rate = {"TFLOP/s": rates[name]} if scene.cuda or name != "tf32" else {"note": "CUDA only"}
        scene.add({"what": f"matrix product of side {side}, {name}", **rate})
    del factors
    source = torch.rand(2**20 if scene.tiny else 2**30, device=scene.device)
    seconds = timed(partial(torch.empty_like(source).copy_, source))
    scene.add({"what": f"copy of {source.nbytes / 2**20:.0f} MiB", COPIED: 2e-9 * source.nbytes / seconds})
    return {"rates": rates}


def corruptions(scene):
    """Images a second of every corruption."""
    from robusttune import plugins

    for side, count in ((32, 8),) if scene.tiny else ((224, 64), (32, 512)):
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(scene.device)
        generator, total, failed = torch.Generator(scene.device).manual_seed(0), 0.0, []
        for name in plugins.names("corruptions"):
            row = scene.add({"corruption": name, "px": side, "batch": count})
            work = warm(scene, row, partial(partial, plugins.find("corruptions", name), images, 3, generator), times=1)
            if work is None:
                failed.append(name)
            else:
                seconds = median(scene.seconds(work) for _ in range(5))
                total += seconds
                row |= {"images/s": count / seconds, "ms": 1000 * seconds}
        what = "all, one after the other" + f", but {', '.join(failed)}" * bool(failed)
        whole = {"images/s": count / max(total, 1e-9), "ms": 1000 * total}
        scene.add({"corruption": what, "px": side, "batch": count, **whole})
    return {}
