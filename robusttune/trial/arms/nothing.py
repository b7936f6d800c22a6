"""The model as it is."""

from collections.abc import Mapping

from robusttune.trial.arms import Arms

__all__ = ["nothing"]


def nothing(tasks: Mapping[str, float]) -> Arms:
    """The arm that every other one has to beat: the model as it is."""
    return {"nothing": []}
