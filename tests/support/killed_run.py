"""A run of `harden` that the tests kill: `python killed_run.py FOLDER WEIGHTS [resume [FINETUNE [PRETRAIN_EPOCHS]]]`."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import robusttune


class Noisy(Dataset):
    """Images that a random transform changes each time they are read, by torch's global generator."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 1, 8, 8, generator=generator)
        self.labels = (self.images.mean((1, 2, 3)) * 40).long() % 4

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return (self.images[index] + 0.05 * torch.rand(1, 8, 8)).clamp(0, 1), self.labels[index]


def a_model():
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*layers)


def run(folder, resume, epochs=5, **more):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = a_model()
    loader = DataLoader(Noisy(700), 16, shuffle=True, generator=torch.Generator().manual_seed(1))
    if more.get("pretrain_epochs"):
        more["unlabeled_loader"] = DataLoader(Noisy(200), 20, shuffle=True, generator=torch.Generator().manual_seed(2))
    settings = {"awp": 0.01, "accumulate": 2, "epochs": epochs, "checkpoint_every": 3, "steps": 2, "progress": False}
    return robusttune.harden(
        model, loader, norm="l2", eps=0.2, out=folder, resume=resume, augment="standard", **settings, **more
    )


if __name__ == "__main__":
    more = dict(zip(("finetune", "pretrain_epochs"), map(int, sys.argv[4:]), strict=False))
    torch.save(run(sys.argv[1], resume=sys.argv[3:4] == ["resume"], **more).state_dict(), sys.argv[2])
