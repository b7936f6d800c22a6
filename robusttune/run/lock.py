"""A lock on a folder: one run writes to it at a time, and the lock of a dead process is released."""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from robusttune.run.log import logger
from robusttune.types import from_json

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
_files: set[int] = set()
_guard = threading.Lock()


def _forget() -> None:
    """Close the lock files in a child process, such as a loader's worker, which would else hold the locks after the parent's death."""
    _held.clear()
    for file in _files:
        with suppress(OSError):
            os.close(file)
    _files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder inside this context; the thread that holds it may ask again.

    The system frees the lock of a process that dies. Some shared file systems do not tell one machine of another's locks, so
    the file also names its process, and its time is renewed every few seconds; a lock of another machine without a sign of
    life for 20 seconds is taken over, after a wait of that long at most.

    Raises:
        ValueError: another run holds it, with its process and machine.
    """
    key, me, process = str(folder.resolve()), threading.get_ident(), os.getpid()
    with _guard:
        held = _held.get(key)
        if held is not None and held.thread != me:
            raise ValueError(_in_use(folder, f"process {process}, in another thread"))
        _held[key] = _Held(me, 1 if held is None else held.times + 1)
    try:
        if held is not None:
            yield
        else:
            with _taken(folder):
                yield
    finally:
        with _guard:
            known = _held.pop(key, None) if os.getpid() == process else None
            if known is not None and known.times > 1:
                _held[key] = _Held(me, known.times - 1)


@contextmanager
def _taken(folder: Path) -> Iterator[None]:
    """Take the lock of a folder from the system, and renew its sign of life until the end."""
    path, process = folder / FILE, os.getpid()
    file, by_system = _opened(path, folder)
    over = threading.Event()
    try:
        _wait_for_signs(file, path, folder, by_system)
        about = {"process": process, "machine": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(about).encode())
        if not by_system:  # another process may have written at the same time
            time.sleep(POLL)
            if _known(file) != about:
                raise ValueError(_in_use(folder, _described(_known(file))))
    except BaseException:
        _close(file)
        raise
    threading.Thread(target=_signs_of_life, args=(path, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        if os.getpid() == process:
            with suppress(OSError):  # on a disk that is read-only by now, it stays, and is stale
                path.unlink()  # while it is locked: who waits for it sees that it is another file
            _close(file)


def _close(file: int) -> None:
    _files.discard(file)
    with suppress(OSError):
        os.close(file)


def _opened(path: Path, folder: Path) -> tuple[int, bool]:
    """Open and lock the file, which another process may remove in between; returns whether the system could lock it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ValueError(
                f"{str(folder)!r} cannot be written to ({error.strerror}): name a folder that can be; nothing was begun"
            ) from error
        by_system, who = _lock(file)
        if who is None and _is_still(file, path):
            _files.add(file)
            return file, by_system
        os.close(file)
        if who is not None:
            raise ValueError(_in_use(folder, who))


def _lock(file: int) -> tuple[bool, str | None]:
    """Lock a file; returns whether its file system has locks, and who holds it already, in words."""
    if fcntl is None:
        return False, None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS, None if error.errno in NO_LOCKS else _described(_known(file))
    return True, None


def _is_still(file: int, path: Path) -> bool:
    """Return True if the open file is the one at the path."""
    try:
        return os.fstat(file).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _wait_for_signs(file: int, path: Path, folder: Path, by_system: bool) -> None:
    """Watch the file for a sign of life of the process that it names, unless the system's lock shows that this process is dead.

    Raises:
        ValueError: there is one.
    """
    known = _known(file)
    if not known or (by_system and known.get("machine") == socket.gethostname()):
        return
    written = path.stat().st_mtime
    os.utime(path)  # by the clock of the file system, which may not be that of this machine
    now = path.stat().st_mtime
    os.utime(path, (written, written))
    left = STALE - (now - written)
    if left > 0:
        logger.info("%s names a run of %s: waiting up to %.0f s for a sign of life", path, _described(known), left)
    until = time.monotonic() + left
    while time.monotonic() < until:
        time.sleep(POLL)
        if not path.exists() or path.stat().st_mtime != written:
            raise ValueError(_in_use(folder, _described(known)))


def _signs_of_life(path: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        try:
            os.utime(path)
        except OSError:  # read-only by now, or gone
            return


def _known(file: int) -> dict[str, object]:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        known = from_json(os.read(file, 4096))
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
