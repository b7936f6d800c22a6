"""A lock on a folder: one run writes to it at a time, and a process that dies gives it free."""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from robusttune.run.log import logger

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
BEAT = 5.0  # seconds between two signs of life
STALE = 4 * BEAT  # without one, the process of another machine is taken to have died
POLL = 0.5
# Errors of file systems that have no locks, such as some shared ones.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class _Held(NamedTuple):
    thread: int
    times: int


_held: dict[str, _Held] = {}  # folders locked by this process: a thread may lock its own again
_guard = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # the system does not hand locks on to a child


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside this context; the thread that holds it may ask again.

    The system frees the lock of a process that dies. Some shared file systems do not tell one machine of another's locks, so
    the file also names its process, and its time is renewed every few seconds; a lock of another machine without a sign of
    life for 20 seconds is taken over, after a wait of that long at most.

    Raises:
        ValueError: another run holds it, with its process and machine.
    """
    key, me = str(folder.resolve()), threading.get_ident()
    with _guard:
        held = _held.get(key)
        if held is not None and held.thread != me:
            raise ValueError(_in_use(folder, f"process {os.getpid()}, in another thread"))
        _held[key] = _Held(me, 1 if held is None else held.times + 1)
    try:
        if held is not None:
            yield
        else:
            with _taken(folder):
                yield
    finally:
        with _guard:
            left = _held[key].times - 1
            if left:
                _held[key] = _Held(me, left)
            else:
                del _held[key]


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """Take the lock of a folder from the system, and renew its sign of life until the end."""
    path = folder / FILE
    file = _opened(path, folder)
    over = threading.Event()
    try:
        _wait_for_another_machine(file, folder)
    except BaseException:
        os.close(file)
        raise
    try:
        about = {"process": os.getpid(), "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(about).encode(), 0)
        threading.Thread(target=_signs_of_life, args=(file, over), daemon=True).start()
        yield
    finally:
        over.set()
        path.unlink(missing_ok=True)  # while it is locked: who waits for it sees that it is another file
        os.close(file)


def _opened(path: Path, folder: Path) -> int:
    """Open and lock the file, which another process may remove in between."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(
                f"{str(folder)!r} cannot be written to ({error.strerror}): name a folder that can be; nothing was begun"
            ) from error
        who = _lock(file)
        if who is None and _is_still(file, path):
            return file
        os.close(file)
        if who is not None:
            raise ValueError(_in_use(folder, who))


def _lock(file: int) -> str | None:
    """Lock a file, where its file system has locks; returns who holds the lock already, in words."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in NO_LOCKS else _described(_known(file))
    return None


def _is_still(file: int, path: Path) -> bool:
    """Return True if the open file is the one at the path."""
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _wait_for_another_machine(file: int, folder: Path) -> None:
    """Wait for a sign of life of the process of another machine that the file names.

    Raises:
        ValueError: there is one.
    """
    known = _known(file)
    here = known.get("machine") in (None, socket.gethostname())
    if not known or (here and fcntl is not None):
        return
    written = os.fstat(file).st_mtime
    os.utime(file)  # by the clock of the file system, which may not be that of this machine
    now = os.fstat(file).st_mtime
    os.utime(file, (written, written))
    left = STALE - (now - written)
    if left > 0:
        logger.info(
            "%s names a run of %s: waiting up to %.0f s for a sign of life", folder / FILE, _described(known), left
        )
    until = time.monotonic() + left
    while time.monotonic() < until:
        time.sleep(POLL)
        if os.fstat(file).st_mtime != written:
            raise ValueError(_in_use(folder, _described(known)))


def _signs_of_life(file: int, over: threading.Event) -> None:
    while not over.wait(BEAT):
        try:
            os.utime(file)
        except OSError:  # read-only by now, or closed
            return


def _known(file: int) -> dict[str, object]:
    try:
        known = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _described(known: dict[str, object]) -> str:
    if not known:
        return "another process"
    return f"process {known.get('process')} on {known.get('machine')} since {known.get('since')}"


def _in_use(folder: Path, who: str) -> str:
    return (
        f"{str(folder)!r} is in use by another run ({who}): wait until it ends, stop it, or name another folder; nothing was "
        "written"
    )
