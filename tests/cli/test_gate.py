"""Gates on the command line: exit codes, files, and what is refused before anything is measured."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from robusttune import Records
from robusttune.cli import main
from robusttune.measuring.record import accuracy

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MEASURE = ["--norm", "linf", "--eps", "4/255", "--which", "clean", "{sweep: {steps: 2, norms: [linf], eps: [4/255]}}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty digits as PNG files, in folders by class."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    for row in range(60):
        place = folder / "validation" / str(digits.target[row])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[row] * 15.9).astype(np.uint8)).resize((32, 32)).save(place / f"{row}.png")
    return folder


@pytest.fixture
def evaluate(data, monkeypatch, tmp_path):
    """A function that runs `robusttune evaluate` on an untrained model, and returns the exit code."""
    monkeypatch.chdir(tmp_path)
    source = ["--model", "timm:test_resnet", "--data", str(data), "--size", "32", "--channels", "1", "--untrained"]

    def run(*more, measure=tuple(MEASURE)):
        return main(["evaluate", *source, "--progress", "false", *measure, *more])

    return run


def test_exit_codes_and_files_of_evaluate(evaluate, capsys, tmp_path):
    files = ["--summary", "new/gate.json", "--junit", "gate.xml", "--sarif", "gate.sarif", "--out", "runs/e"]
    assert evaluate("--require", "clean>=0.001", "--require", "robust>=0.99", *files) == 3  # both, not the last alone
    shown = capsys.readouterr().out
    assert (
        "not met (1 of 2 requirements met): robust>=0.99: accuracy under the worst of 1 attacks (sweep) at linf eps 4/255"
        in shown
    )
    summary = json.loads((tmp_path / "new/gate.json").read_text())
    assert [each["verdict"] for each in summary["checks"]] == ["met", "not met"]
    assert summary["records"] == "runs/e/records.jsonl"
    value = Records.load("runs/e").where("sweep")[0].value
    assert summary["checks"][1]["value"] == value
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    (result,) = json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]
    assert result["level"] == "error"


def test_a_gate_that_is_met_or_that_cannot_tell(evaluate, capsys):
    just_clean = ("--which", "clean")
    assert evaluate("--require", "clean>=0.001", "--out", "runs/c", measure=just_clean) == 0
    assert "met (1 of 1 requirements met): clean>=0.001" in capsys.readouterr().out
    value = Records.load("runs/c")[0].value
    assert value > 0
    assert evaluate("--require", f"clean.low>={value}", measure=just_clean) == 4
    assert "the interval holds the limit, so that more images are needed to tell" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--require", "robust>=45"], "has a percentage, but shares from 0 to 1 are needed: write 0.45"),
        (["--require", "robust"], "in quotes in a shell"),
        (["--require", "{robust: 0.45}"], "cannot be read"),
        (["--require", "rubust>=0.4"], "did you mean 'robust'?"),
        (
            ["--require", "corruptions>=0.4"],
            "needs the evaluation corruptions, but --which names clean, sweep: add corruptions",
        ),
        (
            ["--require", "robust@l2:1>=0.4"],
            "is at l2 eps 1, but --which attacks at linf eps 4/255: add sweep or strong to --which",
        ),
        (["--junit", "gate.xml"], "--junit is for the result of --require, which is missing: add it"),
        (["--require", "clean>=0.4", "--junit", "."], "--junit '.' is a folder, but a file is needed"),
        (["--eps", "null", "--require", "robust>=0.4"], "pass --norm and --eps, or write the radius"),
    ],
)
def test_what_does_not_fit_exits_with_2_before_anything_is_measured(more, says, evaluate, capsys, tmp_path):
    assert evaluate(*more, "--out", "runs/e") == 2
    shown = capsys.readouterr()
    assert says in shown.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    assert shown.out == ""


def test_images_without_labels_have_no_accuracy(evaluate, data, capsys, tmp_path):
    (tmp_path / "alone").mkdir()
    for path in list(data.rglob("*.png"))[:8]:
        (tmp_path / "alone" / path.name).write_bytes(path.read_bytes())
    assert evaluate("--data", "alone", "--classes", "10", "--require", "clean>=0.4") == 2
    assert "--require is about accuracy, but the images of alone have no labels" in capsys.readouterr().err


def two(tmp_path, only_first, only_second, images=400):
    """Folders with the Records of two models, which differ on some images."""
    same = (images - only_first - only_second) * [True]
    for name, flips in (("before", (True, False)), ("after", (False, True))):
        right = [flips[0]] * only_first + [flips[1]] * only_second + same
        record = accuracy("clean", sum(right), images, right=right)
        hashes = [str(row) for row in range(images)]
        Records([record], hashes=hashes, labels=[0] * images).save(tmp_path / name / "records.jsonl")
    return [str(tmp_path / "before"), str(tmp_path / "after")]


@pytest.mark.parametrize(
    ("counts", "code", "says"),
    [
        ((0, 8), 0, "met (1 of 1 requirements met): clean:0.02: "),
        ((40, 2), 3, "a loss of more than 2 points is shown"),
        ((9, 8), 4, "cannot tell (0 of 1 requirements met): clean:0.02: "),
    ],
)
def test_exit_codes_of_compare(counts, code, says, tmp_path, capsys):
    pair, files = two(tmp_path, *counts), ["--junit", str(tmp_path / "gate.xml"), "--sarif", str(tmp_path / "a.sarif")]
    assert main(["compare", *pair]) == 0  # without a gate, a difference is no error
    assert main(["compare", *pair, "--fail-if-worse", "clean:0.02", *files]) == code
    assert says in capsys.readouterr().out
    suite = ElementTree.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("failures"), suite.get("errors")) == (str(int(code == 3)), str(int(code == 4)))
    results = json.loads((tmp_path / "a.sarif").read_text())["runs"][0]["results"]
    places = [each["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for each in results]
    assert places == ([] if code == 0 else [(tmp_path / "after" / "records.jsonl").as_uri()])


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--fail_if_worse", "clean:2"], 2, "write 0.02"),
        (["--fail_if_worse", "clean"], 2, "write METRIC:SHARE"),
        (["--sarif", "x"], 2, "--sarif is for the result of --fail_if_worse, which is missing"),
        (["--fail_if_worse", "robust:0.01"], 1, "radius of the training, which is not known here"),
    ],
)
def test_margins_that_do_not_fit(more, code, says, tmp_path, capsys):
    assert main(["compare", *two(tmp_path, 0, 0), *more]) == code
    assert says in capsys.readouterr().err
