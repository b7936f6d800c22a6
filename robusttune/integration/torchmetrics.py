"""Robust accuracy as a Metric of torchmetrics."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        f"robusttune.integration.torchmetrics needs torchmetrics ({error}): pip install torchmetrics"
    ) from error

from robusttune.attacks import AttackLike
from robusttune.evaluations import LossName
from robusttune.integration.judge import Judge
from robusttune.measuring.subject import window_is_full
from robusttune.threat import ThreatModel
from robusttune.types import Channels

Setting: TypeAlias = Any  # whatever Metric takes there

_numbers = itertools.count()


class RobustAccuracy(Metric):
    """The share of images whose class a model gets right under an attack, as `sweep` measures it at one radius.

    `update(images, labels)` takes a batch as your loader yields it. As in `evaluate`, up to eight batches are attacked together:
    after the same batches, in the same order, the figure is that of `evaluate` with `partial(sweep, …)` of the same attack, steps, losses
    and seed. A forward, which returns the accuracy on its batch, attacks each batch alone; random starts then differ.
    Several processes add up their counts.

    The model is judged as it is at the time of `compute` or of the eighth batch, in eval mode, and does not change. It is not a
    submodule, so that checkpoints do not hold it twice; `clone()` makes a copy of the model, too.

    Args:
        model: images -> logits (N,K).
        threat: the adversary.
        attack, steps, losses, mean, std, normalized, seed: as for `robusttune.integration.judge.Judge`.
        settings: of torchmetrics' Metric, such as `dist_sync_on_step`.

    Raises:
        ValueError: the model, the attack or the images do not fit.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> metric = RobustAccuracy(model, ThreatModel("linf", eps=8 / 255), steps=2)
        >>> metric.update(torch.rand(8, 1, 8, 8), torch.arange(8))
        >>> 0 <= float(metric.compute()) <= 1
        True
    """

    is_differentiable, higher_is_better, full_state_update = False, True, False
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel,
        *,
        attack: AttackLike = "apgd",
        steps: int | None = 50,
        losses: Sequence[LossName] = ("cross_entropy", "margin"),
        mean: Channels | None = None,
        std: Channels | None = None,
        normalized: bool | None = None,
        seed: int = 0,
        **settings: Setting,
    ) -> None:
        super().__init__(**settings)
        self.judge = Judge(
            model,
            threat,
            attack=attack,
            steps=steps,
            losses=losses,
            mean=mean,
            std=std,
            normalized=normalized,
            seed=seed,
        )
        self.waiting: list[tuple[Tensor, Tensor]] = []
        # A MetricCollection joins metrics whose states have the same names and values, whatever they measure.
        number = next(_numbers)
        self.names = (f"right_{number}", f"seen_{number}")
        for name in self.names:
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, images: Tensor, labels: Tensor) -> None:
        """Add a batch: images (N,C,H,W) as the loader yields them, labels (N,) or soft (N,K)."""
        if self.waiting and self.waiting[0][0].shape[1:] != images.shape[1:]:
            self._attack()
        self.waiting.append((images.clone(), labels.clone()))  # loaders may fill the same memory again
        if window_is_full(len(self.waiting), images.numel() * 4):
            self._attack()

    def compute(self) -> Tensor:
        """Return the robust accuracy over all batches."""
        self._attack()
        right, seen = (getattr(self, name) for name in self.names)
        return torch.as_tensor(right / seen)

    def forward(self, *arguments: Setting, **settings: Setting) -> Tensor:
        """Add a batch, and return the robust accuracy on it."""
        self._attack()
        value: Tensor = super().forward(*arguments, **settings)
        return value

    def sync(self, *arguments: Setting, **settings: Setting) -> None:
        """Add up the counts of all processes."""
        self._attack()
        super().sync(*arguments, **settings)

    def reset(self) -> None:
        """Forget all batches."""
        self.waiting = []
        super().reset()

    def _attack(self) -> None:
        """Attack the batches that wait."""
        if self.waiting:
            _, answers, labels = self.judge.attacked(self.waiting)
            self.waiting = []
            for name, count in zip(self.names, ((answers == labels).sum(), torch.tensor(len(labels))), strict=True):
                setattr(self, name, getattr(self, name) + count.to(self.device))
