"""Plays answers: from a request, through the engine, into the store, told as events.

At most one answer runs per chat. The text is stored as it comes, every `TICK` seconds, so that a crash loses
no more than the last tick; the end writes the answer whole. What a conversation contains and which model
answers it is decided by Node, not here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from infraxa.app.errors import NodeError
from infraxa.app.events import AnswerEnded, AnswerGrew, AnswerStarted, Event, LogLine, PromptRead
from infraxa.app.tasks import TaskGroup
from infraxa.engine.host import Engine, Generation
from infraxa.engine.types import Delta, EngineError, ErrorInfo, Finished, Progress, Request, Usage
from infraxa.store import chats
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


@dataclass
class Running:
    """One answer on its way."""

    message: Message
    model: str
    dropped_turns: int
    text: str
    """All of it so far, with what a continued answer started from."""
    unsaved: list[str] = field(default_factory=list)
    dirty: asyncio.Event = field(default_factory=asyncio.Event)
    n_out: int = 0
    generation: Generation | None = None
    stopping: bool = False
    store_error: StoreError | None = None
    task: asyncio.Task[None] | None = None


class Answers:
    """The answers that are running, by chat."""

    def __init__(
        self, store: Store, engine: Engine, emit: Callable[[Event], None], clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._running: dict[str, Running | None] = {}
        self._tasks = TaskGroup()

    def reserve(self, chat_id: str) -> None:
        """Keep the chat for an answer that is being prepared; `NodeError` `busy` when it has one."""
        if chat_id in self._running:
            raise NodeError(
                "busy", "This chat is being answered.", "Wait for the end of the answer, or stop it with Esc."
            )
        self._running[chat_id] = None

    def release(self, chat_id: str) -> None:
        """Give up a reservation for which no answer was started."""
        if self._running.get(chat_id, ...) is None:
            del self._running[chat_id]

    def __contains__(self, chat_id: str) -> bool:
        return chat_id in self._running

    def __len__(self) -> int:
        return len(self._running)

    def partial(self, message_id: str) -> str | None:
        """The text so far of a running answer; None when it does not run."""
        for run in self._running.values():
            if run is not None and run.message.id == message_id:
                return run.text
        return None

    def start(self, message: Message, request: Request, *, model: str, dropped_turns: int = 0) -> None:
        """Begin to generate into the stored, reserved `message`, whose content may hold text to go on from."""
        run = Running(message, model, dropped_turns, message.content)
        self._running[message.chat_id] = run
        self._emit(AnswerStarted(message.chat_id, message))
        run.task = self._tasks.spawn(self._play(run, request), name=f"answer {message.id}")

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer now and keep its text; returns when it is stored."""
        run = self._running.get(chat_id)
        if run is None or run.task is None:
            return
        run.stopping = True
        if run.generation is not None:
            run.generation.cancel()
        await asyncio.wait([run.task])

    async def stop_all(self) -> None:
        await asyncio.gather(*(self.stop(chat_id) for chat_id in list(self._running)))

    async def _play(self, run: Running, request: Request) -> None:
        writer = self._tasks.spawn(self._write_ticks(run), name=f"write {run.message.id}")
        finished = Finished("failed", Usage(), ErrorInfo("internal", "The answer ended without a reason."))
        try:
            finished = await self._generate(run, request)
        except EngineError as error:
            finished = Finished("failed", Usage(), error.info)
        except Exception as error:
            # Whatever it was, the chat must not stay busy for ever; the log has the trace.
            finished = Finished("failed", Usage(), ErrorInfo("internal", f"Internal error: {error!r}"))
            raise
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            message = await self._store_end(run, finished)
            del self._running[run.message.chat_id]
            self._emit(AnswerEnded(message.chat_id, message))

    async def _generate(self, run: Running, request: Request) -> Finished:
        run.generation = self._engine.generate(request)
        if run.stopping:
            run.generation.cancel()
        chat_id, message_id = run.message.chat_id, run.message.id
        finished: Finished | None = None
        async for item in run.generation:
            match item:
                case Delta():
                    run.n_out += len(item.token_ids)
                    if item.text:
                        run.text += item.text
                        run.unsaved.append(item.text)
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
            await asyncio.sleep(TICK)
            run.dirty.clear()
            text = "".join(run.unsaved)
            run.unsaved.clear()
            try:
                await self._store.run(chats.append_text, run.message.id, text)
            except StoreError as error:
                # The answer goes on: it is in memory and will be written whole at its end, if there is room by then.
                if run.store_error is None:
                    self._emit(LogLine("infraxa", f"{error.message} {error.remedy}"))
                run.store_error = error

    async def _store_end(self, run: Running, finished: Finished) -> Message:
        usage, error = finished.usage, finished.error
        facts = AnswerFacts(
            model=run.model,
            finish=finished.reason,
            n_prompt=usage.n_prompt,
            n_cached=usage.n_cached,
            n_out=usage.n_out,
            first_token_ms=usage.first_token_ms,
            decode_ms=usage.decode_ms,
            tokens_per_second=usage.tokens_per_second,
            dropped_turns=run.dropped_turns,
            error_code=error.code if error else "",
        )
        sentence = f"{error.message} {error.remedy}".strip() if error else ""
        state = _STATES[finished.reason]
        message = Message(
            id=run.message.id,
            chat_id=run.message.chat_id,
            parent_id=run.message.parent_id,
            role="assistant",
            content=run.text,
            state=state,
            created_at=run.message.created_at,
            facts=facts,
            error=sentence,
        )
        try:
            await self._store.run(chats.finish_message, message, self._clock())
        except StoreError as failure:
            self._emit(LogLine("infraxa", f"{failure.message} {failure.remedy}"))
            return Message(
                id=message.id,
                chat_id=message.chat_id,
                parent_id=message.parent_id,
                role="assistant",
                content=run.text,
                state="failed",
                created_at=message.created_at,
                facts=facts,
                error=f"The answer is shown but not saved. {failure.message} {failure.remedy}".strip(),
            )
        return message


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
