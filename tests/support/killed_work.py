"""Work that the tests kill: `python killed_work.py CASE FOLDER`, which begins, or goes on with what is in the folder."""

import json
import sys
from pathlib import Path

import torch

import robusttune


def training(folder):
    from killed_run import run

    return run(folder / "run", resume=True).state_dict()


def pretraining(folder):
    from killed_run import run

    return run(folder / "run", resume=True, epochs=1, finetune=1, pretrain_epochs=3).state_dict()


def evaluation(folder):
    """AutoAttack on a model that many attacks fail on, so that each member has work to do."""
    from functools import partial

    from robusttune.evaluations.autoattack import autoattack

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    images = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    batches = [(images[start : start + 16], labels[start : start + 16]) for start in range(0, 96, 16)]
    out = folder / "evaluation"
    records = robusttune.evaluate(
        model, batches, partial(autoattack, queries=200), norm="linf", eps=0.01, out=out, resume=True, progress=False
    )
    return {str(record.setting["attack"]): torch.tensor(record.right) for record in records}


def trial(folder):
    from small_trials import everything, tried

    tried(folder / "trial", resume=True)
    numbers = json.dumps(everything(folder / "trial"))
    return {"records": torch.tensor(list(numbers.encode()))}


CASES = {"training": training, "pretraining": pretraining, "evaluation": evaluation, "trial": trial}

if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[2])
    torch.save(CASES[sys.argv[1]](place), place / "result.pt")
