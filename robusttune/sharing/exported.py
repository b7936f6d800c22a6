"""Result of an export: the file, how it compares with the original, and the facts that lie beside it."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from torch import Tensor, nn

from robusttune.data.pixels import Pixels, rounded
from robusttune.measuring.record import percent
from robusttune.measuring.records import Records
from robusttune.run.about import About
from robusttune.run.provenance import fingerprint, versions
from robusttune.sharing.formats import FORMATS
from robusttune.sharing.transfer import NOTE, Differences
from robusttune.types import Json


@dataclass(frozen=True)
class Export:
    """A file of an exported model, and how it compares with the original.

    Attributes:
        path: the path of the file; a file of facts, with ".json" added to its name, lies beside it.
        to: the format.
        way: the functions that wrote it.
        takes: what the exported model takes, in words.
        differences: the differences of the logits and the answers, on all images that both have seen.
        records: the accuracy of both models, on unchanged images and on adversarial images of the original; None without images.
    """

    path: Path
    to: str
    way: str
    takes: str
    differences: Differences
    records: Records | None = None

    def __str__(self) -> str:
        found = self.differences
        lines = [
            f"{self.path}: {self.to}, by {self.way}",
            f"it takes {self.takes}",
            f"largest difference of logits {found.largest:.3g}, of {found.scale:.3g} at most; same answers on {percent(found.agreement)} of "
            f"{found.images:,} images",
        ]
        if self.records is None:
            return "\n".join([*lines, "accuracy was not compared, as no labelled images were passed"])
        return "\n".join([*lines, "", self.records.table(), "", NOTE])


def input_of_export(inputs: Tensor, pixels: Pixels | None) -> str:
    """Say what the export takes: the shape and the preprocessing of its images."""
    channels, height, width = inputs.shape[1:]
    shape = f"images of shape (N, {channels}, {height}, {width}), {str(inputs.dtype).removeprefix('torch.')}"
    if pixels is None:
        return f"{shape}; whether pixels or normalised images is not known"
    if not pixels.known:
        return f"{shape}: pixels on [0, 1]"
    return f"{shape}: (pixels on [0, 1] - mean) / std, with mean {rounded(pixels.mean)} and std {rounded(pixels.std)}"


def facts_of_export(
    done: Export, model: nn.Module, inputs: Tensor, pixels: Pixels | None, batch: int | None, about: About | None
) -> dict[str, Json]:
    """Return the contents of the file beside an export."""
    known = pixels is not None and pixels.known
    columns = {} if pixels is None else {"mean": pixels.mean.flatten().tolist(), "std": pixels.std.flatten().tolist()}
    classes = None if about is None or about.classes is None else list(about.classes)
    return {
        "file": done.path.name,
        "sha256": hashlib.sha256(done.path.read_bytes()).hexdigest(),
        "format": done.to,
        "written by": done.way,
        "takes": done.takes,
        "shape": [batch, *inputs.shape[1:]],  # None for a batch of any size
        "dtype": str(inputs.dtype).removeprefix("torch."),
        **(columns if known else {"mean": None, "std": None}),
        "returns": "logits (N, classes)",
        "classes": classes,
        "original": f"{type(model).__name__} {fingerprint(model)}",
        "compared": done.differences.as_json(),
        "accuracy": None if done.records is None else done.records.to_dict(),
        "note": NOTE if done.records is not None else "Accuracy was not compared: no labelled images were passed.",
        "versions": {**versions(), **{name: version(name) for name in FORMATS[done.to].packages}},
    }
