"""Adversarial training of a user's model in one call."""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from robusttune.augment import chosen_augment
from robusttune.batches import Batches, check_classes, is_exhaustible
from robusttune.chance import warn_if_at_chance
from robusttune.heads import TASKS
from robusttune.loss import RobustLoss
from robusttune.modes import borrowed, check_model, chosen_device, device_of, evaluating, has_batch_norm, trainable
from robusttune.pixels import find_pixels
from robusttune.recipe import Recipe, default_recipe, default_steps
from robusttune.schedule import READ_EVERY, Meter, Plan, rate_factor
from robusttune.selection import held_back
from robusttune.threat import ThreatModel, canonical, default_eps

HELD_BACK = 0.05

logger = logging.getLogger("robusttune")


def harden(
    model: nn.Module,
    loader: Any,
    *,
    norm: Any = "linf",
    eps: float | None = None,
    tasks: Mapping[Any, float] | None = TASKS,
    attack_tasks: str = "joint",
    views: int | str = 1,
    objective: Any = "adversarial",
    attack: Any = "pgd",
    steps: int | None = None,
    step_size: float | None = None,
    augment: Any = "auto",
    mean: Any = None,
    std: Any = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    val_loader: Any = None,
    epochs: int = 10,
    max_steps: int | None = None,
    optimizer: Any = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_grad: float | None = None,
    device: Any = "auto",
    seed: int = 0,
    progress: bool = True,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> nn.Module:
    """Train the model against an adversary, in place, and return that same object; only its weights have changed.

    Args:
        model: images -> logits (N,K): any timm or torchvision classifier, or any module of that shape.
        loader: yields (images, labels), or dicts of both: images (N,C,H,W) float or uint8, labels (N,) or soft (N,K).
        norm, eps: of the adversary; eps in pixel units on [0,1], by the image size unless given.
        tasks, attack_tasks, views, objective, attack, steps, step_size: see `RobustLoss`.
        augment: "auto" ("standard" where the loader's transform can be seen and is not random, else "none"),
            "standard", "none", or any callable or Kornia module on images (N,C,H,W) in [0,1].
        mean, std, normalized: of the model's input; found in the loader unless given.
        classifier: name of the layer that yields the logits, where it cannot be found.
        val_loader: held-out images for checks; unless given, 5% of a plain DataLoader's are held back.
        epochs, max_steps: what comes first ends the run.
        optimizer: a name that timm knows, or (parameters) -> an optimiser; by the backbone unless given.
        lr, weight_decay: of a named or default optimiser.
        clip_grad: largest norm of the gradient; 1 for vision transformers unless given.
        device: "auto" (the accelerator if there is one), or where to train; the model goes back to where it was.
        seed: of all that is random; global random states are left as they were.
        progress: show a progress bar.
        on_epoch: called after each epoch with its mean loss terms and the accuracy on adversarial training images.

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
    place = _checked(model, loader, device, epochs, max_steps)
    with borrowed(model, place, seed):
        loader, held = (loader, val_loader) if val_loader is not None else held_back(loader, HELD_BACK, seed)
        batches = Batches(loader)
        images, labels = batches.first()
        pixels = find_pixels(images, loader, mean=mean, std=std, normalized=normalized, model=model)
        threat = ThreatModel(norm, default_eps(canonical(norm), tuple(images.shape[1:])) if eps is None else eps)
        robust_loss = RobustLoss(
            model,
            threat,
            tasks=tasks,
            attack_tasks=attack_tasks,
            views=views,
            objective=objective,
            attack=attack,
            steps=default_steps(images, threat) if steps is None and attack == "pgd" else steps,
            step_size=step_size,
            augment=chosen_augment(augment, images[:1].to(place), loader),
            mean=pixels.mean if pixels.known else None,
            std=pixels.std if pixels.known else None,
            normalized=pixels.normalized,
            classifier=classifier,
            images=images,
            seed=seed,
        )
        _check_first(robust_loss, images, labels)
        recipe = default_recipe(model, images, lr=lr, weight_decay=weight_decay, clip_grad=clip_grad)
        tell(f"{threat.norm}, eps {threat.eps:.4g}; {pixels}; {recipe}", progress)
        plan = Plan(epochs, max_steps, batches.count)
        with trainable(model):
            train(robust_loss, batches, plan, recipe=recipe, optimizer=optimizer, progress=progress, on_epoch=on_epoch)
        tell_pretext(robust_loss, held, progress)
    return model


def train(
    robust_loss: RobustLoss,
    batches: Batches,
    plan: Plan,
    *,
    recipe: Recipe,
    optimizer: Any,
    progress: bool,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> None:
    """Take the plan's steps over the batches.

    Raises:
        FloatingPointError: the loss is not finite.
        ValueError: the loader ran dry, or a batch does not fit.
    """
    stepping = recipe.optimizer(robust_loss, optimizer)
    rates = [group["lr"] for group in stepping.param_groups]
    device = device_of(robust_loss)
    with tqdm(total=plan.steps, unit="step", disable=not progress) as bar:
        for epoch in range(plan.epochs):
            meter = Meter()
            for images, labels in batches.epoch(epoch):
                if len(images) == 1 and has_batch_norm(robust_loss.model):
                    continue  # batch norm cannot normalise the one image that a last batch may hold
                for group, rate in zip(stepping.param_groups, rates, strict=True):
                    group["lr"] = rate * rate_factor(plan.progress(epoch, meter.steps))
                check_classes(labels, robust_loss.classifier.classes)
                out = robust_loss(images.to(device, non_blocking=True), labels.to(device, non_blocking=True))
                stepping.zero_grad(set_to_none=True)
                out["loss"].backward()
                if recipe.clip_grad is not None:
                    nn.utils.clip_grad_norm_(robust_loss.parameters(), recipe.clip_grad)
                stepping.step()
                meter.add(out, labels.to(device))
                plan.taken += 1
                bar.update()
                if meter.steps % READ_EVERY == 0:
                    bar.set_description(f"epoch {epoch + 1}/{plan.epochs}")
                    bar.set_postfix({key: f"{value:.3f}" for key, value in meter.means().items()})
                if plan.over:
                    break
            means = meter.means()
            logger.info("epoch %d/%d: %s", epoch + 1, plan.epochs, means)
            if on_epoch is not None:
                on_epoch({"epoch": epoch + 1, **means})
            if plan.over:
                return


def tell_pretext(robust_loss: RobustLoss, held: Any, progress: bool) -> None:
    """Warn of tasks that say nothing about held-out images, and say that the heads go."""
    if not robust_loss.heads.tasks:
        return
    if held is not None:
        warn_if_at_chance(robust_loss, held)
    tell(f"the heads of {', '.join(robust_loss.heads.tasks)} are dropped", progress)


def tell(message: str, progress: bool) -> None:
    """Log one line, and show it above the progress bar."""
    logger.info(message)
    if progress:
        tqdm.write(message, file=sys.stderr)


def _checked(model: nn.Module, loader: Any, device: Any, epochs: int, max_steps: int | None) -> torch.device:
    """The device to train on, once everything that can be is checked without running the model."""
    check_model(model)
    for name, value in (("epochs", epochs), ("max_steps", max_steps)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} is {value!r}, but a whole number of at least 1 is needed")
    if epochs > 1 and is_exhaustible(loader):
        raise ValueError(
            f"the loader is an iterator, which is exhausted after one epoch, but epochs is {epochs}: "
            "pass the loader itself, or epochs=1"
        )
    return chosen_device(model, device)


def _check_first(robust_loss: RobustLoss, images: Tensor, labels: Tensor) -> None:
    """Try the first batch in eval mode, before any weight changes."""
    check_classes(labels, robust_loss.classifier.classes)
    if len(images) == 1 and has_batch_norm(robust_loss.model):
        raise ValueError("a batch of one image cannot be normalised by batch norm: use a batch size of at least 2")
    with torch.no_grad(), evaluating(robust_loss.model):
        device = device_of(robust_loss)
        robust_loss(images[:2].to(device), labels[:2].to(device))
