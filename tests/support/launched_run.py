"""What the tests launch in two processes: `launched_run.py FOLDER CASE`, a user's script that says nothing of processes."""

import importlib
import json
import os
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from short_runs import an_explosive_model
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import robusttune
from robusttune.evaluations.ood import ood
from robusttune.evaluations.sweep import sweep
from robusttune.training import autotune


def digits():
    """Digits of scikit-learn, which is not imported, as that takes seconds in each process."""
    file = Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = torch.tensor(np.loadtxt(file, delimiter=","))
    return TensorDataset((rows[:, :-1] / 16).float().reshape(-1, 1, 8, 8), rows[:, -1].long())


def network():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


def of_heads(model, test_loader, run):
    """Values of AUROC and FPR95, and the numbers of images of these and of the heads."""
    others = [torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count)) for count in (9, 8, 7)]
    records = robusttune.evaluate(
        model, test_loader, [partial(ood, others=others), "pretext"], heads=run, progress=False
    )
    return [record.value for record in records.where("ood")], [record.images for record in records]


class Failing(list):
    """A loader that breaks down in the third batch of one process."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 2 and os.environ.get("RANK") == "1":
                raise RuntimeError("the disk of process 1 is full")
            yield batch


def disagreeing():
    """Let the first process find compiled attacks faster, the second slower; the last stage of compiling is left out."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    autotune.WORTH_MEASURING = 2

    def seconds(training, images, labels):
        faster = os.environ.get("RANK") == "0"
        return 1000.0 if (training.robust_loss.passes.compiled == "no") == faster else 500.0

    autotune._seconds = seconds


def main(folder, case):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = network()
    images = digits()
    training = torch.utils.data.Subset(images, range(640))
    testing = torch.utils.data.Subset(images, range(1700, 1797))
    loader, test_loader, sharded = DataLoader(training, 32, shuffle=True), DataLoader(testing, 10), None
    if case == "sampler":
        torch.distributed.init_process_group("gloo")
        loader = DataLoader(training, 32, sampler=DistributedSampler(training))
        test_loader = DataLoader(testing, 10, sampler=DistributedSampler(testing, shuffle=False))
    more, held, epochs = None, None, []
    if case == "sampler":
        held = DataLoader(testing, 100, sampler=DistributedSampler(testing, shuffle=False))
    if case == "taught":  # a quarter of the images with their labels, the others with the model's
        loader = DataLoader(torch.utils.data.Subset(images, range(160)), 32, shuffle=True)
        more = DataLoader(torch.utils.data.Subset(images, range(160, 640)), 48, shuffle=True)
    compared = []
    if (
        case == "foreign"
    ):  # fewer labelled images in a process than are needed to compare with, and noise among the others
        noise = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(torch.utils.data.Subset(images, range(100)), 10, shuffle=True)
        more = DataLoader(TensorDataset(torch.cat([images.tensors[0][100:400], noise])), 38, shuffle=True)
        module = importlib.import_module("robusttune.training.images")
        likeness_to = module.likeness_to

        def noted_likeness(*given):
            likeness = likeness_to(*given)
            compared.extend([likeness.reference._mean.tolist(), likeness.reference.threshold(1)])
            return likeness

        module.likeness_to = noted_likeness
    if case == "failing":
        loader, sharded = Failing(DataLoader(training, 32)), True
    settings = {"norm": "l2", "eps": 0.3, "steps": 2, "epochs": 2, "awp": 0.005, "progress": False}
    chosen = []
    if case == "diverging":
        model, settings = an_explosive_model(), {**settings, "optimizer": "sgd", "lr": 1.0, "epochs": 3, "tasks": None}
    if case == "tuned":
        disagreeing()
        run = autotune.Training.run

        def noted(self, **given):
            passes = self.robust_loss.passes
            chosen.extend([passes.compiled, passes.folded is not None])
            run(self, **given)

        autotune.Training.run = noted
    if case == "foreign":
        settings |= {"drop_foreign": True, "tasks": None}
    if case.startswith("stages"):
        loader = DataLoader(torch.utils.data.Subset(images, range(160)), 32, shuffle=True)
        more = DataLoader(torch.utils.data.Subset(images, range(160, 640)), 48, shuffle=True)
        settings |= {"pretrain_epochs": 1, "finetune": 2, "tasks": {"rotation": 0.5}}
    heads, note = [], epochs.append
    if case == "timed":  # the first process has other work between epochs, in which the clock of the second goes on
        settings |= {"epochs": 1000, "time_budget": 2.0, "tasks": None}

        def note(facts):
            epochs.append(facts)
            time.sleep(0.0 if os.environ["RANK"] == "1" else 0.5)

    if case == "plain":
        settings["tasks"] = {"rotation": 0.5, "jigsaw": 0.0}
        module = importlib.import_module("robusttune.training.harden")
        fit = module.fit_heads

        def noted_fit(training, **given):
            fit(training, **given)
            heads.append(training.robust_loss.heads["jigsaw"].weight.tolist())

        module.fit_heads = noted_fit
    given = {"val_loader": held, "unlabeled_loader": more, "sharded": sharded, "on_epoch": note}
    if case == "stages, stopped":

        def stop(facts):
            raise InterruptedError

        try:
            robusttune.harden(model, loader, out=folder / "run", **{**given, "on_epoch": stop}, **settings)
        except InterruptedError:
            settings["resume"] = True
    robusttune.harden(model, loader, out=folder / "run", **given, **settings)
    measured = robusttune.evaluate(
        model, test_loader, ["clean", partial(sweep, norms=["l2"], eps=[0.3], steps=2)], progress=False
    )
    rank = os.environ.get("RANK", "0")
    torch.save(model.state_dict(), folder / f"{rank}.pt")
    facts = {"records": [[record.value, record.images] for record in measured], "world": os.environ.get("WORLD_SIZE")}
    facts["of heads"] = of_heads(model, test_loader, folder / "run") if case == "plain" else None
    facts["compared"] = compared
    facts["chosen"], facts["heads"], facts["held out"] = chosen, heads, epochs[-1].get("held-out images")
    (folder / f"{rank}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
