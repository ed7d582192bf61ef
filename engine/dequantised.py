"""The same weights as numbers of 16 bits, in a file for a while: arithmetic on them rounds elsewhere, as that
of other machines does. For calibration.py."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import Final

from infraxa.engine.bindings import api as _api
from infraxa.engine.llama import Model

MOST: Final = 2 << 30
"""Bytes of a copy: writing it takes a core for some seconds, and it is in memory beside the model."""
SHARE: Final = 3
"""Memory and disk must have room for so many of them."""
NAME: Final = "weights-f16.gguf"


class Copy:
    """Is written by a thread from now on."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.path = folder / NAME
        self._source = model.path
        self._given_up = False
        self._written = False
        self._thread = threading.Thread(target=self._write, name="copy of the weights", daemon=True)
        self._thread.start()

    @staticmethod
    def fits(model: Model, folder: Path, free: int) -> bool:
        """Whether there is room for one, `free` being bytes of memory, and it is another than the model."""
        size = 2 * int(_api.llama_model_n_params(model.handle))
        if size > MOST or size <= model.size_bytes or SHARE * size > free:
            return False
        try:
            return SHARE * size <= shutil.disk_usage(folder).free
        except OSError:
            return False

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def written(self) -> bool:
        """False also when it could not be written."""
        return self._written

    def _write(self) -> None:
        params = _api.llama_model_quantize_default_params()
        params.nthread = 1
        params.ftype = _api.LLAMA_FTYPE_MOSTLY_F16
        params.allow_requantize = True
        code = _api.llama_model_quantize(os.fsencode(self._source), os.fsencode(self.path), params)
        self._written = code == 0
        if self._given_up:
            self._remove()

    def close(self) -> None:
        """Removes the file; as soon as it is written, if it is not."""
        self._given_up = True
        if not self._thread.is_alive():
            self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink()
