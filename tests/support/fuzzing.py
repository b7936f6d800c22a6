"""Calls of every public function with values that do not fit, and what becomes of them.

`python tests/support/fuzzing.py 2000` makes that many calls, and prints the errors that came out as they were raised inside.
"""

import inspect
import linecache
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from guarded import GOOD, everything, images, labels, small_model
from hypothesis import strategies as st
from process_state import changed, process_state
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune import Monitor, Records, RobustLoss, ThreatModel
from robusttune.run.tracking import check_log
from robusttune.trial.plan import TrialPlan

PACKAGE = str(Path(robusttune.__file__).parent)
IN_WORDS = (ValueError, TypeError, ImportError, OSError, FloatingPointError)


with suppress(ValueError):
    check_log("nothing", None)  # imports packages of trackers, some of which add filters of warnings


class Call(NamedTuple):
    """A function with arguments that work, some of which are replaced by others."""

    function: object
    good: dict


class Raw(AssertionError):
    """An error that says nothing to a user, or a change that an error left behind."""


PLAN = {
    "model": "ResNet",
    "data": {"training images": 64},
    "budget": {"seconds": 100},
    "threats": {"linf": "8/255", "l2": 0.5},
    "seeds": [0, 1, 2],
    "epochs": 1,
    "settings": {"lr": 0.1},
    "arms": {"nothing": [], "adversarial": ["harden"], "joint": [{"harden": {"tasks": {"rotation": 0.5}}}]},
    "needs": ["attack"],
    "screening": {
        "seeds": [100, 101],
        "epochs": 1,
        "images": 50,
        "items": ["clean", {"strong": {"norm": "linf", "eps": "8/255"}}],
        "keep": 2,
    },
    "looks": [3],
    "evaluation": {"images": 100, "items": ["clean", {"sweep": {"steps": 3}}], "more": ["sanity"]},
    "decision": {"worthwhile": 0.05},
    "rule": "equal passes",
    "estimated": {},
}


def planned(**odd):
    """A plan whose file somebody edited."""
    values = PLAN | odd
    with tempfile.TemporaryDirectory() as folder:
        try:
            text = yaml.safe_dump(values, sort_keys=False)
        except yaml.YAMLError:
            text = yaml.safe_dump({name: value for name, value in values.items() if name not in odd}, sort_keys=False)
        Path(folder, "plan.yaml").write_text(text, encoding="utf-8")
        plan = TrialPlan.read(folder)
    plan.check()
    return plan


def full_folder():
    shutil.rmtree("full", ignore_errors=True)  # what an earlier call left
    Path("full").mkdir()
    Path("full/file").touch()
    return "full"


def held_out(number):
    return DataLoader(TensorDataset(images(number, 3, 8, 8), torch.arange(number) % 5), batch_size=8)


@cache
def measured():
    return robusttune.evaluate(small_model(), [GOOD], "clean", progress=False)


def train(function, images="loader", **more):
    good = {"epochs": 1, "progress": False, "max_steps": 1, "steps": 1, "tasks": None, "device": "cpu", **more}
    return Call(function, {"model": small_model(), images: [GOOD], **good})


def one_loss(labels=None, **settings):
    """A RobustLoss, and one step with it."""
    robust_loss = RobustLoss(**settings)
    return robust_loss(images(), labels)


def watched(batch=None, **settings):
    """A Monitor that sees one batch."""
    return Monitor(**settings)(batch)


CALLS = {
    "harden": lambda: train(robusttune.harden),
    "pretrain": lambda: train(robusttune.pretrain, "images", tasks={"rotation": 1.0}, steps=None),
    "estimate": lambda: train(robusttune.estimate),
    "evaluate": lambda: Call(
        robusttune.evaluate, {"model": small_model(), "loader": [GOOD], "which": "clean", "progress": False}
    ),
    "RobustLoss": lambda: Call(
        one_loss,
        {"model": small_model(), "threat": ThreatModel("l2", 0.5), "images": images(), "labels": labels(), "steps": 1},
    ),
    "ThreatModel": lambda: Call(ThreatModel, {"norm": "l2", "eps": 0.5}),
    "report": lambda: Call(robusttune.report, {"runs": measured(), "out": "pages", "sections": ("summary",)}),
    "compare": lambda: Call(robusttune.compare, {"first": measured(), "second": measured()}),
    "Records": lambda: Call(Records.load, {"path": measured().save("some/records.jsonl")}),
    "load": lambda: Call(robusttune.load, {"run": "no-run", "model": small_model()}),
    "load_heads": lambda: Call(
        robusttune.load_heads,
        {
            "source": RobustLoss(small_model(), ThreatModel("l2", 0.5), images=images(), tasks={"rotation": 1.0}),
            "model": small_model(),
        },
    ),
    "replay": lambda: Call(robusttune.replay, {"run": "no-run", "loader": [GOOD], "model": small_model()}),
    "Monitor": lambda: Call(
        watched, {"model": small_model(), "loader": images(80, 3, 8, 8).split(40), "batch": images()}
    ),
    # The folder is not empty, so that what fits is refused after all checks, and no plan is made, which takes seconds.
    "poc": lambda: Call(
        robusttune.poc,
        {
            "model": small_model(),
            "loader": held_out(64),
            "test_loader": held_out(200),
            "progress": False,
            "out": full_folder(),
        },
    ),
    "plan": lambda: Call(planned, {}),
}
PARAMETERS = {
    "RobustLoss": [*inspect.signature(RobustLoss).parameters, "labels"],
    "plan": sorted(PLAN),
    "Monitor": [*inspect.signature(Monitor).parameters, "batch"],
}


@cache
def parameters(name):
    if name in PARAMETERS:
        return PARAMETERS[name]
    function = CALLS[name]().function
    names = [key for key, one in inspect.signature(function).parameters.items() if one.kind is not one.VAR_KEYWORD]
    names = [key for key in names if (name, key) != ("poc", "resume")]  # which would begin the trial
    return names or ["norm", "eps"]


class Hollow:
    """An object with no method at all."""


class Grumbling:
    """An object that raises an error whatever is asked of it but its type."""

    def __eq__(self, other):
        raise RuntimeError("ambiguous")

    __hash__ = object.__hash__


class Lazy(nn.Module):
    """A module without a forward."""


def quietly(make):
    """A fresh value; some tensors warn when they are made, and would end the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


JUNK = [
    *(partial(lambda value: value, value) for value in (
        None, True, False, 0, 1, -1, 2, 7, 2**63, 10**400, 0.0, 0.5, -0.5, 1e-30, 1e300, float("nan"), float("inf"), 1j,
        "", "auto", "none", "self", "nonsense", "l2", "linf", "sgd", "pgd", "clean", "8/255", "cpu", "cuda", "meta", "/dev/null",
        "a/b\0c", "ü" * 300, b"bytes", (), [], {}, [None], (1, 2), {"a": 1}, {1: 2}, [[]], {"rotation": None}, set(),
        Fraction(1, 3), np.float64(0.5), np.int64(1), np.float32("nan"), np.bool_(True), np.array(3), Path("nowhere"),
        range(3), len, int, object, Hollow, slice(1), Ellipsis, NotImplemented, ThreatModel("l2", 0.5),
        torch.float32, torch.device("cpu"),
    )),
    Hollow, Grumbling, Lazy, object, lambda: np.zeros((2, 3)), lambda: np.array(["a", "b"]),
    lambda: torch.tensor(0.5), lambda: torch.tensor(1), lambda: torch.rand(2, 3), lambda: images(2, 3, 8, 8),
    lambda: images(2, 3, 8, 8).to_sparse(), lambda: torch.empty(2, 3, 8, 8, device="meta"),
    lambda: images(2, 3, 8, 8).to(torch.float8_e4m3fn), lambda: images(2, 3, 8, 8).half(), lambda: images(2, 3, 8, 8).double(),
    lambda: [(images(2, 3, 8, 8).to_sparse(), torch.tensor([0, 1]))], lambda: [(torch.empty(2, 3, 8, 8, device="meta"), torch.tensor([0, 1]))],
    lambda: [(images(2, 3, 8, 8), torch.tensor([0, 1], device="meta"))], lambda: [(images(2, 3, 8, 8).to(torch.float8_e4m3fn), torch.tensor([0, 1]))],
    lambda: [(images(2, 3, 8, 8), torch.tensor([0, 1]).to_sparse())], lambda: [(images(2, 3, 8, 8).to_mkldnn(), torch.tensor([0, 1]))],
    lambda: [(images(2, 3, 8, 8), [0, 1])], lambda: [(images(2, 3, 8, 8), None)], lambda: [images(2, 3, 8, 8)], lambda: [GOOD, None], lambda: [None],
    lambda: [(images(1, 3, 8, 8), torch.tensor([0]))], lambda: [(images(2, 3, 1, 1), torch.tensor([0, 1]))],
    lambda: [(torch.nested.nested_tensor([torch.rand(3, 8, 8), torch.rand(3, 9, 9)]), torch.tensor([0, 1]))],
    lambda: [(torch.quantize_per_tensor(images(2, 3, 8, 8), 0.1, 0, torch.quint8), torch.tensor([0, 1]))],
    lambda: [GOOD], lambda: iter([GOOD]), lambda: [{"images": GOOD[0], "labels": GOOD[1]}],
    lambda: nn.Linear(2, 2), lambda: nn.LazyLinear(3), lambda: nn.Identity(), lambda: nn.Linear(2, 2, device="meta"),
    lambda: torch.jit.script(nn.Linear(2, 2)), lambda: nn.ModuleList([nn.Linear(2, 2)]), lambda: small_model(), lambda: small_model(1),
    lambda: small_model(3, 5).half(), lambda: small_model(3, 5).double(), lambda: nn.Sequential(),
    lambda: torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), lambda: np.random.default_rng(0), torch.Generator,
    lambda: Records(), lambda: lambda *_, **__: None, lambda: lambda *_, **__: torch.zeros(3), lambda: lambda *a, **__: a[0],
]  # fmt: skip
HUGE = [
    lambda: -(10**400), lambda: 2**70, lambda: -(2**70), lambda: 2**40, lambda: [10**400], lambda: (2**70,) * 3,
    lambda: {"rotation": 10**400}, lambda: {"a": 2**70}, lambda: "\ud800",
]  # fmt: skip
VALUES = (
    st.sampled_from(JUNK).map(quietly)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers() | st.text(max_size=3) | st.none(), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers() | st.floats() | st.text(max_size=3), max_size=2)
)


@st.composite
def odd_calls(draw):
    """A name of CALLS, and one to three of its arguments with values that seldom fit."""
    name = draw(st.sampled_from(sorted(CALLS)))
    chosen = draw(st.lists(st.sampled_from(parameters(name)), min_size=1, max_size=3, unique=True))
    return name, {key: draw(VALUES) for key in chosen}


def outcome(name, odd):
    """Make the call; return "works", "refused", or "stopped" where it was at work after 30 seconds, and Ctrl-C ended it.

    Raises:
        Raw: an error came from inside, or something changed though the call failed.
    """
    call = CALLS[name]()
    arguments = {**call.good, **odd}
    model = arguments.get("model")
    model = model if isinstance(model, nn.Module) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        before, state = everything(model), process_state()
        signal.alarm(30)
        try:
            call.function(**arguments)
        except KeyboardInterrupt:
            if everything(model) != before or left(state, odd):
                raise Raw(f"{name}: {left(state, odd) or 'the model'} changed by Ctrl-C") from None
            return "stopped"
        except Exception as error:
            group = raw_group(error)
            if group is not None:
                raise Raw(f"{name}: {group}") from error
            if everything(model) != before or left(state, odd):
                raise Raw(f"{name}: {left(state, odd) or 'the model'} changed by a refusal ({error})") from error
            return "refused" if odd else f"refused: {error}"
        finally:
            signal.alarm(0)
        if left(state, odd):
            raise Raw(f"{name}: {left(state, odd)} changed by a call that works")
    return "works"


def left(state, odd):
    """What a call changed in the process; torch.compile names the folder of its cache in the environment, which is not ours."""
    of_torch = {"environment", "import path"} if "compile" in odd else set()
    return [name for name in changed(state) if name not in of_torch]


def raw_group(error):
    """Where an error came from, if it did not come from a `raise` of this library; None if it did."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = last.filename.startswith(PACKAGE) and linecache.getline(last.filename, last.lineno).strip().startswith(
        "raise "
    )
    if ours and isinstance(error, IN_WORDS):
        return None
    inside = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(PACKAGE)] or [last]
    where = f"{inside[-1].filename.removeprefix(PACKAGE)}:{inside[-1].lineno}"
    return f"{type(error).__name__} at {where}: {str(error)[:110]!r}"


def main(calls, seed, only=""):
    """Print the groups of raw errors among this many calls, with one example of each."""
    chance, counts, examples = random.Random(seed), Counter(), {}
    names = [name for name in sorted(CALLS) if only in ("", name)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for _ in range(calls):
            name = chance.choice(names)
            chosen = chance.sample(parameters(name), min(chance.choice((1, 1, 2, 3)), len(parameters(name))))
            odd = {key: chance.choice(JUNK)() for key in chosen}
            try:
                counts[name, outcome(name, odd)] += 1
            except Raw as error:
                group = str(error)
                counts[name, "RAW"] += 1
                counts[group.split(": '")[0]] += 1
                examples.setdefault(group.split(": '")[0], (group, {k: repr(v)[:80] for k, v in odd.items()}))
        os.chdir("/")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name in names:
            try:
                print(name, "with what fits:", outcome(name, {}))
            except Raw as error:
                print(name, "with what fits:", error)
        os.chdir("/")
    for key, number in sorted(counts.items(), key=str):
        if isinstance(key, tuple):
            print(*key, number)
    for group, (text, odd) in sorted(examples.items()):
        print(f"{counts[group]:5d}  {text}\n       {odd}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int((sys.argv[2:] or ["0"])[0]), *(sys.argv[3:4]))
