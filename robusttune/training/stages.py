"""The stages before a run of `harden`, each a run of its own: pretext tasks on all images, then ordinary training on labels."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from robusttune.data import sharding
from robusttune.data.batches import first_batch, images_of
from robusttune.data.class_names import class_names
from robusttune.data.loaders import check_loader, length_of
from robusttune.data.splits import HELD_BACK, held_back
from robusttune.data.unlabeled import AllImages
from robusttune.model.borrowing import restored_on_failure
from robusttune.model.devices import check_module, chosen_device
from robusttune.model.teacher import teaching
from robusttune.run import distributed
from robusttune.run import folder as run_folder
from robusttune.run.log import tell
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings, epochs_in_words
from robusttune.run.tracking import check_log
from robusttune.tasks import TASKS
from robusttune.tasks._weights import felt, task_weights
from robusttune.threat import LossOf, ThreatModel
from robusttune.training.images import NOTHING_NEW, check_same_space
from robusttune.training.labelling import check_apart
from robusttune.training.loop import Training
from robusttune.training.place import blocks_checkpointed
from robusttune.training.presets import EARLIER
from robusttune.training.pretrain import pretrain, pretrained, pretraining
from robusttune.training.settings import Adversary, Learning, Loaders, RunLength, RunSettings
from robusttune.training.setup import hardening, take_all_steps
from robusttune.training.stage_folders import (
    FINETUNING,
    PRETRAINING,
    STAGES,
    Stage,
    check_earlier,
    check_following,
    noted,
)
from robusttune.training.validation import keep_best_weights
from robusttune.types import Loader, says

FOLDER = FINETUNING.folder


def unchanged(loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: Generator) -> Tensor:
    """Return the images themselves: the adversary of ordinary training, which costs nothing."""
    return images


@contextmanager
def staged(model: nn.Module, settings: RunSettings) -> Iterator[RunSettings]:
    """Take the stages before a run, each in a run of its own; yield the settings of the run that follows.

    The folder of that run holds all of them. A stage that was killed is resumed exactly; one that has ended is not repeated,
    but its weights are loaded. If anything is raised, here or inside the context, the model has its old weights again.

    Raises:
        ValueError: settings that do not fit, also those of the run that follows; nothing has been trained yet.
    """
    output, length = settings.output, settings.length
    check_module(model)
    check_stages(settings)
    if not (length.pretrain_epochs or length.finetune):
        yield settings
        return
    learning = replace(settings.learning, init_from=None)
    settings = replace(settings, output=noted(settings))
    beside = [stage.folder for stage in STAGES]
    distributed.join(chosen_device(model, settings.speed.device))  # else each process would lock the folder for itself
    with run_folder.prepared(output.out, output.resume, beside=beside, trains=True), restored_on_failure(model):
        _check_run(model, settings)
        if length.pretrain_epochs:
            stage = pretraining_settings(settings)
            _say(
                f"{epochs_in_words(length.pretrain_epochs)} of {_names(stage)} on all images, without their labels",
                settings,
            )
            with blocks_checkpointed(model, settings.speed, show=False):
                robust_loss = pretrained(model, stage)
            # The weights of `init_from` are in the model since the check.
            learning = replace(learning, heads=robust_loss if settings.learning.tasks else learning.heads)
            settings = replace(settings, learning=replace(settings.learning, init_from=None))
        if length.finetune:
            _say(f"{epochs_in_words(length.finetune)} of ordinary training of the whole model", settings)
            _train_ordinarily(model, ordinary_settings(settings))
        if output.out is not None:
            output = replace(output, resume=True)  # its folder is not empty any more
        length = replace(length, pretrain_epochs=0, finetune=0)
        yield replace(settings, learning=learning, length=length, output=output)


def _train_ordinarily(model: nn.Module, settings: RunSettings) -> None:
    with hardening(model, settings) as (training, _):
        with blocks_checkpointed(model, settings.speed, show=False):
            take_all_steps(training, settings)
        keep_best_weights(training, show=settings.output.progress)


def stages_of(settings: RunSettings) -> dict[str, RunSettings]:
    """Return the settings of the stages before a run by their names, in order."""
    stages = {}
    if settings.length.pretrain_epochs:
        stages[PRETRAINING.name] = pretraining_settings(settings)
    if settings.length.finetune:
        stages[FINETUNING.name] = ordinary_settings(settings)
    return stages


@contextmanager
def set_up(model: nn.Module, settings: RunSettings) -> Iterator[Training]:
    """Set up a run of `harden`, or a stage before it, up to its first step."""
    if settings.function == "pretrain":
        with pretraining(model, settings) as training:
            yield training
    else:
        with hardening(model, settings) as (training, _):
            yield training


def _check_run(model: nn.Module, settings: RunSettings) -> None:
    """Set up the run that follows without a trace, so that what does not fit shows now, and not after the stages.

    Images without labels are only read, as the model cannot label them before it is trained.
    """
    loaders, length = settings.loaders, settings.length
    silent = replace(settings.output, out=None, resume=False, log=None, progress=False)
    alone = replace(loaders, unlabeled_loader=None)
    with hardening(model, replace(settings, loaders=alone, output=silent)) as (training, _):
        if loaders.unlabeled_loader is not None:
            _check_unlabelled(training, loaders.unlabeled_loader, settings)
        if training.teacher is not None and length.finetune:
            raise ValueError(
                f"finetune={length.finetune} trains on labels, but the loader yields images alone: leave finetune= out, and "
                "pass a model that is trained"
            )
        if training.teacher is not None and says(loaders.teacher, "self"):
            raise ValueError(
                f"pretrain_epochs={length.pretrain_epochs} changes the backbone under the classifier, so that the model cannot "
                "label its own images afterwards: leave it out, pass another teacher=, or a loader with labels and finetune="
            )


def _check_unlabelled(training: Training, more: Loader, settings: RunSettings) -> None:
    """Raise a ValueError for images without labels that cannot be trained on together with those of the loader."""
    if training.teacher is not None:
        raise ValueError(NOTHING_NEW)
    check_same_space(training.robust_loss.pixels, settings)
    teacher, robust_loss, first = settings.loaders.teacher, training.robust_loss, training.batches.peeked[0]
    if teacher not in (None, "self"):
        classes, names = robust_loss.classifier.classes, class_names(settings.loaders.loader)
        place = training.stepper.device
        with teaching(teacher, robust_loss.model, robust_loss.pixels, place, classes, names, first.shape[1:]) as asked:
            asked(first[:2])
    joined, held = teacher is not None or settings.length.pretrain_epochs, training.validation.loader
    images_of(first_batch(_all_images(settings) if joined else more, "unlabeled_loader"))
    if joined and held is not None:
        share = sharding.sharded(more, settings.speed.sharded, seed=settings.output.seed)
        check_apart(share, held, robust_loss.pixels)


def pretraining_settings(settings: RunSettings) -> RunSettings:
    """Return the settings of the pre-training before a run: its images and updates, and its pretext tasks or the usual ones."""
    learning, output, length = settings.learning, settings.output, settings.length
    tasks = list(felt(learning.task_weights) or learning.task_weights or TASKS)
    # The images are shared out among processes before both kinds are joined.
    sharded = True if distributed.together() else settings.speed.sharded
    return RunSettings(
        "pretrain",
        tuple(inspect.signature(pretrain).parameters),
        Loaders(_all_images(settings)),
        Adversary(preset=EARLIER, attack_tasks="none", eps_ramp=False),
        Learning(task_weights(tasks), "all", None, augment=learning.augment, classifier=learning.classifier),
        settings.pixels,
        settings.updates,
        RunLength(length.pretrain_epochs, accumulate=length.accumulate, update_batch=None),
        replace(settings.speed, tune=False, sharded=sharded),
        replace(output, out=_folder_of(PRETRAINING, settings), log=None, on_epoch=None),
    )


def _all_images(settings: RunSettings) -> Loader:
    """Join the images of both loaders, without those that are held back from the run."""
    loaders, seed, marked = settings.loaders, settings.output.seed, settings.speed.sharded
    labelled, more = loaders.loader, loaders.unlabeled_loader
    if loaders.val_loader is None:
        labelled, _ = held_back(labelled, HELD_BACK, seed)
    labelled = sharding.sharded(labelled, marked, seed=seed)
    if more is None:
        return labelled
    more = sharding.sharded(more, marked, seed=seed)
    with own_randomness(seed):
        sizes = [len(images_of(first_batch(each))) for each in (labelled, more)]
    return AllImages(labelled, more, batches=(sizes[0], sizes[1]))


def ordinary_settings(settings: RunSettings) -> RunSettings:
    """Return the settings of the fine-tuning before a run: its images and updates, without adversary and pretext tasks."""
    adversary, learning, output = settings.adversary, settings.learning, settings.output
    return replace(
        settings,
        loaders=replace(settings.loaders, unlabeled_loader=None, teacher=None),
        adversary=Adversary(adversary.norm, 0.0, adversary.purpose, EARLIER, attack=unchanged, eps_ramp=False),
        learning=Learning(
            tasks=None,
            criterion=learning.criterion,
            augment=learning.augment,
            classifier=learning.classifier,
            init_from=learning.init_from,
        ),
        length=RunLength(settings.length.finetune, accumulate=settings.length.accumulate, update_batch=None),
        output=replace(output, out=_folder_of(FINETUNING, settings), log=None, on_epoch=None),
    )


def _folder_of(stage: Stage, settings: RunSettings) -> Path | None:
    out = settings.output.out
    return None if out is None else Path(out) / stage.folder


def _names(settings: RunSettings) -> str:
    names = [task if isinstance(task, str) else task.name for task in settings.learning.task_weights or {}]
    return " and ".join(names)


def _say(stage: str, settings: RunSettings) -> None:
    tell(f"before hardening: {stage}", settings.output.progress and distributed.rank() == 0)


def check_stages(settings: RunSettings) -> None:
    """Raise a ValueError for settings with which the stages before a run cannot be combined, or not be resumed."""
    length, loaders = settings.length, settings.loaders
    wanted = settings.arguments(stage.argument for stage in STAGES)
    check_settings(wanted)
    check_log(settings.output.log, settings.output.out)
    if settings.output.out is not None and settings.output.resume:
        check_earlier(Path(settings.output.out), wanted)
        check_following(Path(settings.output.out), settings)
    asked = ", ".join(f"{name}={epochs}" for name, epochs in wanted.items() if epochs)
    if not asked:
        return
    check_loader(loaders.loader, passes=sum(wanted.values()) + 1)
    if length_of(loaders.loader) is None and (length.max_steps, length.time_budget) != (None, None):
        raise ValueError(
            f"{asked} counts epochs, but the loader does not say how many batches it has, and max_steps= and "
            "time_budget= end the hardening alone: pass a loader with a length"
        )
    for name, value in (("optimizer", settings.updates.optimizer), ("scheduler", settings.updates.scheduler)):
        if isinstance(value, Optimizer) or (hasattr(value, "step") and hasattr(value, "state_dict")):
            raise ValueError(
                f"{name}= is an object, which would carry its state from one stage into the next: pass a name or "
                f"a function that makes one, or leave {asked} out"
            )
    if length.pretrain_epochs:
        check_pretraining(settings)


def check_pretraining(settings: RunSettings) -> None:
    """Raise a ValueError for settings with which a pre-training before the run cannot be combined."""
    epochs, loaders = settings.length.pretrain_epochs, settings.loaders
    if loaders.unlabeled_loader is not None:
        check_loader(loaders.unlabeled_loader, "unlabeled_loader", passes=epochs + 1)
    if settings.learning.heads is not None:
        raise ValueError(
            f"heads= are of an earlier pre-training, but pretrain_epochs={epochs} trains new ones: leave one of them out"
        )
    if loaders.drop_foreign:
        raise ValueError(
            f"drop_foreign leaves images out of the hardening, but pretrain_epochs={epochs} would train on them before: remove "
            "them from unlabeled_loader, or leave one of both out"
        )
