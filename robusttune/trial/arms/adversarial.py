"""Adversarial training without pretext tasks."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["adversarial"]


def adversarial(tasks: Mapping[str, float]) -> Arms:
    """Train against the adversary alone; every other arm takes as much compute as this one."""
    return {"adversarial": [{"harden": {"tasks": None}}]}
