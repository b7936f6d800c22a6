"""Ordinary training, then adversarial training."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["ordinary_adversarial"]


def ordinary_adversarial(tasks: Mapping[str, float]) -> Arms:
    """Train on without an adversary for a quarter of the compute, then train against the adversary."""
    return {"ordinary_adversarial": [{"ordinary": {"share": 0.25}}, {"harden": {"tasks": None}}]}
