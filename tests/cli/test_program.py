"""The command line, as a user would type it: real image folders, a second process, exit codes, one-line errors."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tables import unpadded

import robusttune
from robusttune import Records, plugins
from robusttune.cli import main
from robusttune.cli.doctor import doctor
from robusttune.cli.labels import classes_of
from robusttune.cli.options import COMMANDS, OBJECTS, Sources, options_of
from robusttune.cli.parser import parse
from robusttune.cli.sources import loader_of

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Digits as PNG files, in folders by split and class."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    for split, rows in (("train", range(200)), ("validation", range(200, 300))):
        for row in rows:
            place = folder / split / str(digits.target[row])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((32, 32)).save(place / f"{row}.png")
    return folder


@pytest.fixture
def source(data, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return [
        "--model",
        "timm:test_resnet",
        "--data",
        str(data),
        "--size",
        "32",
        "--channels",
        "1",
        "--progress",
        "false",
    ]


QUICK = ["--epochs", "1", "--tasks", "null", "--steps", "1", "--norm", "linf", "--eps", "26/255"]


def test_harden_evaluate_report_compare(source, capsys, tmp_path):
    assert main(["harden", *source, *QUICK, "--batch-size=50", "--out", "runs/a"]) == 0
    run = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert run["arguments"]["eps"] == pytest.approx(26 / 255)
    assert run["arguments"]["tasks"] is None
    sweep = "{sweep: {steps: 2, norms: [linf], eps: [4/255, 26/255]}}"
    measure = ["--norm", "linf", "--eps", "0.1", "--which", "clean", sweep]
    assert main(["evaluate", *source, "--checkpoint", "runs/a", *measure, "--out", "runs/a/evaluation"]) == 0
    assert main(["evaluate", *source, *measure, "--untrained", "true", "--out", "runs/b"]) == 0
    shown = unpadded(capsys.readouterr().out)
    assert "| clean | accuracy |" in shown
    records = Records.load(tmp_path / "runs/a/evaluation/records.jsonl")
    assert records[0].images == 100
    assert {record.setting.get("steps") for record in records.where("sweep")} == {2}
    assert sorted(record.setting["eps"] for record in records.where("sweep")) == pytest.approx([4 / 255, 26 / 255])
    assert main(["report", "before=runs/b", "runs/a/evaluation", "--out", "page", "--assurance"]) == 0
    page = unpadded((tmp_path / "page/report.md").read_text())
    assert "| accuracy | before | a |" in page
    assert "Under attack (linf up to 26/255), “a” is right on" in page
    assert "the nearest that was" in page  # 0.1, as it was passed, is not among the radii of the sweep
    assert "states no conformity" in page
    assert "timm:test_resnet" in page
    assert main(["compare", "runs/b", "runs/a/evaluation/records.jsonl"]) == 0
    assert "| what | first | second |" in unpadded(capsys.readouterr().out)


@pytest.mark.slow
def test_replay_repeats_a_run_of_the_command_line(source, capsys, tmp_path):
    more = ["--max-steps", "2", "--seed", "3", "--val-split", "validation", "--batch-size", "50"]
    assert main(["harden", *source, *QUICK, *more, "--out", "runs/a"]) == 0
    command = json.loads((tmp_path / "runs/a/run.json").read_text())["command"]
    assert (command["model"], command["size"], command["val_split"]) == ("timm:test_resnet", 32, "validation")
    capsys.readouterr()
    assert main(["replay", "runs/a"]) == 0
    assert "| repeated | the same weights, bit for bit |" in unpadded(capsys.readouterr().out)
    run = json.loads((tmp_path / "runs/a/run.json").read_text())
    del run["command"]
    (tmp_path / "runs/a/run.json").write_text(json.dumps(run))
    assert main(["replay", "runs/a"]) == 1
    assert "was begun from Python" in capsys.readouterr().err


def test_estimate_takes_evaluations(source, capsys):
    which = ["--which", "clean", "{sweep: {steps: 2}}", "--split", "validation", "--batch-size=50"]
    assert main(["estimate", *source, *which, "--norm", "linf", "--eps", "26/255", "--subset", "60"]) == 0
    shown = unpadded(capsys.readouterr().out)
    assert re.search(r"\| clean \| [\d.]+ s \| 60 \| 60 \| 0 \|", shown)
    assert re.search(r"\| sweep \| at most .* \| 60 \| [\d,]+ \| [\d,]+ \|", shown)
    assert main(["estimate", *source, *which, "--epochs", "3"]) == 1
    assert "which take no" in capsys.readouterr().err


@pytest.mark.slow
def test_estimate_takes_the_options_of_harden(source, capsys, tmp_path):
    prices = ["--devices", "{spot: 2, own: 0.5}", "--val-split", "validation"]
    assert main(["estimate", *source, *QUICK, "--batch-size=50", "--out", "runs/e", *prices]) == 0
    shown = unpadded(capsys.readouterr().out)
    assert "for 1 epoch, 8 steps |" in shown
    assert "| images through the model: judging | 1,200 forward, 1,000 backward |" in shown
    assert "| cost on spot |" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rotation's held-out accuracy")
def test_pretrain_then_harden_with_its_heads(source, tmp_path):
    tasks = ["--tasks", "{rotation: 0.5}"]
    assert main(["pretrain", *source, "--epochs", "1", *tasks, "--out", "runs/p"]) == 0
    more = ["--checkpoint", "runs/p", "--heads", "runs/p", "--epochs", "1", "--steps", "1", "--attack-tasks", "none"]
    assert main(["harden", *source, *more, *tasks, "--val-split", "validation", "--out", "runs/h"]) == 0
    assert (tmp_path / "runs/h/heads.safetensors").exists()


def test_a_configuration_file_does_as_flags_do_and_flags_come_first(source, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["harden", *source, *QUICK, "--out", "runs/c", "--print_config"])
    text = capsys.readouterr().out
    assert "model: timm:test_resnet" in text
    (tmp_path / "run.yaml").write_text(text.replace("epochs: 1", "epochs: 2"))
    assert main(["harden", "--config", "run.yaml", "--max-steps", "1"]) == 0
    run = json.loads((tmp_path / "runs/c/run.json").read_text())
    assert (run["arguments"]["epochs"], run["arguments"]["max_steps"]) == (2, 1)


def the_error(capsys):
    """The line of an error; before it, it may be noted that the model has random weights."""
    *notes, line = capsys.readouterr().err.strip().splitlines()
    assert all(note.startswith("robusttune: note: timm:test_resnet has random weights") for note in notes)
    return line


WRONG = [
    (["harden", "--out", "x", "--norm", "l3"], "unknown norm 'l3': known are l2, linf"),
    (["harden", "--out", "x", "--attack", "pdg"], r"unknown attack 'pdg' (did you mean 'pgd'?)"),
    (["evaluate", "--which", "cleen"], "unknown evaluation 'cleen' (did you mean 'clean'?)"),
    (["evaluate", "--checkpoint", "nowhere"], "'nowhere' is not there"),
    (["evaluate", "--model", "timm:resnt18"], "timm has no model 'resnt18' (did you mean 'resnet18'?)"),
    (["evaluate", "--model", "torchvision:nothing"], "torchvision:nothing cannot be created"),
    (["evaluate", "--model", "resnet18"], "the model is 'resnet18', but 'timm:NAME'"),
    (["evaluate", "--model", "no.such:thing"], "there is no module 'no.such' here"),
    (["evaluate", "--model", "json:nothing"], "the module 'json' has no 'nothing': name a function in it"),
    (["evaluate", "--model", "builtins:dict"], "builtins:dict returned a dict, but a torch.nn.Module is needed"),
    (["evaluate", "--data", "nowhere"], "'nowhere' is not there: pass a folder of images"),
    (["evaluate", "--channels", "2"], "channels is 2, but it must be 1 or 3"),
    (["report", "nowhere"], "'nowhere' is not there: pass the folder that evaluate wrote to"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), WRONG, ids=[f"{each[0][0]}-{number}" for number, each in enumerate(WRONG)]
)
def test_an_error_is_one_line_and_leaves_nothing(arguments, says, source, capsys, tmp_path):
    command, *rest = arguments
    own = [] if command == "report" else source
    assert main([command, *own, *rest]) == 1
    line = the_error(capsys)
    assert line.startswith("robusttune: error: ")
    assert says in line
    assert not list(tmp_path.glob("x/*.safetensors"))


@pytest.mark.slow
def test_exit_codes_and_tracebacks_of_a_second_process(source, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "robusttune", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    wrong = run("evaluate", *source, "--norm", "l3")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)
    shown = run("evaluate", *source, "--norm", "l3", "--debug")
    assert (shown.returncode, "Traceback" in shown.stderr) == (1, True)
    unknown = run("evaluate", *source, "--norms", "l2")
    assert unknown.returncode == 2
    assert "--norms" in unknown.stderr
    assert run("doctor").returncode == 0
    assert run("--version").stdout.split()[-1] == robusttune.__version__


def test_help_teaches(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        required = COMMANDS[command].required
        assert ("required: " in shown) == bool(required)
        part = shown.partition("required: ")[2].partition("model and images: ")[0]
        assert set(re.findall(r"--(\w+) [A-Z]+ ", part)) == set(required)
        assert command == "doctor" or "Examples: robusttune" in shown
        assert not re.search(r"--\w+-\w", shown)  # dashes are accepted, and underscores are shown
        if command in ("harden", "evaluate"):
            assert f"(known: {', '.join(plugins.names('norms'))}" in shown
            assert "pixel units on [0,1]" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command):
    options = {name: each.about for name, each in options_of(command).items()}
    assert not [name for name, about in options.items() if not about or about.startswith(("see `", "as for `"))]


@pytest.mark.parametrize("command", ["harden", "evaluate", "pretrain", "poc"])
def test_options_are_the_arguments_of_the_function(command):
    import inspect

    options = options_of(command)
    taken = inspect.signature(getattr(robusttune, command)).parameters
    named = {name for name, each in taken.items() if each.kind is each.KEYWORD_ONLY}
    assert named - OBJECTS <= set(options)
    literal = {name for name in named & set(options) if options[name].default not in (None, ...)}
    assert {name: options[name].default for name in literal} == {name: taken[name].default for name in literal}
    assert not [name for name in named & set(options) if options[name].default is ...]


def test_a_split_that_is_not_there_is_not_made_of_the_others(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"no split 'test' in .*, whose folders are train, validation: name one of them"
    ):
        loader_of(Sources("", str(data), split="test", size=32))
    flat = str(data / "train")
    assert len(loader_of(Sources("", flat, size=32)).dataset) == 200
    with pytest.raises(ValueError, match="no split 'validation'"):
        loader_of(Sources("", flat, split="validation", size=32), strict=True)


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="the system does not tell its load")
@pytest.mark.parametrize(("load", "threads", "noted"), [(6.0, 2, True), (6.0, 1, False), (1.0, 2, False)])
def test_doctor_notes_that_other_programs_use_the_processor(load, threads, noted, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    text, wrong = doctor()
    assert wrong == []
    assert ("(load 6.0 on 2 cores): a run with 2 threads may be far slower" in text) is noted


def test_doctor_sees_a_torchvision_that_does_not_fit(monkeypatch):
    text, wrong = doctor()
    assert wrong == []
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert "devices: cpu" in text
    import torchvision

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    text, wrong = doctor()
    assert len(wrong) == 1
    assert "does not fit torch" in text


def test_data_by_name(data):
    images, labels = next(iter(loader_of(Sources("", str(data), size=24, batch_size=10))))
    assert images.shape == (10, 3, 24, 24)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert labels.tolist() == [0] * 10


MISMATCHED = """
import torch

@torch.library.register_fake("torchvision::nms")  # as torchvision does, where its own operators were not found
def nms(boxes, scores, threshold):
    return boxes
"""


@pytest.mark.slow
def test_doctor_works_where_torchvision_does_not_fit_torch_and_the_library_says_why(tmp_path):
    run = ["harden", "--model", "timm:test_resnet", "--data", "images", "--out", "run"]
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(MISMATCHED)
    path = os.pathsep.join([str(tmp_path), str(Path(robusttune.__file__).parents[1])])
    code = f"import robusttune; from robusttune.__main__ import main; print(main(['doctor']), main({run})); "
    shown = subprocess.run(
        [sys.executable, "-c", code + "robusttune.harden"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "PROBLEM: torchvision" in shown.stdout
    assert shown.stdout.endswith("1 1\n")
    error, *_, last = shown.stderr.strip().splitlines()
    assert error.startswith("robusttune: error: robusttune cannot work here: torchvision")
    assert last.startswith("ImportError: robusttune cannot work here: torchvision")
    assert "install both from the same index" in last


MISTAKES = [
    (["harden", "--norms", "l2"], "there is no option --norms (did you mean '--norm'?)"),
    (["harden"], "missing: --model, --data, --out; for example: robusttune harden --model timm:resnet18"),
    (["harden", "--model", "x", "--data", "y"], "missing: --out; for example: robusttune harden"),
    (["harden", "--model", "x", "--data", "", "--out", ""], "missing: --data, --out"),
    (["pretrain", "--model", "x", "--data", "y"], "missing: --out; for example: robusttune pretrain"),
    (
        ["evaluate", "no/such/run"],
        "missing: --data; for example: robusttune evaluate runs/a --data images; robusttune evaluate --help",
    ),
    (["evaluate"], "missing: --model, --data"),
    (["poc", "--data", "y"], "missing: --model; for example: robusttune poc"),
    (["compare", "a"], "missing: second; for example: robusttune compare runs/before runs/a/evaluation"),
    (["harden", "--model", "x", "--data", "y", "--epochs", "two"], "--epochs is 'two', but it must be a whole number"),
    (["harden", "--model", "x", "--data", "y", "--eps", "two"], "--eps is 'two', but it must be a number"),
    (["hardn"], "(did you mean 'harden'?)"),
    (
        ["save", "--run", "a", "--folder", "b"],
        "there is no option --run: write its value alone, in this order: RUN FOLDER",
    ),
    (["save", "runs/a"], "missing: the new folder; for example: robusttune save runs/a published/cats"),
    (["save", "runs/a", "b", "--out", "c"], "the new folder is named twice, 'b' and --out 'c': leave one of them out"),
    (["export", "runs/a", "--out", "b.onnx"], "there is no option --out (did you mean '--path'?)"),
    (["advise", "--data", "x", "--time_budget", "2h"], "there is no option --time_budget (did you mean '--budget'?)"),
    (["harden", "--budget", "2h"], "there is no option --budget (did you mean '--time_budget'?)"),
    (["report"], "missing: records; for example: robusttune report before="),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=[str(each) for each in range(len(MISTAKES))])
def test_arguments_that_do_not_fit_are_one_line_and_exit_with_2(arguments, says, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("robusttune: error: ")
    assert says in shown
    assert shown.count("\n") == 1
    assert "--help explains" in shown


def test_fractions_are_numbers_in_files_too_and_folders_stay_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("eps: 8/255\n")
    request = parse(["harden", "--config", "a.yaml", "--model", "x", "--data", "1/2", "--out", "2026_11"])
    assert request.sources.data == "1/2"
    assert (request.arguments["eps"], request.arguments["out"]) == (8 / 255, "2026_11")


STOPPED = """
import timm, torch

class Stopped(torch.nn.Module):
    left = 12

    def __init__(self):
        super().__init__()
        self.layers = timm.create_model("test_resnet", in_chans=1, num_classes=10)

    def forward(self, images):
        Stopped.left -= self.training
        if self.training and Stopped.left == 0:
            raise KeyboardInterrupt
        return self.layers(images)
"""


@pytest.mark.filterwarnings("ignore:.*withstood the attack, which is no more")  # of a run this short
def test_after_ctrl_c_the_code_is_130_weights_are_kept_and_resume_goes_on(source, capsys, tmp_path):
    (tmp_path / "stopped.py").write_text(STOPPED)
    run = ["harden", *source, *QUICK, "--batch_size", "50", "--epochs", "4", "--out", "runs/s"]
    run[run.index("timm:test_resnet")] = "stopped:Stopped"
    assert main(run) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert (tmp_path / "runs/s/last.safetensors").exists()
    assert main([*run, "--resume", "true"]) == 0
    assert (tmp_path / "runs/s/model.safetensors").exists()


def written_idx(folder, count=20):
    """Digits in the four files that torchvision's FashionMNIST reads."""
    digits, raw = load_digits(), folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.kron(digits.images[:count], np.ones((1, 3, 3))).astype(np.uint8)
    images = np.pad(images * 15, ((0, 0), (2, 2), (2, 2)))
    for split in ("train", "t10k"):
        head = (2051).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in images.shape)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = (2049).to_bytes(4, "big") + count.to_bytes(4, "big")
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(head + digits.target[:count].astype(np.uint8).tobytes())
    return digits.target[:count].tolist()


def test_a_data_set_of_torchvision(tmp_path):
    labels = written_idx(tmp_path)
    loader = loader_of(
        Sources("", "torch/fashion_mnist", data_dir=str(tmp_path), split="test", size=32, channels=1, batch_size=20)
    )
    images, found = next(iter(loader))
    assert images.shape == (20, 1, 32, 32)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert found.tolist() == labels


def test_a_data_set_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "train-0000.tar")) as tar:
        for row in range(12):
            held = io.BytesIO()
            Image.new("RGB", (32, 32), (20 * row, 0, 0)).save(held, "png")
            tar.write({"__key__": f"{row:04d}", "png": held.getvalue(), "cls": str(row % 3).encode()})
    shard = {"name": "train", "filenames": ["train-0000.tar"], "shard_lengths": [12], "num_samples": 12}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": shard}}))
    sources = Sources("", "wds/mine", data_dir=str(tmp_path), size=32, batch_size=12)
    images, labels = next(iter(loader_of(sources)))
    assert images.shape == (12, 3, 32, 32)
    assert sorted(labels.tolist()) == sorted(row % 3 for row in range(12))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["images", "parquet", "save_to_disk"])
def test_a_data_set_of_hugging_face_that_is_here(kind, data, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder, rows = tmp_path / "mine", {"image": [Image.new("L", (32, 32), 60 * (row % 3)) for row in range(12)]}
    rows["label"] = [row % 3 for row in range(12)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    if kind == "images":
        for row, image in enumerate(rows["image"]):
            place = folder / "train" / "abc"[row % 3]
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{row}.png")
    elif kind == "parquet":
        folder.mkdir()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train-00000.parquet")
    else:
        datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features=features)).save_to_disk(folder)
    monkeypatch.chdir(tmp_path)
    loader = loader_of(Sources("", "hfds/mine", data_dir="cache", size=32, channels=1, batch_size=12))
    images, labels = next(iter(loader))
    assert images.shape == (12, 1, 32, 32)
    assert torch.equal((images.mean((1, 2, 3)) * 255 / 60).round().long(), labels)
    assert classes_of(loader) == 3


def test_columns_of_other_names_are_asked_for_and_given(tmp_path, monkeypatch, source, capsys):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    rows = {"img": [Image.new("L", (32, 32), 20 * row) for row in range(8)], "fine": [0, 1] * 4}
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["a", "b"])})
    (tmp_path / "mine").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "mine" / "train-00000.parquet")
    run = ["harden", *source, *QUICK, "--batch-size=4", "--out", "runs/a", "--data-dir", "cache"]
    run[run.index("--data") + 1] = "hfds/mine"
    assert main(run) == 1
    assert "'hfds/mine' has the columns img, fine, but images are read from 'image'" in capsys.readouterr().err
    named = ["--data-args", "{input_key: img, target_key: fine}", "--classes", "2"]  # timm 1.0.20 cannot tell how many
    assert main([*run, *named]) == 0
    command = json.loads((tmp_path / "runs/a/run.json").read_text())["command"]
    assert command["data_args"] == {"input_key": "img", "target_key": "fine"}


FILES = [
    (b"model: timm:test_resnet\nout: caf\xe9\n", 2, "is not UTF-8 text: save it as UTF-8"),
    (b"modle: timm:test_resnet\n", 2, "there is no option --modle (did you mean '--model'?)"),
    (b"model: [timm\n", 2, "--config 'a file.yaml' is not a YAML file of options"),
    (b"- a\n- b\n", 2, "'name: value' line by line, as --print_config shows: - a - b"),
    (b"", 2, "it is empty"),
    (b"epochs: two\n", 2, "--epochs is 'two', but it must be a whole number"),
]


@pytest.mark.parametrize("command", ["harden", "poc"])
@pytest.mark.parametrize(("content", "code", "says"), FILES, ids=[str(each) for each in range(len(FILES))])
def test_a_file_of_options_that_cannot_be_read_is_told_of(content, code, says, command, source, capsys, tmp_path):
    if command == "poc" and b"two" in content:
        says = "--epochs is 'two', but it must be a number"
    (tmp_path / "a file.yaml").write_bytes(content)
    assert main([command, *source, "--config", "a file.yaml"]) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert [each.name for each in tmp_path.iterdir()] == ["a file.yaml"]


BAD = [
    (["--out", "full"], "--out 'full' is not empty: pass --resume true to resume"),
    (["--out", "full/note.txt"], "--out 'full/note.txt' is a file, but a folder is needed"),
    (["--out", "full/note.txt/x"], "--out 'full/note.txt/x' cannot be created (Not a directory)"),
    (["--epochs", "0"], "epochs is 0, but a whole number from 1 to 100,000"),
    (["--seed", "9" * 30], "but a whole number of 64 bits is needed"),
    (["--batch-size", "0"], "batch_size is 0, but a whole number of at least 1"),
    (["--size", "-3"], "size is -3, but a whole number of at least 1"),
    (["--workers", "-1"], "workers is -1, but a whole number of at least 0"),
    (["--data", "full"], "there is no image in 'full': it holds note.txt; images have the endings .png, .jpg"),
    (["--device", "foo"], "--device 'foo' is no device"),
]


@pytest.mark.parametrize(("more", "says"), BAD, ids=[str(each) for each in range(len(BAD))])
def test_what_a_newcomer_gets_wrong_is_told_in_options_and_nothing_is_written(more, says, source, capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    assert main(["harden", *source, "--out", "new", *more]) == 1
    assert says in the_error(capsys)
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*")) == ["full", "full/note.txt"]


def test_another_split_is_labelled_by_name_and_one_with_more_classes_is_refused(source, data, capsys, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(data, mine)
    shutil.rmtree(mine / "validation" / "3")  # 4 is not read as 3
    source[source.index(str(data))] = str(mine)
    run = ["harden", *source, *QUICK, "--max-steps", "1", "--val_split", "validation"]
    assert main([*run, "--out", "new"]) == 0
    assert "has no image of 1 of 10 classes: 3" in capsys.readouterr().err
    shutil.copytree(mine / "validation" / "4", mine / "validation" / "ten")
    assert main([*run, "--out", "other"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the split 'validation' of" in last
    assert "has images of the classes ten, which are not among the model's classes: 0, 1, 2" in last
    assert not (tmp_path / "other").exists()


WHICH = [
    ("{clean: {a: 1}}", "the evaluation 'clean' takes no a: leave it out"),
    ("{clean: 5}", "--which {'clean': 5}, but names are needed"),
    ("{clean: {}, sweep: {}}", "but names are needed, or {name: {setting: value}} for each"),
]


@pytest.mark.parametrize(("which", "says"), WHICH, ids=[str(each) for each in range(len(WHICH))])
def test_evaluations_that_are_written_wrongly_are_told_of(which, says, source, capsys):
    assert main(["evaluate", *source, "--which", which]) == 1
    assert says in capsys.readouterr().err


def test_a_negative_seed_and_spaces_in_paths_work(source, data, tmp_path):
    (tmp_path / "my images").symlink_to(data)
    source[source.index(str(data))] = "my images"
    assert main(["harden", *source, *QUICK, "--max-steps", "1", "--seed", "-1", "--out", "my runs/a b"]) == 0
    assert (tmp_path / "my runs/a b/model.safetensors").exists()


def test_without_an_extra_the_line_says_what_to_install(source, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print_completion", "shtab-bash"]) == 2
    assert "pip install 'robusttune[cli]'" in capsys.readouterr().err
    assert main(["harden", *source]) == 2  # all else works without it
    assert "missing: --out" in capsys.readouterr().err


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_alone_prints_results(rank, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    assert main(["doctor"]) == 0
    assert ("no problem found" in capsys.readouterr().out) is (rank == "0")


def test_signs_that_the_terminal_lacks_are_written_as_escapes(monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit):
        main(["harden", "--model", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "--data", "x", "--print_config"])
    shown.flush()
    assert b"model: caf\\xe9" in shown.buffer.getvalue()


def test_closed_streams_do_not_end_a_command(source, monkeypatch, tmp_path):
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, None)
    shown = source[: source.index("--progress")]  # with progress, which is written to stderr
    assert main(["evaluate", *shown, "--which", "clean", "--subset", "8", "--untrained", "--out", "it"]) == 0
    assert (tmp_path / "it" / "records.jsonl").exists()


class Closed(io.TextIOWrapper):
    """An output that its reader has closed."""

    def write(self, _):
        raise BrokenPipeError(32, "Broken pipe")


def test_an_output_that_its_reader_has_closed_is_said_in_words(monkeypatch, capfd):
    with open(os.devnull, "wb") as nowhere:
        monkeypatch.setattr(sys, "stdout", Closed(nowhere))
        assert main(["harden", "--model", "m", "--data", "x", "--print_config"]) == 1
        monkeypatch.undo()
    assert (
        "error: a program at the other end has closed the output, as head does, or a connection: --out keeps"
        in capfd.readouterr().err
    )
