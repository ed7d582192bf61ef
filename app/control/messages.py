"""What a node and its front ends in other processes say to each other, and the limits of it.

A frame is a little-endian uint32 length and so many bytes of msgpack: one tagged struct. Nothing here reads
or writes a socket.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from infraxa.app.events import Event
from infraxa.app.folders import whole_path
from infraxa.engine.frames import FrameError, FrameReader

__all__ = ["FrameError", "FrameReader"]

T = TypeVar("T")

MAX_HELLO = 1024
MAX_FRAME = 32 << 20
"""Bytes; far above the longest conversation."""
MAX_BEHIND = MAX_FRAME + (8 << 20)
"""Bytes that wait for a front end which does not read; with more, it is left alone."""
MAX_RUNNING = 64
"""Calls and streams of one front end at the same time."""
MAX_FRONT_ENDS = 32
WINDOW = 32
"""Values of a stream that are sent before the reader has taken one."""


# Front end to node.


class Hello(msgspec.Struct, frozen=True, tag="hello", array_like=True):
    """The first thing said. Its fields stay as they are in every version, so that each understands it."""

    version: str
    token: str = ""
    """What the data folder holds where a socket file cannot keep others out."""


class Call(msgspec.Struct, frozen=True, tag="call", array_like=True):
    """A call or a stream of the facade is asked for. `id` is the front end's, used once."""

    id: int
    method: str
    arguments: msgspec.Raw


class Stop(msgspec.Struct, frozen=True, tag="stop", array_like=True):
    """`Stream.stop`."""

    id: int


class Cancel(msgspec.Struct, frozen=True, tag="cancel", array_like=True):
    """Nobody waits for this call or stream any more."""

    id: int


class More(msgspec.Struct, frozen=True, tag="more", array_like=True):
    """`count` values of this stream have been taken."""

    id: int
    count: int


# Node to front end.


class Welcome(msgspec.Struct, frozen=True, tag="welcome", array_like=True):
    """The answer to Hello, in every version the same; with another version nothing follows."""

    version: str
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused", array_like=True):
    """The front end broke a rule; nothing follows."""

    reason: str


class Present(msgspec.Struct, frozen=True, tag="present", array_like=True):
    """How things are, as the events that lead there. What is told afterwards follows from it."""

    events: tuple[Event, ...]


class Told(msgspec.Struct, frozen=True, tag="told", array_like=True):
    event: Event


class Result(msgspec.Struct, frozen=True, tag="result", array_like=True):
    """What a call returned."""

    id: int
    value: msgspec.Raw


class Item(msgspec.Struct, frozen=True, tag="item", array_like=True):
    """The next value of a stream."""

    id: int
    value: msgspec.Raw


class End(msgspec.Struct, frozen=True, tag="end", array_like=True):
    """The stream has no more values."""

    id: int


class Failed(msgspec.Struct, frozen=True, tag="failed", array_like=True):
    """The call or stream ended with what a person can be told; `kind` is the class of the error."""

    id: int
    kind: str
    code: str
    message: str
    remedy: str


class Progressed(msgspec.Struct, frozen=True, tag="progressed", array_like=True):
    """What the call's `on_progress` is to be told."""

    id: int
    done: int
    total: int


ToNode = Hello | Call | Stop | Cancel | More
ToFrontEnd = Welcome | Refused | Present | Told | Result | Item | End | Failed | Progressed


def _plain(value: object) -> object:
    """A path of this process means the same in the other one."""
    if isinstance(value, Path):
        return str(whole_path(value))
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _rebuilt(kind: type[Any], value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"{kind.__name__} cannot be received")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_to_node: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
_to_front_end: msgspec.msgpack.Decoder[ToFrontEnd] = msgspec.msgpack.Decoder(ToFrontEnd)


def encode(value: object) -> msgspec.Raw:
    """Arguments or a result. Raises FrameError when it cannot be written: a lone surrogate, a huge number."""
    try:
        return msgspec.Raw(_encoder.encode(value))
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError) as error:
        raise FrameError("it holds what cannot be sent, such as a character that is not Unicode") from error


def decode(value: msgspec.Raw, kind: type[T]) -> T:
    """What `encode` made. Raises FrameError when it is not a `kind`."""
    return _decoded(msgspec.msgpack.Decoder(kind, dec_hook=_rebuilt), value)


def pack(message: ToNode | ToFrontEnd) -> bytes:
    """One frame. Raises FrameError when it is too long."""
    body = encode(message)
    size = len(memoryview(body))
    if size > MAX_FRAME:
        raise FrameError(f"it is {size >> 20} MB long, and at most {MAX_FRAME >> 20} MB can be sent")
    return size.to_bytes(4, "little") + memoryview(body)


def unpack_to_node(body: bytes) -> ToNode:
    """Raises FrameError when the body is not a message of a front end."""
    return _decoded(_to_node, body)


def unpack_to_front_end(body: bytes) -> ToFrontEnd:
    """Raises FrameError when the body is not a message of a node."""
    return _decoded(_to_front_end, body)


def _decoded(decoder: msgspec.msgpack.Decoder[T], data: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(data)
    except RecursionError:
        raise FrameError("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(str(error)) from error
