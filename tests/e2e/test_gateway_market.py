"""The openai package at the gateway of a node in a market of two providers: who answers, what it costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from infraxa.app.node import Node
from infraxa.app.trade import ReceiptSeen
from infraxa.net.identity import id_text
from tests.app.gateways import Opened, opened_of
from tests.app.networked import listening, network_name, running, until
from tests.crowd import CAPS, offers

QUESTION: Any = [{"role": "user", "content": "What is a driver?"}]
MARKET = {"X-Infraxa-Where": "market"}
ASKED: Any = {"model": "guide", "messages": QUESTION, "temperature": 0, "max_tokens": 24}
PRICES = {"maple": 0.2, "cedar": 0.9}


class Market(NamedTuple):
    """Two providers and who buys of them."""

    gateway: Opened
    providers: dict[str, Node]

    def id(self, name: str) -> str:
        return id_text(self.providers[name].network.id)

    @property
    def node(self) -> Node:
        return self.gateway.node


@contextlib.asynccontextmanager
async def provider(folder: Path, name: str, network: str, bootstrap: str) -> AsyncIterator[Node]:
    async with running(
        folder, network=network, name=name, threads=1, base_price=PRICES[name], free_daily=0, mdns=False,
        listen_hosts="127.0.0.1", bootstrap=bootstrap or None, stranger_limit=1000.0,
        strangers_daily=1000.0, pause_on_battery=False,
    ) as node:  # fmt: skip
        await node.accept_serving()
        await node.provide(True)
        await until(lambda: node.provider.mode == "serving", f"{name} serves")
        yield node


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    network = network_name(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        providers: dict[str, Node] = {}
        known: list[str] = []  # nobody tells others of addresses on loopback
        for name in PRICES:
            one = await stack.enter_async_context(provider(tmp_path / name, name, network, ",".join(known)))
            providers[name] = one
            known.append(f"127.0.0.1:{await listening(one)}")
        node = await stack.enter_async_context(
            running(
                tmp_path / "me", network=network, mdns=False, listen_hosts="127.0.0.1", threads=1,
                bootstrap=",".join(known), cap_api=1000.0, **CAPS,
            )
        )  # fmt: skip
        await offers(node, 2)
        yield Market(await stack.enter_async_context(opened_of(node)), providers)


async def signed(node: Node, orders: set[str]) -> dict[str, ReceiptSeen]:
    """The receipts of these orders in the books of this node, once both sides have signed them."""
    async with asyncio.timeout(30):
        while True:
            found = {one.order: one for one in await node.list_receipts(count=100) if one.order in orders}
            if set(found) == orders and all(one.state == "signed" for one in found.values()):
                return found
            await asyncio.sleep(0.1)


async def bills_match(market: Market, facts: dict[str, Any]) -> None:
    """What the response says that it cost is what the books say, here and at who was paid."""
    bills = {bill["order"]: bill for bill in facts["bills"]}
    assert bills and facts["cost"] == sum(bill["charge"] for bill in bills.values()) > 0
    mine = await signed(market.node, set(bills))
    for order, bill in bills.items():
        name = next(name for name in market.providers if market.id(name) == bill["driver"])
        theirs = (await signed(market.providers[name], {order}))[order]
        assert mine[order].charge == theirs.charge == bill["charge"]


async def test_every_endpoint_is_answered_by_the_market_and_billed_right(market: Market) -> None:
    client = market.gateway.client.with_options(default_headers=MARKET)
    listed = {model.id: model for model in (await client.models.list()).data}
    assert "guide" in listed

    raw = await client.chat.completions.with_raw_response.create(**ASKED)
    answer = raw.parse()
    assert answer.model_extra is not None and "driver" in (answer.choices[0].message.content or "")
    facts = answer.model_extra["infraxa"]
    assert facts["driver"] == market.id("maple"), "the cheaper one"
    assert facts["driver_name"] == "maple" and [one["name"] for one in facts["readers"]] == ["maple"]
    assert raw.headers["X-Infraxa-Driver"] == facts["driver"]
    assert raw.headers["X-Infraxa-Cost"] == str(facts["cost"])
    assert answer.usage is not None and answer.usage.completion_tokens == facts["bills"][0]["n_out"]
    await bills_match(market, facts)

    text, last = "", None
    async for chunk in await client.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        last = chunk
    assert text == answer.choices[0].message.content and last is not None and last.usage is not None
    assert last.model_extra is not None
    await bills_match(market, last.model_extra["infraxa"])

    several = await client.chat.completions.create(**ASKED | {"temperature": 1, "seed": 1}, n=3)
    assert [choice.index for choice in several.choices] == [0, 1, 2] and several.model_extra is not None
    assert len(several.model_extra["infraxa"]["bills"]) == 3
    await bills_match(market, several.model_extra["infraxa"])

    goes_on = await client.completions.create(model="guide", prompt="A driver is", temperature=0)
    assert goes_on.choices[0].text and goes_on.model_extra is not None
    await bills_match(market, goes_on.model_extra["infraxa"])

    likely = await client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=2)
    logprobs = likely.choices[0].logprobs
    assert logprobs is not None and logprobs.content and len(logprobs.content[0].top_logprobs) == 2

    made = await client.embeddings.create(model="guide", input=["a driver", "a credit"])
    assert len(made.data) == 2 and made.model_extra is not None
    assert made.model_extra["infraxa"]["driver"] == market.id("maple")
    spent = await market.node.list_receipts(role="user", count=100)
    assert made.model_extra["infraxa"]["cost"] in {one.charge for one in spent}


async def test_who_answers_is_as_the_headers_say(market: Market) -> None:
    client = market.gateway.client

    async def driver(**headers: str) -> str:
        answer = await client.chat.completions.create(**ASKED, extra_headers=headers)
        assert answer.model_extra is not None
        return str(answer.model_extra["infraxa"]["driver"])

    assert await driver() == "local", "this machine has the model"
    for chosen in (market.id("cedar"), market.id("cedar")[:8]):
        assert await driver(**{"X-Infraxa-Driver": chosen}) == market.id("cedar")
    assert await driver(**MARKET, **{"X-Infraxa-Max-Price": "0.5"}) == market.id("maple")
    for headers, kind in (
        ({"X-Infraxa-Driver": market.id("cedar"), "X-Infraxa-Max-Price": "0.5"}, 402),
        ({**MARKET, "X-Infraxa-Max-Price": "0.01"}, 503),
        ({"X-Infraxa-Driver": "cedar"}, 503),  # anybody can take its name
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await driver(**headers)
        assert caught.value.status_code == kind, caught.value.message
    before = len(await market.node.list_receipts(role="user", count=100))
    with pytest.raises(openai.BadRequestError):
        await driver(**MARKET, **{"X-Infraxa-Audited": "only"})
    assert len(await market.node.list_receipts(role="user", count=100)) == before


async def test_a_cap_ends_the_spending(market: Market) -> None:
    client = market.gateway.client.with_options(default_headers=MARKET)
    await market.node.change_setting("cap_api", 0.0)
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(**ASKED, stream=stream)
        assert caught.value.status_code == 402 and caught.value.code == "cap_api"


async def test_whoever_goes_away_leaves_the_driver_idle(market: Market) -> None:
    client = market.gateway.client.with_options(default_headers=MARKET)
    stream = await client.chat.completions.create(
        **ASKED | {"max_tokens": 2000, "temperature": 2}, stream=True
    )
    await anext(stream.__aiter__())
    await stream.close()
    states = set()
    async with asyncio.timeout(30):
        while "cancelled" not in states:
            await asyncio.sleep(0.05)
            states = {one.state for node in market.providers.values() for one in await node.list_served()}
    assert "done" not in states
