"""Pre-training on pretext tasks, then fine-tuning without an adversary."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms, Phase

__all__ = ["pretrained_ordinary"]


def pretrained_ordinary(tasks: Mapping[str, float]) -> Arms:
    """Pre-train on all pretext tasks together, then fine-tune with AugMix."""
    if not tasks:
        return {}
    pretraining: Phase = {"pretrain": {"tasks": dict(tasks), "share": 0.25}}
    return {"pretrained_ordinary": [pretraining, {"ordinary": {"augment": "augmix"}}]}
