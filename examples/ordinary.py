"""Ordinary training, which gives the examples a model to harden: no weights can be downloaded for these images."""

import sys
from difflib import get_close_matches

import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

FIXED_SIZE = ("vit", "deit", "mixer", "swin")
PATCHED = ("vit", "deit", "mixer")


def new_model(name: str, channels: int, classes: int, side: int) -> nn.Module:
    """A timm model with random weights, for images of this size."""
    if not timm.is_model(name):
        close = " or ".join(get_close_matches(name, timm.list_models(), n=3)) or "one of timm.list_models()"
        sys.exit(f"timm has no model {name!r}: did you mean {close}?")
    size = {"img_size": side} if any(word in name for word in FIXED_SIZE) else {}
    if any(word in name for word in PATCHED) and side < 64:
        size["patch_size"] = side // 4  # patches of 16 px would leave four of them
    return timm.create_model(name, in_chans=channels, num_classes=classes, **size)


def train(model: nn.Module, loader: DataLoader, epochs: int, *, progress: bool = True) -> nn.Module:
    """The model after ordinary training in place, in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, epochs=epochs, steps_per_epoch=len(loader))
    model.train()
    with tqdm(total=epochs * len(loader), desc="ordinary training", unit="step", disable=not progress) as bar:
        for _ in range(epochs):
            for images, labels in loader:
                loss = F.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    return model.eval()
