"""What a folder names is never called, unless the user names it, too."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision import models as zoo

import robusttune
from robusttune.cli.program import main
from robusttune.model.named import NamedModel, model_of
from robusttune.model.trust import check_named_by_file, trusting
from robusttune.run import files


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder that looks like a run, and names a function that leaves a trace when it is called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nfrom torch import nn\nPath('imported').touch()\n\n"
        "def net(**more):\n    Path('called').touch()\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))\n"
    )
    (tmp_path / "data/train/a").mkdir(parents=True)
    torch.manual_seed(0)
    folder = tmp_path / "run"
    folder.mkdir()
    files.save_weights(folder / files.MODEL, nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).state_dict())
    (folder / files.LAST).write_bytes((folder / files.MODEL).read_bytes())  # so that it has ended an epoch
    command = {"model": "evil:net", "data": str(tmp_path / "data"), "size": 8, "channels": 3, "split": "train"}
    facts = {"run": "harden", "command": command, "arguments": {"seed": 0}, "objects": [], "loaders": [], "data": {}}
    (folder / files.RUN).write_text(json.dumps({**facts, "start": "", "device": "cpu", "threads": 1, "versions": {}}))
    return folder


def traces(folder):
    return [name for name in ("imported", "called") if (folder.parent / name).exists()]


@pytest.mark.parametrize(
    "command",
    [
        ["replay", "run"],
        ["evaluate", "run", "--data", "data"],
        ["harden", "--model", "timm:test_resnet", "--data", "data", "--teacher", "run"],
    ],
    ids=["replay", "evaluate", "teacher"],
)
def test_no_command_calls_what_a_folder_names(command, run, capsys):
    assert main(command) != 0
    said = capsys.readouterr().err
    assert "teacher" in command[-2] or "names 'evil:net' as its model, which is code" in said, said
    assert traces(run) == []


@pytest.mark.parametrize(
    "read",
    [robusttune.load, lambda run: robusttune.evaluate(run, [(torch.rand(2, 3, 8, 8), torch.arange(2))], "clean")],
)
def test_nothing_in_python_does(read, run):
    with pytest.raises(
        ValueError, match="names 'evil:net' as its model, which is code that reading a file must not call"
    ):
        read(run)
    assert traces(run) == []


def test_the_user_may_trust_a_folder(run, monkeypatch):
    monkeypatch.syspath_prepend(str(run.parent))
    model = robusttune.load(run, trust=True)
    assert isinstance(model, nn.Sequential)
    assert traces(run) == ["imported", "called"]
    sys.modules.pop("evil")


@pytest.mark.parametrize("name", ["timm:hf-hub:someone/model", "timm:local-dir:/tmp/x", "os:system", "builtins:exec"])
def test_names_that_fetch_or_run_are_refused(name):
    with pytest.raises(ValueError, match="as its model"):
        check_named_by_file(name, None, "run")
    with trusting(name):
        check_named_by_file(name, None, "run")


@pytest.mark.parametrize(
    "argument",
    ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained", "weights", "weights_backbone"],
)
def test_arguments_that_read_other_files_are_refused(argument):
    check_named_by_file("timm:resnet18", {"img_size": 32}, "run")
    with pytest.raises(ValueError, match=f"has the arguments {argument} for its model"):
        check_named_by_file("timm:resnet18", {argument: "x"}, "run")
    with trusting("timm:resnet18"), pytest.raises(ValueError, match=f"has the arguments {argument} for its model"):
        check_named_by_file("timm:resnet18", {argument: "x"}, "run")  # the user named the model, and not its arguments
    with trusting(all_of_them=True):
        check_named_by_file("timm:resnet18", {argument: "x"}, "run")


@pytest.mark.parametrize(
    "hostile",
    [
        {"data": "wds/x", "data_dir": "pipe:touch called; cat /dev/null #", "split": "x.tar|10"},
        {"data": "hfds/someone/set"},
        {"data": "tfds/x"},
        {"unlabeled": "wds/x"},
        {"data_dir": "https://evil.example/x.tar"},
        {"data_args": {"trust_remote_code": True}},
        {"data_args": {"download": True}},
        {"val_split": "pipe:touch called"},
    ],
    ids=str,
)
def test_a_replay_reads_no_images_that_are_fetched_or_made_by_commands(hostile, run, capsys):
    facts = json.loads((run / files.RUN).read_text())
    facts["command"] |= {"model": "timm:test_resnet", **hostile}
    (run / files.RUN).write_text(json.dumps(facts))
    assert main(["replay", "run"]) == 1
    assert "with which images are fetched or code may be run" in capsys.readouterr().err
    assert traces(run) == []


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("called"),))


@pytest.mark.parametrize("evil", [True, False])
def test_the_weights_of_torchvision_are_read_as_tensors_before_it_reads_them(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    weights = zoo.resnet18().state_dict()
    torch.save({**weights, "evil": Evil()} if evil else weights, tmp_path / "w.pth")
    digest = hashlib.sha256((tmp_path / "w.pth").read_bytes()).hexdigest()[:8]
    file = (tmp_path / "w.pth").rename(tmp_path / f"w-{digest}.pth")
    monkeypatch.setattr(zoo.WeightsEnum, "url", property(lambda self: file.as_uri()))
    if evil:
        with pytest.raises(ValueError, match="torchvision:resnet18 cannot be created"):
            model_of(NamedModel("torchvision:resnet18", pretrained=True), None)
    else:
        model = model_of(NamedModel("torchvision:resnet18", pretrained=True), None)
        assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not (tmp_path / "called").exists()


def test_the_library_reads_no_pickle():
    calls = subprocess.run(
        ["grep", "-rnE", r"weights_only=False|allow_pickle=True|pickle\.load|torch\.load\(", "robusttune"],
        capture_output=True,
        text=True,
        check=False,
        cwd=files.__file__.rpartition("/robusttune/")[0],
    ).stdout.splitlines()
    assert calls
    assert all("weights_only=True" in line for line in calls), calls


def test_an_old_torch_reads_no_checkpoint(tmp_path, monkeypatch):
    from robusttune.run import advisories

    files.save_state(tmp_path, {"epoch": 1})
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    monkeypatch.setattr(advisories, "torch", SimpleNamespace(__version__="2.9.1+cpu"))
    for read in (lambda: files.load_state(tmp_path), lambda: files.load_weights(tmp_path / "w.pt")):
        with pytest.raises(ValueError, match=r"is not read with torch 2\.9\.1\+cpu, which has CVE-2026-24747"):
            read()
    monkeypatch.setenv(advisories.TRUST, "1")
    assert files.load_state(tmp_path) == {"epoch": 1}
    monkeypatch.delenv(advisories.TRUST)
    monkeypatch.setattr(advisories, "torch", SimpleNamespace(__version__="2.10.0"))
    assert files.load_weights(tmp_path / "w.pt").keys() == {"w"}
