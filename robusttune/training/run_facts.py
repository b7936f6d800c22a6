"""The contents of a run's `run.json`."""

from typing import Any

import torch

from robusttune.run import folder as run_folder
from robusttune.run.provenance import fingerprint, versions
from robusttune.training.loop import Training
from robusttune.training.settings import RunSettings


def run_facts(training: Training, settings: RunSettings) -> dict[str, Any]:
    """Return the contents of `run.json`: all that is needed to repeat the run, except the model and the data."""
    arguments = settings.arguments(name for name in settings.names if name not in run_folder.FREE)
    loaders = vars(settings.loaders)
    facts = {
        "run": settings.function,
        "arguments": arguments,
        "objects": [name for name, value in arguments.items() if not run_folder.is_plain(value)],
        "loaders": [name for name in ("val_loader", "unlabeled_loader") if loaders[name] is not None],
        "data": training.batches.facts(),
        "start": fingerprint(training.robust_loss.model),
        "device": str(training.stepper.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    notes = dict(settings.output.notes or {})
    if facts.keys() & notes.keys():
        raise ValueError(f"notes= may not hold {', '.join(facts.keys() & notes.keys())}, which run.json has already")
    return {**facts, **notes}
