"""The splits of a command's data: which chooses the epoch, which share images, and which images could not be read."""

import os
from pathlib import Path

from robusttune.cli import look
from robusttune.cli.errors import note, warning
from robusttune.cli.folders import ReadImages
from robusttune.cli.labels import Images
from robusttune.cli.options import Sources
from robusttune.cli.prepared import other_split
from robusttune.run.about import EarlierRun, read_run
from robusttune.run.log import tell

AUTO = "auto"
NONE = (None, "none", "None")
EXAMPLES = 2


def judging_split(
    sources: Sources, wanted: str | None, loader: Images, *, resumed: str | None = None, progress: bool
) -> tuple[str | None, Images | None]:
    """Choose the split by which a run chooses its epoch; return its name and its loader, or None for 5% held back.

    Args:
        sources: the sources of the training images.
        wanted: "auto" for the split for validation that lies beside the training split, if there is one.
        loader: the loader of the training images.
        resumed: the folder of the run that is resumed, which keeps its split; None for a new run.
        progress: print which split was found.

    Raises:
        ValueError: there is no such split, it has other classes, or the run that is resumed has another one.
    """
    earlier = None if resumed is None else read_run(resumed)
    if earlier is not None:
        split = _split_of(earlier, wanted)
        return split, other_split(sources, split, loader)
    if wanted != AUTO:
        split = None if wanted in NONE else wanted
        held_out = other_split(sources, split, loader)
        warn_if_trained_on(loader, held_out, "they do not show which epoch is best")
        return split, held_out
    found = look.validation_beside(sources)
    try:
        held_out = other_split(sources, found, loader)
    except ValueError as error:
        warning(
            f"{found!r} beside {sources.split!r} cannot choose the epoch, so training images are held back: {error}"
        )
        return None, None
    if found is not None:
        tell(
            f"the split {found!r} was found beside {sources.split!r}, and chooses the epoch; with --val_split none, 5% of the "
            "training images are held back for that instead",
            progress and _leads(),
        )
    return found, held_out


def _split_of(run: EarlierRun, wanted: str | None) -> str | None:
    """Return the split that chose the epoch in a run that is resumed, as its `run.json` has it."""
    now = None if wanted in NONE else wanted
    if run.command is None:
        return None if wanted == AUTO else now
    before = run.command.get("val_split")
    if wanted != AUTO and now != before:
        what = "5% of its training images" if before is None else f"the split {before!r}"
        raise ValueError(
            f"the run in {str(run.folder)!r} chooses its epoch by {what}, so it cannot go on with val_split={now!r}: leave "
            "--val_split out"
        )
    return before


def look_at(sources: Sources, loader: Images, *, progress: bool, run: EarlierRun | None = None) -> None:
    """Print how many images and classes each split has; warn of images that are in two splits.

    Args:
        sources: the sources of the images.
        loader: the loader of one split of them.
        progress: print the counts.
        run: the run whose model is measured, for images that it was trained on.
    """
    root = getattr(getattr(loader.dataset, "reader", None), "root", None)
    if not look.is_folder(sources) or root is None or not _leads():
        return
    used, endings = Path(root), look.endings_of(sources)
    places = {used.name: used} | (look.splits_in(Path(sources.data), endings) if used != Path(sources.data) else {})
    images = {name: look.images_under(place, endings) for name, place in places.items()}
    counts = [
        f"{name} {look.count_in_words(places[name], paths)}".removeprefix(
            f"{name} " if used == Path(sources.data) else ""
        )
        for name, paths in images.items()
    ]
    tell(f"{sources.data!r}: {', '.join(counts)}", progress)  # in quotes, which keep a name that an option has, too
    for name, paths in images.items():
        if name != used.name:
            warn_of_shared((f"the split {name!r}", paths), (f"the split {used.name!r}", images[used.name]))
    if run is not None:
        _compare_with_run(run, used, images[used.name], compared=[place.resolve() for place in places.values()])


def _compare_with_run(run: EarlierRun, used: Path, images: list[str], *, compared: list[Path]) -> None:
    """Warn if images are those that a run was trained on, or chose its epoch by, if these are still there.

    Args:
        run: it may not know its images.
        used: the folder of the images.
        images: their paths.
        compared: folders that they have been compared with.
    """
    command, folder = run.command or {}, str(run.folder)
    data = Path(command.get("data") or "")
    if "data" not in command or command.get("data_dir") is not None or not data.is_dir():
        return
    trained, judged = look.split_folder(data, command.get("split", "train")), command.get("val_split")
    if trained.resolve() == used.resolve():
        warning(f"the run in {folder!r} was trained on these images: they do not show how it does on new ones")
    elif judged is not None and look.split_folder(data, judged).resolve() == used.resolve():
        test = next((name for name in look.TESTING if name in look.splits_in(data)), None)
        note(
            f"the run in {folder!r} chose its epoch by these images, so its accuracy on new ones may be a little lower: "
            f"{'--split names another split' if test is None else f'pass --split {test} for images that it has not seen'}"
        )
    elif trained.resolve() not in compared:
        warn_of_shared(
            (f"the training images of {folder!r}", look.images_under(trained)), ("the split that is measured", images)
        )


def warn_of_shared(first: tuple[str, list[str]], second: tuple[str, list[str]]) -> None:
    """Warn of images that are in two lists of files, each with its name."""
    (one, ones), (other, others) = first, second
    shared = look.shared_images(ones, others)
    if shared.pairs:
        shown = "; ".join(f"{there} is {here}" for here, there in shared.pairs[:EXAMPLES])
        several, verb = ("images", "are") if len(shared.pairs) > 1 else ("image", "is")
        warning(
            f"{len(shared.pairs):,} {several} of {other} {verb} in {one}, too ({shown}): remove them from one of the two, as "
            "accuracy on images that were trained on says nothing about new ones"
        )
    if not shared.complete:
        note(f"{one} and {other} are large, so only a part was compared for images that are in both")


def warn_if_trained_on(loader: Images, other: Images | None, so: str) -> None:
    """Warn if another loader reads the folder of the training images, with what follows from it."""
    used, root = (getattr(getattr(of and of.dataset, "reader", None), "root", None) for of in (loader, other))
    if root is not None and root == used:
        warning(f"the images in {str(root)!r} are those that are trained on, so {so}: name another split")


def say_unused(sources: Sources, test_split: str | None, *, progress: bool) -> None:
    """Print which split a trial could measure on, where none was named and one lies beside the training split."""
    found = look.validation_beside(sources) if test_split is None else None
    if found is not None:
        tell(
            f"a fifth of the split {sources.split!r} is kept for testing; --test_split {found} measures on that split instead",
            progress and _leads(),
        )


def say_unread(*loaders: Images | None) -> None:
    """Print how many images could not be read, where there were any."""
    for loader in loaders:
        images = getattr(loader, "dataset", None)
        if isinstance(images, ReadImages) and bool(images.unread.any()) and _leads():
            rows = images.unread.nonzero().flatten().tolist()
            shown = ", ".join(images.name(row) for row in rows[:EXAMPLES]) + " …" * (len(rows) > EXAMPLES)
            warning(
                f"{len(rows):,} of {len(images):,} images could not be read, and the next ones took their places: {shown}"
            )


def _leads() -> bool:
    """Return True in the first of several processes."""
    return os.environ.get("RANK", "0") == "0"
