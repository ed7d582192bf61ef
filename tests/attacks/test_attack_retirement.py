"""Taking somebody's key out of use, or its place, without the recovery key; keeping the owner from it."""

from __future__ import annotations

import hashlib

import pytest

from infraxa.net import gossip
from infraxa.net.admission import GossipLimits
from infraxa.net.records import Record, Revoke, Successor
from infraxa.net.table import Merged, Table, TableLimits
from tests.attacks import report
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, a_card, a_revoke, a_state, a_successor, node_id

HONEST, WITNESS = node_id(1), node_id(2)
THIEF = b"T" * 32


class AnyKey(Table):
    """Believes whoever says that a key is not to be trusted any more."""

    def _retire(self, record: Record, value: Successor | Revoke, now_ms: int) -> Merged:
        if value.node in self.entries:
            self.entries[value.node].recovery = hashlib.sha256(record.signed.signer).digest()
        return super()._retire(record, value, now_ms)


FORGERIES = {
    "a revoke": a_revoke(HONEST, START_MS + 1, THIEF),
    "a successor": a_successor(HONEST, THIEF, START_MS + 1, THIEF),
    "a revoke by its own node key": a_revoke(HONEST, START_MS + 1, HONEST),
}


def after(forgery: Record) -> Victim:
    card = a_card(HONEST, START_MS)
    victim = Victim(PEER, WITNESS)
    victim.tell(WITNESS, (card, a_state(card, START_MS)))
    victim.tell(PEER, (forgery,))
    return victim


@pytest.mark.parametrize("what", FORGERIES)
def test_another_key(what: str) -> None:
    with replaced((gossip, "Table", AnyKey)):
        weak = after(FORGERIES[what])
        assert weak.status(HONEST) == ""
    ours = after(FORGERIES[what])
    assert ours.status(HONEST) == "online" and ours.gossip.successor(HONEST) is None
    assert ours.refused["not_allowed"] == 1 and not ours.sent["revoke"] and not ours.sent["successor"]
    report.tell(
        f"retirement: {what} of another key",
        weakened="the node is gone for good",
        ours="shown as before; not_allowed",
        cost="one signature",
    )


def test_a_card_does_not_change_its_recovery_key() -> None:
    """A thief of the node key alone cannot make itself the one who may revoke it."""
    victim = after(a_card(HONEST, START_MS + 1, recovery=THIEF))
    assert victim.refused["not_allowed"] == 1
    victim.tell(PEER, (a_revoke(HONEST, START_MS + 2, THIEF),))
    assert victim.status(HONEST) == "online"
    victim.tell(WITNESS, (a_revoke(HONEST, START_MS + 2),))
    assert victim.status(HONEST) == ""


class FirstCome(Table):
    """Has so many places for retired nodes, and no more."""

    def _room_for_retired(self, introducer: bytes) -> bool:
        return sum(map(len, self._retired.values())) < self._limits.retired


def revoked(places: int, peers: int) -> tuple[bool, Victim]:
    """Whether an owner can still take a stolen key out of use after hostile peers retired their own nodes."""
    limits = GossipLimits(table=TableLimits(cards=8 * places, per_introducer=places, retired=places))
    hostile = [node_id(3_000_000 + number) for number in range(peers)]
    card = a_card(HONEST, START_MS)
    victim = Victim(PEER, WITNESS, *hostile, limits=limits)
    victim.learn(WITNESS, (card, a_state(card, START_MS)))
    for number, peer in enumerate(hostile):
        made = sybils(10_000 * (number + 1), 2 * places // peers, live=False)
        victim.learn(peer, made)
        victim.learn(peer, [a_revoke(one.signed.signer, START_MS + 1) for one in made])
    victim.learn(WITNESS, (a_revoke(HONEST, START_MS + 1),))
    return victim.gossip.table.entries[HONEST].retired is not None, victim


@pytest.mark.parametrize("peers", [2, 16])
def test_places_for_retired_nodes_taken_by_made_up_ones(peers: int) -> None:
    places = report.scale(64, 1024)
    with replaced((gossip, "Table", FirstCome)):
        assert not revoked(places, peers)[0]
    done, victim = revoked(places, peers)
    assert done and victim.gossip.card(HONEST) is None
    table = victim.gossip.table
    assert sum(map(len, table._retired.values())) <= places
    assert sum(entry.retired is not None for entry in table.entries.values()) <= places
    for peer in range(peers):  # and it stays so
        made = sybils(500_000 * (peer + 1), places, live=False)
        victim.learn(node_id(3_000_000 + peer), made)
        victim.learn(node_id(3_000_000 + peer), [a_revoke(one.signed.signer, START_MS) for one in made])
    assert table.entries[HONEST].retired is not None
    report.tell(
        f"retirement: {peers} peers revoke {2 * places:,} nodes of their own",
        weakened="the owner of a stolen key cannot revoke it",
        ours="it can; full",
        cost=f"{places:,} places",
    )


def test_whoever_is_not_known_cannot_be_retired() -> None:
    """A flood of revokes for nobody leaves nothing behind."""
    victim = Victim(PEER)
    victim.tell(PEER, [a_revoke(node_id(number), START_MS) for number in range(40)])
    assert victim.known == 0 and victim.gossip.intake.refused["not_asked"] == 40
