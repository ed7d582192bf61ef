"""What this node tells of itself: its card, signed anew when what it says has changed, and its states.

How a record is signed and numbered is in publisher.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infraxa.net.commands import HeartbeatDue
from infraxa.net.gossip import Gossip
from infraxa.net.health import Probes
from infraxa.net.hello import Prekeys
from infraxa.net.link import Clock
from infraxa.net.memory import Keeper
from infraxa.net.notices import Notices
from infraxa.net.publisher import Publisher
from infraxa.net.records import FEATURE_REACHABLE, FEATURE_RELAY, MAJOR, Card, State, Status

Places = tuple[tuple[str, ...], tuple[bytes, ...], bool]
"""For the card: addresses, relays, and whether others outside reach the addresses."""


class Presence:
    """Keeps the card and the state of this node true. `places` says where it is now."""

    def __init__(
        self,
        publisher: Publisher,
        gossip: Gossip,
        prekeys: Prekeys,
        keeper: Keeper,
        clock: Clock,
        notices: Notices,
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
        self._name = name
        self._network = network
        self._recovery = recovery
        self._relay = relay
        self._places = places
        self._said: tuple[Places, bytes] | None = None
        """What the newest card says."""
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
            if self._prekeys.stored != self._kept:
                self._kept = self._prekeys.stored
                await self._notices.of(self._keeper.prekeys_made(self._kept), "not_written")
            prekey = self._prekeys.current(now_ms)
            places = self._places()
            if not least and self._said == (places, prekey.public):
                return
            self._said = (places, prekey.public)
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
                features=FEATURE_RELAY * self._relay | FEATURE_REACHABLE * reachable,
            )
            await self._notices.of(self._publisher.publish_card(card, least), "not_written")

    async def tell(self, state: State) -> None:
        """Sign a state, and tell everybody who watches. A failure is a notice."""
        await self._notices.of(self._publisher.publish_state(state), "not_written")
        self.probes.tell(self._publisher.state)

    async def leave(self) -> None:
        """Say goodbye."""
        status: Status = "offline"
        for command in self._gossip.say(status, self._clock.monotonic(), self._clock.unix_ms()):
            if isinstance(command, HeartbeatDue):
                await self.tell(command.state)
