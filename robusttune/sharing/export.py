"""Export of a model to another runtime, compared with the original before it counts."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from robusttune import plugins
from robusttune.attacks import AttackLike
from robusttune.data import sharding
from robusttune.data.batches import first_batch, images_of
from robusttune.data.loaders import check_loader
from robusttune.data.pixels import Pixels, find_pixels
from robusttune.measuring.evaluate import evaluate
from robusttune.measuring.record import percent
from robusttune.measuring.run_defaults import with_run
from robusttune.model.borrowing import evaluating, frozen
from robusttune.model.devices import check_module, dtype_of, placed
from robusttune.model.features import logits_of
from robusttune.model.hub import folder_of
from robusttune.model.probe import first_logits
from robusttune.norms import NormLike
from robusttune.run.about import About
from robusttune.run.randomness import own_randomness
from robusttune.run.settings import COUNT, NOT_NEGATIVE, SHARE, check_number, check_settings
from robusttune.run.writing import write_text
from robusttune.sharing.example import example_inputs
from robusttune.sharing.exported import Export as Export
from robusttune.sharing.exported import facts_of_export, input_of_export
from robusttune.sharing.formats import FORMATS, Runner, check_installed
from robusttune.sharing.transfer import Differences, Transfer
from robusttune.sharing.written import read_export, write_export
from robusttune.types import Channels, DeviceLike, Loader, PathLike, check_flag, check_path, shown

FormatName = Literal["onnx", "torch.export", "torchscript", "int8"]
TOLERANCE = 1e-3  # share of the largest logit, for formats that compute the same but for rounding
RANDOM = 16  # images of random pixels, where there are no others


def export(
    model: nn.Module | PathLike,
    path: PathLike,
    *,
    to: FormatName,
    loader: Loader | None = None,
    run: PathLike | None = None,
    norm: NormLike | None = None,
    eps: float | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    normalized: bool | None = None,
    subset: int | None = None,
    attack: AttackLike = "apgd",
    steps: int | None = 20,
    batch: int | None = None,
    tolerance: float | None = None,
    least_agreement: float = 0.0,
    seed: int = 0,
    device: DeviceLike = "cpu",
    progress: bool = True,
    overwrite: bool = False,
) -> Export:
    """Export a model, load the export again and compare it with the original; write the file only if they agree.

    The export takes what the model takes, normalised images or pixels, and returns logits (N,K). The file beside it, under
    the same name and ".json", says which, and holds all that was measured.

    Args:
        model: images -> logits (N,K), which does not change; or the folder of a run of harden, or of `save`.
        path: path of the new file.
        to: "onnx" (for ONNX Runtime), "torch.export", "torchscript", or "int8": ONNX with weights of 8 bits, and activations
            that are rounded to 8 bits while it runs.
        loader: yields (images, labels), to compare accuracy on unchanged and on adversarial images; None compares the logits of
            random images alone.
        run: the folder of the run that trained the model, where the model itself is passed.
        norm, eps, mean, std, normalized, subset, seed, device: as for `evaluate`.
        attack, steps: the attack that searches on the original; its images are then shown to the export, too.
        batch: the only batch size that the export takes; None for any.
        tolerance: the largest difference of logits that is allowed, as a share of the largest logit; None for 0.001, and for
            "int8" for any difference.
        least_agreement: the share of images on which both must answer the same, from 0 to 1: of the loader's, unchanged and
            adversarial; without a loader, of random ones.
        progress: show a progress bar.
        overwrite: replace a file of this name, and the one beside it.

    Raises:
        ValueError: the format does not take the model, or the export disagrees with it; no file is written.
        ImportError: the format needs a package that is not installed.

    Example:
        >>> import tempfile, robusttune
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = robusttune.export(model, f"{folder}/model.ts", to="torchscript")
        >>> exported.differences.agreement
        1.0
    """
    if to not in FORMATS:
        raise ValueError(f"to is {shown(to)}, but it must be one of {', '.join(FORMATS)}")
    check_installed(to)
    _check_numbers(subset=subset, batch=batch, tolerance=tolerance, least_agreement=least_agreement)
    check_settings({"path": path, "run": run, "seed": seed, "steps": steps, "progress": progress})
    check_flag("overwrite", overwrite)
    place = _free(check_path("path", path), overwrite)
    source = folder_of(model) if isinstance(model, str | os.PathLike) else run
    module, known = with_run(model, run)
    check_module(module)
    norm, eps = known.adversary(norm, eps)
    if loader is not None:
        check_loader(loader, passes=3)
        mean, std = known.statistics(mean, std, loader)
    elif mean is None and std is None and known.run is not None:
        mean, std = known.run.statistics
    about = None if known.run is None else known.run.about
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as folder:
        draft = Path(folder) / f"model{FORMATS[to].ending}"  # whose ending torch asks for
        with _ready(module, seed):
            inputs, pixels = _inputs(module, loader, about, mean, std, normalized)
            way = write_export(module, inputs, draft, to, batch)
            run_export = read_export(draft, to, batch)
            differences = Differences()
            _compare_logits(module, run_export, inputs, differences, answers=loader is None)
        records = None
        if loader is not None:
            judged = plugins.configured("attacks", attack, steps=steps)
            setting = {"attack": attack if isinstance(attack, str) else "an attack of the user's", "steps": steps}
            transfer = Transfer(run_export, judged, setting, differences)
            where = {"norm": norm, "eps": eps, "mean": mean, "std": std, "normalized": normalized, "run": source}
            measured = partial(evaluate, subset=subset, seed=seed, device=device, progress=progress)
            records = measured(module, loader, [transfer], **where)  # type: ignore[arg-type]
        _check_agreement(differences, to, tolerance, least_agreement)
        done = Export(place, to, way, input_of_export(inputs, pixels), differences, records)
        _facts_beside(place).unlink(
            missing_ok=True
        )  # of a file that is replaced: they would be taken for those of the new one
        os.replace(draft, place)
    facts = facts_of_export(done, module, inputs, pixels, batch, about)
    write_text(_facts_beside(place), json.dumps(facts, indent=2) + "\n")
    return done


def _check_numbers(*, subset: int | None, batch: int | None, tolerance: float | None, least_agreement: float) -> None:
    for name, value in (("subset", subset), ("batch", batch)):
        if value is not None:
            check_number(name, value, COUNT)
    if tolerance is not None:
        check_number("tolerance", tolerance, NOT_NEGATIVE)
    check_number("least_agreement", least_agreement, SHARE)


def _free(path: Path, overwrite: bool) -> Path:
    """Return a path that may be written to, in a folder that is created.

    Raises:
        ValueError: it is a folder, or there is a file already, or one for the facts about it.
    """
    if path.is_dir():
        raise ValueError(
            f"path is {str(path)!r}, which is a folder: name a file in it, such as {str(path / 'model.onnx')!r}"
        )
    for each in () if overwrite else (path, _facts_beside(path)):
        if each.exists():
            raise ValueError(f"{str(each)!r} is there already: name another file, or pass overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _facts_beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


@contextmanager
def _ready(model: nn.Module, seed: int) -> Iterator[None]:
    """Put the model on the CPU in eval mode inside this context."""
    cpu = torch.device("cpu")
    with own_randomness(seed), placed(model, cpu), evaluating(model), frozen(model.parameters()):
        yield


def _inputs(
    model: nn.Module,
    loader: Loader | None,
    about: About | None,
    mean: Channels | None,
    std: Channels | None,
    normalized: bool | None,
) -> tuple[Tensor, Pixels | None]:
    """Return two inputs (2,C,H,W) of the model, and the space of its pixels; None if that is not known.

    Raises:
        ValueError: the images do not fit the model, or none is known that does.
    """
    if loader is not None:
        images = images_of(first_batch(sharding.whole(loader)))
        pixels = find_pixels(images, loader, mean=mean, std=std, normalized=normalized, model=model)
        shown_first = pixels.pixels(images[:2].cpu())
        inputs = pixels.inputs(torch.cat([shown_first, shown_first])[:2]).to(dtype_of(model))
        first_logits(model, inputs)
        return inputs, pixels
    known = about is not None and about.input_known
    said = mean is not None or std is not None or normalized is False
    space = Pixels(mean, std) if known or said else None
    inputs = example_inputs(model, None if about is None else replace(about, mean=None, std=None))
    return (inputs if space is None else space.inputs(inputs.float()).to(dtype_of(model))), space


def _compare_logits(model: nn.Module, run: Runner, inputs: Tensor, differences: Differences, *, answers: bool) -> None:
    """Compare the logits for inputs, and for random ones of the same size, each batch of another number of images.

    With `answers`, count the same answers to them; otherwise those to the user's images alone are counted, later.
    """
    size = (RANDOM, *inputs.shape[1:])
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(inputs.dtype)
    for part in (inputs, noise, noise[:1]):
        with torch.no_grad():
            original = logits_of(model(part.clone()))
        differences.add(original.float(), run(part).float(), answers=answers)


def _check_agreement(found: Differences, to: str, tolerance: float | None, least: float) -> None:
    """Raise a ValueError if the export disagrees with the original beyond what is allowed."""
    allowed = TOLERANCE if tolerance is None and FORMATS[to].exact else tolerance
    numbers = (
        f"the largest difference of logits is {found.largest:.3g}, {found.relative:.2g} of the largest logit, and both answer the same "
        f"on {percent(found.agreement)} of {found.images:,} images"
    )
    if math.isnan(found.relative):
        raise ValueError(
            f"the export to {to!r} disagrees with the model: {numbers}, but finite logits are needed: no file was written; look for "
            "images or weights that are not finite, or try another format"
        )
    if allowed is not None and found.relative > allowed:
        raise ValueError(
            f"the export to {to!r} disagrees with the model: {numbers}, but at most {allowed:g} of the largest logit is allowed: no file "
            "was written; try another format, or allow more with tolerance="
        )
    if found.agreement < least:
        raise ValueError(
            f"the export to {to!r} disagrees with the model: {numbers}, but the same answers on {percent(least)} are asked for: no file "
            "was written; try another format, or pass a lower least_agreement="
        )
