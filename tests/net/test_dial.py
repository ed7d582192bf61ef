"""Dialling several addresses: who wins, what becomes of the others, what is said when all fail."""

from __future__ import annotations

import asyncio

import pytest

from infraxa.net import dial
from infraxa.net.connect import Target
from infraxa.net.dial import MAX_ADDRESSES, dial_first
from infraxa.net.errors import NetError
from infraxa.net.link import Link, LinkEnd
from tests.net.nodes import nodes


class Attempts:
    """Addresses are what happens there: `works`, `fails`, `hangs`, or a mix with seconds before."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    async def attempt(self, address: str) -> str:
        self.begun.append(address)
        try:
            if address.startswith("hangs"):
                await asyncio.sleep(60)
            if address.startswith("fails"):
                raise NetError(address.partition(" ")[2] or "unreachable", f"No node at {address}.", "look")
        except asyncio.CancelledError:
            self.cancelled.append(address)
            raise
        return address

    async def discard(self, done: str) -> None:
        self.discarded.append(done)

    async def dial(self, *addresses: str) -> str:
        async with asyncio.timeout(20):
            return await dial_first(addresses, self.attempt, self.discard)


async def test_the_first_that_works_wins() -> None:
    attempts = Attempts()
    assert await attempts.dial("works", "works too") == "works"
    assert attempts.begun == ["works"]


async def test_the_next_is_tried_while_one_hangs() -> None:
    attempts = Attempts()
    assert await attempts.dial("hangs", "hangs too", "works") == "works"
    assert attempts.cancelled == ["hangs", "hangs too"]


async def test_the_next_is_tried_at_once_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "NEXT_S", 60)
    assert await Attempts().dial("fails", "works") == "works"


async def test_two_that_are_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is used, the other one is closed, not lost."""
    monkeypatch.setattr(dial, "NEXT_S", 0)
    attempts = Attempts()
    both = asyncio.Event()

    async def attempt(address: str) -> str:
        attempts.begun.append(address)
        if len(attempts.begun) == 2:
            both.set()
        await both.wait()
        return address

    async with asyncio.timeout(20):
        won = await dial_first(["one", "other"], attempt, attempts.discard)
    assert sorted([won, *attempts.discarded]) == ["one", "other"]


async def test_the_reason_of_the_only_address_is_told_as_it_is() -> None:
    with pytest.raises(NetError) as error:
        await Attempts().dial("fails")
    assert error.value.message == "No node at fails."


async def test_all_reasons_are_told() -> None:
    with pytest.raises(NetError) as error:
        await Attempts().dial("fails", "fails clock", "fails timeout")
    assert error.value.code == "clock"
    for address in ("fails", "fails clock", "fails timeout"):
        assert f"No node at {address}." in error.value.message
    assert error.value.remedy == "look"


async def test_an_address_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "DIAL_S", 0.1)
    with pytest.raises(NetError) as error:
        await Attempts().dial("hangs")
    assert error.value.code == "timeout"


async def test_without_addresses() -> None:
    with pytest.raises(NetError) as error:
        await Attempts().dial()
    assert error.value.code == "unreachable"


async def test_addresses_are_bounded_and_tried_once() -> None:
    attempts = Attempts()
    with pytest.raises(NetError):
        await attempts.dial(*["fails same"] * 20, *[f"fails {number}" for number in range(20)])
    assert len(attempts.begun) == len(set(attempts.begun)) == MAX_ADDRESSES


async def test_cancelling_ends_all_attempts() -> None:
    attempts = Attempts()
    task = asyncio.ensure_future(attempts.dial("hangs", "hangs too"))
    await asyncio.sleep(dial.NEXT_S * 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(attempts.cancelled) == ["hangs", "hangs too"]


async def test_a_failure_that_nobody_expects_is_not_hidden() -> None:
    async def broken(address: str) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await dial_first(["one", "other"], broken, Attempts().discard)


async def test_a_carrier_that_connects_is_not_yet_the_node() -> None:
    """The address that answers first is not the node; the one that comes second is."""
    async with nodes(3) as (one, impostor, other):

        async def to_other(address: str) -> Link:
            pipe = await one.transport.dial(address)
            return await one.connect(pipe, Target(other.id))

        link = await dial_first([impostor.address, other.address], to_other, Link.close)
        assert link.peer == other.id
        await link.close()
        assert await link.wait_closed() == LinkEnd(None, "here")
