"""Signs what this node tells of itself: its card and its states, each under a number that is used once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from msgspec import structs

from infraxa.net import codec
from infraxa.net.commands import Command
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.gossip import Gossip
from infraxa.net.identity import Identity
from infraxa.net.link import Clock
from infraxa.net.memory import Keeper
from infraxa.net.records import Card, Record, State


class Publisher:
    """`perform` carries out what gossip wants; nothing is gossiped while `announce` is False, and the card is
    for those who dial this node."""

    def __init__(
        self,
        identity: Identity,
        gossip: Gossip,
        keeper: Keeper,
        clock: Clock,
        perform: Callable[[Iterable[Command]], None],
        *,
        announce: bool,
    ) -> None:
        self._identity = identity
        self._gossip = gossip
        self._keeper = keeper
        self._clock = clock
        self._perform = perform
        self._announce = announce
        self._turn = asyncio.Lock()
        self.card = b""
        """The newest card, an encoded Record; empty before there is one."""
        self.state = b""
        """The newest state, likewise."""

    async def publish_card(self, card: Card, least: int = 0) -> None:
        """Sign `card` under the next number, at least `least`. Raises NetError `clock`, `not_written`,
        `refused`; but for `not_written` it is the card for those who dial this node all the same."""
        async with self._turn:
            seq = await self._number(least)
            record = self._sign("card", codec.encode(structs.replace(card, seq=seq)))
            self.card = codec.encode(record)
            self._tell(record)

    async def publish_state(self, state: State) -> None:
        """Sign `state` under the next number. Raises as `publish_card`; then it is not `state`."""
        async with self._turn:
            seq = await self._number(state.seq)
            record = self._sign("state", codec.encode(structs.replace(state, seq=seq)))
            self._tell(record)
            self.state = codec.encode(record)

    def _sign(self, kind: codec.Tag, body: bytes) -> Record:
        return Record(kind, self._identity.sign(kind, body))

    def _tell(self, record: Record) -> None:
        if not self._announce:
            return
        now, now_ms = self._clock.monotonic(), self._clock.unix_ms()
        try:
            todo = self._gossip.publish(record, now, now_ms)
        except ProtocolError as error:
            raise _refused(error, self._gossip.intake.seq - now_ms) from error
        self._perform(todo)

    async def _number(self, least: int) -> int:
        """Kept before it is used: a program that is killed in between leaves a gap, never a second record
        under one number."""
        seq = max(self._gossip.intake.seq + 1, self._clock.unix_ms(), least)
        await self._keeper.seq_used(seq)
        self._gossip.intake.seq = seq
        return seq


def _refused(error: ProtocolError, ahead_ms: int) -> NetError:
    """What everybody would refuse is not told. `ahead_ms`: the number used last, minus this clock."""
    if error.reason == "stale":
        return NetError(
            "clock",
            f"What this node said last is of {ahead_ms // 60_000} minutes from now: the clock was set back.",
            "Set the clock by the network (NTP); infraxa goes on by itself.",
        )
    return NetError(
        "refused",
        "Others do not take what this node says of itself: its key was replaced or revoked.",
        "If that was not you, somebody has its recovery key. This node needs a new key.",
    )
