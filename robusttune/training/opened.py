"""The model that a run starts from, if the user names its folder, with the input and the classes that the folder states."""

import os
from dataclasses import replace

from torch import nn

from robusttune.data.class_names import class_names, moved
from robusttune.measuring.run_defaults import RunDefaults
from robusttune.model.hub import folder_of_model
from robusttune.model.saved import loaded, run_of_checkpoint
from robusttune.training.settings import PixelSettings, RunSettings
from robusttune.types import PathLike


def opened(model: nn.Module | PathLike, settings: RunSettings) -> tuple[nn.Module, RunSettings]:
    """Return a model and settings as they are; or the model of a folder, and settings with the mean and std of its input.

    Args:
        model: the model, or what `robusttune.load` takes.
        settings: the settings of the run, whose own mean and std come before those of the folder.

    Raises:
        ValueError: there is no such folder, its model cannot be made here, or it takes images that are normalised otherwise, or
            classes in another order, than the loader has.
    """
    if not isinstance(model, str | os.PathLike):
        return model, settings
    place = folder_of_model(model)
    module, run = loaded(place), run_of_checkpoint(place)
    loader, pixels = settings.loaders.loader, settings.pixels
    known, names = RunDefaults(run), class_names(loader) or []
    if moved(known.classes, names):
        raise ValueError(
            f"the model of {str(model)!r} has the classes {', '.join(known.classes[:8])}, but loader.dataset.classes has them in another "
            f"order, {', '.join(names[:8])}: map the labels in the target_transform of the data set"
        )
    mean, std = known.statistics(pixels.mean, pixels.std, loader)
    return module, replace(settings, pixels=PixelSettings(mean, std, pixels.normalized))
