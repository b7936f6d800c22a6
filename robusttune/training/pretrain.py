"""Pre-training of a backbone on images without labels."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from robusttune.augmentations._augment import chosen_augment
from robusttune.data import sharding
from robusttune.data.batches import Batches
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import find_pixels
from robusttune.model.borrowing import frozen, trainable
from robusttune.model.checks import check_model
from robusttune.run.settings import check_settings
from robusttune.tasks._heads import TASKS
from robusttune.threat import ThreatModel, canonical, default_eps
from robusttune.training.presets import default_attack
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.setup import begun, made, statistics, taken


def pretrain(
    model: nn.Module,
    images: Any,
    *,
    tasks: Mapping[Any, float] = TASKS,
    norm: Any = None,
    eps: float | None = None,
    attack: Any = "auto",
    steps: int | None = None,
    views: int | str = "all",
    augment: Any = "auto",
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    epochs: int = 10,
    max_steps: int | None = None,
    time_budget: float | None = None,
    optimizer: Any = None,
    scheduler: Any = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_grad: float | None = None,
    accumulate: int = 1,
    ema: float | None = None,
    precision: str = "auto",
    compile: bool | str = "auto",
    channels_last: bool | str = "auto",
    device: Any = "auto",
    sharded: bool | None = None,
    out: Any = None,
    resume: bool = False,
    checkpoint_every: int | None = None,
    seed: int = 0,
    log: Any = None,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> RobustLoss:
    """Train the model's backbone, in place, on pretext tasks alone; the RobustLoss that comes back holds their heads.

    The classifier, if there is one, is left as it is, so models with num_classes=0 work too. Go on with
    `harden(model, loader, heads=…)`, or with ordinary training.

    Args:
        model: images -> logits (N,K) or features (N,D).
        images: yields images (N,C,H,W), alone or as the first of a tuple or in a dict; labels are not looked at.
        tasks: pretext tasks and their weights, {name or object: weight}.
        norm, eps: of an adversary against the pretext tasks; without a norm, images are left as they are.
        views: how many distinct tasks each image draws, or "all".
        attack, steps, augment, mean, std, normalized, classifier, epochs, max_steps, time_budget, optimizer, scheduler, lr,
            weight_decay, clip_grad, accumulate, ema, precision, compile, channels_last, device, sharded, out,
            resume, checkpoint_every, seed, log, progress, on_epoch: see `harden`.

    Raises:
        ValueError: arguments or images that do not fit; the model is unchanged, then and on any other error.
        FloatingPointError: the loss is not finite.

    Source: adversarial pre-training, Chen et al., arXiv:2003.12862; the tasks' own sources stand with them.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        >>> heads = pretrain(model, [torch.rand(8, 1, 8, 8)], epochs=1, progress=False)
        >>> sorted(heads.heads.tasks)
        ['jigsaw', 'rotation']
    """
    given = dict(locals())
    check_model(model)
    check_settings(given)
    if not tasks:
        raise ValueError("tasks is empty, but pre-training has nothing to learn without a pretext task")
    check_loader(images, "images", passes=epochs)
    with begun(model, given) as place:
        batches = Batches(sharding.sharded(images, sharded, seed=seed), labelled=False)
        first, _ = batches.first()
        pixels = find_pixels(first, images, mean=mean, std=std, normalized=normalized, model=model)
        place.lay_out(first, pixels)
        radius = 0.0 if norm is None else default_eps(canonical(norm), tuple(first.shape[1:])) if eps is None else eps
        threat = ThreatModel("linf" if norm is None else norm, radius)
        attack, steps = default_attack(first, threat, attack, steps)
        robust_loss = RobustLoss(
            model,
            threat,
            tasks=tasks,
            attack_tasks="none" if norm is None else "joint",
            views=views,
            objective=None,
            attack=attack,
            steps=steps,
            augment=chosen_augment(augment, first[:1].to(place.device), images),
            **statistics(pixels),
            classifier=classifier,
            images=first,
            seed=seed,
        )
        # Frozen before the run is made, the classifier stays out of optimiser and DDP.
        layers = [model.get_submodule(name) for name in robust_loss.classifier.names]
        with trainable(model), frozen([parameter for layer in layers for parameter in layer.parameters()]):
            training = made(robust_loss, batches, given, place)
            taken(training, given)
        robust_loss.load_state_dict(training.weights())
        training.journal.close()
    robust_loss.to(next(model.parameters()).device)
    return robust_loss
