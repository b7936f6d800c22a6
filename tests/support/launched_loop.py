"""What the tests launch in two processes: `launched_loop.py FOLDER`, a user's accelerate loop around RobustLoss."""

import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from robusttune import RobustLoss, ThreatModel
from robusttune.attacks.pgd import pgd

BATCH = 16
CASES = {
    # Without chance and batch norm, the gradient of a batch is the mean of those of its halves.
    "plain": (False, {"tasks": None, "attack": partial(pgd, steps=3, random_start=False)}),
    "joint": (True, {"tasks": {"rotation": 0.5, "jigsaw": 0.5}, "steps": 3}),
    "separate": (True, {"tasks": {"rotation": 0.5}, "attack_tasks": "separate", "steps": 2, "objective": "trades"}),
}


def scene(case, batch):
    """The loss, an optimizer over all that it trains, and a loader in a fixed order of this process's batches."""
    torch.manual_seed(0)
    norm, settings = CASES[case]
    layers = [nn.Conv2d(1, 8, 3), *([nn.BatchNorm2d(8)] if norm else []), nn.ReLU(), nn.AdaptiveAvgPool2d(4)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
    data = TensorDataset(torch.rand(48, 1, 16, 16), torch.arange(48) % 10)
    robust_loss = RobustLoss(model, ThreatModel("linf", 0.1), images=data.tensors[0][:2], **settings).train()
    return robust_loss, torch.optim.SGD(robust_loss.parameters(), 0.5, momentum=0.9), DataLoader(data, batch)


def trained(robust_loss, optimizer, loader, *, wrapped=None, backward=torch.Tensor.backward):
    """Each step's gradients, and the weights in the end, by name."""
    gradients = []
    for images, labels in loader:
        optimizer.zero_grad()
        backward((wrapped or robust_loss)(images, labels)["loss"])
        gradients.append({name: each.grad.clone() for name, each in robust_loss.named_parameters()})
        optimizer.step()
    weights = {name: each.detach() for name, each in robust_loss.named_parameters()}
    return {"gradients": gradients, "weights": weights, "model": robust_loss.model.state_dict()}


def main(folder):
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    found = {}
    for case in CASES:
        robust_loss, optimizer, loader = scene(case, BATCH // 2)
        wrapped, optimizer, loader = accelerator.prepare(robust_loss, optimizer, loader)
        found[case] = trained(robust_loss, optimizer, loader, wrapped=wrapped, backward=accelerator.backward)
        assert accelerator.unwrap_model(wrapped) is robust_loss
    torch.save(found, folder / f"{accelerator.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
