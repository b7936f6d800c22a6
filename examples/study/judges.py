"""Which attack finds most: the APGD of three packages and of this one, on ten models and on four that hide their gradients.

    python -m examples.study.judges --parts 0 1 --original FOLDER    # adds to the records; FOLDER: a checkout of fra31/auto-attack
    python -m examples.study.judges --tables                         # from the records alone

Every judge attacks all images that a model classifies correctly, by itself, at AutoAttack's settings: 100 steps, 9 targets, one
random start. The records hold the answer to each image, so that judges can be compared on the same images. Without `--original`
the judges of that package are left out.
"""

import argparse
import sys
import time

import torch

from examples.study.judge_attacks import AGAIN, JUDGES, ORIGINAL, Problem, attacked
from examples.study.judge_models import ENTRIES, Entry, images_of, model_of, train
from examples.study.judge_tables import tables as tables_of
from examples.study.records import Study, name_of, one_thread

CLEAN = "clean"


STUDY = Study("judges", train)


def tables() -> str:
    """Return the tables of the page."""
    return tables_of(STUDY.runs())


def judge(entry: Entry, judges: list[str], part: int) -> None:
    """Let the judges who have not seen these images of this model attack them."""
    known = {name_of({fact: run[fact] for fact in ("model", "judge", "part")}) for run in STUDY.runs()}
    runs = [{"model": entry.title, "judge": name, "part": part} for name in [CLEAN, *judges]]
    missing = [run for run in runs if name_of(run) not in known]
    if not missing:
        return
    model = model_of(entry)
    images, labels = images_of(entry, range(part * entry.images, (part + 1) * entry.images))
    with torch.no_grad():
        right = model(images).argmax(1) == labels
    for run in missing:
        began, answers = time.process_time(), right.clone()
        if run["judge"] != CLEAN:
            generator = torch.Generator().manual_seed(1000 * (run["judge"] == AGAIN) + part)
            problem = Problem(model, images[right], labels[right], entry.threat, generator)
            answers[right] = attacked(problem, str(run["judge"]))
        seconds = round(time.process_time() - began, 2)
        STUDY.add(run, right="".join(str(int(answer)) for answer in answers), seconds=seconds)


def main() -> None:
    """Run what is missing, or print the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--parts", type=int, nargs="+", default=[0], help="0: the first test images; 1: as many after them"
    )
    options.add_argument("--models", nargs="+", choices=ENTRIES, metavar="MODEL", default=list(ENTRIES))
    options.add_argument("--judges", nargs="+", choices=JUDGES, metavar="JUDGE", default=list(JUDGES))
    options.add_argument("--original", help="a checkout of fra31/auto-attack")
    options.add_argument("--tables", action="store_true", help="print the tables of the records, and run nothing")
    asked = options.parse_args()
    if asked.tables:
        print(tables())
        return
    one_thread()
    if asked.original:
        sys.path.append(asked.original)
    judges = [name for name in asked.judges if asked.original or name not in ORIGINAL]
    for part in asked.parts:
        for title in asked.models:
            judge(ENTRIES[title], judges, part)


if __name__ == "__main__":
    main()
