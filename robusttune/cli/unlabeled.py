"""Images without labels on the command line: beside the labelled ones, or alone, and the teacher that labels them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.utils.data import default_collate

from robusttune.cli import look
from robusttune.cli.classifiers import fit_classifier, gets_new_classifier
from robusttune.cli.errors import note
from robusttune.cli.labels import Images, classes_of, names_of
from robusttune.cli.model_labels import CLASSES_FILE, came_with
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.sources import loader_of, named
from robusttune.data.class_names import shown
from robusttune.model.named import model_of
from robusttune.model.saved import hardened_run, run_of_checkpoint
from robusttune.model.teacher import SELF, TeacherLike
from robusttune.run.about import EarlierRun
from robusttune.run.randomness import own_randomness

NONE = ("none", "None", "null")


def images_alone(samples: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Join the images (C,H,W) of a batch to (N,C,H,W), without the labels that they do not have."""
    images: Tensor = default_collate([image for image, _ in samples])
    return images


def are_alone(loader: Images) -> bool:
    """Return True for a loader that yields images without labels."""
    return loader.collate_fn is images_alone


def loader_of_images(
    sources: Sources, names: Sequence[str] | None, *, shuffle: bool = False, strict: bool = False
) -> Images:
    """Make a loader of images alone; `names` are those of the model's classes, None if they are not known."""
    loader = loader_of(sources, labels=None, shuffle=shuffle, strict=strict)
    loader.collate_fn = images_alone
    loader.dataset.reader.class_to_idx = {}  # type: ignore[attr-defined]  # of folders, which are no classes
    loader.dataset.classes = None if names is None else list(names)  # type: ignore[attr-defined]
    return loader


def prepared_alone(
    sources: Sources,
    arguments: Arguments,
    names: Sequence[str] | None,
    *,
    run: EarlierRun | None,
    shuffle: bool,
    untrained: bool,
) -> tuple[nn.Module, Images]:
    """Make a model with known outputs, and a loader of images without labels, for which the model's answers are used.

    Args:
        sources: where both come from.
        arguments: the arguments of the function that uses them.
        names: the names of the model's classes, as the user or a run has them.
        run: the run that trained the weights; None for none.
        shuffle: draw the images in a random order.
        untrained: allow a model with random weights or a new classifier.

    Raises:
        ValueError: a part of the model is not trained, so that its answers say nothing.
    """
    known = None if run is None or run.about is None else run.about.outputs
    place = str(look.split_folder(Path(sources.data), sources.split))
    head = (
        f"{place!r} has images, but no folder of images for each class, so that the model's own answers would be their labels; "
        "but "
    )
    end = "put the images of each class into a folder with its name, or pass --checkpoint with a trained model"
    if gets_new_classifier(sources, run, arguments):
        raise ValueError(
            f"{head}--classes {sources.classes} gives it a new classifier, which is not trained: leave --classes out, or {end}"
        )
    with own_randomness(arguments.get("seed", 0)):
        model = model_of(named(sources), sources.classes if known is None else known)
        doubt = fit_classifier(model, sources, names, run, strict=False)
    what = None if doubt is None else doubt.what
    if sources.checkpoint is None and not named(sources).of_library:
        what = f"{sources.model} comes without --checkpoint and may not be trained"
    if what is not None and not (untrained and not shuffle):
        raise ValueError(f"{head}{what}, so these say nothing: {end}")
    if what is not None:
        note(f"{what}: its answers say nothing")
    came = came_with(sources, model, training=shuffle) if names is None and run is None else None
    names = came.spellings[0] if came is not None and came.stated else names
    return model, loader_of_images(sources, names, shuffle=shuffle)


def more_images(sources: Sources, data: str | None, split: str) -> Images | None:
    """Make a loader of more images, of the size of the sources' images, with labels ignored; return None for no data."""
    if data is None:
        return None
    folder = None if Path(data).exists() else sources.data_dir
    return loader_of(replace(sources, data=data, data_dir=folder, split=split), labels=None, shuffle=True)


def teacher_of(teacher: str | None, sources: Sources, loader: Images) -> TeacherLike | None:
    """Find the teacher that an option names: "self", none, a run, or weights of the same model.

    Args:
        teacher: the option.
        sources: the sources of the model.
        loader: the loader of its images, with the names of its classes.

    Raises:
        ValueError: there is no such teacher, it has other classes, or there is none where images have no labels.
    """
    if teacher is None or teacher in NONE:
        if are_alone(loader):
            raise ValueError(
                "teacher is none, but the images have no labels, so that a teacher must give them: leave --teacher out"
            )
        return None
    if teacher == SELF:
        return SELF
    if not Path(teacher).exists():
        raise ValueError(
            f"teacher is {teacher!r}, but it must be 'self', none, the folder of a run, or a file of weights of {sources.model}"
        )
    if Path(teacher).is_dir() or run_of_checkpoint(teacher) is not None:
        hardened_run(teacher)
        return teacher
    there, names = replace(sources, checkpoint=teacher, pretrained=False), names_of(loader.dataset)
    model = model_of(named(there), sources.classes if sources.classes is not None else classes_of(loader))
    came = came_with(replace(there, classes=None), model, training=False)
    if came is not None and came.stated and names is not None and tuple(names) not in came.spellings:
        raise ValueError(
            f"the teacher answers with other classes: {came.where} names {shown(came.spellings[0])}, but the model is for "
            f"{shown(names)}: pass a teacher of the same classes in the same order"
        )
    if came is None or not came.stated:
        note(
            f"the weights in {teacher!r} do not name their classes: outputs are taken in the order of the model's classes"
        )
    return model.eval()


def options_given(unlabeled: str | None, unlabeled_split: str, teacher: str) -> Arguments:
    """Return the options that differ from their defaults, for `run.json` and for the commands that follow."""
    options: Arguments = {} if unlabeled is None else {"unlabeled": unlabeled, "unlabeled_split": unlabeled_split}
    return {**options, **({} if teacher == SELF else {"teacher": teacher})}


def judging_images(sources: Sources, loader: Images) -> Images | None:
    """Make a loader of images alone beside others; None if there are class folders, whose labels then count.

    Raises:
        ValueError: there are class folders, but it is not known which output of the model is which class.
    """
    if not are_alone(loader):
        return None
    names = names_of(loader.dataset)
    if look.has_no_classes(sources):
        return loader_of_images(sources, names, strict=True)
    if names is None:
        raise ValueError(
            f"the split {sources.split!r} has class folders, but it is not known which output of the model is which class: pass "
            f"{CLASSES_FILE}"
        )
    return None
