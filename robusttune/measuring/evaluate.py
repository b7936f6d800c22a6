"""Evaluation of a classifier: `evaluate` runs the evaluations that the user names, and merges their Records."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.data import sharding
from robusttune.data.batches import errors_at, first_batch, images_of, unpacked, yields_images_alone
from robusttune.data.class_names import class_names, doubt_of_outputs
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import find_pixels
from robusttune.data.splits import subset_of
from robusttune.measuring.agreement import FACT, answers_for, check_without_labels, renamed, reworded
from robusttune.measuring.chance import doubt_in
from robusttune.measuring.clock import Clock
from robusttune.measuring.facts import facts_beside, facts_of
from robusttune.measuring.passes import check_evaluation, count_images, part_of
from robusttune.measuring.pretext_heads import HeadsLike
from robusttune.measuring.record import Record
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import FILE
from robusttune.measuring.results import Result, costs, merged, save_somewhere
from robusttune.measuring.run_defaults import with_run
from robusttune.measuring.subject import Subject
from robusttune.measuring.tally import Tally
from robusttune.measuring.tracked import check_report_log, tracked
from robusttune.model.borrowing import differentiable, evaluating, frozen, gradients_kept, restored
from robusttune.model.checks import check_whole
from robusttune.model.classifier import find_classifier
from robusttune.model.devices import chosen_device, dtype_of, placed
from robusttune.model.memory_format import chosen_format, formatted
from robusttune.model.probe import first_logits
from robusttune.model.teacher import TeacherLike
from robusttune.norms import NormLike, canonical, default_eps
from robusttune.run import distributed
from robusttune.run.folder import prepared
from robusttune.run.log import Tracker, tell, warn
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings
from robusttune.threat import ThreatModel
from robusttune.types import Channels, DeviceLike, Json, Loader, PathLike

Evaluating: TypeAlias = Callable[[Subject], Iterable[Record] | Record]
EvaluationLike: TypeAlias = str | Evaluating


def evaluate(
    model: nn.Module | PathLike,
    loader: Loader,
    which: EvaluationLike | Sequence[EvaluationLike] = ("clean", "sweep"),
    *,
    norm: NormLike | None = None,
    eps: float | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    subset: int | None = None,
    heads: HeadsLike | None = None,
    teacher: TeacherLike | None = None,
    run: PathLike | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    seed: int = 0,
    device: DeviceLike = "auto",
    log: str | Tracker | None = None,
    progress: bool = True,
    training_loader: Loader | None = None,
    notes: Mapping[str, Json] | None = None,
) -> Records:
    """Measure a model on unchanged and on attacked images, and return Records; the model does not change.

    Args:
        model: images -> logits (N,K), hardened by us or not; evaluated in eval mode. Or the folder of a run of harden: the
            model and, unless you pass them, norm, eps, mean, std and heads are then read from it. Images of another size are
            reported; other channels, and other names in `loader.dataset.classes`, are refused.
        loader: yields (images, labels), as for `harden`. If it yields images alone, agreement is measured in place of accuracy:
            how often the model answers as the teacher does on the unchanged image.
        which: evaluations by name, or `functools.partial(evaluation, …)` of one with settings.
        norm: norm of the adversary that the model was trained against, "linf" or "l2"; None for the run's, or else linf.
        eps: radius of that adversary, in pixel units on [0,1]; None for the run's, or else the usual radius for the image size.
        mean, std, normalized: mean and std of the Normalize before the model; None takes them from the run, or else from the loader.
        subset: the number of images to use: drawn with `seed` from a plain DataLoader, the first ones of other loaders.
        heads: pretext heads for "pretext" and "ood": the result of `load_heads`, a RobustLoss, or the folder of a run.
        teacher: the model whose answers replace labels if the images have none: None for the model itself; or the folder of a
            run, a module or a function, as for `harden`, such as the model before it was hardened.
        run: the folder of the run that trained the model, if you pass the model itself, because the run was begun from Python
            and does not name its model.
        out: folder for `records.jsonl` and for files from which long evaluations are resumed; without it nothing is saved.
        resume: continue the evaluation in `out` that was interrupted.
        seed: seed of all random numbers.
        device: "auto", or the device to work on.
        log: a tracker that gets the numbers, the settings and the report: "mlflow", "wandb", "tensorboard", or an object.
        progress: show a progress bar over all evaluations, with the adversary, the attack, its step, and the time left.
        training_loader: the images that the model was trained on, without augmentation; how many of the measured images are
            among them is counted in `records.facts["overlap"]`.
        notes: your own facts for `records.facts["notes"]`; reports show them, such as {"data": "CIFAR-10", "split": "test"}.

    Raises:
        ValueError: arguments, images or labels that do not fit.
        ImportError: an evaluation, its attack, or the tracker needs a package that is not installed; nothing has been measured yet.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> batches = [(torch.rand(8, 1, 8, 8), torch.arange(8))]
        >>> records = evaluate(model, batches, "clean", progress=False)
        >>> records[0].metric, records[0].images
        ('accuracy', 8)
    """
    _check(log, out, training_loader, progress=progress, subset=subset, seed=seed, run=run, notes=notes, resume=resume)
    evaluations, seed = chosen_evaluations(which), int(seed)
    check_loader(loader, passes=1 + len(evaluations))
    model, known = with_run(model, run)
    known.check_classes(loader, progress)
    norm, radius = known.adversary(norm, eps)
    mean, std = known.statistics(mean, std, loader)
    place = _place(model, device)
    source = sharding.whole(loader)
    with prepared(out, resume) as folder, borrowed(model, place, seed), ExitStack() as until_the_end:
        part = source if subset is None else subset_of(source, subset, seed)
        first = first_batch(part)
        alone = yields_images_alone(source, first)
        images = images_of(first) if alone else unpacked(first)[0]
        known.check_images(images)
        pixels = find_pixels(images, source, mean=mean, std=std, normalized=normalized, model=model).to(place)
        inputs = pixels.inputs(pixels.pixels(images[:2].to(place))).to(dtype_of(model))
        until_the_end.enter_context(formatted(model, chosen_format("auto", model, inputs)))
        shape, classes = tuple(images.shape[1:]), _classes_of(model, inputs)
        pretext = known.heads(heads, model, shape)
        doubt = doubt_of_outputs(source, classes)
        subject = Subject(
            model=model,
            pixels=pixels,
            threat=ThreatModel(norm, default_eps(canonical(norm), shape) if radius is None else radius),
            loader=part,
            shape=shape,
            classes=classes,
            device=place,
            seed=seed,
            folder=folder,
            heads=pretext,
            classifier=None if pretext is None else find_classifier(model, inputs, known.classifier),
            names=class_names(source) or known.classes,
        )
        labelled, agreement = until_the_end.enter_context(answers_for(images if alone else None, teacher, subject))
        subject = replace(subject, loader=labelled)
        tracker = until_the_end.enter_context(tracked(log, subject, evaluations, subset))
        records = _all_measured(evaluations, subject, len(images), agreement, progress=progress)
        records.facts |= {**known.facts, "eps from": known.origin(norm, radius, eps)}
        records.facts |= facts_beside(notes, training_loader, subject, records)
        if folder is not None and distributed.rank() == 0:
            save_somewhere(records, folder / FILE, progress)
        tracker.write(records)
    for line in (doubt, doubt_in(records)):
        if line is not None and distributed.rank() == 0:
            warn(line, progress)
    return records


def _check(log: object, out: object, training: Loader | None, **others: object) -> None:
    """Check arguments of `evaluate` before anything is read."""
    check_settings({"out": out, **others})
    check_report_log(log, out)
    if training is not None:  # it is gone through after all measurements
        check_loader(training, "training_loader", passes=2)
        with errors_at("training_loader"), own_randomness(0):
            images_of(first_batch(training, "training_loader"))


def chosen_evaluations(which: object) -> list[tuple[str, Evaluating]]:
    """Look up the evaluations and their titles; check that the packages they need are installed.

    Raises:
        ValueError: unknown evaluations, or none.
        ImportError: a package is missing.
    """
    several = isinstance(which, Iterable) and not hasattr(which, "__array__")
    names = [which] if isinstance(which, str) or callable(which) else [*which] if several else []  # type: ignore[misc]
    wrong = [name for name in names or [which] if not isinstance(name, str) and not callable(name)]
    known = ", ".join(plugins.names("evaluations"))
    if not names and isinstance(which, Iterable):
        raise ValueError(f"which= is empty: name evaluations out of {known}")
    if wrong:
        raise ValueError(
            f"which= holds {wrong[0]!r}, but evaluations are names out of {known}, or functions of a Subject"
        )
    evaluations = [(_title(name), plugins.find("evaluations", name)) for name in names]
    for _, evaluation in evaluations:
        plugins.check_installed("evaluations", evaluation)
    return evaluations


def _title(evaluation: object) -> str:
    if isinstance(evaluation, str):
        return evaluation
    return str(getattr(getattr(evaluation, "func", evaluation), "__name__", "evaluation"))


def _place(model: nn.Module, device: DeviceLike) -> torch.device:
    """Join the other processes; return the device of this one.

    Raises:
        ValueError: there is no such device, or the model has no classifier, or shares out its weights among processes.
    """
    place = chosen_device(model, device)
    check_whole(model)
    if getattr(model, "num_classes", None) == 0:
        raise ValueError("the model has no classifier (num_classes=0): give it one before evaluating it")
    return distributed.join(place)


@contextmanager
def borrowed(model: nn.Module, place: torch.device, seed: int) -> Iterator[None]:
    """Put the model on a device in eval mode, without gradients of its weights; afterwards restore it as it was."""
    with (
        differentiable(),
        own_randomness(seed),
        restored(model),  # of what a forward changes in eval mode, such as the ranges of observers
        placed(model, place),
        evaluating(model),
        gradients_kept(model),
        frozen(model.parameters()),
    ):
        yield


def _classes_of(model: nn.Module, inputs: Tensor) -> int:
    classes = first_logits(model, inputs).shape[1]
    if classes < 2:
        raise ValueError("the model returns one logit an image, as those for BCEWithLogitsLoss do: give it two outputs")
    return classes


def _clock(evaluations: Sequence[tuple[str, Evaluating]], subject: Subject, batch: int, show: bool) -> Clock:
    """Make the progress bar over all evaluations; the process of rank 0 shows it."""
    show = show and distributed.rank() == 0
    images = count_images(subject.loader, batch) if show else None
    return Clock([part_of(title, evaluation, subject, images) for title, evaluation in evaluations], show=show)


def _all_measured(
    evaluations: Sequence[tuple[str, Evaluating]],
    subject: Subject,
    batch: int,
    agreement: Mapping[str, str] | None,
    *,
    progress: bool,
) -> Records:
    """Run all evaluations, and collect the provenance of what they measured.

    Args:
        agreement: the name of the teacher whose answers replace labels, so that agreement is measured; None for true labels.
    """
    show = partial(tell, progress=progress)
    if agreement is not None:
        check_without_labels(evaluations)
    for _, evaluation in evaluations:
        check_evaluation(evaluation, subject)
    with _clock(evaluations, subject, batch, progress) as clock:
        said = show if agreement is None else lambda text: show(reworded(text))
        subject = replace(subject, clock=clock, tell=said)
        results = [_measured(title, evaluation, subject) for title, evaluation in evaluations]
    records = merged(results)
    records.facts = {"seed": subject.seed, "evaluations": costs(results, subject.device), **facts_of(records, subject)}
    if agreement is not None:
        records[:] = renamed(records)
        records.facts[FACT] = dict(agreement)
    return records


def _measured(title: str, evaluation: Evaluating, subject: Subject) -> Result:
    """Run one evaluation with a new Tally; a ValueError names one that takes no Subject, or returns no Records."""
    tally = Tally(by_image=True)
    subject = replace(subject, tally=tally)
    if subject.clock is not None:
        subject.clock.begin()
    began = time.perf_counter()
    try:
        returned = evaluation(subject)
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # raised inside the evaluation
            raise
        raise ValueError(
            f"the evaluation {title} cannot be called with a Subject alone: {error}; set its own arguments by functools.partial, and those of its attack by "
            "attack=partial(…)"
        ) from error
    records = list(returned) if isinstance(returned, Iterable) else [returned]
    if any(not isinstance(record, Record) for record in records):
        raise ValueError(f"the evaluation {title} returned {returned!r}, but a list of Record is needed")
    return Result(title, records, tally, time.perf_counter() - began)
