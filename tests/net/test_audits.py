"""Openings of answers over real links: whole ones, what they may cost either side, and what is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import audits, codec, customers, wire
from infraxa.net.audits import MAX_LEAF, OPENED, Opening, ask, wait_s
from infraxa.net.customers import Customer
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.link import Link, StreamFailed
from infraxa.net.orders import CHECKPOINT
from tests.net.nodes import until
from tests.net.test_network import Someone
from tests.net.test_network_orders import market
from tests.net.test_peering import stranger

PLEASE = wire.AuditPlease(bytes(16), bytes(32))
ALL = wire.AuditPlease(bytes(16), bytes(32), True)


def some(steps: int) -> Opening:
    """As many steps as are opened, of more than that."""
    return Opening(
        os.urandom(4 * steps),
        (os.urandom(MAX_LEAF),) * OPENED,
        (os.urandom(320),) * OPENED,
        (os.urandom(320),) * (steps // CHECKPOINT),
        os.urandom(32),
    )


def whole(steps: int) -> Opening:
    return Opening(os.urandom(4 * steps), tuple(os.urandom(MAX_LEAF) for _ in range(steps)))


class Answers:
    """The driver's side."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, wire.AuditPlease]] = []
        self.answer: bytes | wire.Failure = audits.encode(some(256))
        self.hold: asyncio.Event | None = None

    async def open(self, customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        self.asked.append((customer.account, request))
        if self.hold is not None:
            await self.hold.wait()
        return self.answer


@asynccontextmanager
async def bargained() -> AsyncIterator[tuple[Answers, Someone, Someone, Link]]:
    async with market(None) as (birch, oak):
        answers = Answers()
        birch.net.sell(None, None, answers.open)
        yield answers, birch, oak, await oak.net.order_link(birch.id)


async def refusal(link: Link, request: wire.AuditPlease = PLEASE) -> wire.Failure:
    with pytest.raises(StreamFailed) as failed:
        await ask(link, request, 256)
    return failed.value.failure


@pytest.mark.parametrize(
    ("request_", "opening", "steps"),
    [(PLEASE, some(256), 256), (ALL, whole(256), 256), (PLEASE, whole(7), 7), (ALL, whole(5000), 5000)],
)
async def test_an_account_gets_what_it_asked_for(
    request_: wire.AuditPlease, opening: Opening, steps: int
) -> None:
    async with bargained() as (answers, birch, oak, link):
        answers.answer = audits.encode(opening)
        assert await ask(link, request_, steps) == opening
        assert answers.asked == [(oak.identity.account_key(birch.id).id, request_)]


async def test_only_an_account_may_ask_and_only_where_answers_are_kept() -> None:
    async with bargained() as (answers, birch, _, link):
        async with stranger(birch) as other:
            assert (await refusal(other)).code == "not_allowed"
        answers.answer = wire.Failure("audit_refused", field="secret")
        assert (await refusal(link)).field == "secret"
        birch.net.sell(None, None)
        assert (await refusal(link)).code == "unsupported"
        assert len(answers.asked) == 1


@pytest.mark.parametrize(
    ("request_", "opening", "detail"),
    [
        (PLEASE, some(255), "steps"),
        (PLEASE, some(257), "steps"),
        (ALL, some(256), "other steps"),
        (PLEASE, whole(256), "other steps"),
        (PLEASE, whole(16), "steps"),
    ],
)
async def test_an_opening_of_something_else_is_none(
    request_: wire.AuditPlease, opening: Opening, detail: str
) -> None:
    async with bargained() as (answers, _, _, link):
        answers.answer = audits.encode(opening)
        with pytest.raises(ProtocolError, match=detail):
            await ask(link, request_, 256)


async def test_more_bytes_than_an_opening_has_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bargained() as (answers, birch, _, link):
        answers.answer = bytes(300_000)
        monkeypatch.setattr(audits, "MAX_OPENING", 200_000)
        with pytest.raises(ProtocolError) as broken:
            await ask(link, PLEASE, 256)
        assert broken.value.reason == "too_large"
        await until(lambda: not birch.net._customers._auditing)


async def test_a_driver_that_does_not_answer_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "WAIT_S", 0.2)
    async with bargained() as (answers, birch, _, link):
        answers.hold = asyncio.Event()
        with pytest.raises(NetError) as late:
            await ask(link, PLEASE, 10)
        assert late.value.code == "timeout"
        await until(lambda: not birch.net._customers._auditing)
    assert wait_s(1000) - wait_s(0) == 10
    assert wait_s(2**20) == wait_s(2**64) == 300


async def test_who_does_not_read_does_not_keep_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "AUDIT_S", 0.3)
    async with bargained() as (answers, birch, _, link):
        answers.answer = bytes(1_000_000)
        async with await link.request(PLEASE):  # and nothing is read
            await until(lambda: birch.net._customers._auditing)
            await until(lambda: not birch.net._customers._auditing)


async def test_a_group_has_so_many_opened_at_a_time_and_all_together_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bargained() as (answers, birch, _, link):
        answers.hold = asyncio.Event()
        for limit in ("OWN_AUDITS", "AUDITS_AT_ONCE"):
            with monkeypatch.context() as few:
                few.setattr(customers, limit, 1)
                async with await link.request(PLEASE):
                    await until(lambda: birch.net._customers._auditing)
                    assert (await refusal(link)).code == "busy"
                await until(lambda: not birch.net._customers._auditing)
        answers.hold.set()
        await ask(link, PLEASE, 256)


async def test_who_asks_over_and_over_is_refused() -> None:
    async with bargained() as (answers, birch, _, link):
        answers.answer = wire.Failure("audit_refused")
        for _ in range(customers.AUDITS_BURST):
            assert (await refusal(link)).code == "audit_refused"
        assert (await refusal(link)).code == "rate_limited"
        assert birch.net.status.refused == {"rate": 1}
        assert len(answers.asked) == customers.AUDITS_BURST


async def test_beyond_so_many_bytes_openings_come_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(customers, "AUDIT_S", 0.3)
    async with bargained() as (answers, birch, _, link):
        bucket = birch.net._customers._opened
        bucket.take(bucket.burst, link.clock.monotonic())
        answers.answer = audits.encode(whole(1000))
        assert (await refusal(link)).code == "expired"


async def test_an_auditor_that_breaks_is_no_end_of_the_session() -> None:
    async def broken(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        raise RuntimeError("no tree")

    async with bargained() as (_, birch, _, link):
        birch.net.sell(None, None, broken)
        assert (await refusal(link)).code == "internal"
        assert not link.closed and not birch.net._customers._auditing


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_is_an_opening_or_is_refused(data: bytes) -> None:
    try:
        found = audits.decode(data)
    except ProtocolError:
        return
    assert audits.decode(audits.encode(found)) == found


HASHES = st.integers(0, 3).map(lambda count: bytes(32 * count))
ODD = st.binary(max_size=70)


@given(
    st.binary(max_size=600),
    st.lists(st.binary(min_size=0, max_size=8), max_size=20).map(tuple),
    st.lists(HASHES | ODD, max_size=18).map(tuple),
    st.lists(HASHES | ODD, max_size=3).map(tuple),
    HASHES | ODD,
)
@settings(deadline=None, max_examples=500)
def test_its_parts_go_together(
    tokens: bytes,
    leaves: tuple[bytes, ...],
    paths: tuple[bytes, ...],
    consistency: tuple[bytes, ...],
    root: bytes,
) -> None:
    """What is decoded can be judged without looking at a length again."""
    try:
        found = audits.decode(codec.encode(Opening(tokens, leaves, paths, consistency, root)))
    except ProtocolError:
        return
    steps = len(found.tokens) // 4
    assert len(found.tokens) == 4 * steps and all(found.leaves)
    if len(found.leaves) == steps:
        assert not (found.paths or found.consistency or found.root)
    else:
        assert len(found.paths) == len(found.leaves) and len(found.root) == 32
        assert len(found.consistency) == steps // CHECKPOINT and all(found.consistency)
    assert all(len(path) % 32 == 0 for path in (*found.paths, *found.consistency))


@pytest.mark.parametrize(
    "opening",
    [
        Opening(bytes(3), ()),
        Opening(bytes(4), (bytes(MAX_LEAF + 1),)),
        Opening(bytes(4), (b"",)),
        Opening(bytes(8), (b"leaf",), (bytes(32),), (), b""),
        Opening(bytes(8), (b"leaf",), (bytes(32 * 25),), (), bytes(32)),
        Opening(bytes(8), (b"leaf",), (), (), bytes(32)),
        Opening(bytes(4 * 64), (b"leaf",), (bytes(32),), (), bytes(32)),
        Opening(bytes(4 * 64), (b"leaf",), (bytes(32),), (b"",), bytes(32)),
        Opening(bytes(4), (b"leaf",), (bytes(32),), (), bytes(32)),
    ],
)
def test_what_cannot_be_an_opening_is_neither_said_nor_taken(opening: Opening) -> None:
    with pytest.raises(ProtocolError):
        audits.decode(codec.encode(opening))
    with pytest.raises(ValueError, match="opening"):
        audits.encode(opening)
    audits.encode(Opening(bytes(8), (b"leaf",), (bytes(32),), (), bytes(32)))


def test_no_words_of_an_answer_are_in_what_is_shown_of_one() -> None:
    assert repr(Opening(b"1234", (b"leaf",))) == "Opening(1 leaves)"
