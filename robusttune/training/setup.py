"""The set-up of a run, in the order in which it happens: from a user's settings to the first step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from robusttune.attacks import Attack
from robusttune.augmentations._augment import chosen_augment
from robusttune.data.epochs import Batches
from robusttune.model.teacher import Teacher
from robusttune.run import distributed, files
from robusttune.run.log import block, tell
from robusttune.training.autotune import choose_fast_path
from robusttune.training.checkpoints import Checkpoints
from robusttune.training.checks import check_arguments, check_first, check_held, check_start
from robusttune.training.criterion import with_criterion
from robusttune.training.images import Images, training_images
from robusttune.training.labelling import Labelling
from robusttune.training.loop import Training
from robusttune.training.place import Place, borrowed_model, laid_out
from robusttune.training.precision import chosen_precision
from robusttune.training.presets import Attacker, Preset, augment_for, chosen_attacker, chosen_preset, is_single_step
from robusttune.training.ramp import ramps
from robusttune.training.range_test import find_limit
from robusttune.training.recipe import default_recipe
from robusttune.training.robust_loss import RobustLoss
from robusttune.training.run_facts import run_facts
from robusttune.training.schedule import Progress
from robusttune.training.settings import RunSettings
from robusttune.training.start import start_of
from robusttune.training.step import Stepper
from robusttune.training.validation import Validation
from robusttune.types import Loader


@contextmanager
def hardening(model: nn.Module, settings: RunSettings) -> Iterator[tuple[Training, Loader]]:
    """Yield a run of `harden`, ready for its first step, and the loader that it trains on, without the held-out images.

    The model is borrowed inside this context, see `borrowed_model`. Call `with_preset` on the settings before.
    """
    preset = chosen_preset(settings.adversary.preset)
    check_arguments(model, settings)
    with borrowed_model(model, settings) as place:
        if settings.learning.init_from is not None:
            source = settings.learning.init_from
            files.give_weights(model, files.load_weights(source), str(source))
        with (
            training_images(model, settings, place.device) as images,
            laid_out(model, images.batches, images.pixels, settings.speed, place.device),
        ):
            attacker = chosen_attacker(settings.adversary, preset, images.batches.peeked[0])
            robust_loss = _robust_loss(model, images, attacker, settings, place.device)
            yield _training(robust_loss, images, attacker, settings, preset, place), images.loader


def _robust_loss(
    model: nn.Module, images: Images, attacker: Attacker, settings: RunSettings, device: torch.device
) -> RobustLoss:
    """Return the loss of a run of `harden`, after a check on the first batch."""
    adversary, learning, (first, labels) = settings.adversary, settings.learning, images.batches.peeked
    robust_loss = RobustLoss(
        model,
        attacker.threat,
        tasks=learning.task_weights,
        attack_tasks=adversary.attack_tasks,
        views=learning.views,
        objective=with_criterion(learning.objective, learning.criterion, device),
        attack=attacker.attack,
        steps=attacker.steps,
        step_size=adversary.step_size,
        awp=adversary.awp,
        augment=chosen_augment(augment_for(adversary.purpose, learning.augment), first[:1].to(device), images.loader),
        **images.pixels.arguments(),
        classifier=learning.classifier,
        teacher=None,  # the images that have no labels got theirs when they were loaded
        images=first,
        seed=settings.output.seed,
    )
    robust_loss.heads.wait()
    check_first(robust_loss, first, labels)
    if settings.loaders.val_loader is not None and images.held is not None:
        check_held(robust_loss, images.held, settings.pixels, first.shape[1])
    robust_loss.heads.go_on_with(files.heads_of(learning.heads), learning.heads)
    return robust_loss


def _training(
    robust_loss: RobustLoss, images: Images, attacker: Attacker, settings: RunSettings, preset: Preset, place: Place
) -> Training:
    """Return a run of `harden`, ready for its first step."""
    ramp = ramps(settings.adversary.eps_ramp, robust_loss, images.batches.peeked, settings.speed.micro_batch)
    return training_of(
        robust_loss,
        images.batches,
        settings,
        place,
        validation=Validation(
            images.held,
            min_clean=settings.learning.min_clean,
            every=preset.at(images.batches.peeked[0]).judged,
            single_step=is_single_step(robust_loss.attack, attacker.steps),
        ),
        preset=preset,
        ramp=ramp,
        late=attacker.late,
        unlabeled=images.unlabeled,
        teacher=images.teacher,
        labelling=images.labelling,
    )


def training_of(
    robust_loss: RobustLoss,
    batches: Batches,
    settings: RunSettings,
    place: Place,
    *,
    validation: Validation,
    preset: Preset | None = None,
    ramp: bool = False,
    late: Attack | None = None,
    unlabeled: Batches | None = None,
    teacher: Teacher | None = None,
    labelling: Labelling | None = None,
) -> Training:
    """Return a run over these batches, ready for its first step, with recipe, length, precision, log and checkpoints.

    Args:
        preset: where the recipe takes values that the user has not chosen; None for none.
        validation, ramp, late, unlabeled, teacher, labelling: see `Training` and `Stepper`.
    """
    output = settings.output
    recipe = default_recipe(robust_loss.model, batches.peeked[0], settings.updates, preset)
    stepper = Stepper(
        robust_loss,
        Progress(settings.length, batches.count),
        recipe,
        precision=chosen_precision(settings.speed.precision, place.device),
        ramp=ramp,
        micro_batch=settings.speed.micro_batch,
    )
    return Training(
        stepper,
        batches,
        place.journal(settings),
        validation=validation,
        unlabeled=unlabeled,
        teacher=teacher,
        labelling=labelling,
        late=late,
        checkpoints=Checkpoints(place.folder, output.checkpoint_every, output.progress),
        on_epoch=output.on_epoch,
    )


def take_all_steps(training: Training, settings: RunSettings) -> None:
    """Take all steps of a run; if it resumes the run in its folder, the remaining steps."""
    check_start(training, settings)
    checkpoints, output = training.checkpoints, settings.output
    facts = {} if checkpoints.folder is None else run_facts(training, settings)
    resumed = checkpoints.begin(training, facts, resume=output.resume)
    if distributed.rank() == 0:
        tell(block(start_of(training, settings)), output.progress)
    try:
        find_limit(training, settings, resumed=resumed)
        choose_fast_path(training, settings.speed, resumed=resumed, show=output.progress)
        training.run(show_bar=output.progress)
    finally:
        training.robust_loss.passes.release()
