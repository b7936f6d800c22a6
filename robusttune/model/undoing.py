"""Clean-up that does not hide the error after which it runs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# In torch's error of a worker that dies, which it raises wherever the program is at that moment, as in a clean-up.
WORKER = "DataLoader worker"

logger = logging.getLogger("robusttune")


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end of this context, also after an error, which an error of `undo` does not replace.

    In that case the error of `undo` is logged, and added to the first error as a note.
    """
    try:
        yield
    except BaseException as error:
        failure = _failure_of(undo)
        if WORKER in str(failure):
            failure = _failure_of(undo)
        if failure is not None:
            note = f"what was changed could not be restored in full afterwards ({type(failure).__name__}: {failure})"
            logger.error(note)
            if hasattr(error, "add_note"):
                error.add_note(note)
        raise
    undo()


def _failure_of(undo: Callable[[], object]) -> Exception | None:
    try:
        undo()
    except Exception as failure:
        return failure
    return None
