"""Pre-training on pretext tasks, then adversarial training."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms, Phase

__all__ = ["pretrained_adversarial"]


def pretrained_adversarial(tasks: Mapping[str, float]) -> Arms:
    """Pre-train on all pretext tasks together, then train against the adversary without them.

    Source: after Chen et al., arXiv:2003.12862, where the pre-training is adversarial, too; here it is not.
    """
    if not tasks:
        return {}
    pretraining: Phase = {"pretrain": {"tasks": dict(tasks), "share": 0.25}}
    return {"pretrained_adversarial": [pretraining, {"harden": {"tasks": None}}]}
