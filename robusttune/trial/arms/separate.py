"""Adversarial training with a pretext task, with one perturbation against each."""

from collections.abc import Mapping

from robusttune import plugins
from robusttune.trial.arms import Arms

__all__ = ["separate"]


def separate(tasks: Mapping[str, float]) -> Arms:
    """Train, for each task, against the class loss on the images and against the pretext loss on views of them.

    A task that shares the forward pass of the class has no view to attack and is left out: it would equal "none".
    """
    with_views = {task: weight for task, weight in tasks.items() if not plugins.instance("tasks", task).shares_forward}
    return {
        f"{task}_separate": [{"harden": {"tasks": {task: weight}, "attack_tasks": "separate"}}]
        for task, weight in with_views.items()
    }
