"""A whole training step, PGD-10 (linf) and the update: robusttune beside loops by hand and other libraries.

    pip install torchattacks adversarial-robustness-toolbox six
    python tests/benchmarks/steps.py --out docs/benchmarks/steps.json

"four rotated copies" is the loss of rotation as it is usually written: each image is turned all four ways, and the attack
and the update go through all of them, class and rotation together; "joint" draws one view an image.
"""

from functools import partial

import harness
from attacks import EPS, STEPS, by_hand, scene

NORM = "linf"
SIZES = [("resnet18", 32, 128), ("mobilenetv3_small_050", 64, 128), ("vit_tiny_patch16_224", 96, 32)]
PEERS = (
    "bare loop",
    "bare loop, channels_last",
    "robusttune",
    "robusttune, folded",
    "robusttune, bf16",
    "torchattacks",
    "ART",
)
WAYS = ("robusttune", "robusttune, none", "robusttune, separate", "robusttune, joint", "robusttune, trades")


def optimizer_of(parameters):
    """The same for all."""
    import torch

    return torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)


def loop(*, model, side, batch, device, channels_last, peer=None):
    """A step by hand: the attack in eval mode, the update in train mode."""
    import torch
    from torch.nn import functional as F

    net, images, labels = scene(model, side, batch, device)
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    optimizer = optimizer_of(net.parameters())
    attack = by_hand(net, images, labels, NORM)
    if peer is not None:
        import torchattacks

        made = torchattacks.PGD(net, eps=EPS[NORM], alpha=2.5 * EPS[NORM] / STEPS, steps=STEPS)
        attack = partial(made, images, labels)

    def work():
        net.eval()
        found = attack().detach()
        net.train()
        optimizer.zero_grad()
        F.cross_entropy(net(found), labels).backward()
        optimizer.step()

    return work


def robusttune(*, model, side, batch, device, fold=False, precision="fp32", **settings):
    """RobustLoss and an optimiser, in the memory format that harden chooses; folded as `tune=True` does it."""
    import torch

    from robusttune import RobustLoss, ThreatModel
    from robusttune.model.memory_format import chosen_format
    from robusttune.training.precision import Precision

    net, images, labels = scene(model, side, batch, device)
    if chosen_format("auto", net, images[:2]):
        net.to(memory_format=torch.channels_last)
    settings = {"tasks": None, **settings}
    robust_loss = RobustLoss(net, ThreatModel(NORM, EPS[NORM]), steps=STEPS, images=images.cpu(), **settings)
    if fold and robust_loss.fold(images.cpu()) is None:
        raise ImportError("there is nothing to fold in this model")
    optimizer = optimizer_of(robust_loss.parameters())
    robust_loss.train()

    def work():
        optimizer.zero_grad(set_to_none=True)
        with Precision(precision).autocast(images.device):
            loss = robust_loss(images, labels)["loss"]
        loss.backward()
        optimizer.step()

    return work


def art(*, model, side, batch, device):
    """The Adversarial Robustness Toolbox: its attack, then one step of its classifier's own fit."""
    import torch
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    net, images, labels = scene(model, side, batch, device)
    kind = "gpu" if device != "cpu" else "cpu"
    wrapped = PyTorchClassifier(
        net,
        torch.nn.CrossEntropyLoss(),
        tuple(images.shape[1:]),
        10,
        optimizer=optimizer_of(net.parameters()),
        clip_values=(0, 1),
        device_type=kind,
    )
    step = 2.5 * EPS[NORM] / STEPS
    attack = ProjectedGradientDescentPyTorch(
        wrapped, eps=EPS[NORM], eps_step=step, max_iter=STEPS, num_random_init=1, batch_size=batch, verbose=False
    )
    pixels, targets = images.cpu().numpy(), labels.cpu().numpy()
    return lambda: wrapped.fit(attack.generate(pixels, targets), targets, batch_size=batch, nb_epochs=1)


def copies(*, model, side, batch, device):
    """Class and rotation attacked together, on four turned copies of every image."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    net, images, labels = scene(model, side, batch, device)
    net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    head = nn.Linear(net.num_features if not hasattr(net, "head_hidden_size") else net.head_hidden_size, 4).to(device)
    optimizer = optimizer_of([*net.parameters(), *head.parameters()])
    turns = torch.arange(4, device=device).repeat_interleave(batch)

    def loss(candidates):
        turned = torch.cat([torch.rot90(candidates, turn, (2, 3)) for turn in range(4)])
        features = net.forward_head(net.forward_features(torch.cat([candidates, turned])), pre_logits=True)
        logits = net.get_classifier()(features[:batch])
        return F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(head(features[batch:]), turns)

    eps, step = EPS[NORM], 2.5 * EPS[NORM] / STEPS

    def work():
        net.eval()
        found = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(STEPS):
            found.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(found), found)
            found = found.detach() + step * gradient.sign()
            found = torch.min(torch.max(found, images - eps), images + eps).clamp(0, 1)
        net.train()
        optimizer.zero_grad()
        loss(found).backward()
        optimizer.step()

    return work


BOTH = {"rotation": 0.5, "jigsaw": 0.5}
CONTENDERS = {
    "bare loop": partial(loop, channels_last=False),
    "bare loop, channels_last": partial(loop, channels_last=True),
    "robusttune": robusttune,
    "torchattacks": partial(loop, channels_last=False, peer="torchattacks"),
    "ART": art,
    "robusttune, folded": partial(robusttune, fold=True),
    "robusttune, bf16": partial(robusttune, precision="bf16"),
    "robusttune, none": partial(robusttune, tasks=BOTH, attack_tasks="none"),
    "robusttune, separate": partial(robusttune, tasks=BOTH, attack_tasks="separate"),
    "robusttune, joint": partial(robusttune, tasks=BOTH, attack_tasks="joint"),
    "robusttune, trades": partial(robusttune, objective="trades"),
    "four rotated copies": copies,
}
CONFIGS = [
    (
        f"{model}, {side} px, batch {batch}: {what}",
        {"model": model, "side": side, "batch": batch},
        names,
    )
    for model, side, batch in SIZES
    for what, names in (
        ("peers", PEERS),
        ("pretext tasks and TRADES", WAYS + ("four rotated copies",) * (model == "resnet18")),
    )
]

if __name__ == "__main__":
    # Each table holds the plain step of robusttune, so one reference serves both.
    harness.main(__doc__, CONTENDERS, CONFIGS, "robusttune")
