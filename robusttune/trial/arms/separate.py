"""Adversarial training with a pretext task beside it, which has an attack of its own."""

from collections.abc import Mapping

from robusttune import plugins
from robusttune.trial.results import Arms

__all__ = ["separate"]


def separate(tasks: Mapping[str, float]) -> Arms:
    """For each task: adversarial training in which views are attacked on the pretext loss.

    A task that reads the class's own forward pass has no view to attack, so it would be as with "none".
    """
    own = {task: weight for task, weight in tasks.items() if not plugins.instance("tasks", task).shares_forward}
    return {
        f"{task}_separate": [{"harden": {"tasks": {task: weight}, "attack_tasks": "separate"}}]
        for task, weight in own.items()
    }
