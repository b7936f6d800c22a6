"""Pre-training on pretext tasks, then ordinary fine-tuning."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms, Phase

__all__ = ["pretrained_ordinary"]


def pretrained_ordinary(tasks: Mapping[str, float]) -> Arms:
    """Pre-training on the pretext tasks together, then fine-tuning with AugMix."""
    if not tasks:
        return {}
    before: Phase = {"pretrain": {"tasks": dict(tasks), "share": 0.25}}
    return {"pretrained_ordinary": [before, {"ordinary": {"augment": "augmix"}}]}
