"""The start of a command in words: the images and the model that it works on, and what it measures."""

from collections.abc import Sequence

import torch
from torch import nn

from robusttune.cli.labels import Images, classes_of, names_of
from robusttune.cli.options import Arguments, Sources
from robusttune.cli.splits import look_at
from robusttune.cli.unlabeled import are_alone
from robusttune.data.loaders import length_of
from robusttune.data.pixels import Pixels
from robusttune.measuring.evaluate import EvaluationLike
from robusttune.model.devices import chosen_device
from robusttune.norms import canonical, default_eps
from robusttune.run.about import EarlierRun
from robusttune.run.log import block, tell
from robusttune.run.settings import shown_radius
from robusttune.threat import ThreatModel
from robusttune.training.start import classes_in_words, device_in_words, model_in_words, name_of


def tell_start(
    sources: Sources,
    model: nn.Module,
    loader: Images,
    arguments: Arguments,
    *,
    evaluations: Sequence[EvaluationLike] = (),
    run: EarlierRun | None = None,
) -> None:
    """Look at the images of a command that trains nothing itself, and print what it is about to work on.

    Args:
        sources: the sources of the model and the images.
        model: the model.
        loader: the loader of the images.
        arguments: the arguments of the function that is called.
        evaluations: to be made, if any.
        run: the run whose model is measured, for images that it was trained on.

    Raises:
        ValueError: arguments that do not fit.
    """
    look_at(sources, loader, progress=arguments["progress"], run=run)
    rows = _images_and_model(sources, model, loader, arguments)
    rows += _evaluation(sources, evaluations, arguments) if evaluations else []
    rows += [("device", device_in_words(torch.device(chosen_device(model, arguments["device"]))))]
    tell(block([*rows, ("folder", arguments["out"] or "")]), arguments["progress"])


def _images_and_model(
    sources: Sources, model: nn.Module, loader: Images, arguments: Arguments
) -> list[tuple[str, str]]:
    images, subset = length_of(loader.dataset), arguments.get("subset")
    count = "their number is not known" if images is None else f"{images:,}"
    size = f"{sources.channels}x{sources.size}x{sources.size}"
    classes = classes_of(loader)
    return [
        ("data", sources.data + ("" if sources.data_dir is None else f" in {sources.data_dir}")),
        ("split", sources.split),
        ("labels", "none: a teacher's answers stand for them, by default the model's own" if are_alone(loader) else ""),
        ("classes", "" if classes is None else classes_in_words(names_of(loader.dataset), classes)),
        ("images", f"{'' if subset is None else f'{subset:,} of '}{count}, {size}"),
        ("model", model_in_words(model, {"model": sources.model})),
        ("weights", _weights(sources)),
        ("pixels", str(Pixels(arguments["mean"], arguments["std"], normalized=False)).removeprefix("images are ")),
    ]


def _evaluation(sources: Sources, evaluations: Sequence[EvaluationLike], arguments: Arguments) -> list[tuple[str, str]]:
    norm, shape = canonical(arguments["norm"]), (sources.channels, sources.size, sources.size)
    threat = ThreatModel(norm, default_eps(norm, shape) if arguments["eps"] is None else arguments["eps"])
    return [
        ("threat", f"{threat.norm}, eps {shown_radius(threat.eps)}"),
        ("evaluations", ", ".join(map(name_of, evaluations))),
    ]


def _weights(sources: Sources) -> str:
    if sources.checkpoint is not None:
        return f"of {sources.checkpoint}"
    published = sources.model.partition(":")[0] in ("timm", "torchvision")
    return "" if not published else "published ones" if sources.pretrained else "random"
