"""How much time the default needs for what PGD-10 gives, from the records of the search: python -m examples.study.times

Time is in multiples of the seconds of the search. Means are over the seeds 0 to 2, which each arm of the search had.
"""

from statistics import mean

from examples.study.cases import SEARCHED
from examples.study.plots import AS_SHIPPED, LINES
from examples.study.records import ATTACKED, Facts
from examples.study.search import ARMS, FINALISTS, SHIPPED, STUDY, TIMES

SEEDS = (0, 1, 2)
TITLES = {
    "1 eps": "At the radius",
    "1.5 eps": "At 1.5 times the radius",
    "autoattack": f"AutoAttack at the radius, {ATTACKED} images",
}


def tables() -> str:
    """A table for each judge: in percent, in brackets the number of seeds where it is not three."""
    return "\n\n".join(f"**{title}**\n\n{_table(column)}" for column, title in TITLES.items())


def _table(column: str) -> str:
    runs = [run for run in STUDY.runs() if run["seed"] in SEEDS and column in run]
    lines = ["| | time | " + " | ".join(setting.title for setting in SEARCHED.values()) + " |"]
    lines.append("|" + "---|" * (len(SEARCHED) + 2))
    for name, times in [*((name, times) for name in LINES for times in sorted({1, *TIMES})), (AS_SHIPPED, 8)]:
        cells = [_cell(runs, column, setting, _arm(name, setting, times)) for setting in SEARCHED]
        if any(cells):
            lines.append(f"| {name} | {times:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _arm(name: str, setting: str, times: float) -> str:
    """The arm of the search with this name and length in a setting."""
    if name == AS_SHIPPED:
        return SHIPPED
    arm = FINALISTS[setting][name]
    return next(each for each in (arm, f"{arm}, x{times:g} time") if ARMS[each].times == times)


def _cell(runs: list[Facts], column: str, setting: str, arm: str) -> str:
    shares = [float(str(run[column])) for run in runs if (run["setting"], run["arm"]) == (setting, arm)]
    fewer = f" ({len(shares)})" if len(shares) < len(SEEDS) else ""
    return f"{100 * mean(shares):.1f}{fewer}" if shares else ""


if __name__ == "__main__":
    print(tables())
