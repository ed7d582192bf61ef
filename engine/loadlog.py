"""What llama.cpp said while it failed to open a model, as one sentence for a person.

What can be told from the file itself is told before, by `engine/models.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from infraxa.engine.types import EngineError

KEEP_LINES = 200

_UNKNOWN_ARCHITECTURE = re.compile(r"unknown model architecture: '([^']*)'")
_NO_MEMORY = re.compile(r"failed to allocate|unable to allocate|out of memory|cannot allocate", re.IGNORECASE)
_TRUNCATED = re.compile(
    r"not within the file bounds|corrupted or incomplete|failed to read (key-value|tensor|header)"
    r"|unexpectedly reached end of file|read error|failed to read magic",
    re.IGNORECASE,
)
_VERSION = re.compile(
    r"(bad|unsupported|invalid) (GGUF|file) ?version|GGUFv1 is no longer supported", re.IGNORECASE
)
_UNKNOWN_PART = re.compile(
    r"unknown (pre-tokenizer|tokenizer|model type)[^:]*: *'?([^'\n]*)|invalid ggml type|unknown type",
    re.IGNORECASE,
)
_REASON = re.compile(r"error loading model(?: \w+)?: (.*)")


class LoadLog:
    """Remembers the last lines of llama.cpp's log while a model is opened."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def clear(self) -> None:
        self._lines.clear()

    def add(self, line: str) -> None:
        if len(self._lines) == KEEP_LINES:
            del self._lines[0]
        self._lines.append(line)

    def says(self, pattern: re.Pattern[str]) -> bool:
        return any(map(pattern.search, self._lines))

    def failure(self, path: Path) -> EngineError:
        """The error that these lines tell of. Codes: `unsupported` `truncated` `no_memory` `load_failed`."""
        text = "\n".join(self._lines)
        name = path.name
        if found := _UNKNOWN_ARCHITECTURE.search(text):
            return EngineError(
                "unsupported",
                f"{name} has the architecture “{found[1]}”, which this llama.cpp does not know.",
                "Update llama-cpp-python, or choose another model.",
            )
        if _NO_MEMORY.search(text):
            return EngineError(
                "no_memory",
                f"There is not enough memory to load {name}.",
                "Close other programs, or choose a smaller model or quantization.",
            )
        if _VERSION.search(text) or _UNKNOWN_PART.search(text):
            return EngineError(
                "unsupported",
                f"{name} was written for another version of llama.cpp{_because(text)}.",
                "Update llama-cpp-python, or download a newer conversion of the model.",
            )
        if _TRUNCATED.search(text):
            return EngineError(
                "truncated",
                f"{name} is incomplete or damaged.",
                "Download it again, and compare its SHA-256.",
            )
        return EngineError(
            "load_failed",
            f"llama.cpp could not load {name}{_because(text)}.",
            "The log view shows what llama.cpp said.",
        )


def _because(text: str) -> str:
    reasons: list[str] = _REASON.findall(text)
    return f" ({reasons[-1].strip().rstrip('.')})" if reasons else ""
