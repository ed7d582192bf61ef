"""Reads the header of a GGUF file: its keys and the table of its tensors, never their data.

The file may come from anyone, so every count and length is checked against what the file can hold before it
is believed; memory and time stay bounded. (`gguf.GGUFReader` makes several numpy arrays per entry of the
vocabulary: 7 s and 500 MB where this takes 0.05 s and 3 MB.) What the keys mean is in models.py.
Source: github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from infraxa.engine.types import EngineError

MAX_HEADER = 128 << 20
"""Bytes before the tensor data; a vocabulary of 260,000 takes about 10 MB."""
MAX_KEYS = 65_536
MAX_TENSORS = 100_000
MAX_KEY_LENGTH = 65_535
MAX_STRING = 8 << 20
"""Bytes of one text; the longest known chat templates take under 1 MB."""
MAX_ARRAY = 4_000_000
"""Entries of one list."""
KEPT_ARRAY = 4096
"""Longer lists (the vocabulary) are counted and not kept."""
KEPT_ENTRIES = 1 << 18
"""Of all lists together."""
MAX_WHOLE = 1 << 20
"""Entries of a list that is asked for whole."""
MAX_WHOLE_BYTES = 16 << 20
"""Of the texts of one such list, and their lengths."""

_CHUNK = 1 << 20
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEFAULT_ALIGNMENT = 32

Value = int | float | bool | str | list["int | float | bool | str"]


class Tensor(msgspec.Struct, frozen=True):
    """One row of the tensor table."""

    name: str
    shape: tuple[int, ...]
    """Fastest dimension first, as in the file."""
    type_id: int
    offset: int
    """Bytes from the start of the data."""


class Header(msgspec.Struct, frozen=True):
    """What stands before the tensor data."""

    version: int
    values: dict[str, Value]
    counts: dict[str, int]
    """The length of every list, also of those that were too long to keep."""
    lists: dict[str, list[bytes] | list[int]]
    """Those that were asked for whole, texts as their bytes."""
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    file_size: int


def open_model_file(path: Path) -> BinaryIO:
    """Open a regular file, or say in one `EngineError` `not_found` why it cannot be."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for ever
            kind = "is a folder" if path.is_dir() else "is not a file"
            raise EngineError("not_found", f"{path} {kind}.", "Give the path of a GGUF file.")
        return path.open("rb")
    except FileNotFoundError:
        raise EngineError("not_found", f"There is no file {path}.", "Check the path.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise EngineError("not_found", f"{path} cannot be read: {reason}.", "Check the path.") from error


def read_header(path: Path, whole: frozenset[str] = frozenset()) -> Header:
    """The header of the GGUF file at `path`; `whole`: keys whose lists of texts or whole numbers are given in
    `lists`, of any length up to MAX_WHOLE.

    Raises EngineError `not_found`, `not_gguf` (another kind of file, or damaged), `truncated` (ends too soon)
    or `unsupported` (a version or byte order that nothing here reads).
    """
    with open_model_file(path) as file:
        return _Reader(path, file, whole).header()


class _Reader:
    """A cursor over the header that never reads past the end of the file or of the limits."""

    def __init__(self, path: Path, file: BinaryIO, whole: frozenset[str]) -> None:
        self._path = path
        self._file = file
        self._whole = whole
        self._lists: dict[str, list[bytes] | list[int]] = {}
        self._size = os.fstat(file.fileno()).st_size
        self._buffer = b""
        self._at = 0
        self._kept = 0
        self._before = 0
        """File offset of the buffer's first byte."""

    def header(self) -> Header:
        if self._size < 4 or self._take(4) != b"GGUF":
            raise EngineError(
                "not_gguf",
                f"{self._path} is not a GGUF file.",
                "infraxa runs models in the GGUF format, as llama.cpp does.",
            )
        version = self._number("I")
        if version not in (2, 3):
            swapped = version & 0xFFFF == 0 and version != 0
            problem = "is a big-endian GGUF file" if swapped else f"has GGUF version {version}"
            raise EngineError("unsupported", f"{self._path} {problem}.", "Versions 2 and 3 can be read.")
        n_tensors = self._count("Q", MAX_TENSORS, least=24, what="tensors")
        n_keys = self._count("Q", MAX_KEYS, least=13, what="keys")
        values: dict[str, Value] = {}
        counts: dict[str, int] = {}
        for _ in range(n_keys):
            key = self._string(MAX_KEY_LENGTH, "a key")
            if key in values or key in counts:
                raise self._damaged(f"the key {key[:80]!r} is there twice")
            self._value(key, values, counts)
        alignment = values.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"an alignment of {str(alignment)[:40]} is not possible")
        tensors = tuple(self._tensor() for _ in range(n_tensors))
        end = self._before + self._at
        data_offset = -(-end // alignment) * alignment
        return Header(version, values, counts, self._lists, tensors, alignment, data_offset, self._size)

    def _value(self, key: str, values: dict[str, Value], counts: dict[str, int]) -> None:
        kind = self._number("I")
        if kind != _ARRAY:
            values[key] = self._single(kind, key)
            return
        kind = self._number("I")
        if kind == _STRING:
            n = self._count("Q", MAX_ARRAY, least=8, what=f"entries of {key}")
            if key in self._whole:
                self._lists[key] = self._texts(n, key)
            elif self._keeps(n):
                values[key] = [self._string(MAX_STRING, key) for _ in range(n)]
            else:
                self._skip_strings(n, key)
        elif kind in _SCALARS:
            code = _SCALARS[kind]
            width = struct.calcsize("<" + code)
            n = self._count("Q", MAX_ARRAY, least=width, what=f"entries of {key}")
            if key in self._whole and code not in "fd?":
                self._may_be_whole(n, key)
                self._lists[key] = list(struct.unpack(f"<{n}{code}", self._take(n * width)))
            elif self._keeps(n):
                values[key] = list(struct.unpack(f"<{n}{code}", self._take(n * width)))
            else:
                self._skip(n * width)
        else:
            raise self._damaged(f"the key {key[:80]!r} has a list of the unknown type {kind}")
        counts[key] = n

    def _texts(self, count: int, key: str) -> list[bytes]:
        """All of `count` strings; the loop is written out as in _skip_strings."""
        self._may_be_whole(count, key)
        unpack = struct.Struct("<Q").unpack_from
        texts: list[bytes] = []
        room = MAX_WHOLE_BYTES
        while len(texts) < count:
            buffer, at, end = self._buffer, self._at, len(self._buffer)
            while len(texts) < count and at + 8 <= end:
                following = at + 8 + unpack(buffer, at)[0]
                if following > end:
                    break
                texts.append(buffer[at + 8 : following])
                at = following
            room -= at - self._at
            self._at = at
            if len(texts) < count:  # this one lies across the buffer's end
                length = self._number("Q")
                if length > room:
                    raise self._too_long(f"its {key[:80]} are over {MAX_WHOLE_BYTES >> 20} MB")
                texts.append(self._take(length))
                room -= length
        if room < 0:
            raise self._too_long(f"its {key[:80]} are over {MAX_WHOLE_BYTES >> 20} MB")
        return texts

    def _may_be_whole(self, count: int, key: str) -> None:
        if count > MAX_WHOLE:
            raise self._too_long(f"it has {count:,} {key[:80]}")

    def _keeps(self, n: int) -> bool:
        if n > KEPT_ARRAY or self._kept + n > KEPT_ENTRIES:
            return False
        self._kept += n
        return True

    def _single(self, kind: int, key: str) -> int | float | bool | str:
        if kind == _STRING:
            return self._string(MAX_STRING, key)
        if kind not in _SCALARS:
            raise self._damaged(f"the key {key[:80]!r} has the unknown type {kind}")
        code = "<" + _SCALARS[kind]
        value: int | float | bool = struct.unpack(code, self._take(struct.calcsize(code)))[0]
        return value

    def _tensor(self) -> Tensor:
        name = self._string(MAX_KEY_LENGTH, "a tensor's name")
        n_dims = self._number("I")
        if n_dims > 4:
            raise self._damaged(f"the tensor {name[:80]!r} has {n_dims} dimensions")
        shape = struct.unpack(f"<{n_dims}Q", self._take(8 * n_dims))
        type_id, offset = struct.unpack("<IQ", self._take(12))
        return Tensor(name, shape, type_id, offset)

    def _number(self, code: str) -> int:
        value: int = struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]
        return value

    def _count(self, code: str, limit: int, *, least: int, what: str) -> int:
        """A count of things of at least `least` bytes each: not over the limit, nor over the file's size."""
        count = self._number(code)
        if count > limit:
            raise self._damaged(f"it claims {count} {what[:80]}")
        if count * least > self._left():
            raise self._truncated()
        return count

    def _string(self, limit: int, what: str) -> str:
        length = self._number("Q")
        if length > limit:
            raise self._damaged(f"it claims {length} bytes for {what[:80]}")
        return self._take(length).decode("utf-8", "replace")

    def _skip_strings(self, count: int, key: str) -> None:
        """Pass over `count` strings; the loop is written out as vocabularies have 300,000 of them."""
        unpack = struct.Struct("<Q").unpack_from
        done = 0
        while done < count:
            buffer, at, end = self._buffer, self._at, len(self._buffer)
            while done < count and at + 8 <= end:
                following = at + 8 + unpack(buffer, at)[0]
                if following > end:
                    break
                at = following
                done += 1
            self._at = at
            if done < count:  # this one lies across the buffer's end
                length = self._number("Q")
                if length > MAX_STRING:
                    raise self._damaged(f"it claims {length} bytes for an entry of {key[:80]}")
                self._skip(length)
                done += 1

    def _left(self) -> int:
        """Bytes of the file after the cursor."""
        return self._size - self._before - self._at

    def _skip(self, n: int) -> None:
        while n > 0:
            step = min(n, _CHUNK)
            self._take(step)
            n -= step

    def _take(self, n: int) -> bytes:
        if n > self._left():
            raise self._truncated()
        missing = self._at + n - len(self._buffer)
        if missing > 0:
            if self._before + self._at + n > MAX_HEADER:
                raise self._damaged(f"its header is over {MAX_HEADER >> 20} MB")
            rest = self._buffer[self._at :]
            self._before += self._at
            self._buffer = rest + self._file.read(max(missing, _CHUNK))
            self._at = 0
            if len(self._buffer) < n:  # it became shorter meanwhile
                raise self._truncated()
        taken = self._buffer[self._at : self._at + n]
        self._at += n
        return taken

    def _too_long(self, reason: str) -> EngineError:
        return EngineError("unsupported", f"{self._path} is beyond what is read: {reason}.", "Use another.")

    def _damaged(self, reason: str) -> EngineError:
        return EngineError(
            "not_gguf", f"{self._path} is damaged: {reason}.", "Download or copy the file again."
        )

    def _truncated(self) -> EngineError:
        return EngineError(
            "truncated",
            f"{self._path} is not complete: it ends within its header, after {self._size:,} bytes.",
            "Download or copy the file again.",
        )
