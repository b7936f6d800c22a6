"""Attacks that do more than find images: candidates of the search for the default."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from examples.study.teachers import MovingAverage, Remembered
from robusttune.attacks import Attack, LossOf, ThreatModel, declares
from robusttune.attacks.nfgsm import nfgsm
from robusttune.attacks.pgd import pgd
from robusttune.attacks.wide_pgd import wide_pgd
from robusttune.model.borrowing import differentiable
from robusttune.training import schedule


class Method:
    """An attack that does more than find images.

    Args:
        model: that is trained.
        steps: of the run.
    """

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model, self.steps = model, steps

    def settings(self) -> dict[str, object]:
        """Arguments of `harden`."""
        return {"attack": self.attack}

    @declares(bounded=False, differentiates_once=True)
    def attack(self, loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: torch.Generator) -> Tensor:
        """N-FGSM; `use` gets the gradients of the weights that the same backward pass yields."""
        weights = [weight for _, weight in self.model.named_parameters()]
        for weight in weights:
            weight.requires_grad_()
        noisy = (images + threat.geometry.noise(images, 2 * threat.eps, generator)).clamp(0, 1).requires_grad_()
        with differentiable():
            toward, *gradients = torch.autograd.grad(loss_of(noisy).mean(), [noisy, *weights])
        for weight in weights:
            weight.requires_grad_(False)
        self.use(gradients)
        return (noisy.detach() + threat.eps * threat.ascent(toward)).clamp(0, 1)

    def use(self, gradients: list[Tensor]) -> None:
        """Do something with the gradients of the weights."""


class Free(Method):
    """The attack's gradients are added to those of the step, as in free adversarial training (arXiv:1904.12843)."""

    weight = 0.5

    def use(self, gradients: list[Tensor]) -> None:
        for weight, gradient in zip(self.model.parameters(), gradients, strict=True):
            weight.grad = self.weight * gradient.detach()


class LayerPerturbation(Method):
    """The weights move along the attack's gradients before the loss, and back before the step: N-LAP."""

    size = 0.003

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__(model, steps)
        self.moved: list[tuple[Tensor, Tensor]] = []
        self.hook = register_optimizer_step_pre_hook(lambda *_: self.back())

    @torch.no_grad()
    def use(self, gradients: list[Tensor]) -> None:
        self.back()
        pairs = [(w, g) for w, g in zip(self.model.parameters(), gradients, strict=True) if w.dim() > 1]
        for number, (weight, gradient) in enumerate(pairs, 1):
            depth = torch.tensor(float(number)).log() / torch.tensor(float(len(pairs))).log()
            length = self.size * (1 - depth**0.3) * weight.norm()
            self.moved.append((weight, weight.detach().clone()))
            weight.data.add_(gradient * (length / gradient.norm().clamp(min=1e-12)))

    @torch.no_grad()
    def back(self) -> None:
        """Undo the perturbation."""
        for weight, before in self.moved:
            weight.data.copy_(before)
        self.moved = []


class Late(Method):
    """One attack, and in the last quarter PGD.

    Args:
        pgd_steps: of PGD.
        radius: of PGD, as a multiple of eps.
        early: the attack before.
    """

    def __init__(
        self, model: nn.Module, steps: int, pgd_steps: int, radius: float = 1.0, early: Attack = nfgsm
    ) -> None:
        super().__init__(model, steps)
        self.pgd_steps, self.radius, self.early = pgd_steps, radius, early
        self.taken = -1  # before its first step, `harden` tries an attack of the user's once

    @declares(bounded=False, differentiates_once=True)
    def attack(self, loss_of: LossOf, images: Tensor, threat: ThreatModel, *, generator: torch.Generator) -> Tensor:
        """The attack that is due."""
        self.taken += 1
        if self.taken - 1 < schedule.LATE * self.steps:
            return self.early(loss_of, images, threat, generator=generator)
        return wide_pgd(loss_of, images, threat, generator=generator, steps=self.pgd_steps, width=self.radius)


class Softened(MovingAverage):
    """ADR's soft labels; see the study of teachers."""

    def settings(self) -> dict[str, object]:
        """Arguments of `harden`."""
        return {"objective": self, "attack": self.attack}


class Anchored(Remembered):
    """The squared distance to the teacher's answers; see the study of teachers."""

    def settings(self) -> dict[str, object]:
        """Arguments of `harden`."""
        return {"objective": self, "attack": self.attack}


PGD_5_LATE = partial(Late, pgd_steps=5)
WIDER_LATE = partial(Late, pgd_steps=2, radius=1.25)
WIDEST_LATE = partial(Late, pgd_steps=2, radius=1.5)
PGD_10_WIDER_LATE = partial(Late, pgd_steps=10, radius=1.25, early=pgd)
PGD_2_WIDER_LATE = partial(Late, pgd_steps=2, radius=1.25, early=partial(pgd, steps=2))
# Gradients that an attack takes of an image in a step, the mean over a run.
GRADIENTS = {
    PGD_5_LATE: 2.0,
    WIDER_LATE: 1.25,
    WIDEST_LATE: 1.25,
    PGD_10_WIDER_LATE: 10.0,
    PGD_2_WIDER_LATE: 2.0,
}
