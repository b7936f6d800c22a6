"""Pre-training of a backbone on images without labels."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from torch import nn

from robusttune.attacks import AttackLike
from robusttune.augmentations import AugmentLike
from robusttune.augmentations._augment import chosen_augment
from robusttune.data import sharding
from robusttune.data.epochs import Batches
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.model.borrowing import frozen
from robusttune.model.checks import check_model
from robusttune.norms import NormLike, canonical, default_eps
from robusttune.run.log import Tracker
from robusttune.run.settings import seconds_of
from robusttune.run.tracking import check_log
from robusttune.tasks import TASKS, TasksLike
from robusttune.tasks._weights import felt, task_weights
from robusttune.threat import ThreatModel
from robusttune.training.loop import Training
from robusttune.training.place import Place, borrowed_model, laid_out
from robusttune.training.presets import default_attack
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.settings import (
    Adversary,
    EpochFacts,
    Learning,
    Loaders,
    OptimizerLike,
    Output,
    PixelSettings,
    PrecisionName,
    RunLength,
    RunSettings,
    SchedulerLike,
    Speed,
    Updates,
)
from robusttune.training.setup import take_all_steps, training_of
from robusttune.training.validation import Validation
from robusttune.types import AutoBool, Channels, DeviceLike, Json, Loader, PathLike


def pretrain(
    model: nn.Module,
    images: Loader,
    *,
    tasks: TasksLike = TASKS,
    norm: NormLike | None = None,
    eps: float | None = None,
    attack: AttackLike = "auto",
    steps: int | None = None,
    views: int | Literal["all"] = "all",
    augment: AugmentLike = "auto",
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    epochs: int = 10,
    max_steps: int | None = None,
    time_budget: float | str | None = None,
    optimizer: OptimizerLike | None = None,
    scheduler: SchedulerLike | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_grad: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    precision: PrecisionName = "auto",
    compile: AutoBool = "auto",
    channels_last: AutoBool = "auto",
    device: DeviceLike = "auto",
    sharded: bool | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    seed: int = 0,
    log: str | Tracker | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochFacts], object] | None = None,
    notes: Mapping[str, Json] | None = None,
) -> RobustLoss:
    """Train a model's backbone, in place, on pretext tasks alone; return a RobustLoss with their heads.

    The classifier, if there is one, stays unchanged, so models with num_classes=0 work too. Continue with
    `harden(model, loader, heads=…)`, or with ordinary training.

    Args:
        model: images -> logits (N,K) or features (N,D).
        images: yields images (N,C,H,W), alone or as the first of a tuple or in a dict; labels are ignored.
        tasks: pretext tasks and their weights, {name or object: weight}; or names, such as ["rotation", "jigsaw"], with
            weight 0.5.
        norm, eps: norm and radius of an adversary against the pretext tasks; without a norm, images are not attacked.
        views: number of distinct tasks that each image draws, or "all".
        attack, steps, augment, mean, std, normalized, classifier, epochs, max_steps, time_budget, optimizer, scheduler, lr,
            weight_decay, clip_grad, accumulate, ema, precision, compile, channels_last, device, sharded, out,
            resume, checkpoint_every, seed, log, progress, on_epoch, notes: see `harden`.

    Raises:
        ValueError: arguments or images that do not fit. After any error the model is unchanged.
        FloatingPointError: the loss is not finite, and three lower learning rates did not help.

    Source: adversarial pre-training, Chen et al., arXiv:2003.12862; the files of the tasks name their sources.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> heads = pretrain(model, [torch.rand(8, 1, 8, 8)], epochs=1, progress=False)
        >>> sorted(heads.heads.tasks)
        ['jigsaw', 'rotation']
    """
    settings = RunSettings(
        "pretrain",
        tuple(inspect.signature(pretrain).parameters),
        Loaders(images),
        Adversary(
            norm, eps, attack=attack, steps=steps, attack_tasks="none" if norm is None else "joint", eps_ramp=False
        ),
        Learning(task_weights(tasks), views, objective=None, augment=augment, classifier=classifier),
        PixelSettings(mean, std, normalized),
        Updates(optimizer, scheduler, lr, weight_decay, clip_grad, ema),
        RunLength(epochs, max_steps, seconds_of(time_budget), accumulate, None),
        Speed(precision, compile, channels_last, tune=False, device=device, sharded=sharded),
        Output(out, resume, checkpoint_every, seed, log, progress, on_epoch, notes),
    )
    return pretrained(model, settings)


def pretrained(model: nn.Module, settings: RunSettings) -> RobustLoss:
    """Take all the steps of a run of `pretrain`, or those that are left of the run in its folder; returns its loss."""
    with pretraining(model, settings) as training:
        take_all_steps(training, settings)
        robust_loss = training.robust_loss
        robust_loss.load_state_dict(training.weights())
    robust_loss.to(next(model.parameters()).device)
    return robust_loss


@contextmanager
def pretraining(model: nn.Module, settings: RunSettings) -> Iterator[Training]:
    """Set up a run of `pretrain` on the borrowed model, up to its first step."""
    check_model(model)
    check_log(settings.output.log, settings.output.out)
    if not felt(settings.learning.task_weights):
        lacking = "every weight of tasks is 0" if settings.learning.task_weights else "tasks is empty"
        raise ValueError(
            f"{lacking}, but pre-training has nothing to learn without a pretext task: pass tasks= with a weight above 0"
        )
    images, output = settings.loaders.loader, settings.output
    check_loader(images, "images", passes=settings.length.epochs)
    with borrowed_model(model, settings) as place:
        loader = sharding.sharded(images, settings.speed.sharded, seed=output.seed)
        batches = Batches(loader, labelled=False, name="images")
        first, _ = batches.first()
        pixels = find_pixels(first, images, **vars(settings.pixels), model=model)
        with laid_out(model, batches, pixels, settings.speed, place.device):
            robust_loss = _pretext_loss(model, batches, pixels, settings, place)
            # The classifier is frozen before the run is set up, so that optimiser and DDP leave it out.
            layers = [model.get_submodule(name) for name in robust_loss.classifier.names]
            with frozen([parameter for layer in layers for parameter in layer.parameters()]):
                yield training_of(robust_loss, batches, settings, place, validation=Validation(None))


def _pretext_loss(
    model: nn.Module, batches: Batches, pixels: Pixels, settings: RunSettings, place: Place
) -> RobustLoss:
    """Build the loss of a run of `pretrain`; without a norm its adversary has radius 0."""
    adversary, learning, (first, _) = settings.adversary, settings.learning, batches.peeked
    eps = adversary.eps
    if adversary.norm is None:
        eps = 0.0
    elif eps is None:
        eps = default_eps(canonical(adversary.norm), tuple(first.shape[1:]))
    threat = ThreatModel("linf" if adversary.norm is None else adversary.norm, eps)
    attack, steps = default_attack(first, threat, adversary.attack, adversary.steps)
    return RobustLoss(
        model,
        threat,
        tasks=learning.task_weights,
        attack_tasks=adversary.attack_tasks,
        views=learning.views,
        objective=None,
        attack=attack,
        steps=steps,
        augment=chosen_augment(learning.augment, first[:1].to(place.device), settings.loaders.loader),
        **pixels.arguments(),
        classifier=learning.classifier,
        images=first,
        seed=settings.output.seed,
    )
