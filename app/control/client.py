"""AttachedNode: the node of another process of this user, as if it were here.

Its calls travel over the socket; what a node answers without waiting is kept here, by the events, which come
in the order in which they were told. The first of them say how things are when this front end comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from infraxa import __version__
from infraxa.app.config import FRONT_END_SETTINGS, Settings
from infraxa.app.control import endpoint, messages
from infraxa.app.control.messages import (
    MAX_FRAME,
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
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerStarted,
    EngineChanged,
    Event,
    GatewayChanged,
    NetworkChanged,
    ProviderChanged,
    SettingsChanged,
)
from infraxa.app.facade import NodeFacade, OnProgress
from infraxa.app.folders import Folders
from infraxa.app.gateway.values import CLOSED, GatewayStatus
from infraxa.app.serving import ProviderStatus
from infraxa.engine.types import EngineStatus
from infraxa.net.status import NetworkStatus
from infraxa.net.tasks import TaskGroup

_log = logging.getLogger(__name__)

ATTACH_LIMIT = 5.0
"""Seconds in which a node says welcome; it may be busy, but not for so long."""
CLOSE_LIMIT = 1.0
"""Seconds for the last that was sent to go out."""


class NotListening(Exception):
    """Nobody can be attached to in this folder now: its holder is coming or going, or is an old infraxa."""


class AttachedNode(NodeFacade):
    """A front end's end of a connection. What is not here is made from the facade's signatures."""

    engine: EngineStatus = EngineStatus()
    network: NetworkStatus = NetworkStatus()
    provider: ProviderStatus = ProviderStatus()
    gateway: GatewayStatus = CLOSED

    def __init__(self, settings: Settings, folders: Folders) -> None:
        """Of `settings`, those of the front end itself are kept: its keys, its colours."""
        self.settings = settings
        self.folders = folders
        self.pid = 0
        """Of the process whose node this is."""
        self.gone = asyncio.Event()
        """The connection has ended."""
        self._listeners: list[Callable[[Event], None]] = []
        self._answers: dict[str, tuple[str, str]] = {}
        """Message and text so far of the answers that are running, by chat."""
        self._ids = itertools.count(1)
        self._calls: dict[int, _Result | _Values] = {}
        self._tasks = TaskGroup()
        self._writer: asyncio.StreamWriter | None = None
        self._attached: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Attach. Raises NotListening, and NodeError `version` when the node is of another version."""
        self._attached = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ATTACH_LIMIT):
                reader, self._writer, token = await endpoint.connect(self.folders.data)
                self._send(Hello(__version__, token))
                self._tasks.spawn(self._listen(reader), name="listen to the node")
                await self._attached
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError | TimeoutError):
                raise NotListening(str(error)) from error
            raise

    async def close(self) -> None:
        """Leave the node; what was asked of it and is not done is cancelled there."""
        await self._tasks.cancel_all()
        if self._writer is not None:
            self._writer.close()
            try:
                async with asyncio.timeout(CLOSE_LIMIT):
                    await self._writer.wait_closed()
            except (TimeoutError, OSError):
                self._writer.transport.abort()
        self._lose()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def answering(self, chat_id: str) -> bool:
        return chat_id in self._answers

    def partial(self, message_id: str) -> str:
        return next((text for answer_id, text in self._answers.values() if answer_id == message_id), "")

    def current_model(self) -> str:
        return self.settings.model

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader(MAX_FRAME)
        try:
            while data := await reader.read(65536):
                for body in frames.feed(data):
                    self._take(messages.unpack_to_front_end(body))
        except FrameError as error:
            _log.error("the node of pid %d said what is not understood: %s", self.pid, error)
        except ConnectionError:
            return
        finally:
            self._lose()

    def _lose(self) -> None:
        """The connection is over: whoever waits for something is told."""
        if self._attached is not None and not self._attached.done():
            self._attached.set_exception(NotListening("it closed the connection"))
            self._attached.exception()  # also when nobody waits for it any more
        self.gone.set()
        for call in list(self._calls.values()):
            call.fail(self._is_gone())

    def _is_gone(self) -> NodeError:
        return NodeError("gone", f"The infraxa that had this open (pid {self.pid}) has ended.", "Try again.")

    def _take(self, message: ToFrontEnd) -> None:
        match message:
            case Told():
                self._tell(message.event)
            case Result() | Item() | End() | Failed() | Progressed():
                if call := self._calls.get(message.id):  # else it was cancelled
                    call.take(message)
            case Present():
                for event in message.events:
                    self._tell(event)
                self._attach(None)
            case Welcome():
                self.pid = message.pid
                if message.version != __version__:
                    self._attach(_other_version(message))
            case Refused():
                _log.error("the node of pid %d refused: %s", self.pid, message.reason)
                self._attach(NotListening(message.reason))

    def _attach(self, problem: Exception | None) -> None:
        if self._attached is None or self._attached.done():
            return
        if problem is None:
            self._attached.set_result(None)
        else:
            self._attached.set_exception(problem)

    def _tell(self, event: Event) -> None:
        if isinstance(event, SettingsChanged):
            event = SettingsChanged(self._merged(event), event.name)
        self._mirror(event)
        for listener in list(self._listeners):
            listener(event)

    def _mirror(self, event: Event) -> None:
        """Keep what the synchronous members answer."""
        match event:
            case EngineChanged():
                self.engine = event.status
            case ProviderChanged():
                self.provider = event.status
            case NetworkChanged():
                self.network = event.status
            case GatewayChanged():
                self.gateway = event.status
            case SettingsChanged():
                self.settings = event.settings
            case AnswerStarted():
                self._answers[event.chat_id] = (event.message.id, event.message.content)
            case AnswerGrew() if answer := self._answers.get(event.chat_id):
                self._answers[event.chat_id] = (answer[0], answer[1] + event.text)
            case AnswerEnded():
                self._answers.pop(event.chat_id, None)
            case _:
                return

    def _merged(self, event: SettingsChanged) -> Settings:
        """The node's settings, but for those of this front end that nobody has changed since."""
        kept = FRONT_END_SETTINGS - {event.name}
        return msgspec.structs.replace(
            event.settings, **{name: getattr(self.settings, name) for name in kept}
        )

    def _send(self, message: ToNode) -> None:
        """Raises NodeError `gone`, and `bad_text` for what cannot be sent."""
        if self._writer is None or self.gone.is_set():
            raise self._is_gone()
        self._writer.write(_made(lambda: messages.pack(message)))

    def _send_if_there(self, message: ToNode) -> None:
        with contextlib.suppress(NodeError):
            self._send(message)

    def _begin(self, call: _Result | _Values, method: Method, arguments: msgspec.Struct) -> int:
        call_id = next(self._ids)
        self._send(Call(call_id, method.name, _made(lambda: messages.encode(arguments))))
        self._calls[call_id] = call
        return call_id

    async def _call(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments, on_progress = method.pack(args, kwargs)
        result = _Result(method, on_progress)
        call_id = self._begin(result, method, arguments)
        try:
            return await result.future
        except asyncio.CancelledError:
            self._send_if_there(Cancel(call_id))
            raise
        finally:
            del self._calls[call_id]

    def _stream(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Values:
        values = _Values(self, method)
        values.id = self._begin(values, method, method.pack(args, kwargs)[0])
        return values

    def end_stream(self, call_id: int) -> None:
        """Nobody reads it any more."""
        if self._calls.pop(call_id, None) is not None:
            self._send_if_there(Cancel(call_id))

    def tell_stream(self, message: Stop | More) -> None:
        """Say something of a stream that may have ended."""
        if message.id in self._calls:
            self._send_if_there(message)


class _Result:
    """What a call waits for."""

    def __init__(self, method: Method, on_progress: OnProgress | None) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._method = method
        self._on_progress = on_progress

    def take(self, message: Result | Item | End | Failed | Progressed) -> None:
        match message:
            case Result() if not self.future.done():
                self.future.set_result(messages.decode(message.value, self._method.result))
            case Failed():
                self.fail(_error(message))
            case Progressed() if self._on_progress is not None:
                self._on_progress(message.done, message.total)
            case _:
                return

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Values:
    """A stream's end at the front end. What is not taken yet is bounded by the window."""

    def __init__(self, node: AttachedNode, method: Method) -> None:
        self.id = 0
        self._node = node
        self._method = method
        self._values: deque[Any] = deque()
        self._taken = 0
        self._over: Exception | None = None
        self._changed = asyncio.Event()

    def take(self, message: Result | Item | End | Failed | Progressed) -> None:
        match message:
            case Item():
                self._values.append(messages.decode(message.value, self._method.result))
                self._changed.set()
            case End():
                self.fail(StopAsyncIteration())
            case Failed():
                self.fail(_error(message))
            case _:
                return

    def fail(self, error: Exception) -> None:
        self._over = self._over or error
        self._changed.set()

    def __aiter__(self) -> _Values:
        return self

    async def __anext__(self) -> Any:
        while not self._values:
            if self._over is not None:
                over, self._over = self._over, StopAsyncIteration()
                raise over
            self._changed.clear()
            await self._changed.wait()
        self._taken += 1
        if self._taken >= WINDOW // 2:
            self._node.tell_stream(More(self.id, self._taken))
            self._taken = 0
        return self._values.popleft()

    def stop(self) -> None:
        self._node.tell_stream(Stop(self.id))

    async def aclose(self) -> None:
        if self._over is None:
            self._node.end_stream(self.id)
            self._over = StopAsyncIteration()


def _made(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except FrameError as error:
        raise NodeError("bad_text", f"This cannot be sent: {error}.", "Change the text.") from None


def _error(failed: Failed) -> Exception:
    kind = next((kind for kind in FAILURES if kind.__name__ == failed.kind), NodeError)
    return kind(failed.code, failed.message, failed.remedy)


def _other_version(welcome: Welcome) -> NodeError:
    return NodeError(
        "version",
        f"The infraxa that is open (pid {welcome.pid}) is version {welcome.version}; "
        f"this one is {__version__}.",
        "Quit that one, then try again.",
    )


def _forward(method: Method) -> Callable[..., Any]:
    @functools.wraps(getattr(NodeFacade, method.name))
    async def call(self: AttachedNode, *args: Any, **kwargs: Any) -> Any:
        return await self._call(method, args, kwargs)

    @functools.wraps(getattr(NodeFacade, method.name))
    def stream(self: AttachedNode, *args: Any, **kwargs: Any) -> Any:
        return self._stream(method, args, kwargs)

    return stream if method.kind == "stream" else call


for _method in methods().values():
    setattr(AttachedNode, _method.name, _forward(_method))
