"""The command line, as a user would type it: real image folders, a second process, exit codes, one-line errors."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits

import robusttune
from robusttune import Records, lookup
from robusttune.cli import COMMANDS, main
from robusttune.doctor import doctor
from robusttune.options import described
from robusttune.sources import loader_of, model_of, statistics_of

pytest.importorskip("jsonargparse")
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
    sweep = "{sweep: {steps: 2, norms: [linf]}}"
    measure = ["--norm", "linf", "--eps", "0.1", "--which", "clean", sweep]
    assert main(["evaluate", *source, "--checkpoint", "runs/a", *measure, "--out", "runs/a/evaluation"]) == 0
    assert main(["evaluate", *source, *measure, "--out", "runs/b"]) == 0
    shown = capsys.readouterr().out
    assert "| clean | accuracy |" in shown
    records = Records.load(tmp_path / "runs/a/evaluation/records.jsonl")
    assert records[0].images == 100
    assert {record.setting.get("steps") for record in records.where("sweep")} == {2}
    assert main(["report", "before=runs/b", "runs/a/evaluation", "--out", "page"]) == 0
    assert "| accuracy | before | evaluation |" in (tmp_path / "page/report.md").read_text()
    assert main(["compare", "runs/b", "runs/a/evaluation/records.jsonl"]) == 0
    assert "| what | first | second |" in capsys.readouterr().out


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


WRONG = [
    (["harden", "--out", "x", "--norm", "l3"], "unknown norm 'l3': known are l2, linf"),
    (["harden"], "--out is missing: the hardened model would be lost"),
    (["harden", "--out", "x", "--attack", "pdg"], r"unknown attack 'pdg' (did you mean 'pgd'?)"),
    (["evaluate", "--which", "cleen"], "unknown evaluation 'cleen' (did you mean 'clean'?)"),
    (["evaluate", "--checkpoint", "nowhere"], "'nowhere' is not there"),
    (["evaluate", "--model", "timm:resnt18"], "timm has no model 'resnt18': did you mean resnet18"),
    (["evaluate", "--model", "torchvision:nothing"], "torchvision:nothing cannot be made"),
    (["evaluate", "--model", "resnet18"], "the model is 'resnet18', but 'timm:NAME'"),
    (["evaluate", "--model", "no.such:thing"], "there is no module 'no.such' here"),
    (["evaluate", "--model", "json:nothing"], "the module 'json' has no 'nothing'"),
    (["evaluate", "--model", "builtins:dict"], "builtins:dict made a dict, but a torch.nn.Module is needed"),
    (["evaluate", "--data", "nowhere"], "'nowhere' is not there: pass a folder of images"),
    (["evaluate", "--channels", "2"], "channels is 2, but it must be 1 or 3"),
    (["report", "nowhere"], "'nowhere' is not there: pass what evaluate wrote to its --out"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), WRONG, ids=[f"{each[0][0]}-{number}" for number, each in enumerate(WRONG)]
)
def test_an_error_is_one_line_and_leaves_nothing(arguments, says, source, capsys, tmp_path):
    command, *rest = arguments
    own = [] if command == "report" else source
    assert main([command, *own, *rest]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("robusttune: error: ")
    assert shown.err.count("\n") == 1
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert not list(tmp_path.glob("x/*.safetensors"))


def test_exit_codes_and_tracebacks_of_a_second_process(source, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-c", "import sys; from robusttune.cli import main; sys.exit(main())", *arguments]
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
        if command in ("harden", "evaluate"):
            assert "Examples: robusttune" in shown
            assert f"(known: {', '.join(lookup.names('norms'))})" in shown
            assert "pixel units on [0,1]" in shown


@pytest.mark.parametrize("name", ["harden", "evaluate", "pretrain"])
def test_every_option_is_explained(name):
    import inspect

    function = getattr(robusttune, name)
    said = described(function)
    assert set(inspect.signature(function).parameters) <= set(said)
    assert not [key for key, text in said.items() if text.startswith(("see `", "as for `"))]


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


def test_models_and_data_by_name(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import torch\n\ndef small(width=8):\n    return torch.nn.Linear(width, 2)\n")
    assert model_of("mine:small", classes=None, settings={"width": 5}).in_features == 5
    assert model_of("torchvision:resnet18", classes=7).fc.out_features == 7
    model = model_of("timm:test_vit", classes=3, settings={"img_size": 64})
    assert model.num_classes == 3
    assert statistics_of("timm:test_vit", model, channels=3, pretrained=False)[0] == (0.5, 0.5, 0.5)
    assert statistics_of("timm:test_vit", model, channels=1, pretrained=False) == (None, None)
    assert statistics_of("torchvision:resnet18", model, channels=3, pretrained=True)[0][0] == pytest.approx(0.485)
    saved = tmp_path / "weights.pth"
    torch.save({"state_dict": model.state_dict()}, saved)
    again = model_of("timm:test_vit", classes=3, weights=str(saved), settings={"img_size": 64})
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    images, labels = next(iter(loader_of(str(data), split="train", side=24, batch=10)))
    assert images.shape == (10, 3, 24, 24)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert labels.tolist() == [0] * 10
    assert timm.is_model("test_resnet")
