"""The chats of one node: what is said in them, which of it is shown, and who is asked to answer.

How an answer is generated and stored is in answers.py, how a driver is asked for it in buyer.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from infraxa.app import choices
from infraxa.app.answers import Answers, Prepared
from infraxa.app.buyer import Buyer, wanted
from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.events import BranchChanged, ChatsChanged, Event
from infraxa.app.models import Models
from infraxa.app.prompting import fit, prompt_messages
from infraxa.engine.types import ChatMessage, Request
from infraxa.net.tasks import TaskGroup
from infraxa.store import chats, messages, turns
from infraxa.store.db import Store
from infraxa.store.records import AnswerFacts, Bill, Message, Reader, Turn, Verdict

DELETED_KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""How long a deleted chat can be brought back."""
CLOSE_S: Final = 3.0
"""For answers to stop and be stored."""

_log = logging.getLogger(__name__)


class Conversing:
    """Of one node. `open` it once; `close` it before the models, the network and the store."""

    def __init__(
        self,
        models: Models,
        buyer: Buyer,
        settings: Callable[[], Settings],
        store: Callable[[], Store],
        emit: Callable[[Event], None],
    ) -> None:
        """`store`: raises NodeError while it is not open."""
        self._models = models
        self._buyer = buyer
        self._settings = settings
        self._find_store = store
        self._emit = emit
        self._answers: Answers | None = None
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """What an earlier run left unfinished is taken down as interrupted. Raises StoreError."""
        self._answers = Answers(store, self._emit)
        await store.run(messages.mark_interrupted)
        await store.run(chats.purge_deleted, DELETED_KEPT_MS)

    async def close(self) -> None:
        """End the answers, which are stored as stopped."""
        if self._answers is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await self._answers.stop_all()
                    await self._answers.store_again()
            except TimeoutError:
                _log.error("answers did not stop within %g s", CLOSE_S)
        await self._tasks.cancel_all()

    @property
    def _store(self) -> Store:
        return self._find_store()

    @property
    def _playing(self) -> Answers:
        if self._answers is None:
            raise NodeError("closed", "This node is not open.")
        return self._answers

    def present(self) -> Iterator[Event]:
        """What tells of the answers that are running."""
        return self._playing.present()

    def answering(self, chat_id: str) -> bool:
        """Whether this chat is being answered."""
        return self._answers is not None and chat_id in self._answers

    def partial(self, message_id: str) -> str:
        """The whole text so far of a running answer; empty when it does not run."""
        return self._playing.partial(message_id) or ""

    async def stop(self, chat_id: str) -> None:
        """End the chat's answer at once; what was said stays."""
        await self._playing.stop(chat_id)

    async def delete(self, chat_id: str) -> None:
        """Delete a chat; its answer is stopped. Raises StoreError."""
        await self._playing.stop(chat_id)
        with self._playing.reserved(chat_id):
            await self._store.run(chats.delete_chat, chat_id)
        self._emit(ChatsChanged())

    async def branch(self, chat_id: str) -> list[Turn]:
        """The shown branch, oldest turn first. Who could read an answer is whoever was sent it since, too."""
        await self._playing.store_again()
        shown, later = await self._store.run(messages.shown_with_readers, chat_id)
        ended = ((self._playing.as_known(turn.message), turn.sibling_ids) for turn in shown)
        return [Turn(_with_readers(message, later), siblings) for message, siblings in ended]

    async def select_version(self, message_id: str) -> None:
        """Show the branch that contains this message."""
        message = await self._store.run(messages.get_message, message_id)
        with self._playing.reserved(message.chat_id):
            await self._store.run(messages.select_sibling, message_id)
        self._emit(BranchChanged(message.chat_id))

    async def send(self, chat_id: str, text: str) -> str:
        """Say `text` and have it answered; returns the answer's id. NodeError `busy` while one runs."""
        return await self._answer(chat_id, lambda facts: self._store.run(turns.ask, chat_id, text, facts))

    async def edit(self, message_id: str, text: str) -> str:
        """Say `text` instead of the user's message: a sibling of it, answered; returns the answer's id."""
        old = await self._store.run(messages.get_message, message_id)
        return await self._answer(
            old.chat_id, lambda facts: self._store.run(turns.ask_instead, message_id, text, facts)
        )

    async def regenerate(self, message_id: str, *, drop_oldest: bool) -> str:
        """Another answer beside this one; `drop_oldest` leaves out as many of the oldest turns as must be."""
        old, question_id = await self._answer_and_question(message_id)
        return await self._answer(
            old.chat_id,
            lambda facts: self._store.run(turns.answer, question_id, facts),
            drop_oldest=drop_oldest,
        )

    async def go_on(self, message_id: str) -> str:
        """Go on where this answer ended: what follows is added to its text."""
        old, _ = await self._answer_and_question(message_id)
        if (await self._store.run(chats.get_chat, old.chat_id)).head_id != old.id:
            raise NodeError("not_last", "Only the last answer can go on.", "Regenerate this one instead.")
        return await self._answer(
            old.chat_id, lambda _: self._store.run(turns.resume, message_id), resumed=old
        )

    async def go_on_elsewhere(self, message_id: str, driver: str, driver_model: str | None) -> str:
        """As `go_on`, by this driver, which answers the chat from then on."""
        old, _ = await self._answer_and_question(message_id)
        chat = await self._store.run(chats.get_chat, old.chat_id)
        options = msgspec.structs.replace(chat.options, driver=driver, driver_model=driver_model)
        await self._store.run(chats.set_options, chat.id, options)
        self._emit(ChatsChanged())
        return await self.go_on(message_id)

    def billed(self, chat_id: str, message_id: str, bill: Bill) -> None:
        """What an order of this answer costs."""
        if self._answers is not None:
            self._answers.billed(chat_id, message_id, bill)

    def judged(self, chat_id: str, message_id: str, verdict: Verdict) -> None:
        """What is known of how an order of this answer was computed."""
        if self._answers is not None:
            self._answers.judged(chat_id, message_id, verdict)

    async def read_by(self, chat_id: str, message_id: str, reader: Reader) -> None:
        """Take down who may read this message from now on. Raises StoreError."""
        await self._playing.read_by(chat_id, message_id, reader)

    def facts_changed(self, chat_id: str, message_id: str, facts: AnswerFacts) -> None:
        """The stored facts of this answer are these."""
        self._playing.facts_changed(chat_id, message_id, facts)

    async def _answer_and_question(self, message_id: str) -> tuple[Message, str]:
        await self._playing.store_again()
        answer = await self._store.run(messages.get_message, message_id)
        if answer.role != "assistant" or answer.parent_id is None:
            raise NodeError("not_found", "Only an answer can be generated again.")
        return answer, answer.parent_id

    async def _answer(
        self,
        chat_id: str,
        begin: Callable[[AnswerFacts], Awaitable[turns.Begun]],
        *,
        resumed: Message | None = None,
        drop_oldest: bool = False,
    ) -> str:
        """Have an answer generated in this chat, which `begin` stores empty; its id.

        Once it is asked for it happens, also when the caller is cancelled meanwhile: what is stored as begun
        must be written by somebody.
        """
        asked = self._ask(chat_id, begin, resumed, drop_oldest)
        return await asyncio.shield(self._tasks.spawn(asked, name=f"ask {chat_id}", told=FAILURES))

    async def _ask(
        self,
        chat_id: str,
        begin: Callable[[AnswerFacts], Awaitable[turns.Begun]],
        resumed: Message | None,
        drop_oldest: bool,
    ) -> str:
        with self._playing.reserved(chat_id) as run:
            await self._playing.store_again()
            chat, settings = await self._store.run(chats.get_chat, chat_id), self._settings()
            model = chat.options.model or settings.model
            driver = wanted(chat.options, settings)
            # Who answers is kept from the start: an answer that is interrupted never gets its other facts.
            begun = await begin(AnswerFacts(model="" if driver is not None else model))
            answer = begun.answer
            before = [self._playing.as_known(message) for message in begun.before]

            @contextlib.asynccontextmanager
            async def prepare() -> AsyncIterator[Prepared]:
                said, dropped = prompt_messages(chat.options.system, before), 0
                more = (ChatMessage("assistant", answer.content),) if answer.content else ()
                if driver is not None:
                    buy = partial(
                        self._buyer.generate,
                        (*said, *more),
                        driver,
                        drop_oldest=drop_oldest,
                        chat_id=chat_id,
                        message_id=answer.id,
                    )
                    yield Prepared(buy, "")
                    return
                entry = await self._models.entry(model)
                async with self._models.held(entry, self._settings()) as engine:
                    if drop_oldest:
                        said, dropped = await fit(engine, said)
                    said = (*said, *more)
                    sampling = choices.resolve_sampling(chat.options, self._settings(), entry)
                    yield Prepared(partial(engine.generate, Request(said, sampling)), entry.name, dropped)

            self._emit(ChatsChanged())
            self._emit(BranchChanged(chat_id))
            self._playing.start(run, answer, prepare, resumed)
        return answer.id


def _with_readers(message: Message, later: Mapping[str, tuple[Reader, ...]]) -> Message:
    facts = message.facts
    if facts is None or not (more := later.get(message.id)):
        return message
    readers = {reader.id: reader for reader in (*facts.readers, *more)}
    facts = msgspec.structs.replace(facts, readers=tuple(readers.values()))
    return msgspec.structs.replace(message, facts=facts)
