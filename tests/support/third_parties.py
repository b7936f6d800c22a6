"""What third parties bring to RobustLoss: a model, an objective, tasks and attacks, none of them in the package."""

import torch
from torch import nn
from torch.nn import functional as F

from robusttune.tasks import View, pixel_numbers, reindex
from robusttune.threat import ThreatModel
from robusttune.training.robust_loss import RobustLoss

EPS, STEP, BETA, SIDE = 0.6, 0.4, 3.0, 3
WEIGHTS = {"rotation": 0.5, "jigsaw": 0.3, "patch": 0.7}


class Tiny(nn.Module):
    def __init__(self, classes=7):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            body = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()
            self.body = nn.Sequential(*body)
            self.classifier = nn.Linear(24, classes)
            self.body[1].running_mean.normal_()
            self.body[1].running_var.uniform_(0.5, 2)

    def forward(self, images):
        return self.classifier(self.body(images))


class Trades:
    """Zhang et al., arXiv:1901.08573, as a third party would write it."""

    needs_clean = True

    def attack_loss(self, logits, labels, clean):
        return F.kl_div(logits.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="none").sum(1)

    def loss(self, adversarial, labels, clean):
        return F.cross_entropy(clean, labels, reduction="none") + BETA * self.attack_loss(adversarial, labels, clean)


class PatchTurn:
    """A patch is turned inside its image: Moon et al., arXiv:2207.10023, as a third party would write it."""

    name, classes, shares_forward = "patch", 4, True

    def draw(self, images, generator, *, patch_size):
        count, _, height, width = images.shape
        highest = torch.tensor([height - SIDE + 1, width - SIDE + 1, 4])
        self.drawn = (torch.rand(count, 3, generator=generator) * highest).long()
        source = pixel_numbers(images.shape).repeat(count, 1, 1)
        for numbers, (top, left, turns) in zip(source, self.drawn.tolist(), strict=True):
            patch = numbers[top : top + SIDE, left : left + SIDE]
            patch.copy_(torch.rot90(patch.clone(), turns))
        return View(lambda pixels: reindex(pixels, source.flatten(1)), self.drawn[:, 2], 4)


class ContentTurn:
    """A quarter turn that follows from where the image's brightest value lies, so that no chance is involved."""

    classes = 4

    def __init__(self, name, shares_forward=False):
        self.name, self.shares_forward = name, shares_forward

    def draw(self, images, generator, *, patch_size):
        turns = (images.flatten(1).argmax(1) + self.shares_forward) % 4
        return View(lambda pixels: turned(pixels, turns.tolist()), turns, 4)


def turned(images, turns):
    """Each image by its own number of quarter turns; a batch may be empty."""
    rows = [torch.rot90(image, turn, (1, 2)) for image, turn in zip(images, turns, strict=True)]
    return torch.stack(rows) if rows else images


def pattern(image):
    return 0.1 * torch.sin(torch.arange(image.numel(), dtype=image.dtype)).reshape(image.shape)


def one_step(loss_of, images, threat, *, generator):
    """An attack without chance; it leaves the image first, where the gradient of TRADES is zero."""
    start = threat.project(images + pattern(images[0]), images).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(start).sum(), start)
    return threat.project(start.detach() + STEP * threat.ascent(gradient), images)


def no_attack(loss_of, images, threat, *, generator):
    return images


def a_batch(shape=(4, 3, 7, 7)):
    generator = torch.Generator().manual_seed(3)
    images = (torch.rand(shape, generator=generator).double() * 1.2 - 0.1).clamp(0, 1)
    return images, torch.randint(7, shape[:1], generator=generator)


def a_loss(*names, model=None, attack=one_step, kind=RobustLoss, norm="l2", eps=EPS, **settings):
    tasks = {PatchTurn() if name == "patch" else name: WEIGHTS[name] for name in names}
    made_up = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    settings = {"tasks": tasks or None, "attack": attack, "images": made_up} | settings
    return kind(model or Tiny().double(), ThreatModel(norm, eps), **settings)


def after_backward(robust_loss, batch):
    """What the call returned, and the gradients."""
    out = robust_loss(*batch)
    out["loss"].backward()
    return out, gradients(robust_loss)


def gradients(module):
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def difference(found, expected):
    """The largest between two sets of gradients, of which none may be missing and some must not be zero."""
    assert found.keys() == expected.keys()
    assert max(float(gradient.abs().max()) for gradient in found.values()) > 1e-3
    return max(float((gradient - expected[name]).abs().max()) for name, gradient in found.items())
