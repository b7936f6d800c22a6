"""Figures to expect of the advised settings: accuracy from the nearest measured case, seconds and memory from the user's own model."""

import math
from dataclasses import dataclass

from torch import nn

from robusttune.run.settings import duration, number, shown_radius
from robusttune.training.advice.chosen import YOURS, Choice, Chosen, Wishes
from robusttune.training.advice.figures import (
    UNKNOWN,
    Row,
    Sought,
    case_in_words,
    differences,
    figures,
    is_comparable,
    measured,
    nearest,
    percent,
    rows,
)
from robusttune.training.advice.labels import BEST, OWN, SELF_TRAINING
from robusttune.training.advice.method import most_epochs, sought, steps_of_an_epoch
from robusttune.training.advice.situation import Situation
from robusttune.training.estimate import estimate_of
from robusttune.training.settings import HardenSettings, run_settings
from robusttune.types import Loader

HERE = "measured on this machine with your model (robusttune.estimate)"


@dataclass(frozen=True)
class Timing:
    """The cost of the advised run on this machine.

    Attributes:
        fixed: seconds of everything but the epochs.
        epoch: seconds of an epoch.
        peak: bytes of memory at most.
        memory: what is counted in it.
        largest_batch: the largest batch that fits into free memory; None if that is not known.
        device: the device that was measured.
    """

    fixed: float
    epoch: float
    peak: int
    memory: str
    largest_batch: int | None
    device: str

    def seconds(self, epochs: int) -> float:
        """Return the seconds of a run of this many epochs."""
        return self.fixed + epochs * self.epoch


def timing_of(model: nn.Module, loader: Loader, settings: HardenSettings) -> Timing:
    """Time the advised run on the user's model: some real steps are taken, and the model gets its weights back."""
    expected = estimate_of(model, run_settings(loader, **settings), warned=True)
    fixed = expected.seconds - expected.epochs * expected.seconds_per_epoch
    return Timing(
        max(0.0, fixed),
        expected.seconds_per_epoch,
        expected.peak_bytes,
        expected.memory,
        expected.largest_batch,
        expected.device,
    )


def fit_budget(chosen: Chosen, situation: Situation, wishes: Wishes, timing: Timing | None) -> None:
    """Fit the number of epochs to the user's budget, and limit the run to it."""
    if wishes.budget is None:
        return
    if timing is None:
        chosen.settings["time_budget"] = wishes.budget
        chosen.say(
            "time_budget", duration(wishes.budget), "of the training steps; what is reached first ends the run", YOURS
        )
        chosen.todo.append("let a model be timed, so that the epochs can be fitted to the budget")
        return
    left = wishes.budget - timing.fixed
    if left < timing.epoch:
        chosen.todo.append(
            f"the budget of {duration(wishes.budget)} is shorter than a run of one epoch ({duration(timing.seconds(1))}): take fewer or "
            "smaller images, or a larger budget"
        )
    elif timing.fixed > wishes.budget / 2:
        chosen.todo.append(
            f"everything but hardening takes {duration(timing.fixed)} of the budget of {duration(wishes.budget)}, such as fine-tuning: pass a "
            "trained model, smaller images or a larger budget, or lower finetune= if accuracy in training is near 100% early"
        )
    chosen.settings["time_budget"] = max(1.0, round(left, 1))
    why = f"of the training steps, out of {duration(wishes.budget)} for all; what is reached first ends the run"
    chosen.say("time_budget", duration(chosen.settings["time_budget"]), why, YOURS)
    fits, most = max(0, math.floor(left / timing.epoch)), _most(chosen, situation)
    if fits > most:
        chosen.todo.append(
            f"the budget has time for {fits:,} epochs, but more than {most} are not advised, as longer runs were not measured: use the rest "
            "for a second seed, and for evaluate with autoattack"
        )
    epochs = max(1, min(fits, most))
    if epochs != chosen.settings["epochs"]:
        chosen.settings["epochs"] = epochs
        chosen.choices[:] = [each for each in chosen.choices if each.name != "epochs"]
        chosen.say("epochs", str(epochs), f"{fits:,} epochs fit into the budget, and up to {most} are advised", HERE)


def _most(chosen: Chosen, situation: Situation) -> int:
    """Return the most epochs that are advised: as many steps, or as many epochs over few images, as were measured."""
    per_epoch, now = steps_of_an_epoch(chosen.settings, situation), int(chosen.settings["epochs"])
    if per_epoch is None or not chosen.settings["eps"]:
        return now
    steps = max(int(row["steps"]) for row in rows("lengths"))
    return max(now, min(most_epochs(), steps // per_epoch))


def expectations(chosen: Chosen, situation: Situation, timing: Timing | None) -> list[Choice]:
    """List the accuracy, the seconds and the memory to expect."""
    found = _accuracies(chosen, situation) if chosen.settings["eps"] else []
    epochs, limit = int(chosen.settings["epochs"]), chosen.settings.get("time_budget", math.inf)
    found.append(Choice("accuracy on your images", UNKNOWN, "robusttune poc or evaluate measures it", UNKNOWN))
    if timing is None:
        return [*found, Choice("time and memory", UNKNOWN, "pass a model, or call robusttune.estimate", UNKNOWN)]
    seconds = timing.fixed + min(epochs * timing.epoch, limit)
    whole = f"about {duration(seconds)} on {timing.device}, an epoch {duration(timing.epoch)}"
    found.append(Choice("time", whole, "without the evaluation afterwards", HERE))
    found.append(Choice("memory", f"at most {timing.peak / 2**20:,.0f} MiB", f"it counts {timing.memory}", HERE))
    return found


def _accuracies(chosen: Chosen, situation: Situation) -> list[Choice]:
    wanted = sought(chosen, situation)
    cases, study = _cases(chosen, situation)
    near = nearest(cases, wanted)
    if near is None:
        return _published(wanted)
    what = f"unchanged {percent(near, 'clean')}, at eps {percent(near, '1 eps')}, at 1.5 eps {percent(near, '1.5 eps')} (APGD)"
    for judge, name in (("strong", "strong"), ("autoattack", "AutoAttack")):
        what += f", {name} {percent(near, judge)}" if judge in near else ""
    length = f", {near['epochs']:g} epochs" if "epochs" in near else f", {near['labels']:,} labels, {near['arm']}"
    other = differences(near, wanted)
    why = f"{case_in_words(near)}, {near['norm']} {shown_radius(near['eps'])}{length}, {near['seconds']:.0f} s of one core"
    why += f". It differs from yours: {other}" if other else ""
    found = [Choice("accuracy, nearest case", what, why, measured(study))]
    return [*found, *_cost_of_eps(wanted), *([] if study == "labels" else _lengths(wanted))]


def _cases(chosen: Chosen, situation: Situation) -> tuple[list[Row], str]:
    """Return the measured cases with the advised use of labels, and their study."""
    if "teacher" not in chosen.settings:
        return rows("default"), "search"
    labels = situation.labels or 0
    arm = OWN if not labels else BEST if "pretrain_epochs" in chosen.settings else SELF_TRAINING
    mine = [row for row in rows("labels") if row["arm"] == arm]
    numbers = sorted({int(row["labels"]) for row in mine}, key=lambda each: abs(math.log(each / max(1, labels))))
    return [row for row in mine if row["labels"] == numbers[0]], "labels"


def _cost_of_eps(wanted: Sought) -> list[Choice]:
    """Say what each radius cost in clean accuracy, on the images that are nearest to the user's."""
    near = nearest(rows("radii"), wanted)
    if near is None:
        return []
    same = [row for row in rows("radii") if (row["data"], row["norm"]) == (near["data"], near["norm"])]
    told = "; ".join(
        f"{shown_radius(row['eps'])}: {row['clean after']:.1%} clean, {row['robust after']:.1%} at the radius"
        for row in same
    )
    before = f"{near['clean before']:.1%} before hardening; {case_in_words(near)}, {near['epochs']} epochs"
    return [Choice(f"accuracy by eps, {near['norm']}", told, before, measured("situations"))]


def _lengths(wanted: Sought) -> list[Choice]:
    """Say what shorter and longer runs of the default had, in the nearest case."""
    near = nearest(rows("lengths"), wanted)
    if near is None:
        return []
    alike = ("model", "norm", "eps", "data", "images")
    case = [row for row in (*rows("lengths"), *rows("default")) if all(row[name] == near[name] for name in alike)]
    case.sort(key=lambda row: float(row["epochs"]))
    told = "; ".join(f"{row['epochs']:.1f} epochs: {percent(row, '1 eps')}" for row in case)
    why = f"at the radius; {near['model']}, {near['images']:,} images of {near['data']}, {near['norm']} {shown_radius(near['eps'])}"
    return [Choice("accuracy by length", told, why, measured("search"))]


def _published(wanted: Sought) -> list[Choice]:
    literature = figures()["literature"]
    fitting: list[Row] = [
        row
        for row in literature["rows"]
        if row["norm"] == wanted.norm
        and is_comparable(row["side"], wanted.side)
        and math.isclose(number(row["eps"]), wanted.eps, rel_tol=0.25)
    ]
    if not fitting:
        why = "neither our studies nor the sources that we cite have measured images of this size with this norm and radius"
        return [Choice("accuracy", UNKNOWN, why, UNKNOWN)]
    told = "; ".join(f"{row['model']} {row['clean']}% clean, {row['autoattack']}% under AutoAttack" for row in fitting)
    why = f"{fitting[0]['data']}, {fitting[0]['norm']} {fitting[0]['eps']}; trained for far longer than some epochs; not measured by us"
    return [Choice("accuracy, published", told, why, f"from the literature ({literature['source']})")]
