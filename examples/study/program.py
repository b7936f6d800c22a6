"""The command line of a study, and its tables."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from examples.study import costs
from examples.study.cases import SEARCHED, SETTINGS
from examples.study.records import COLUMN, Facts, Study, one_thread, table


def tables(
    study: Study,
    groups: Sequence[str],
    order: Callable[..., object],
    more: Callable[[Facts], Facts] = lambda run: {},
) -> str:
    """The table of each setting.

    Args:
        study: whose records are shown.
        groups: facts that the runs of a row share.
        order: sort key of a row's facts.
        more: facts of a run that follow from those that are known.
    """
    parts = []
    for name, setting in SETTINGS.items():
        runs = [run for run in study.runs() if run["setting"] == name and run["seed"] != costs.COST]
        runs = [{**run, **more(run)} for run in runs]
        if runs:
            parts.append(f"**{setting.title}**\n\n{table(runs, groups, order=order)}")
    return "\n\n".join(parts)


def parser(title: str, arms: Sequence[str], settings: Sequence[str] = SEARCHED) -> argparse.ArgumentParser:
    """The options that all studies have."""
    options = argparse.ArgumentParser(description=title)
    options.add_argument("--settings", nargs="+", choices=SETTINGS, metavar="SETTING", default=list(settings))
    options.add_argument("--arms", nargs="+", choices=arms, metavar="ARM", default=list(arms))
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--judges", nargs="+", choices=COLUMN, default=["sweep", "strong"])
    options.add_argument("--again", action="store_true", help="train runs again that are in the records already")
    options.add_argument("--tables", action="store_true", help="print the tables of the records, and run nothing")
    return options


def at_equal_seconds(
    study: Study,
    title: str,
    arms: Sequence[str],
    hardened: Callable[..., nn.Module],
    place: Callable[[str], str],
    as_long_as: Callable[[str], str] = str,
) -> bool:
    """Run what is missing of a study whose arms have equal seconds, or measure how long a step of each takes.

    Args:
        study: to be filled.
        title: for `--help`.
        arms: by name, the reference first.
        hardened: (setting, arm, seed=, steps=) trains so many steps.
        place: (setting) -> what a measured cost holds for.
        as_long_as: (arm) -> the arm whose step takes as long, which is measured in its place.

    Returns:
        False where tables are asked for instead.
    """
    options = parser(title, arms)
    options.add_argument("--cost", action="store_true", help="measure how long a step of each arm takes")
    options.add_argument("--rounds", type=int, default=3, help="of alternation, for --cost")
    asked = options.parse_args()
    if asked.tables:
        return False
    one_thread()
    for setting in asked.settings:
        if asked.cost:
            train = partial(hardened, setting, seed=0)
            measured = dict.fromkeys(map(as_long_as, asked.arms))
            costs.measure(study, place(setting), list(measured), arms[0], train, asked.rounds)
            continue
        for seed in asked.seeds:
            for arm in asked.arms:
                study.judge({"setting": setting, "arm": arm, "seed": seed}, asked.judges, again=asked.again)
    return True
