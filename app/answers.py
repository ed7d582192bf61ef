"""Plays answers: from whoever generates them, into the store, told as events.

At most one answer runs per chat. The text is stored as it comes, every `TICK` seconds, so that a crash loses
no more than the last tick; the end writes the rest. That another node is sent the prompt is stored before it
is sent. What a conversation contains and who answers it is decided by Node, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from infraxa.app.answering import Moved, Sent, Source, Times, Waits
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerMoved,
    AnswerStarted,
    AnswerWaits,
    Event,
    LogLine,
    PromptRead,
)
from infraxa.engine.host import Engine
from infraxa.engine.types import Delta, EngineError, ErrorInfo, Finished, Progress, Request, Usage
from infraxa.net.tasks import TaskGroup
from infraxa.store import messages
from infraxa.store.db import Store
from infraxa.store.records import AnswerFacts, DriverPart, Message, MessageState, StoreError

_log = logging.getLogger(__name__)

TICK = 0.2
"""Seconds between two writes of a growing answer."""

DEFECT = "infraxa met a defect of its own: see the log."

_STATES: dict[str, MessageState] = {
    "stop": "complete",
    "length": "complete",
    "cancelled": "stopped",
    "failed": "failed",
}


@dataclass(frozen=True)
class Prepared:
    """What an answer needs before it can be generated."""

    source: Request | Callable[[], Source]
    """What this machine's engine is to generate, or what begins to generate it otherwise."""
    model: str
    """Empty: the source says it."""
    dropped_turns: int = 0


Prepare = Callable[[], AbstractAsyncContextManager[Prepared]]
"""Entered before an answer is generated, and left when it has ended."""


class Unstored(NamedTuple):
    """The end of an answer that could not be stored."""

    rest: Message
    """Its content is the text that the store does not have yet."""
    whole: Message


@dataclass(eq=False)
class Running:
    """One answer on its way; before it has begun, the chat that is kept for it."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    """The answer is stored, or there will be none."""
    stopped: bool = False
    message: Message | None = None
    resumed: Message | None = None
    """The answer as it was, when this one goes on where that ended."""
    text: str = ""
    """All of it so far, with what a resumed answer had."""
    unsaved: str = ""
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more comes."""
    n_out: int = 0
    facts: AnswerFacts = field(default_factory=AnswerFacts)
    """What is known so far, with what a resumed answer had."""
    dropped_turns: int = 0
    waits: Waits | None = None
    moved: bool = False
    """Who writes is known."""
    moves: list[AnswerMoved] = field(default_factory=list)
    """What was told of that."""
    source: Source | None = None
    work: asyncio.Task[Finished] | None = None
    warned: bool = False
    """That it cannot be saved was said."""

    def stop(self) -> None:
        """End it now; what was said stays."""
        self.stopped = True
        if self.source is not None:
            self.source.cancel()
        elif self.work is not None:
            self.work.cancel()


class Answers:
    """The answers that are running, by chat."""

    def __init__(self, store: Store, engine: Engine, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._engine = engine
        self._emit = emit
        self._running: dict[str, Running] = {}
        self._unstored: dict[str, Unstored] = {}
        self._tasks = TaskGroup()

    @contextlib.contextmanager
    def reserved(self, chat_id: str) -> Iterator[Running]:
        """Keep the chat for what is about to change it; an answer that is started inside keeps it longer.

        Raises NodeError `busy` when it is being answered or changed.
        """
        if chat_id in self._running:
            raise NodeError(
                "busy", "This chat is being answered.", "Wait for the end of the answer, or stop it with Esc."
            )
        run = self._running[chat_id] = Running()
        try:
            yield run
        finally:
            if run.message is None:
                del self._running[chat_id]
                run.over.set()

    def __contains__(self, chat_id: str) -> bool:
        return chat_id in self._running

    def partial(self, message_id: str) -> str | None:
        """The text so far of a running answer; None when it does not run."""
        for run in self._running.values():
            if run.message is not None and run.message.id == message_id:
                return run.text
        return None

    def present(self) -> Iterator[Event]:
        """The events that tell of the answers which are running, as far as they are."""
        for run in self._running.values():
            if run.message is not None:
                chat_id, message_id = run.message.chat_id, run.message.id
                yield AnswerStarted(chat_id, run.message)
                yield from run.moves
                if run.n_out:
                    yield AnswerGrew(chat_id, message_id, run.text[len(run.message.content) :], run.n_out)
                if run.waits is not None:
                    yield AnswerWaits(chat_id, message_id, run.waits)

    def start(self, run: Running, message: Message, prepare: Prepare, resumed: Message | None = None) -> None:
        """Begin to write the stored `message`, whose content may hold text to go on from, in a reserved chat.

        What goes wrong from now on becomes the reason for which the answer failed.
        """
        run.message, run.resumed, run.text = message, resumed, message.content
        run.facts = message.facts or AnswerFacts()
        self._emit(AnswerStarted(message.chat_id, message))
        self._tasks.spawn(self._play(run, message, prepare), name=f"answer {message.id}")

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer now and keep its text; returns when it is stored."""
        if (run := self._running.get(chat_id)) is not None:
            run.stop()
            await run.over.wait()

    async def stop_all(self) -> None:
        """End every answer now."""
        await asyncio.gather(*(self.stop(chat_id) for chat_id in list(self._running)))

    async def store_again(self) -> None:
        """Try once more to store the ends that could not be stored."""
        for message_id, unstored in list(self._unstored.items()):
            try:
                await self._finish(unstored.rest)
            except StoreError as error:
                if error.code != "not_found":  # that is: its chat is gone for good
                    continue
            self._unstored.pop(message_id, None)

    def as_ended(self, message: Message) -> Message:
        """The message as it ended, when the store does not have its end yet."""
        unstored = self._unstored.get(message.id)
        return message if unstored is None else unstored.whole

    async def _play(self, run: Running, message: Message, prepare: Prepare) -> None:
        writer = self._tasks.spawn(self._write_ticks(run, message.id), name=f"write {message.id}")
        run.work = work = self._tasks.spawn(self._work(run, message, prepare), name=f"work {message.id}")
        if run.stopped:
            work.cancel()
        ended = message
        try:
            await asyncio.wait([work])
            run.ended.set()
            run.dirty.set()
            await asyncio.wait([writer])
            ended = await self._store_end(run, message, _result(work))
        except Exception:
            # A defect of ours: the chat must not stay busy for it.
            _log.exception("the end of answer %s", message.id)
            ended = msgspec.structs.replace(message, content=run.text, state="failed", error=DEFECT)
        finally:
            del self._running[message.chat_id]
            run.over.set()
            self._emit(AnswerEnded(ended.chat_id, ended))

    async def _work(self, run: Running, message: Message, prepare: Prepare) -> Finished:
        try:
            async with prepare() as prepared:
                run.facts = msgspec.structs.replace(run.facts, model=prepared.model or run.facts.model)
                run.dropped_turns = prepared.dropped_turns
                source = prepared.source
                run.source = self._engine.generate(source) if isinstance(source, Request) else source()
                return await self._generate(run, message, run.source)
        except FAILURES as error:
            return Finished("failed", Usage(), ErrorInfo(error.code, error.message, error.remedy))

    async def _generate(self, run: Running, message: Message, source: Source) -> Finished:
        try:
            async for item in source:
                match item:
                    case Delta():
                        if not run.moved and run.facts.drivers:
                            # A driver would have been told of: this machine goes on with the text of one.
                            await self._moved(run, message, Moved(DriverPart(model=run.facts.model)))
                        run.n_out += len(item.token_ids)
                        if item.text:
                            run.text += item.text
                            run.unsaved += item.text
                            run.dirty.set()
                        run.waits = None
                        self._emit(AnswerGrew(message.chat_id, message.id, item.text, run.n_out))
                    case Progress():
                        run.waits = None
                        self._emit(PromptRead(message.chat_id, message.id, item.done, item.total))
                    case Waits():
                        run.waits = item
                        self._emit(AnswerWaits(message.chat_id, message.id, item))
                    case Sent():
                        await self._sent(run, message, item)
                    case Moved():
                        await self._moved(run, message, item)
                    case Times():
                        run.dropped_turns = max(run.dropped_turns, item.dropped_turns)
                        run.facts = msgspec.structs.replace(
                            run.facts, connect_ms=item.connect_ms, wait_ms=item.wait_ms, blame=item.blame
                        )
                    case Finished():
                        return item
        finally:
            source.cancel()
        raise EngineError("closed", "The engine was closed before the answer ended.")

    async def _sent(self, run: Running, message: Message, sent: Sent) -> None:
        """Store who may read the prompt from now on. Raises StoreError, and then it is not sent."""
        known = run.facts.readers
        if all(reader.id != sent.reader.id for reader in known):
            run.facts = msgspec.structs.replace(run.facts, readers=(*known, sent.reader))
            run.message = msgspec.structs.replace(
                message,
                facts=msgspec.structs.replace(message.facts or AnswerFacts(), readers=run.facts.readers),
            )
        await self._store.run(messages.keep_facts, message.id, run.facts)

    async def _moved(self, run: Running, message: Message, moved: Moved) -> None:
        """Somebody else writes from here on; not so when it is who wrote before."""
        run.moved = True
        part = msgspec.structs.replace(moved.part, at=len(message.content) + moved.part.at)
        before = run.facts.drivers
        if part.at and not before:
            before = (DriverPart(model=run.facts.model),)
        run.facts = msgspec.structs.replace(run.facts, model=part.model)
        # A driver whose place begins where this one's does has written nothing.
        before = tuple(one for one in before if one.at < part.at)
        if before and (before[-1].id, before[-1].model) == (part.id, part.model):
            return
        run.facts = msgspec.structs.replace(run.facts, drivers=(*before, part))
        run.moves.append(AnswerMoved(message.chat_id, message.id, part, moved.reason))
        self._emit(run.moves[-1])
        # With the text before its place, so that after a crash the places are right.
        text, run.unsaved = run.unsaved, ""
        try:
            await self._store.run(messages.keep_facts, message.id, run.facts, text)
        except BaseException as error:
            run.unsaved = text + run.unsaved
            if not isinstance(error, StoreError):
                raise
            self._warn(run, error)

    async def _write_ticks(self, run: Running, message_id: str) -> None:
        while True:
            await run.dirty.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.ended.wait(), TICK)
            if run.ended.is_set():
                return
            run.dirty.clear()
            text, run.unsaved = run.unsaved, ""
            try:
                await self._store.run(messages.append_text, message_id, text)
            except BaseException as error:
                # The answer goes on in memory; what could not be written is tried again with the next tick.
                run.unsaved = text + run.unsaved
                if not isinstance(error, StoreError):
                    raise
                self._warn(run, error)

    def _warn(self, run: Running, error: StoreError) -> None:
        """What cannot be written now is tried again; that is said once."""
        if not run.warned:
            run.warned = True
            self._emit(LogLine("infraxa", sentence(error)))

    async def _store_end(self, run: Running, message: Message, finished: Finished) -> Message:
        before, error = run.resumed, finished.error
        if before is not None and run.n_out == 0 and finished.reason in ("failed", "cancelled"):
            # Nothing was added: the answer is what it was, and says why it did not go on.
            end = msgspec.structs.replace(
                before,
                facts=msgspec.structs.replace(before.facts or AnswerFacts(), readers=run.facts.readers),
                error=sentence(error) if error else before.error,
            )
        else:
            end = msgspec.structs.replace(
                message,
                content=run.text,
                state=_STATES[finished.reason],
                facts=self._facts(run, finished),
                error=sentence(error) if error else "",
            )
        rest = msgspec.structs.replace(end, content=run.unsaved)
        try:
            return await self._finish(rest)
        except StoreError as failure:
            self._emit(LogLine("infraxa", sentence(failure)))
            note = f"This answer is not saved yet. {sentence(failure)}"
            whole = msgspec.structs.replace(end, content=run.text, error=f"{end.error} {note}".strip())
            self._unstored[end.id] = Unstored(rest, whole)
            return whole

    async def _finish(self, end: Message) -> Message:
        """Store how the answer ended; its content is the text that the store does not have yet."""
        return await self._store.run(
            messages.finish_message, end.id, end.state, end.facts, end.error, end.content
        )

    def _facts(self, run: Running, finished: Finished) -> AnswerFacts:
        usage = finished.usage
        return msgspec.structs.replace(
            run.facts,
            finish=finished.reason,
            n_prompt=usage.n_prompt,
            n_cached=usage.n_cached,
            n_out=usage.n_out + run.facts.n_out,
            first_token_ms=usage.first_token_ms,
            decode_ms=usage.decode_ms,
            tokens_per_second=usage.tokens_per_second,
            dropped_turns=run.dropped_turns,
            error_code=finished.error.code if finished.error else "",
        )


def _result(work: asyncio.Task[Finished]) -> Finished:
    if work.cancelled():
        return Finished("cancelled", Usage())
    if work.exception() is not None:  # the task's owner has logged it
        return Finished("failed", Usage(), ErrorInfo("internal", DEFECT))
    return work.result()
