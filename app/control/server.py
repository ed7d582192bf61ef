"""Serves a node to front ends in other processes.

Each call of a front end runs as a task of its own and ends with its connection. Events go to all of them as
they are told; one that does not read is left before it costs much, and the node notices nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from infraxa import __version__
from infraxa.app.answers import DEFECT
from infraxa.app.control import messages
from infraxa.app.control.endpoint import Listener
from infraxa.app.control.messages import (
    MAX_BEHIND,
    MAX_FRAME,
    MAX_FRONT_ENDS,
    MAX_HELLO,
    MAX_RUNNING,
    WINDOW,
    Call,
    Cancel,
    End,
    Failed,
    FrameError,
    FrameReader,
    Hello,
    Item,
    More,
    Present,
    Progressed,
    Refused,
    Result,
    Stop,
    ToFrontEnd,
    Told,
    ToNode,
    Welcome,
)
from infraxa.app.control.table import Method, methods
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.events import Event
from infraxa.app.facade import NodeFacade, Stream
from infraxa.engine.types import EngineError
from infraxa.net.errors import NetError
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import StoreError

_log = logging.getLogger(__name__)

HELLO_LIMIT = 5.0
"""Seconds in which a front end says hello."""


def _nothing() -> None:
    """There is no subscription."""


class ControlServer:
    """Listens in the data folder `folder`, whose lock the caller holds."""

    def __init__(self, node: NodeFacade, present: Callable[[], Iterable[Event]], folder: Path) -> None:
        """`present` gives the events that tell somebody who comes now how things are."""
        self.node = node
        self.present = present
        self.closing = False
        self._listener = Listener(folder)
        self._front_ends: set[_FrontEnd] = set()
        self._connections = 0
        self._tasks = TaskGroup()
        self._deaf = _nothing

    async def open(self) -> None:
        """Raises OSError when this folder or system has no place to listen."""
        self._deaf = self.node.subscribe(self._tell)
        await self._listener.open(self._come)

    def refuse(self) -> None:
        """Begin nothing more for anybody; the events are told on."""
        self.closing = True

    async def close(self) -> None:
        """Leave all front ends: what they still asked for is cancelled, what was told them is sent."""
        self.refuse()
        self._deaf()
        self._deaf = _nothing
        await self._listener.close()
        await self._tasks.cancel_all()

    def admits(self, writer: asyncio.StreamWriter, token: str) -> bool:
        return self._listener.admits(writer, token)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_FRONT_ENDS or self.closing:
            writer.close()
            return
        self._connections += 1
        task = self._tasks.spawn(self._serve(_FrontEnd(self, reader, writer)), name="front end")
        task.add_done_callback(lambda _: self._left())

    def _left(self) -> None:
        self._connections -= 1

    async def _serve(self, front_end: _FrontEnd) -> None:
        try:
            if await front_end.greet():
                # Nothing is told in between.
                front_end.write(Present(tuple(self.present())))
                self._front_ends.add(front_end)
                await front_end.listen()
        finally:
            self._front_ends.discard(front_end)
            await front_end.end()

    def _tell(self, event: Event) -> None:
        if not self._front_ends:
            return
        try:
            frame = messages.pack(Told(event))
        except FrameError as error:
            _log.error("%s could not be told: %s", type(event).__name__, error)
            return
        for front_end in list(self._front_ends):
            front_end.write_frame(frame)


class _FrontEnd:
    """One connection."""

    def __init__(
        self, server: ControlServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(MAX_HELLO)
        self._tasks = TaskGroup()
        self._running: dict[int, _Running] = {}

    async def greet(self) -> bool:
        """Whether it is of this user and of this version."""
        with self._refused():
            async with asyncio.timeout(HELLO_LIMIT):
                while not (bodies := await self._read()):
                    if self._reader.at_eof():
                        return False
            hello = messages.unpack_to_node(bodies[0])
            if not isinstance(hello, Hello) or len(bodies) > 1:
                raise FrameError("it did not say hello first")
            if not self._server.admits(self._writer, hello.token):
                raise FrameError("it is another user's")
            self.write(Welcome(__version__, os.getpid()))
            self._frames.limit = MAX_FRAME
            return hello.version == __version__
        return False

    async def listen(self) -> None:
        """Do what it asks for, until it goes away."""
        with self._refused():
            while not self._reader.at_eof():
                for body in await self._read():
                    self._take(messages.unpack_to_node(body))

    async def _read(self) -> list[bytes]:
        return self._frames.feed(await self._reader.read(65536))

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        """Whoever breaks a rule is told so; a connection that breaks is no mistake of anybody's."""
        try:
            yield
        except FrameError as error:
            _log.warning("a front end was refused: %s", error)
            self.write(Refused(str(error)))
        except TimeoutError:
            self.write(Refused(f"it did not say hello within {HELLO_LIMIT:g} seconds"))
        except ConnectionError:
            return

    async def end(self) -> None:
        """Cancel what it asked for, send what was written, close."""
        await self._tasks.cancel_all()
        self._writer.close()
        try:
            async with asyncio.timeout(1):
                await self._writer.wait_closed()
        except (TimeoutError, ConnectionError):
            self._writer.transport.abort()

    def write(self, message: ToFrontEnd) -> None:
        """Raises FrameError when the message is too long."""
        self.write_frame(messages.pack(message))

    def write_frame(self, frame: bytes) -> None:
        """Does not wait. Whoever does not read is left."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() + len(frame) > MAX_BEHIND:
            _log.warning("a front end that does not read was left")
            transport.abort()
            return
        transport.write(frame)

    def _take(self, message: ToNode) -> None:
        match message:
            case Call():
                self._call(message)
            case Cancel():
                if running := self._running.get(message.id):
                    running.task.cancel()
            case Stop():
                if (running := self._running.get(message.id)) and running.stream is not None:
                    running.stream.stop()
            case More():
                if running := self._running.get(message.id):
                    running.taken(message.count)
            case Hello():
                raise FrameError("it said hello twice")

    def _call(self, call: Call) -> None:
        if call.id in self._running:
            raise FrameError("it used the number of a call that runs")
        method = methods().get(call.method)
        if method is None:
            self._fail(call.id, NodeError("unknown", "This is not something that a node can be asked for."))
        elif self._server.closing:
            self._fail(call.id, NodeError("closed", "This infraxa is ending.", "Try again in a moment."))
        elif len(self._running) >= MAX_RUNNING:
            self._fail(
                call.id, NodeError("busy", f"{MAX_RUNNING} requests are running already.", "Wait for one.")
            )
        else:
            arguments = messages.decode(call.arguments, method.arguments)
            running = self._running[call.id] = _Running()
            work = self._work(call.id, method, arguments, running)
            running.task = self._tasks.spawn(work, name=method.name)
            running.task.add_done_callback(lambda _: self._running.pop(call.id))

    async def _work(self, call_id: int, method: Method, arguments: msgspec.Struct, running: _Running) -> None:
        """Do it, and say how it failed."""
        try:
            if method.kind == "stream":
                await self._stream(call_id, method, arguments, running)
            else:
                await self._return(call_id, method, arguments)
        except FAILURES as error:
            self._fail(call_id, error)
        except FrameError as error:
            self._fail(call_id, NodeError("too_long", f"The answer to this cannot be sent: {error}."))
        except Exception:
            _log.exception("a call of a front end")
            self._fail(call_id, NodeError("internal", DEFECT))

    async def _return(self, call_id: int, method: Method, arguments: msgspec.Struct) -> None:
        def report(done: int, total: int) -> None:
            self.write(Progressed(call_id, done, total))

        value = await getattr(self._server.node, method.name)(**method.unpack(arguments, report))
        self.write(Result(call_id, messages.encode(value)))

    async def _stream(
        self, call_id: int, method: Method, arguments: msgspec.Struct, running: _Running
    ) -> None:
        given = method.unpack(arguments, lambda done, total: None)
        running.stream = stream = getattr(self._server.node, method.name)(**given)
        try:
            async for value in stream:
                self.write(Item(call_id, messages.encode(value)))
                await running.room()
            self.write(End(call_id))
        finally:
            await stream.aclose()

    def _fail(self, call_id: int, error: NodeError | EngineError | NetError | StoreError) -> None:
        kind = next(kind.__name__ for kind in FAILURES if isinstance(error, kind))
        # A file's name may hold bytes that are no text.
        message = error.message.encode("utf-8", "replace").decode()
        self.write(Failed(call_id, kind, error.code, message, error.remedy))


class _Running:
    """A call or stream on its way."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.stream: Stream[object] | None = None
        self._window = WINDOW
        self._taken = asyncio.Event()

    def taken(self, count: int) -> None:
        """The reader has taken so many values."""
        self._window += count
        self._taken.set()

    async def room(self) -> None:
        """One value was sent: wait until the reader may be sent another."""
        self._window -= 1
        while self._window <= 0:
            self._taken.clear()
            await self._taken.wait()
