"""What host and worker say to each other over the pipe, and how it is cut into frames.

A frame is a little-endian uint32 length and so many bytes of msgpack: one tagged struct. Nothing here reads
or writes a file descriptor: bytes in, messages out.
"""

from __future__ import annotations

import struct

import msgspec

from infraxa.engine.types import (
    ChatMessage,
    ErrorInfo,
    Finished,
    KvType,
    Loaded,
    LoadOptions,
    Request,
    Scored,
    TokenLogprob,
)

MAX_FRAME = 64 * 1024 * 1024
"""Bytes; far above the longest conversation, far below what a broken length would ask for."""

_LENGTH = struct.Struct("<I")


class FrameError(Exception):
    """The other side sent something that is not a frame of ours."""


# Host to worker.


class Load(msgspec.Struct, frozen=True, tag="load", array_like=True):
    """The first thing a worker is told; it loads one model in its life."""

    path: str
    options: LoadOptions


class Generate(msgspec.Struct, frozen=True, tag="generate", array_like=True):
    id: int
    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel", array_like=True):
    id: int


class Count(msgspec.Struct, frozen=True, tag="count", array_like=True):
    id: int
    messages: tuple[ChatMessage, ...]


class Embed(msgspec.Struct, frozen=True, tag="embed", array_like=True):
    id: int
    texts: tuple[str, ...]


class Score(msgspec.Struct, frozen=True, tag="score", array_like=True):
    """See scoring.py."""

    id: int
    request: Request
    answer: tuple[int, ...]
    steps: tuple[int, ...]
    ids: tuple[bytes, ...] = ()
    kv_type: KvType = "f16"
    most: int = 0
    """Tokens that the prompt and the answer may have; 0: as many as the model was trained for."""
    chars: int = 0
    """So many characters of the text are hashed, from its beginning on; 0: all of it."""


class Calibrate(msgspec.Struct, frozen=True, tag="calibrate", array_like=True):
    id: int
    scratch: str = ""
    """A folder that a copy of the weights may be written to; empty: none may."""


class Close(msgspec.Struct, frozen=True, tag="close", array_like=True):
    """End now; whoever still waits is told `cancelled` by the host."""


# Worker to host.


class Loading(msgspec.Struct, frozen=True, tag="loading", array_like=True):
    progress: float


class Ready(msgspec.Struct, frozen=True, tag="ready", array_like=True):
    loaded: Loaded


class LoadFailed(msgspec.Struct, frozen=True, tag="load_failed", array_like=True):
    error: ErrorInfo


class Counted(msgspec.Struct, frozen=True, tag="counted", array_like=True):
    id: int
    n_tokens: int
    error: ErrorInfo | None = None


class Embedding(msgspec.Struct, frozen=True, tag="embedding", array_like=True):
    """Of the next of the texts; the last one when there is an error."""

    id: int
    vector: bytes
    n_tokens: int
    error: ErrorInfo | None = None


class ScoreMade(msgspec.Struct, frozen=True, tag="scored", array_like=True):
    id: int
    scored: Scored | None = None
    """The end."""
    error: ErrorInfo | None = None
    done: float = 0.0


class Calibrating(msgspec.Struct, frozen=True, tag="calibrating", array_like=True):
    id: int
    done: float = 0.0
    mu0: float | None = None
    """The end."""
    error: ErrorInfo | None = None


class Beat(msgspec.Struct, frozen=True, tag="beat", array_like=True):
    """Sent every second while there is work. `step` stands still when the decode loop does."""

    step: int
    waiting: bool = False
    """For its turn at the cores: it does nothing, and that is no fault."""


class Reading(msgspec.Struct, frozen=True, array_like=True):
    id: int
    done: int
    total: int


class Emitted(msgspec.Struct, frozen=True, array_like=True):
    id: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each id, when they were asked for."""
    leaves: tuple[bytes, ...] = ()
    ctx0: bytes = b""
    """Both as in Delta."""


class Ended(msgspec.Struct, frozen=True, array_like=True):
    id: int
    finished: Finished


class Steps(msgspec.Struct, frozen=True, tag="steps", array_like=True):
    """What all sequences produced since the last such message; a request's text belongs before its end."""

    step: int
    running: int
    waiting: int
    reading: tuple[Reading, ...] = ()
    emitted: tuple[Emitted, ...] = ()
    ended: tuple[Ended, ...] = ()


ToWorker = Load | Generate | Cancel | Count | Embed | Score | Calibrate | Close
ToHost = Loading | Ready | LoadFailed | Counted | Embedding | ScoreMade | Calibrating | Beat | Steps

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_host: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)


def pack(message: ToWorker | ToHost) -> bytes:
    """One frame. Raises FrameError when it is too long or holds what cannot be written: a lone surrogate, a
    huge number."""
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise FrameError("a text holds characters that are not Unicode") from error
    except (OverflowError, TypeError, ValueError) as error:
        raise FrameError(str(error)) from error
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes is longer than {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def pack_checked(message: ToWorker) -> bytes:
    """As `pack`, and raises FrameError when a value has another type than its field: the worker would refuse
    it."""
    frame = pack(message)
    unpack_to_worker(frame[_LENGTH.size :])
    return frame


class FrameReader:
    """Cuts a byte stream into frames; feed it whatever arrives. `limit` is the longest body, in bytes."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises FrameError on a length above the limit."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > self.limit:
                raise FrameError(f"a frame of {length} bytes was announced")
            if len(buffer) - start - 4 < length:
                break
            frames.append(bytes(buffer[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del buffer[:start]
        return frames


def unpack_to_worker(body: bytes) -> ToWorker:
    """Raises FrameError when the body is not a message of the host."""
    try:
        return _to_worker.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from error


def unpack_to_host(body: bytes) -> ToHost:
    """Raises FrameError when the body is not a message of the worker."""
    try:
        return _to_host.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from error
