"""Checks of a gate: for each requirement whether it is met, what was measured, and the exit code of a pipeline."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum

from robusttune.run.markdown import as_text, markdown_table
from robusttune.types import Json

HEAD = ("requirement", "verdict", "measured", "95% bounds", "images")


class Verdict(str, Enum):
    """The possible verdicts of a check."""

    MET = "met"
    NOT_MET = "not met"
    CANNOT_TELL = "cannot tell"


# Exit codes of the command line; 0, 1, 2 and 130 are those of all commands.
CODES = {Verdict.MET: 0, Verdict.NOT_MET: 3, Verdict.CANNOT_TELL: 4}


@dataclass(frozen=True)
class Check:
    """A requirement, and what the measurement says about it.

    Attributes:
        requirement: as the user wrote it.
        verdict: met, not met, or cannot tell.
        what: what was measured, with its adversary.
        value: a share from 0 to 1; a difference of two shares where two models are compared.
        interval: the interval of the value, at 95%; for a difference, the bounds of two one-sided tests, each at 95%.
        limit: the number that the value, or a bound of the interval, is compared with.
        images: the number of images it was measured on.
        says: the check in one sentence, with its numbers.
    """

    requirement: str
    verdict: Verdict
    what: str
    value: float
    interval: tuple[float, float]
    limit: float
    images: int
    says: str


class RequirementError(Exception):
    """A requirement is not met, or the measurement cannot tell; the message has the numbers.

    Attributes:
        checks: all checks, those that are met, too.
    """

    def __init__(self, checks: "Checks") -> None:
        super().__init__(checks.summary())
        self.checks = checks


class Checks(list[Check]):
    """A list of Check that can be shown, and that a pipeline can act on."""

    @property
    def verdict(self) -> Verdict:
        """The verdict over all: not met if one is not met, else cannot tell if one cannot tell."""
        verdicts = {check.verdict for check in self}
        return next((each for each in (Verdict.NOT_MET, Verdict.CANNOT_TELL) if each in verdicts), Verdict.MET)

    @property
    def code(self) -> int:
        """The exit code: 0 if all requirements are met, 3 if one is not met, 4 if the measurement cannot tell."""
        return CODES[self.verdict]

    def enforce(self) -> "Checks":
        """Return the checks if all requirements are met.

        Raises:
            RequirementError: one is not met, or the measurement cannot tell.
        """
        if self.verdict is not Verdict.MET:
            raise RequirementError(self)
        return self

    def summary(self) -> str:
        """Return the verdict and a sentence for each requirement that is not met; for all of them if all are met."""
        shown = [check.says for check in self if check.verdict is not Verdict.MET] or [check.says for check in self]
        met = sum(check.verdict is Verdict.MET for check in self)
        return f"{self.verdict.value} ({met} of {len(self)} requirements met): {'; '.join(shown)}"

    def table(self) -> str:
        """Return a Markdown table with one row a Check."""
        return markdown_table(HEAD, map(_row, self))

    def to_dict(self) -> dict[str, Json]:
        """Return the verdict, the exit code and the checks, as values that JSON can hold."""
        checks: Sequence[Json] = [
            {**asdict(check), "verdict": check.verdict.value, "interval": list(check.interval)} for check in self
        ]
        return {"verdict": self.verdict.value, "exit code": self.code, "checks": checks}

    def __str__(self) -> str:
        return self.table()

    def _repr_markdown_(self) -> str:
        return self.table()


def _row(check: Check) -> list[object]:
    low, high = check.interval
    if check.limit < 0:  # that of a difference
        value, interval = (
            f"{100 * check.value:+.2f} points",
            f"{100 * low:+.2f} to {100 * high:+.2f} points, each one-sided",
        )
    else:
        value, interval = f"{100 * check.value:.2f}%", f"{100 * low:.2f} to {100 * high:.2f}%"
    return [
        as_text(check.requirement),
        check.verdict.value,
        f"{value}, {as_text(check.what)}",
        interval,
        f"{check.images:,}",
    ]
