"""Adversarial training with a pretext task, with one perturbation against both."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["joint"]


def joint(tasks: Mapping[str, float]) -> Arms:
    """Train, for each task, against a perturbation that raises the sum of the class loss and the pretext loss."""
    return {
        f"{task}_joint": [{"harden": {"tasks": {task: weight}, "attack_tasks": "joint"}}]
        for task, weight in tasks.items()
    }
