"""The folders of earlier runs, which know their model, its classes, its images and its adversary."""

from pathlib import Path

from robusttune.cli.errors import note
from robusttune.cli.labels import BY_TEXT, Labels
from robusttune.cli.options import Arguments, Sources
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.hub import folder_of
from robusttune.model.saved import hardened_run, model_options
from robusttune.model.trust import check_named_by_file, trusting
from robusttune.norms import NormLike
from robusttune.run.about import About, EarlierRun


def options_of_run(
    folder: str, *, model: str | None = None, norm: NormLike | None = None, trust: bool = False
) -> Arguments:
    """Return the options with which `evaluate` uses the model of a run.

    Args:
        folder: the folder of a run of harden.
        model: the model that the user asks for; of another one the run does not know the arguments.
        norm: the norm that the user asks for; for another one the run does not know the radius.
        trust: let the run name any function as its model.

    Raises:
        ValueError: the folder holds no such run, or names code that the user has not named.
    """
    run = hardened_run(folder)
    known, eps = RunDefaults(run).adversary(norm, None)
    options = {"checkpoint": folder, **model_options(run)}
    if "model" in options and model in (None, options["model"]):
        with trusting(*([] if model is None else [model]), all_of_them=trust):
            check_named_by_file(options["model"], options.get("model_args"), folder)
    if run.size is not None and len(set(run.size)) == 1:
        options["size"] = run.size[0]
    mean, std = run.statistics
    if model is not None and model != options.get("model"):
        options.pop("model_args", None)
    return {**options, "mean": mean, "std": std, "norm": known, "eps": eps}


def options_of_published(name: str) -> Arguments:
    """Return the options with which a command uses a published model, such as local-dir:FOLDER, as its start.

    Raises:
        ValueError: there is no such folder, `save` did not write it, or it does not name its model.
    """
    folder = str(folder_of(name))
    if not Path(folder).is_dir():
        raise ValueError(
            f"{name!r} names the folder {folder!r}, which is not there: pass the folder that save wrote to"
        )
    try:
        options = options_of_run(folder)
    except ValueError as error:
        raise ValueError(f"{error}; for a folder of timm's own, pass --model timm:{name} --pretrained true") from error
    if "model" not in options:
        raise ValueError(
            f"{name!r} does not name its model, which neither timm nor torchvision makes: pass --model package.module:function, "
            f"which makes it, with --checkpoint {folder}"
        )
    return {name: value for name, value in options.items() if name not in ("norm", "eps", "classes")}


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
    """Check that the options fit a run.

    Raises:
        ValueError: images have other channels, or the model would have another number of outputs.
    """
    about, folder = run.about or About(), str(run.folder)
    if run.channels not in (None, sources.channels):
        raise ValueError(
            f"channels is {sources.channels}, but the model of {folder!r} takes images of {run.channels}: leave --channels out"
        )
    if about.outputs is not None and sources.classes not in (None, about.outputs):
        raise ValueError(
            f"classes is {sources.classes}, but the model of {folder!r} has {about.outputs} outputs: leave --classes out"
        )
