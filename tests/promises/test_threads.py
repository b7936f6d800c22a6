"""Calls in many threads at the same time give what they give one after the other, and leave the process as it was."""

import sys
import threading
from functools import partial

import pytest
import torch
from guarded import images
from process_state import same_process
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robusttune
from robusttune.evaluations.sweep import sweep

QUIET = {"progress": False, "device": "cpu"}


def model_of(number):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        layers = [
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        ]
        return nn.Sequential(*layers, nn.Linear(16, 5)).eval()


def loader_of(number):
    """A loader that shuffles by the process-wide generator, as most do."""
    return DataLoader(TensorDataset(images(24, 3, 8, 8, seed=number), torch.arange(24) % 5), 8, shuffle=True)


# Each makes its model first, by the process-wide random states, and then returns the call.


def hardened(number, **more):
    model, loader = model_of(number), loader_of(number)
    settings = {
        "epochs": 2,
        "steps": 1,
        "tasks": {"rotation": 0.5},
        "augment": "noise",
        "seed": number,
        **QUIET,
        **more,
    }
    return lambda: robusttune.harden(model, loader, **settings).state_dict()


def pretrained(number):
    model, loader = model_of(number), loader_of(number)

    def call():
        robusttune.pretrain(model, loader, tasks={"rotation": 1.0}, epochs=1, seed=number, **QUIET)
        return model.state_dict()

    return call


def evaluated(number):
    model, loader, measured = model_of(number), loader_of(number), ["clean", partial(sweep, steps=2)]

    def call():
        records = robusttune.evaluate(model, loader, measured, norm="l2", eps=0.3, seed=number, **QUIET)
        return [(each.evaluation, str(each.setting), each.value, each.right) for each in records]

    return call


def watched(number):
    model, reference = model_of(number), images(80, 3, 8, 8, seed=number).split(40)

    def call():
        monitor = robusttune.Monitor(model, reference, seed=number)
        return [str(monitor(images(16, 3, 8, 8, seed=seed))) for seed in range(3)]

    return call


KINDS = (hardened, evaluated, watched, pretrained)


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    return first == second


def at_once(work):
    """The results of functions that threads call at the same time."""
    results, start = [None] * len(work), threading.Barrier(len(work))

    def call(place):
        start.wait()
        try:
            results[place] = work[place]()
        except BaseException as error:  # a thread would keep it to itself
            results[place] = error

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(work))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # so that threads take turns within a step
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    return results


@pytest.mark.filterwarnings("ignore:.*held-out accuracy")  # of heads that have hardly been trained
@pytest.mark.parametrize("count", [4, pytest.param(36, marks=pytest.mark.slow)])
def test_threads_get_what_calls_one_after_the_other_get(count):
    calls = [(KINDS[number % len(KINDS)], number // len(KINDS)) for number in range(count)]
    alone = [kind(number)() for kind, number in calls]
    work = [kind(number) for kind, number in calls]
    with same_process():
        together = at_once(work)
    different = [
        (kind.__name__, number, found if isinstance(found, BaseException) else "other results")
        for (kind, number), found, right in zip(calls, together, alone, strict=True)
        if isinstance(found, BaseException) or not equal(found, right)
    ]
    assert different == []


def test_a_call_that_fails_in_a_thread_costs_the_others_nothing():
    model = model_of(0)

    def refused():
        with pytest.raises(ValueError, match="label 99 is out of range"):
            robusttune.harden(model, [(images(), torch.full((8,), 99))], **QUIET)

    alone, work = evaluated(1)(), [refused, evaluated(1), refused]
    with same_process():
        together = at_once(work)
    assert together == [None, alone, None]


@pytest.mark.parametrize("inside", [hardened, *(pytest.param(each, marks=pytest.mark.slow) for each in KINDS[1:])])
def test_a_call_inside_on_epoch_of_a_run_changes_neither(inside):
    alone, expected, found, calls = hardened(3)(), inside(4)(), [], [inside(4), inside(4)]
    call = hardened(3, on_epoch=lambda facts: found.append(calls.pop()()))
    with same_process():
        outer = call()
    assert equal(outer, alone)
    assert len(found) == 2
    assert all(equal(each, expected) for each in found)
