"""A driver answers a chat: two whole nodes, the guide model, and what both keep of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infraxa.app import prices
from infraxa.app.answering import Moved, Sent
from infraxa.app.events import AnswerEnded, AnswerGrew, AnswerMoved, AnswerWaits, Event
from infraxa.app.node import Node
from infraxa.engine.types import Delta, Finished
from infraxa.net.identity import id_text
from infraxa.store.records import ChatOptions, Message, Reader
from tests.app.networked import folders, network_name, running, until

ENDLESS: dict[str, Any] = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1}
"""Talks nonsense until its context is full."""


@contextlib.asynccontextmanager
async def provider(path: Path, user: Node, network: str, name: str) -> AsyncIterator[Node]:
    """A node that serves the guide model, known to the user's node."""
    async with running(folders(path).data, network=network, name=name, threads=1, slots=2) as node:
        await node.accept_serving()
        await node.provide(True)
        await until(lambda: node.network.activity in ("alone", "online"), "it runs")
        await user.join(await node.invite())
        await until(lambda: node.provider.mode == "serving", "it serves")
        for _ in range(600):
            if any(offer.node.name == name for offer in await user.list_offers()):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("it is not known")
        yield node


class Chat:
    """A chat of the user, and what is told of it."""

    def __init__(self, node: Node, chat_id: str) -> None:
        self.node = node
        self.id = chat_id
        self.events: list[Event] = []
        node.subscribe(self.events.append)

    async def ended(self, message_id: str) -> Message:
        def find() -> Message | None:
            for event in self.events:
                if isinstance(event, AnswerEnded) and event.message.id == message_id:
                    return event.message
            return None

        await until(find, "the answer ends")
        message = find()
        assert message is not None
        return message


@contextlib.asynccontextmanager
async def chat_with(user: Node, driver: str, **options: Any) -> AsyncIterator[Chat]:
    chat = await user.create_chat()
    await user.set_chat_options(chat.id, ChatOptions(driver=driver, **options))
    yield Chat(user, chat.id)


async def test_a_driver_answers_a_chat_and_goes_on_with_it(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network) as user,
        provider(tmp_path / "maple", user, network, "maple") as maple,
    ):
        driver = id_text(maple.network.id)
        async with chat_with(user, driver) as asked:
            answer = await asked.ended(await user.send(asked.id, "What is 2+2?"))
        assert answer.state == "complete", answer.error
        assert "4" in answer.content
        facts = answer.facts
        assert facts is not None
        assert [(part.id, part.name, part.at) for part in facts.drivers] == [(driver, "maple", 0)]
        assert facts.readers == (Reader(driver, "maple"),)
        assert facts.n_prompt > 0 and facts.n_out > 0 and facts.first_token_ms is not None
        assert facts.connect_ms is not None and facts.model == facts.drivers[0].model
        kinds = [type(event) for event in asked.events]
        assert kinds.index(AnswerWaits) < kinds.index(AnswerMoved) < kinds.index(AnswerGrew)
        (offer,) = [offer for offer in await user.list_offers() if offer.node.id == maple.network.id]
        assert offer.answered == 1
        assert user.engine.state == "off", "nothing was generated here"

        async with chat_with(user, "local") as chat:
            await chat.ended(await user.send(chat.id, "What is 3+3?"))
            (_, here) = await user.branch(chat.id)
            assert here.message.facts is not None and here.message.facts.readers == ()
            await user.set_chat_options(chat.id, ChatOptions(driver=driver))
            await chat.ended(await user.send(chat.id, "and now add 7"))
            (_, here, *_) = await user.branch(chat.id)
            # What was said here before went with it.
            assert here.message.facts is not None
            assert here.message.facts.readers == (Reader(driver, "maple"),)

        # The model is loaded here now, so what was said first is audited.
        for _ in range(600):
            (_, first) = await user.branch(asked.id)
            facts = first.message.facts
            assert facts is not None
            if any(verdict.opened for verdict in facts.verdicts):
                break
            await asyncio.sleep(0.05)
        (verdict,) = facts.verdicts
        assert verdict.opened == min(16, verdict.steps) > 0 and verdict.state != "failed", verdict

        async with chat_with(user, driver, **ENDLESS) as chat:
            answer_id = await user.send(chat.id, "tell me a story")
            await until(lambda: any(isinstance(event, AnswerGrew) for event in chat.events), "it begins")
            await user.stop(chat.id)
            stopped = await chat.ended(answer_id)
            await until(lambda: maple.provider.running == 0, "the slot is free")
            assert stopped.state == "stopped"
            chat.events.clear()
            assert await user.continue_answer(answer_id) == answer_id
            whole = await chat.ended(answer_id)
        assert whole.content.startswith(stopped.content) and len(whole.content) > len(stopped.content)
        assert whole.facts is not None and len(whole.facts.drivers) == 1

        items = [item async for item in user.ask("What is 3+4?", ChatOptions(driver=driver))]
        assert "7" in "".join(item.text for item in items if isinstance(item, Delta))
        assert {Sent, Moved, Finished} <= {type(item) for item in items}


async def test_the_driver_vanishes_and_this_machine_goes_on(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with running(folders(tmp_path / "user").data, network=network, threads=1) as user:
        async with provider(tmp_path / "maple", user, network, "maple") as maple:
            driver = id_text(maple.network.id)
            async with chat_with(user, driver, **ENDLESS) as chat:
                answer_id = await user.send(chat.id, "tell me a story")
                await until(lambda: any(isinstance(event, AnswerGrew) for event in chat.events), "it begins")
        # It has left the network.
        cut = await chat.ended(answer_id)
        assert cut.state == "failed" and cut.content and "maple" in cut.error
        chat.events.clear()
        await user.continue_elsewhere(answer_id, "local")
        whole = await chat.ended(answer_id)
        assert whole.state == "complete", whole.error
        assert whole.content.startswith(cut.content) and len(whole.content) > len(cut.content)
        assert whole.facts is not None
        parts = [(part.id, part.at) for part in whole.facts.drivers]
        assert parts == [(driver, 0), ("", len(cut.content))]
        assert [reader.name for reader in whole.facts.readers] == ["maple"]


async def test_what_was_asked_for_over_the_day_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prices, "LOOK_S", 0.05)
    network = network_name(tmp_path)
    where = folders(tmp_path / "user").data
    async with (
        running(where, network=network) as user,
        provider(tmp_path / "maple", user, network, "maple"),
    ):
        (offer,) = await user.list_offers()
        of = offer.node.id, offer.model.model_id
        for _ in range(600):
            if known := await user.price_history(*of):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("its price is not noted")
    async with running(where, online=False) as user:
        assert [point.price_out for point in await user.price_history(*of)] == [known[-1].price_out]
