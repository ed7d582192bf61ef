"""One node and its front ends, over real sockets: what each sees and may do, and that none can harm it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import infraxa.app.control.client as client_module
from infraxa import __version__
from infraxa.app.config import Settings
from infraxa.app.control import endpoint, messages
from infraxa.app.control.client import AttachedNode, NotListening
from infraxa.app.control.endpoint import PLACE_NAME, SOCKET_NAME, Listener
from infraxa.app.control.messages import (
    MAX_BEHIND,
    MAX_FRONT_ENDS,
    MAX_HELLO,
    MAX_RUNNING,
    WINDOW,
    Call,
    Cancel,
    Failed,
    FrameReader,
    Hello,
    Present,
    Refused,
    Result,
    ToFrontEnd,
    ToNode,
    Welcome,
)
from infraxa.app.control.table import methods
from infraxa.app.errors import NodeError
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerStarted,
    ChatsChanged,
    Event,
    LogLine,
    ModelsChanged,
)
from infraxa.app.facade import AskBegan, NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import Delta, EngineError, Finished
from infraxa.store.records import ChatOptions, StoreError
from tests.random_model import write_random_model

SETTINGS = Settings(online=False, threads=1, slots=2)
LIMIT = 60.0
"""Seconds of any wait."""
ENDLESS = ChatOptions(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
"""Talks nonsense until its context is full."""


class Watched:
    """A node and everything it told."""

    def __init__(self, node: NodeFacade) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        node.subscribe(self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[Event], bool]) -> Event:
        """The first event, told already or to come, that satisfies the condition."""
        seen = 0
        async with asyncio.timeout(LIMIT):
            while True:
                for event in self.events[seen:]:
                    if condition(event):
                        return event
                seen = len(self.events)
                self._changed.clear()
                await self._changed.wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders.find(tmp_path / "data", {})


@pytest.fixture
async def node(folders: Folders) -> AsyncIterator[Node]:
    node = Node(SETTINGS, folders)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes seconds for what the guide says in one; what it says means nothing."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    write_random_model(path, GUIDE_PATH, layers=16, dim=1024)
    return path


@pytest.fixture
async def slow(folders: Folders, slow_model: Path) -> AsyncIterator[Node]:
    """A node whose answers do not end by themselves while a test lasts."""
    node = Node(msgspec.structs.replace(SETTINGS, model=str(slow_model)), folders)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@contextlib.asynccontextmanager
async def attached(folders: Folders, settings: Settings = SETTINGS) -> AsyncIterator[AttachedNode]:
    front_end = AttachedNode(settings, folders)
    await front_end.start()
    try:
        yield front_end
    finally:
        await front_end.close()


class Raw:
    """A connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._bodies: list[bytes] = []

    def say(self, *said: ToNode) -> None:
        self.writer.write(b"".join(map(messages.pack, said)))

    def call(self, number: int, method: str, *args: Any) -> None:
        packed, _ = methods()[method].pack(args, {})
        self.say(Call(number, method, messages.encode(packed)))

    async def hear(self) -> ToFrontEnd | None:
        """The next message; None at the end."""
        async with asyncio.timeout(LIMIT):
            while not self._bodies:
                try:
                    data = await self.reader.read(65536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._bodies += self._frames.feed(data)
        return messages.unpack_to_front_end(self._bodies.pop(0))

    async def hear_until(self, kind: type[ToFrontEnd]) -> ToFrontEnd | None:
        while (message := await self.hear()) is not None and not isinstance(message, kind):
            pass
        return message


@contextlib.asynccontextmanager
async def raw(folders: Folders, *, greeted: bool = True) -> AsyncIterator[Raw]:
    reader, writer, token = await endpoint.connect(folders.data)
    connection = Raw(reader, writer)
    if greeted:
        connection.say(Hello(__version__, token))
        assert isinstance(await connection.hear(), Welcome)
        assert isinstance(await connection.hear(), Present)
    try:
        yield connection
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_well(node: Node, folders: Folders) -> bool:
    """Whether another front end is served."""
    async with attached(folders) as other:
        chat = await other.create_chat()
        return chat in [await node.get_chat(chat.id)]


async def test_two_front_ends_see_the_same_answer_and_either_stops_it(slow: Node, folders: Folders) -> None:
    async with attached(folders) as one, attached(folders) as other:
        assert one.pid == os.getpid()
        at_one, at_other, at_node = Watched(one), Watched(other), Watched(slow)
        chat = await one.create_chat()
        await one.set_chat_options(chat.id, ENDLESS)
        answer_id = await one.send(chat.id, "tell me a story")
        for watched in (at_one, at_other):
            await watched.until(lambda event: isinstance(event, AnswerGrew))
        assert other.answering(chat.id) and slow.answering(chat.id)
        await other.stop(chat.id)
        ends = [await it.until(lambda e: isinstance(e, AnswerEnded)) for it in (at_one, at_other, at_node)]
        assert ends[0] == ends[1] == ends[2]
        assert isinstance(ends[0], AnswerEnded) and ends[0].message.state == "stopped"
        for watched in (at_one, at_other):
            grown = [
                e.text for e in watched.events if isinstance(e, AnswerGrew) and e.message_id == answer_id
            ]
            assert "".join(grown) == ends[0].message.content
        assert not one.answering(chat.id) and not other.answering(chat.id)
        assert await one.branch(chat.id) == await slow.branch(chat.id)


async def test_who_comes_in_mid_answer_misses_nothing(slow: Node, folders: Folders) -> None:
    chat = await slow.create_chat()
    await slow.set_chat_options(chat.id, ENDLESS)
    watched = Watched(slow)
    answer_id = await slow.send(chat.id, "tell me a story")
    await watched.until(lambda event: isinstance(event, AnswerGrew) and event.n_out > 3)
    front_end = AttachedNode(SETTINGS, folders)
    late = Watched(front_end)
    await front_end.start()
    try:
        kinds = [type(event) for event in late.events]
        assert kinds[kinds.index(AnswerStarted) + 1] is AnswerGrew and front_end.answering(chat.id)
        assert front_end.partial(answer_id)
        await late.until(lambda event: isinstance(event, AnswerGrew) and event.n_out > 20)
        await slow.stop(chat.id)
        end = await late.until(lambda event: isinstance(event, AnswerEnded))
        assert isinstance(end, AnswerEnded)
        assert "".join(e.text for e in late.events if isinstance(e, AnswerGrew)) == end.message.content
        assert front_end.partial(answer_id) == ""
    finally:
        await front_end.close()


async def test_a_front_end_keeps_its_own_keys_and_colours_until_they_are_changed(
    node: Node, folders: Folders
) -> None:
    own = Settings(theme="mine", send_key="ctrl+enter", threads=7)
    async with attached(folders, own) as front_end:
        settings = front_end.settings
        assert (settings.theme, settings.send_key) == ("mine", "ctrl+enter")
        assert (settings.threads, settings.slots) == (1, 2)
        await front_end.change_setting("theme", "infraxa-light")
        assert node.settings.theme == front_end.settings.theme == "infraxa-light"
        assert front_end.settings.send_key == "ctrl+enter"
        await node.change_setting("temperature", 0.5)
        await until(lambda: front_end.settings.temperature == 0.5)
        assert 'theme = "infraxa-light"' in folders.config_file.read_text()


async def test_failures_arrive_as_what_they_are(node: Node, folders: Folders) -> None:
    async with attached(folders) as front_end:
        with pytest.raises(StoreError) as missing:
            await front_end.get_chat("none")
        with pytest.raises(NodeError) as wrong:
            await front_end.change_setting("theme", 3)
        with pytest.raises(EngineError) as no_model:
            await front_end.add_model(folders.data / "infraxa.db")
        with pytest.raises(NodeError) as no_text:
            await front_end.search("\ud800")
    assert [error.value.code for error in (missing, wrong, no_model, no_text)] == [
        "not_found",
        "bad_setting",
        "not_gguf",
        "bad_text",
    ]


async def test_a_model_that_another_process_adds_is_seen_at_once(
    node: Node, folders: Folders, tmp_path: Path
) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(GUIDE_PATH.read_bytes())
    watched, progress = Watched(node), list[tuple[int, int]]()
    async with attached(folders) as front_end:
        entry = await front_end.add_model(path, "other", lambda *told: progress.append(told))
        assert any(isinstance(event, ModelsChanged) for event in watched.events)
        assert entry in await node.list_models()
        assert node.current_model() == front_end.current_model() == "other"
    assert progress and progress[-1] == (entry.size, entry.size)


async def test_one_question_is_answered_by_the_open_engine_and_kept_nowhere(
    node: Node, folders: Folders
) -> None:
    watched = Watched(node)
    async with attached(folders) as front_end:
        await until(lambda: front_end.engine.state == "ready")
        before = front_end.engine.loaded
        stream = front_end.ask("What is 2+2?", ChatOptions(seed=1))
        told = [event async for event in stream]
        await stream.aclose()
        assert isinstance(told[0], AskBegan) and told[0].model == "guide"
        assert "4" in "".join(event.text for event in told if isinstance(event, Delta))
        assert isinstance(told[-1], Finished) and told[-1].reason == "stop"
        assert front_end.engine.loaded == before
    assert await node.list_chats() == [] and await node.prompt_history() == []
    assert not any(isinstance(event, AnswerStarted | ChatsChanged) for event in watched.events)


async def test_a_question_is_stopped_with_its_counts_or_given_up_at_once(
    slow: Node, folders: Folders
) -> None:
    async with attached(folders) as front_end:
        stopped, given_up = front_end.ask("story", ENDLESS), front_end.ask("story", ENDLESS)
        for stream in (stopped, given_up):
            while not isinstance(await anext(stream), Delta):
                pass
        await given_up.aclose()
        stopped.stop()
        rest = [event async for event in stopped]
        assert isinstance(rest[-1], Finished) and rest[-1].reason == "cancelled" and rest[-1].usage.n_out
        await stopped.aclose()
        await until(lambda: slow.engine.running == 0)
        # The next one finds the place free, and the model in nobody's hand.
        assert [e async for e in front_end.ask("What is 2+2?", ChatOptions(max_tokens=4))]
        with pytest.raises(NodeError, match="no model named none"):
            await anext(front_end.ask("hi", ChatOptions(model="none")))


async def test_another_model_waits_its_turn_or_says_who_is_busy(
    slow: Node, folders: Folders, tmp_path: Path
) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(GUIDE_PATH.read_bytes())
    async with attached(folders) as front_end:
        await front_end.change_setting("models_loaded", 1)
        stream = front_end.ask("story", ENDLESS)
        await anext(stream)
        with pytest.raises(NodeError) as busy:
            await anext(front_end.ask("hi", ChatOptions(model=str(path))))
        assert busy.value.code == "busy" and busy.value.remedy
        await stream.aclose()
        await until(lambda: slow.engine.running == 0)
        began = await anext(other := front_end.ask("hi", ChatOptions(model=str(path))))
        assert isinstance(began, AskBegan) and slow.engine.model == str(path)
        await other.aclose()


class Endless:
    """A stream without an end, as fast as it is read."""

    def __init__(self) -> None:
        self.given = 0
        self.closed = asyncio.Event()

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> Delta:
        self.given += 1
        return Delta(str(self.given), (1,))

    def stop(self) -> None:
        raise AssertionError("nobody stops it")

    async def aclose(self) -> None:
        self.closed.set()


async def test_a_stream_is_made_no_faster_than_it_is_read(node: Node, folders: Folders) -> None:
    endless = Endless()
    node.ask = lambda text, options: endless  # type: ignore[method-assign, assignment, return-value]
    async with attached(folders) as front_end:
        stream = front_end.ask("story", ChatOptions())
        await until(lambda: endless.given == WINDOW)
        for _ in range(5):
            await front_end.list_chats()  # the connection is free for other things
        assert endless.given == WINDOW
        for number in range(1, 10 * WINDOW):
            value = await anext(stream)
            assert isinstance(value, Delta) and value.text == str(number)
            assert endless.given <= number + WINDOW
        await stream.aclose()
        async with asyncio.timeout(LIMIT):
            await endless.closed.wait()


async def test_what_a_front_end_asked_for_ends_with_it(slow: Node, folders: Folders) -> None:
    async with attached(folders) as front_end:
        stream = front_end.ask("story", ENDLESS)
        while not isinstance(await anext(stream), Delta):
            pass
        assert slow.engine.running == 1
    await until(lambda: slow.engine.running == 0)


async def test_a_call_is_cancelled_where_it_runs(node: Node, folders: Folders) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def never(text: str) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    node.search = never  # type: ignore[method-assign]
    async with attached(folders) as front_end, asyncio.timeout(LIMIT):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:

                async def give_up() -> None:
                    await began.wait()
                    limit.reschedule(0)

                waiting = asyncio.ensure_future(give_up())
                await front_end.search("x")
        await waiting
        await ended.wait()
        assert await front_end.list_chats() == []


async def test_a_thousand_events_are_told_to_all_in_order(node: Node, folders: Folders) -> None:
    async with attached(folders) as one, attached(folders) as other:
        heard: dict[int, list[str]] = {0: [], 1: []}
        for index, front_end in enumerate((one, other)):

            def note(event: Event, index: int = index) -> None:
                if isinstance(event, LogLine) and event.source == "test":
                    heard[index].append(event.text)

            front_end.subscribe(note)
        expected = [str(number) for number in range(1000)]
        for number in expected:
            node._emit(LogLine("test", number))
        await until(lambda: len(heard[0]) == len(heard[1]) == 1000)
        assert heard[0] == heard[1] == expected


async def test_who_never_reads_is_left_and_the_others_go_on(node: Node, folders: Folders) -> None:
    async with raw(folders) as deaf, attached(folders) as other:
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line = LogLine("test", "x" * (1 << 20))
        heard = 0

        def note(event: Event) -> None:
            nonlocal heard
            heard += event == line

        other.subscribe(note)
        for number in range((MAX_BEHIND >> 20) + 8):
            node._emit(line)
            await until(lambda number=number: heard > number)  # type: ignore[misc]
        assert len(node._control._front_ends) == 1
        assert await is_well(node, folders)


HOSTILE = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\xff\xff\xff\xff",
    (MAX_HELLO + 1).to_bytes(4, "little"),
    b"\x01\0\0\0\xc1",
    messages.pack(Cancel(1)),
    messages.pack(Hello(__version__, "wrong token")),
    messages.pack(Hello(__version__)) * 2,
]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
async def test_nonsense_is_refused_once_and_harms_nobody(node: Node, folders: Folders, said: bytes) -> None:
    async with raw(folders, greeted=False) as connection:
        connection.writer.write(said)
        refused = await connection.hear_until(Refused)
        assert isinstance(refused, Refused) and refused.reason
        assert await connection.hear() is None
    assert await is_well(node, folders)


@pytest.mark.parametrize(
    "said",
    [
        b"\x05\0\0\0hello",
        messages.pack(Call(1, "get_chat", messages.encode([3]))),
        messages.pack(Call(1, "get_chat", messages.encode([]))),
        messages.pack(Hello(__version__)),
        b"\xff\xff\xff\x7f",
    ],
    ids=range(5),
)
async def test_nonsense_of_a_front_end_is_refused_too(node: Node, folders: Folders, said: bytes) -> None:
    async with raw(folders) as connection:
        connection.writer.write(said)
        assert isinstance(await connection.hear_until(Refused), Refused)
        assert await connection.hear_until(Welcome) is None
    assert await is_well(node, folders)


async def test_what_is_no_call_of_the_facade_is_not_done(node: Node, folders: Folders) -> None:
    async with raw(folders) as connection:
        for number, name in enumerate(("close", "start", "_emit", "__init__", "subscribe", "nothing")):
            connection.say(Call(number, name, messages.encode([])))
            failed = await connection.hear_until(Failed)
            assert isinstance(failed, Failed) and (failed.id, failed.code) == (number, "unknown")
        connection.say(Cancel(77), messages.Stop(77), messages.More(77, 5))
        connection.call(99, "list_chats")
        assert isinstance(await connection.hear_until(Result), Result)


async def test_calls_and_connections_are_bounded(node: Node, folders: Folders) -> None:
    async with raw(folders) as connection:
        for number in range(MAX_RUNNING + 1):
            connection.call(number, "ask", "story", ENDLESS)
        failed = await connection.hear_until(Failed)
        assert isinstance(failed, Failed) and (failed.id, failed.code) == (MAX_RUNNING, "busy")
    async with contextlib.AsyncExitStack() as stack:
        await until(lambda: node._control._connections == 0)
        for _ in range(MAX_FRONT_ENDS):
            await stack.enter_async_context(attached(folders))
        with pytest.raises(NotListening):
            await stack.enter_async_context(attached(folders))
    await until(lambda: node._control._connections == 0)
    assert await is_well(node, folders)


async def test_another_version_is_told_apart_in_one_line(
    node: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "__version__", "9.9")
    with pytest.raises(NodeError) as told:
        await AttachedNode(SETTINGS, folders).start()
    assert told.value.code == "version" and told.value.remedy
    assert __version__ in told.value.message and "9.9" in told.value.message
    assert str(os.getpid()) in told.value.message


async def test_the_socket_is_its_owners_alone(
    node: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folders.data / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if not hasattr(socket, "SO_PEERCRED"):
        pytest.skip("this system does not say who is at the other end")
    async with raw(folders, greeted=False) as connection:
        monkeypatch.setattr("infraxa.app.control.endpoint.struct.unpack", lambda *_: (1, os.geteuid() + 1, 1))
        connection.say(Hello(__version__))
        refused = await connection.hear_until(Refused)
        assert isinstance(refused, Refused) and "another user" in refused.reason
        with pytest.raises(NotListening):
            await AttachedNode(SETTINGS, folders).start()
    monkeypatch.undo()
    assert await is_well(node, folders)


async def test_a_path_too_long_for_a_socket_is_no_obstacle(tmp_path: Path) -> None:
    folders = Folders.find(tmp_path / ("long" * 40) / "data", {})
    node = Node(SETTINGS, folders)
    await node.start()
    try:
        place = folders.data / PLACE_NAME
        assert not (folders.data / SOCKET_NAME).exists() and stat.S_IMODE(place.stat().st_mode) == 0o600
        elsewhere = Path(msgspec.json.decode(place.read_bytes())["path"])
        assert stat.S_IMODE(elsewhere.parent.stat().st_mode) == 0o700
        assert await is_well(node, folders)
    finally:
        await node.close()
    assert not place.exists() and not elsewhere.parent.exists()


async def test_loopback_and_a_token_where_there_are_no_socket_files(tmp_path: Path) -> None:
    come: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    listener = Listener(tmp_path)
    await listener.open(lambda reader, writer: come.put_nowait(writer), socket_file=False)
    _, mine, token = await endpoint.connect(tmp_path)
    async with asyncio.timeout(LIMIT):
        theirs = await come.get()
    assert [listener.admits(theirs, shown) for shown in (token, "", "x" * 64)] == [True, False, False]
    for writer in (mine, theirs):
        writer.close()
        await writer.wait_closed()
    await listener.close()
    assert not (tmp_path / PLACE_NAME).exists()


async def test_what_a_killed_node_left_is_neither_trusted_nor_in_the_way(folders: Folders) -> None:
    folders.data.mkdir(parents=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folders.data / SOCKET_NAME))
    left.close()
    with pytest.raises(NotListening):
        await AttachedNode(SETTINGS, folders).start()
    node = Node(SETTINGS, folders)
    await node.start()
    try:
        assert await is_well(node, folders)
    finally:
        await node.close()
    assert not (folders.data / SOCKET_NAME).exists()


async def test_the_end_of_the_node_is_told_to_whoever_waits(folders: Folders, slow_model: Path) -> None:
    node = Node(msgspec.structs.replace(SETTINGS, model=str(slow_model)), folders)
    await node.start()
    async with attached(folders) as front_end:
        watched = Watched(front_end)
        chat = await front_end.create_chat()
        await front_end.set_chat_options(chat.id, ENDLESS)
        await front_end.send(chat.id, "story")
        await watched.until(lambda event: isinstance(event, AnswerGrew))
        stream = front_end.ask("story", ENDLESS)
        await anext(stream)
        await node.close()
        async with asyncio.timeout(LIMIT):
            await front_end.gone.wait()
        # To the last, what was told is heard.
        end = next(event for event in watched.events if isinstance(event, AnswerEnded))
        assert end.message.state == "stopped"
        with contextlib.suppress(NodeError):
            last = [event async for event in stream][-1]
            assert isinstance(last, Finished) and last.reason in ("cancelled", "failed")
        for asked in (front_end.list_chats(), front_end.stop(chat.id)):
            with pytest.raises(NodeError) as gone:
                await asked
            assert gone.value.code == "gone"
