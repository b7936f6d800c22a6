"""The use of labels that is advised: teacher, pre-training and fine-tuning, by how many images have a label."""

import math
from statistics import fmean, median
from typing import NamedTuple

from robusttune.training.advice.chosen import Chosen
from robusttune.training.advice.figures import Row, figures, measured, percent, published, rows
from robusttune.training.advice.situation import Situation

BEST, SELF_TRAINING, ALONE = "pre-trained, self-training", "self-training", "labels alone"
TRUE, OWN = "all true labels", "no label at all"
CLEARLY = 0.05  # a lead under `strong` that is larger than the scatter of seeds


class Limits(NamedTuple):
    """Numbers of labels: up to `few` images without labels bring much in most settings, from `enough` on next to nothing."""

    few: int
    enough: int


def limits() -> Limits:
    """Read both numbers of labels from the study.

    Example:
        >>> limits()
        Limits(few=1000, enough=5000)
    """
    known = [row for row in rows("labels") if "strong" in row]
    gains: dict[int, list[float]] = {}
    for row in known:
        if row["arm"] == ALONE:
            with_others = [
                each["strong"] for each in known if each["arm"] in (SELF_TRAINING, BEST) and _same_case(each, row)
            ]
            gains.setdefault(int(row["labels"]), []).append(max(with_others) - row["strong"])
    few = max((labels for labels, found in gains.items() if median(found) > CLEARLY), default=0)
    return Limits(few, min((labels for labels, found in gains.items() if max(found) <= CLEARLY), default=few))


def _same_case(one: Row, other: Row) -> bool:
    return all(one[name] == other[name] for name in ("model", "norm", "labels"))


def choose_labels(chosen: Chosen, situation: Situation, *, attacked: bool, beside: bool) -> str:
    """Add the teacher and the stages before hardening; return the kind of use: "labels", "self-training" or "own answers".

    Args:
        chosen: gets the settings.
        situation: with its numbers of images.
        attacked: there is an adversary.
        beside: an `unlabeled_loader` was passed.
    """
    labels, others = situation.labels or 0, situation.others or 0
    few, enough = limits()
    trained = situation.model is not None and situation.model.trained
    if labels == 0:
        _own_answers(chosen, situation)
        return "own answers"
    if others < labels or labels >= enough or not attacked:
        if others and labels >= enough:
            _enough(chosen, labels, enough)
        elif attacked and labels <= few:
            _few_alone(chosen, labels)
        if not trained and situation.model is not None and situation.model.trained is False:
            _finetune(chosen, situation)
        return "labels"
    _self_training(chosen, situation, labels, others)
    if not trained:
        if labels <= few:
            _pretrain(chosen, situation, labels)
        _finetune(chosen, situation)
    if not beside:
        chosen.todo.append(
            f"put the {labels:,} images with labels into one folder or loader, and the other {others:,} into another, which "
            "unlabeled_loader= (--unlabeled) names"
        )
    return "self-training"


def _own_answers(chosen: Chosen, situation: Situation) -> None:
    own, true = (_row(arm, labels=10_000) for arm in (OWN, TRUE))
    chosen.settings["teacher"] = "self"
    chosen.say(
        "teacher",
        "'self': the model's own answers are the labels",
        f"from a model that was trained on all 10,000 images its own answers gave {percent(own, 'strong')} under attack, the true labels "
        f"{percent(true, 'strong')}",
        measured("labels"),
    )
    chosen.todo.append("the model must be trained on these classes already: its own answers become the labels")


def _self_training(chosen: Chosen, situation: Situation, labels: int, others: int) -> None:
    near = _nearest(labels)
    arms = ", ".join(f"{arm} {percent(_row(arm, near), 'strong')}" for arm in (ALONE, SELF_TRAINING, BEST, TRUE))
    chosen.settings["teacher"] = "self"
    chosen.say(
        "teacher",
        f"'self': the model labels the {others:,} images that have no label",
        f"with {near:,} labels of 10,000 images, under attack at the radius: {arms}",
        measured("labels"),
    )


def _pretrain(chosen: Chosen, situation: Situation, labels: int) -> None:
    """Add pre-training, unless it brought nothing to nets of this kind with about as many labels."""
    patches = situation.model is not None and situation.model.patches
    mine = [row for row in rows("labels") if row["patches"] == patches and row["arm"] in (SELF_TRAINING, BEST)]
    near = min((int(row["labels"]) for row in mine), key=lambda each: abs(math.log(each / labels)))
    without, after = (
        fmean(row["strong"] for row in mine if row["arm"] == arm and row["labels"] == near)
        for arm in (SELF_TRAINING, BEST)
    )
    if after <= without:
        chosen.say(
            "pretrain_epochs",
            "0",
            f"with {near:,} labels it brought nothing to nets of this kind: {after:.1%} under attack after it, {without:.1%} without",
            measured("labels"),
        )
        return
    epochs = figures()["stages"]["pretraining epochs"]
    chosen.settings["pretrain_epochs"] = epochs
    chosen.say(
        "pretrain_epochs",
        str(epochs),
        "rotation and jigsaw on all images, without labels, before anything else: it makes the labels that the model gives better",
        measured("labels"),
    )


def _finetune(chosen: Chosen, situation: Situation) -> None:
    steps, batch = figures()["stages"]["ordinary steps"], len(situation.images)
    epochs = max(1, math.ceil(steps / max(1, math.ceil((situation.labels or 0) / batch))))
    chosen.settings["finetune"] = epochs
    if situation.model is None:
        state = "no model was passed, so this assumes one that does not know these classes"
    elif situation.model.trained is None:
        state = "the images do not tell if the model knows these classes: leave this and pretrain_epochs out if it does"
    else:
        state = "the model does not know these classes yet"
    chosen.say(
        "finetune",
        f"{epochs} epochs",
        f"{state}: ordinary training on the labels comes first, about {steps} steps as in our studies",
        measured("labels"),
    )


def _enough(chosen: Chosen, labels: int, enough: int) -> None:
    alone, best = (_row(arm, enough) for arm in (ALONE, BEST))
    chosen.say(
        "unlabeled_loader",
        f"not needed for {labels:,} labels",
        f"with {enough:,} labels of 10,000 images the labels alone gave {percent(alone, 'strong')} under attack, with the images without "
        f"labels {percent(best, 'strong')}. Large nets may gain more ({published('self-training')})",
        measured("labels"),
    )


def _few_alone(chosen: Chosen, labels: int) -> None:
    near = _nearest(labels)
    row, best = (_row(arm, near) for arm in (ALONE, BEST))
    chosen.todo.append(
        f"{labels:,} labels are few: look for many more images of the same kind, without labels. With {near:,} labels of 10,000 images they "
        f"lifted the accuracy under attack from {percent(row, 'strong')} to {percent(best, 'strong')} ({measured('labels')})"
    )


def _nearest(labels: int) -> int:
    """Return the number of labels in the study that is nearest to one above 0, by their ratio."""
    known = (int(row["labels"]) for row in rows("labels") if row["arm"] == SELF_TRAINING)
    return min(known, key=lambda each: abs(math.log(each / labels)))


def _row(arm: str, labels: int) -> Row:
    """Return the row of a way of using labels: of the CNN in linf, for which all numbers of labels were measured."""
    return next(
        row
        for row in rows("labels")
        if (row["arm"], row["labels"], row["norm"], row["patches"]) == (arm, labels, "linf", False)
    )
