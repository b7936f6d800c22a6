"""W&B (Weights & Biases) as a tracker of experiments."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import wandb

from robusttune.types import Json

PROJECT = "robusttune"


def check() -> None:
    """Look at nothing: W&B works offline, and asks for a key when a run begins."""


def begin(folder: Path | None) -> "_Run":
    """Take the run that is active, or begin one, in the project that WANDB_PROJECT names, or in "robusttune"."""
    if wandb.run is not None:
        return _Run(wandb.run, own=False)
    return _Run(wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), dir=folder), own=True)


class _Run:
    """A run of W&B; `own` is True if it ends with our run."""

    def __init__(self, run: "wandb.Run", own: bool) -> None:
        self.run, self.own = run, own

    def settings(self, function: str, values: Mapping[str, Json]) -> None:
        """Write settings into the run's configuration."""
        update: Callable[..., None] = self.run.config.update  # without types in W&B
        update({function: dict(values)}, allow_val_change=True)

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Write metrics; a run of the user's keeps its own count of steps."""
        self.run.log(dict(values), step=step if self.own else None)

    def attach(self, name: str, path: Path) -> None:
        """Write files as an artifact of this name."""
        artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{self.run.id}-{name}"), type=PROJECT)
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def finish(self, failed: bool) -> None:
        """End the run, unless it was active before."""
        if self.own:
            self.run.finish(exit_code=int(failed))
