"""The table and the picture of the documentation's first page, from the records of the search and of the models that it starts from.

python -m examples.study.start              # judges the models before hardening; adds to the records
python -m examples.study.start --judges sweep autoattack --settings cnn-linf --seeds 0 1    # with AutoAttack, which takes minutes
python -m examples.study.start --seconds    # of one run of each row, where nothing else runs
python -m examples.study.start --tables     # from the records alone; `python -m examples.study.pages` puts them into the pages
"""

import hashlib
from statistics import mean, stdev

from torch import nn

from examples.study import program, search
from examples.study.cases import SETTINGS, case
from examples.study.records import FACTORS, ROOT, Facts, Study, cell, one_thread, timed
from robusttune.measuring.sections._figure import new_figure
from robusttune.run.settings import shown_radius

SHOWN = ("cnn-linf", "cnn-l2")
SEEDS = range(5)
COLUMNS = ("clean", *(f"{factor:g} eps" for factor in FACTORS), "autoattack")
HEADS = {
    "clean": "unchanged",
    "autoattack": "AutoAttack",
    "0.5 eps": "half of eps",
    "1 eps": "eps",
    "1.5 eps": "1.5 eps",
}
FILE = ROOT / "docs" / "start.svg"
ROWS = {"before": "C3", "PGD-10 at its best": "C1", "`harden`": "C0"}


def started(run: Facts) -> tuple[nn.Module, Facts]:
    """The model that the search starts from, trained ordinarily on all images."""
    images = case(str(run["setting"]), None, int(str(run["seed"])))
    return timed(lambda: images.start(images.images))


STUDY = Study("start", started)
SECONDS = Study("seconds", search.train)


def arm_of(setting: str, row: str) -> str:
    """The arm of the search that a row shows."""
    return search.FINALISTS[setting].get("the default" if row == "`harden`" else row, "")


def time_each() -> None:
    """Add the seconds of one run of each row to the records; those of the search were measured on days of other loads."""
    for setting in SHOWN:
        for row in ROWS:
            if row != "before":
                run = {"setting": setting, "arm": arm_of(setting, row), "seed": 0}
                SECONDS.add(run, **search.train(run)[1])


def runs(setting: str, row: str) -> list[Facts]:
    """The runs of a row, five seeds, with all columns."""
    if row == "before":
        known = STUDY.runs()
    else:
        known = [run for run in search.STUDY.runs() if run["arm"] == arm_of(setting, row)]
    return [run for run in known if run["setting"] == setting and run["seed"] in SEEDS and "1 eps" in run]


def tables() -> str:
    """The table: a row for each model, both norms."""
    head = ["adversary", "model", *(HEADS[column] for column in COLUMNS), "seconds"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for setting in SHOWN:
        known = SETTINGS[setting]
        for row in ROWS:
            mine = runs(setting, row)
            known_to_all = [column for column in COLUMNS if all(column in run for run in mine)]
            shown = {column: cell([float(str(run[column])) for run in mine], len(mine)) for column in known_to_all}
            cells = [shown.get(column, "") for column in COLUMNS]
            alone = SECONDS.known({"setting": setting, "arm": arm_of(setting, row), "seed": 0})
            seconds = f"{float(str(alone['seconds'])):.0f}" if alone else ""
            lines.append(f"| {known.norm} {shown_radius(known.eps)} | {row} | {' | '.join(cells)} | {seconds} |")
    return "\n".join(lines)


def draw() -> None:
    """Write the picture: accuracy against the radius, before hardening and after.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(8, 3.2)
    import matplotlib as mpl

    for axis, setting in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        known = SETTINGS[setting]
        for row, colour in ROWS.items():
            shares = [[100 * float(str(run[column])) for run in runs(setting, row)] for column in COLUMNS[:-1]]
            places = [factor * known.eps for factor in (0.0, *FACTORS)]
            look = {"color": colour, "marker": "o", "markersize": 4, "capsize": 2, "label": row.strip("`")}
            axis.errorbar(places, [mean(each) for each in shares], [stdev(each) for each in shares], **look)
        axis.axvline(known.eps, color="0.7", linewidth=0.8, linestyle=":")
        axis.set(ylim=(0, 100), xlabel=f"eps of the attack, {known.norm} (dotted: the training radius)", xticks=places)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with mpl.rc_context({"svg.hashsalt": "start"}):
        figure.savefig(FILE, format="svg", metadata={"Date": None, "Description": f"table {fingerprint()}"})


def fingerprint() -> str:
    """A hash of the numbers that the picture shows, which stands in its file."""
    return hashlib.blake2b(tables().encode(), digest_size=8).hexdigest()


if __name__ == "__main__":
    options = program.parser(__doc__.splitlines()[0], ["before"], SHOWN)
    options.add_argument("--seconds", action="store_true", help="measure the seconds of a run of each row")
    options.set_defaults(seeds=list(SEEDS), judges=["sweep"])
    asked = options.parse_args()
    if asked.tables:
        print(tables())
        raise SystemExit
    one_thread()
    if asked.seconds:
        time_each()
    else:
        for setting in asked.settings:
            for seed in asked.seeds:
                STUDY.judge({"setting": setting, "seed": seed}, asked.judges, again=asked.again)
