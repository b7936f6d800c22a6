"""Check that the tasks of saved heads are those that the heads were trained on."""

import os
from collections.abc import Mapping
from pathlib import Path

from robusttune import plugins
from robusttune.run.about import read_run
from robusttune.tasks import Task
from robusttune.types import PathLike


def check_as_trained(source: object, tasks: Mapping[str, Task]) -> None:
    """Raise a ValueError if a run trained a head with other settings of its task, so that its answers mean something else.

    Args:
        source: the folder of a run, or a file in it; for anything else nothing is known, and nothing is refused.
        tasks: by name, as they are to be used.
    """
    if not isinstance(source, str | os.PathLike):
        return
    trained = _trained_tasks(source)
    for name, task in tasks.items():
        before = trained.get(name)
        if before is not None and name in plugins.names("tasks") and before != repr(task):
            raise ValueError(
                f"the {name} head in {str(source)!r} was trained on the task {before}, and {task!r} would misread its answers: pass "
                f"tasks={{{before}: …}} here, or the result of load_heads(folder, model, tasks={{{before}: 1.0}}) as heads="
            )


def _trained_tasks(source: PathLike) -> dict[str, str]:
    """Return the tasks of a run in words, as `repr` gives them, by their names."""
    path = Path(source)
    run = read_run(path if path.is_dir() else path.parent)
    recorded = None if run is None else run.arguments.get("tasks")
    if not isinstance(recorded, Mapping):
        return {}
    known = plugins.names("tasks")
    words = {key.partition("(")[0]: key for key in recorded}
    return {
        name: word if "(" in word or name not in known else repr(plugins.instance("tasks", name))
        for name, word in words.items()
    }
