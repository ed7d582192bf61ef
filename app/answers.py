"""Plays answers: from a request, through the engine, into the store, told as events.

At most one answer runs per chat. The text is stored as it comes, every `TICK` seconds, so that a crash loses
no more than the last tick; the end writes the answer whole. What a conversation contains and which model
answers it is decided by Node, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from infraxa.app.errors import NodeError
from infraxa.app.events import AnswerEnded, AnswerGrew, AnswerStarted, Event, LogLine, PromptRead
from infraxa.app.tasks import TaskGroup
from infraxa.engine.generation import Generation
from infraxa.engine.host import Engine
from infraxa.engine.types import Delta, EngineError, ErrorInfo, Finished, Progress, Request, Usage
from infraxa.store import messages
from infraxa.store.db import Store
from infraxa.store.records import AnswerFacts, Message, MessageState, StoreError

TICK = 0.2
"""Seconds between two writes of a growing answer."""

_STATES: dict[str, MessageState] = {
    "stop": "complete",
    "length": "complete",
    "cancelled": "stopped",
    "failed": "failed",
}


@dataclass(frozen=True)
class Prepared:
    """What an answer needs before it can be generated."""

    request: Request
    model: str
    dropped_turns: int = 0


@dataclass
class Running:
    """One answer on its way."""

    message: Message
    text: str
    """All of it so far, with what a continued answer started from."""
    unsaved: str = ""
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    n_out: int = 0
    model: str = ""
    dropped_turns: int = 0
    generation: Generation | None = None
    warned: bool = False
    """That it cannot be saved was said."""
    task: asyncio.Task[None] | None = None


class Answers:
    """The answers that are running, by chat."""

    def __init__(self, store: Store, engine: Engine, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._engine = engine
        self._emit = emit
        self._running: dict[str, Running | None] = {}
        self._tasks = TaskGroup()

    def reserve(self, chat_id: str) -> None:
        """Keep the chat for what is about to change it; `NodeError` `busy` when it is being answered."""
        if chat_id in self._running:
            raise NodeError(
                "busy", "This chat is being answered.", "Wait for the end of the answer, or stop it with Esc."
            )
        self._running[chat_id] = None

    def release(self, chat_id: str) -> None:
        """Give up a reservation; an answer that was started meanwhile keeps the chat."""
        if self._running.get(chat_id, ...) is None:
            del self._running[chat_id]

    def __contains__(self, chat_id: str) -> bool:
        return chat_id in self._running

    def partial(self, message_id: str) -> str | None:
        """The text so far of a running answer; None when it does not run."""
        for run in self._running.values():
            if run is not None and run.message.id == message_id:
                return run.text
        return None

    def start(self, message: Message, prepare: Callable[[], Awaitable[Prepared]]) -> None:
        """Begin to write the stored, reserved `message`, whose content may hold text to go on from.

        What `prepare` raises becomes the reason for which the answer failed.
        """
        run = Running(message, message.content)
        self._running[message.chat_id] = run
        self._emit(AnswerStarted(message.chat_id, message))
        run.task = self._tasks.spawn(self._play(run, prepare), name=f"answer {message.id}")

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer now and keep its text; returns when it is stored."""
        run = self._running.get(chat_id)
        if run is None or run.task is None:
            return
        run.stopped.set()
        if run.generation is not None:
            run.generation.cancel()
        await asyncio.wait([run.task])

    async def stop_all(self) -> None:
        """End every answer now."""
        await asyncio.gather(*(self.stop(chat_id) for chat_id in list(self._running)))

    async def _play(self, run: Running, prepare: Callable[[], Awaitable[Prepared]]) -> None:
        writer = self._tasks.spawn(self._write_ticks(run), name=f"write {run.message.id}")
        finished = Finished("failed", Usage(), ErrorInfo("internal", "The answer ended without a reason."))
        try:
            prepared = await self._prepare(run, prepare)
            if prepared is None:
                finished = Finished("cancelled", Usage())
            else:
                finished = await self._generate(run, prepared)
        except (EngineError, NodeError, StoreError) as error:
            finished = Finished("failed", Usage(), ErrorInfo(error.code, error.message, error.remedy))
        finally:
            # Also when this was a defect of ours, which the task's owner logs: the chat must not stay busy.
            run.over.set()
            run.dirty.set()
            await asyncio.wait([writer])
            message = await self._store_end(run, finished)
            del self._running[run.message.chat_id]
            self._emit(AnswerEnded(message.chat_id, message))

    async def _prepare(self, run: Running, prepare: Callable[[], Awaitable[Prepared]]) -> Prepared | None:
        """What `prepare` gives; None when the answer is stopped first."""

        async def call() -> Prepared:
            return await prepare()

        preparing = self._tasks.spawn(call(), name=f"prepare {run.message.id}")
        stopped = self._tasks.spawn(run.stopped.wait(), name=f"stop {run.message.id}")
        await asyncio.wait([preparing, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not preparing.done():
            preparing.cancel()
            return None
        return preparing.result()

    async def _generate(self, run: Running, prepared: Prepared) -> Finished:
        run.model, run.dropped_turns = prepared.model, prepared.dropped_turns
        run.generation = self._engine.generate(prepared.request)
        if run.stopped.is_set():
            run.generation.cancel()
        chat_id, message_id = run.message.chat_id, run.message.id
        finished: Finished | None = None
        async for item in run.generation:
            match item:
                case Delta():
                    run.n_out += len(item.token_ids)
                    if item.text:
                        run.text += item.text
                        run.unsaved += item.text
                        run.dirty.set()
                    self._emit(AnswerGrew(chat_id, message_id, item.text, run.n_out))
                case Progress():
                    self._emit(PromptRead(chat_id, message_id, item.done, item.total))
                case Finished():
                    finished = item
        if finished is None:
            raise EngineError("closed", "The engine was closed before the answer ended.")
        return finished

    async def _write_ticks(self, run: Running) -> None:
        while True:
            await run.dirty.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.over.wait(), TICK)
            if run.over.is_set():
                return
            run.dirty.clear()
            text, run.unsaved = run.unsaved, ""
            try:
                await self._store.run(messages.append_text, run.message.id, text)
            except StoreError as error:
                # The answer goes on in memory; what could not be written is tried again with the next tick.
                run.unsaved = text + run.unsaved
                if not run.warned:
                    run.warned = True
                    self._emit(LogLine("infraxa", f"{error.message} {error.remedy}"))

    async def _store_end(self, run: Running, finished: Finished) -> Message:
        usage, error = finished.usage, finished.error
        before = run.message.facts
        facts = AnswerFacts(
            model=run.model or (before.model if before is not None else ""),
            finish=finished.reason,
            n_prompt=usage.n_prompt,
            n_cached=usage.n_cached,
            n_out=usage.n_out + (before.n_out if before is not None else 0),
            first_token_ms=usage.first_token_ms,
            decode_ms=usage.decode_ms,
            tokens_per_second=usage.tokens_per_second,
            dropped_turns=run.dropped_turns,
            error_code=error.code if error else "",
        )
        sentence = f"{error.message} {error.remedy}".strip() if error else ""
        state = _STATES[finished.reason]
        try:
            return await self._store.run(
                messages.finish_message, run.message.id, state, facts, sentence, run.unsaved
            )
        except StoreError as failure:
            self._emit(LogLine("infraxa", f"{failure.message} {failure.remedy}"))
            sentence = f"The answer is shown but not saved. {failure.message} {failure.remedy}".strip()
            return msgspec.structs.replace(
                run.message, content=run.text, state="failed", facts=facts, error=sentence
            )
