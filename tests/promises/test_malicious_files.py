"""Files, names and variables that want to run code: none does, and each is refused in words or read as what it says."""

import io
import json
import os
import pickle
import shutil
import tarfile
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import raw_group
from torch import nn

import robusttune
from robusttune import Monitor, Records, plugins
from robusttune.evaluations import autoattack
from robusttune.evaluations.sweep import sweep
from robusttune.run import files
from robusttune.trial.plan import TrialPlan

CANARY = "called"
IMAGES = torch.rand(72, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCHES = [(IMAGES[start : start + 24], torch.arange(24) % 3) for start in range(0, 72, 24)]


class Call:
    """An object that calls a function where it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "os.system": lambda: Call(os.system, f"touch {CANARY}"),
    "exec": lambda: Call(exec, f"open({CANARY!r}, 'w')"),
    "eval": lambda: Call(eval, f"open({CANARY!r}, 'w')"),
    "open": lambda: Call(open, CANARY, "w"),
    "Path.touch": lambda: Call(Path.touch, Path(CANARY)),
}


def as_pickle(evil):
    return pickle.dumps({"weight": torch.zeros(2), "evil": evil})


def as_torch(evil, **how):
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "evil": evil}, content, **how)
    return content.getvalue()


def as_numpy(evil, save=np.save):
    content = io.BytesIO()
    save(content, np.array([evil], dtype=object), allow_pickle=True)
    return content.getvalue()


def as_tar(evil):
    content, inside = io.BytesIO(), pickle.dumps(evil)
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))
    return content.getvalue()


FORMATS = {
    "pickle": as_pickle,
    "zip of torch": as_torch,
    "old format of torch": lambda evil: as_torch(evil, _use_new_zipfile_serialization=False),
    "npy": as_numpy,
    "npz": lambda evil: as_numpy(evil, save=lambda file, values, **more: np.savez(file, image=values)),
    "tar of torch": as_tar,
}


def net():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).eval()


def hardened(**more):
    settings = {"norm": "linf", "eps": 0.1, "epochs": 1, "steps": 1, "tasks": {"rotation": 0.5}, "progress": False}
    return robusttune.harden(net(), BATCHES, **settings, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with everything that is read back."""
    folder = tmp_path_factory.mktemp("whole")
    model = hardened(out=folder / "run")
    robusttune.evaluate(model, BATCHES, ["clean", partial(sweep, steps=2)], out=folder / "run/e", progress=False)
    Monitor(model, BATCHES, heads=folder / "run").save(folder / "monitor")
    return folder


@pytest.fixture
def place(whole, tmp_path, monkeypatch):
    """A copy of it, in the working folder, in which a canary would lie."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(call):
    """Make the call; returns the words of its refusal, None if it worked."""
    raised = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as error:
            raised = error
    if raised is None:
        return None
    if raw_group(raised) is not None:
        raise raised
    return str(raised)


READERS = {
    "run/state.pt": lambda: hardened(out="run", resume=True),
    "run/model.safetensors": lambda: files.load_weights("run"),
    "run/heads.safetensors": lambda: robusttune.load_heads("run", net()),
    "weights.pt": lambda: hardened(init_from="weights.pt"),
    "weights.pth": lambda: files.load_weights("weights.pth"),
    "weights.safetensors": lambda: files.load_weights("weights.safetensors"),
    "run/e/records.failures.npz": lambda: Records.load("run/e"),
    "run/e/records.jsonl": lambda: Records.load("run/e"),
    "monitor/reference.safetensors": lambda: Monitor.load("monitor", net(), heads="run"),
    "run/run.json": lambda: hardened(out="run", resume=True),
}
EVIL = list(product(READERS, FORMATS, PAYLOADS))


def test_there_are_more_than_90():
    assert len(EVIL) + len(NAMES) + len(PLANS) + len(RUNS) + len(VARIABLES) > 90


@pytest.mark.parametrize(
    ("name", "form", "payload"),
    [pytest.param(*each, marks=() if number % 37 == 0 else pytest.mark.slow) for number, each in enumerate(EVIL)],
)
def test_no_file_runs_code(name, form, payload, place):
    content = FORMATS[form](PAYLOADS[payload]())
    (place / name).write_bytes(content)
    said = refused(READERS[name])
    assert said or name == "run/e/records.failures.npz"  # the pictures, without which the numbers are read
    assert not (place / CANARY).exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that the payloads leave open
@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_would_run(payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(as_pickle(PAYLOADS[payload]()))
    assert (tmp_path / CANARY).exists()


KINDS = (
    "attacks",
    "tasks",
    "norms",
    "evaluations",
    "objectives",
    "corruptions",
    "augmentations",
    "trial.arms",
    "measuring.sections",
)
ODD = ("../evil", "evil", "os", "os:system", "__init__", "_adapters", "pgd\0", "..", "/tmp/evil", "evil.py", "a.b", "")
NAMES = list(product(KINDS, ODD))


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_of_a_part_imports_another_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(f"open({CANARY!r}, 'w')\n")
    for name in ODD:
        assert refused(lambda name=name: plugins.find(kind, name)), name
    assert not (tmp_path / CANARY).exists()


PLANS = [
    f"model: !!python/object/apply:os.system ['touch {CANARY}']",
    f"!!python/object/new:os.system ['touch {CANARY}']",
    f'arms: !!python/object/apply:eval [\'open("{CANARY}", "w")\']',
    "model: !!python/name:os.system",
    "model: !!python/module:os",
    "model: !!map [1]",
    "a: &a [*a]",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    "seeds: " + "[" * 1200,
    "seeds: [1e999, .nan, .inf]",
    "seeds: [" + "9" * 5000 + "]",
    "model: ../../etc/passwd",
    "arms: {'../../x': []}",
    "arms: {harden: [{harden: {attack: 'os:system'}}]}",
    "evaluation: {images: 10, items: ['os.system']}",
    "\x00",
    "%YAML 9.9\n---\na: b",
]


@pytest.mark.parametrize("text", PLANS, ids=range(len(PLANS)))
def test_no_plan_runs_code(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.yaml").write_text(text)
    assert refused(lambda: TrialPlan.read(tmp_path).check())
    assert not (tmp_path / CANARY).exists()


COMMAND = {"model": "evil:net", "data": "data", "size": 16, "channels": 3, "split": "train"}
RUNS = [
    *({"command": {**COMMAND, "model": model}} for model in ("evil:net", "os:system", "builtins:exec", "../evil:net", "timm:hf-hub:x/y", "timm:../evil", "torchvision:../evil", "", "evil", ["evil:net"], {"a": 1}, 3, None)),
    *({"about": about} for about in ("x", 3, [], {"classes": "x"}, {"model": "evil:net"}, {"size": [10**9, 10**9]}, {"mean": ["x"]}, {"outputs": -1})),
    *({"arguments": arguments} for arguments in ("x", 3, [], None, {"attack": "evil:net"}, {"epochs": 10**400}, {"lr": "__import__('os')"})),
    {"loaders": 3}, {"data": "x"}, {"versions": []}, {"run": ["harden"]}, {"run": "evil"}, {"start": 3}, {"continued": "x"},
]  # fmt: skip


@pytest.mark.parametrize("changed", RUNS, ids=range(len(RUNS)))
def test_no_run_names_code_that_is_called(changed, place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))
    (place / "evil.py").write_text(f"open({CANARY!r}, 'w')\n\ndef net(**more):\n    open({CANARY!r}, 'w')\n")
    facts = json.loads((place / "run/run.json").read_text()) | changed
    (place / "run/run.json").write_text(json.dumps(facts))
    for call in (lambda: robusttune.load("run"), lambda: robusttune.load("run", net()), lambda: Records.load("run/e")):
        refused(call)
    assert not (place / CANARY).exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 5000,
        "\ud800".encode("utf-8", "surrogatepass"),
        b"\xff" * 100,
        "null",
        "[]",
        "3",
    ],
    ids=range(8),
)
@pytest.mark.parametrize(
    "name",
    ["run/run.json", "run/manifest.json", "run/e/records.jsonl", "run/e/records.images.json", "monitor/reference.json"],
)
def test_deep_long_and_broken_json_is_refused_in_words(name, text, place):
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    reader = {
        "run/manifest.json": READERS["run/model.safetensors"],
        "run/e/records.images.json": READERS["run/e/records.jsonl"],
    }
    refused(READERS.get(name) or reader.get(name) or READERS["monitor/reference.safetensors"])


@pytest.mark.parametrize("name", ["run/model.safetensors", "run/state.pt", "run/run.json", "run/e/records.jsonl"])
def test_a_link_in_a_folder_is_replaced_and_not_followed_where_it_is_written(name, place):
    outside = place / "outside"
    outside.write_text("mine")
    (place / name).unlink()
    (place / name).symlink_to(outside)
    refused(lambda: hardened(out="run", resume=True))
    refused(lambda: robusttune.evaluate(net(), BATCHES, "clean", out="run/e", progress=False))
    assert outside.read_text() == "mine"


VARIABLES = list(
    product(
        ("ROBUSTTUNE_START_TIMEOUT", "ROBUSTTUNE_TRUST_CHECKPOINTS", "ROBUSTTUNE_ANYTHING"),
        (f"__import__('os').system('touch {CANARY}')", f"$(touch {CANARY})", "-1", "x" * 10_000),
    )
)


@pytest.mark.parametrize(("name", "value"), VARIABLES, ids=range(len(VARIABLES)))
def test_no_variable_of_the_environment_is_code(name, value, place, monkeypatch):
    monkeypatch.setenv(name, value)
    (place / "weights.pt").write_bytes(as_torch(PAYLOADS["open"]()))
    assert refused(READERS["weights.pt"])
    refused(lambda: files.load_state(place / "run"))
    assert not (place / CANARY).exists()


@pytest.mark.slow
def test_progress_of_autoattack_is_text(place):
    pytest.importorskip("torchattacks")
    lines = (
        "[" * 100_000,
        "9" * 5000,
        json.dumps({"key": ["x"], "right": {"a": 1}}),
        json.dumps({"key": "x", "right": 3}),
    )
    (place / autoattack.FILE).write_text("\n".join(lines) + "\n")
    settings = {"norm": "linf", "eps": 0.0, "out": place, "resume": True, "progress": False}
    model, labels = net(), torch.tensor([0, 1])
    records = robusttune.evaluate(model, [(IMAGES[:2], labels)], partial(autoattack.autoattack, queries=5), **settings)
    right = int((model.eval()(IMAGES[:2]).argmax(1) == labels).sum())
    assert {(record.images, record.value) for record in records} == {(2, right / 2)}
    assert not (place / CANARY).exists()
