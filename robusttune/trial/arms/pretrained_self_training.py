"""Pre-training on pretext tasks, then adversarial training with images that the model has labelled itself."""

from collections.abc import Mapping

from robusttune.tasks import TASKS
from robusttune.trial.arms import Arms, Phase

__all__ = ["pretrained_self_training"]


def pretrained_self_training(tasks: Mapping[str, float]) -> Arms:
    """Pre-train on all pretext tasks together, rotation and jigsaw where none are named, then train as `self_training`."""
    pretraining: Phase = {"pretrain": {"tasks": dict(tasks or TASKS), "share": 0.25}}
    return {"pretrained_self_training": [pretraining, {"harden": {"tasks": None, "teacher": "self"}}]}
