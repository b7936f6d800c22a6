"""Adversarial training of a user's model in one call."""

import warnings
from collections.abc import Callable, Mapping
from typing import Literal

from torch import nn

from robusttune.attacks import AttackLike
from robusttune.augmentations import AugmentLike
from robusttune.augmentations._augment import overlaps
from robusttune.model import seen_corruptions
from robusttune.norms import NormLike
from robusttune.objectives import ObjectiveLike
from robusttune.run.log import Tracker
from robusttune.run.settings import seconds_of
from robusttune.tasks import TasksLike
from robusttune.training.doubts import doubts
from robusttune.training.fitted_heads import fit_heads
from robusttune.training.opened import opened
from robusttune.training.place import blocks_checkpointed
from robusttune.training.presets import with_preset
from robusttune.training.settings import (
    Adversary,
    AttackTasks,
    Criterion,
    EpochFacts,
    HardenSettings,
    Learning,
    Loaders,
    OptimizerLike,
    Output,
    PixelSettings,
    PrecisionName,
    PresetName,
    Purpose,
    RunLength,
    RunSettings,
    SchedulerLike,
    Speed,
    TeacherLike,
    UpdateBatch,
    Updates,
)
from robusttune.training.setup import hardening, take_all_steps
from robusttune.training.stages import staged
from robusttune.training.validation import keep_best_weights
from robusttune.types import AutoBool, Channels, DeviceLike, Json, Loader, PathLike


def harden(
    model: nn.Module | PathLike,
    loader: Loader,
    *,
    norm: NormLike | None = None,
    eps: float | None = None,
    purpose: Purpose = "attacks",
    preset: PresetName = "standard",
    tasks: TasksLike = "auto",
    attack_tasks: AttackTasks = "joint",
    views: int | Literal["all"] = 1,
    objective: ObjectiveLike = "adversarial",
    criterion: Criterion | None = None,
    attack: AttackLike = "auto",
    steps: int | None = None,
    step_size: float | None = None,
    awp: float = 0.0,
    eps_ramp: AutoBool = "auto",
    augment: AugmentLike = "auto",
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    classifier: str | None = None,
    val_loader: Loader | None = None,
    unlabeled_loader: Loader | None = None,
    teacher: TeacherLike | None = "self",
    unlabeled_share: float | None = None,
    drop_foreign: bool = False,
    heads: nn.Module | PathLike | None = None,
    pretrain_epochs: int = 0,
    finetune: int = 0,
    epochs: int = 10,
    max_steps: int | None = None,
    time_budget: float | str | None = None,
    optimizer: OptimizerLike | None = None,
    scheduler: SchedulerLike | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    clip_grad: float | None = None,
    accumulate: int = 1,
    update_batch: UpdateBatch = "auto",
    micro_batch: int | None = None,
    checkpointing: bool = False,
    ema: float | None = None,
    min_clean: float | None = None,
    precision: PrecisionName = "auto",
    compile: AutoBool = "auto",
    channels_last: AutoBool = "auto",
    tune: AutoBool = "auto",
    device: DeviceLike = "auto",
    sharded: bool | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    init_from: PathLike | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    log: str | Tracker | None = None,
    progress: bool = True,
    on_epoch: Callable[[EpochFacts], object] | None = None,
    notes: Mapping[str, Json] | None = None,
) -> nn.Module:
    """Train a model on adversarial images, in place, and return the same object; only its weights have changed.

    Args:
        model: images -> logits (N,K): any timm or torchvision classifier or module of that shape; or what `robusttune.load` takes.
        loader: yields (images, labels), or dicts of both: images (N,C,H,W) float or uint8, labels (N,) or soft (N,K).
        norm: norm of the adversary, "linf" or "l2"; None is "linf", or "l2" with purpose="corruptions".
        eps: radius of the adversary, in pixel units on [0,1]; None for the usual one of norm, purpose and image size.
        purpose: "attacks" (linf), or "corruptions": a small l2 radius and AugMix, unless you pass norm, eps or augment.
        preset: "standard" (N-FGSM, then PGD-2 in a larger ball, steps of 32 images), "thorough" (the same with PGD-10), both with published
            settings from 160 px on; "fast" (whole batches), "joint" (the default of earlier versions). Other arguments override it.
        tasks: pretext tasks, {task: weight}, or names, with weight 0.5; a task of weight 0 leaves the model alone, its head is fitted at the end; "auto": by the preset; None for none.
        attack_tasks, views, objective, step_size, awp: see `RobustLoss`.
        criterion: replaces the objective's cross-entropy: a torch loss module, or (logits, labels) -> losses (N,).
        attack: attack in training, by name or as a function (see `RobustLoss`); "auto" chooses by preset, image size and norm.
        steps: number of steps of the attack; None chooses by preset, image size and norm.
        eps_ramp: let eps grow from 0 in the first quarter of the run; "auto" does so unless the model is robust already.
        augment: "auto" ("standard" if the loader's transform can be seen and is not random, else "none"), "none", "standard"
            (crop, flip), "augmix", "prime", "noise", a corruption, or a callable or Kornia module on (N,C,H,W) in [0,1].
        mean, std, normalized: mean and std of the Normalize before the model (None: from the loader's transform); normalized: see `RobustLoss`.
        classifier: name of the layer that yields the logits, for models where probing does not find it.
        val_loader: held-out images, to choose the best epoch; None: 5% of a plain DataLoader's images if these are 32 or more, else the last epoch.
        unlabeled_loader: images that the teacher labels (labels in it are ignored). It also labels a `loader` of images alone.
        teacher: "self" (a frozen copy of the model at the start), the folder of a run of harden, or a module or function from
            the model's input to logits (N,K) of the same classes. None: `unlabeled_loader` is for the pretext losses alone.
        unlabeled_share: share of unlabelled images in each batch, from 0 to 1; None for their share of all images.
        drop_foreign: leave out unlabelled images whose brightness, contrast or detail is unlike that of the labelled ones.
        heads: pretext heads to start from: a RobustLoss, or the folder of a run.
        pretrain_epochs: epochs of training on rotation and jigsaw, on all images, before everything else.
        finetune: epochs of ordinary training before hardening.
        epochs: epochs of hardening. The limit that is reached first (epochs, max_steps, time_budget) ends the run.
        max_steps, time_budget: further limits of hardening: a number of optimiser steps; a time, in seconds or as a text such as "2h" or "90min".
        optimizer, scheduler, lr, weight_decay, clip_grad: see `Recipe`; None for values by preset, model and image size.
        accumulate: number of batches that are joined into one optimiser step.
        update_batch: largest number of images in an optimiser step; larger batches are cut; None for whole batches; "auto": by preset.
        micro_batch: images that go through the model at once, to save memory; only batch norms, which see fewer images, differ.
        checkpointing: activation checkpointing of the model's blocks: the same results, less memory, up to half more time.
        ema: decay of the exponential moving average of the weights, per step; 0 for none.
        min_clean: choose among epochs whose clean accuracy on held-out images is at least this share.
        precision: "fp32", "bf16", "fp16"; "auto" is bf16 on a GPU that has it, else fp32.
        compile: run the forward pass through `torch.compile`; "auto": only the attack's, in long runs, if it is faster. If compilation fails, the run goes on without it.
        channels_last: memory format during the run; "auto" for convolutional models that can work in it.
        tune: speed up the attack: on a copy of the model with folded batch norms, and with CUDA graphs on CUDA. "auto": in runs of 200 steps or
            more, if it is faster; then two runs may differ by rounding (pass True or False to avoid that). False also disables compile="auto".
        device: "auto" (the accelerator if there is one), or a device to train on; the model returns to its own afterwards.
        sharded: with several processes: True if the loader yields only the images of this process. Not needed for a plain DataLoader.
        out: folder for checkpoints, heads and logs; without it nothing is saved.
        resume: continue the run in `out` exactly where it was killed, or a finished one with more epochs; start one if there is none.
        init_from: weights to start from: a file, or the folder of a run.
        checkpoint_every: optimiser steps between checkpoints, beside those at the end of each epoch.
        seed: seed of all random numbers; global random states are left unchanged.
        log: tracker that gets the settings and numbers: "mlflow", "wandb", "tensorboard", another of accelerate's, or an object.
        progress: print the block of settings and the progress bars.
        on_epoch: function that is called after each epoch with a dict: the mean loss terms, and the accuracy on held-out images.
        notes: more entries of `run.json` in `out`, such as the commit of your training code.

    Raises:
        ValueError: arguments, images or labels that do not fit. After any error the model is unchanged.
        FloatingPointError: the loss is not finite, and three lower learning rates did not help.

    Source: modelled on Kucer et al., arXiv:2112.04367.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> harden(model, batches, norm="l2", epochs=1, progress=False) is model
        True
    """
    settings = RunSettings(
        "harden",
        tuple(HardenSettings.__annotations__),
        Loaders(loader, val_loader, unlabeled_loader, teacher, unlabeled_share, drop_foreign),
        Adversary(norm, eps, purpose, preset, attack, steps, step_size, attack_tasks, awp, eps_ramp),
        Learning(tasks, views, objective, criterion, augment, classifier, heads, min_clean, init_from),
        PixelSettings(mean, std, normalized),
        Updates(optimizer, scheduler, lr, weight_decay, clip_grad, ema),
        RunLength(epochs, max_steps, seconds_of(time_budget), accumulate, update_batch, pretrain_epochs, finetune),
        Speed(precision, compile, channels_last, tune, micro_batch, checkpointing, device, sharded),
        Output(out, resume, checkpoint_every, seed, log, progress, on_epoch, notes),
    )
    model, settings = opened(model, with_preset(settings))
    with staged(model, settings) as start, hardening(model, start) as (training, loader):
        with blocks_checkpointed(model, settings.speed, show=progress):
            take_all_steps(training, settings)
        keep_best_weights(training, show=progress)
        fit_heads(training, show=progress)
        warned = doubts(training)
        seen_corruptions.remember(model, overlaps(None, loader))
    for doubt in warned:  # outside, so that a warning that is turned into an error does not cost the weights
        warnings.warn(doubt, stacklevel=2)
    return model
