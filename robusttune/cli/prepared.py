"""The model and the images of a command, with labels that mean the same classes to both."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from robusttune.cli import look
from robusttune.cli.classifiers import fit_classifier, gets_new_classifier, say_untrained
from robusttune.cli.labels import (
    BY_TEXT,
    Images,
    Labels,
    check_one_order,
    classes_of,
    names_of,
)
from robusttune.cli.model_labels import came_with
from robusttune.cli.normalisation import with_statistics
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.runs import labels_of
from robusttune.cli.sources import loader_of, named
from robusttune.cli.unlabeled import judging_images, prepared_alone
from robusttune.data.class_names import shown
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.named import LIBRARIES, model_of
from robusttune.model.saved import run_of_checkpoint
from robusttune.run.about import EarlierRun, check_same_names
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import check_settings


def prepared(
    sources: Sources,
    arguments: Arguments,
    *,
    labels: Labels | None = BY_TEXT,
    run: EarlierRun | None = None,
    shuffle: bool,
    untrained: bool = True,
    alone: bool = False,
) -> tuple[nn.Module, Images, Arguments]:
    """Make the model and the loader, and add the mean and std that the model is known for to the arguments.

    Args:
        sources: what both are made from.
        arguments: the arguments of the function that they are made for.
        labels: the classes that labels stand for; by default those of the run that the checkpoint is of, or of the data;
            None if labels do not matter.
        run: the run whose model this is; None for the one that the checkpoint is of.
        shuffle: draw the images in a random order.
        untrained: allow a model with random weights or a new classifier, with a note; otherwise it is refused.
        alone: take a folder without class folders, too, for a trained model, as images without labels.

    Raises:
        ValueError: there is no such model or data, or the outputs of the model are not the classes of the data.
    """
    of_folder, run = run is not None, run or run_of_checkpoint(sources.checkpoint)
    check_settings({"seed": arguments.get("seed", 0)})
    if alone and labels is not None and look.has_no_classes(sources):
        names = _names_known(sources, run, labels)
        model, loader = prepared_alone(sources, arguments, names, run=run, shuffle=shuffle, untrained=untrained)
    else:
        model, loader = _prepared(sources, arguments, labels=labels, run=run, shuffle=shuffle, untrained=untrained)
    arguments = with_statistics(arguments, sources, model, run)
    if not of_folder:  # evaluate looks at those of the run that it measures
        RunDefaults(run).statistics(arguments["mean"], arguments["std"], loader)
    return model, loader, arguments


def _prepared(
    sources: Sources,
    arguments: Arguments,
    *,
    labels: Labels | None,
    run: EarlierRun | None,
    shuffle: bool,
    untrained: bool,
) -> tuple[nn.Module, Images]:
    """Make the model and the loader of images in class folders, or of a data set with labels, see `prepared`."""
    seed = arguments.get("seed", 0)
    model: nn.Module | None = None
    if sources.model.split(":")[0] not in LIBRARIES:
        with own_randomness(seed):
            model = model_of(named(sources), None)
    renewed = gets_new_classifier(sources, run, arguments)
    labels = labels_of(run) if labels == BY_TEXT and not renewed else labels
    if labels is not None and sources.classes_file is not None:
        names = names_in_file(sources.classes_file)
        check_same_names(labels.names, names, sources.checkpoint or "", "--classes_file")
        labels = Labels(names)
    elif labels == BY_TEXT and run is None:
        labels = Labels(came=came_with(sources, model, training=shuffle))
    loader = loader_of(sources, labels=labels, shuffle=shuffle)
    if (
        labels is not None
        and labels._replace(came=None) == BY_TEXT
        and not renewed
        and (run is None or run.function != "pretrain")
    ):
        check_one_order(sources, loader, labels)
    classes = sources.classes if sources.classes is not None else classes_of(loader)
    if classes is None and sources.model.split(":")[0] in LIBRARIES:
        raise ValueError(f"{sources.data} does not tell how many classes it has: pass --classes")
    if model is None:
        with own_randomness(seed):  # random weights are the same when the run is repeated
            model = model_of(named(sources), classes)
    if labels is not None:
        with own_randomness(seed):
            doubt = fit_classifier(model, sources, names_of(loader.dataset), run, strict=not shuffle)
        say_untrained(doubt, allowed=untrained, finetune=bool(arguments.get("finetune")))
    return model, loader


def _names_known(sources: Sources, run: EarlierRun | None, labels: Labels) -> Sequence[str] | None:
    """Return the names of the model's classes, as a run or a file of the user's has them; None if neither does."""
    of_run = None if run is None or run.about is None else run.about.classes
    known = labels.names or of_run
    if sources.classes_file is None:
        return known
    names = names_in_file(sources.classes_file)
    check_same_names(known, names, sources.checkpoint or "", "--classes_file")
    return names


def other_split(sources: Sources, split: str | None, loader: Images) -> Images | None:
    """Make a loader of another split of the data, with the labels of this one by name; None for no split."""
    if split is None:
        return None
    there = replace(sources, split=split)
    alone = judging_images(there, loader)
    return loader_of(there, labels=Labels(names_of(loader.dataset)), strict=True) if alone is None else alone


def names_in_file(file: str) -> list[str]:
    """Read the names of classes, one a line.

    Raises:
        ValueError: the file cannot be read, is empty, or holds a name twice.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--classes_file {file!r} cannot be read ({error}): pass a text file, one name a line"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        problem = f"has {shown(twice)} more than once" if twice else "has no names"
        raise ValueError(f"--classes_file {file!r} {problem}: write the name of each class once, one a line")
    return names
