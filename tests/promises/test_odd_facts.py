"""Facts of a run with values that they should not have: each reader refuses them in words, warns of them, or has the same numbers."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from fuzzing import raw_group
from odd_facts import odd_facts
from safetensors.torch import load_file, save_file
from timm import create_model
from torch import nn

import robusttune
from robusttune.run import files
from robusttune.run.about import METADATA
from robusttune.run.seal import metadata_of

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCHES = [(IMAGES[start : start + 6], torch.arange(6) % 3) for start in (0, 6)]
RUN = {
    **{"norm": "linf", "eps": 0.1, "epochs": 1, "steps": 1, "tasks": None, "tune": False, "augment": None, "ema": 0.9},
    **{"mean": (0.5, 0.4, 0.3), "std": (0.25, 0.25, 0.25), "normalized": False, "progress": False, "device": "cpu"},
}
PARTS = 16  # of all cases, each a test
EACH = 613  # of how many cases one is tried by default


def small():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, 3))


def hardened(model=None, **more):
    return robusttune.harden(model or small(), BATCHES, **{**RUN, **more})


def weights_of(model):
    return {name: value.tolist() for name, value in model.state_dict().items()}


def measured(run):
    records = robusttune.evaluate(run, BATCHES, "clean", progress=False)
    return [(record.metric, record.value, record.images) for record in records]


def repeated():
    found = robusttune.replay("small", small(), BATCHES)
    return found.same, found.close


READERS = {
    "load": ("named", lambda: weights_of(robusttune.load("named"))),
    "evaluate": ("named", lambda: measured("named")),
    "file": ("named", lambda: measured("elsewhere.safetensors")),
    "teacher": ("named", lambda: weights_of(hardened(teacher="named", unlabeled_loader=[IMAGES[:6]]))),
    "resume": ("small", lambda: weights_of(hardened(out="small", resume=True))),
    "continue": ("small", lambda: weights_of(hardened(out="small", resume=True, epochs=2))),
    "replay": ("small", repeated),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs: of a model that its folder names, and of a small one."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    hardened(create_model("test_resnet", num_classes=3), out=folder / "named")
    hardened(out=folder / "small")
    return folder


def fresh(whole, name):
    shutil.rmtree(name, ignore_errors=True)
    shutil.copytree(whole / name, name)


def forged(reader, whole, name, facts=None):
    """Put facts in the place of those that a reader reads."""
    fresh(whole, name)
    if reader != "file":
        if facts is not None:
            Path(name, "run.json").write_text(json.dumps(facts))
        return
    weights = Path(name, "model.safetensors")
    save_file(
        load_file(weights),
        "elsewhere.safetensors",
        {METADATA: metadata_of(weights) if facts is None else json.dumps(facts)},
    )


def facts_in(reader, whole, name):
    if reader != "file":
        return json.loads((whole / name / "run.json").read_text())
    facts = json.loads(metadata_of(whole / name / "model.safetensors"))
    del facts["checksum"]  # a forger would compute it again; a file without one is taken
    return facts


def check_words(error, case):
    """Fail for an error that this library did not raise on purpose."""
    group = raw_group(error)
    if group is not None:
        raise AssertionError(f"{case}: {group}") from error


def check_odd(reader, whole, caplog, cases):
    """Let a reader read each case; a number may change only beside the warning that somebody changed `run.json`."""
    name, read = READERS[reader]
    forged(reader, whole, name)
    expected = read()
    for at, value, facts in cases(facts_in(reader, whole, name)):
        forged(reader, whole, name, facts)
        caplog.clear()
        try:
            found = read()
        except Exception as error:
            check_words(error, (reader, at, value))
        else:
            told = "was changed after the run wrote it" in caplog.text or reader == "file"
            assert found == expected or told, (at, value)
            # A pure reader has no other number at all, unless the value is right for another run.
            assert found == expected or reader in ("replay", "continue") or at[-2:-1] in (("mean",), ("std",)), (
                at,
                value,
            )


@pytest.mark.parametrize("reader", READERS)
def test_odd_facts_are_refused_or_change_no_number(reader, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    first = 80 * list(READERS).index(reader)  # others for each reader
    check_odd(reader, whole, caplog, lambda facts: [*odd_facts(facts)][first::EACH])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("reader", READERS)
def test_all_odd_facts_are_refused_or_change_no_number(reader, part, whole, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    check_odd(reader, whole, caplog, lambda facts: [*odd_facts(facts)][part::PARTS])


TEXTS = [
    b"",
    b"{",
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"9" * 10_000_000,
    b"\xff\xfe",
    b"[]",
    b"null",
    b"3",
    b'"run"',
    b"\x00",
]


@pytest.mark.parametrize("reader", [name for name in READERS if name != "file"])
def test_a_run_json_that_is_none_is_refused_in_words(reader, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    for text in TEXTS:
        fresh(whole, name)
        Path(name, "run.json").write_bytes(text)
        with pytest.raises(ValueError, match=r"run\.json' cannot be read: it may be damaged") as raised:
            read()
        assert raw_group(raised.value) is None


def test_a_damaged_log_is_refused_before_a_run_is_repeated(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in ("{", "3", "[" * 10_000):
        fresh(whole, "small")
        Path("small/log.jsonl").write_text(line + "\n")
        with pytest.raises(ValueError, match=r"line 1 of 'small/log\.jsonl' is no JSON object.*restore it from a copy"):
            repeated()


def state_places(state, at=()):
    """The keys that lead to each part of a state but random numbers, of which one stands for all."""
    pairs = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else ()
    for key, value in pairs:
        if "python" not in at or key in (0, 1):
            yield (*at, key)
            yield from state_places(value, (*at, key))


def set_at(state, at, value):
    """A copy of a state with one part changed."""
    if not at:
        return value
    changed = list(state) if isinstance(state, tuple) else copy.copy(state)
    changed[at[0]] = set_at(state[at[0]], at[1:], value)
    return tuple(changed) if isinstance(state, tuple) else changed


STATE_ODD = [None, "nonsense", -1, 10**400, float("nan"), [], {"a": 1}]


@pytest.mark.parametrize(
    "at",
    [
        *(
            ("plan",),
            ("plan", "taken"),
            ("plan", "elapsed"),
            ("place", "epoch"),
            ("place", "consumed"),
            ("meter", "sums"),
        ),
        *(("stepper",), ("stepper", "calls"), ("stepper", "optimizer"), ("stepper", "optimizer", "state", 0)),
        *(("stepper", "optimizer", "param_groups", 0, "lr"), ("stepper", "optimizer", "param_groups", 0, "params")),
        *(
            ("stepper", "average", "shadow"),
            ("stepper", "weights", "model.0.weight"),
            ("best", "weights"),
            ("recovery", "event"),
        ),
        *(("states", "python"), ("states", "numpy"), ("epoch_states",)),
    ],
    ids=lambda at: "-".join(map(str, at)),
)
@pytest.mark.sample(2)
def test_an_odd_state_of_a_checkpoint_is_refused_in_words(at, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fresh(whole, "small")
    state = files.load_state(Path("small"))
    assert at in set(state_places(state))
    for value in STATE_ODD:
        files.save_state(Path("small"), set_at(state, at, value))
        try:
            hardened(out="small", resume=True)
        except Exception as error:
            check_words(error, (at, value))
        else:
            assert value in ([], None) or isinstance(value, dict), (at, value)


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fresh(whole, "small")
    other = small()
    other[-1] = nn.Linear(16, 4)
    with pytest.raises(
        ValueError,
        match=r"cannot go on from state\.pt \(its weights do not fit the model: 2 names or shapes differ, such as model.5.weight, "
        r".*pass the model, the optimizer and the other objects of that run",
    ):
        hardened(other, out="small", resume=True)
