"""What the files of a model are like on the disk, by which it is noticed that they are others than before."""

from __future__ import annotations

from typing import NamedTuple

from infraxa.engine.models import ModelInfo
from infraxa.engine.types import EngineError

FileMark = tuple[tuple[int, int, int, int], ...]
"""Of each file: device, inode, size, and time of the last change in nanoseconds."""


class Stamp(NamedTuple):
    """What of a mark can be kept: it is the same after the files were moved."""

    size: int = 0
    """Bytes, all files together; 0: nothing is known."""
    mtime_ns: int = 0
    """The last change of any."""


def mark_of(info: ModelInfo) -> FileMark:
    """What the model's files are like now. Raises EngineError `not_found`."""
    try:
        stats = [path.stat() for path in info.files]
    except OSError as error:
        raise EngineError(
            "not_found", f"The file {error.filename} is missing.", "Choose another model, or add it again."
        ) from None
    return tuple((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def stamp_of(mark: FileMark) -> Stamp:
    return Stamp(sum(size for _, _, size, _ in mark), max(mtime_ns for _, _, _, mtime_ns in mark))
