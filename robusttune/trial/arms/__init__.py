"""Arms of a staged trial: one file for an arm, or for a family of arms with one for each pretext task.

An arm is a function `(tasks) -> {name: phases}`. A phase is {"pretrain" | "ordinary" | "harden": {setting: value}}, with the
settings of `pretrain` or `harden`, as it stands in the plan that people read. A phase's `share` is its part of the arm's
compute. No phases mean no training.
"""

from collections.abc import Mapping
from typing import Protocol

from robusttune.trial.arms._phase import Arms, Phase, PhaseKind, Phases, Settings

__all__ = ["Arm", "Arms", "Phase", "PhaseKind", "Phases", "Settings"]


class Arm(Protocol):
    """The function that a file in `trial/arms/` exports."""

    def __call__(self, tasks: Mapping[str, float], /) -> Arms:
        """Return the phases of each arm by its name.

        Args:
            tasks: pretext tasks and their weights; empty for none.
        """
        ...
