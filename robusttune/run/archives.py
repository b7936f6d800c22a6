"""Size limit for archives: the uncompressed size is checked before anything is extracted."""

import io
import zipfile
from pathlib import Path

MOST = 2**30  # bytes of what was compressed, after unpacking


def check_expansion(file: Path | io.BytesIO, what: str) -> None:
    """Raise a ValueError for a zip archive whose contents take far more room than the file; other files pass.

    Contents that are not compressed may be as large as the file. Compressed ones, such as those of numpy, are read up to a
    gigabyte.

    Args:
        file: the archive, or its bytes.
        what: a name of the file, for the error.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        packed = [each for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
    size = sum(each.file_size for each in packed)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    if size > MOST:
        raise ValueError(
            f"{what} would take {size / 2**30:.1f} GiB when unpacked, which no such file of this library does: it is not read"
        )
