"""All that one NVIDIA card can say of robusttune in a few minutes, the most useful first.

    python tests/benchmarks/gpu.py --minutes 9 --out FOLDER
    python tests/benchmarks/gpu.py --minutes 9 --out FOLDER --only recipe --data fashion-mnist

Each part runs in a process of its own, which is ended at its limit; time that a part leaves goes to the next one. Results are
in FOLDER/gpu.json and, as one page, in FOLDER/gpu.md, both written after each part; those of the part that runs are in
FOLDER/NAME.json, written after each row. With `--only`, the other parts of FOLDER/gpu.json are kept.
"""

import argparse
import copy
import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

import torch
from attacks import EPS, STEPS
from attacks import scene as network
from harness import versions
from steps import NORM, loop, optimizer_of
from torch.utils.data import DataLoader, Dataset, TensorDataset

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/repository", "tests/support", "examples", "."):
    sys.path.insert(1, str(ROOT / folder))

GRACE = 6  # seconds of a part's limit that go to the start of its process
SIZE = "{}, {} px, batch {}"
FASHION = {"norm": NORM, "eps": 0.1, "progress": False}
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


class Scene:
    """The device and the sizes of a part, the time that is left to it, and the file of its results."""

    def __init__(self, options):
        self.options, self.device, self.tiny = options, options.device, options.tiny
        self.cuda, self.ends = options.device == "cuda", time.monotonic() + options.seconds
        self.sizes = [("test_resnet", 32, 8)] if self.tiny else [("resnet18", 32, 512), ("resnet50", 224, 128)]
        self.found = {"rows": [], "left out": []}

    @property
    def left(self):
        """Seconds."""
        return self.ends - time.monotonic()

    def has(self, seconds, what):
        """Whether so many seconds are left; else the results say what was left out."""
        if self.left < (1 if self.tiny else seconds):
            self.found["left out"].append(f"{what}: {max(0, self.left):.0f} s were left, {seconds:.0f} s are needed")
            self.save()
            return False
        return True

    def add(self, row):
        """Add a row to the results."""
        self.found["rows"].append(row)
        self.save()
        return row

    def save(self):
        """Write the results; a process that is ended meanwhile leaves those of before."""
        file = self.options.out / f"{self.options.part}.json"
        file.with_suffix(".new").write_text(json.dumps(self.found, indent=1))
        file.with_suffix(".new").replace(file)

    def seconds(self, work):
        """Seconds of some work, until the device is done."""
        wait = torch.cuda.synchronize if self.cuda else lambda: None
        wait()
        began = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - began

    def free(self):
        """Give back the memory that nothing holds any more."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()


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
    return {"exit status": process.wait()}


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


@contextmanager
def tf32(allowed):
    """Allow or forbid TF32 in matrix products and convolutions; None for torch's own setting."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    kept = [place.allow_tf32 for place in places]
    try:
        for place in places if allowed is not None else ():
            place.allow_tf32 = allowed
        yield
    finally:
        for place, before in zip(places, kept, strict=True):
            place.allow_tf32 = before


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
    scene.add(
        {"what": f"copy of {source.nbytes / 2**20:.0f} MiB", "GB/s read and written": 2e-9 * source.nbytes / seconds}
    )
    return {"rates": rates}


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
    """Build and warm up each contender, then time them in turns; add a row for each."""
    rows, works = {}, {}
    for name in names:
        build, way, numbers = contender(name, size, scene.device)
        rows[name] = scene.add({"size": SIZE.format(*size), "name": name, "numbers": numbers, "seconds": []})
        if not scene.cuda and {"graphs", "allowed"} & set(way):
            rows[name]["note"] = "CUDA only"
        elif scene.has(10, f"{size[0]}, {name}"):
            works[name] = warm(scene, rows[name], build)
    works = {name: work for name, work in works.items() if work is not None}
    for turn in range(rounds):
        first = turn % max(1, len(works))
        now = list(works)[first:] + list(works)[:first]
        if turn and scene.left < 1.2 * sum(rows[name]["warm"] for name in now):
            break
        for name in now:
            try:
                rows[name]["seconds"].append(scene.seconds(works[name]))
            except Exception as error:
                rows[name]["note"] = text(error)
                del works[name]
                scene.free()
        for row in (rows[name] for name in works):
            middle = median(row["seconds"])
            row |= {"images/s": size[2] / middle, "ms": 1000 * middle}
            ratios = [mine / theirs for mine, theirs in zip(row["seconds"], rows[MINE]["seconds"], strict=False)] or [0]
            row[f"time against {MINE}"] = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        scene.save()
    works.clear()
    torch._dynamo.reset()
    scene.free()


def text(error):
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]


def warm(scene, row, build, times=3):
    """A contender's work after its warm-up; None where it fails, or goes on without what it was to use: its row says why."""
    heard, logger = [], logging.getLogger("robusttune")
    handler = logging.Handler()
    handler.emit = lambda record: heard.append((record.levelno, record.getMessage()))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        work = build()
        seconds = [scene.seconds(work) for _ in range(times)]
        row |= {"first call s": seconds[0], "warm": seconds[-1], "log": [line for _, line in heard]}
        fallen = [line for level, line in heard if level >= logging.WARNING]
        row |= {"note": fallen[0]} if fallen else {}
        return None if fallen else work
    except Exception as error:
        row["note"] = text(error)
        return None
    finally:
        logger.removeHandler(handler)
        scene.free()
        scene.save()


def share(scene):
    """How near the best steps are to the floor that operations set, and where a step waits for the card."""
    from torch.utils.flop_counter import FlopCounterMode

    file = scene.options.out / "gpu.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    rates, steps = parts.get("ceilings", {}).get("rates", {}), parts.get("steps", {}).get("rows", [])
    for model, side, batch in scene.sizes:
        size = SIZE.format(model, side, batch)
        net, images, _ = network(model, side, 1, "cpu")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net(images)
        # Each of the attack's steps is a pass forward and one back; the update's way back is two.
        operations = (2 * STEPS + 3) * batch * counter.get_total_flops()
        rows = {row["name"]: row for row in reversed(steps) if row["size"] == size and "ms" in row}
        for short in (False, True):
            mine = [row for name, row in rows.items() if "robusttune" in name and (row["numbers"] == "bf16") == short]
            for best in sorted(mine, key=lambda row: row["ms"])[: bool(rates)]:
                floor = operations / rates[best["numbers"]] / 1e9
                kept = {key: best[key] for key in ("size", "name", "numbers", "ms")}
                scene.add({**kept, "floor, ms": floor, "share": floor / best["ms"]})
        if {HAND, MINE} <= set(rows):
            own = 1 - rows[HAND]["ms"] / rows[MINE]["ms"]
            scene.add({"size": size, "name": f"what {MINE} adds to {HAND}", "share": own})
    if not (rates and steps):
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


def corruptions(scene):
    """Images a second of every corruption."""
    from robusttune import plugins

    for side, count in ((32, 8),) if scene.tiny else ((224, 64), (32, 512)):
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(scene.device)
        generator, total = torch.Generator(scene.device).manual_seed(0), 0.0
        for name in plugins.names("corruptions"):
            row = scene.add({"corruption": name, "px": side, "batch": count})
            work = warm(scene, row, partial(partial, plugins.find("corruptions", name), images, 3, generator), times=1)
            if work is not None:
                seconds = median(scene.seconds(work) for _ in range(5))
                total += seconds
                row |= {"images/s": count / seconds, "ms": 1000 * seconds}
        whole = {"images/s": count / max(total, 1e-9), "ms": 1000 * total}
        scene.add({"corruption": "all, one after the other", "px": side, "batch": count, **whole})
    return {}


def fashion(scene, *, train=None, batch=128, test=1000):
    """Loaders of Fashion-MNIST."""
    import images

    images.FASHION_MNIST = scene.options.data or images.FASHION_MNIST
    sizes = {"train": 200, "test": 8} if scene.tiny else {"train": train, "test": test}
    training, testing = images.loaders("fashion-mnist", batch=500, **sizes)
    return DataLoader(training.dataset, 20 if scene.tiny else batch, shuffle=True), testing


def ordinarily(scene, training, seed):
    """A small model after two ordinary epochs, and the seconds that they took."""
    from ordinary import new_model, train

    torch.manual_seed(seed)
    model = new_model("test_resnet", 1, 10, 32).to(scene.device)
    batches = [[tensor.to(scene.device) for tensor in batch] for batch in training]
    return model, scene.seconds(partial(train, model, batches, 1 if scene.tiny else 2, progress=False))


def evaluations(scene):
    """Seconds and accuracies of evaluations, of a small hardened model."""
    import robusttune

    training, testing = fashion(scene, train=20_000)
    model, ordinary = ordinarily(scene, training, 0)
    epochs = 1 if scene.tiny else 2
    hardened = scene.seconds(partial(robusttune.harden, model, training, preset="fast", epochs=epochs, **FASHION))
    for which in ("clean", "strong", "autoattack"):
        began = time.perf_counter()
        found = robusttune.evaluate(model, testing, which, **FASHION)
        last = found[0 if which == "clean" else -1]
        seconds = time.perf_counter() - began
        scene.add({"evaluation": which, "images": last.images, "seconds": seconds, "accuracy": last.value})
    return {"seconds of ordinary training": ordinary, "seconds of harden": hardened}


def memory(scene):
    """Peak memory of a short run, and what `estimate` said before."""
    import robusttune

    for model, side, batch in scene.sizes if scene.cuda else ():
        data = TensorDataset(torch.rand(4 * batch, 3, side, side), torch.randint(10, (4 * batch,)))
        loader = DataLoader(data, batch)
        for precision in ("fp32", "bf16"):
            settings = {"norm": NORM, "max_steps": 3, "update_batch": None, "precision": precision, "progress": False}
            net = network(model, side, 1, "cpu")[0]
            if not scene.has(10, f"{model}, {precision}"):
                continue
            said = robusttune.estimate(net, loader, **settings).peak_bytes
            scene.free()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            robusttune.harden(net, loader, **settings)
            real = torch.cuda.max_memory_allocated() - before
            sizes = {"estimate, MiB": said / 2**20, "harden, MiB": real / 2**20, "estimate / harden": said / real}
            scene.add({"size": SIZE.format(model, side, batch), "precision": precision, **sizes})
    return {} if scene.cuda else {"memory": "CUDA only"}


def recipe(scene):
    """The default recipe on all of Fashion-MNIST: seconds, and what the model is worth."""
    import robusttune

    runs = [(seed, {"precision": precision}, 128) for seed in range(3) for precision in ("fp32", "bf16")]
    runs.insert(2, (0, {"precision": "bf16", "update_batch": None}, 512))
    starts, needed, epochs = {}, 40, 1 if scene.tiny else 2
    for seed, settings, batch in runs:
        name = ", ".join([f"seed {seed}", f"batch {batch}", *(f"{key} {value}" for key, value in settings.items())])
        if not scene.has(needed, name):
            continue
        training, testing = fashion(scene, batch=batch)
        if seed not in starts:
            starts[seed] = ordinarily(scene, training, seed)[0]
        model, began = copy.deepcopy(starts[seed]), time.monotonic()
        work = partial(robusttune.harden, model, training, epochs=epochs, seed=seed, **settings, **FASHION)
        row = scene.add({"run": name, "seconds": scene.seconds(work)})
        records = robusttune.evaluate(model, testing, ["clean", "strong"], **FASHION)
        row |= {"clean": records[0].value, "strong": records[-1].value}
        scene.save()
        needed = 1.1 * (time.monotonic() - began)
    return {"epochs": epochs}


class Decoded(Dataset):
    """Random images, kept as bytes."""

    def __init__(self, count, side):
        self.pixels = torch.randint(256, (count, 3, side, side), dtype=torch.uint8)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return self.pixels[index].float() / 255, index % 10


def prefetch(scene):
    """Seconds of a step on images that workers load, and on images on hand."""
    import robusttune

    model, side, batch = scene.sizes[-1]
    few, many = (2, 4) if scene.tiny else (10, 20)
    workers = min(8, (os.cpu_count() or 2) - 1)
    data = Decoded(batch * (many + 3), side)
    workers_load = DataLoader(data, batch, num_workers=workers, pin_memory=scene.cuda)
    plain = DataLoader(data, batch, pin_memory=scene.cuda)
    on_hand = [next(iter(plain))] * many

    def run(loader, count):
        net = network(model, side, 1, "cpu")[0]
        return scene.seconds(partial(robusttune.harden, net, loader, norm=NORM, max_steps=count, progress=False))

    run(on_hand, 2)
    for name, loader in (("on hand", on_hand), (f"{workers} workers", workers_load), ("no workers", plain)):
        if scene.has(15, name):
            step = 1000 * (run(loader, many) - run(loader, few)) / (many - few)
            row = scene.add({"images": name, "ms a step": step, "images/s": 1000 * batch / step})
            row["more than the first, ms"] = step - scene.found["rows"][0]["ms a step"]
            row["loading alone, ms a batch"] = 1000 * scene.seconds(partial(list, map(len, loader))) / len(loader)
    return {}


PARTS = {  # with the share of the minutes that each may take, beside what those before it leave
    "tests": (tests, 0.20),
    "agreement": (agreement, 0.03),
    "ceilings": (ceilings, 0.03),
    "steps": (steps, 0.31),
    "share": (share, 0.05),
    "corruptions": (corruptions, 0.05),
    "evaluations": (evaluations, 0.10),
    "memory": (memory, 0.07),
    "recipe": (recipe, 0.11),
    "prefetch": (prefetch, 0.05),
}


def run(name, limit, options):
    """The results of a part in a process of its own, which is ended after so many seconds."""
    file = options.out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--part",
        name,
        "--seconds",
        f"{max(1.0, limit - GRACE)}",
        "--out",
        options.out,
    ]
    command += ["--device", options.device] + ["--tiny"] * options.tiny
    command += ["--data", options.data] if options.data else []
    began, environment = time.monotonic(), {**os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        how = {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, **how)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers, too
            process.wait()
        log.seek(0)
        last = log.read().splitlines()[-12:]
    found = json.loads(file.read_text()) if file.exists() else {"rows": []}
    file.unlink(missing_ok=True)
    if status != 0:
        found["failed"] = [f"ended at its limit of {limit:.0f} s"] if status is None else last
    return {**found, "seconds": time.monotonic() - began}


APART = ("rows", "seconds", "lines", "left out", "failed")


def shown(value):
    """A cell of a table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")


def page(parts, about):
    """Markdown: the machine, then for each part a table, single facts, and what is missing."""
    lines = [about, ""]
    for name, found in parts.items():
        lines += [f"## {name}, {found['seconds']:.0f} s", ""]
        rows = found["rows"]
        keys = [key for row in rows for key in row if not isinstance(row[key], list) and key != "warm"]
        keys = list(dict.fromkeys(keys))
        if rows:
            lines += ["| " + " | ".join(keys) + " |", "|---" * len(keys) + "|"]
            lines += ["| " + " | ".join(shown(row.get(key)) for key in keys) + " |" for row in rows] + [""]
        facts = {key: found[key] for key in found if key not in APART}
        lines += [f"- {key}: {shown(value)}" for key, value in facts.items()]
        lines += [f"- left out: {what}" for what in found.get("left out", [])]
        for what, kept in (("failed", found.get("failed")), ("last lines", found.get("lines"))):
            lines += [f"- {what}:", "", "```", *kept[-12:], "```"] if kept else []
        lines.append("")
    return "\n".join(lines) + "\n"


def about(options):
    """The card, its driver, versions and the command."""
    driver = ""
    if options.device == "cuda":
        with suppress(OSError):
            asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
            driver = f", driver {subprocess.run(asked, capture_output=True, text=True).stdout.strip()}"
    there = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU, tiny sizes"
    return (
        f"{there}{driver}, CUDA {torch.version.cuda}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, {versions()}\n\n"
        f"`python tests/benchmarks/gpu.py {' '.join(sys.argv[1:])}`"
    )


def main():
    """Run the parts one after the other, and write what they found after each."""
    options = arguments()
    if options.part:
        scene = Scene(options)
        scene.found |= PARTS[options.part][0](scene)
        return scene.save()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(f"no NVIDIA card here that torch {torch.__version__} can use: run this on a machine with one")
    ends, names = time.monotonic() + 60 * options.minutes, options.only or list(PARTS)
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "gpu.json"
    parts = json.loads(kept.read_text())["parts"] if options.only and kept.exists() else {}
    machine, whole, spare = about(options), sum(PARTS[name][1] for name in names), 0.0
    for name in names:
        limit = min(60 * options.minutes * PARTS[name][1] / whole + spare, ends - time.monotonic() - 2)
        parts[name] = {"rows": [], "seconds": 0.0, "failed": ["no time was left"]}
        if limit > GRACE:
            parts[name] = run(name, limit, options)
        spare = limit - parts[name]["seconds"]
        took = f"{parts[name]['seconds']:.0f} of {limit:.0f} s"
        print(f"{name}: {len(parts[name]['rows'])} rows, {took}, {parts[name].get('failed', ['done'])[-1]}", flush=True)
        kept.write_text(json.dumps({"about": machine, "parts": parts}, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(parts, machine))


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, required=True, help="a folder for gpu.json and gpu.md")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="run these parts alone")
    parser.add_argument("--data", type=Path, help="the folder of Fashion-MNIST's files, if not Debian's")
    for hidden, settings in {
        "--part": {"choices": PARTS},
        "--seconds": {"type": float, "default": 600.0},
        "--device": {"default": "cuda"},
        "--tiny": {"action": "store_true"},
    }.items():
        parser.add_argument(hidden, help=argparse.SUPPRESS, **settings)
    return parser.parse_args()


if __name__ == "__main__":
    main()
