"""The self-test between whole nodes: a peer buys an answer as strangers do, and what is made of its word."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infraxa.app import admission, locked, self_test_words, trying
from infraxa.app.errors import NodeError
from infraxa.app.node import Node
from infraxa.app.pricing import Pricing
from infraxa.app.self_test_words import Verdict
from infraxa.net import network as network_module
from infraxa.net import sale, wire
from infraxa.net.customers import Customer, Handler
from infraxa.net.orders import Done
from infraxa.net.sale import Sale
from infraxa.net.trials import Turns
from tests.app.command_line import infraxa
from tests.app.networked import folders, network_name, running, until
from tests.app.test_node_driver import provider


@contextlib.asynccontextmanager
async def market(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Node, Node]]:
    """A node, and one that serves and is known to it; `settings`: of that one."""
    network = network_name(tmp_path)
    folders(tmp_path / "maple", **settings)
    async with running(folders(tmp_path / "birch").data, network=network) as birch:
        async with provider(tmp_path / "maple", birch, network, "maple") as maple:
            for name, value in settings.items():
                await maple.change_setting(name, value)
            yield birch, maple


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what is thrown away afterwards is kept meanwhile."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def verdict(node: Node) -> Verdict:
    return self_test_words.verdict(node.provider.self_test, time.time_ns() // 1_000_000)


async def asks(seller: Node, price_out: int) -> None:
    """Returns when it asks for so much, or somewhat more after it had work."""

    def so_much() -> bool:
        asked = seller.provider.price_out
        return seller.provider.mode == "serving" and price_out <= asked <= 2 * price_out

    await until(so_much, "it asks for so much")


def again(buyer: Node) -> None:
    """It does so at once, however often it did before."""
    assert buyer._net._network is not None
    buyer._net._network._trials._turns = Turns()


def said(buyer: Node, answer: wire.Tried | wire.Failure) -> None:
    """This is what it says whenever it is asked."""

    async def run(node: bytes, request: wire.TryPlease) -> wire.Tried | wire.Failure:
        return answer

    again(buyer)
    buyer._net.try_others(run)


async def test_a_peer_buys_an_answer_as_a_stranger(tmp_path: Path, scratch: Path) -> None:
    async with market(tmp_path) as (birch, maple):
        assert verdict(maple).state == "open" and "Not tested yet" in verdict(maple).text
        last = (await maple.self_test()).last
        assert last is not None and (last.code, last.way, last.signed) == ("", "local", True)
        assert last.peer == birch.network.id and last.first_token_ms > 0 and last.connect_ms > 0
        assert verdict(maple).state == "ok" and "A peer bought an answer 0 s ago," in verdict(maple).text
        # It was bought like any other, for next to nothing, and both sides signed.
        (receipt,) = await maple.list_receipts(role="provider")
        assert receipt.state == "signed" and 0 < receipt.charge == receipt.accepted <= trying.MOST
        assert receipt.n_out <= trying.MAX_OUT
        (served,) = await maple.list_served()
        # By an account that is nobody's: the provider must not learn who its users are.
        assert served.user != birch._net.account(maple.network.id).id
        assert await birch.list_receipts() == [] and await birch.list_tabs() == []
        (offer,) = await birch.list_offers()
        assert offer.answered == 0 and offer.new, "what a provider has done to itself is no evidence"
        assert os.listdir(scratch) == []
        with pytest.raises(NodeError) as refused:
            await birch.self_test()
        assert refused.value.code == "not_served"
        # It asked a moment ago, so the peer is left alone, and what is known stays known.
        test = await maple.self_test()
        assert test.last == last and test.missing == "declined" and verdict(maple).state == "ok"
    async with running(tmp_path / "maple", network=network_name(tmp_path)) as later:
        assert later.provider.self_test.last == last


async def test_who_cannot_be_reached_is_told_so_by_doctor(tmp_path: Path) -> None:
    async with market(tmp_path) as (_, maple):
        assert maple._net._network is not None
        for server in maple._net._network._websocket._servers:
            server.close()
        variables = {"INFRAXA_ONLINE": "true", "INFRAXA_NETWORK": network_name(tmp_path)}
        ran = await asyncio.to_thread(
            infraxa, "doctor", "--self-test", "--json", data=tmp_path / "maple", env=variables
        )
        assert ran.code == 1, ran
        found = {check["check"]: check for check in json.loads(ran.out)["checks"]}
        assert found["self-test"]["state"] == "fail"
        assert found["self-test"]["reason"].startswith("A peer could not reach this node. That was ")
        assert "listen_port" in found["self-test"]["remedy"]
        failed = [name for name, check in found.items() if check["state"] == "fail"]
        assert failed == ["self-test"]
        missed = (await maple.list_missed())[0]
        assert missed.reason == "unreachable" and missed.text.startswith("A peer could not reach")
        last = maple.provider.self_test.last
        assert last is not None and (last.code, last.way, last.signed) == ("unreachable", "", False)


@pytest.mark.parametrize("room", [0, admission.ROOM])
async def test_who_is_busy_is_not_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(admission, "ROOM", room)
    patient = sale.SaleLimits(idle=60.0, begin=60.0)
    monkeypatch.setattr(sale, "SaleLimits", lambda: patient)
    monkeypatch.setattr(trying, "PATIENCE", msgspec.structs.replace(trying.PATIENCE, line=0.3))
    async with market(tmp_path, capacity=1, base_price=0.0) as (birch, maple):
        await asks(maple, 0)
        model = maple._provider.model_id
        assert model is not None
        # Somebody who does not send the prompt keeps the only place.
        link = await birch._net.order_link(maple.network.id)
        async with await link.request(wire.Order(bytes(16), model, 100, 5)):
            await until(lambda: maple.provider.running == 1, "the place is taken")
            last = (await maple.self_test()).last
            assert maple.provider.running == 1
        assert last is not None and (last.code, last.way) == ("busy", "local")
        assert verdict(maple).state == "open" and "all its places were taken" in verdict(maple).text
        assert not any("peer" in missed.text for missed in await maple.list_missed())


async def test_an_answer_that_is_dear_is_not_bought(tmp_path: Path) -> None:
    async with market(tmp_path, base_price=50.0) as (birch, maple):
        await asks(maple, 50_000_000)
        for _ in range(200):
            if [offer.price_out for offer in await birch.list_offers()] == [50_000_000]:
                break
            await asyncio.sleep(0.05)
        test = await maple.self_test()
        assert test.last is not None and test.last.code == trying.TOO_DEAR
        assert verdict(maple).state == "open" and await maple.list_served() == []


async def test_what_is_free_is_bought_for_nothing(tmp_path: Path) -> None:
    async with market(tmp_path, base_price=0.0) as (_, maple):
        await asks(maple, 0)
        test = await maple.self_test()
        assert test.last is not None and (test.last.code, test.last.signed) == ("", True)
        (receipt,) = await maple.list_receipts(role="provider")
        assert receipt.charge == 0


async def test_both_sides_may_not_want_it(tmp_path: Path) -> None:
    async with market(tmp_path) as (birch, maple):
        await birch.change_setting("test_others", False)
        test = await maple.self_test()
        assert (test.last, test.missing) == (None, "declined")
        await birch.change_setting("test_others", True)
        assert (await maple.self_test()).last is None, "it is left alone for hours"
        await maple.change_setting("stranger_limit", 0.0)
        assert verdict(maple).text == "Not tested: by the settings no stranger is served."
        await maple.change_setting("stranger_limit", 0.1)
        await maple.change_setting("self_test", False)
        with pytest.raises(NodeError):
            await maple.self_test()
        assert "the setting self_test is off" in verdict(maple).text


async def test_no_more_is_believed_than_can_be(tmp_path: Path) -> None:
    async with market(tmp_path) as (birch, maple):
        said(birch, wire.Tried("", "direct", 1, 1, True, bytes(32)))
        test = await maple.self_test()
        assert (test.last, test.missing) == (None, "declined"), "nobody was served, so nobody can say so"

        maple._self_tests._not_before.clear()
        said(birch, wire.Tried("\x1b[31mGIVE UP", "direct"))
        await maple.self_test()
        found = verdict(maple)
        assert found.state == "failed" and "\x1b" not in found.text and "GIVE" not in found.text

        said(birch, wire.Failure("\x1b[31mGIVE UP"))
        assert (await maple.self_test()).missing == "declined"
        assert verdict(maple).state == "failed", "what was said last is what is known"


async def test_a_peer_that_does_not_answer_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_module, "ANSWER_S", 0.2)

    async def never(node: bytes, request: wire.TryPlease) -> wire.Tried:
        await asyncio.Event().wait()
        raise AssertionError

    async with market(tmp_path) as (birch, maple):
        birch._net.try_others(never)
        test = await maple.self_test()
        assert (test.last, test.missing) == (None, "silent")
        assert verdict(maple).state == "open" and "did not answer" in verdict(maple).text


async def mute(sale: Sale) -> None:
    await sale.claim(4096, 16)
    await asyncio.Event().wait()


async def broken(sale: Sale) -> None:
    await sale.fail("internal")


async def wordless(sale: Sale) -> None:
    await sale.claim(4096, 16)
    await sale.done(Done("stop", 5, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("sells", "code"), [(mute, "stalled"), (broken, "internal"), (wordless, trying.EMPTY)]
)
async def test_how_it_failed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sells: Handler, code: str
) -> None:
    monkeypatch.setattr(trying, "PATIENCE", msgspec.structs.replace(trying.PATIENCE, advance=0.5))
    async with market(tmp_path) as (_, maple):
        maple._net.sell(sells, maple._provider.till.bargain)
        last = (await maple.self_test()).last
        assert last is not None and (last.code, last.way, last.signed) == (code, "local", False)
        said = verdict(maple)
        assert said.state == "failed" and said.remedy and said.text.startswith("A peer ")


async def test_quotes_and_receipts_that_do_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked, "ANSWER_S", 0.5)
    monkeypatch.setattr(trying, "SIGN_S", 0.5)

    async def quotes_alone(customer: Customer, request: wire.Bargain) -> wire.Answer | wire.Failure:
        if isinstance(request, wire.QuotePlease):
            return await maple._provider.till.bargain(customer, request)
        return wire.Failure("internal")

    async def nothing(customer: Customer, request: wire.Bargain) -> wire.Failure:
        await asyncio.sleep(10)
        return wire.Failure("busy")

    async with market(tmp_path) as (birch, maple):
        maple._net.sell(maple._provider.serve, quotes_alone)
        last = (await maple.self_test()).last
        assert last is not None and (last.code, last.signed) == ("", False)
        assert verdict(maple).state == "doubt" and "could not sign the receipt" in verdict(maple).text
        maple._net.sell(maple._provider.serve, nothing)
        again(birch)
        last = (await maple.self_test()).last
        assert last is not None and last.code == "silent"


async def test_a_price_that_rose_since_it_was_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It rises all the time, a little with each quote.
    u_ppm = itertools.count(0, 100)
    monkeypatch.setattr(Pricing, "now", property(lambda pricing: pricing._rates(next(u_ppm))))
    async with market(tmp_path) as (birch, maple):
        (offer,) = await birch.list_offers()
        birch._net.nodes = lambda: [offer.node]  # type: ignore[method-assign]
        for base, code in ((0.4, ""), (50.0, trying.TOO_DEAR)):
            again(birch)
            await maple.change_setting("base_price", base)
            await asks(maple, round(base * 1e6))
            last = (await maple.self_test()).last
            assert last is not None and last.code == code


@pytest.mark.parametrize("who", ["buyer", "seller", "network"])
async def test_either_side_may_end_in_the_middle(tmp_path: Path, scratch: Path, who: str) -> None:
    asked = asyncio.Event()

    async def never(customer: Customer, request: wire.Bargain) -> wire.Failure:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with market(tmp_path) as (birch, maple):
        assert maple._net._network is not None
        maple._net._network._customers.bargainer = never
        testing = asyncio.ensure_future(maple.self_test())
        async with asyncio.timeout(30):
            await asked.wait()
            assert maple.provider.self_test.wait is not None and os.listdir(scratch)
            if who == "network":
                await birch._net.restart(birch.settings)
            else:
                await (birch if who == "buyer" else maple).close()
            if who == "seller":
                await asyncio.wait([testing])
            else:
                test = await testing
                assert (test.last, test.missing, test.wait) == (None, "silent", None)
            await until(lambda: not os.listdir(scratch), "what was kept meanwhile is gone")
