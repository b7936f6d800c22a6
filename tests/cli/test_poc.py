"""`robusttune poc`: a real second process, kills, plans over budget, files of options, one-line errors."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from robusttune.cli import main
from robusttune.cli.options import COMMANDS
from robusttune.trial.results import Trial

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FILE = """
model: timm:test_resnet
data: digits
size: 32
channels: 1
test_split: validation
threats: {linf: 8/255}
corruptions: [fog]
arms: [nothing, adversarial]
seeds: 2
epochs: 1
images: 40
evaluation:
  - clean
  - sweep: {norms: [linf], eps: [4/255, 8/255], steps: 2}
out: runs/poc
progress: false
"""


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A folder with digits as PNG files by split and class, and the file of options above."""
    digits = load_digits()
    for split, rows in (("train", range(200)), ("validation", range(200, 250))):
        for row in rows:
            place = tmp_path / "digits" / split / str(digits.target[row])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((32, 32)).save(place / f"{row}.png")
    (tmp_path / "flat").mkdir()
    for row in range(400, 550):  # no labels, so no folders
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((32, 32)).save(
            tmp_path / f"flat/{row}.png"
        )
    (tmp_path / "poc.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan_of(folder):
    return yaml.safe_load((folder / "runs/poc/plan.yaml").read_text())


@pytest.mark.slow
def test_a_plan_is_written_edited_and_followed(there, capsys):
    assert main(["poc", "--config", "poc.yaml", "--plan-only", "true"]) == 0
    shown = capsys.readouterr().out
    assert "plan: runs/poc/plan.yaml, " in shown
    *_, line = shown.splitlines()  # it can be pasted as it stands
    following = shlex.split(line.removeprefix("next: robusttune "))
    assert following[0] == "poc"
    assert "--resume" in following
    assert not (there / "runs/poc/arms").exists()
    plan = plan_of(there)
    assert plan["threats"]["linf"] == "8/255"
    assert plan["evaluation"]["items"][1]["sweep"]["eps"] == ["4/255", "8/255"]
    assert (plan["evaluation"]["images"], plan["data"]["test images"]) == (40, 50)
    run = json.loads((there / "runs/poc/run.json").read_text())
    assert (run["command"]["data"], run["command"]["test_split"]) == ("digits", "validation")

    path = there / "runs/poc/plan.yaml"
    path.write_text(path.read_text().replace("seeds: [0, 1]", "seeds: [5]"))
    assert main(following) == 0
    shown = capsys.readouterr().out
    assert "not enough data to tell" in shown
    assert "page: runs/poc/decision.html" in shown
    trial = Trial.load(there / "runs/poc")
    assert {(result.arm, result.seed) for result in trial.results} == {("nothing", 5), ("adversarial", 5)}
    (inner,) = (there / "runs/poc/arms/adversarial").glob("*/1-harden/run.json")
    assert "command" not in json.loads(inner.read_text())  # the command would not repeat this run


@pytest.mark.slow
def test_killed_it_goes_on_from_the_weights_it_began_with(there):
    command = [sys.executable, "-m", "robusttune", "poc", "--config", "poc.yaml", "--seeds", "[0]"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not list(there.glob("runs/poc/arms/nothing/*/evaluation/*/records.jsonl")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = load_file(there / "runs/poc/start.safetensors")
    done = {path: path.stat().st_mtime_ns for path in there.glob("runs/poc/arms/**/records.jsonl")}
    assert not (there / "runs/poc/decision.html").exists()

    again = subprocess.run([*command, "--resume", "true"], env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (there / "runs/poc/decision.html").exists()
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    after = load_file(there / "runs/poc/start.safetensors")
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.slow
def test_a_plan_over_budget_exits_with_1_and_says_what_to_drop(there, capsys):
    assert main(["poc", "--config", "poc.yaml", "--budget", "1/100"]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert "but the budget is 0 s" in line
    assert "runs/poc/plan.yaml" in line
    assert not (there / "runs/poc/arms").exists()


@pytest.mark.slow
def test_lists_may_be_written_as_words_and_unlabelled_images_come_from_their_own_place(there, capsys):
    given = ["--threats", "l2", "{linf: 4/255}", "--corruptions", "fog", "noise", "--arms", "nothing", "rotation_joint"]
    more = ["--unlabeled", "flat", "--evaluation", "clean", "sweep", "--plan-only", "true"]
    assert main(["poc", "--config", "poc.yaml", *given, *more]) == 0
    plan = plan_of(there)
    assert list(plan["threats"])[:2] == ["l2", "linf"]
    assert plan["threats"]["linf"] == "4/255"
    assert list(plan["arms"]) == ["nothing", "rotation_joint"]
    assert plan["data"]["unlabelled images"] == 150


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--arms", "jont"], 1, "unknown arm 'jont': known are"),
        (["--corruptions", "fogg"], 1, "unknown corruption 'fogg'"),
        (["--threats", "{linf: -1}"], 1, "eps"),
        (["--threats", "{l7: 1}"], 1, "l7"),
        (["--seeds", "0"], 1, "seeds"),
        (["--seeds", "many"], 2, "--seeds"),
        (["--epochs", "0"], 1, "epochs"),
        (["--images", "0"], 1, "images"),
        (["--price", "2"], 1, "price"),
        (["--test_split", "nowhere"], 1, "nowhere"),
        (["--unlabeled", "nowhere"], 1, "nowhere"),
        (["--checkpoint", "nowhere.pth"], 1, "nowhere.pth"),
        (["--evaluation", "cleann"], 1, "cleann"),
        (["--settings", "{lrr: 1}"], 1, "lrr"),
        (["--budgett", "3"], 2, "did you mean '--budget'"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_nothing_is_trained(arguments, code, says, there, capsys):
    assert main(["poc", "--config", "poc.yaml", *arguments]) == code
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert not (there / "runs/poc/arms").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_can_complete_its_options(shell, capsys):
    pytest.importorskip("shtab", reason="completion is made by shtab")
    with pytest.raises(SystemExit) as ended:
        main(["--print_completion", f"shtab-{shell}"])
    assert ended.value.code in (0, None)
    script = capsys.readouterr().out
    assert [name for name in COMMANDS if name not in script] == []
    assert "test_split" in script


STOPPED = """
import timm, torch
from pathlib import Path

class Stopped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = timm.create_model("test_resnet", in_chans=1, num_classes=10)

    def forward(self, images):
        if self.training and Path("stop").exists() and Path("runs/poc/plan.yaml").exists():
            raise KeyboardInterrupt
        return self.layers(images)
"""


@pytest.mark.slow
def test_after_ctrl_c_inside_an_arm_the_same_command_goes_on(there, capsys):
    (there / "stopped_trial.py").write_text(STOPPED)
    (there / "stop").touch()
    command = ["poc", "--config", "poc.yaml", "--model", "stopped_trial:Stopped", "--seeds", "0", "1"]
    command += ["--evaluation", "clean", "--needs", "clean"]
    assert main(command) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert not (there / "runs/poc/decision.md").exists()
    (there / "stop").unlink()
    assert main([*command, "--resume", "true"]) == 0
    assert {(each.arm, each.seed) for each in Trial.load(there / "runs/poc").results} == {
        (arm, seed) for arm in ("nothing", "adversarial") for seed in (0, 1)
    }


def test_a_folder_that_is_not_empty_is_left_as_it_is(there, capsys):
    (there / "mine").mkdir()
    (there / "mine/thesis.txt").write_text("words")
    assert main(["poc", "--config", "poc.yaml", "--out", "mine"]) == 1
    assert "--out 'mine' is not empty: pass --resume true to resume" in capsys.readouterr().err
    assert [each.name for each in (there / "mine").iterdir()] == ["thesis.txt"]


def test_flags_come_before_the_file(there, capsys):
    assert main(["poc", "--config", "poc.yaml", "--epochs", "0"]) == 1
    assert "epochs is 0.0" in capsys.readouterr().err
