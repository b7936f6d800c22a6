"""Robust accuracy as a Metric of torchmetrics."""

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError(
        f"robusttune.integration.torchmetrics needs torchmetrics ({error}): pip install torchmetrics"
    ) from error

from robusttune.attacks import AttackLike
from robusttune.evaluations import LossName, Steps
from robusttune.integration.judge import Judge, check_same
from robusttune.measuring.subject import window_is_full
from robusttune.threat import ThreatModel
from robusttune.types import Channels

Setting: TypeAlias = Any  # whatever Metric takes there

COUNTS, OWN = ("right", "seen"), "own"  # names of states

_numbers = itertools.count()


class RobustAccuracy(Metric):
    """The share of images whose class a model gets right under an attack, as `sweep` measures it at one radius.

    `update(images, labels)` takes a batch as your loader yields it. As in `evaluate`, up to eight batches are attacked together:
    after the same batches, in the same order, the figure is that of `evaluate` with `partial(sweep, …)` of the same attack, steps, losses
    and seed. A forward, which returns the accuracy on its batch, attacks each batch alone; random starts then differ.
    Several processes add up their counts. `merge_state` adds those of another RobustAccuracy, and after `persistent(True)` a
    `state_dict` holds them; batches that wait are attacked first.

    The model is judged as it is at the time of `compute` or of the eighth batch, in eval mode, and does not change. It is not a
    submodule, so that checkpoints do not hold it twice; `clone()` makes a copy of the model, too.

    Args:
        model: images -> logits (N,K).
        threat: the adversary.
        attack, steps, losses, mean, std, normalized, seed: as for `robusttune.integration.judge.Judge`.
        settings: the settings of torchmetrics' Metric, such as `dist_sync_on_step`.

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
        steps: Steps = "auto",
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
        for name in COUNTS:
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self._set_apart()

    def _set_apart(self) -> None:
        """Add a unique state, because a MetricCollection merges metrics with equal states, whatever they measure."""
        own = torch.tensor([next(_numbers) >> bit & 1 for bit in range(32)])
        self.add_state(OWN, own, dist_reduce_fx=_last)

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
        right, seen = (getattr(self, name) for name in COUNTS)
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

    @property
    def metric_state(self) -> dict[str, Setting]:
        """The counts of all batches."""
        self._attack()
        state: dict[str, Setting] = super().metric_state
        return state

    def merge_state(self, incoming_state: dict[str, Setting] | Metric) -> None:
        """Add the counts of another RobustAccuracy of the same weights, threat and settings (seeds may differ), or of its `metric_state` or `state_dict`.

        A `metric_state` or `state_dict` holds counts alone, so it is taken to be of the same.

        Raises:
            ValueError: the other one measures something else, is no RobustAccuracy, or has no counts; nothing has changed.
            RuntimeError: with `dist_sync_on_step`, from torchmetrics.
        """
        self._attack()
        if isinstance(incoming_state, RobustAccuracy):
            check_same(incoming_state.judge, self.judge)
        if isinstance(incoming_state, dict):
            _check_counts(incoming_state)
            incoming_state = {**incoming_state, OWN: getattr(self, OWN)}
        super().merge_state(incoming_state)
        self._begun()

    def clone(self) -> "RobustAccuracy":
        """Return a copy, with a copy of the model, which a MetricCollection keeps apart from this one."""
        copied = cast(RobustAccuracy, super().clone())
        copied._set_apart()
        return copied

    def persistent(self, mode: bool = False) -> None:
        """Let `state_dict` hold the counts, or leave them out."""
        super().persistent(mode)
        self._persistent[OWN] = False

    def state_dict(self, *arguments: Setting, **settings: Setting) -> dict[str, Setting]:  # type: ignore[override]
        """Return the counts of all batches, after `persistent(True)`."""
        if any(self._persistent.values()):
            self._attack()
        state: dict[str, Setting] = super().state_dict(*arguments, **settings)
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Setting], prefix: str, *others: Setting) -> None:
        if any(prefix + name in state_dict for name in COUNTS):
            _check_counts({name: state_dict.get(prefix + name) for name in COUNTS})
            self.waiting = []
            self._begun()
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _begun(self) -> None:
        """Mark the metric as updated after counts were loaded: else torchmetrics returns a cached value, or warns."""
        self._computed, self._update_count = None, max(int(bool(self.seen)), self._update_count)

    def _attack(self) -> None:
        """Attack the batches that wait."""
        if self.waiting:
            _, answers, labels = self.judge.attacked(self.waiting)
            self.waiting = []
            for name, count in zip(COUNTS, ((answers == labels).sum(), torch.tensor(len(labels))), strict=True):
                setattr(self, name, getattr(self, name) + count.to(self.device))


def _last(states: Tensor) -> Tensor:
    """Reduce a state that stays as it is."""
    return states[-1]


def _check_counts(state: dict[str, Setting]) -> None:
    """Raise a ValueError unless a state holds two whole numbers, of which `right` is at most `seen`."""
    counts: list[Setting] = [state.get(name) for name in COUNTS]
    whole = [isinstance(each, Tensor) and each.dim() == 0 and not each.is_floating_point() for each in counts]
    if not all(whole) or not 0 <= int(counts[0]) <= int(counts[1]):
        raise ValueError(
            f"the state has right {counts[0]} and seen {counts[1]}, but tensors of whole numbers are needed, 0 <= right <= seen: take "
            "them from metric_state, or from state_dict() after persistent(True)"
        )
