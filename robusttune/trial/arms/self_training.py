"""Adversarial training on labelled images, and on others that the model has labelled itself."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["self_training"]


def self_training(tasks: Mapping[str, float]) -> Arms:
    """Train against the adversary on labelled images and on unlabelled ones, whose labels the model gives before training.

    Source: after Carmon et al., arXiv:1905.13736, where a network is trained to give the labels.
    """
    return {"self_training": [{"harden": {"tasks": None, "teacher": "self"}}]}
