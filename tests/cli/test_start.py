"""The block before `evaluate`, `estimate` and `poc`, in the shell."""

import re

import pytest
from brightness import Net, write

from robusttune.cli import main
from robusttune.cli.labels import BY_TEXT
from robusttune.cli.options import Sources
from robusttune.cli.parser import parse
from robusttune.cli.sources import loader_of
from robusttune.cli.start import tell_start

# timm's data sets leave the files that they have read to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for row, name in enumerate(("train", "validation")):
        write(tmp_path / "data" / name, {"cat": row, "dog": 2}, classes=3)


def rows(text):
    """The lines of the block by their names."""
    block = text[text.index("data  ") :]
    return dict(re.findall(r"^(\w+(?: \w+)?)  +(\S.*)$", block, re.MULTILINE))


MODEL = [
    "--model",
    "brightness:Net",
    "--model_args",
    "{classes: 2}",
    "--data",
    "data",
    "--size",
    "8",
    "--channels",
    "1",
]


def test_evaluate_says_what_it_is_about_to_measure(data, capsys):
    more = ["--which", "clean", "{sweep: {steps: 1, norms: [l2]}}", "--norm", "l2", "--eps", "8/255", "--subset", "1"]
    assert main(["evaluate", *MODEL, *more, "--mean", "[0.5]", "--std", "[0.5]", "--device", "cpu", "--out", "a"]) == 0
    shown = rows(capsys.readouterr().err)
    assert shown.pop("device").startswith("cpu, ")
    assert shown == {
        "data": "data",
        "split": "validation",
        "classes": "2: cat, dog",
        "images": "1 of 2, 1x8x8",
        "model": "brightness:Net, 4 parameters",
        "pixels": "pixels, which are normalised before the model (mean=(0.5), std=(0.5))",
        "threat": "l2, eps 8/255",
        "evaluations": "clean, sweep (steps=1, norms=['l2'])",
        "folder": "a",
    }


WEIGHTS = [
    (Sources("timm:test_resnet", "data"), "random"),
    (Sources("timm:test_resnet", "data", pretrained=True), "published ones"),
    (Sources("mine:model", "data", checkpoint="runs/a", pretrained=True), "of runs/a"),
    (Sources("mine:model", "data"), None),
]


@pytest.mark.parametrize(("sources", "words"), WEIGHTS, ids=[str(each) for each in range(len(WEIGHTS))])
def test_the_source_of_the_weights_is_named(sources, words, data, capsys):
    loader = loader_of(sources, labels=BY_TEXT)
    arguments = {"progress": True, "out": None, "mean": None, "std": None, "device": "cpu"}
    tell_start(sources, Net(2), loader, arguments)
    shown = rows(capsys.readouterr().err)
    assert shown.get("weights") == words
    assert not {"threat", "evaluations", "folder"} & set(shown)


def test_poc_says_which_split_it_could_measure_on(data, capsys):
    assert main(["poc", *MODEL, "--device", "cpu", "--plan-only", "true"]) == 1  # two images are too few
    said = capsys.readouterr().err
    assert "'data': train 2 images in 2 class folders, validation 2 images in 2 class folders" in said
    assert "--test_split validation measures on that split instead" in said
    assert rows(said)["images"] == "2, 1x8x8"


def test_an_estimate_of_evaluations_says_what_it_is_of(data, capsys):
    code = main(["estimate", *MODEL, "--device", "cpu", "--split", "validation", "--which", "clean", "--subset", "1"])
    shown = rows(capsys.readouterr().err)
    assert (code, shown["evaluations"], shown["images"], shown["threat"]) == (
        0,
        "clean",
        "1 of 2, 1x8x8",
        "linf, eps 8/255",
    )


@pytest.mark.parametrize(
    ("which", "split"), [(["--which", "clean"], "validation"), (["--which", "clean", "--split", "train"], "train")]
)
def test_an_estimate_of_evaluations_counts_the_split_that_evaluate_would_measure(which, split, data, capsys):
    assert main(["estimate", *MODEL, "--device", "cpu", *which]) == 0
    assert rows(capsys.readouterr().err)["split"] == split


def test_an_estimate_of_hardening_counts_the_training_split():
    assert parse(["estimate", *MODEL]).sources.split == "train"
