"""A user's script, unchanged, under torchrun and accelerate launch: really two processes, over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import launched_run
import pytest
import torch
from launched_loop import BATCH, CASES, scene, trained
from short_runs import digits
from torch.utils.data import DataLoader, Subset

from robusttune.measuring.image_statistics import image_statistics

HERE = Path(__file__).parents[1] / "support"
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"],
    "accelerate": [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
    ],
}


def launched(launcher, folder, case, port, script="launched_run.py"):
    command = [sys.executable, *LAUNCHERS[launcher], str(port), str(HERE / script), str(folder), case]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("launcher", "case", "port"),
    [
        ("torchrun", "plain", 29611),
        pytest.param("torchrun", "sampler", 29612, marks=pytest.mark.slow),
        pytest.param("accelerate", "taught", 29613, marks=pytest.mark.slow),
        pytest.param("torchrun", "tuned", 29615, marks=pytest.mark.slow),
    ],
)
def test_two_processes_end_in_the_same_model_and_count_each_image_once(tmp_path, launcher, case, port):
    pytest.importorskip("sklearn")
    done = launched(launcher, tmp_path, case, port)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    facts = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert facts[0] == facts[1]
    assert len(facts[0]["heads"]) == (case == "plain")  # fitted to the images of both
    assert facts[0]["world"] == "2"
    assert facts[0]["chosen"][:1] == (["attack"] if case == "tuned" else [])
    assert facts[0]["held out"] == {"plain": 32, "sampler": 97, "tuned": 32}.get(case)  # of both processes together
    if case == "plain":
        model, testing = launched_run.network(), Subset(launched_run.digits(), range(1700, 1797))
        model.load_state_dict(first)
        values, counts = launched_run.of_heads(model, DataLoader(testing, 10), tmp_path / "run")
        assert facts[0]["of heads"] == [pytest.approx(values, abs=1e-3), counts]
        assert counts == [97 + 24, 24, 97, 97]
    images = [count for _, count in facts[0]["records"]]
    assert images[:2] == images[3:] + images[:1] == [97, 97]  # but for the worst class's own
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    # 608 images (or all 640, where none can be held back), two processes, batches of 32, two epochs.
    assert json.loads(lines[-1])["step"] == 20


def ended_alike(folder, case, port):
    """What two processes wrote, which have the same weights, of the run, and what is in `run.json`."""
    done = launched("torchrun", folder, case, port)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    facts = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert facts[0] == facts[1]
    return facts[0], json.loads((folder / "run/run.json").read_text())


@pytest.mark.slow
def test_processes_leave_out_images_by_the_statistics_of_all_labelled_images(tmp_path):
    pytest.importorskip("sklearn")
    facts, run = ended_alike(tmp_path, "foreign", 29618)
    means, _ = facts["compared"]
    expected = image_statistics(digits(100).tensors[0])
    assert means == pytest.approx([float(each.double().mean()) for each in expected.values()])
    assert (run["labelling"]["judged"], run["labelling"]["images"]) == (100, 380)
    assert 78 <= run["labelling"]["foreign"] <= 90  # noise, and about one in a hundred digits


@pytest.mark.slow
def test_processes_take_the_stages_before_hardening_together(tmp_path):
    pytest.importorskip("sklearn")
    _, run = ended_alike(tmp_path, "stages", 29619)
    places = [tmp_path / "run" / name for name in ("pretrain", "finetune", "")]
    assert len({json.loads((place / "run.json").read_text())["start"] for place in places}) == 3
    steps = [json.loads((place / "log.jsonl").read_text().splitlines()[-1])["step"] for place in places]
    # 640 images of both loaders, 160 labelled ones, and 640 again, in batches of 32 in each of two processes.
    assert steps == [10, 2 * 3, 2 * 10]
    assert (run["labelling"]["images"], run["labelling"]["judged"]) == (480, 160)
    (tmp_path / "b").mkdir()
    assert ended_alike(tmp_path / "b", "stages, stopped", 29620)[1]["arguments"] == run["arguments"]
    unbroken, resumed = (torch.load(folder / "0.pt", weights_only=True) for folder in (tmp_path, tmp_path / "b"))
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


@pytest.mark.slow
def test_processes_that_diverge_go_back_together(tmp_path):
    pytest.importorskip("sklearn")
    done = launched("torchrun", tmp_path, "diverging", 29617)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "so the run goes back to" in done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) and first[name].isfinite().all() for name in first)


@pytest.mark.slow
def test_processes_whose_clocks_differ_end_a_time_budget_together(tmp_path):
    pytest.importorskip("sklearn")
    ended_alike(tmp_path, "timed", 29621)
    epochs = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert 1 < len(epochs) < 1000
    assert epochs[-2]["seconds"] < 2.0 <= epochs[-1]["seconds"]  # in no epoch but the last is the budget used up


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_of_them_with_its_message(tmp_path):
    pytest.importorskip("sklearn")
    done = launched("torchrun", tmp_path, "failing", 29614)
    assert done.returncode != 0
    assert "the disk of process 1 is full" in done.stderr
    assert not list(tmp_path.glob("*.json"))


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    """What the two processes of a loop of accelerate have found, case by case."""
    folder = tmp_path_factory.mktemp("loops")
    done = launched("accelerate", folder, "", 29616, "launched_loop.py")
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_loop_of_accelerate_has_the_same_gradients_and_weights_in_both_processes(case, loops):
    first, second = ([*found[case]["gradients"], found[case]["weights"]] for found in loops)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(one[name].abs().max() > 0 for name in one)


@pytest.mark.slow
def test_two_processes_of_accelerate_have_the_gradients_of_one_with_the_whole_batch(loops):
    found, alone = loops[0]["plain"], trained(*scene("plain", BATCH))
    assert len(found["gradients"]) == len(alone["gradients"]) == 3
    for one, whole in zip(
        [*found["gradients"], found["weights"]], [*alone["gradients"], alone["weights"]], strict=True
    ):
        assert all((one[name] - whole[name]).abs().max() < 1e-6 for name in whole)
    assert max(each.abs().max() for each in alone["gradients"][-1].values()) > 1e-3
