"""MLflow as a tracker of experiments."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import mlflow
from mlflow.entities import Metric, Param

from robusttune.run.tracking import flat
from robusttune.types import Json

EXPERIMENT = "robusttune"
LONGEST, AT_ONCE = 500, 100  # characters of a setting, and settings in a request, that every server takes
SECONDS = 10  # for an answer of the server, where MLflow itself would try for minutes


def check() -> None:
    """Raise a ValueError if a server is named that does not answer."""
    address = mlflow.get_tracking_uri()
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or getproxies():
        return
    try:
        with socket.create_connection(
            (parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]), SECONDS
        ):
            return
    except OSError as error:
        raise ValueError(
            f"log='mlflow' writes to the server {address}, which does not answer ({error}): start it, or name another one in "
            "MLFLOW_TRACKING_URI"
        ) from error


def begin(folder: Path | None) -> "_Run":
    """Take the run that is active, or begin one, in the experiment that MLflow's variables name, or in "robusttune"."""
    active = mlflow.active_run()
    if active is not None:
        return _Run(active.info.run_id, own=False)
    named = any(os.environ.get(name) for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"))
    return _Run(mlflow.start_run(experiment_id=None if named else _experiment()).info.run_id, own=True)


def _experiment() -> str:
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(EXPERIMENT)
    return str(client.create_experiment(EXPERIMENT) if found is None else found.experiment_id)


class _Run:
    """A run of MLflow; `own` is True if it ends with our run."""

    def __init__(self, name: str, own: bool) -> None:
        self.name, self.own, self.client = name, own, mlflow.MlflowClient()

    def settings(self, function: str, values: Mapping[str, Json]) -> None:
        """Write settings as parameters."""
        params = [Param(_named(name), text[:LONGEST]) for name, text in flat(values, f"{function}.").items()]
        for start in range(0, len(params), AT_ONCE):
            self.client.log_batch(self.name, params=params[start : start + AT_ONCE])

    def log(self, values: Mapping[str, float], step: int | None) -> None:
        """Write metrics."""
        now = int(1000 * time.time())
        metrics = [Metric(_named(name), value, now, step or 0) for name, value in values.items()]
        for start in range(0, len(metrics), AT_ONCE):
            self.client.log_batch(self.name, metrics=metrics[start : start + AT_ONCE])

    def attach(self, name: str, path: Path) -> None:
        """Write files as artifacts, those of a folder into a folder of this name."""
        if path.is_dir():
            self.client.log_artifacts(self.name, str(path), name)
        else:
            self.client.log_artifact(self.name, str(path))

    def finish(self, failed: bool) -> None:
        """End the run, unless it was active before."""
        if self.own:
            mlflow.end_run("FAILED" if failed else "FINISHED")


def _named(name: str) -> str:
    """Return a name of those characters that MLflow takes."""
    return "".join(each if each.isalnum() or each in "_-./ " else "_" for each in name)
