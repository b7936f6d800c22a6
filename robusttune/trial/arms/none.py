"""Adversarial training with a pretext task that is not attacked."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["none"]


def none(tasks: Mapping[str, float]) -> Arms:
    """Train, for each task, against the class loss alone; the pretext loss is computed on views of the adversarial images."""
    return {
        f"{task}_none": [{"harden": {"tasks": {task: weight}, "attack_tasks": "none"}}]
        for task, weight in tasks.items()
    }
