"""Arms of a trial, one file each: an arm, or a family of arms with one for each pretext task, see `Arm`."""

from collections.abc import Mapping
from typing import Protocol

from robusttune.trial.results import Arms

__all__ = ["Arm", "Arms"]


class Arm(Protocol):
    """The contract of a file in `trial/arms/`: a function from pretext tasks to arms, each of which is a list of phases.

    A phase is {"pretrain" | "ordinary" | "harden": {setting: value}}, as in the plan that people read; the setting
    `share` is the phase's share of the arm's compute.
    """

    def __call__(self, tasks: Mapping[str, float], /) -> Arms:
        """Return {name: phases} for pretext tasks with these weights."""
