"""Adversarial training without pretext tasks."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["adversarial"]


def adversarial(tasks: Mapping[str, float]) -> Arms:
    """Adversarial training without pretext tasks, whose compute is the measure of all arms'."""
    return {"adversarial": [{"harden": {"tasks": None}}]}
