"""Models as users have them that are more than weights and a forward; each takes digits (N,1,8,8) and has ten classes."""

import torch
from torch import nn


class Adapter(nn.Linear):
    """A frozen layer with a low-rank part, which `eval` adds to the weight and `train` takes out, as loralib's do."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.merged = False
        self.down, self.up = nn.Parameter(torch.randn(2, inputs) / 8), nn.Parameter(torch.zeros(outputs, 2))

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += (-1 if mode else 1) * (self.up @ self.down).detach()
            self.merged = not mode
        return self

    def forward(self, inputs):
        apart = 0 if self.merged else inputs @ self.down.T @ self.up.T
        return super().forward(inputs) + apart


def adapted():
    """A model whose hidden layer has an adapter that does something."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Adapter(64, 16), nn.ReLU(), nn.Linear(16, 10))
    nn.init.normal_(model[1].up)
    return model


class InPlace(nn.Module):
    """A model that normalises its input in place."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, 10)

    def forward(self, images):
        return self.classifier(images.sub_(0.5).div_(0.25).flatten(1))


class OutOfPlace(InPlace):
    """The same without writing."""

    def forward(self, images):
        return super().forward(images.clone())


class Probe(nn.Module):
    """A linear probe whose body runs without gradients."""

    def __init__(self):
        super().__init__()
        self.body, self.classifier = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, images):
        with torch.no_grad():
            features = self.body(images.flatten(1))
        return self.classifier(features)


class Observer(nn.Module):
    """A layer that keeps what it sees, in eval mode too: in buffers that it writes, replaces and resizes, and in attributes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))
        self.register_buffer("ranges", torch.zeros(0))
        self.calls, self.sum = 0, torch.zeros(())

    def forward(self, images):
        self.count += len(images)
        self.largest = torch.maximum(self.largest, images.detach().max())
        self.ranges.resize_(4).fill_(float(images.detach().mean()))
        self.calls += 1
        self.sum += float(images.detach().sum())
        self.last = images
        return images


def observed():
    """A model with an observer."""
    torch.manual_seed(0)
    return nn.Sequential(Observer(), nn.Flatten(), nn.Linear(64, 10))


class Versioned(nn.Linear):
    """A layer whose state_dict holds an object beside tensors."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.extra = {"version": 2}

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def versioned(extra=None):
    """A model with extra state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Versioned(64, 10))
    model[1].extra = {"version": 2} if extra is None else extra
    return model


def with_buffer(buffer):
    """A linear model with one more buffer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_buffer("table", buffer.clone())
    return model
