"""What this node tells of itself: its card, signed anew when what it says has changed, and its states.

How a record is signed and numbered is in publisher.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import structs

from infraxa.net import codec
from infraxa.net.commands import Command, HeartbeatDue
from infraxa.net.gossip import Gossip
from infraxa.net.health import Probes
from infraxa.net.hello import Prekeys
from infraxa.net.link import Clock
from infraxa.net.memory import Keeper
from infraxa.net.notices import Notices
from infraxa.net.publisher import Publisher
from infraxa.net.records import (
    FEATURE_REACHABLE,
    FEATURE_RELAY,
    MAJOR,
    MAX_CARD,
    MAX_MODELS,
    Card,
    State,
    Status,
)
from infraxa.net.status import Load, Offer

NOTHING: Final = Offer((), 0)
SIGNED: Final = 128
"""Bytes of a record around its body: signer, signature, kind, and what msgpack adds."""

Places = tuple[tuple[str, ...], tuple[bytes, ...], bool]
"""For the card: addresses, relays, and whether others outside reach the addresses."""


class Presence:
    """Keeps the card and the state of this node true. `places` says where it is now, `perform` carries out
    what gossip wants."""

    def __init__(
        self,
        publisher: Publisher,
        gossip: Gossip,
        prekeys: Prekeys,
        keeper: Keeper,
        clock: Clock,
        notices: Notices,
        perform: Callable[[Iterable[Command]], None],
        *,
        name: str,
        network: bytes,
        recovery: bytes,
        relay: bool,
        places: Callable[[], Places],
    ) -> None:
        self._publisher = publisher
        self._gossip = gossip
        self._prekeys = prekeys
        self._kept = prekeys.stored
        self._keeper = keeper
        self._clock = clock
        self._notices = notices
        self._perform = perform
        self._name = name
        self._network = network
        self._recovery = recovery
        self._relay = relay
        self._places = places
        self._said: tuple[Places, bytes, Offer] | None = None
        """What the newest card says, when it could be told."""
        self._offer = NOTHING
        self._load: Load | None = Load()
        """None: this node leaves."""
        self._turn = asyncio.Lock()
        self.probes = Probes()

    @property
    def card(self) -> bytes:
        """The newest one, an encoded Record."""
        return self._publisher.card

    @property
    def state(self) -> bytes:
        """The newest one, an encoded Record; empty when none was told."""
        return self._publisher.state

    async def renew(self, least: int = 0) -> None:
        """Sign a card when what it says is not so any more, or when its number must be `least`.

        A failure is a notice.
        """
        async with self._turn:
            now_ms = self._clock.unix_ms()
            self._prekeys.rotate(now_ms)
            made = self._prekeys.stored
            if made != self._kept and await self._notices.of(self._keeper.prekeys_made(made), "not_written"):
                self._kept = made
            prekey = self._prekeys.current(now_ms)
            places, offer = self._places(), self._offer
            if not least and self._said == (places, prekey.public, offer):
                return
            where, relays, reachable = places
            card = Card(
                version=MAJOR,
                seq=0,
                name=self._name,
                network=self._network,
                addresses=where,
                relays=relays,
                kx=prekey.public,
                kx_expires=prekey.expires_ms,
                recovery=self._recovery,
                slots=offer.slots,
                features=FEATURE_RELAY * self._relay | FEATURE_REACHABLE * reachable,
                models=offer.models,
                stranger_limit=offer.stranger_limit,
                free_daily=offer.free_daily,
            )
            publishing = self._publisher.publish_card(fitting(card), least)
            told = await self._notices.of(publishing, "not_written")
            self._said = (places, prekey.public, offer) if told else None
            self._say()

    def offer(self, offer: Offer | None) -> bool:
        """What this node offers from now on; whether its card does not say so yet, and must be renewed."""
        self._offer = offer or NOTHING
        return self._said is None or self._said[2] != self._offer

    def load(self, load: Load) -> None:
        """How this node is from now on; when there is no card that was told, with the next one."""
        if self._load is not None:
            self._load = load
            self._say()

    def _say(self) -> None:
        if self._said is not None and self._load is not None:
            self._perform(self._due(self._load.status, self._load))

    async def tell(self, state: State) -> None:
        """Sign a state, and tell everybody who watches. A failure is a notice."""
        if await self._notices.of(self._publisher.publish_state(state), "not_written"):
            self.probes.tell(self._publisher.state)

    async def leave(self) -> None:
        """Say goodbye."""
        self._load = None
        for command in self._due("offline", Load()):
            if isinstance(command, HeartbeatDue):
                await self.tell(command.state)

    def _due(self, status: Status, load: Load) -> list[Command]:
        return self._gossip.say(
            status,
            self._clock.monotonic(),
            self._clock.unix_ms(),
            util=load.util,
            prices=load.prices,
            first_token_ms=load.first_token_ms,
        )


def fitting(card: Card) -> Card:
    """`card` with as many of its models as a card may have and hold, the first ones."""
    card = structs.replace(card, models=card.models[:MAX_MODELS])
    while card.models and len(codec.encode(card)) > MAX_CARD - SIGNED:
        card = structs.replace(card, models=card.models[:-1])
    return card
