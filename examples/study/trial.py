"""A real staged trial, and its answer put to the test: fresh seeds of the winner and the runner-up, on other images.

    python -m examples.study.trial                 # the trial (its page is runs/study/trial/decision.md), then the fresh seeds
    python -m examples.study.trial --tables        # from the records alone

10,000 images of Fashion-MNIST, of which 1,500 are kept from training for the decision; a small CNN that was trained on the others,
linf 0.1, the arms that a trial takes by default. Both can be stopped and continued. The fresh runs are measured on test images that
neither the trial nor training has seen.
"""

import argparse
import json
import tempfile
from pathlib import Path

from torch import nn
from torch.utils.data import Subset

import robusttune
from examples.study.cases import IMAGES, Case, case
from examples.study.records import ROOT, Facts, Study, one_thread, table, timed
from robusttune.trial.data import InputSpace, divided
from robusttune.trial.decision.decide import decide
from robusttune.trial.phases import calls_of
from robusttune.trial.results import Trial

SETTING, KEPT, EPOCHS = "cnn-linf", 1_500, 4
FRESH = (200, 201, 202, 203, 204)
FOLDER = ROOT / "runs" / "study" / "trial"
SUMMARY = ROOT / "docs" / "studies" / "trial-in-stages.json"


def parts() -> tuple[Case, Subset, Subset]:
    """The images: those to train on, and those that are kept for the decision."""
    all_images = case(SETTING, IMAGES, 0)
    return (
        all_images,
        Subset(all_images.images, range(IMAGES - KEPT)),
        Subset(all_images.images, range(IMAGES - KEPT, IMAGES)),
    )


def conducted(budget: float, processes: int) -> Trial:
    """The finished trial."""
    all_images, training, kept = parts()
    setting = all_images.setting
    model = all_images.start(training)
    robusttune.poc(
        model,
        all_images.loader(training),
        test_loader=all_images.loader(kept),
        threats={setting.norm: setting.eps, "l2": 1.0},
        epochs=EPOCHS,
        budget=budget,
        out=FOLDER,
        device="cpu",
        executor=None if processes == 1 else f"processes:{processes}",
        resume=True,
    )
    return Trial.load(FOLDER)


def fresh(run: Facts) -> tuple[nn.Module, Facts]:
    """One arm of the trial, trained anew."""
    all_images, training, kept = parts()
    plan = Trial.load(FOLDER).plan
    data = divided(all_images.loader(training), all_images.loader(kept))
    model = all_images.start(training)

    def trained() -> nn.Module:
        for call in calls_of(plan, str(run["arm"]), data, InputSpace(device="cpu")):
            with tempfile.TemporaryDirectory() as folder:
                call.run(model, Path(folder), int(str(run["seed"])), progress=False)
        return model

    return timed(trained)


STUDY = Study("trial", fresh)


def summary(trial: Trial) -> Facts:
    """What the trial said, in numbers."""
    decision = decide(trial)
    return {
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "seeds": len(decision.measured.seeds),
        "looks": trial.plan.looks,
        "images": decision.measured.images,
        "power": trial.power,
        "estimated": (trial.plan.estimated or {}).get("in all"),
        "comparisons": [
            {
                "arm": each.arm,
                "over": each.baseline,
                "need": str(each.metric),
                "points": [round(100 * value, 2) for value in (each.value, each.low, each.high)],
                "real": each.real,
            }
            for each in decision.findings.comparisons
            if not each.exploratory
        ],
    }


def tables() -> str:
    """The table of the fresh seeds."""
    return table(STUDY.runs(), ["arm"], order=str)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=9_000, help="seconds of the trial")
    parser.add_argument("--processes", type=int, default=1, help="trainings of the trial at a time, on one core each")
    parser.add_argument("--tables", action="store_true", help="print the table of the fresh seeds, and run nothing")
    options = parser.parse_args()
    if options.tables:
        print(tables())
        return
    one_thread()
    trial = conducted(options.budget, options.processes)
    facts = summary(trial)
    SUMMARY.write_text(json.dumps(facts, indent=1) + "\n")
    print(facts["reason"], flush=True)
    decision = decide(trial)
    for arm in decision.candidates[:2]:
        for seed in FRESH:
            STUDY.judge({"setting": SETTING, "arm": arm, "seed": seed}, ["sweep", "strong"])


if __name__ == "__main__":
    main()
