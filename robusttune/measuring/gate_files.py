"""Files of a gate's checks for other programs: a JSON summary, JUnit XML, and SARIF 2.1.0."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from robusttune.measuring.checks import Check, Checks, Verdict
from robusttune.run.provenance import digest
from robusttune.run.writing import write_text
from robusttune.types import Json, PathLike, finite

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
HOME = "https://github.com/robusttune/robusttune"
# Not met is an error. Cannot tell is a warning in SARIF, where a viewer may hide other levels.
LEVELS = {Verdict.NOT_MET: "error", Verdict.CANNOT_TELL: "warning"}


def as_summary(checks: Checks, place: str = "") -> str:
    """Return the checks as JSON: the verdict, the exit code, and each check with its numbers.

    Args:
        checks: the checks of a gate.
        place: the place of the Records that they are about, such as "runs/a/evaluation/records.jsonl"; "" for none.
    """
    summary = {**checks.to_dict(), "records": place, "robusttune": version("robusttune")}
    return json.dumps(finite(summary), indent=1, allow_nan=False) + "\n"


def as_junit(checks: Checks, place: str = "") -> str:
    """Return the checks as JUnit XML, a test case each: not met is a failure, cannot tell is an error.

    Args:
        checks, place: see `as_summary`.
    """
    counts = {
        "tests": len(checks),
        "failures": sum(check.verdict is Verdict.NOT_MET for check in checks),
        "errors": sum(check.verdict is Verdict.CANNOT_TELL for check in checks),
    }
    shown = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", shown)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "robusttune gate", **shown, "skipped": "0"})
    for check in checks:
        names = {"classname": "robusttune.gate", "name": _printable(check.requirement), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if check.verdict is not Verdict.MET:
            kind = "failure" if check.verdict is Verdict.NOT_MET else "error"
            says = _printable(check.says)
            ElementTree.SubElement(case, kind, {"message": says, "type": check.verdict.value}).text = says
        ElementTree.SubElement(case, "system-out").text = _printable(f"{check.says}{f' ({place})' if place else ''}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def as_sarif(checks: Checks, place: str = "") -> str:
    """Return the checks that are not met as SARIF 2.1.0; those that are met are no results, as viewers show results as alerts.

    Args:
        checks, place: see `as_summary`; the place is the location of each result.
    """
    rules: list[Json] = [
        {
            "id": f"robusttune/{_printable(check.requirement)}",
            "shortDescription": {"text": _printable(check.requirement)},
            "fullDescription": {"text": f"The requirement {_printable(check.requirement)} on {_printable(check.what)}"},
            "helpUri": f"{HOME}/tree/main/docs/pipeline.md",
        }
        for check in checks
    ]
    results = [_result(check, row, place) for row, check in enumerate(checks) if check.verdict is not Verdict.MET]
    driver: Json = {"name": "robusttune", "version": version("robusttune"), "informationUri": HOME, "rules": rules}
    properties: Json = {"verdict": checks.verdict.value, "checks": checks.to_dict()["checks"]}
    compared = any(check.limit < 0 for check in checks)
    category: Json = {
        "id": f"robusttune/{'compare' if compared else 'evaluate'}/"
    }  # two runs of one tool are told apart by it
    run: Json = {
        "tool": {"driver": driver},
        "automationDetails": category,
        "results": results,
        "properties": properties,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _result(check: Check, row: int, place: str) -> Json:
    location: Json = {"physicalLocation": {"artifactLocation": {"uri": _uri(place)}, "region": {"startLine": 1}}}
    return {
        "ruleId": f"robusttune/{_printable(check.requirement)}",
        "ruleIndex": row,
        "level": LEVELS[check.verdict],
        "message": {"text": f"{check.verdict.value}: {_printable(check.says)}"},
        "locations": [location],
        "partialFingerprints": {"requirement/v1": digest([check.requirement.encode(errors="backslashreplace")])},
    }


def _uri(place: str) -> str:
    """Return a path as a URI, relative to where the command runs; a location is needed where Records are in no file."""
    path = Path(place or "records.jsonl")
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())


def _printable(text: str) -> str:
    """Return a text without characters that XML cannot hold."""
    return "".join(each if each.isprintable() else " " for each in text)


WRITERS: dict[str, Callable[[Checks, str], str]] = {"summary": as_summary, "junit": as_junit, "sarif": as_sarif}


def check_paths(paths: dict[str, PathLike | None]) -> None:
    """Create the folders of the files before anything is measured, and remove files of an earlier gate, which would be stale.

    Other files are not touched, but refused: a gate must not replace what was measured.

    Args:
        paths: by "summary", "junit" or "sarif" where to write; None for nowhere.

    Raises:
        ValueError: a file cannot be written, or two are the same.
    """
    chosen = {name: Path(path) for name, path in paths.items() if path is not None}
    if len(set(map(Path.resolve, chosen.values()))) < len(chosen):
        raise ValueError(f"{'=, '.join(chosen)}= name the same file: name one for each")
    for name, path in chosen.items():
        if path.is_dir():
            raise ValueError(f"{name}={str(path)!r} is a folder, but a file is needed, such as {str(path / name)!r}")
        if path.exists() and not _is_of_a_gate(path):
            raise ValueError(
                f"{name}={str(path)!r} is a file of something else than an earlier gate: name another one, or remove it"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            write_text(path, "")
            path.unlink()
        except OSError as error:
            raise ValueError(
                f"{name}={str(path)!r} cannot be written ({error.strerror}): name a file in a folder that can be written to"
            ) from error


def _is_of_a_gate(path: Path) -> bool:
    """Return True for a regular file that a gate wrote, or an empty one."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        start = file.read(2000)
    signs = ('"verdict"', "robusttune gate", SCHEMA)
    return not start.strip() or any(sign in start for sign in signs)


def write_files(checks: Checks, place: str, paths: dict[str, PathLike | None]) -> None:
    """Write a gate's checks to files.

    Args:
        checks, place: see `as_summary`.
        paths: see `check_paths`.

    Raises:
        OSError: a file cannot be written.
    """
    for name, path in paths.items():
        if path is not None:
            write_text(Path(path), WRITERS[name](checks, place))
