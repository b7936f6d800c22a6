"""Work that the tests kill, which begins, or goes on with what is in the folder."""

import json
from functools import partial

import small_trials
import torch
from killed_run import run

import robusttune
from robusttune.evaluations.autoattack import autoattack

AT_WORK = "at work"


def training(folder):
    return run(folder / "run", resume=True).state_dict()


def pretraining(folder):
    return run(folder / "run", resume=True, epochs=1, finetune=1, pretrain_epochs=3).state_dict()


def evaluation(folder):
    """AutoAttack on a model that many attacks fail on, so that each member has work to do."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    batches = [(images[start : start + 16], labels[start : start + 16]) for start in range(0, 64, 16)]
    out = folder / "evaluation"
    records = robusttune.evaluate(
        model, batches, partial(autoattack, queries=100), norm="linf", eps=0.01, out=out, resume=True, progress=False
    )
    return {str(record.setting["attack"]): torch.tensor(record.right) for record in records}


def trial(folder):
    small_trials.tried(folder / "trial", resume=True)
    numbers = json.dumps(small_trials.everything(folder / "trial"))
    return {"records": torch.tensor(list(numbers.encode()))}


CASES = {"training": training, "pretraining": pretraining, "evaluation": evaluation, "trial": trial}


def work(case, folder):
    """Say that the work has begun, and keep its result in the folder."""
    torch.set_num_threads(1)
    (folder / AT_WORK).touch()
    torch.save(CASES[case](folder), folder / "result.pt")
