"""What this node tells of itself: its card, signed anew when what it says has changed, and its states.

How a record is signed and numbered is in publisher.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from infraxa.net.commands import Command, HeartbeatDue
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
        self._said: tuple[Places, bytes] | None = None
        """What the newest card says, when it could be told."""
        self._unsaid: Status | None = None
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
            places = self._places()
            if not least and self._said == (places, prekey.public):
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
                features=FEATURE_RELAY * self._relay | FEATURE_REACHABLE * reachable,
            )
            told = await self._notices.of(self._publisher.publish_card(card, least), "not_written")
            self._said = (places, prekey.public) if told else None
            if told and self._unsaid is not None:
                status, self._unsaid = self._unsaid, None
                self.say(status)

    def say(self, status: Status) -> None:
        """How this node is from now on; when there is no card that was told, with the next one."""
        if self._said is None:
            self._unsaid = status
        else:
            self._perform(self._due(status))

    async def tell(self, state: State) -> None:
        """Sign a state, and tell everybody who watches. A failure is a notice."""
        if await self._notices.of(self._publisher.publish_state(state), "not_written"):
            self.probes.tell(self._publisher.state)

    async def leave(self) -> None:
        """Say goodbye."""
        self._unsaid = None
        for command in self._due("offline"):
            if isinstance(command, HeartbeatDue):
                await self.tell(command.state)

    def _due(self, status: Status) -> list[Command]:
        return self._gossip.say(status, self._clock.monotonic(), self._clock.unix_ms())
