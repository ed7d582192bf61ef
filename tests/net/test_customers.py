"""Order sessions: whose place is given away, and which orders are new."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from infraxa.net import customers, strangers, wire
from infraxa.net.customers import Customers
from infraxa.net.link import Link, Stream
from infraxa.net.sale import Sale

KEYS = [number.to_bytes(32, "big") for number in range(1000)]
NUMBER = bytes(16)


class Quiet:
    """A link as far as its place is concerned."""

    def __init__(self, remote: str, used_at: float = 0.0) -> None:
        self.remote = remote
        self.used_at = used_at
        self.initiator = False
        self.account: bytes | None = None
        self.in_flight = 1
        self.closed = False


class Answers:
    """A stream as far as failures are concerned."""

    def __init__(self) -> None:
        self.over = False
        self.failures: list[wire.Failure] = []

    async def fail(self, failure: wire.Failure) -> None:
        if not self.over:
            self.failures.append(failure)
            self.over = True


def link(remote: str, used_at: float = 0.0) -> Link:
    return cast(Link, Quiet(remote, used_at))


def filled(it: Customers, *crowds: tuple[str, int]) -> list[Link]:
    """So many accounts of each of these networks, idle for longer the earlier they came."""
    made: list[Link] = []
    for net, count in crowds:
        for number in range(count):
            made.append(link(f"{net}.{number % 256}", float(number)))
            assert it.add(made[-1], KEYS[len(made)]) == ()
    return made


async def ordered(it: Customers, at: Link, number: bytes = NUMBER) -> str:
    """The code that an order is answered with."""
    stream = Answers()
    await it.serve(at, cast(Stream, stream), wire.Order(number, bytes(32), 10))
    return stream.failures[0].code


async def busy(sale: Sale) -> None:
    await sale.fail("busy", retry_after_ms=1000)


def test_who_has_an_account_may_ask_many_things_at_a_time() -> None:
    it, one = Customers(), link("5.6.7.8")
    assert it.add(one, KEYS[0]) == ()
    assert (one.account, one.in_flight, one in it, len(it)) == (KEYS[0], customers.REQUESTS, True, 1)
    it.discard(one)
    assert one not in it and not list(it)


def test_one_network_has_so_many_sessions_and_the_one_idle_for_longest_goes() -> None:
    it = Customers()
    oldest, *_ = filled(it, ("5.6.7", strangers.MAX_GROUP))
    new = link("5.6.7.99", 99.0)
    assert it.add(new, KEYS[999]) == (oldest,)
    assert new in it and oldest not in it and len(it) == strangers.MAX_GROUP
    assert it.add(link("9.9.9.1"), KEYS[998]) == ()


def test_when_all_places_are_taken_the_largest_crowd_makes_room() -> None:
    it = Customers()
    crowds = [(f"8.51.{net}", strangers.MAX_GROUP) for net in range(7)]
    filled(it, *crowds, ("11.12.13", strangers.MAX_GROUP - 1), ("5.6.7", 1))
    assert len(it) == strangers.MAX_ALL == 256
    (goes,) = it.add(link("5.6.8.1"), KEYS[999])
    assert goes.remote.startswith("8.51.") and len(it) == strangers.MAX_ALL


def test_one_account_has_so_many_sessions_wherever_they_come_from() -> None:
    it = Customers()
    own = [link(f"{n}.1.1.1", float(n)) for n in range(11, 11 + customers.MAX_ACCOUNT)]
    for one in own:
        assert it.add(one, KEYS[0]) == ()
    new = link("99.1.1.1")
    assert it.add(new, KEYS[0]) == (own[0],)
    assert own[0] not in it and new in it and len(it) == customers.MAX_ACCOUNT


def test_two_may_go_for_one_when_both_its_account_and_its_network_are_full() -> None:
    it = Customers()
    crowd = filled(it, ("5.6.7", strangers.MAX_GROUP))
    own = [link(f"{n}.1.1.1", float(n)) for n in range(11, 11 + customers.MAX_ACCOUNT)]
    for one in own:
        it.add(one, KEYS[0])
    assert it.add(link("5.6.7.8"), KEYS[0]) == (own[0], crowd[0])
    assert len(it) == strangers.MAX_GROUP + customers.MAX_ACCOUNT - 1


async def test_a_session_with_a_sale_that_runs_never_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MAX_GROUP", 2)
    it = Customers()
    serving, idle = link("5.6.7.1", 0.0), link("5.6.7.2", 9.0)
    for number, one in enumerate((serving, idle)):
        it.add(one, KEYS[number])
    found: list[Any] = []

    async def look(sale: Sale) -> None:
        found.append(it.add(link("5.6.7.3", 10.0), KEYS[3]))
        it.handler = look_again
        await ordered(it, next(other for other in it if other is not serving), bytes(15) + b"1")
        await busy(sale)

    async def look_again(sale: Sale) -> None:
        new = link("5.6.7.4")
        found.append(it.add(new, KEYS[4]) == (new,))
        found.append(new.account)
        await busy(sale)

    it.handler = look
    assert await ordered(it, serving) == "busy"
    assert found == [(idle,), True, None]
    assert it.add(link("5.6.7.5"), KEYS[5]) == (serving,), "it is over"


async def test_who_is_served_while_this_node_leaves_is_told_so_and_nothing_takes_it_back() -> None:
    """A handler that is cancelled would have its stream cancelled, and what waits on it dropped."""
    it, one, stream = Customers(), link("5.6.7.8"), Answers()
    it.add(one, KEYS[0])
    serving = asyncio.Event()

    async def hang(sale: Sale) -> None:
        serving.set()
        await asyncio.Event().wait()

    it.handler = hang
    order = wire.Order(NUMBER, bytes(32), 10)
    handling = asyncio.ensure_future(it.serve(one, cast(Stream, stream), order))
    async with asyncio.timeout(10):
        await serving.wait()
        await it.close()
    assert handling.done() and not handling.cancelled()
    assert [failure.code for failure in stream.failures] == ["leaving"]


async def test_so_many_numbers_of_orders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "MAX_ORDERS", 3)
    it, one, other = Customers(), link("5.6.7.8"), link("5.6.7.9")
    it.handler = busy
    it.add(one, KEYS[0])
    it.add(other, KEYS[1])
    assert [await ordered(it, one), await ordered(it, one), await ordered(it, other)] == [
        "busy",
        "bad_request",
        "busy",
    ]
    for number in range(1, 5):
        assert await ordered(it, one, bytes((number,)) * 16) == "busy"
        assert len(it._ordered) <= 3
    assert await ordered(it, one) == "busy", "forgotten"


async def test_nothing_is_remembered_of_who_is_not_served() -> None:
    it, one, nobody = Customers(), link("5.6.7.8"), link("5.6.7.9")
    it.add(one, KEYS[0])
    assert await ordered(it, one) == "model_gone"
    nobody.account = KEYS[0]
    it.handler = busy
    assert await ordered(it, nobody) == "not_allowed", "it has no place"
    await it.close()
    assert await ordered(it, one) == "leaving"
    assert not it._ordered
