"""Adversarial training of a user's model in one call."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.attacks import stays_in_ball
from robusttune.augmentations._augment import chosen_augment, overlaps
from robusttune.data import sharding
from robusttune.data.batches import Batches
from robusttune.data.pixels import find_pixels
from robusttune.data.splits import LEAST_HELD, held_back
from robusttune.measuring.record import percent
from robusttune.model import seen_corruptions
from robusttune.model.borrowing import trainable
from robusttune.run import files
from robusttune.run.log import tell
from robusttune.threat import ThreatModel
from robusttune.training.checks import check_arguments, check_first, check_held
from robusttune.training.loop import Training
from robusttune.training.presets import Preset, chosen_preset, default_attack, default_radius, for_purpose, late_attack
from robusttune.training.pretext_accuracy import doubts
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.setup import begun, checkpointed_if, made, statistics, taken
from robusttune.training.validation import score

HELD_BACK = 0.05
ROBUST_START = 0.5
OF_PIXELS = ("mean", "std", "normalized")
OF_LOSS = ("tasks", "attack_tasks", "views", "step_size", "awp", "classifier", "seed")


def harden(
    model: nn.Module,
    loader: Any,
    *,
    norm: Any = None,
    eps: float | None = None,
    purpose: str = "attacks",
    preset: str = "standard",
    tasks: Any = "auto",
    attack_tasks: str = "joint",
    views: int | str = 1,
    objective: Any = "adversarial",
    criterion: Any = None,
    attack: Any = "auto",
    steps: int | None = None,
    step_size: float | None = None,
    awp: float = 0.0,
    eps_ramp: bool | str = "auto",
    augment: Any = "auto",
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    val_loader: Any = None,
    unlabeled_loader: Any = None,
    heads: Any = None,
    epochs: int = 10,
    max_steps: int | None = None,
    time_budget: float | None = None,
    optimizer: Any = None,
    scheduler: Any = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_grad: float | None = None,
    accumulate: int = 1,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    ema: float | None = None,
    min_clean: float | None = None,
    precision: str = "auto",
    compile: bool | str = "auto",
    channels_last: bool | str = "auto",
    tune: bool | str = "auto",
    device: Any = "auto",
    sharded: bool | None = None,
    out: Any = None,
    resume: bool = False,
    init_from: Any = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    log: Any = None,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> nn.Module:
    """Train the model against an adversary, in place, and return that same object; only its weights have changed.

    Args:
        model: images -> logits (N,K): any timm or torchvision classifier, or any module of that shape.
        loader: yields (images, labels), or dicts of both: images (N,C,H,W) float or uint8, labels (N,) or soft (N,K).
        norm, eps: of the adversary; eps in pixel units on [0,1]; by the purpose and the image size unless given ("linf").
        purpose: "attacks", or "corruptions": a small l2 radius and AugMix, unless norm, eps or augment are given; one run
            does not serve both.
        preset: "standard", or "fast": a single-step attack, PGD-2 in the last quarter of the run, no pretext tasks, under
            160 px four times the learning rate, and two of three epochs not judged; what else is given comes first.
        tasks: pretext tasks and their weights; "auto" for rotation and jigsaw, or what the preset says; None for none.
        attack_tasks, views, objective, step_size, awp: see `RobustLoss`.
        criterion: (logits, labels) -> losses (N,), or a torch loss module, such as one with class weights, in the place
            of the objective's cross-entropy.
        attack, steps: by preset, image size and norm unless given.
        eps_ramp: let eps grow from 0, as `radius_factor` says; "auto" does so unless the model is robust already.
        augment: "auto" ("standard" where the loader's transform can be seen and is not random, else "none"), "none",
            "standard" (crop, flip), "augmix", "prime", "noise", a corruption, or any callable or Kornia module on images
            (N,C,H,W) in [0,1].
        mean, std, normalized: of the model's input; found in the loader unless given.
        classifier: name of the layer that yields the logits, where it cannot be found.
        val_loader: held-out images, on which the epoch is chosen whose weights are returned; unless given, 5% of a plain
            DataLoader's are held back where those are 32 or more; without any, the averaged weights of the last epoch
            are returned.
        unlabeled_loader: more images, for the pretext losses alone.
        heads: a RobustLoss, or the folder of a run, whose pretext heads to start from.
        epochs, max_steps, time_budget: what comes first ends the run; time_budget in seconds of training.
        optimizer, scheduler, lr, weight_decay, clip_grad: see `Recipe`; by the backbone unless given.
        accumulate: batches whose gradients make one step.
        micro_batch: take a batch in parts of so many images, which saves memory; the gradient is that of the whole batch,
            but for batch norms, which normalise by the part, and for what is drawn at random.
        checkpointing: let the model's blocks compute their activations again in the backward pass, which saves memory
            and costs up to half as much time again; results stay the same.
        ema: decay of the moving average of weights, per step; 0 for none.
        min_clean: choose among epochs whose clean accuracy on held-out images is at least this share.
        precision: "fp32", "bf16", "fp16"; "auto" is bf16 on a GPU that has it, else fp32.
        compile: run the forward pass through `torch.compile`; "auto" does so for the attack alone, in runs that are
            measured to be long enough for it to pay, and keeps it if it is faster. Where it fails, the run goes on without.
        channels_last: memory format meanwhile; "auto" for convolutional models.
        tune: attack a copy of the model whose batch norms are folded into its convolutions; "auto" measures in runs of
            200 steps or more whether that is faster, so that two such runs may differ by rounding: pass True or False.
            On a CUDA GPU, True also replays the attack's passes as CUDA graphs, once these are found to give the same.
            False leaves compile="auto" at no. With checkpointing none of this is done.
        device: "auto" (the accelerator if there is one), or where to train; the model goes back to where it was.
        sharded: with several processes, whether a loader that is not a plain DataLoader yields each process's own share.
        out: a folder for checkpoints, heads, logs; None for none.
        resume: go on with the run in `out`, exactly where it was killed; a fresh run where there is none.
        init_from: weights to start from: a file, or the folder of a run.
        checkpoint_every: optimiser steps between checkpoints, beside those at the end of each epoch.
        seed: of all that is random; global random states are left as they were.
        log: "tensorboard", "wandb" or another of accelerate's trackers.
        progress: show a progress bar.
        on_epoch: called after each epoch with its mean loss terms and the accuracy on held-out images.

    Raises:
        ValueError: arguments, images or labels that do not fit; the model is unchanged, then and on any other error.
        FloatingPointError: the loss is not finite.

    Source: modelled on Kucer et al., arXiv:2112.04367.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> harden(model, batches, norm="l2", epochs=1, progress=False) is model
        True
    """
    given = dict(locals())
    with prepared(given) as run:
        with trainable(model), checkpointed_if(given):
            taken(run.training, given)
        told = doubts(run.training.robust_loss, run.held) if run.held is not None else []
        finish(run.training, progress)
        seen_corruptions.remember(model, overlaps(None, run.loader))
    for doubt in told:  # out here, so that a warning that is turned into an error does not cost the weights
        warnings.warn(doubt, stacklevel=2)
    return model


class Run(NamedTuple):
    """What `harden` is about to do: its steps, the loader that is left to train on, and held-out images, if any."""

    training: Training
    loader: Any
    held: Any


@contextmanager
def prepared(given: dict[str, Any]) -> Iterator[Run]:
    """The run that these arguments of `harden` ask for, on the borrowed model, before its first step.

    Raises:
        ValueError: as `harden` does.
    """
    chosen, loader, val_loader = chosen_preset(given["preset"]), given["loader"], given["val_loader"]
    given["tasks"] = chosen.tasks if given["tasks"] == "auto" else given["tasks"]
    check_arguments(given)
    norm, augment = for_purpose(given["purpose"], given["norm"], given["augment"])
    model, seed, progress = given["model"], given["seed"], given["progress"]
    with begun(model, given) as place:
        if given["init_from"] is not None:
            files.give_weights(model, files.load_weights(given["init_from"]), str(given["init_from"]))
        loader, held = (loader, val_loader) if val_loader is not None else held_back(loader, HELD_BACK, seed)
        if held is None and given["min_clean"] is not None:
            raise ValueError("min_clean= chooses among epochs by held-out images, but there are none: pass val_loader=")
        batches = Batches(sharding.sharded(loader, given["sharded"], seed=seed))
        images, labels = batches.first()
        pixels = find_pixels(images, loader, **{key: given[key] for key in OF_PIXELS})
        place.lay_out(images, pixels)
        radius = default_radius(given["purpose"], norm, images) if given["eps"] is None else given["eps"]
        threat = ThreatModel(norm, radius)
        late = None if (given["attack"], given["steps"]) != ("auto", None) else late_attack(chosen)
        attack, steps = default_attack(images, threat, given["attack"], given["steps"], chosen)
        robust_loss = RobustLoss(
            model,
            threat,
            **{key: given[key] for key in OF_LOSS},
            objective=_objective(given, place.device),
            attack=attack,
            steps=steps,
            augment=chosen_augment(augment, images[:1].to(place.device), loader),
            **statistics(pixels),
            images=images,
        )
        check_first(robust_loss, images, labels)
        if val_loader is not None:
            check_held(robust_loss, val_loader, given["normalized"], images.shape[1])
        robust_loss.heads.go_on_with(files.heads_of(given["heads"]))
        ramp = _ramps(given["eps_ramp"], robust_loss, (images, labels))
        watched = {
            "held": held,
            "min_clean": given["min_clean"],
            "fast": _single_step(robust_loss.attack, steps),
            "judged": chosen.judged,
            "late": late,
        }
        more = _unlabeled(given["unlabeled_loader"], given["sharded"], seed)
        training = made(robust_loss, batches, given, place, pace=chosen.pace, ramp=ramp, unlabeled=more, **watched)
        how = f"{_name(attack, steps)}{_told_late(chosen, late)}"
        tell(f"{threat.norm}, eps {threat.eps:.4g}{' (growing)' * ramp}, {how}; {pixels}", progress)
        tell(f"{training.stepper.told}; {_told_held(held)}", progress)
        yield Run(training, loader, held)


def finish(training: Training, progress: bool) -> None:
    """Give the model the weights that are to be kept, and tell which."""
    robust_loss, best, last = training.robust_loss, training.best, training.last
    robust_loss.load_state_dict(best.weights if best.score is not None else training.weights())
    if best.score is not None and last is not None:
        tell(
            f"kept epoch {best.epoch}: on {best.score.images} held-out images {percent(best.score.clean)} are right, and "
            f"{percent(best.score.robust)} under attack ({percent(best.score.worst)} in the worst class); the last epoch: "
            f"{percent(last.clean)} and {percent(last.robust)}",
            progress,
        )
    if robust_loss.heads.tasks and training.folder is None:
        tell(f"the heads of {', '.join(robust_loss.heads.tasks)} are dropped: pass out= to keep them", progress)
    training.journal.close()


def _objective(given: Mapping[str, Any], device: torch.device) -> Any:
    objective, criterion = given["objective"], given["criterion"]
    return objective if criterion is None else with_criterion(objective, criterion, device)


def with_criterion(objective: Any, criterion: Any, device: torch.device) -> Any:
    """The objective with the user's own criterion in the place of its cross-entropy, giving one loss per image.

    Raises:
        ValueError: the objective has no cross-entropy to be replaced.
    """
    made: Any = plugins.instance("objectives", objective)
    if not hasattr(made, "criterion"):
        raise ValueError(
            f"criterion= was given, but the objective {type(made).__name__} takes none: leave one of them out"
        )
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion).to(device)
        if hasattr(criterion, "reduction"):
            criterion.reduction = "none"
    return replace(made, criterion=criterion)


def _ramps(wanted: bool | str, robust_loss: RobustLoss, batch: tuple[Tensor, Tensor]) -> bool:
    """Whether eps grows from 0: as the user says, else unless the model resists the adversary already."""
    if isinstance(wanted, bool):
        return wanted
    if wanted != "auto":
        raise ValueError(f"eps_ramp is {wanted!r}, but it must be True, False or 'auto'")
    start = score(robust_loss, [batch], robust_loss.threat)
    return start.robust < ROBUST_START * start.clean or start.clean <= ROBUST_START / robust_loss.classifier.classes


def _unlabeled(loader: Any, sharded: bool | None, seed: int) -> Batches | None:
    if loader is None:
        return None
    batches = Batches(sharding.sharded(loader, sharded, seed=seed), labelled=False)
    batches.first()
    return batches


def _single_step(attack: Any, steps: int | None) -> bool:
    """Whether training may overfit to a single step of the adversary, and has to be watched for it."""
    settings = attack.keywords if isinstance(attack, partial) else {}
    return not stays_in_ball(attack) or settings.get("steps", steps) == 1


def _name(attack: Any, steps: int | None) -> str:
    name = attack if isinstance(attack, str) else "the attack given"
    return name if steps is None else f"{name} with {steps} steps"


def _told_late(preset: Preset, late: Any) -> str:
    return "" if late is None or preset.late is None else ", late in the run {} with {} steps".format(*preset.late)


def _told_held(held: Any) -> str:
    if held is None:
        enough = math.ceil(LEAST_HELD / HELD_BACK)
        return (
            "the last epoch will be kept, as no images are held out to choose by: pass val_loader= "
            f"({HELD_BACK:.0%} are held back of a plain DataLoader with at least {enough} images)"
        )
    count = len(held.dataset) if hasattr(held, "dataset") and hasattr(held.dataset, "__len__") else None
    return "epochs are judged on " + (f"{count} held-out images" if count is not None else "val_loader")
