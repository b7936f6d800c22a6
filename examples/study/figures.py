"""The figures that `robusttune advise` shows: the records of all studies, condensed into one small file of the package.

    python -m examples.study.figures            # writes robusttune/training/advice/figures.json
    python -m examples.study.figures --check    # says whether the file is what the records give today

Means over seeds, as shares from 0 to 1. Nothing in the file is typed by hand, but what docs/studies/literature.json holds.
"""

import argparse
import datetime
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import robusttune
from examples.ordinary import new_model
from examples.study import costs, questions, search, self_training, situations
from examples.study.cases import BATCH, DATA, FIRST_STEPS, PRETRAINING, SETTINGS, STEPS, Setting
from examples.study.records import ROOT, Facts
from robusttune.model.input_shapes import patch_size_of

FILE = ROOT / "robusttune" / "training" / "advice" / "figures.json"
STUDIES = ROOT / "docs" / "studies"
ABOUT = (
    "Figures that robusttune advise shows. Made by `python -m examples.study.figures` from docs/studies: do not edit. Accuracies are "
    "means over seeds, as shares; seconds are of one thread of a two-core x86-64 processor."
)
THOROUGH = "pgd-10 32, gradients clipped at 1, at 1.25 eps late"
SHARES = ("clean", "0.5 eps", "1 eps", "1.5 eps", "strong", "autoattack")
# Where a study is explained, and the command that makes its tables from its records.
PAGES = {
    "search": ("docs/results.md#what-a-short-run-should-do", "python -m examples.study.search --tables"),
    "situations": ("docs/results.md#where-the-default-holds", "python -m examples.study.situations --tables"),
    "labels": ("docs/few-labels.md#figures", "python -m examples.study.self_training --tables"),
    "tasks": ("docs/comparison.md", "python -m examples.study.questions --tables"),
    "corruptions": (
        "docs/corruptions.md#which-training-helps",
        "python examples/corruption_study.py",
    ),
}
# The arms of the study of corruptions that have no adversary, as `augment=` spells them.
AUGMENTATIONS = {"AugMix": "augmix", "PRIME": "prime", "noise": "noise"}


def setting_facts(setting: Setting) -> Facts:
    """What a setting is, in the words of the file."""
    return {
        "model": setting.model,
        "patches": cuts_patches(setting.model, setting.side),
        "norm": setting.norm,
        "eps": setting.eps,
        "data": setting.data,
        "images": setting.train,
        "side": setting.side,
        "channels": DATA[setting.data].channels,
    }


@cache
def cuts_patches(model: str, side: int) -> bool:
    """Whether a net of timm cuts its images into patches."""
    return patch_size_of(new_model(model, 3, 2, side)) is not None


def averaged(runs: Sequence[Facts], names: Iterable[str] = SHARES) -> Facts:
    """The mean of each share over the runs that have it, how many runs there are, and how far they scatter."""
    known = {name: [float(run[name]) for run in runs if name in run] for name in names}
    spread = {name: round(stdev(values), 4) for name, values in known.items() if len(values) > 1}
    return {
        "seeds": len(runs),
        **{name: round(mean(values), 4) for name, values in known.items() if values},
        "spread": spread,
        **{name: round(mean(float(run[name]) for run in runs), 2) for name in ("seconds", "epochs") if name in runs[0]},
        **({"steps": round(mean(int(run["steps"]) for run in runs))} if "steps" in runs[0] else {}),
    }


def arm_of(model: str) -> str:
    """The arm of the search that is what `harden` does by default, for a model."""
    return search.BY_MODEL.get(model, search.BY_MODEL["test_resnet"])["the default"]


def searched(runs: Sequence[Facts]) -> dict[str, list[Facts]]:
    """The default, the thorough preset, and the default at other lengths, in each setting where they were measured."""
    found: dict[str, list[Facts]] = {"default": [], "thorough": [], "lengths": []}
    for name, setting in SETTINGS.items():
        default = arm_of(setting.model)
        lengths = {f"{default}, x{times:g} time": ("lengths", times) for times in search.TIMES}
        arms = {default: ("default", 1.0), THOROUGH: ("thorough", 1.0), **lengths}
        for arm, (group, times) in arms.items():
            mine = [run for run in runs if (run["setting"], run["arm"]) == (name, arm) and run["seed"] != costs.COST]
            mine = [run for run in mine if "1 eps" in run and "seconds" in run]
            if mine:
                found[group].append({**setting_facts(setting), "times": times, **averaged(mine)})
    return found


def of_situations(runs: Sequence[Facts]) -> dict[str, list[Facts]]:
    """Clean and robust accuracy before and after, by radius and by the number of images and epochs."""
    found: dict[str, list[Facts]] = {"radii": [], "few images": []}
    groups = {"radius": "radii", "length": "few images", "images": "few images"}
    for name, situation in situations.SITUATIONS.items():
        known = next((run for run in runs if run["situation"] == name), None)
        if known is None or situation.group not in groups:
            continue
        shares = {
            f"{what} {when}": known[f"{what} {when}"] for what in ("clean", "robust") for when in ("before", "after")
        }
        facts = {**setting_facts(situation.setting), "epochs": situation.epochs, **shares, "seconds": known["seconds"]}
        found[groups[situation.group]].append(facts)
    return found


def of_labels(runs: Sequence[Facts]) -> list[Facts]:
    """Each way of using few labels, by setting and number of labels."""
    rows: dict[tuple[object, ...], list[Facts]] = {}
    for run in runs:
        if "1 eps" in run and "seconds" in run:
            rows.setdefault((run["setting"], run["labels"], run["arm"]), []).append(run)
    return [
        {**setting_facts(SETTINGS[str(setting)]), "labels": labels, "arm": arm, **averaged(mine)}
        for (setting, labels, arm), mine in rows.items()
    ]


def of_tasks(runs: Sequence[Facts]) -> list[Facts]:
    """Pretext losses beside the class: what each weight brings."""
    rows: dict[tuple[object, object], list[Facts]] = {}
    for run in runs:
        if run["question"] == "weight" and "1 eps" in run:
            rows.setdefault((run["setting"], run["arm"]), []).append(run)
    return [
        {**setting_facts(SETTINGS[str(setting)]), "arm": arm, **averaged(mine)} for (setting, arm), mine in rows.items()
    ]


def of_corruptions(rows: Sequence[Facts]) -> list[Facts]:
    """Each arm's mean accuracy over the fifteen corruptions."""
    arms: dict[str, list[Facts]] = {}
    for row in rows:
        arms.setdefault(str(row["arm"]), []).append(row)
    return [
        {"arm": arm, "augment": AUGMENTATIONS.get(arm), **averaged(mine, ("clean", "all", "l2 attack", "linf attack"))}
        for arm, mine in arms.items()
    ]


def condensed() -> Facts:
    """The content of the file, but for its date."""
    corruptions = json.loads((STUDIES / "corruptions-fashion-mnist-test_resnet.json").read_text(encoding="utf-8"))
    return {
        "about": ABOUT,
        "version": robusttune.__version__,
        "studies": {name: {"page": page, "command": command} for name, (page, command) in PAGES.items()},
        "stages": {
            "ordinary steps": FIRST_STEPS,
            "pretraining epochs": PRETRAINING,
            "hardening steps": STEPS,
            "batch": BATCH,
        },
        **searched(search.STUDY.runs()),
        **of_situations(situations.STUDY.runs()),
        "labels": of_labels(self_training.STUDY.runs()),
        "tasks": of_tasks(questions.STUDY.runs()),
        "corruptions": of_corruptions(corruptions),
        "literature": json.loads((STUDIES / "literature.json").read_text(encoding="utf-8")),
    }


def written(content: Facts, date: str) -> str:
    """The text of the file: one line for each row, so that a change shows which figure moved."""
    parts = []
    for name, value in {"about": content["about"], "date": date, **content}.items():
        if isinstance(value, list):
            rows = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f" {json.dumps(name)}: [\n  {rows}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def is_current(file: Path = FILE) -> bool:
    """Whether a file holds what the records give today."""
    if not file.exists():
        return False
    known = json.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in known.items() if name != "date"} == json.loads(json.dumps(condensed()))


def main() -> int:
    """Write the file, or check it; a file that is current keeps its date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; the exit code is 1 if the file is not current"
    )
    current = is_current()
    if parser.parse_args().check or current:
        print(f"{FILE.relative_to(ROOT)} is {'current' if current else 'not current'}")
        return 0 if current else 1
    FILE.write_text(written(condensed(), datetime.date.today().isoformat()), encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
