"""The files that pulls have put on the disk: where they are, and how they go again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders


def models_folder(folders: Folders) -> Path:
    """Where the models lie that were pulled."""
    return folders.data / "models"


def is_pulled(folders: Folders, path: Path) -> bool:
    """Whether a pull has put this file there."""
    return Path(os.path.normpath(path)).is_relative_to(models_folder(folders))


def delete_files(folders: Folders, files: Sequence[Path]) -> None:
    """Delete what pulls have put there, and the folders that are empty then; other files are left alone.
    Raises NodeError `io`."""
    for path in files:
        if not is_pulled(folders, path):
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise NodeError(
                "io", f"{path} cannot be deleted: {error.strerror or error}.", "Delete it yourself."
            ) from error
        with contextlib.suppress(OSError):
            path.parent.rmdir()
            path.parent.parent.rmdir()
