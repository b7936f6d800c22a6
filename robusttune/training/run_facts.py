"""The contents of a run's `run.json`."""

from typing import Any

import torch

from robusttune.augmentations._augment import overlaps
from robusttune.data.class_names import class_names
from robusttune.data.fingerprint import fingerprint_of
from robusttune.data.unlabeled import Mixture
from robusttune.model.devices import dtype_of
from robusttune.model.seen_corruptions import trained_on
from robusttune.model.timm_name import Name, timm_name
from robusttune.run import distributed
from robusttune.run import folder as run_folder
from robusttune.run.about import About
from robusttune.run.provenance import fingerprint, versions
from robusttune.run.settings import as_written
from robusttune.training.loop import Training
from robusttune.training.settings import RunSettings


def run_facts(training: Training, settings: RunSettings) -> dict[str, Any]:
    """Return the contents of `run.json`: all that is needed to repeat the run, except the model and the data."""
    arguments = settings.arguments(name for name in settings.names if name not in run_folder.FREE)
    loaders, teacher = vars(settings.loaders), training.teacher
    facts = {
        "run": settings.function,
        "arguments": arguments,
        "objects": [name for name, value in arguments.items() if not run_folder.is_plain(value)],
        "loaders": [name for name in ("val_loader", "unlabeled_loader") if loaders[name] is not None],
        "data": {**training.batches.facts(), **_beside(training)},
        "start": fingerprint(training.robust_loss.model),
        # A function's answers to the first images, which are others in each process.
        **({} if teacher is None else {"teacher": distributed.gathered(teacher.facts(training.batches.peeked[0]))[0]}),
        **_labelling(training),
        "about": about(training, settings).as_json(),
        "continued": [],
        "device": str(training.stepper.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    return run_folder.with_notes(facts, settings.output.notes)


def _beside(training: Training) -> dict[str, str | None]:
    """Return the fingerprints of the images that are held out, and of those without labels that the pretext losses alone take."""
    unlabeled = None if training.unlabeled is None else training.unlabeled.loader
    return {"held out": fingerprint_of(training.validation.loader), "without labels": fingerprint_of(unlabeled)}


def about(training: Training, settings: RunSettings) -> About:
    """Return what a run knows of its model: the facts with which its weights can be used again."""
    robust_loss, (images, labels) = training.robust_loss, training.batches.peeked
    mean, std = (tuple(each.flatten().tolist()) for each in (robust_loss.pixels.mean, robust_loss.pixels.std))
    name = None if labels is None or "command" in (settings.output.notes or {}) else _name(training)
    seen = trained_on(robust_loss.model) | overlaps(robust_loss.augment, settings.loaders.loader)
    known, attacked = robust_loss.pixels.known, settings.function == "harden" or settings.adversary.norm is not None
    return About(
        classes=None if labels is None else class_names(settings.loaders.loader),
        outputs=None if labels is None else robust_loss.classifier.classes,
        size=tuple(images.shape[2:]),
        channels=images.shape[1],
        mean=mean if known else None,
        std=std if known else None,
        norm=str(robust_loss.threat.norm) if attacked else None,
        eps=as_written(robust_loss.threat.eps) if attacked else None,
        held_out=_held_out(training, settings),
        seen_corruptions=sorted(seen),
        model=None if name is None else name.model,
        model_args=None if name is None else name.model_args,
    )


def _name(training: Training) -> Name | None:
    """Return the name by which the model of a run that was begun from Python can be made again; None if none is sure."""
    robust_loss, (images, _) = training.robust_loss, training.batches.peeked
    pixels = robust_loss.pixels.pixels(images[:2].to(training.stepper.device))
    inputs = robust_loss.pixels.inputs(pixels).to(dtype_of(robust_loss.model))
    return timm_name(robust_loss.model, inputs, robust_loss.classifier.classes)


def _labelling(training: Training) -> dict[str, object]:
    """Return what the teacher did; with the number of labelled images beside its own, where a process does not see a share alone."""
    if training.labelling is None:
        return {}
    loader = training.batches.loader
    labelled = loader.labelled if isinstance(loader, Mixture) and distributed.world() == 1 else None
    return {"labelling": {**training.labelling.facts(), "labelled": labelled}}


def _held_out(training: Training, settings: RunSettings) -> str | None:
    if settings.loaders.val_loader is not None:
        return "val_loader"
    held = training.validation.loader
    return None if held is None else f"{len(held.dataset)} of the images"  # type: ignore[attr-defined]
