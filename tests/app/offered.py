"""A node that knows some providers, and whose answers are played by the test: a driver does what it says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from infraxa.app.answering import Waits
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerMoved,
    AnswerStarted,
    AnswerWaits,
    BranchChanged,
    ChatsChanged,
    PromptRead,
)
from infraxa.app.offers import OfferSeen
from infraxa.net.identity import id_text
from infraxa.net.records import ModelOffer
from infraxa.net.status import SeenNode
from infraxa.store import messages
from infraxa.store.records import AnswerFacts, DriverPart, Message, MessageState, Reader
from tests.app.still import NOW, StillNode, an_id, seen

QWEN = ModelOffer(
    "Qwen3 8B", "qwen3", "Q4_K_M", hashlib.sha256(b"qwen").digest(), 32_768, 4096, 0, 0, speed=30_000
)
GEMMA = ModelOffer("Gemma 3 12B", "gemma3", "Q5_K_M", hashlib.sha256(b"gemma").digest(), 8192, 2048, 0, 0)


def node(name: str, *models: ModelOffer, **more: Any) -> SeenNode:
    """A provider."""
    return seen(name, 2.0, "ws://192.0.2.7:7741", models=models, util=128, rtt_ms=23.0, **more)


MAPLE, CEDAR, ELM = node("maple", QWEN, GEMMA), node("cedar", QWEN), node("elm", GEMMA, status="busy")
HOSTILE = node("[b]slate[/b]\x1b[31m", GEMMA, same_name_as=an_id("slate"))
OFFERS = [
    OfferSeen(ELM, GEMMA, 0, 0),
    OfferSeen(
        MAPLE, QWEN, 0, 0, answered=40, failed=1, success=0.98, first_token_ms=210.0, tokens_per_second=33.8
    ),
    OfferSeen(MAPLE, GEMMA, 0, 0),
    OfferSeen(CEDAR, QWEN, 0, 0),
    OfferSeen(HOSTILE, GEMMA, 0, 0),
]


def part(node: SeenNode, model: ModelOffer = QWEN, at: int = 0, reason: str = "") -> DriverPart:
    """That this provider writes from there on."""
    return DriverPart(id_text(node.id), node.name, model.name, at, reason)


def reader(node: SeenNode) -> Reader:
    """That it was sent the prompt."""
    return Reader(id_text(node.id), node.name)


class OfferedNode(StillNode):
    """Its providers are `offers`; answers begin, wait, grow and end when the test says so."""

    offers: Sequence[OfferSeen] = OFFERS

    async def start(self) -> None:
        self.moved: list[tuple[str, str, str | None]] = []
        self._said: dict[str, str] = {}
        await super().start()

    async def continue_elsewhere(self, message_id: str, driver: str, driver_model: str | None = None) -> str:
        self.moved.append((message_id, driver, driver_model))
        return message_id

    async def send(self, chat_id: str, text: str) -> str:
        """The answer begins; the rest of it is played by the test."""
        chat = await self.get_chat(chat_id)
        asked = await self._store.run(messages.add_message, chat_id, chat.head_id, "user", text)
        answer = await self._store.run(
            messages.add_message, chat_id, asked.id, "assistant", "", "streaming", AnswerFacts()
        )
        self._said[answer.id] = ""
        for event in (ChatsChanged(), BranchChanged(chat_id), AnswerStarted(chat_id, answer)):
            self._emit(event)
        return answer.id

    def partial(self, message_id: str) -> str:
        return self._said.get(message_id, "")

    def wait(self, answer: Message, what: str, passed_s: float = 3.0, limit_s: float = 15.0) -> None:
        waits = Waits(what, NOW - round(passed_s * 1000), limit_s)
        self._emit(AnswerWaits(answer.chat_id, answer.id, waits))

    def read(self, answer: Message, done: int, total: int) -> None:
        self._emit(PromptRead(answer.chat_id, answer.id, done, total))

    def move(self, answer: Message, part: DriverPart, reason: str = "") -> None:
        part = msgspec.structs.replace(part, reason=reason)
        self._emit(AnswerMoved(answer.chat_id, answer.id, part))

    def grow(self, answer: Message, text: str) -> None:
        self._said[answer.id] += text
        self._emit(AnswerGrew(answer.chat_id, answer.id, text, len(self._said[answer.id].split())))

    async def end(self, answer: Message, state: MessageState, facts: AnswerFacts, error: str = "") -> None:
        text = self._said.pop(answer.id)
        ended = await self._store.run(messages.finish_message, answer.id, state, facts, error, text)
        self._emit(AnswerEnded(answer.chat_id, ended))


def moved_facts(at: int) -> AnswerFacts:
    """Of an answer that maple began and cedar went on with."""
    return msgspec.structs.replace(
        MEASURED,
        drivers=(part(MAPLE), part(CEDAR, at=at, reason="maple fell silent in mid-answer.")),
        readers=(reader(MAPLE), reader(CEDAR)),
    )


MEASURED = AnswerFacts(
    model="Qwen3 8B", finish="stop", n_prompt=512, n_cached=480, n_out=412, first_token_ms=210.0,
    decode_ms=12_000.0, tokens_per_second=33.8, drivers=(part(MAPLE),), readers=(reader(MAPLE),),
    connect_ms=412.0, wait_ms=1_900.0,
)  # fmt: skip
