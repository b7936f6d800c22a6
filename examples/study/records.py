"""Runs of a study, once trained and as often judged as is asked: their records, their weights, their tables.

A record is a line of JSON in docs/studies/<study>.jsonl: the run it belongs to, and what was learned about it. The weights of a run
stay in runs/study/<study>, which is not a part of the repository: where they are gone, a judge that is new trains them again. If a run
comes out otherwise then, as with another version, all its judges see the new model.
"""

import copy
import json
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial, wraps
from pathlib import Path
from statistics import mean, stdev

import torch
from safetensors.torch import load_model, save_model
from torch import nn

import robusttune
from examples.study.cases import SETTINGS, unseen
from robusttune.corruptions import FAMILIES
from robusttune.evaluations.autoattack import autoattack
from robusttune.evaluations.corruptions import corruptions
from robusttune.evaluations.strong import strong
from robusttune.evaluations.sweep import sweep

ROOT = Path(__file__).parents[2]
FACTORS = (0.5, 1.0, 1.5)  # of the training radius
FURTHER = (0.25, 0.75, 1.25, 2.0)  # by the judge "far"
COLUMNS = ("clean", "0.5 eps", "1 eps", "1.5 eps", "strong", "autoattack")
ATTACKED = 500  # of the test images, by AutoAttack, which takes 1 to 2 seconds for an image that withstands it
TITLES = {"1 eps": "eps", "autoattack": f"AutoAttack, {ATTACKED} images"}

Facts = dict[str, object]
Train = Callable[[Facts], tuple[nn.Module, Facts]]


class Study:
    """The records and weights of one study.

    Args:
        name: of its files.
        train: (run) -> the model that this run ends with, and facts about its training, such as seconds.
    """

    def __init__(self, name: str, train: Train) -> None:
        self.train = train
        self.file = ROOT / "docs" / "studies" / f"{name}.jsonl"
        self.weights = ROOT / "runs" / "study" / name

    def lines(self) -> list[Facts]:
        """All records, as they were written."""
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def add(self, run: Facts, **facts: object) -> None:
        """Write a record."""
        line = json.dumps({"run": run, **facts})
        print(line, flush=True)
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def runs(self) -> list[Facts]:
        """What is known of each run, together; where a run was trained again and came out otherwise, of the last one alone."""
        known: dict[str, Facts] = {}
        for line in self.lines():
            facts = {name: value for name, value in line.items() if name not in ("run", "again")}
            if "again" in line:
                known.pop(name_of(line["run"]), None)
            known.setdefault(name_of(line["run"]), dict(line["run"])).update(facts)
        return list(known.values())

    def known(self, run: Facts) -> Facts:
        """What is known of one run."""
        return next((each for each in self.runs() if name_of(each, run) == name_of(run)), {})

    def judge(self, run: Facts, judges: Iterable[str], *, again: bool = False) -> None:
        """Train the run if it is not trained yet, or `again`, and show it to the judges who have not seen it."""
        known = self.known(run)
        judges = list(dict.fromkeys([*judges, *(judge for judge in COLUMN if COLUMN[judge] in known)]))
        if not again and all(COLUMN[judge] in known for judge in judges):
            return
        model = self.model(run, again=again)
        known = self.known(run)
        for judge in judges:
            if COLUMN[judge] not in known:
                self.add(run, **judged(model, str(run["setting"]), judge))

    def model(self, run: Facts, *, again: bool = False) -> nn.Module:
        """Return the model that a run ends with, from its weights, or trained where they are gone, or `again`.

        A model that comes out otherwise than the one of the records takes its place there: what judges said of one model
        must not stand beside what they said of another. One that comes out the same `again` has the seconds of this run: those of a
        run beside others are too many.
        """
        weights = self.weights / f"{name_of(run)}.safetensors"
        if weights.exists() and not again:
            model = SETTINGS[str(run["setting"])].new()
            load_model(model, weights)
            return model.eval()
        model, facts = self.train(run)
        model.eval()
        known = self.known(run)
        facts = {**facts, "version": robusttune.__version__}
        if "seconds" in known and not is_the_same(model, known):
            self.add(run, **facts, again=True)
        elif again or "seconds" not in known:
            self.add(run, **facts)
        self.weights.mkdir(parents=True, exist_ok=True)
        part = weights.with_suffix(".part")
        save_model(model, str(part))
        part.rename(weights)
        return model


def is_the_same(model: nn.Module, known: Facts) -> bool:
    """Whether a model answers in a sweep as the one of the records, or none has been judged."""
    if not any(column in known for column in COLUMN.values()):
        return True
    return COLUMN["sweep"] in known and judged(model, str(known["setting"]), "sweep").items() <= known.items()


def name_of(run: Facts, like: Facts | None = None) -> str:
    """A run's name, of its facts in order, or of those of them that another run has."""
    return " ".join(str(run.get(fact)) for fact in (like or run))


def judged(model: nn.Module, setting: str, judge: str) -> dict[str, float]:
    """Shares of the test images classified correctly: unchanged and in a sweep past the radius, or under one attack."""
    norm, eps = SETTINGS[setting].norm, SETTINGS[setting].eps
    factors = FURTHER if judge == "far" else FACTORS
    radii = [factor * eps for factor in factors]
    which = {
        "sweep": ["clean", partial(sweep, norms=[norm], eps=radii, steps=20)],
        "far": [partial(sweep, norms=[norm], eps=radii, steps=20)],
        "corruptions": [corruptions],
        "strong": [partial(strong, targets=3)],
        "autoattack": [autoattack],
    }[judge]
    images = unseen(setting, ATTACKED if judge == "autoattack" else None)
    records = robusttune.evaluate(model, images, which, norm=norm, eps=eps, progress=False)
    if judge == "corruptions":
        means = {each.setting.get("over"): each.value for each in records if each.metric == "accuracy"}
        return {family: means[family] for family in FAMILIES}
    values = [each.value for each in records if each.metric == "accuracy"]
    if judge not in ("sweep", "far"):
        return {judge: values[-1]}
    at = {each.setting["eps"]: each.value for each in records if each.evaluation == "sweep"}
    found = {f"{factor:g} eps": at[radius] for factor, radius in zip(factors, radii, strict=True)}
    return {"clean": values[0], **found} if judge == "sweep" else found


# Where a judge's answer is seen.
COLUMN = {"sweep": "1 eps", "strong": "strong", "autoattack": "autoattack", "far": "2 eps", "corruptions": "noise"}


def table(
    runs: Sequence[Facts], groups: Sequence[str], columns: Sequence[str] = COLUMNS, order: Callable | None = None
) -> str:
    """Means over seeds in percent with standard deviations, a row for each group of runs.

    Args:
        runs: what is known of each.
        groups: facts that runs of one row share.
        columns: shares; those that no run has are left out.
        order: sort key of a row's facts.
    """
    columns = [column for column in columns if any(column in run for run in runs)]
    rows: dict[tuple[object, ...], list[Facts]] = {}
    for run in runs:
        rows.setdefault(tuple(run[group] for group in groups), []).append(run)
    lines = ["| " + " | ".join([*groups, "seeds", *(TITLES.get(name, name) for name in columns), "seconds"]) + " |"]
    lines.append("|" + "---|" * (len(groups) + len(columns) + 2))
    for facts in sorted(rows, key=order) if order else rows:
        mine = rows[facts]
        cells = [cell([run[column] for run in mine if column in run], len(mine)) for column in columns]
        seconds = [run["seconds"] for run in mine if "seconds" in run]
        shown = [f"{fact:,}" if isinstance(fact, int) else str(fact) for fact in facts]
        lines.append(f"| {' | '.join([*shown, str(len(mine)), *cells, f'{mean(seconds):.0f}' if seconds else ''])} |")
    return "\n".join(lines)


def cell(values: Sequence[float], seeds: int) -> str:
    """The mean of shares in percent, their standard deviation where there are several, and their number where some lack."""
    if not values:
        return ""
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    fewer = f" ({len(values)} seed{'s' * (len(values) > 1)})" if len(values) < seeds else ""
    return f"{100 * mean(values):.1f}{spread}{fewer}"


_saved: list[float] = []  # seconds of training that was not repeated


def timed(train: Callable[[], nn.Module]) -> tuple[nn.Module, Facts]:
    """The model that training returns, and its seconds of the processor, with those of `shared` parts."""
    began = time.process_time() + sum(_saved)
    model = train()
    return model, {"seconds": round(time.process_time() + sum(_saved) - began, 1)}


def shared(train: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Train a model once for all runs that begin with it, each of which gets a copy."""
    known: dict[tuple[object, ...], tuple[nn.Module, float]] = {}

    @wraps(train)
    def copied(*arguments: Hashable) -> nn.Module:
        if arguments in known:
            _saved.append(known[arguments][1])
        else:
            model, facts = timed(lambda: train(*arguments))
            known[arguments] = model, float(str(facts["seconds"]))
        return copy.deepcopy(known[arguments][0])

    return copied


def one_thread() -> None:
    """Two runs then share two cores, and seconds of the processor can be compared."""
    torch.set_num_threads(1)
