"""Warnings at the end of a run: the model, or a pretext head, is no better than guessing."""

from robusttune.data.unlabeled import Labelled, Mixture
from robusttune.measuring.chance import LEAST, LEVEL, at_least, first_guess
from robusttune.run.provenance import fingerprint
from robusttune.run.settings import shown_radius
from robusttune.training.loop import Training
from robusttune.training.pretext_accuracy import near_guessing, pretext_scores

LOST = 2 / 3  # share of the accuracy before the run; a model that keeps less gets a warning
SHORT = 10  # steps, of a run that is a trial of the call alone
UNAFFECTED = ". This does not change the classifier: only Monitor and ood use this head"


def doubts(training: Training) -> list[str]:
    """Return warnings about the weights that the model has now, of this process's images."""
    of_model = _guessing_model(training) or _withstanding_nothing(training)
    return [*_unchanged_model(training), *of_model, *_guessing_heads(training)]


def _unchanged_model(training: Training) -> list[str]:
    """Return a warning if no weight is another than before the steps of this run."""
    robust_loss, before = training.robust_loss, training.recovery.start
    took_none = training.progress.taken == training.recovery.began  # all that was left was to judge the last epoch
    if before is None or took_none or before != fingerprint(robust_loss.model, trained=True):
        return []
    rates = sorted({group["lr"] for group in training.stepper.optimizer.param_groups})
    why = (
        f"the run went back to the weights it began with, {training.recovery.times} times"
        if training.recovery.times
        else (f"its learning rate was {max(rates):g} at the end, and {max(training.stepper.rates):g} at its peak")
    )
    return [
        f"no weight of the model has changed in {training.progress.taken} steps: {why}. Look at lr=, at the optimizer's parameters, and "
        "at what is frozen"
    ]


def _guessing_model(training: Training) -> list[str]:
    """Return a warning if the model has come to guess, or knows far less than before, judged by images it was trained on."""
    batches, robust_loss = training.batches, training.robust_loss
    if not training.validation.knew or not batches.rereadable:
        return []
    guess = first_guess(robust_loss.model, robust_loss.pixels, *batches.peeked, batches.loader, robust_loss.seed)
    if guess.images < LEAST:
        return []
    before, after = training.validation.right_before or 0.0, guess.right / guess.images
    was, lower = _rates(training)
    if not guess:
        steps = training.progress.taken
        why = (
            f"a learning rate that is too high does this (it was {was}: try {lower}), and so do too few steps ({steps}) and a large "
            "radius"
        )
        what = f"the model classifies {after:.0%} of the training images {_as_labelled(training)}, and {before:.0%} before this run"
        return [f"{what}: {why}"] if after < LOST * before else []
    return [
        f"the run ended with a model that guesses: of the images it was trained on, {guess}. A learning rate that is too high "
        f"does this: it was {was}, so try {lower}"
    ]


def _withstanding_nothing(training: Training) -> list[str]:
    """Return a warning where no more images withstand the attack than a guess gets right: held-out ones, or those of the last steps."""
    threat, best = training.stepper.threat, training.validation.best.score
    classes = training.robust_loss.classifier.classes
    held = best and [(round(best.robust * best.images), best.images)]
    counts = held or training.recovery.ended.withstood()
    if not counts or not threat.eps or training.progress.taken < SHORT:
        return []
    if any(each < LEAST or at_least(right, each, 1 / classes) <= LEVEL for right, each in counts):
        return []
    right, images = counts[-1]
    seen = "held-out images" if held else "images of the last steps"
    return [
        f"{right} of {images} {seen} withstood the attack, which is no more than guessing one of {classes} classes gives: "
        f"the model has learned nothing against attacks. A radius that is too large does this (eps was {shown_radius(threat.eps)} in "
        f"{threat.norm}), and so do too few steps ({training.progress.taken}) and a learning rate that does not fit "
        f"({_rates(training)[0]})"
    ]


def _rates(training: Training) -> tuple[str, str]:
    """Return the peak learning rate in words, and the arguments for a lower one that leave the images of a step as they were."""
    rate, most = max(training.stepper.rates), training.batches.most
    when = "after the run went back" if training.recovery.times else "at its peak"
    # A learning rate of the user's own would otherwise go with whole batches, which are fewer steps.
    return f"{rate:g} {when}", f"lr={rate / 4:g}" + ("" if most is None else f", update_batch={most}")


def _as_labelled(training: Training) -> str:
    by_teacher = isinstance(training.batches.loader, Labelled | Mixture)
    return "as they are labelled (by the teacher, where they had no label)" if by_teacher else "correctly"


def _guessing_heads(training: Training) -> list[str]:
    """Return a warning for each task whose head is hardly better than guessing on held-out images."""
    robust_loss, held = training.robust_loss, training.validation.loader
    scores = {} if held is None else pretext_scores(robust_loss, held)
    warnings = []
    for name in near_guessing(scores):
        score = scores[name]
        others = {key: weight for key, weight in robust_loss.heads.weights.items() if key != name} or None
        warnings.append(
            f"{name}'s held-out accuracy is {score.accuracy:.0%} on {score.images} images, near the {score.guessing:.0%} of "
            f"a guess: either training was short, or {name} has no meaning on these images (as rotations on satellite "
            f"images); then drop it with tasks={others}{'' if robust_loss.heads.weights.get(name) else UNAFFECTED}"
        )
    return warnings
