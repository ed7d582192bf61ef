"""Ratings: the person's own, told to the network after a while, and those of others, kept between runs.

What an own rating does not hide: the provider knows which account it served and when, so it sees who of its
accounts rates it; for everybody all ratings of one account belong together. The account key is not that of
the node, and a rating waits a random time, DELAY_S, before it leaves here, longer when this program did not
run meanwhile; then it goes to some links, as one that came from elsewhere would. But whoever is linked with
this node and with most of those that it is linked with can see that nobody had it before, and guess. Only
`named` says on purpose whose it is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from infraxa.app.errors import NodeError
from infraxa.app.reputations import Reputations
from infraxa.net import codec, deals
from infraxa.net.codec import Signed
from infraxa.net.errors import ProtocolError
from infraxa.net.ratings import Blank, Rating, day_of, filled
from infraxa.net.records import Record
from infraxa.net.reputation import Counterparty
from infraxa.net.tasks import TaskGroup
from infraxa.store import ratings
from infraxa.store.db import Connection, Store, now_ms
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.net.identity import Identity
    from infraxa.net.network import Network

DELAY_S: Final = (60.0, 600.0)
"""Between rating an answer and telling it: at random between these."""
TURN_S: Final = 15.0
"""How often it is looked what is to be told and to be written."""
AT_ONCE: Final = 128
"""Ratings that are read between two looks at everything else."""

_log = logging.getLogger(__name__)


class Ratings:
    """Of one node. `open` it once, `close` it before the store; `attach` it to each network that starts."""

    def __init__(
        self,
        reputations: Reputations,
        *,
        clock: Callable[[], int] = now_ms,
        rng: random.Random | None = None,
    ) -> None:
        """`reputations` learns of what is said, and by whom it weighs."""
        self._reputations = reputations
        reputations.ratings_of = self._of
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._store: Store | None = None
        self._network: Network | None = None
        self._identity: Identity | None = None
        self._tasks = TaskGroup()

    async def open(self, store: Store) -> None:
        """Raises StoreError."""
        self._store = store
        # What became due while nothing ran does not leave at the moment of the start.
        await store.run(ratings.delay, self._clock(), self._due_ms())
        self._tasks.repeat(self._turn, name="ratings", pause_s=TURN_S)

    async def close(self) -> None:
        """Write what is not written. What fails is logged."""
        await self._tasks.cancel_all()
        await self._write()
        self._store = self._network = None

    async def attach(self, network: Network, identity: Identity) -> None:
        """Give a network that starts what earlier ones brought, and take part in it. Raises StoreError."""
        if self._store is None:
            return
        day = day_of(self._clock())
        kept = await self._store.run(ratings.list_ratings, network.options.network)
        network.ratings.trust(self._reputations.counterparties)
        for at in range(0, len(kept), AT_ONCE):
            for raw in kept[at : at + AT_ONCE]:
                network.ratings.restore(raw, day)
            await asyncio.sleep(0)
        self._network, self._identity = network, identity

    async def detach(self) -> None:
        """The network ends."""
        await self._write()
        self._network = None

    def trust(self, counterparties: Mapping[bytes, Counterparty]) -> None:
        """Whose word weighs, by account key or node id: they have a settled or served-back tab here."""
        self._reputations.counterparties = counterparties
        if self._network is not None:
            self._network.ratings.trust(counterparties)

    def may_rate(self, order: bytes, provider: bytes, blank: Signed) -> Callable[[Connection], None] | None:
        """A provider let an order be rated: what takes that down. None: its blank is not for this."""
        if self._store is None or self._network is None or self._identity is None:
            return None
        try:
            issued: Blank = codec.decode(blank.body, Blank)
        except ProtocolError:
            return None
        account = self._identity.account_key(provider).id
        mine = issued.account == account and issued.order == codec.digest("rating", order)[:16]
        near = abs(issued.day - day_of(self._clock())) <= 1
        if not (mine and near and blank.signer == provider and codec.verify("rating", blank)):
            return None
        network, whole = self._network.options.network, codec.encode(blank)
        return lambda conn: ratings.keep_blank(conn, network, order, provider, issued.day, whole)

    async def rate(self, order: bytes, stars: int, *, named: bool = False) -> None:
        """The person's stars for an answer, 1 to 5. `named`: say to everybody which node this is, so that it
        weighs with those that know it.

        Raises NodeError `closed`, `offline`; StoreError `not_found` (it cannot be rated), `exists` (one of
        that provider and day was told).
        """
        if self._store is None:
            raise NodeError("closed", "This node is not open.")
        if self._identity is None:
            raise NodeError("offline", "Answers are rated while this node is online.")
        found = await self._store.run(ratings.get_blank, order)
        if found is None:
            raise StoreError("not_found", "This answer cannot be rated.")
        provider, encoded = found
        account = self._identity.account_key(provider)
        linked = None
        if named:
            linked = deals.sign(deals.Linked(self._identity.id, account.id, provider), self._identity)
        rating = filled(account, codec.decode_signed(encoded), stars, linked)
        record = codec.encode(Record("rating", rating))
        await self._store.run(ratings.rate, order, stars, record, self._due_ms())

    async def stars_of(self, order: bytes) -> int | None:
        """What the person gave an answer. Raises StoreError."""
        return None if self._store is None else await self._store.run(ratings.stars_of, order)

    def received(self) -> list[int]:
        """The stars that others gave this node, as far as it heard of them."""
        return [] if self._identity is None else [one.stars for one in self._of(self._identity.id)]

    def _of(self, provider: bytes) -> list[Rating]:
        return self._network.ratings.of(provider) if self._network is not None else []

    def _due_ms(self) -> int:
        return self._clock() + int(1000 * self._rng.uniform(*DELAY_S))

    async def _turn(self) -> None:
        await asyncio.sleep(TURN_S)
        await self._tell()
        await self._write()

    async def _tell(self) -> None:
        if self._store is None or self._network is None:
            return
        try:
            network = self._network
            due = await self._store.run(ratings.list_due, network.options.network, self._clock())
            for order, raw in due:
                record: Record = codec.decode(raw, Record)
                try:
                    if not network.rate(record.signed):
                        return  # there is nobody to tell
                except ProtocolError as error:
                    _log.info("an own rating is not told: %s", error.reason)  # it is too old by now
                await self._store.run(ratings.told, order)
        except StoreError as error:
            _log.warning("own ratings cannot be read: %s", error.message)

    async def _write(self) -> None:
        if self._store is None or self._network is None:
            return
        network, table = self._network.options.network, self._network.ratings
        changes = table.changes()
        if not changes:
            return
        try:
            await self._store.run(ratings.write_ratings, network, changes)
        except StoreError as error:
            _log.warning("ratings of others are not kept: %s", error.message)
            return
        table.written(changes)
