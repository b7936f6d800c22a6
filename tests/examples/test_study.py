"""The studies: pages show the tables that the records make, and a run is trained once and judged as often as is asked."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
RUN = {"setting": "cnn-linf", "arm": "none", "seed": 0}


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"examples.study.{name}")


def test_pages_show_the_tables_that_the_records_make(module):
    pages = module("pages")
    assert pages.pages()
    for page in pages.pages():
        text = page.read_text(encoding="utf-8")
        assert pages.filled(text) == text, f"run {sys.executable} -m examples.study.pages"


@pytest.fixture
def study(module, monkeypatch, tmp_path):
    """A study of models that are not trained, on 16 images."""
    cases, records = module("cases"), module("records")
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    monkeypatch.setattr(cases, "TEST", 16)
    cases.test_loader.cache_clear()
    trained = []

    def train(run):
        trained.append(run)
        torch.manual_seed(run["seed"])
        return cases.SETTINGS[run["setting"]].new(), {"seconds": 1.0}

    study = records.Study("untrained", train)
    study.file, study.weights, study.trained = tmp_path / "untrained.jsonl", tmp_path / "weights", trained
    yield study
    cases.test_loader.cache_clear()


def test_a_run_is_trained_once_and_judged_as_often_as_is_asked(study):
    study.judge(RUN, ["sweep"])
    study.judge(RUN, ["sweep"])
    assert study.trained == [RUN]
    assert len(study.lines()) == 2
    (run,) = study.runs()
    assert run["seconds"] == 1.0
    assert {run[name] for name in ("clean", "0.5 eps", "1 eps", "1.5 eps")} <= {n / 16 for n in range(17)}


def test_weights_that_are_gone_are_trained_again_for_a_new_judge(study):
    study.judge(RUN, ["sweep"])
    for file in study.weights.iterdir():
        file.unlink()
    study.judge(RUN, ["strong"])
    assert study.trained == [RUN, RUN]
    assert [sorted(set(line) - {"run"}) for line in study.lines()][2] == ["strong"]


def test_the_table_has_means_and_spreads_over_seeds(module):
    table = module("records").table
    runs = [{"arm": "a", "clean": 0.5, "seconds": 10.0}, {"arm": "a", "clean": 0.6, "seconds": 12.0}]
    assert table(runs, ["arm"]).splitlines()[2] == "| a | 2 | 55.0 ± 7.1 | 11 |"


def test_an_arm_gets_the_steps_that_fit_into_the_seconds_of_the_reference(module, study):
    costs = module("costs")
    with pytest.raises(
        SystemExit, match="how long a step of 'slow' takes is not known: measure it for cnn-linf first, with --cost"
    ):
        costs.steps(study, "cnn-linf", "slow", 100)
    study.add({"setting": "cnn-linf", "arm": "slow", "seed": costs.COST}, cost=2.0)
    assert costs.steps(study, "cnn-linf", "slow", 100) == 50
    assert costs.steps(study, "cnn-linf", "plain", 100) == 100
