"""Calls that drivers answer: two whole nodes, the guide model, and what both books have of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infraxa.app.answering import AskBegan, Billed
from infraxa.app.calls import Call, CallEvent, EmbedCall, Policy
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade
from infraxa.app.node import Node
from infraxa.engine.types import ChatMessage, Delta, Finished, Format, Request, Sampling, Tool
from infraxa.net import vectors
from infraxa.net.identity import id_text
from infraxa.store.records import ChatOptions, Verdict
from infraxa.store.verdicts import VerdictRow
from tests.app.networked import attached, folders, network_name, running, until
from tests.app.test_calls import ASKED, STEADY, events, text_of

PAID: dict[str, Any] = {"base_price": 20.0, "stranger_limit": 1.0, "strangers_daily": 10.0}
"""A few tokens cost some µcr."""
SPEND: dict[str, Any] = {"cap_request": 1.0, "cap_chat": 1.0, "cap_day": 10.0}


@contextlib.asynccontextmanager
async def two(
    folder: Path, users: dict[str, Any] | None = None, **providers: Any
) -> AsyncIterator[tuple[Node, Node]]:
    """A user, and a node that serves the guide model to it."""
    network = network_name(folder)
    user_folder, provider_folder = folders(folder / "user").data, folders(folder / "provider").data
    async with (
        running(user_folder, network=network, threads=1, **SPEND | (users or {})) as user,
        running(
            provider_folder, network=network, name="maple", threads=1, slots=4, **PAID | providers
        ) as maple,
    ):
        await maple.accept_serving()
        await maple.provide(True)
        await until(lambda: maple.network.activity in ("alone", "online"), "it runs")
        await user.join(await maple.invite())
        await until(lambda: maple.provider.mode == "serving", "it serves")
        for _ in range(600):
            if await user.list_offers():
                break
            await asyncio.sleep(0.05)
        yield user, maple


def market(request: Request, model: str = "guide", **policy: Any) -> Call:
    return Call(model, request, Policy(where="market", **policy))


async def books_agree(user: Node, maple: Node) -> int:
    """What both say that was paid, when nothing is open any more."""
    for _ in range(600):
        bought, sold = (await user.earnings()).total, (await maple.earnings()).total
        (tab,) = await user.list_tabs()
        if (bought.spent, bought.bought) == (sold.earned, sold.sold) and not tab.held:
            return bought.spent
        await asyncio.sleep(0.05)
    raise AssertionError((bought, sold, tab))


async def test_a_driver_answers_a_call_and_says_who_it_is_and_what_it_cost(tmp_path: Path) -> None:
    async with two(tmp_path) as (user, maple), attached(user) as front:
        driver = id_text(maple.network.id)
        spent = 0
        askers: list[NodeFacade] = [user, front]
        for asker in askers:
            (listed,) = [one for one in await asker.list_callable() if one.where == "market"]
            assert (listed.id, listed.providers, listed.context) == ("guide", 1, 1024)
            assert listed.price_out > listed.price_in > 0
            for named in (None, driver, driver[:8], f"maple·{driver[:8]}"):
                began, *rest, billed, end = await events(
                    asker.call(market(Request(ASKED, STEADY), driver=named))
                )
                assert isinstance(began, AskBegan)
                assert (began.model, began.driver, began.driver_name) == ("guide", driver, "maple")
                assert "4" in text_of(rest)
                assert isinstance(end, Finished) and end.reason in ("stop", "length") and end.usage.n_prompt
                assert isinstance(billed, Billed)
                (bill,) = billed.bills
                assert bill.state == "signed" and bill.charge > 0, "it is known with the end"
                assert (bill.n_prompt, bill.n_out) == (end.usage.n_prompt, end.usage.n_out)
                spent += bill.charge
        assert await books_agree(user, maple) == spent


async def test_all_that_a_request_can_ask_for_is_done_by_a_driver(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    look = Tool("look", "Looks.", json.dumps({"type": "object", "properties": {"at": {"type": "integer"}}}))
    async with two(tmp_path) as (user, maple):

        async def asked(request: Request) -> list[CallEvent]:
            """By the driver and by this machine, whose engines are alike."""
            there = await events(user.call(market(request)))
            here = await events(user.call(Call("guide", request)))
            assert text_of(there) == text_of(here) != ""
            end = there[-1]
            assert isinstance(end, Finished) and end.error is None
            return there

        raw = await asked(Request(sampling=STEADY, prompt="To chat with"))
        assert text_of(raw)
        formed = Request(
            ASKED, Sampling(temperature=0, max_tokens=60), format=Format("json_schema", json.dumps(schema))
        )
        assert json.loads(text_of(await asked(formed)))["city"] in ("Paris", "Oslo")
        called = Request(ASKED, Sampling(temperature=0, max_tokens=80), tools=(look,), tool_choice="look")
        assert "look" in text_of(await asked(called))
        steady = Sampling(temperature=0, max_tokens=40)
        other = msgspec.structs.replace(steady, presence_penalty=-2.0, frequency_penalty=-2.0)
        texts = {text_of(await asked(Request(sampling=one, prompt="The"))) for one in (steady, other)}
        assert len(texts) == 2, "the penalties travel"
        named = await asked(Request(ASKED, STEADY, logprobs=3))
        known = await events(user.call(Call("guide", Request(ASKED, STEADY, logprobs=3))))
        there, here = (
            [one for event in found if isinstance(event, Delta) for one in event.logprobs]
            for found in (named, known)
        )
        assert len(there) == len(here) > 0
        for one, same in zip(there, here, strict=True):
            assert (one.token, one.piece) == (same.token, same.piece)
            assert math.isclose(one.logprob, same.logprob, abs_tol=2e-6) and len(one.top) == 3
            assert [token for token, _, _ in one.top] == [token for token, _, _ in same.top]
        bills = await user.list_receipts(role="user")
        assert all(receipt.state == "signed" for receipt in bills), "what came was counted as it was charged"
        await books_agree(user, maple)


async def test_what_the_driver_cannot_do_is_said(tmp_path: Path) -> None:
    async with two(tmp_path) as (user, _):
        for request, code in (
            (Request(ASKED, STEADY, format=Format("json_schema", '{"type": "nonsense"}')), "bad_request"),
            (Request(ASKED, STEADY, tools=(Tool("a b"),)), "bad_request"),
            (Request((ChatMessage("user", "word " * 3000),), STEADY), "no_driver"),
        ):
            with pytest.raises(Exception) as error:
                await events(user.call(market(request)))
            assert getattr(error.value, "code", "") == code, error.value


async def test_a_driver_makes_vectors_and_both_books_have_them(tmp_path: Path) -> None:
    texts = tuple(f"Sentence number {number} is about {'rain' * number}." for number in range(20))
    async with two(tmp_path) as (user, maple), attached(user) as front:
        here = await user.embed(EmbedCall("guide", texts))
        assert (here.driver, here.charge, here.model) == ("", None, "guide")
        spent, askers = 0, list[NodeFacade]([user, front])
        for asker in askers:
            there = await asker.embed(EmbedCall("guide", texts, Policy(where="market")))
            assert (there.driver, there.driver_name) == (id_text(maple.network.id), "maple")
            assert there.n_tokens == here.n_tokens and len(there.vectors) == len(texts)
            for one, same in zip(there.vectors, here.vectors, strict=True):
                close = zip(array("f", one), array("f", same), strict=True)
                assert sum(a * b for a, b in close) == pytest.approx(1, abs=1e-3)
            assert there.charge is not None and there.charge > 0
            spent += there.charge
        assert await books_agree(user, maple) == spent
        receipts = await user.list_receipts(role="user")
        assert {(one.outcome, one.n_out, one.n_prompt) for one in receipts} == {
            ("embedded", 0, sum(there.n_tokens))
        }
        with pytest.raises(NodeError) as error:
            await user.embed(EmbedCall("guide", ("word " * 3000,), Policy(where="market")))
        assert error.value.code == "no_driver"


async def test_more_vectors_than_one_order_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two(tmp_path) as (user, maple):
        one = await user.embed(EmbedCall("guide", ("one",)))
        monkeypatch.setattr(vectors, "MAX_VECTORS", 30 * len(one.vectors[0]))
        bought = EmbedCall("guide", ("one",) * 31, Policy(where="market"))
        with pytest.raises(NodeError) as error:
            await user.embed(bought)
        assert error.value.code == "prompt_too_long" and "fewer" in error.value.remedy
        (offer,) = await user.list_offers()
        assert (offer.failed, offer.cooling_s) == (0, 0), "it is no fault of the driver's"
        assert await maple.list_receipts(role="provider") == [], "nothing was computed"
        made = await user.embed(msgspec.structs.replace(bought, texts=bought.texts[:30]))
        assert len(made.vectors) == 30
        await books_agree(user, maple)


async def test_policies(tmp_path: Path) -> None:
    async with two(tmp_path) as (user, maple):
        asked = Request(ASKED, STEADY)
        driver = id_text(maple.network.id)
        for policy, code in (
            ({"max_price": 1}, "no_driver"),
            ({"max_price": 1, "driver": driver}, "too_dear"),
            ({"audited": True}, "no_audits"),
            ({"driver": "7777"}, "no_driver"),
            ({"driver": "maple"}, "no_driver"),  # anybody can take its name
        ):
            with pytest.raises(NodeError) as error:
                await events(user.call(market(asked, **policy)))
            assert error.value.code == code, policy
        with pytest.raises(NodeError) as error:
            await events(user.call(market(asked, model="Qwen")))
        assert error.value.code == "no_model"
        dear = 10**9
        found = await events(user.call(market(asked, max_price=dear)))
        assert isinstance(found[-1], Finished) and found[-1].error is None
        (offer,) = await user.list_offers()
        found = await events(user.call(market(asked, model=offer.model.model_id.hex())))
        assert isinstance(found[-1], Finished) and found[-1].error is None
        passed = Verdict("00" * 16, driver, "passed", by="own")
        user._drivers.audit_history.add(VerdictRow(offer.node.id, offer.model.model_id, 1, passed))
        began, *_, end = await events(user.call(market(asked, audited=True)))
        assert isinstance(began, AskBegan) and began.driver == driver
        assert isinstance(end, Finished) and end.error is None
        # The model is here too, and this machine is asked first.
        began = (await events(user.call(Call("guide", asked))))[0]
        assert isinstance(began, AskBegan) and not began.driver
        await user.change_setting("driver", driver)
        began = (await events(user.call(Call("auto", asked))))[0]
        assert isinstance(began, AskBegan) and began.driver == driver


async def test_a_driver_that_is_gone_is_told(tmp_path: Path) -> None:
    endless = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
    async with two(tmp_path, {"failover": "auto"}) as (user, maple):
        stream = user.call(market(Request(ASKED, endless)))
        heard: list[CallEvent] = []
        async for event in stream:
            heard.append(event)
            if isinstance(event, Delta) and len(heard) == 4:
                await maple.provide(False, now=True)
        end = heard[-1]
        assert isinstance(end, Finished) and end.reason == "failed"
        assert end.error is not None and end.error.code == "leaving"
        assert isinstance(heard[0], AskBegan) and text_of(heard)
        with pytest.raises(NodeError) as error:
            await events(user.call(market(Request(ASKED, STEADY))))
        assert error.value.code in ("no_model", "no_driver", "leaving", "model_gone", "busy")


async def test_calls_have_a_cap_of_their_own(tmp_path: Path) -> None:
    async with two(tmp_path, {"cap_api": 0.001}) as (user, maple), attached(user) as front:
        asked = Request(ASKED, STEADY)
        (billed,) = [one for one in await events(user.call(market(asked))) if isinstance(one, Billed)]
        spent = await user.call_spending()
        assert (spent.spent, spent.held, spent.cap) == (billed.bills[0].charge, 0, 1000)
        assert await front.call_spending() == spent
        await user.change_setting("cap_api", 0.0002)
        with pytest.raises(NodeError) as error:
            await events(front.call(market(asked)))
        assert error.value.code == "cap_api" and "0.0002" in error.value.message
        with pytest.raises(NodeError) as error:
            await front.embed(EmbedCall("guide", ("one",), Policy(where="market")))
        assert error.value.code == "cap_api"
        # A person's own chats are not held up by what programs spent.
        chat = await user.create_chat()
        await user.set_chat_options(chat.id, ChatOptions(driver=id_text(maple.network.id), max_tokens=4))
        answer = await user.send(chat.id, "What is 2+2?")
        await until(lambda: not user.answering(chat.id), "it is answered")
        (_, turn) = await user.branch(chat.id)
        assert (turn.message.id, turn.message.state) == (answer, "complete")
