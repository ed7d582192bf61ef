"""Dialling a node by its id: at all its addresses, over every transport; the first handshake wins."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from infraxa.net.connect import Target, connect
from infraxa.net.dial import dial_first
from infraxa.net.errors import NetError, ProtocolError, Refusal
from infraxa.net.link import Clock, Handler, Link, OnTell
from infraxa.net.pipe import Transport

MAX_REACHED: Final = 4096
"""Nodes of which it is known where they were reached."""


class Dialer:
    """Makes links. `handler` and `on_tell` get what the other side asks and tells."""

    def __init__(
        self,
        transports: Mapping[str, Transport],
        *,
        network: bytes,
        psk: bytes | None,
        clock: Clock,
        handler: Handler,
        on_tell: OnTell,
        on_aged: Callable[[Link], None],
        on_refused: Callable[[Refusal, str], None],
    ) -> None:
        """`on_refused` is told why what answers at an address was not believed."""
        self._transports = transports
        self._network = network
        self._psk = psk
        self._clock = clock
        self._handler = handler
        self._on_tell = on_tell
        self._on_aged = on_aged
        self._on_refused = on_refused
        self._reached: OrderedDict[bytes, str] = OrderedDict()
        self._closed = False

    def close(self) -> None:
        """Dial nobody from now on."""
        self._closed = True

    async def dial(self, target: Target, where: Sequence[str]) -> Link:
        """A link with `target` at the first of these addresses that leads to it. Bounded. Raises NetError."""

        self._check()

        async def attempt(address: str) -> Link:
            transport = self._transports.get(address.partition(":")[0])
            if transport is None:
                raise NetError("bad_address", f"{address} is of a kind that this node cannot dial.")
            pipe = await transport.dial(address)
            try:
                return await connect(
                    pipe,
                    target,
                    network=self._network,
                    psk=self._psk,
                    clock=self._clock,
                    handler=self._handler,
                    on_tell=self._on_tell,
                    on_aged=self._on_aged,
                )
            except NetError as error:
                if isinstance(error.__cause__, ProtocolError):
                    self._on_refused(error.__cause__.reason, address)
                raise

        link = await dial_first(where, attempt, Link.close)
        try:
            self._check()  # nobody would close it any more
        except NetError:
            await link.close()
            raise
        self._remember(link)
        return link

    def reached(self, node: bytes) -> str:
        """Where a dial found `node` the last time, as Link.remote; empty: none did yet."""
        return self._reached.get(node, "")

    def _remember(self, link: Link) -> None:
        assert link.peer is not None  # who was dialled has proven who it is
        self._reached[link.peer] = link.remote
        self._reached.move_to_end(link.peer)
        if len(self._reached) > MAX_REACHED:
            self._reached.popitem(last=False)

    def _check(self) -> None:
        if self._closed:
            raise NetError("closed", "This node is leaving the network.", "Open infraxa again.")
