"""One answer while it is written: what is known of it so far. What happens to it is in answers.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from infraxa.app.answering import Moved, Sent, Source, Waits
from infraxa.app.events import AnswerGrew, AnswerMoved, AnswerStarted, AnswerWaits, Event
from infraxa.engine.types import Finished
from infraxa.store.bills import with_bill
from infraxa.store.records import AnswerFacts, Bill, DriverPart, Message, Verdict
from infraxa.store.verdicts import with_verdict


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
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while text is stored: it must not overtake."""
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

    def begin(self, model: str, dropped_turns: int) -> None:
        """Somebody begins to generate; what was measured of it before is not of this time."""
        self.dropped_turns = dropped_turns
        self.facts = msgspec.structs.replace(
            self.facts, model=model or self.facts.model, connect_ms=None, wait_ms=None, blame=""
        )

    def present(self) -> Iterator[Event]:
        """The events that tell of it, as far as it is."""
        if self.message is None:
            return
        chat_id, message_id = self.message.chat_id, self.message.id
        yield AnswerStarted(chat_id, self.message)
        yield from self.moves
        if self.n_out:
            yield AnswerGrew(chat_id, message_id, self.text[len(self.message.content) :], self.n_out)
        if self.waits is not None:
            yield AnswerWaits(chat_id, message_id, self.waits)

    def sent(self, sent: Sent) -> None:
        """Another node may read the prompt."""
        assert self.message is not None
        known = self.facts.readers
        if any(reader.id == sent.reader.id for reader in known):
            return
        readers = (*known, sent.reader)
        self.facts = msgspec.structs.replace(self.facts, readers=readers)
        # Not who writes: whoever is presented with the message is told of that after it.
        begun = msgspec.structs.replace(self.message.facts or AnswerFacts(), readers=readers)
        self.message = msgspec.structs.replace(self.message, facts=begun)

    def bill(self, bill: Bill) -> None:
        """One of its orders costs something else, or is known better."""
        self.facts = with_bill(self.facts, bill)

    def judge(self, verdict: Verdict) -> None:
        """More is known of how one of its orders was computed."""
        self.facts = with_verdict(self.facts, verdict)

    def move(self, moved: Moved) -> AnswerMoved | None:
        """Somebody writes from here on; what is to be told, None when it is who wrote before."""
        assert self.message is not None
        self.moved = True
        at = len(self.message.content) + moved.part.at
        part = msgspec.structs.replace(moved.part, at=at)
        before = self.facts.drivers
        if part.at and not before:
            before = (DriverPart(model=self.facts.model),)
        self.facts = msgspec.structs.replace(self.facts, model=part.model)
        # Whose place begins where this one's does has written nothing.
        before = tuple(one for one in before if one.at < part.at)
        if before and (before[-1].id, before[-1].model) == (part.id, part.model):
            return None
        self.facts = msgspec.structs.replace(self.facts, drivers=(*before, part))
        told = AnswerMoved(self.message.chat_id, self.message.id, part)
        self.moves.append(told)
        return told

    def ended_facts(self, finished: Finished) -> AnswerFacts:
        """With what is known at the end."""
        usage = finished.usage
        return msgspec.structs.replace(
            self.facts,
            finish=finished.reason,
            n_prompt=usage.n_prompt,
            n_cached=usage.n_cached,
            n_out=usage.n_out + self.facts.n_out,
            first_token_ms=usage.first_token_ms,
            decode_ms=usage.decode_ms,
            tokens_per_second=usage.tokens_per_second,
            dropped_turns=self.dropped_turns,
            error_code=finished.error.code if finished.error else "",
        )
