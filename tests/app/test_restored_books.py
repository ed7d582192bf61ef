"""An old backup of either side, or of both: orders go on, no number is used twice, both books agree."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.app import proofs
from infraxa.net import codec, deals, wire
from infraxa.net.codec import Signed
from infraxa.net.errors import ProtocolError
from infraxa.store import tabs
from infraxa.store.copies import adopt_copy, copy_database
from infraxa.store.folder import DATABASE_NAME
from tests.app.test_purse_till import Street, street
from tests.app.tills import cost, facts_of, payer, selling_at


class Books:
    """Backups of both sides of a street, and every receipt that was ever issued there."""

    def __init__(self, place: Street, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.receipts: dict[int, set[bytes]] = {}
        """Digests by number."""
        self.dropped: set[str] = set()
        """Requests that are done, and whose answers get lost."""
        self.unheard: set[str] = set()
        """Requests that get lost."""
        bargain = place.shop.customers.bargainer
        assert bargain is not None
        self._bargain = bargain
        place.shop.customers.bargainer = self._listen

    async def _listen(self, customer: Any, request: Any) -> Any:
        if type(request).__name__ in self.unheard:
            return wire.Failure("internal")
        answer = await self._bargain(customer, request)
        for name in ("receipt", "next", "due"):
            signed = getattr(answer, name, None)
            if isinstance(signed, Signed):
                self.receipts.setdefault(facts_of(signed).seq, set()).add(deals.receipt_hash(signed))
        return wire.Failure("internal") if type(request).__name__ in self.dropped else answer

    def back_up(self, *sides: str) -> None:
        for side in sides:
            copy_database(self.folder / side, self.folder / f"{side}.backup")

    async def restore(self, *sides: str) -> None:
        for side in sides:
            copy, live = self.folder / f"{side}.backup", self.folder / side
            adopt_copy(copy, live)
            with (
                contextlib.closing(sqlite3.connect(copy / DATABASE_NAME)) as source,
                contextlib.closing(sqlite3.connect(live / DATABASE_NAME)) as target,
            ):
                source.backup(target)
        await self.place.again()

    async def agree(self) -> int:
        """What both say is owed."""
        assert all(len(receipts) == 1 for receipts in self.receipts.values())
        return await self.place.agree()


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with street(tmp_path) as place:
        yield Books(place, tmp_path)


async def asked(books: Books, *tokens: int) -> None:
    for count in tokens:
        assert (await books.place.ask(count)).end.reason == "stop"
        await books.place.settled()
        await books.place.idle()


@pytest.mark.parametrize("before", [(), (4,)], ids=["never", "once"])
async def test_an_old_provider(books: Books, before: tuple[int, ...]) -> None:
    await asked(books, *before)
    books.back_up("shop")
    await asked(books, 5, 6)
    await books.restore("shop")
    await asked(books, 7, 8)
    assert await books.agree() == sum(map(cost, (*before, 5, 6, 7, 8)))


async def test_an_old_provider_twice(books: Books) -> None:
    await asked(books, 4)
    books.back_up("shop")
    for tokens in (5, 6):
        await asked(books, tokens)
        await books.restore("shop")
    await asked(books, 7)
    assert await books.agree() == sum(map(cost, (4, 5, 6, 7)))


async def test_an_old_user(books: Books) -> None:
    await asked(books, 4)
    books.back_up("user")
    await asked(books, 5, 6)
    await books.restore("user")
    await asked(books, 7)
    assert await books.agree() == sum(map(cost, (4, 5, 6, 7)))


async def test_both_are_old(books: Books) -> None:
    await asked(books, 4)
    books.back_up("shop", "user")
    await asked(books, 5)
    await books.restore("shop", "user")
    await asked(books, 6)
    assert await books.agree() == cost(4) + cost(6)  # nobody remembers the one between


async def test_an_older_provider_than_the_user(books: Books) -> None:
    await asked(books, 3)
    books.back_up("shop")
    await asked(books, 4)
    books.back_up("user")
    await asked(books, 5)
    await books.restore("shop", "user")
    await asked(books, 6)
    assert await books.agree() == cost(3) + cost(4) + cost(6)


async def test_a_receipt_was_out_when_the_provider_was_backed_up(books: Books) -> None:
    books.unheard = {"CountersignPlease"}
    await books.place.ask(4)
    await books.place.idle()
    books.back_up("shop")
    books.unheard = set()
    await books.place.again()
    assert await books.agree() == cost(4)
    await books.restore("shop")
    books.place.time.moved_ms += 20_000  # nothing is sold while one is out for so long
    await asked(books, 5)
    assert await books.agree() == cost(4) + cost(5)


async def test_the_provider_lost_what_the_user_signed_and_did_not_hear_of(books: Books) -> None:
    await asked(books, 3)
    books.back_up("shop")
    books.dropped = {"CountersignPlease"}
    await books.place.ask(4)
    await books.place.idle()
    books.dropped = set()
    await books.restore("shop")
    assert await books.agree() == cost(3) + cost(4)
    await asked(books, 5)
    assert await books.agree() == cost(3) + cost(4) + cost(5)


async def test_the_user_lost_the_order_whose_receipt_is_due(books: Books) -> None:
    await asked(books, 3)
    books.back_up("user")
    books.unheard = {"CountersignPlease"}
    await books.place.ask(4)
    await books.place.idle()
    books.unheard = set()
    await books.restore("user")
    books.place.time.moved_ms += 20_000
    await asked(books, 5)
    assert await books.agree() == cost(3) + cost(5)
    tab = await books.place.store.run(tabs.get_tab, "user", books.place.id)
    assert tab.disputed == cost(4)  # signed for nothing, and both say so


Forge = Callable[[wire.TabPlease], wire.TabPlease]


def _swapped(said: wire.TabPlease) -> wire.TabPlease:
    assert said.receipt is not None
    return wire.TabPlease(said.receipt, said.receipt)


def _cheaper(said: wire.TabPlease) -> wire.TabPlease:
    assert said.receipt is not None
    body = codec.encode(replace(facts_of(said.receipt), owed_before=-5))
    return wire.TabPlease(Signed(body, said.receipt.signer, said.receipt.signature), said.countersign)


@pytest.mark.parametrize("forged", [_swapped, _cheaper])
async def test_what_not_both_signed_is_not_adopted(tmp_path: Path, forged: Forge) -> None:
    async with selling_at(tmp_path / "shop") as (shop, _):
        user = await payer(shop)
        order = await user.bought(4)
        receipt = await user.receipt(order)
        signed = user.countersigned(receipt)
        await user.ask(wire.CountersignPlease(order, signed), wire.Accepted)
        said = wire.TabPlease(receipt, signed)
        assert proofs.proven(said, user.key, user.provider) == (1, cost(4))
        with pytest.raises(ProtocolError):
            proofs.proven(forged(said), user.key, user.provider)


async def test_a_user_that_tells_nothing_is_served_on_from_what_is_known(tmp_path: Path) -> None:
    async with selling_at(tmp_path / "shop") as (shop, _):
        user = await payer(shop)
        await user.pay(await user.bought(4))
        await shop.store.run(tabs.mark_restored)
        order = await user.bought(5)
        assert (await user.billed(order)).state == "tell"
        state = await user.ask(wire.TabPlease(), wire.TabState)
        assert (state.seq, state.owed) == (1, cost(4)) and state.next > 1_000_000
        assert facts_of(await user.receipt(order)).seq == state.next
        assert (await user.pay(order)).owed == cost(4) + cost(5)


async def test_a_settlement_since_the_backup_counts(tmp_path: Path) -> None:
    async with selling_at(tmp_path / "shop") as (shop, time):
        user = await payer(shop)
        await user.pay(await user.bought(1000))
        copy_database(tmp_path / "shop", tmp_path / "backup")
        half = deals.Settlement(b"s" * 16, user.provider, user.key, 50, 2, cost(1000), b"", "", time.ms)
        signed = deals.sign(half, user.user.signer)
        await user.ask(wire.SettlePlease(signed), wire.Settled)
        await shop.provider.till.settle(user.key)
        settled = await user.ask(wire.SettlePlease(signed), wire.Settled)
        last = await shop.store.run(proofs.last, "provider", user.key)
        assert last == wire.TabPlease(settlement=signed, signature=settled.signature)

        adopt_copy(tmp_path / "backup", tmp_path / "shop")
        with (
            contextlib.closing(sqlite3.connect(tmp_path / "backup" / DATABASE_NAME)) as source,
            contextlib.closing(sqlite3.connect(tmp_path / "shop" / DATABASE_NAME)) as target,
        ):
            source.backup(target)
        state = await user.ask(last, wire.TabState)
        assert (state.seq, state.owed) == (2, cost(1000) - 50)
        assert (state.settlement, state.signature) == (signed, settled.signature)
        again = deals.Settlement(
            b"t" * 16, user.provider, user.key, 10, state.next, state.owed, b"", "", time.ms
        )
        await user.ask(wire.SettlePlease(deals.sign(again, user.user.signer)), wire.Settled)
        assert await shop.provider.till.settle(user.key) == 10
