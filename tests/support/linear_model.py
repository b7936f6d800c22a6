"""A linear model whose images' distances to the border are known in closed form."""

import torch
from torch import nn

COUNT = 60


def linear():
    """Two classes; the box does not bind, as images lie well inside it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 5, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 30, generator=torch.Generator().manual_seed(0)))
        model[1].bias.zero_()
    images = 0.5 + 0.1 * torch.randn(COUNT, 2, 3, 5, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    labels = torch.arange(COUNT) % 2
    with torch.no_grad():
        # The border lies in the middle of the images and on none of them.
        model[1].bias[1] = (
            -(model(images) @ torch.tensor([-1.0, 1.0])).sort().values[COUNT // 2 - 1 : COUNT // 2 + 1].mean()
        )
    return model, images, labels


def distances(model, images, labels, norm):
    """How far each image is from the border, negative on the wrong side of it."""
    direction = (model[1].weight[1] - model[1].weight[0]).detach()
    with torch.no_grad():
        margin = (model(images) @ torch.tensor([-1.0, 1.0])) * (2 * labels - 1)
    return margin / (direction.norm() if norm == "l2" else direction.abs().sum())
