"""The folders of earlier runs, which know their model, its classes, its images and its adversary."""

from pathlib import Path

from robusttune.cli.errors import note
from robusttune.cli.labels import BY_TEXT, Labels
from robusttune.cli.options import Arguments, Sources
from robusttune.norms import NormLike, canonical
from robusttune.run.about import About, EarlierRun, read_run
from robusttune.run.files import LAST, MODEL, run_of_weights
from robusttune.run.settings import number

# Published weights come with other arguments of these functions, so that the same weights need them again.
ALWAYS_PRETRAINED = ("torchvision:googlenet", "torchvision:inception_v3")


def options_of_run(folder: str, *, model: str | None = None, norm: NormLike | None = None) -> Arguments:
    """Return the options with which `evaluate` uses the model of a run.

    Args:
        folder: of a run of harden.
        model: the model that the user asks for; of another one the run does not know the arguments.
        norm: the norm that the user asks for; for another one the run does not know the radius.

    Raises:
        ValueError: the folder holds no such run.
    """
    run = run_in(folder)
    about = run.about or About()
    usual = "l2" if run.arguments.get("purpose") == "corruptions" else "linf"
    trained = about.norm or canonical(run.arguments.get("norm") or usual)
    options = {"checkpoint": folder, **model_options(run)}
    if about.size is not None and len(set(about.size)) == 1:
        options["size"] = about.size[0]
    elif run.command is not None:
        options["size"] = run.command["size"]
    mean, std = run.statistics
    eps = run.arguments.get("eps") if about.eps is None else number(about.eps)
    if norm is not None and canonical(norm) != trained:
        eps = None
    if model is not None and model != options.get("model"):
        options.pop("model_args", None)
    return {**options, "mean": mean, "std": std, "norm": trained, "eps": eps}


def model_options(run: EarlierRun) -> Arguments:
    """Return the options from which the model of a run is made again, but for its weights."""
    options: Arguments = {}
    if run.command is not None:
        names = ("model", "model_args", "channels", "classes")
        options = {name: run.command[name] for name in names if name in run.command}
        options["pretrained"] = options["model"] in ALWAYS_PRETRAINED and bool(run.command.get("pretrained"))
    about = run.about or About()
    known = {"channels": about.channels, "classes": about.outputs}
    return {**options, **{name: value for name, value in known.items() if value is not None}}


def run_in(folder: str) -> EarlierRun:
    """Read a run of harden.

    Raises:
        ValueError: the folder holds none.
    """
    run = read_run(folder)
    if run is None or run.function not in ("harden", "pretrain"):
        raise ValueError(f"{folder!r} holds no run.json of a run: pass the folder that harden wrote to its --out")
    if run.function == "pretrain":
        raise ValueError(
            f"the run in {folder!r} learnt without labels, so its classifier is not trained: harden it first"
        )
    return run


def run_of_checkpoint(checkpoint: str | None) -> EarlierRun | None:
    """Read the run that wrote a file of weights, or that a folder holds; None where there is none.

    A file beside the run's `run.json` is known by its name, another one by its metadata.
    """
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    beside = read_run(path if path.is_dir() else path.parent) if path.is_dir() or path.name in (MODEL, LAST) else None
    return beside or (run_of_weights(path) if path.is_file() else None)


def labels_of(run: EarlierRun | None) -> Labels:
    """Return the classes of a run's labels; those of the data for no run, and for one without labels."""
    if run is None or run.function == "pretrain":
        return BY_TEXT
    if run.about is not None and run.about.classes is not None:
        return Labels(tuple(run.about.classes))
    if run.about is None and run.command is not None:
        note(
            f"the run in {str(run.folder)!r} is of a version that kept no names of classes: the folders of the data are "
            "numbered as it numbered them, with 2 before 10"
        )
        return Labels(order="number")
    note(
        f"the run in {str(run.folder)!r} does not know its classes by name: the folders of the data are taken in their order"
    )
    return BY_TEXT


def check_additions(run: EarlierRun, sources: Sources) -> None:
    """Note where images are of another size than those of the run.

    Raises:
        ValueError: they have other channels, or the model would have another number of outputs.
    """
    about, folder = run.about or About(), str(run.folder)
    before = run.command or {}
    channels = before.get("channels") if about.channels is None else about.channels
    if channels is not None and channels != sources.channels:
        raise ValueError(
            f"channels is {sources.channels}, but the model of {folder!r} takes images of {channels}: leave --channels out"
        )
    if about.outputs is not None and sources.classes not in (None, about.outputs):
        raise ValueError(
            f"classes is {sources.classes}, but the model of {folder!r} has {about.outputs} outputs: leave --classes out"
        )
    height, width = (before.get("size"), before.get("size")) if about.size is None else about.size
    if height is not None and (height, width) != (sources.size, sources.size):
        note(
            f"the model of {folder!r} was trained on images of {height}x{width}, and gets {sources.size}x{sources.size}"
        )
