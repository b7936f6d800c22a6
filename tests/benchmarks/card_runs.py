"""On a card: whole runs of harden, what the model is worth then, memory, and loading; see gpu.py."""

import copy
import os
import time
from functools import partial
from statistics import median

import torch
from attacks import scene as network
from card import SIZE
from steps import NORM
from torch.utils.data import DataLoader, Dataset, TensorDataset

FASHION = {"norm": NORM, "eps": 0.1, "progress": False}


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
    scene.found |= {"seconds of ordinary training": ordinary, "seconds of harden": hardened}
    for which, images, needed in (("clean", None, 1), ("strong", None, 12), ("autoattack", 200, 75)):
        if not scene.has(needed, which):
            continue
        began = time.perf_counter()
        found = robusttune.evaluate(model, testing, which, subset=images, **FASHION)
        last = found[0 if which == "clean" else -1]
        seconds = time.perf_counter() - began
        scene.add({"evaluation": which, "images": last.images, "seconds": seconds, "accuracy": last.value})
    return {}


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
    starts, needed, epochs = {}, {128: 40, 512: 20}, 1 if scene.tiny else 2
    for seed, settings, batch in runs:
        name = ", ".join([f"seed {seed}", f"batch {batch}", *(f"{key} {value}" for key, value in settings.items())])
        if not scene.has(needed[batch], name):
            continue
        training, testing = fashion(scene, batch=batch)
        if seed not in starts:
            starts[seed] = ordinarily(scene, training, seed)[0]
        model, began = copy.deepcopy(starts[seed]), time.monotonic()
        row = scene.add({"run": name})
        settings = {**settings, "epochs": epochs, "seed": seed, "on_epoch": partial(noted, scene, row, began)}
        row["seconds"] = scene.seconds(partial(robusttune.harden, model, training, **settings, **FASHION))
        records = robusttune.evaluate(model, testing, ["clean", "strong"], **FASHION)
        row |= {"clean": records[0].value, "strong": records[-1].value}
        scene.save()
        needed[batch] = max(needed[batch], 1.1 * (time.monotonic() - began))
    return {}


def noted(scene, row, began, facts):
    """Add what is known after an epoch to a row, for a run that is ended before its end."""
    row |= {"epochs": facts["epoch"], "seconds": time.monotonic() - began}
    scene.save()


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
    loaders = {"on hand": on_hand, f"{workers} workers": workers_load, "no workers": plain}
    for name, loader in loaders.items():
        if scene.has(15, name):
            row = scene.add({"images": name, "seconds": []})
            row["loading alone, ms a batch"] = 1000 * scene.seconds(partial(list, map(len, loader))) / len(loader)
    cost, rows = 0, {row["images"]: row for row in scene.found["rows"]}
    for name in [*rows] * 3:  # in turns, while time is left
        began = time.monotonic()
        if scene.left < 1.1 * cost:
            break
        step = (run(loaders[name], many) - run(loaders[name], few)) / (many - few)
        rows[name]["seconds"].append(step)
        middle, turns = median(rows[name]["seconds"]), len(rows[name]["seconds"])
        rows[name] |= {"turns": turns, "ms a step": 1000 * middle, "images/s": batch / middle}
        scene.save()
        cost = max(cost, time.monotonic() - began)
    return {}
