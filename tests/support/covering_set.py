"""A covering set of runs of `harden`: each two values of two of its arguments meet in one of them."""

import itertools
import random

from robusttune import plugins

FOREIGN = ("torchattacks", "foolbox", "adv_lib")  # which refuse a joint attack
CHOICES = {
    "norm": plugins.names("norms"),
    "objective": plugins.names("objectives"),
    "attack": [name for name in plugins.names("attacks") if name not in FOREIGN],
    "tasks": [None, *[{name: 0.5} for name in plugins.names("tasks")], dict.fromkeys(plugins.names("tasks"), 0.5)],
    "attack_tasks": ["none", "separate", "joint"],
    "views": [1, "all"],
    "precision": ["fp32", "bf16", "fp16"],
    "accumulate": [1, 2],
    "clip_grad": [None, 1.0],
    "channels_last": [False, True],
    "awp": [0.0, 0.01],
    "ema": [0.0, 0.9],
    "augment": ["none", "standard", "augmix", "prime", "noise"],
    "eps_ramp": [False, True],
    "optimizer": ["sgd", "adamw"],
    "compile": [False, True],
}


def covering_set():
    """Runs in which each pair of values of two choices occurs at least once, found greedily."""
    names, chance = list(CHOICES), random.Random(0)
    numbers = {name: range(len(CHOICES[name])) for name in names}
    missing = {
        ((first, one), (second, two))
        for first, second in itertools.combinations(names, 2)
        for one, two in itertools.product(numbers[first], numbers[second])
    }
    runs = []
    while missing:
        (first, one), (second, two) = min(missing)
        tries = [{name: chance.choice(numbers[name]) for name in names} | {first: one, second: two} for _ in range(200)]
        best = max(tries, key=lambda run: len(pairs_of(run) & missing))
        missing -= pairs_of(best)
        runs.append(best)
    return runs


def pairs_of(run):
    return set(itertools.combinations(run.items(), 2))


def settings_of(run):
    """The arguments of `harden` for a run of the covering set."""
    settings = {name: CHOICES[name][number] for name, number in run.items()}
    if settings["tasks"] is not None and settings["views"] == 1 and len(settings["tasks"]) == 1:
        settings["views"] = "all"
    return settings


RUNS = covering_set()
