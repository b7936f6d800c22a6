"""Files at the root that repeat a fact agree on it."""

import re
from pathlib import Path

import pytest
import yaml

import robusttune

ROOT = Path(__file__).parents[2]


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project():
    """The table [project] of pyproject.toml."""
    return pytest.importorskip("tomllib").loads(text_of("pyproject.toml"))["project"]


@pytest.fixture(scope="module")
def jobs():
    """The jobs of the workflow."""
    return yaml.safe_load(text_of(".github/workflows/checks.yml"))["jobs"]


def test_every_python_that_is_promised_is_tested(project, jobs):
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert promised == matrix["python"]
    oldest = project["requires-python"].removeprefix(">=")
    assert oldest == promised[0] == matrix["include"][0]["python"]
    assert f"Python {oldest} or later" in text_of("README.md")


def test_the_oldest_versions_are_those_that_are_taken(project):
    bounds = [re.match(r"([\w-]+)>=([\d.]+)(;.*)?$", each) for each in project["dependencies"]]
    taken = {(each[1], each[2], each[3] or "") for each in bounds if each}
    pinned = re.findall(r"^([\w-]+)==([\d.]+?)(?:\.\*)?(;.*)?$", text_of("constraints-oldest.txt"), re.MULTILINE)
    assert set(pinned) == taken


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert (citation["title"], citation["version"]) == ("robusttune", robusttune.__version__)


def test_verbs_that_are_called_are_in_the_noxfile(jobs):
    verbs = set(re.findall(r"^@nox\.session\ndef (\w+)", text_of("noxfile.py"), re.MULTILINE))
    steps = "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    called = re.findall(r"\bnox -s ([\w ]+)", "\n".join([text_of(".ci/run"), steps, text_of("CONTRIBUTING.md")]))
    assert set(" ".join(called).split()) == verbs


def test_a_bug_report_asks_for_the_doctor():
    fields = yaml.safe_load(text_of(".github/ISSUE_TEMPLATE/bug.yml"))["body"]
    (asked,) = [field for field in fields if "robusttune doctor" in field["attributes"].get("label", "")]
    assert asked["validations"]["required"]
    assert "robusttune doctor" in text_of(".github/pull_request_template.md")
