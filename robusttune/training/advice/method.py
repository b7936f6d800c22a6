"""The preset, the tasks and the length that are advised."""

import math

from robusttune.run.settings import epochs_in_words
from robusttune.tasks import HEADS_ALONE
from robusttune.training.advice.chosen import DEFAULT, Chosen, Settings, Wishes
from robusttune.training.advice.figures import Row, Sought, figures, measured, nearest, percent, published, rows
from robusttune.training.advice.situation import Situation
from robusttune.training.presets import PRESETS, chosen_attacker, images_of_a_step
from robusttune.training.settings import Adversary, PresetName, RunLength, run_settings
from robusttune.training.start import name_of

LEAD = 0.02  # a lead under attack that is worth a mention


def sought(chosen: Chosen, situation: Situation) -> Sought:
    """Return what figures are sought for."""
    channels, *sides = situation.images.shape[1:]
    patches = None if situation.model is None else situation.model.patches
    settings = chosen.settings
    return Sought(str(settings["norm"]), settings["eps"], channels, min(sides), patches, situation.total)


def choose_preset(chosen: Chosen, situation: Situation, use: str) -> None:
    """Add the preset for a use of labels, with the attack that it means."""
    settings = chosen.settings
    if not settings["eps"]:
        return
    fast = use != "labels" and not situation.large
    preset: PresetName = "fast" if fast else "standard"
    settings["preset"] = preset
    attack = attack_in_words(settings, situation, preset)
    if situation.large:
        name = "large linf" if settings["norm"] == "linf" else "large l2"
        why = f"{attack}. From 160 px on these are the literature's settings, not measured by us. Start from pre-trained weights"
        chosen.say("preset", repr(preset), why, published(name))
        return
    study, reason = (
        ("labels", "Self-training was measured with this preset") if fast else ("search", _ahead(chosen, situation))
    )
    chosen.say("preset", repr(preset), f"{attack}. {reason}", measured(study))


def attack_in_words(settings: Settings, situation: Situation, preset: PresetName) -> str:
    """Name the attack of a preset, and that of the last quarter of the run."""
    adversary = Adversary(settings["norm"], settings["eps"], settings.get("purpose", "attacks"), preset)
    attacker = chosen_attacker(adversary, PRESETS[preset], situation.images)
    steps = "" if attacker.steps is None else f" with {attacker.steps} steps"
    late = "" if attacker.late is None else f"; in the last quarter of the run {name_of(attacker.late)}"
    return f"{name_of(attacker.attack)}{steps}{late}"


def _ahead(chosen: Chosen, situation: Situation) -> str:
    """Say where another preset was ahead in a case that is like this one."""
    wanted = sought(chosen, situation)
    near, thorough = nearest(rows("default"), wanted), nearest(rows("thorough"), wanted)
    best = "The best that we found for short runs of small images"
    if near is None:
        return "The default; images of this size were not measured by us"
    if thorough is None or any(near[name] != thorough[name] for name in ("model", "norm", "eps", "data", "images")):
        return best
    if near["channels"] != wanted.channels or thorough["1 eps"] < near["1 eps"] + LEAD:
        return best
    return (
        f"{best}; but compare preset='thorough' on your images: on {near['data']} it had {percent(thorough, '1 eps')} at the radius, the "
        f"default {percent(near, '1 eps')}, and on unchanged images {percent(thorough, 'clean')} against {percent(near, 'clean')}"
    )


def choose_tasks(chosen: Chosen, wishes: Wishes) -> None:
    """Add the pretext tasks: heads that leave the model alone, or none."""
    settings = chosen.settings
    if "tasks" in settings:  # there is no adversary
        return
    preset = PRESETS[settings["preset"]]
    monitoring = wishes.purpose == "monitoring"
    tasks = HEADS_ALONE if monitoring else preset.tasks
    settings["tasks"] = None if tasks is None else dict(tasks)
    known = ", ".join(f"{row['arm']} {percent(row, '1 eps')}" for row in rows("tasks")[:3])
    beside = f"As losses beside the class they brought nothing at the radius (32 px, one seed): {known}"
    if tasks is None:
        chosen.say("tasks", "none", f"{beside}. For Monitor and ood pass tasks={dict(HEADS_ALONE)}", measured("tasks"))
        return
    heads = "heads that are fitted at the end, with out=, and leave the model as it is; Monitor and ood need them"
    chosen.say("tasks", f"{settings['tasks']}", f"{heads}. {beside}", measured("tasks"))
    if monitoring:
        chosen.todo.append("pass out=: its folder has the heads for robusttune.Monitor(model, held_out, heads=folder)")


def choose_epochs(chosen: Chosen, situation: Situation, use: str) -> None:
    """Add the number of epochs: the default, or as many as are needed for the steps that were measured."""
    usual = RunLength().epochs
    per_epoch = steps_of_an_epoch(chosen.settings, situation)
    if per_epoch is None or situation.large or not chosen.settings["eps"]:
        chosen.settings["epochs"] = usual
        chosen.say("epochs", str(usual), "not measured by us at this size" if situation.large else "", DEFAULT)
        return
    least, wanted = usual, measured_steps(chosen, situation)
    if use != "labels" and chosen.settings["preset"] == "fast":
        stages = figures()["stages"]
        wanted = stages["hardening steps"]
        least = math.ceil(wanted / math.ceil(max(int(row["images"]) for row in rows("labels")) / stages["batch"]))
    epochs = min(max(least, math.ceil(wanted / per_epoch)), max(least, most_epochs()))
    chosen.settings["epochs"] = epochs
    why = f"{epochs * per_epoch:,} steps; {_few_steps()}"
    study = "situations" if use == "labels" else "labels"
    chosen.say("epochs", str(epochs), why, DEFAULT if epochs == usual else measured(study))


def steps_of_an_epoch(settings: Settings, situation: Situation) -> int | None:
    """Count the optimiser steps of an epoch in one process; None if the number of images is not known."""
    total = situation.total
    if total is None:
        return None
    most = images_of_a_step(run_settings([], preset=settings.get("preset", "standard")), situation.images)
    batch = len(situation.images)
    whole, rest = divmod(total, batch)
    each = batch if most is None else most
    return max(1, whole * math.ceil(batch / each) + math.ceil(rest / each))


def measured_steps(chosen: Chosen, situation: Situation) -> int:
    """Return the steps of the nearest measured run of the default, or of the first one where none is near."""
    near = nearest(rows("default"), sought(chosen, situation))
    return int((rows("default")[0] if near is None else near)["steps"])


def most_epochs() -> int:
    """Return the most epochs over the same images that were measured."""
    return max(int(row["epochs"]) for row in rows("few images"))


def _few_steps() -> str:
    few: list[Row] = [
        row for row in rows("few images") if row["images"] == min(int(each["images"]) for each in rows("few images"))
    ]
    told = ", ".join(
        f"{epochs_in_words(row['epochs'])} took clean accuracy from {row['clean before']:.0%} to {row['clean after']:.0%}, and "
        f"{row['robust after']:.0%} withstood the attack"
        for row in few
    )
    return f"what counts is their number: with {few[0]['images']} images {told}"
