"""The example workflow of a gate: its commands are those of this version, and its steps go on where they should."""

import shlex
from pathlib import Path

import pytest
import yaml

from robusttune.cli import parser
from robusttune.measuring.requirements import margins_of, requirements_of

WORKFLOW = Path(__file__).parents[2] / "examples" / "robustness-gate.yml"


@pytest.fixture(scope="module")
def steps():
    """The steps of its one job."""
    (job,) = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"].values()
    return job["steps"]


def test_commands_can_be_parsed(steps, monkeypatch):
    monkeypatch.setattr(parser, "_options_of_run", lambda folder, asked: {"model": "of the run"})  # it is not here
    words = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("robusttune ")]
    evaluate, compare = (
        parser.parse([word.replace("--fail-if-worse", "--fail_if_worse") for word in each[1:]]) for each in words
    )
    assert [each.metric for each in requirements_of(evaluate.extra["require"])] == ["robust", "clean"]
    assert [each.metric for each in margins_of(compare.extra["fail_if_worse"])] == ["robust", "clean"]
    assert compare.extra["second"] == evaluate.arguments["out"]
    assert set(evaluate.extra["which"]) == {"clean", "strong"}


def test_results_are_kept_where_a_requirement_is_not_met(steps):
    kept = [step for step in steps if "upload" in step.get("uses", "")]
    assert len(kept) == 2
    assert all(step["if"] == "always()" for step in kept)
    (compare,) = [step for step in steps if "compare" in step.get("run", "")]
    assert compare["if"] == "success() || failure()"
