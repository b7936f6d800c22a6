"""Files written in one step, so that a kill at any moment leaves no damaged one."""

import errno
import os
from contextlib import suppress
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: after a kill, or for another reader, it is either the old file or the new one."""
    draft = path.with_name(path.name + ".part")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OSError:
    """Return the error for a file that cannot be written, such as on a full disk: what happened, and what to do."""
    text = (
        f"{str(path)!r} cannot be written ({error.strerror}): make room for it, or let the folder be written to; what was written "
        "before is whole"
    )
    if error.errno == errno.ENOENT:
        place = os.path.dirname(os.path.abspath(path))
        text = (
            f"{str(path)!r} cannot be written, as the folder {place!r} is not there: was it removed, or did the working "
            "directory change during the run?"
        )
    return OSError(error.errno, text)


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text in one step, as `write_bytes` does."""
    write_bytes(path, text.encode(errors="backslashreplace"))
