"""Adversarial training with a pretext task, both attacked by one perturbation."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["joint"]


def joint(tasks: Mapping[str, float]) -> Arms:
    """For each task: adversarial training in which one perturbation raises the class's and the pretext loss together."""
    return {
        f"{task}_joint": [{"harden": {"tasks": {task: weight}, "attack_tasks": "joint"}}]
        for task, weight in tasks.items()
    }
