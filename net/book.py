"""The address book: where a node may be tried, and who said so. Bounded; the newest word counts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from infraxa.net.addresses import Source
from infraxa.net.sampling import Candidate

MAX_NODES = 512
"""Nodes per source; the one told of longest ago goes first."""


class AddressBook:
    """What the local network, this node's person and earlier runs told of."""

    def __init__(self) -> None:
        self._told: dict[Source, OrderedDict[bytes, tuple[str, ...]]] = {
            "mdns": OrderedDict(),
            "person": OrderedDict(),
            "gossip": OrderedDict(),
        }

    def put(self, node: bytes, addresses: tuple[str, ...], source: Source) -> None:
        """`node` is to be tried there, says `source` (`gossip`: an earlier run, which had it from a card)."""
        told = self._told[source]
        told[node] = addresses
        told.move_to_end(node)
        if len(told) > MAX_NODES:
            told.popitem(last=False)

    def take_away(self, node: bytes, source: Source) -> None:
        self._told[source].pop(node, None)

    def knows(self, node: bytes, source: Source) -> bool:
        return node in self._told[source]

    def of(self, node: bytes) -> Iterator[tuple[str, Source]]:
        """Its addresses, those nearest first."""
        for source, told in self._told.items():
            for address in told.get(node, ()):
                yield address, source

    def candidates(self) -> Iterator[Candidate]:
        """For the overlay to choose from."""
        for source, told in self._told.items():
            for node, addresses in told.items():
                yield Candidate(node, addresses, source, tried=source == "gossip")
