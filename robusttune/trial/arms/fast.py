"""Adversarial training with one step of attack."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["fast"]


def fast(tasks: Mapping[str, float]) -> Arms:
    """Train with the preset "fast", without pretext tasks."""
    return {"fast": [{"harden": {"preset": "fast", "tasks": None}}]}
