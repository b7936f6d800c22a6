"""Adversarial training with PGD of ten steps, as most papers do it."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["pgd"]


def pgd(tasks: Mapping[str, float]) -> Arms:
    """Train against PGD with 10 steps, at the learning rate and the images per step of the default."""
    return {"pgd": [{"harden": {"tasks": None, "attack": "pgd", "steps": 10}}]}
