"""Folder of a model to publish: its weights, its configuration and its card."""

import json
import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from torch import nn

from robusttune.measuring.records import Records, records_of
from robusttune.measuring.records_files import FILE
from robusttune.model.borrowing import evaluating
from robusttune.model.devices import check_module
from robusttune.model.hub import CARD, CONFIG, FILES, folder_of
from robusttune.model.saved import hardened_run, loaded
from robusttune.model.trust import trusting
from robusttune.run import files
from robusttune.run.about import MODEL, RUN, EarlierRun
from robusttune.run.log import warn
from robusttune.run.settings import check_settings
from robusttune.run.writing import write_text
from robusttune.sharing.card import card_of
from robusttune.sharing.config import config_of
from robusttune.sharing.story import Story, story_of
from robusttune.types import Channels, PathLike, check_flag, check_path, shown

LICENSE = re.compile(r"[\w.+-]+")


def save(
    model: nn.Module | PathLike,
    folder: PathLike,
    records: Records | PathLike | None = None,
    *,
    run: PathLike | None = None,
    name: str | None = None,
    license: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> Path:
    """Write a folder to publish a model: weights, configuration, and a model card; return its path.

    `model.safetensors` has the weights, `config.json` the architecture, the classes and the preprocessing in timm's format, and
    `README.md` (the card) what was measured, what is not known, and metadata for the Hugging Face Hub. `robusttune.load(folder)`
    loads any model from it, and `timm.create_model("local-dir:FOLDER", pretrained=True)` a model of timm.

    Args:
        model: images -> logits (N,K), which does not change; or the folder of a run of harden.
        folder: a new or an empty folder.
        records: what `evaluate` measured on this model, or the folder that it wrote to; by default the one evaluation in the
            folder of the run.
        run: the folder of the run that trained the model, if the model itself is passed.
        name: name of the model, for the title; by default that of the folder.
        license: identifier of the licence on the Hub, such as "apache-2.0"; None for no licence: only the owner of the weights can choose one.
        classes: names of the classes in the order of the outputs; needed if neither the run nor the records hold them.
        mean, std: mean and std of the Normalize before the model; needed if neither the run nor the records hold them.
        normalized: False, without mean and std, for a model that takes pixels on [0,1].
        overwrite: replace these three files in a folder with an earlier model.
        trust: allow the run to name a function that makes the model, as for `load`.

    Raises:
        ValueError: the folder is not empty, the records are of other weights, or what is passed does not fit the model.

    Example:
        >>> import tempfile, timm, torch, robusttune
        >>> model = timm.create_model("test_resnet", num_classes=2).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(model, folder, classes=["cat", "dog"], normalized=False)
        ...     again = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        ...     print(sorted(file.name for file in path.iterdir()))
        ['README.md', 'config.json', 'model.safetensors']
        >>> images = torch.rand(1, 3, 64, 64)
        >>> bool(torch.equal(again(images), model(images)))
        True
    """
    check_settings({"out": folder, "run": run, "normalized": normalized, "trust": trust})
    check_flag("overwrite", overwrite)
    _check_words(name, license, classes)
    place = _checked_folder(folder, overwrite)
    source, module = _source(model, run, trust=trust)
    found = _records(source, records, run if isinstance(model, nn.Module) else model)
    with evaluating(module):
        story = story_of(
            module,
            source,
            found,
            name=place.resolve().name if name is None else name,
            license=license,
            classes=classes,
            mean=mean,
            std=std,
            normalized=normalized,
        )
    _write(place, module, story)
    _say_unknown(story, place)
    return place


def _check_words(name: object, license: object, classes: object) -> None:
    if license is not None and not (isinstance(license, str) and LICENSE.fullmatch(license)):
        raise ValueError(
            f"license is {shown(license)}, but an identifier as the Hub lists them is needed, such as 'apache-2.0' or 'other'"
        )
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise ValueError(f"name is {shown(name)}, but a text is needed, or None for the name of the folder")
    several = isinstance(classes, list | tuple) and all(isinstance(each, str) for each in classes)
    if classes is not None and not several:
        raise ValueError(f"classes is {shown(classes)}, but a list of names is needed, such as ['cat', 'dog']")


def _checked_folder(folder: PathLike, overwrite: bool) -> Path:
    """Return a folder that may be written to, which is created.

    Raises:
        ValueError: it is a file, the folder of a run, or holds other files.
    """
    place = check_path("out", folder)
    if place.exists() and not place.is_dir():
        raise ValueError(f"{str(place)!r} is a file, but a folder is needed: name another one")
    inside = {each.name for each in place.iterdir()} if place.is_dir() else set()
    if RUN in inside:
        raise ValueError(
            f"{str(place)!r} is the folder of a run, whose checkpoints are not for others: name a new folder, such as "
            f"{str(place) + '-published'!r}"
        )
    if inside and not (overwrite and MODEL in inside):  # a README.md alone may be of anything
        raise ValueError(
            f"{str(place)!r} is not empty ({', '.join(sorted(inside)[:3])}): name a new folder, or pass overwrite=True to replace "
            f"an earlier model ({', '.join(FILES)}) in it"
        )
    place.mkdir(parents=True, exist_ok=True)
    return place


def _source(model: nn.Module | PathLike, run: PathLike | None, *, trust: bool) -> tuple[EarlierRun | None, nn.Module]:
    """Return the run of a model, if there is one, and the model."""
    if not isinstance(model, str | os.PathLike):
        check_module(model)
        _check_unwrapped(model)
        known = None if run is None else hardened_run(folder_of(run))
        if known is not None and not files.has_weights(model, files.load_weights(folder_of(run or ""))):
            raise ValueError(
                f"the weights of the model are not those that the run in {str(run)!r} ended with: leave run= out, or save the run"
            )
        return known, model
    if run is not None:
        raise ValueError("run= names the run of a model that is passed itself: leave it out, or pass the model")
    place = folder_of(model)
    with trusting(all_of_them=True) if trust else nullcontext():
        return hardened_run(place), loaded(place)


def _check_unwrapped(model: nn.Module) -> None:
    """Raise a ValueError for a wrapper, whose weights have names that the model inside does not have."""
    wrapper = "_orig_mod" if hasattr(model, "_orig_mod") else "module"
    if wrapper == "_orig_mod" or isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(
            f"the model is wrapped in {type(model).__name__}, so its weights have other names than the model: pass model.{wrapper}"
        )


def _records(run: EarlierRun | None, records: Records | PathLike | None, place: PathLike | None) -> Records | None:
    """Return the records that were passed, or those of the evaluation in the folder of the run; None for none."""
    if records is not None:
        return records_of(records)
    folder = None if run is None or place is None else Path(folder_of(place))
    return Records.load(folder) if folder is not None and any(folder.glob(f"*/{FILE}")) else None


def _write(folder: Path, model: nn.Module, story: Story) -> None:
    """Write the three files; the card last, so that a folder with a card is whole: an earlier one goes before the weights."""
    about, function = story.about, "save" if story.run is None else story.run.function
    facts = EarlierRun(folder, function, None, {}, replace(about, held_out=None)).metadata
    config, card = json.dumps(config_of(story, model), indent=2) + "\n", card_of(story)
    (folder / CARD).unlink(missing_ok=True)
    files.save_weights(folder / MODEL, model.state_dict(), facts)
    write_text(folder / CONFIG, config)
    write_text(folder / CARD, card)


def _say_unknown(story: Story, folder: Path) -> None:
    """Warn of what a user of the model would have to know, and the card cannot say."""
    about = story.about
    missing = {
        "the names of its classes (pass classes=)": about.classes is None,
        "whether it takes pixels or normalised images (pass mean= and std=, or normalized=False)": not about.input_known,
        "its accuracy (pass records=, which evaluate returns)": story.records is None,
    }
    unknown = [what for what, is_missing in missing.items() if is_missing]
    if unknown:
        warn(f"the card in {str(folder)!r} says that these are not known: {'; '.join(unknown)}", False)
