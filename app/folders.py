"""Where this node keeps its files. Paths only: who writes what into them is decided elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from infraxa.app.errors import NodeError

DATA_DIR_VARIABLE = "INFRAXA_DATA_DIR"


def whole_path(path: str | Path) -> Path:
    """`path` from the root, `~` resolved; a `~name` that nobody has stays as it is."""
    return Path(os.path.expanduser(path)).absolute()


class Folders(msgspec.Struct, frozen=True):
    """The three folders of one node; they may be the same one."""

    data: Path
    """The store and its lock."""
    config: Path
    """`config.toml` and `themes/`."""
    log: Path

    @classmethod
    def find(cls, data_dir: Path | None, environ: Mapping[str, str]) -> Folders:
        """The folders of this person; `data_dir`, else INFRAXA_DATA_DIR, puts everything in that one folder.

        Nothing is created here.
        """
        chosen = data_dir if data_dir is not None else environ.get(DATA_DIR_VARIABLE)
        if chosen:
            folder = whole_path(chosen)
            return cls(folder, folder, folder / "logs")
        import platformdirs

        dirs = platformdirs.PlatformDirs("infraxa", appauthor=False)
        return cls(dirs.user_data_path, dirs.user_config_path, dirs.user_log_path)

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def themes(self) -> Path:
        return self.config / "themes"

    def make(self) -> None:
        """Create what is missing, for its owner only; `NodeError` `bad_folder` says why it cannot be."""
        for folder in (self.data, self.config, self.log):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise NodeError(
                    "bad_folder",
                    f"The folder {folder} cannot be made: {error.strerror or error}.",
                    "Choose another one with --data-dir or INFRAXA_DATA_DIR.",
                ) from error
