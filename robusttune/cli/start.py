"""The start of an evaluation in words: what is measured, and how."""

from collections.abc import Sequence

import torch
from torch import nn

from robusttune.cli.labels import Images, classes_of, names_of
from robusttune.cli.options import Arguments, Sources
from robusttune.data.loaders import length_of
from robusttune.data.pixels import Pixels
from robusttune.measuring.evaluate import EvaluationLike
from robusttune.model.devices import chosen_device
from robusttune.norms import canonical, default_eps
from robusttune.threat import ThreatModel
from robusttune.training.start import classes_in_words, device_in_words, model_in_words, name_of, radius_in_words


def start_of(
    sources: Sources, model: nn.Module, loader: Images, evaluations: Sequence[EvaluationLike], arguments: Arguments
) -> list[tuple[str, str]]:
    """Return what an evaluation is of, as names and values; the value is empty where there is nothing to say.

    Args:
        sources: of the model and the images.
        model: the model.
        loader: of the images.
        evaluations: to be made.
        arguments: of `evaluate`.

    Raises:
        ValueError: arguments that do not fit.
    """
    images, subset = length_of(loader.dataset), arguments["subset"]
    count = "their number is not known" if images is None else f"{images:,}"
    names, classes = names_of(loader.dataset), classes_of(loader)
    norm, shape = canonical(arguments["norm"]), (sources.channels, sources.size, sources.size)
    threat = ThreatModel(norm, default_eps(norm, shape) if arguments["eps"] is None else arguments["eps"])
    return [
        ("data", sources.data + ("" if sources.data_dir is None else f" in {sources.data_dir}")),
        ("split", sources.split),
        ("classes", "" if classes is None else classes_in_words(names, classes)),
        ("images", f"{'' if subset is None else f'{subset:,} of '}{count}, {'x'.join(map(str, shape))}"),
        ("model", model_in_words(model, {"model": sources.model})),
        ("weights", _weights(sources)),
        ("pixels", str(Pixels(arguments["mean"], arguments["std"], normalized=False))),
        ("threat", f"{threat.norm}, eps {radius_in_words(threat.eps)}"),
        ("evaluations", ", ".join(map(name_of, evaluations))),
        ("device", device_in_words(torch.device(chosen_device(model, arguments["device"])))),
        ("folder", arguments["out"] or ""),
    ]


def _weights(sources: Sources) -> str:
    if sources.checkpoint is not None:
        return f"of {sources.checkpoint}"
    published = sources.model.partition(":")[0] in ("timm", "torchvision")
    return "" if not published else "published ones" if sources.pretrained else "random"
