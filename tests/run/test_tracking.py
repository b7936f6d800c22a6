"""Trackers of experiments: what `harden` writes to them, read back from real ones, and what is refused before anything is spent."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from short_runs import a_loader, a_model, hardened, same, weights_of
from torch.utils.tensorboard import SummaryWriter

import robusttune
from robusttune.run.tracking import Tracking, check_log, flat, tracking

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*held-out accuracy"),  # of heads that have hardly been trained
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the trackers' own packages
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Mine:
    """A tracker of the user's own, which keeps what it gets."""

    def __init__(self):
        self.logged, self.files, self.settings, self.finished = [], [], {}, 0

    def log(self, values, step):
        self.logged.append((step, values))

    def store_init_configuration(self, values):
        self.settings |= values

    def log_artifact(self, path):
        self.files.append(os.path.basename(path))

    def finish(self):
        self.finished += 1


def test_an_object_gets_settings_each_epoch_and_the_files_of_the_run(tmp_path):
    tracker = Mine()
    hardened(log=tracker, epochs=2, out=tmp_path / "run")
    assert [step for step, _ in tracker.logged] == [20, 40]
    assert tracker.logged[0][1]["loss"] > 0
    assert (tracker.settings["harden.eps"], tracker.settings["harden.norm"]) == ("0.3", "l2")
    assert "harden.loader" not in tracker.settings
    assert tracker.files == ["run.json", "log.jsonl"]
    assert tracker.finished == 1


def test_an_object_with_two_methods_is_enough_and_ends_with_a_run_that_fails():
    class Two:
        ended = 0

        def log(self, values, step):
            """Keep nothing."""

        def finish(self):
            Two.ended += 1

    def stop(facts):
        raise KeyError("stop")

    with pytest.raises(KeyError):
        hardened(log=Two(), on_epoch=stop)
    assert Two.ended == 1
    hardened(log=Two())
    assert Two.ended == 2
    robusttune.pretrain(a_model(), a_loader(), tasks=["rotation"], epochs=1, log=Two(), progress=False)
    assert Two.ended == 3


def test_a_tracker_that_fails_costs_no_run(caplog):
    class Broken(Mine):
        def log(self, values, step):
            raise OSError("the server is gone")

    tracker, model, plain = Broken(), a_model(), a_model()
    hardened(model, log=tracker)
    hardened(plain)
    assert same(weights_of(model), weights_of(plain))
    assert any(
        "does not take metrics (OSError: the server is gone): the work goes on without it" in m for m in caplog.messages
    )
    assert tracker.finished == 1


WRONG = [
    ("tensorbord", "unknown log 'tensorbord' (did you mean 'tensorboard'?): known are aim, "),
    ("tensorboard", "log='tensorboard' writes files: pass out=, a folder for them"),
    (
        3,
        "log is 3, but the name of a tracker is needed, such as 'mlflow', 'wandb' or 'tensorboard', or an object with log",
    ),
    (Mine, "but the name of a tracker is needed"),
    (logging.getLogger("mine"), "but the name of a tracker is needed"),
    (True, "log is True"),
]


class Untouched:
    """A loader that must not be read."""

    def __iter__(self):
        raise AssertionError("images were read")


@pytest.mark.parametrize(("log", "says"), WRONG, ids=[str(each) for each in range(len(WRONG))])
def test_a_wrong_log_is_refused_before_anything_is_spent(log, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = a_model()
    for call in (
        lambda: robusttune.harden(model, Untouched(), log=log, finetune=1, norm="l2", progress=False),
        lambda: robusttune.harden(model, Untouched(), log=log, norm="l2", progress=False),
        lambda: robusttune.pretrain(model, Untouched(), tasks=["rotation"], log=log, progress=False),
        lambda: robusttune.evaluate(model, Untouched(), "clean", log=log, progress=False),
        lambda: robusttune.poc(model, Untouched(), log=log, out=tmp_path / "poc", progress=False),
    ):
        if log == "tensorboard" and call.__code__.co_names[1] == "poc":
            continue  # a trial always has a folder
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is looked at below
            call()
        assert says in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_said_before_anything_is_spent(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match="log='wandb' needs its package: pip install wandb"):
        robusttune.harden(a_model(), Untouched(), log="wandb", finetune=2, progress=False)


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def test_a_server_of_mlflow_that_does_not_answer_is_said_at_once(monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    try:
        with pytest.raises(
            ValueError, match=r"which does not answer \(.*\): start it, or name another one in MLFLOW_TRACKING_URI"
        ):
            check_log("mlflow", None)
    finally:
        mlflow.set_tracking_uri(before)


def test_a_run_that_cannot_begin_is_said():
    class Late(Mine):
        pass

    tracked = Tracking("no_such_tracker", None)
    with pytest.raises(ValueError, match=r"log='no_such_tracker' cannot begin a run \(KeyError"):
        tracked.begin("harden", {})
    with tracking(None, None) as nothing:
        nothing.begin("harden", {"eps": 1}).log({"loss": 1.0}, 0)
        assert nothing.run is None


def test_settings_are_flat_texts():
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": []}) == {"a.b": "1", "a.c": "[1, 2]"}


def test_tensorboard_has_the_run_in_its_event_file(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hardened(log="tensorboard", epochs=2, out=tmp_path)
    written = EventAccumulator(str(tmp_path / "robusttune"), size_guidance={"tensors": 0}).Reload()
    epochs = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [each.step for each in written.Scalars("loss")] == [20, 40]
    assert [each.value for each in written.Scalars("loss")] == pytest.approx([each["loss"] for each in epochs])
    tags = written.Tags()["tensors"]
    assert {"settings/harden/text_summary", "run.json/run.json/text_summary"} <= set(tags)
    (settings,) = written.Tensors("settings/harden/text_summary")
    assert b"| eps " in settings.tensor_proto.string_val[0]


def test_a_writer_of_tensorboard_is_no_tracker(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    with pytest.raises(ValueError, match="or an object with log"):
        check_log(writer, None)
    writer.close()


def rows_of(content, block=32768):
    """The records in a file of W&B: after its head, blocks of LevelDB's log format, in which a record may be in parts."""
    place, held = 7, b""
    while place + 7 <= len(content):
        left = block - place % block
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        held += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield held
            held = b""


def records_of_wandb(folder):
    """What an offline run of W&B has kept: its configuration, its history, and the files of its artifacts by name."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.rglob("run-*.wandb")
    config, history, artifacts = {}, [], {}
    for row in rows_of(path.read_bytes()):
        record = Record.FromString(row)
        for update in [*record.config.update, *record.run.config.update]:
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
        if record.history.item:
            items = record.history.item
            history.append({each.key or ".".join(each.nested_key): json.loads(each.value_json) for each in items})
        for artifact in [record.artifact, record.request.log_artifact.artifact]:
            if artifact.name:
                artifacts[artifact.name] = [entry.path for entry in artifact.manifest.contents]
    return config, history, artifacts


@pytest.mark.slow
def test_wandb_offline_has_the_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    hardened(log="wandb", epochs=2, out=tmp_path / "h")
    assert wandb.run is None
    config, history, artifacts = records_of_wandb(tmp_path / "h")
    assert config["harden"]["eps"] == 0.3
    assert [each["_step"] for each in history if "loss" in each] == [20, 40]
    assert sorted(name.partition("-")[2] for name in artifacts) == ["log.jsonl", "run.json"]
    records = robusttune.evaluate(a_model(), a_loader(100), "clean", log="wandb", out=tmp_path / "e", progress=False)
    config, history, artifacts = records_of_wandb(tmp_path / "e")
    assert config["measured"]["model"] == records.facts["model"]
    assert [each["clean/accuracy"] for each in history if "clean/accuracy" in each] == [records[0].value]
    ((name, files),) = artifacts.items()
    assert name.endswith("-report")
    assert {"report.html", "report.md", "records.jsonl"} <= set(files)


@pytest.mark.slow
def test_a_run_of_wandb_that_the_user_has_begun_goes_on(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="mine", dir=tmp_path) as run:
        run.log({"before": 1.0}, step=100)
        hardened(log="wandb")
        assert wandb.run is run
        run.log({"after": 1.0})
    _, history, _ = records_of_wandb(tmp_path)
    assert {"before", "loss", "after"} <= {key for each in history for key in each}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a server of MLflow, in a process of its own, with its data in SQLite and its artifacts in a folder."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    port, before = free_port(), mlflow.get_tracking_uri()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            try:
                urlopen(f"{address}/health", timeout=2).close()
                break
            except (URLError, OSError):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                time.sleep(0.5)
        mlflow.set_tracking_uri(address)
        yield address
    finally:
        mlflow.set_tracking_uri(before)
        os.killpg(process.pid, 15)
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_server_of_mlflow_has_the_runs(server, tmp_path):
    """In one test, as a server takes long to start: a run, one that fails, and one inside a run of the user's."""
    import mlflow

    from robusttune.run.tracking_mlflow import EXPERIMENT

    client = mlflow.MlflowClient(server)
    hardened(log="mlflow", epochs=2, out=tmp_path / "run")
    assert mlflow.active_run() is None
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert (run.data.params["harden.eps"], run.data.params["harden.norm"]) == ("0.3", "l2")
    steps = client.get_metric_history(run.info.run_id, "loss")
    epochs = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(each.step, each.value) for each in steps] == [(each["step"], each["loss"]) for each in epochs]
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"run.json", "log.jsonl"}
    text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/run.json")
    assert json.loads(text)["arguments"]["eps"] == 0.3

    def stop(facts):
        raise KeyError("stop")

    with pytest.raises(KeyError):
        hardened(log="mlflow", on_epoch=stop)
    assert sorted(each.info.status for each in client.search_runs([experiment])) == ["FAILED", "FINISHED"]
    with mlflow.start_run() as mine:
        hardened(log="mlflow")
        records = robusttune.evaluate(a_model(), a_loader(100), "clean", log="mlflow", progress=False)
        assert mlflow.active_run().info.run_id == mine.info.run_id
    found = client.get_run(mine.info.run_id)
    assert found.data.metrics["clean/accuracy"] == records[0].value
    assert found.data.metrics["loss"] > 0
    assert found.data.params["measured.images"] == records.facts["images"]
    kept = {each.path for each in client.list_artifacts(mine.info.run_id, "report")}
    assert {"report/report.html", "report/report.md", "report/records.jsonl"} <= kept
    assert "Robustness report" in mlflow.artifacts.load_text(f"runs:/{mine.info.run_id}/report/report.html")
