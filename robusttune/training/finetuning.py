"""Ordinary training of a whole model before it is hardened, so that a new classifier is not hardened from chance."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from robusttune.data.batches import first_batch, images_of
from robusttune.data.loaders import check_loader, length_of
from robusttune.model.borrowing import restored_on_failure
from robusttune.run import folder as run_folder
from robusttune.run.about import read_run
from robusttune.run.log import tell
from robusttune.run.settings import check_settings
from robusttune.threat import LossOf, ThreatModel
from robusttune.training.settings import Adversary, Learning, RunLength, RunSettings
from robusttune.training.setup import hardening, take_all_steps
from robusttune.training.validation import keep_best_weights

FOLDER = "finetune"  # of the fine-tuning, in the folder of its run


def unchanged(loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: Generator) -> Tensor:
    """Return the images themselves: the adversary of ordinary training, which costs nothing."""
    return images


@contextmanager
def finetuned(model: nn.Module, settings: RunSettings) -> Iterator[RunSettings]:
    """Train a model ordinarily for `finetune` epochs, in a run of its own; yield the settings of the run that follows.

    The folder of that run holds both. A fine-tuning that was killed is resumed exactly; one that has ended is not repeated,
    but its weights are loaded. If anything is raised, here or inside the context, the model has its old weights again.

    Raises:
        ValueError: settings that do not fit, also those of the run that follows; nothing has been trained yet.
    """
    output = settings.output
    check_finetune(settings)
    if not settings.length.finetune:
        yield settings
        return
    run_folder.prepared(output.out, output.resume, beside=FOLDER)
    following = replace(settings, learning=replace(settings.learning, init_from=None))
    if output.out is not None:
        following = replace(following, output=replace(output, resume=True))  # its folder is not empty any more
    with restored_on_failure(model):
        with hardening(model, _tried(settings)):
            pass  # so that what does not fit shows now, and not after the fine-tuning
        ordinary = ordinary_settings(settings)
        epochs = settings.length.finetune
        tell(
            f"before hardening: {epochs} epoch{'s' * (epochs != 1)} of ordinary training of the whole model",
            output.progress,
        )
        with hardening(model, ordinary) as (training, _):
            take_all_steps(training, ordinary)
            keep_best_weights(training, show=output.progress)
        yield following


def _tried(settings: RunSettings) -> RunSettings:
    """Return the settings of the run that follows for a set-up without a trace.

    Images without labels are only read, as the model cannot label them before it is trained.
    """
    loaders = settings.loaders
    if loaders.unlabeled_loader is not None:
        images_of(first_batch(loaders.unlabeled_loader, "unlabeled_loader"))
    silent = replace(settings.output, out=None, resume=False, log=None, progress=False)
    return replace(settings, loaders=replace(loaders, unlabeled_loader=None), output=silent)


def ordinary_settings(settings: RunSettings) -> RunSettings:
    """Return the settings of the fine-tuning before a run: its images and updates, without adversary and pretext tasks."""
    adversary, learning, output = settings.adversary, settings.learning, settings.output
    out = None if output.out is None else Path(output.out) / FOLDER
    return replace(
        settings,
        loaders=replace(settings.loaders, unlabeled_loader=None, teacher=None),
        adversary=Adversary(adversary.norm, 0.0, adversary.purpose, attack=unchanged, eps_ramp=False),
        learning=Learning(
            tasks=None,
            criterion=learning.criterion,
            augment=learning.augment,
            classifier=learning.classifier,
            init_from=learning.init_from,
        ),
        length=RunLength(settings.length.finetune, accumulate=settings.length.accumulate),
        output=replace(output, out=out, log=None, on_epoch=None),
    )


def check_finetune(settings: RunSettings) -> None:
    """Raise a ValueError for settings with which a fine-tuning cannot be combined, or not be resumed."""
    epochs, loaders, updates, length = settings.length.finetune, settings.loaders, settings.updates, settings.length
    check_settings({"finetune": epochs})
    if settings.output.out is not None and settings.output.resume:
        check_earlier(Path(settings.output.out), epochs)
    if not epochs:
        return
    check_loader(loaders.loader, passes=epochs + 1)
    if length_of(loaders.loader) is None and (length.max_steps, length.time_budget) != (None, None):
        raise ValueError(
            f"finetune={epochs} counts epochs, but the loader does not say how many batches it has, and max_steps= and "
            "time_budget= end the hardening alone: pass a loader with a length"
        )
    for name, value in (("optimizer", updates.optimizer), ("scheduler", updates.scheduler)):
        if isinstance(value, Optimizer) or (hasattr(value, "step") and hasattr(value, "state_dict")):
            raise ValueError(
                f"{name}= is an object, which would carry its state from the fine-tuning into the hardening: pass a name or "
                "a function that makes one, or leave finetune= out"
            )


def check_earlier(out: Path, epochs: int) -> None:
    """Raise a ValueError if the folder to resume holds a fine-tuning of another length."""
    earlier = read_run(out / FOLDER)
    before = None if earlier is None else earlier.arguments.get("epochs")
    if before not in (None, epochs):
        raise ValueError(
            f"the run in {str(out)!r} began with finetune={before}, but finetune is {epochs} now: pass the same to resume "
            "it, or another out= to start afresh"
        )
