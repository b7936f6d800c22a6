"""PGD with ten steps: robusttune beside a loop written by hand and other libraries, the same passes and step lengths.

    pip install torchattacks foolbox adversarial-robustness-toolbox six adv-lib
    python tests/benchmarks/attacks.py --out docs/benchmarks/attacks.json

`loss` is the mean cross-entropy of the images found: strength is a part of speed. adv-lib has PGD for linf alone.
"""

from functools import partial

import harness

STEPS = 10
EPS = {"linf": 8 / 255, "l2": 0.5}
SIZES = [
    ("resnet18", 32, 128),
    ("mobilenetv3_small_050", 64, 128),
    ("vit_tiny_patch16_224", 96, 32),
    ("resnet18", 224, 8),
]
NAMES = ("bare loop", "bare loop, channels_last", "robusttune", "torchattacks", "foolbox", "ART", "adv-lib")


def scene(model, side, batch, device):
    """A network in eval mode, images, labels."""
    import timm
    import torch

    torch.manual_seed(0)
    sized = {"img_size": side} if "vit" in model else {}
    net = timm.create_model(model, num_classes=10, **sized).eval().to(device)
    images, labels = torch.rand(batch, 3, side, side).to(device), torch.randint(10, (batch,)).to(device)
    return net, images, labels


def measured(net, labels, attack):
    """The work, which answers with the mean loss of what it found."""
    import torch
    from torch.nn import functional as F

    def work():
        found = attack()
        with torch.no_grad():
            return {"loss": float(F.cross_entropy(net(found), labels))}

    return work


def by_hand(net, images, labels, norm):
    """A loop that does what must be done and no more."""
    import torch
    from torch.nn import functional as F

    eps, step = EPS[norm], 2.5 * EPS[norm] / STEPS

    def size(delta):
        return delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    def attack():
        if norm == "linf":
            found = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
        else:
            noise = torch.randn_like(images)
            found = (images + noise / size(noise) * eps * torch.rand(len(images), 1, 1, 1, device=images.device)).clamp(
                0, 1
            )
        for _ in range(STEPS):
            found.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(found), labels, reduction="sum"), found)
            with torch.no_grad():
                if norm == "linf":
                    found = found + step * gradient.sign()
                    found = torch.min(torch.max(found, images - eps), images + eps).clamp(0, 1)
                else:
                    found = found + step * gradient / size(gradient)
                    delta = found - images
                    found = (images + delta * (eps / size(delta)).clamp(max=1)).clamp(0, 1)
        return found

    return attack


def loop(*, model, side, batch, norm, device, channels_last):
    """The loop by hand, in one memory format or the other, weights frozen."""
    import torch

    net, images, labels = scene(model, side, batch, device)
    net.requires_grad_(False)
    if channels_last:
        net, images = net.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    return measured(net, labels, by_hand(net, images, labels, norm))


def robusttune(*, model, side, batch, norm, device):
    """As RobustLoss attacks: the model in the memory format that harden would choose."""
    import torch
    from torch.nn import functional as F

    from robusttune import LossOf, ThreatModel
    from robusttune.attacks.pgd import pgd
    from robusttune.model.borrowing import attacking
    from robusttune.model.memory_format import chosen_format

    net, images, labels = scene(model, side, batch, device)
    if chosen_format("auto", net, images[:2]):
        net.to(memory_format=torch.channels_last)
    goal, threat = LossOf(lambda x: F.cross_entropy(net(x), labels, reduction="none")), ThreatModel(norm, EPS[norm])
    generator = torch.Generator(device).manual_seed(0)

    def attack():
        with attacking(net, net.parameters(), images.device):
            return pgd(goal, images, threat, generator=generator, steps=STEPS)

    return measured(net, labels, attack)


def torchattacks(*, model, side, batch, norm, device):
    """torchattacks' PGD or PGDL2."""
    import torchattacks as peer

    net, images, labels = scene(model, side, batch, device)
    kind = {"linf": peer.PGD, "l2": peer.PGDL2}[norm]
    attack = kind(net, eps=EPS[norm], alpha=2.5 * EPS[norm] / STEPS, steps=STEPS)
    return measured(net, labels, lambda: attack(images, labels))


def foolbox(*, model, side, batch, norm, device):
    """foolbox's LinfPGD or L2PGD."""
    import foolbox as peer

    net, images, labels = scene(model, side, batch, device)
    wrapped = peer.PyTorchModel(net, bounds=(0, 1), device=device)
    kind = {"linf": peer.attacks.LinfPGD, "l2": peer.attacks.L2PGD}[norm]
    attack = kind(abs_stepsize=2.5 * EPS[norm] / STEPS, steps=STEPS, rel_stepsize=None)
    return measured(net, labels, lambda: attack(wrapped, images, labels, epsilons=EPS[norm])[1])


def art(*, model, side, batch, norm, device):
    """The Adversarial Robustness Toolbox's PGD, which speaks numpy."""
    import torch
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    net, images, labels = scene(model, side, batch, device)
    shape = tuple(images.shape[1:])
    kind = "gpu" if device != "cpu" else "cpu"
    wrapped = PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 1), device_type=kind)
    attack = ProjectedGradientDescentPyTorch(
        wrapped,
        norm={"linf": "inf", "l2": 2}[norm],
        eps=EPS[norm],
        eps_step=2.5 * EPS[norm] / STEPS,
        max_iter=STEPS,
        num_random_init=1,
        batch_size=batch,
        verbose=False,
    )
    pixels, targets = images.cpu().numpy(), labels.cpu().numpy()
    return measured(net, labels, lambda: torch.from_numpy(attack.generate(pixels, targets)).to(device))


def adv_lib(*, model, side, batch, norm, device):
    """adv-lib's PGD."""
    from adv_lib.attacks import pgd_linf

    net, images, labels = scene(model, side, batch, device)
    settings = {"steps": STEPS, "absolute_step_size": 2.5 * EPS[norm] / STEPS}
    return measured(net, labels, lambda: pgd_linf(net, images, labels, EPS[norm], **settings))


CONTENDERS = {
    "bare loop": partial(loop, channels_last=False),
    "bare loop, channels_last": partial(loop, channels_last=True),
    "robusttune": robusttune,
    "torchattacks": torchattacks,
    "foolbox": foolbox,
    "ART": art,
    "adv-lib": adv_lib,
}
CONFIGS = [
    (
        f"{model}, {side} px, batch {batch}, {norm}",
        {"model": model, "side": side, "batch": batch, "norm": norm},
        [name for name in NAMES if norm == "linf" or name != "adv-lib"],
    )
    for model, side, batch in SIZES
    for norm in EPS
]

if __name__ == "__main__":
    harness.main(__doc__, CONTENDERS, CONFIGS, "bare loop")
