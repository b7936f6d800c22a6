"""Pre-training on pretext tasks, then adversarial training."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms, Phase

__all__ = ["pretrained_adversarial"]


def pretrained_adversarial(tasks: Mapping[str, float]) -> Arms:
    """Pre-training on the pretext tasks together, then adversarial training without them.

    Source: after Chen et al., arXiv:2003.12862, whose pre-training is adversarial, too; this one is not.
    """
    if not tasks:
        return {}
    before: Phase = {"pretrain": {"tasks": dict(tasks), "share": 0.25}}
    return {"pretrained_adversarial": [before, {"harden": {"tasks": None}}]}
