"""The files of a gate, read back by programs that others wrote."""

import json
from xml.etree import ElementTree

import pytest

from robusttune import Records
from robusttune.measuring.checks import Checks
from robusttune.measuring.gate import checks_of
from robusttune.measuring.gate_files import as_junit, as_sarif, as_summary, check_paths, write_files
from robusttune.measuring.record import accuracy

PLACE = "runs/a b/records.jsonl"


@pytest.fixture
def checks():
    """One met, one not met, one that cannot tell."""
    return checks_of(Records([accuracy("clean", 90, 100)]), "clean>=0.9", "clean>=0.95", "clean.low>=0.9")


def test_the_summary_holds_the_numbers(checks):
    summary = json.loads(as_summary(checks, PLACE))
    assert (summary["verdict"], summary["exit code"], summary["records"]) == ("not met", 3, PLACE)
    assert [each["verdict"] for each in summary["checks"]] == ["met", "not met", "cannot tell"]
    first = summary["checks"][0]
    assert (first["requirement"], first["value"], first["limit"], first["images"]) == ("clean>=0.9", 0.9, 0.9, 100)
    assert first["interval"] == list(checks[0].interval)


def test_junitparser_reads_the_xml(checks, tmp_path):
    junitparser = pytest.importorskip("junitparser")
    (tmp_path / "gate.xml").write_text(as_junit(checks, PLACE), encoding="utf-8")
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "gate.xml"))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 1, 0)
    met, failed, open_one = suite
    assert [case.name for case in suite] == ["clean>=0.9", "clean>=0.95", "clean.low>=0.9"]
    assert met.is_passed
    assert isinstance(failed.result[0], junitparser.Failure)
    assert isinstance(open_one.result[0], junitparser.Error)  # not "skipped", which most viewers show green
    assert "90.00% (95% interval 82.56% to 94.48%, 100 images)" in failed.result[0].message


def test_the_xml_has_the_attributes_of_jenkins_schema_alone(checks):
    """As in junit-10.xsd of Jenkins' xUnit plugin, by which these files were validated."""
    allowed = {
        "testsuites": {"name", "time", "tests", "failures", "errors"},
        "testsuite": {
            "name",
            "tests",
            "failures",
            "errors",
            "skipped",
            "time",
            "timestamp",
            "hostname",
            "id",
            "package",
        },
        "testcase": {"name", "classname", "time", "assertions", "status", "group"},
        "failure": {"message", "type"},
        "error": {"message", "type"},
        "system-out": set(),
    }
    root = ElementTree.fromstring(as_junit(checks))
    assert {each.tag for each in root.iter()} == set(allowed)
    assert not [each for each in root.iter() if set(each.attrib) - allowed[each.tag]]


def test_xml_holds_what_people_write(checks):
    odd = Checks(
        [*checks, checks[0].__class__(**{**vars(checks[0]), "requirement": "<b>&\x00\"'", "says": "a\x1bb]]>"})]
    )
    cases = ElementTree.fromstring(as_junit(odd)).findall(".//testcase")
    assert cases[-1].get("name") == "<b>& \"'"


def test_sarif_is_that_of_its_schema(checks):
    sarif = pytest.importorskip("sarif_pydantic")
    log = sarif.Sarif.model_validate_json(as_sarif(checks, PLACE))
    (run,) = log.runs
    assert (log.version, run.tool.driver.name) == ("2.1.0", "robusttune")
    assert [(each.rule_id, each.level.value) for each in run.results] == [
        ("robusttune/clean>=0.95", "error"),
        ("robusttune/clean.low>=0.9", "warning"),
    ]
    raw = json.loads(as_sarif(checks, PLACE))["runs"][0]
    rules = raw["tool"]["driver"]["rules"]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in raw["results"])
    location = raw["results"][0]["locations"][0]["physicalLocation"]
    assert location["artifactLocation"]["uri"] == "runs/a%20b/records.jsonl"
    assert json.loads(as_sarif(checks, "/tmp/x y"))["runs"][0]["results"][0]["locations"][0]["physicalLocation"][
        "artifactLocation"
    ] == {"uri": "file:///tmp/x%20y"}
    assert json.loads(as_sarif(Checks(checks[:1])))["runs"][0]["results"] == []


def test_paths_are_looked_at_before(checks, tmp_path):
    paths = {"summary": tmp_path / "new" / "a.json", "junit": None, "sarif": str(tmp_path / "a.sarif")}
    (tmp_path / "a.sarif").write_text(as_sarif(checks, "of an earlier gate"))
    check_paths(paths)
    assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "a.sarif").exists()  # nobody takes it for the result of this one
    write_files(checks, PLACE, paths)
    assert (tmp_path / "new" / "a.json").read_text() == as_summary(checks, PLACE)
    assert (tmp_path / "a.sarif").read_text() == as_sarif(checks, PLACE)
    (tmp_path / "records.jsonl").write_text('{"facts": {}}')
    (tmp_path / "link").symlink_to(tmp_path / "a.sarif")
    for name in ("records.jsonl", "link"):  # what was measured is not replaced by a gate
        with pytest.raises(ValueError, match="is a file of something else than an earlier gate"):
            check_paths({"summary": tmp_path / name})
        assert (tmp_path / name).exists()
    with pytest.raises(ValueError, match="is a folder, but a file is needed"):
        check_paths({"junit": tmp_path})
    with pytest.raises(ValueError, match="summary=, sarif= name the same file"):
        check_paths({"summary": tmp_path / "x", "sarif": tmp_path / "new" / ".." / "x"})
    with pytest.raises(ValueError, match="cannot be written"):
        check_paths({"junit": tmp_path / "a.sarif" / "x.xml"})
