"""Plays answers: from whoever generates them, into the store, told as events.

At most one answer runs per chat. The text is stored as it comes, every `TICK` seconds, so that a crash loses
no more than the last tick; the end writes the rest. That another node is sent the prompt is stored before it
is sent. What a conversation contains and who answers it is decided by Node, not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from infraxa.app.answering import Billed, Moved, Sent, Source, Times, Waits
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerStarted,
    AnswerWaits,
    Event,
    FactsChanged,
    LogLine,
    PromptRead,
)
from infraxa.app.running import Running
from infraxa.engine.types import Delta, EngineError, ErrorInfo, Finished, Progress, Usage
from infraxa.net.tasks import TaskGroup
from infraxa.store import bills, messages, verdicts
from infraxa.store.db import Store
from infraxa.store.messages import with_reader
from infraxa.store.records import (
    AnswerFacts,
    Bill,
    DriverPart,
    Message,
    MessageState,
    Reader,
    StoreError,
    Verdict,
)
from infraxa.store.verdicts import with_verdict

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

    source: Callable[[], Source]
    """Begins to generate it."""
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


class Answers:
    """The answers that are running, by chat."""

    def __init__(self, store: Store, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._emit = emit
        self._running: dict[str, Running] = {}
        self._unstored: dict[str, Unstored] = {}
        self._audits: dict[str, dict[str, Verdict]] = {}
        """Those that run, by message and order. They are not stored: none of them may ever end."""
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
            yield from run.present()

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

    def as_known(self, message: Message) -> Message:
        """The message as it ended, when the store does not have its end yet, and with the audits that run."""
        unstored = self._unstored.get(message.id)
        return self._with_audits(message if unstored is None else unstored.whole)

    def _with_audits(self, message: Message) -> Message:
        for verdict in self._audits.get(message.id, {}).values():
            message = _with_verdict(message, verdict)
        return message

    def billed(self, chat_id: str, message_id: str, bill: Bill) -> None:
        """What an order of this answer costs; it may have ended, in this run or in one before."""
        run = self._running.get(chat_id)
        if run is not None and run.message is not None and run.message.id == message_id:
            run.bill(bill)
            if not run.ended.is_set():
                return  # it is stored with the end
        self._tasks.spawn(self._bill(run, chat_id, message_id, bill), name=f"bill {message_id}")

    def judged(self, chat_id: str, message_id: str, verdict: Verdict) -> None:
        """What is known of how an order of this answer was computed."""
        audit = self._audits.get(message_id, {}).get(verdict.order)
        """The one that this ends, once that is stored."""
        if verdict.state == "checking":
            self._audits.setdefault(message_id, {})[verdict.order] = verdict
        run = self._running.get(chat_id)
        if run is not None and run.message is not None and run.message.id == message_id:
            if verdict.state != "checking":
                run.judge(verdict)
            if not run.ended.is_set():
                if verdict.state != "checking":
                    self._audit_ended(message_id, audit)
                return  # it is stored with the end
        self._tasks.spawn(self._judge(run, chat_id, message_id, verdict, audit), name=f"verdict {message_id}")

    def _audit_ended(self, message_id: str, audit: Verdict | None) -> None:
        audits = self._audits.get(message_id, {})
        # Another one of the same order may run already.
        if audit is not None and audits.get(audit.order) is audit:
            del audits[audit.order]
            if not audits:
                del self._audits[message_id]

    async def read_by(self, chat_id: str, message_id: str, reader: Reader) -> None:
        """Store that this node may read the prompt of an answer from now on, and the answer, which has ended.
        Raises StoreError, and then it is not sent."""
        run = self._running.get(chat_id)
        if run is not None and run.message is not None and run.message.id == message_id:
            run.sent(Sent(reader))  # as it goes on
            await run.over.wait()
        if (unstored := self._unstored.get(message_id)) is not None:
            self._unstored[message_id] = Unstored(*(_with_reader(one, reader) for one in unstored))
        facts = await self._store.run(messages.add_reader, message_id, reader)
        self.facts_changed(chat_id, message_id, facts)

    def facts_changed(self, chat_id: str, message_id: str, facts: AnswerFacts) -> None:
        """Tell of what is stored of an answer, and of the audits that run."""
        for verdict in self._audits.get(message_id, {}).values():
            facts = with_verdict(facts, verdict)
        self._emit(FactsChanged(chat_id, message_id, facts))

    async def _judge(
        self, run: Running | None, chat_id: str, message_id: str, verdict: Verdict, audit: Verdict | None
    ) -> None:
        """`audit`: the one that this ends."""
        if run is not None:
            await run.over.wait()
        try:
            if verdict.state == "checking":
                facts = (await self._store.run(messages.get_message, message_id)).facts or AnswerFacts()
            else:
                if (unstored := self._unstored.get(message_id)) is not None:
                    self._unstored[message_id] = Unstored(*(_with_verdict(one, verdict) for one in unstored))
                facts = await self._store.run(verdicts.keep_verdict, message_id, verdict)
        except StoreError as error:
            if error.code != "not_found":  # as for bills
                self._emit(LogLine("infraxa", sentence(error)))
            return
        finally:
            if verdict.state != "checking":
                self._audit_ended(message_id, audit)
        self.facts_changed(chat_id, message_id, facts)

    async def _bill(self, run: Running | None, chat_id: str, message_id: str, bill: Bill) -> None:
        if run is not None:
            await run.over.wait()
        if (unstored := self._unstored.get(message_id)) is not None:
            self._unstored[message_id] = Unstored(*(_with_bill(message, bill) for message in unstored))
        try:
            facts = await self._store.run(bills.keep_bill, message_id, bill)
        except StoreError as error:
            if error.code != "not_found":  # that is: its chat is gone for good, or its end is not stored
                self._emit(LogLine("infraxa", sentence(error)))
            return
        self.facts_changed(chat_id, message_id, facts)

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
            self._emit(AnswerEnded(ended.chat_id, self._with_audits(ended)))

    async def _work(self, run: Running, message: Message, prepare: Prepare) -> Finished:
        try:
            async with prepare() as prepared:
                run.begin(prepared.model, prepared.dropped_turns)
                run.source = prepared.source()
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
                    case Billed():
                        for bill in item.bills:
                            run.bill(bill)
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
        run.sent(sent)
        await self._store.run(messages.keep_facts, message.id, run.facts)

    async def _moved(self, run: Running, message: Message, moved: Moved) -> None:
        """Store who writes from here on, with the text before, so that after a crash the places are right."""
        told = run.move(moved)
        if told is None:
            return
        self._emit(told)
        await self._save(run, lambda text: self._store.run(messages.keep_facts, message.id, run.facts, text))

    async def _write_ticks(self, run: Running, message_id: str) -> None:
        while True:
            await run.dirty.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.ended.wait(), TICK)
            if run.ended.is_set():
                return
            run.dirty.clear()
            await self._save(run, lambda text: self._store.run(messages.append_text, message_id, text))

    async def _save(self, run: Running, write: Callable[[str], Awaitable[None]]) -> None:
        """Have the text stored that is not yet."""
        async with run.saving:
            text, run.unsaved = run.unsaved, ""
            try:
                await write(text)
            except BaseException as error:
                # The answer goes on in memory; what could not be written is tried again with the next tick.
                run.unsaved = text + run.unsaved
                if not isinstance(error, StoreError):
                    raise
                if not run.warned:
                    run.warned = True
                    self._emit(LogLine("infraxa", sentence(error)))

    async def _store_end(self, run: Running, message: Message, finished: Finished) -> Message:
        before, error = run.resumed, finished.error
        if before is not None and run.n_out == 0 and finished.reason in ("failed", "cancelled"):
            # Nothing was added: the answer is what it was, and says why it did not go on.
            end = msgspec.structs.replace(
                before,
                facts=msgspec.structs.replace(
                    before.facts or AnswerFacts(),
                    readers=run.facts.readers,
                    bills=run.facts.bills,
                    verdicts=run.facts.verdicts,
                ),
                error=sentence(error) if error else before.error,
            )
        else:
            end = msgspec.structs.replace(
                message,
                content=run.text,
                state=_STATES[finished.reason],
                facts=run.ended_facts(finished),
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


def _with_bill(message: Message, bill: Bill) -> Message:
    facts = bills.with_bill(message.facts or AnswerFacts(), bill)
    return msgspec.structs.replace(message, facts=facts)


def _with_verdict(message: Message, verdict: Verdict) -> Message:
    facts = with_verdict(message.facts or AnswerFacts(), verdict)
    return msgspec.structs.replace(message, facts=facts)


def _with_reader(message: Message, reader: Reader) -> Message:
    facts = with_reader(message.facts or AnswerFacts(), reader)
    return msgspec.structs.replace(message, facts=facts)


def _result(work: asyncio.Task[Finished]) -> Finished:
    if work.cancelled():
        return Finished("cancelled", Usage())
    if work.exception() is not None:  # the task's owner has logged it
        return Finished("failed", Usage(), ErrorInfo("internal", DEFECT))
    return work.result()
