"""A flipped bit or a cut anywhere in what is read back is named, or changes nothing."""

import json
import logging
import random
import shutil
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import nn

import robusttune
from robusttune.evaluations import autoattack
from robusttune.evaluations.sweep import sweep
from robusttune.measuring.monitor import Monitor
from robusttune.measuring.records import Records
from robusttune.model.saved import hardened_run
from robusttune.run import files

IMAGES = torch.rand(72, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(72) % 3
BATCHES = [(IMAGES[:24], LABELS[:24]), (IMAGES[24:48], LABELS[24:48]), (IMAGES[48:], LABELS[48:])]
FLIPS = 60  # for each file


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with everything that the library reads back, and how each part of it is read."""
    folder, model = tmp_path_factory.mktemp("whole"), net()
    settings = {"tasks": {"rotation": 0.5, "jigsaw": 0.5}, "attack_tasks": "none", "epochs": 2, "steps": 1}
    robusttune.harden(model, BATCHES, norm="linf", eps=0.1, out=folder / "run", progress=False, **settings)
    robusttune.evaluate(
        model.eval(), BATCHES, ["clean", partial(sweep, steps=3)], out=folder / "run" / "e", progress=False
    )
    Monitor(model, BATCHES, heads=folder / "run").save(folder / "monitor")
    return folder, model


def plain(value):
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def records_of(path):
    records = Records.load(path)
    numbers = [{**asdict(record), "right": None} for record in records]
    return [numbers, records.facts, [plain(record.right) for record in records], len(records.failures)]


def reference_of(folder, model):
    monitor = Monitor.load(folder / "monitor", model, heads=folder / "run")
    report = monitor(IMAGES[:16])
    return [str(report), plain(monitor.reference), monitor.classes, monitor.shape]


def last_of(folder):
    """A file that is named itself is taken as it is, where it fits the model."""
    model, path = net(), folder / "run" / files.LAST
    files.give_weights(model, files.load_weights(path), str(path))
    return plain(model.state_dict())


READERS = {
    "run/state.pt": lambda folder, model: plain(files.load_state(folder / "run")),
    "run/model.safetensors": lambda folder, model: plain(files.load_weights(folder / "run")),
    "run/last.safetensors": lambda folder, model: last_of(folder),
    "run/heads.safetensors": lambda folder, model: plain(dict(files.heads_of(folder / "run"))),
    "run/run.json": lambda folder, model: asdict(hardened_run(folder / "run")) | {"folder": None},
    "run/manifest.json": lambda folder, model: plain(files.load_weights(folder / "run")),
    "run/e/records.jsonl": lambda folder, model: records_of(folder / "run" / "e"),
    "run/e/records.images.json": lambda folder, model: records_of(folder / "run" / "e"),
    "run/e/records.failures.npz": lambda folder, model: records_of(folder / "run" / "e"),
    "monitor/reference.json": reference_of,
    "monitor/reference.safetensors": reference_of,
}


def flipped(content, drawn, count):
    """The content with one bit flipped, at so many places."""
    for _ in range(count):
        damaged = bytearray(content)
        damaged[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        yield bytes(damaged)


def cut(content, shares):
    return [content[: round(share * len(content))] for share in shares]


def other_damages(content, drawn, others):
    """27 damages and more: cuts, blocks of zeros, noise or nothing, blocks twice or exchanged, and the content of other files."""
    size, block = len(content), max(1, len(content) // 16)
    places = [drawn.randrange(max(1, size - block)) for _ in range(4)]
    noise = drawn.randbytes(block)
    yield from cut(content, (0, 0.01, 0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 0.99))
    yield from (content[: size - end] for end in (1, 2, 8))
    for at in places:
        for inside in (bytes(block), noise, b"", 2 * content[at : at + block]):
            yield content[:at] + inside + content[at + block :]
    yield content[block:] + content[:block]
    yield from (content + more for more in (bytes(1), b"\n", noise, content))
    yield from others


def used_in_silence(damages, name, whole, tmp_path, caplog):
    """Which of these contents of a file are read as something else, without a word, and how many there were."""
    folder, model = tmp_path / "damaged", whole[1]
    shutil.copytree(whole[0], folder)
    path, read = folder / name, READERS[name]
    right, silent, count = read(folder, model), [], 0
    for count, damaged in enumerate(damages, 1):
        path.write_bytes(damaged)
        caplog.clear()
        try:
            with caplog.at_level(logging.WARNING):
                found = read(folder, model)
        except ValueError as error:
            silent += [] if str(error) else [count]
            continue
        if found != right and not caplog.records:
            silent.append(count)
    return silent, count


@pytest.mark.parametrize("name", READERS)
def test_no_damage_is_used_in_silence(name, whole, tmp_path, caplog):
    content, drawn = (whole[0] / name).read_bytes(), random.Random(name)
    damages = [*flipped(content, drawn, FLIPS), *cut(content, (0, 0.1, 0.5, 0.9, 0.99))]
    assert used_in_silence(damages, name, whole, tmp_path, caplog) == ([], FLIPS + 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_other_damage_is_used_in_silence(name, whole, tmp_path, caplog):
    content, drawn = (whole[0] / name).read_bytes(), random.Random(name)
    others = [(whole[0] / each).read_bytes() for each in READERS if each != name]
    silent, count = used_in_silence(other_damages(content, drawn, others), name, whole, tmp_path, caplog)
    assert silent == []
    assert count * len(READERS) > 296


def test_damaged_progress_of_autoattack_is_measured_again(tmp_path, caplog):
    pytest.importorskip("torchattacks")
    model = net().eval()
    images = IMAGES[:8]
    batches = [(images, model(images).argmax(1))]
    kept = {"eps": 0.01, "norm": "linf", "progress": False, "out": tmp_path}
    from functools import partial

    judge = partial(autoattack.autoattack, queries=20)
    right = robusttune.evaluate(model, batches, judge, **kept)
    path = tmp_path / autoattack.FILE
    lines = path.read_text().splitlines()
    for row, line in enumerate(lines):
        facts = json.loads(line)
        flipped = facts["right"].translate(str.maketrans("01", "10"))
        path.write_text("\n".join([*lines[:row], line.replace(facts["right"], flipped), *lines[row + 1 :]]) + "\n")
        caplog.clear()
        again = robusttune.evaluate(model, batches, judge, resume=True, **kept)
        assert [each.value for each in again] == [each.value for each in right]
        assert "1 lines of" in caplog.text
        path.write_text("\n".join(lines) + "\n")
