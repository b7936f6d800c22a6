"""On a card: a training step in many ways, its share of the floor, where it waits; see gpu.py."""

import json
import os
import time
import warnings
from collections import Counter
from functools import partial
from statistics import median

import torch
from attacks import EPS, STEPS
from attacks import scene as network
from card import ROOT, SIZE, text, tf32, warm
from card_facts import COPIED
from card_floor import floor, work_of
from steps import NORM, loop, optimizer_of
from torch.utils.data import DataLoader, TensorDataset

HAND, MINE = "loop by hand, channels_last", "robusttune, channels_last"
WORDS = {  # in the names of contenders, and their settings
    "channels_last": {"channels_last": True},
    "folded": {"fold": True},
    "CUDA graphs": {"graphs": True},
    "bf16": {"precision": "bf16"},
    "compiled": {"compiled": True},
    "no TF32": {"allowed": False},
}
WAYS = ("folded", "CUDA graphs", "folded, CUDA graphs", "bf16", "bf16, folded", "bf16, CUDA graphs")
WAYS += ("bf16, folded, CUDA graphs", "no TF32")
NAMES = ["torchattacks", "loop by hand", HAND, f"{HAND}, bf16", "robusttune", "robusttune, folded"]
NAMES += ["robusttune, folded, CUDA graphs", MINE, *(f"{MINE}, {way}" for way in WAYS)]
COMPILED = [f"{MINE}, bf16, compiled", f"{MINE}, compiled"]


def ours(*, model, side, batch, device, channels_last=False, precision="fp32", allowed=None, **extras):
    """A step of RobustLoss and an optimiser; extras: fold, graphs, compiled."""
    from robusttune import RobustLoss, ThreatModel
    from robusttune.model.cuda_graphs import Graphs
    from robusttune.training.precision import Precision

    net, images, labels = network(model, side, batch, device)
    if channels_last:
        net.to(memory_format=torch.channels_last)
    robust_loss = RobustLoss(net, ThreatModel(NORM, EPS[NORM]), tasks=None, steps=STEPS, images=images.cpu()).train()
    robust_loss.passes.replay(Graphs() if extras.get("graphs") else None)
    if extras.get("fold") and robust_loss.fold(images) is None:
        raise RuntimeError("no batch norm could be folded")
    robust_loss.passes.compile("attack" if extras.get("compiled") else "no")
    optimizer = optimizer_of(robust_loss.parameters())

    def work():
        optimizer.zero_grad(set_to_none=True)
        with tf32(allowed):
            with Precision(precision).autocast(images.device):
                loss = robust_loss(images, labels)["loss"]
            loss.backward()
            optimizer.step()

    return work


def by_hand(*, device, channels_last=False, precision="fp32", **settings):
    """A step by hand, in fp32 or under autocast."""
    work = loop(device=device, channels_last=channels_last, **settings)

    def autocast():
        with torch.autocast(device, torch.bfloat16):
            work()

    return autocast if precision == "bf16" else work


BUILDS = {"torchattacks": partial(by_hand, peer="torchattacks"), "loop by hand": by_hand, "robusttune": ours}


def contender(name, size, device):
    """The function that builds a contender, its settings, and the numbers that it computes with."""
    first, *words = name.split(", ")
    way = {key: value for word in words for key, value in WORDS[word].items()}
    tf32 = device == "cuda" and way.get("allowed", torch.backends.cudnn.allow_tf32)
    settings = dict(zip(("model", "side", "batch"), size, strict=True), device=device, **way)
    return partial(BUILDS[first], **settings), way, way.get("precision", "tf32" if tf32 else "fp32")


def steps(scene):
    """A training step, PGD-10 and the update, in many ways."""
    for size in scene.sizes:
        compared(scene, size, NAMES)
    cost = 30
    for size in scene.sizes:
        for name in COMPILED:
            if scene.has(cost, f"{size[0]}, {name}"):
                began = time.monotonic()
                compared(scene, size, [MINE, name])
                cost = time.monotonic() - began
        cost *= 2.5  # of a model with more layers
    return {}


def compared(scene, size, names, rounds=5):
    """Build and warm up each contender, then time them in turns; add a row for each.

    The first turn is not counted: in it torch allocates the memory that was given back after each warm-up.
    """
    rows, works = {}, {}
    for name in names:
        build, way, numbers = contender(name, size, scene.device)
        rows[name] = scene.add({"size": SIZE.format(*size), "name": name, "numbers": numbers, "seconds": []})
        if not scene.cuda and {"graphs", "allowed"} & set(way):
            rows[name]["note"] = "CUDA only"
        elif scene.has(10, f"{size[0]}, {name}"):
            works[name] = warm(scene, rows[name], build)
    works = {name: work for name, work in works.items() if work is not None}
    for turn in range(-1, rounds):
        first = turn % max(1, len(works))
        now = list(works)[first:] + list(works)[:first]
        if turn > 0 and scene.left < 1.2 * sum(rows[name]["warm"] for name in now):
            break
        for name in now:
            try:
                rows[name]["seconds"] += [scene.seconds(works[name])] * (turn >= 0)
            except Exception as error:
                rows[name]["note"] = text(error)
                del works[name]
                scene.save()
                scene.free()
        for row in (rows[name] for name in works if turn >= 0):
            row |= summary(row["seconds"], rows[MINE]["seconds"], size[2])
        scene.save()
    works.clear()
    torch._dynamo.reset()
    scene.free()


def summary(seconds, theirs, images):
    """Medians of the turns, and of the ratios to another's turns, if it has any."""
    middle = median(seconds)
    found = {"turns": len(seconds), "images/s": images / middle, "ms": 1000 * middle}
    ratios = [one / other for one, other in zip(seconds, theirs, strict=False)]
    if ratios:
        found[f"time against {MINE}"] = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    return found


def share(scene):
    """How near the best steps are to the floor that operations and memory set, and where a step waits for the card."""
    file = scene.options.out / "gpu.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    ceilings, steps = parts.get("ceilings", {}), parts.get("steps", {}).get("rows", [])
    copies = [row[COPIED] for row in ceilings.get("rows", []) if COPIED in row]
    known = {"rates": ceilings.get("rates"), "bandwidth": next(iter(copies), None)}
    for model, side, batch in scene.sizes:
        size = SIZE.format(model, side, batch)
        work = work_of(network(model, side, 1, "cpu")[0], (batch, 3, side, side), STEPS)
        rows = {row["name"]: row for row in reversed(steps) if row["size"] == size and "ms" in row}
        for short in (False, True):
            mine = [row for name, row in rows.items() if "robusttune" in name and (row["numbers"] == "bf16") == short]
            for best in sorted(mine, key=lambda row: row["ms"])[: all(known.values())]:
                least = floor(work, best["numbers"], **known)
                kept = {key: best[key] for key in ("size", "name", "numbers", "ms")}
                scene.add({**kept, **least, "share": least["floor, ms"] / best["ms"]})
        if {HAND, MINE} <= set(rows):
            own = 1 - rows[HAND]["ms"] / rows[MINE]["ms"]
            scene.add({"size": size, "name": f"what {MINE} adds to {HAND}", "share": own})
    if not (all(known.values()) and steps):
        scene.found["left out"].append("floors: run ceilings and steps first, with the same --out")
    return waits(scene) if scene.cuda else {"waits": "CUDA only"}


def waits(scene):
    """Where a step of RobustLoss, and ten steps of harden, wait for the card."""
    import robusttune

    model, side, _ = scene.sizes[0]
    data = TensorDataset(torch.rand(1024, 3, side, side), torch.randint(10, (1024,)))
    settings = {"norm": NORM, "update_batch": None, "device": scene.device, "progress": False}

    def hardening(count):
        net = network(model, side, 1, "cpu")[0]
        return partial(robusttune.harden, net, DataLoader(data, 32, pin_memory=True), max_steps=count, **settings)

    def places(work, mode="warn"):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode(mode)
            try:
                work()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        syncs = [each for each in seen if "called a synchronizing" in str(each.message)]
        return Counter(f"{each.filename.removeprefix(str(ROOT) + os.sep)}:{each.lineno}" for each in syncs)

    found = {}
    for name in (MINE, f"{MINE}, bf16, folded, CUDA graphs"):
        row = {}
        work = warm(scene, row, contender(name, (model, side, 32), scene.device)[0])
        if work is None:
            found[f"a step of {name}"] = row["note"]
            continue
        try:
            places(work, "error")
            found[f"a step of {name}"] = "does not wait"
        except RuntimeError as error:
            found[f"a step of {name}"] = f"{text(error)}; waits: {dict(places(work))}"
    hardening(12)()
    found["ten steps of harden wait at"] = dict(places(hardening(22)) - places(hardening(12)))
    return found
