"""TensorBoard as a tracker of experiments."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from robusttune.run.markdown import as_text, markdown_table
from robusttune.run.tracking import flat
from robusttune.types import Json

FOLDER = "robusttune"
LONGEST = 2**20  # characters of a file that is shown as text


def check() -> None:
    """Look at nothing: the package is there, as this file was imported."""


def begin(folder: Path | None) -> "_Run":
    """Begin an event file inside the run's folder."""
    return _Run(SummaryWriter(str((folder or Path()) / FOLDER)))


class _Run:
    """An event file of TensorBoard."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def settings(self, function: str, values: Mapping[str, Json]) -> None:
        """Write settings as a table."""
        rows = [(as_text(name), as_text(text)) for name, text in flat(values).items()]
        self.writer.add_text(f"settings/{function}", markdown_table(["setting", "value"], rows), 0)
        self.writer.flush()

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Write metrics as scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step or 0)
        self.writer.flush()

    def attach(self, name: str, path: Path) -> None:
        """Write Markdown and JSON as text, and pictures as pictures; TensorBoard shows no other files."""
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            tag = f"{name}/{file.name}"
            if file.suffix == ".png":
                pixels = np.asarray(Image.open(file).convert("RGB"))  # (H,W,3)
                self.writer.add_image(tag, pixels, 0, dataformats="HWC")
            elif file.suffix in (".md", ".json", ".jsonl", ".yaml") and file.stat().st_size <= LONGEST:
                text = file.read_text(encoding="utf-8")
                self.writer.add_text(tag, text if file.suffix == ".md" else f"```\n{text}\n```", 0)
        self.writer.flush()

    def finish(self, failed: bool) -> None:
        """Close the file."""
        self.writer.close()
