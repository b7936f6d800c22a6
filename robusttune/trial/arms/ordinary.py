"""Fine-tuning without an adversary, with an augmentation against corruptions."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["ordinary"]


def ordinary(tasks: Mapping[str, float]) -> Arms:
    """Fine-tune with AugMix, without an adversary."""
    return {"ordinary": [{"ordinary": {"augment": "augmix"}}]}
