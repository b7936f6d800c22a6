"""Pretext tasks as users spell them, and the weights that these spellings stand for."""

import sys
from collections.abc import Mapping, Sequence

from robusttune.plugins import instance
from robusttune.tasks import TASKS, Task, TasksLike, TaskWeights
from robusttune.types import refuse_arrays, says, shown

WEIGHT = 0.5  # weight of a task that is named without one
NONE = ("none", "null")


def task_weights(tasks: TasksLike, auto: TaskWeights | None = TASKS) -> TaskWeights | None:
    """Return the weight of each task; None for no task.

    Args:
        tasks: {name or object: weight}; a name or an object alone, or a list of them, which take the weight that "auto" gives;
            "auto"; None, "none" or "null" for no task.
        auto: the tasks that "auto" stands for.

    Raises:
        ValueError: a task is unknown, is listed twice, or is no task; "none" or "auto" stands beside a task.

    Example:
        >>> task_weights("rotation"), task_weights(["jigsaw", {"rotation": 1.0}]), task_weights("None")
        ({'rotation': 0.5}, {'jigsaw': 0.5, 'rotation': 1.0}, None)
    """
    refuse_arrays({"tasks": tasks})
    if tasks is None or _says_none(tasks):
        return None
    if says(tasks, "auto"):
        return auto
    if isinstance(tasks, Mapping):
        _check_names(tasks)
        return tasks
    listed = tasks if isinstance(tasks, Sequence) and not isinstance(tasks, str) else [tasks]
    if len(listed) == 1 and (_says_none(listed[0]) or says(listed[0], "auto")):
        return task_weights(listed[0], auto)
    weights: dict[str | Task, float] = {}
    for entry in listed:
        if _says_none(entry) or says(entry, "auto"):
            raise ValueError(f"tasks is {tasks!r}, but {entry!r} can only stand alone: leave it out, or the others")
        added = entry if isinstance(entry, Mapping) else {entry: weight_of(entry)}
        twice = [task for task in added if task in weights]
        if twice:
            raise ValueError(f"tasks names {twice[0]!r} twice: leave one of them out")
        weights.update(added)
    return weights


def felt(weights: TaskWeights | None) -> dict[str | Task, float]:
    """Return the tasks that the backbone learns from; those of weight 0 train their heads alone.

    Example:
        >>> felt({"rotation": 0.5, "jigsaw": 0.0}), felt(None)
        ({'rotation': 0.5}, {})
    """
    return {
        task: weight
        for task, weight in (weights or {}).items()
        if checked_weight(str(getattr(task, "name", task)), weight)
    }


def weight_of(task: str | Task) -> float:
    """Return the weight of a task that is named alone: the one that "auto" gives.

    Raises:
        ValueError: there is no such task.
    """
    if not isinstance(task, str) and not hasattr(task, "draw"):
        raise ValueError(
            f"tasks is {task!r}, but a dict of weights is needed, such as {TASKS}, or names of tasks; None for no pretext task"
        )
    return TASKS.get(instance("tasks", task).name, WEIGHT)


def checked_weight(task: str, weight: float) -> float:
    """Return the weight of a task; raise a ValueError for anything else than a number of at least 0."""
    if not (isinstance(weight, int | float) and 0 <= weight <= sys.float_info.max):
        raise ValueError(f"the weight of task {task!r} is {shown(weight)}, but a number of at least 0 is needed")
    return float(weight)


def _check_names(weights: TaskWeights) -> None:
    """Raise a ValueError for a number instead of a task, as a decimal comma makes one."""
    wrong = next((task for task in weights if isinstance(task, int | float)), None)
    if wrong is not None:
        raise ValueError(
            f"tasks has {wrong!r} in the place of a task: write {{task: weight}}, and the weight with a point, such as {TASKS}"
        )


def _says_none(entry: object) -> bool:
    return entry is None or (isinstance(entry, str) and entry.lower() in NONE)
