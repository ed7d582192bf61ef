"""Which nodes probably have one owner, and in which order the others are asked, by chance. Pure.

In the network the address tells: whoever has one of a group has many. Who says that it is where others are is
asked the more seldom for that; but of who gave the answer nothing counts that it says, else it would choose
who judges it. In a private network the address tells nothing: all machines there are in one group, and only
this node's own dials say who is in it (SeenNode.near). There each node counts as its own; so whoever has many
there is as many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from infraxa.net import addresses
from infraxa.net.errors import NetError
from infraxa.net.status import SeenNode

UNKNOWN: Final = ""
"""The group of those without a public address."""

Lot = Callable[[bytes], bytes]
"""A lot of whatever these bytes stand for, which nobody could know before; the lowest is drawn first."""


class Owner(NamedTuple):
    """What is known of that of a node."""

    groups: frozenset[str] = frozenset({UNKNOWN})
    """Of the public addresses that it and its relays name, and of where it was found."""
    near: bool = False
    """It is reached at an address that says nothing of the owner."""
    found: frozenset[str] = frozenset()
    """That in which a dial from here found it, or the relay that it went through; empty: none did."""


def owners(nodes: Sequence[SeenNode]) -> dict[bytes, Owner]:
    """By node."""
    own = {node.id: _public(node.addresses) for node in nodes}
    found = {}
    for node in nodes:
        proven = frozenset({node.found_in} - {UNKNOWN, addresses.LOCAL})
        groups = own[node.id].union(proven, *(own.get(relay, ()) for relay in node.relays))
        found[node.id] = Owner(frozenset(groups or {UNKNOWN}), node.near, proven)
    return found


def drawn(
    nodes: Collection[bytes], avoided: Collection[bytes], known: Mapping[bytes, Owner], lot: Lot
) -> list[bytes]:
    """Those of `nodes` that are asked, in this order: no two of them, nor of them and `avoided`, seem to have
    one owner. First a group is drawn, then one of its nodes, so that more of them bring no more; who is in
    several groups has the last one's lot. Near ones are each a group where none of `avoided` was found in the
    network."""
    of = {node: known.get(node, Owner()) for node in (*nodes, *avoided)}
    each = bool(avoided) and not any(of[node].found for node in avoided)
    # Of all that were taken, and of those whose address says whose they are.
    taken_far = set[str]().union(*(of[node].found for node in avoided))
    taken = taken_far.union(*(of[node].found or {UNKNOWN} for node in avoided))

    def is_own(node: bytes) -> bool:
        return each and of[node].near

    def take(node: bytes) -> None:
        taken.update(of[node].groups)
        if not is_own(node):
            taken_far.update(of[node].groups)

    def order(node: bytes) -> tuple[bytes, bytes]:
        mine = lot(node)
        if is_own(node):
            return mine, mine
        return max(lot(b"group " + group.encode()) for group in of[node].groups), mine

    chosen = []
    for node in sorted(set(nodes).difference(avoided), key=order):
        if of[node].groups.isdisjoint(taken_far if is_own(node) else taken):
            take(node)
            chosen.append(node)
    return chosen


def _public(told: Iterable[str]) -> set[str]:
    """The groups of public addresses."""
    found = set()
    for text in told:
        with contextlib.suppress(NetError):
            if (ip := addresses.parse(text).ip) is not None:
                found.add(addresses.wide_group(str(ip)))
    return found - {addresses.LOCAL}
