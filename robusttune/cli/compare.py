"""The command `robusttune compare`: a test whether two models differ, and a gate for the second one."""

from pathlib import Path

from robusttune.cli.gate import Gate
from robusttune.cli.options import Listed
from robusttune.measuring.compare import compare
from robusttune.measuring.non_inferiority import not_worse
from robusttune.measuring.records import Records
from robusttune.measuring.records_files import file_at
from robusttune.measuring.requirements import margins_of


def run_compare(
    first: str,
    second: str,
    *,
    fail_if_worse: Listed = None,
    summary: str | None = None,
    junit: str | None = None,
    sarif: str | None = None,
) -> int:
    """Test whether two models differ on the images that both have seen; with --fail_if_worse, refuse a worse one.

    The exit code is 0 if a loss of more than the margin is excluded (a one-sided test at 5% on the same images), 3 if it is
    shown, and 4 where the images are too few to tell.

    Examples:
      robusttune compare runs/before runs/a/evaluation
      robusttune compare runs/before runs/a/evaluation --fail_if_worse robust:0.01 clean:0.02 --junit gate.xml

    Args:
        first: a folder that evaluate wrote to, its records.jsonl, or the folder of a run with one such folder inside.
        second: another one, of the same images.
        fail_if_worse: how much accuracy the second may lose, such as robust:0.01 (one point, under the attacks at the training
            radius), robust@linf:8/255:0.01, clean:0.02; several may be named.
        summary: a file for the checks as JSON.
        junit: a file for the checks as JUnit XML.
        sarif: a file for the checks that are not met as SARIF 2.1.0.
    """
    gate = Gate(fail_if_worse, {"summary": summary, "junit": junit, "sarif": sarif}, margins_of)
    before, after = (_path(argument) for argument in (first, second))
    records = Records.load(before), Records.load(after)
    print(compare(*records))
    return 0 if gate.texts is None else gate.conclude(not_worse(*records, *gate.texts), str(file_at(Path(after))))


def _path(argument: str) -> str:
    """Read NAME=PATH, as for report: the path."""
    _, equals, path = argument.partition("=")
    return path if equals and not Path(argument).exists() else argument
