"""Facts of a measurement, as `Records.facts` holds them: what was measured, on which images, when, and with which versions."""

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor, nn

from robusttune.data.batches import errors_at, images_of
from robusttune.measuring.records import Records
from robusttune.measuring.subject import Subject
from robusttune.measuring.tally import image_hashes
from robusttune.run.folder import as_json
from robusttune.run.provenance import commit, fingerprint, of_all, versions
from robusttune.run.settings import as_written
from robusttune.types import Json, Loader


def facts_of(records: Records, subject: Subject) -> dict[str, Json]:
    """Return the provenance of the measurement, and the names of the classes, if they are known.

    There is no path, name of a user or of a machine in it.
    """
    threat, code = subject.threat, commit()
    return {
        **({"classes": list(subject.names)} if subject.names else {}),
        "model": f"{type(subject.model).__name__} {fingerprint(subject.model)}",
        **_architecture(subject.model),
        "images": f"{len(records.hashes)} {of_all(records.hashes)}",
        "image shape": list(subject.shape),
        **_data(subject.loader),
        "pixels": str(subject.pixels),
        **_statistics(subject),
        "threat": f"{threat.norm} eps {threat.eps:.6g}",
        "norm": str(threat.norm),
        "eps": as_written(threat.eps),
        "device": str(subject.device),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **({} if code is None else {"commit": code}),
        "versions": {**_own_version(), **versions()},
    }


def facts_beside(
    notes: Mapping[str, Json] | None, training: Loader | None, subject: Subject, records: Records
) -> dict[str, Json]:
    """Return the facts that the user passed: "notes", and "overlap" of the images measured with those of training."""
    kept: dict[str, Json] = {"notes": as_json(notes)} if notes else {}
    return kept if training is None else {**kept, "overlap": overlap(training, subject, records)}


def overlap(training: Loader, subject: Subject, records: Records) -> dict[str, Json]:
    """Count the measured images that are among the training images, bit for bit in 8 bits a channel.

    Args:
        training: yields the training images in the same space as the loader that was measured, without augmentation.
        subject: what was measured.
        records: the Records of all its images.

    Raises:
        ValueError: a batch of another form.
    """
    seen: list[str] = []
    for number, batch in enumerate(training, 1):
        with errors_at(f"batch {number} of training_loader"):
            images: Tensor = images_of(batch)
        seen += image_hashes(subject.pixels.pixels(images.detach().to(subject.device)))
    known = set(seen)
    shared = sum(image in known for image in records.hashes)
    return {"training images": len(seen), "fingerprint": of_all(seen), "shared": shared}


def _statistics(subject: Subject) -> dict[str, Json]:
    """Return mean and std of the model's input, one number for each channel; None for a model that takes pixels."""
    pixels = subject.pixels
    if not pixels.known:
        return {"mean": None, "std": None}
    columns = {"mean": pixels.mean, "std": pixels.std}
    return {name: column.flatten().expand(subject.shape[0]).tolist() for name, column in columns.items()}


def _architecture(model: nn.Module) -> dict[str, Json]:
    """Return the name that timm gave the model, if it did, and the number of its parameters."""
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, Mapping) else None
    count = sum(parameter.numel() for parameter in model.parameters() if not _is_lazy(parameter))
    return {**({"architecture": name} if isinstance(name, str) else {}), "parameters": count}


def _is_lazy(parameter: Tensor) -> bool:
    return isinstance(parameter, torch.nn.parameter.UninitializedParameter)


def _data(loader: Loader) -> dict[str, Json]:
    """Return the type of the data set inside wrappers such as Subset, and its split if the data set names one."""
    dataset = getattr(loader, "dataset", None)
    for _ in range(8):  # wrappers may wrap each other, but not for ever
        inner = getattr(dataset, "dataset", None)
        if inner is None or inner is dataset:
            break
        dataset = inner
    if dataset is None:
        return {}
    split, train = getattr(dataset, "split", None), getattr(dataset, "train", None)
    if not isinstance(split, str):
        split = {True: "train", False: "test"}[train] if isinstance(train, bool) else None
    return {"data set": type(dataset).__name__, **({} if split is None else {"split": split})}


def _own_version() -> dict[str, str]:
    try:
        return {"robusttune": version("robusttune")}
    except PackageNotFoundError:  # used from its sources, without an installation
        return {}
