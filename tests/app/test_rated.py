"""Own ratings leave once, after a while; those of others outlast a restart and stay in their network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app import rated
from infraxa.app.errors import NodeError
from infraxa.app.rated import Ratings
from infraxa.app.reputations import Reputations
from infraxa.net.codec import Signed, encode
from infraxa.net.ratings import KEPT_DAYS, blank, day_of
from infraxa.net.reputation import FULL_AMOUNT, Counterparty
from infraxa.store import ratings as kept
from infraxa.store.db import Store, now_ms
from infraxa.store.records import StoreError
from tests.app.networked import until
from tests.net.test_network import Someone, village
from tests.net.test_rating_table import a_rating, key

ORDER = b"o" * 16


class Reader:
    """The ratings of one node, with a store and a clock of its own."""

    def __init__(self, someone: Someone, store: Store) -> None:
        self.someone = someone
        self.store = store
        self.ahead_ms = 0
        self.reputations = Reputations()
        self.ratings = Ratings(self.reputations, clock=lambda: now_ms() + self.ahead_ms)

    async def begin(self) -> None:
        await self.ratings.open(self.store)
        await self.ratings.attach(self.someone.net, self.someone.identity)

    async def may_rate(self, order: bytes, provider: bytes, blank: Signed) -> bool:
        """The provider gave this blank; whether it is kept."""
        keep = self.ratings.may_rate(order, provider, blank)
        if keep is not None:
            await self.store.run(keep)
        return keep is not None

    def stars(self, provider: Someone) -> list[tuple[int, float]]:
        return [(one.stars, one.weight) for one in self.reputations.said(provider.id)]


@asynccontextmanager
async def reading(someone: Someone, folder: Path) -> AsyncIterator[Reader]:
    async with await Store.open(folder) as store:
        reader = Reader(someone, store)
        await reader.begin()
        try:
            yield reader
        finally:
            await reader.ratings.close()


def issued(provider: Someone, user: Someone, order: bytes = ORDER, days: int = 0) -> Signed:
    account = user.identity.account_key(provider.id).id
    return blank(provider.identity, account, day_of(now_ms()) + days, 5000, order)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rated, "TURN_S", 0.05)


async def test_a_rating_is_told_after_minutes_and_weighs_where_its_writer_is_known(tmp_path: Path) -> None:
    async with village("provider", "user", "reader") as (provider, user, other):
        for node in (user, other):
            await node.net.join(provider.id, provider.where)
        async with reading(user, tmp_path / "user") as mine, reading(other, tmp_path / "other") as theirs:
            assert await mine.may_rate(ORDER, provider.id, issued(provider, user))
            await mine.ratings.rate(ORDER, 5)
            await mine.ratings.rate(ORDER, 2)  # it was a slip
            assert await mine.ratings.stars_of(ORDER) == 2
            mine.ahead_ms = 59_000
            await mine.ratings._turn()
            assert not mine.stars(provider)
            mine.ahead_ms = 600_001
            await until(lambda: theirs.stars(provider), "the rating is there")
            assert theirs.stars(provider) == [(2, 0.0)]
            await theirs.ratings._turn()
            assert not other.net.ratings.changes(), "what is written is not written again"
            account = user.identity.account_key(provider.id).id
            theirs.ratings.trust({account: Counterparty(FULL_AMOUNT)})
            assert theirs.stars(provider) == [(2, 1.0)]
            assert other.net.ratings.of(provider.id)[0].node == b""
            with pytest.raises(StoreError) as told:
                await mine.ratings.rate(ORDER, 5)
            assert told.value.code == "exists" and told.value.remedy
        await other.close()
        await other.open()
        async with reading(other, tmp_path / "other") as again:
            assert again.stars(provider) == [(2, 0.0)]
            await again.ratings.detach()
            assert not again.stars(provider)
        # In another network nobody hears of it.
        async with village("elsewhere") as (elsewhere,), await Store.open(tmp_path / "other") as store:
            there = Reader(elsewhere, store)
            await there.begin()
            assert not there.stars(provider)
            await there.ratings.close()


async def test_who_chooses_to_says_which_node_it_is(tmp_path: Path) -> None:
    async with village("provider", "user") as (provider, user):
        await user.net.join(provider.id, provider.where)
        async with reading(user, tmp_path / "user") as mine:
            assert await mine.may_rate(ORDER, provider.id, issued(provider, user))
            await mine.ratings.rate(ORDER, 4, named=True)
            mine.ahead_ms = 600_001
            await until(lambda: provider.net.ratings.of(provider.id), "the rating is there")
            assert [one.node for one in provider.net.ratings.of(provider.id)] == [user.id]
            async with reading(provider, tmp_path / "provider") as rated_one:
                assert rated_one.ratings.received() == [4]
            assert mine.ratings.received() == []


async def test_what_cannot_be_told_waits_and_after_a_restart_for_some_more_minutes(tmp_path: Path) -> None:
    async with village("provider", "user") as (provider, user):
        async with reading(user, tmp_path / "user") as mine:
            assert await mine.may_rate(ORDER, provider.id, issued(provider, user))
            await mine.ratings.rate(ORDER, 4)
            network, due = user.options.network, now_ms() + 600_001
            assert len(await mine.store.run(kept.list_due, network, due)) == 1
            mine.ahead_ms = 600_001
            await mine.ratings._turn()
            assert len(await mine.store.run(kept.list_due, network, due)) == 1
        await user.net.join(provider.id, provider.where)
        async with await Store.open(tmp_path / "user") as store:
            again = Reader(user, store)
            again.ahead_ms = 600_001
            await again.begin()
            await again.ratings._turn()
            assert not again.stars(provider), "it does not leave at the moment of the start"
            again.ahead_ms += 600_001
            await until(lambda: provider.net.ratings.of(provider.id), "the rating is told")
            await again.ratings.close()


async def test_a_blank_that_is_not_for_this_answer_is_not_kept(tmp_path: Path) -> None:
    async with village("provider", "user", "other") as (provider, user, other):
        async with reading(user, tmp_path / "user") as mine:
            good = issued(provider, user)
            account, today = user.identity.account_key(provider.id).id, day_of(now_ms())
            for wrong in (
                issued(provider, other),
                issued(other, user),
                blank(other.identity, account, today, 5000, ORDER),
                issued(provider, user, b"x" * 16),
                issued(provider, user, days=3),
                replace(issued(other, user), signer=provider.id),
                replace(good, signature=bytes(64)),
                replace(good, body=b"\xff"),
            ):
                assert not await mine.may_rate(ORDER, provider.id, wrong)
            with pytest.raises(StoreError) as failed:
                await mine.ratings.rate(ORDER, 5)
            assert failed.value.code == "not_found"
            assert await mine.may_rate(ORDER, provider.id, good)


async def test_a_rating_too_old_to_be_told_is_given_up(tmp_path: Path) -> None:
    async with village("provider", "user") as (provider, user):
        await user.net.join(provider.id, provider.where)
        async with reading(user, tmp_path / "user") as mine:
            network, old = user.options.network, issued(provider, user, days=-KEPT_DAYS - 1)
            day = day_of(now_ms()) - KEPT_DAYS - 1
            await mine.store.run(kept.keep_blank, network, ORDER, provider.id, day, encode(old))
            await mine.ratings.rate(ORDER, 4)
            mine.ahead_ms = 600_001
            await mine.ratings._turn()
            assert await mine.store.run(kept.list_due, network, 2**60) == []
            assert not mine.stars(provider) and await mine.ratings.stars_of(ORDER) == 4


async def test_a_network_that_starts_knows_whose_word_weighs(tmp_path: Path) -> None:
    today = day_of(now_ms())
    async with village("reader") as (someone,), await Store.open(tmp_path) as store:
        reader = Reader(someone, store)
        reader.ratings.trust({key(7): Counterparty(1)})
        await reader.begin()
        someone.net.ratings.put(*a_rating(1, 7, day=today - 100))
        for number in range(100, 200):
            someone.net.ratings.put(*a_rating(1, number, day=today))
        assert key(7) in {one.account for one in someone.net.ratings.of(key(1))}
        await reader.ratings.close()


async def test_nothing_is_rated_before_the_node_is_open(tmp_path: Path) -> None:
    closed = Ratings(Reputations())
    with pytest.raises(NodeError) as failed:
        await closed.rate(ORDER, 5)
    assert failed.value.code == "closed" and await closed.stars_of(ORDER) is None
    async with await Store.open(tmp_path) as store:
        await closed.open(store)
        with pytest.raises(NodeError) as offline:
            await closed.rate(ORDER, 5)
        assert offline.value.code == "offline"
        await closed.close()


async def test_due_times_are_within_their_bounds_and_differ() -> None:
    ratings = Ratings(Reputations(), clock=lambda: 0)
    times = {ratings._due_ms() for _ in range(100)}
    assert len(times) > 50 and min(times) >= 60_000 and max(times) <= 600_000
