"""Ordinary fine-tuning with an augmentation against corruptions."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["ordinary"]


def ordinary(tasks: Mapping[str, float]) -> Arms:
    """Fine-tuning on unchanged images with AugMix, without any adversary."""
    return {"ordinary": [{"ordinary": {"augment": "augmix"}}]}
