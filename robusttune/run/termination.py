"""SIGTERM, by which schedulers and `kill` end a process: like Ctrl-C, and at the end of a step where steps are taken."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 128 + signal.SIGTERM  # as a shell reports the signal

_state = threading.local()


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM; without a handler of the user's it exits with code 143."""

    def __init__(self) -> None:
        super().__init__(CODE)

    def __str__(self) -> str:
        return "SIGTERM"

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Terminated, ()


@contextmanager
def awaited() -> Iterator[None]:
    """Raise `Terminated` at a SIGTERM inside this context, so that the model and the folder are left as after Ctrl-C.

    A handler of the user's stays in place, and so does the system's in other threads than the main one.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _state.deferred, _state.asked, _state.process = False, False, os.getpid()
    signal.signal(signal.SIGTERM, _asked)
    try:
        yield
    finally:
        _state.asked = False
        if signal.getsignal(signal.SIGTERM) is _asked:  # else the user's, from inside
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Defer a SIGTERM inside this context until `asked` is checked after a step; a second SIGTERM acts at once."""
    outer = bool(getattr(_state, "deferred", False))  # of a run inside another one's on_epoch
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = outer
    if asked() and not outer:
        raise Terminated


def asked() -> bool:
    """Return True if a SIGTERM has come, for which the run should write its state and raise `Terminated`."""
    return bool(getattr(_state, "asked", False))


def _asked(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a process that was forked inside the run ends as any other
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        return
    if not _state.deferred or _state.asked:
        raise Terminated
    _state.asked = True
