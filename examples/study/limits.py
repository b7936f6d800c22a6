"""Which limit of the gradient the range test of `harden` chooses, for the models of the studies that take SGD.

    python -m examples.study.limits                                   # adds to the records
    python -m examples.study.limits --settings imagenet-l2 --seeds 0
    python -m examples.study.limits --tables                          # from the records alone

A run has the default preset and ends after its first epoch: the range test comes before the first step.
"""

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path

from torch import nn

import robusttune
from examples.study.cases import SETTINGS, case
from examples.study.records import Facts, Study, one_thread

STUDY = Study("limits", lambda run: (nn.Identity(), {}))
LIMITED = [name for name, setting in SETTINGS.items() if setting.model != "test_vit"]
EPOCHS = 50  # planned, so that a run on any of the images is long enough for a range test


class Ended(Exception):
    """The first epoch is over."""


def after_an_epoch(facts: dict[str, object]) -> None:
    """End the run."""
    raise Ended


def chosen(setting: str, seed: int) -> Facts:
    """What `run.json` says of the range test."""
    known = case(setting, None, seed)
    model, adversary = known.start(known.images), known.setting
    with tempfile.TemporaryDirectory() as folder:
        with suppress(Ended):
            robusttune.harden(
                model,
                known.loader(known.images),
                norm=adversary.norm,
                eps=adversary.eps,
                epochs=EPOCHS,
                tune=False,
                device="cpu",
                seed=seed,
                out=folder,
                progress=False,
                on_epoch=after_an_epoch,
            )
        return json.loads((Path(folder) / "run.json").read_text())["range_test"]


def tables() -> str:
    """A row for each run."""
    lines = [
        "| setting | seed | norm of the gradient | with a limit of 1 | with 5 | chosen |",
        "|---|---|---|---|---|---|",
    ]
    for run in sorted(STUDY.runs(), key=lambda run: (list(SETTINGS).index(str(run["setting"])), run["seed"])):
        shares = [run["robust"].get(limit) for limit in ("1", "5")]
        shown = ["" if share is None else f"{100 * share:.0f}" for share in shares]
        title = SETTINGS[str(run["setting"])].title
        lines.append(f"| {title} | {run['seed']} | {run['norm']:.0f} | {' | '.join(shown)} | {run['clip_grad']:g} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", choices=LIMITED, default=LIMITED)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--tables", action="store_true", help="print the table of the records, and run nothing")
    options = parser.parse_args()
    if options.tables:
        print(tables())
        return
    one_thread()
    known = {(run["setting"], run["seed"]) for run in STUDY.runs()}
    for seed in options.seeds:
        for setting in options.settings:
            if (setting, seed) not in known:
                STUDY.add({"setting": setting, "seed": seed}, **chosen(setting, seed))


if __name__ == "__main__":
    main()
