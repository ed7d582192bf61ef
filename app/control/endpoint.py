"""Where a node listens for front ends of the same user and folder, and how they find and know each other.

A socket file `control.sock` in the data folder, its owner's alone; where the path is too long for a socket or
the disk cannot hold one, a private folder elsewhere, which `control.path` in the data folder names. Without
socket files in the system: a port on loopback and a token, both in `control.path`. None of these files says
that somebody listens: the lock of the folder does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import secrets
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

SOCKET_NAME = "control.sock"
PLACE_NAME = "control.path"
MAX_PATH = 103
"""Bytes of a socket's path: macOS keeps 104 with the final zero, Linux 108."""

HAS_SOCKET_FILES = sys.platform != "win32"

OnFrontEnd = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


class Place(msgspec.Struct, frozen=True):
    """Where a node listens."""

    path: str = ""
    """Of the socket file; empty where there are none."""
    port: int = 0
    token: str = ""


class Listener:
    """Listens until `close`. Only the holder of the folder's lock may open one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._place = Place()

    async def open(self, on_front_end: OnFrontEnd, *, socket_file: bool = HAS_SOCKET_FILES) -> None:
        """Raises OSError when no place can be had. What a killed node left behind is removed."""
        self._remove()
        if not socket_file:
            self._server = await asyncio.start_server(on_front_end, "127.0.0.1", 0)
            self._place = Place(port=self._server.sockets[0].getsockname()[1], token=secrets.token_hex(32))
            _write_place(self._folder, self._place)
            return
        path = self._folder / SOCKET_NAME
        try:
            bound = _bind(path)
        except OSError:
            base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
            path = Path(tempfile.mkdtemp(prefix="infraxa-", dir=base)) / SOCKET_NAME
            # Before there is a socket: whoever is killed in between leaves nothing that nobody removes.
            _write_place(self._folder, Place(str(path)))
            bound = _bind(path)
        self._place = Place(str(path))
        self._server = await asyncio.start_unix_server(on_front_end, sock=bound)

    def admits(self, writer: asyncio.StreamWriter, token: str) -> bool:
        """Whether a front end that sent this token is one of the same user."""
        return hmac.compare_digest(token.encode(), self._place.token.encode()) and is_same_user(writer)

    async def close(self) -> None:
        """Listen no more; connections that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._remove()

    def _remove(self) -> None:
        place = _read_place(self._folder)
        with contextlib.suppress(OSError):
            (self._folder / SOCKET_NAME).unlink(missing_ok=True)
            (self._folder / PLACE_NAME).unlink(missing_ok=True)
        if place is not None and place.path:
            elsewhere = Path(place.path)
            with contextlib.suppress(OSError):
                elsewhere.unlink(missing_ok=True)
                elsewhere.parent.rmdir()  # of which nobody else had any use: it is made for one socket


async def connect(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
    """A connection to whoever listens for this folder, and the token to show. Raises OSError."""
    path = folder / SOCKET_NAME
    place = Place(str(path)) if path.exists() else _read_place(folder)
    if place is None:
        raise FileNotFoundError(f"{path} is missing")
    if not place.path:
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    else:
        reader, writer = await asyncio.open_unix_connection(place.path)
        if not is_same_user(writer):
            writer.close()
            raise PermissionError(f"{place.path} is another user's")
    return reader, writer, place.token


def is_same_user(writer: asyncio.StreamWriter) -> bool:
    """Whether the process at the other end is of the same user, where the system can tell."""
    if sys.platform != "linux":
        return True  # the socket file is its owner's alone, and the token can be read by its owner alone
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.geteuid())


def _bind(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_PATH:
        raise OSError(f"{path} is too long for a socket")
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        # Nobody can connect before it listens, so there is no moment in which others could.
        os.chmod(path, 0o600)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound


def _write_place(folder: Path, place: Place) -> None:
    path = folder / PLACE_NAME
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(place))


def _read_place(folder: Path) -> Place | None:
    try:
        return msgspec.json.decode((folder / PLACE_NAME).read_bytes(), type=Place)
    except (OSError, msgspec.DecodeError):
        return None
