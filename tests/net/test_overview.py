"""What screens are shown: what it costs when nothing changed, and what it says of who is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from infraxa.net import overview, sampling
from infraxa.net.entries import Entry
from infraxa.net.gossip import Gossip
from infraxa.net.identity import base32
from infraxa.net.peering import Heard
from infraxa.net.reach import Decision
from infraxa.net.records import Card
from infraxa.net.status import Activity, Notice
from tests.net.gossiping import PEER, START, START_MS, a_card, a_state, linked_gossip, node_id
from tests.net.nodes import until
from tests.net.test_gossip import tell
from tests.net.test_network import village


def known(count: int) -> Gossip:
    gossip = linked_gossip()
    for number in range(1, count + 1):
        add(gossip, number)
    return gossip


def add(gossip: Gossip, number: int, after: int = 0) -> None:
    card = a_card(node_id(number), START_MS + after, f"node {number} {after}")
    assert tell(gossip, card, a_state(card, START_MS + after), after=after / 1000) == []


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Card | None]:
    """Each card that was decoded."""
    found: list[Card | None] = []
    card_of = sampling.card_of

    def counted(entry: Entry) -> Card | None:
        found.append(card_of(entry))
        return found[-1]

    monkeypatch.setattr(sampling, "card_of", counted)
    return found


def test_a_card_is_decoded_once_for_a_screen_that_asks_again(decoded: list[Card | None]) -> None:
    gossip = known(20)
    first = gossip.nodes(START)
    assert len(first) == len(decoded) == 20
    assert gossip.nodes(START) == first and len(decoded) == 20
    add(gossip, 7, after=10)
    again = {seen.id: seen.name for seen in gossip.nodes(START)}
    assert again[node_id(7)] == "node 7 10" and len(decoded) == 21
    gossip.table.forget(gossip.table.entries[node_id(7)])
    gossip.nodes(START)
    add(gossip, 7, after=20)
    gossip.nodes(START)
    assert len(decoded) == 22


def test_so_many_decoded_cards_are_kept(monkeypatch: pytest.MonkeyPatch, decoded: list[Card | None]) -> None:
    monkeypatch.setattr(sampling, "MAX_DECODED", 5)
    gossip = known(20)
    for _ in range(2):
        assert len(gossip.nodes(START)) == 20
    assert len(decoded) == 20 + 15


def test_who_is_there_is_counted_without_a_card_decoded(decoded: list[Card | None]) -> None:
    gossip = known(20)
    own = a_card(node_id(0), START_MS)
    gossip.publish(own, START, START_MS)
    gossip.publish(a_state(own, START_MS + 1), START, START_MS)
    leaving = a_state(a_card(node_id(3), START_MS, "node 3 0"), START_MS + 1, "offline")
    assert tell(gossip, leaving) == []
    assert gossip.live(START) == 19
    assert gossip.live(START + 96) == 0
    assert not decoded
    assert gossip.live(START) == sum(
        seen.status != "offline" for seen in gossip.nodes(START) if seen.id != node_id(0)
    )
    assert PEER not in {seen.id for seen in gossip.nodes(START)}


async def test_the_status_decodes_no_cards(decoded: list[Card | None]) -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.net.status.known == birch.net.status.known == 1)
        decoded.clear()
        assert oak.net.status.known == 1
        assert not decoded


async def test_a_watched_node_that_is_silent_and_no_peer_is_not_there() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "online")
        oak.net._health.silent[birch.id] = float("inf")
        assert oak.sees(birch) == "online"
        peer = oak.net._peering.peer(birch.id)
        assert peer is not None
        oak.net._finder.look = lambda: None  # type: ignore[method-assign]
        birch.net._finder.look = lambda: None  # type: ignore[method-assign]
        await peer.link.close()
        await until(lambda: oak.sees(birch) == "offline")
        oak.net._health.silent[birch.id] = float("-inf")
        assert oak.sees(birch) == "online"  # there were news of it since
        assert [seen.via for seen in oak.net.nodes()] == ["invite"]
        oak.net._finder.book.put(birch.id, birch.where, "mdns")
        assert [seen.via for seen in oak.net.nodes()] == ["lan"]


NODE, RELAY, OTHER = node_id(1), node_id(2), node_id(3)
RELAYED = f"relay:{base32(RELAY)}"


def fault(
    remote: str = "", *, heard: tuple[Heard, ...] = (), relays: tuple[bytes, ...] = (), direct: str = ""
) -> str:
    """Who is to blame for a link with NODE at `remote` that was last heard 15 s ago; for none without it."""
    found: Any = SimpleNamespace(
        direct=lambda node: [direct] if direct else [],
        relays_of=lambda node: relays,
        carrier=lambda relay: SimpleNamespace(heard_at=START) if relay == OTHER else None,
        heard=lambda: heard,
    )
    silent: Any = SimpleNamespace(remote=remote, heard_at=START - 15) if remote else None
    return overview.find_fault(NODE, silent, found, found, networked=True, now=START)


def test_only_those_count_who_say_something_about_the_way() -> None:
    silent = Heard(OTHER, "9.9.9.9", START - 20)
    assert fault("8.8.8.8", heard=(silent,)) == fault(direct="ws://8.8.8.8:7741", heard=(silent,)) == "own"
    near = Heard(None, "192.168.1.7", START)
    assert fault("8.8.8.8", heard=(silent, near)) == "own", "the local network is not the way there"
    assert fault("192.168.1.8", heard=(silent, near)) == "peer"
    itself = Heard(NODE, "8.8.8.8", START - 20)
    assert fault("8.8.8.8", heard=(itself,)) == "peer", "its other link falls silent with it"


def test_a_relay_is_to_blame_when_no_link_with_it_works() -> None:
    carrier = Heard(RELAY, "7.7.7.7", START - 20)
    assert fault(RELAYED, heard=(carrier,)) == "relay", "and its own silence is nobody else's"
    assert fault(heard=(carrier,), relays=(RELAY,)) == "relay"
    assert fault(heard=(carrier,), relays=(RELAY, OTHER)) == "peer", "the other relay was there"
    assert fault(direct="ws://8.8.8.8:7741", relays=(RELAY,)) == "peer", "it has another way"


@pytest.mark.parametrize(
    ("given", "peers", "may_publish", "shown"),
    [
        ("online", 1, True, "online"),
        ("online", 0, True, "alone"),
        ("online", 1, False, "blocked"),
        ("closing", 0, False, "closing"),
    ],
)
def test_what_a_node_is_doing(given: Activity, peers: int, may_publish: bool, shown: str) -> None:
    assert overview.activity(given, peers, may_publish=may_publish) == shown


def test_notices_of_all_parts_come_together() -> None:
    own, other = Notice("a", "A."), Notice("b", "B.")
    hidden = Decision("unreachable", "Nobody reaches it.", "Map a port.")
    assert overview.notices([own], [None, other], hidden) == [
        own,
        other,
        Notice("unreachable", "Nobody reaches it.", "Map a port."),
    ]
    assert overview.notices([own], [], Decision("reachable", "It is.")) == [own]
