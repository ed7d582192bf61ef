"""Genuine records at the wrong time or place: replayed later, numbered ahead, passed off as one's own."""

from __future__ import annotations

from infraxa.net import codec, entries, gossip, table
from infraxa.net.entries import Claim
from infraxa.net.records import MAX_CLOCK_AHEAD_MS, PriceNow, Record
from infraxa.net.table import Table
from tests.attacks import report
from tests.attacks.crowd import Victim
from tests.attacks.target import replaced
from tests.net.gossiping import NETWORK, PEER, START_MS, a_card, a_state, node_id, sign

HONEST, WITNESS = node_id(1), node_id(2)


class Newest(Claim):
    """Believes whatever came last."""

    def merge(self, seq: int, record: Record, digest: bytes) -> str:  # type: ignore[override]
        self.seq = -1
        return super().merge(seq, record, digest)


def price_after_replay() -> tuple[int, Victim]:
    card = a_card(HONEST, START_MS)
    cheap, dear = (
        a_state(card, START_MS + number, prices=(PriceNow(0, price, price),))
        for number, price in ((0, 1), (1000, 500))
    )
    victim = Victim(PEER, WITNESS)
    victim.tell(WITNESS, (card, dear))
    victim.tell(PEER, (cheap,))
    return victim.gossip.nodes(victim.now)[0].prices[0].price_in, victim


def test_an_old_price_does_not_come_back() -> None:
    with replaced((entries, "Claim", Newest)):
        weakened, _ = price_after_replay()
    ours, victim = price_after_replay()
    assert (weakened, ours) == (1, 500)
    assert victim.refused["stale"] >= 1 and not victim.dropped
    report.tell(
        "stale: an old price is told again",
        weakened="the old price is shown",
        ours="the new one; stale",
        cost="one signature",
    )


def locked_out(ahead_ms: int) -> tuple[str, Victim]:
    """A key was in other hands for a moment: what is shown of its owner, who says that it is busy."""
    card = a_card(HONEST, START_MS)
    victim = Victim(PEER, WITNESS)
    victim.tell(PEER, (card, a_state(card, START_MS + ahead_ms, "offline")))
    victim.wait(5)
    victim.tell(WITNESS, (card, a_state(card, victim.now_ms, "busy")))
    return victim.status(HONEST), victim


def test_a_number_from_the_future_locks_nobody_out() -> None:
    ahead = MAX_CLOCK_AHEAD_MS + 1000
    with replaced((table, "MAX_CLOCK_AHEAD_MS", 2**62)):
        assert locked_out(ahead)[0] == "offline"
        assert locked_out(2**61)[0] == "offline"
    for number in (ahead, 2**61):
        shown, victim = locked_out(number)
        assert shown == "busy" and victim.refused["stale"] == 1
    report.tell(
        "stale: a number from the future",
        weakened="its owner is not heard any more",
        ours="its owner is heard; stale",
        cost="one signature",
    )


def test_a_body_that_another_key_signs_again_is_another_node() -> None:
    """A card says nothing of its id: whoever signs somebody's card gets a card of its own, and no more. Who
    dials by it looks for the thief's id at the honest node's door, where the handshake fails: it binds both.
    """
    real = a_card(HONEST, START_MS, "maple")
    stolen = sign("card", real.signed.body, PEER)
    victim = Victim(PEER, WITNESS)
    victim.tell(WITNESS, (real, a_state(real, START_MS)))
    victim.tell(PEER, (stolen, a_state(stolen, START_MS, "offline")))
    assert victim.status(HONEST) == "online" and victim.status(PEER) == "offline"
    (thief,) = (seen for seen in victim.gossip.nodes(victim.now) if seen.id == PEER)
    assert thief.same_name_as == HONEST


def from_elsewhere(card: Record) -> Victim:
    victim = Victim(PEER)
    victim.tell(PEER, (card, a_state(card, START_MS)))
    return victim


class Everywhere(Table):
    """Takes cards of any network."""

    def _merge_card(self, record, card, introducer, now, now_ms):  # type: ignore[no-untyped-def]
        self._network = card.network
        return super()._merge_card(record, card, introducer, now, now_ms)


def test_a_card_of_another_network() -> None:
    foreign = a_card(HONEST, START_MS, network=codec.network_id("elsewhere"))
    with replaced((gossip, "Table", Everywhere)):
        assert from_elsewhere(foreign).status(HONEST) == "online"
    ours = from_elsewhere(foreign)
    assert ours.status(HONEST) == "" and ours.refused["network"] == 1 and not ours.sent
    assert from_elsewhere(a_card(HONEST, START_MS, version=2)).refused["version"] == 1
    assert from_elsewhere(a_card(HONEST, START_MS, network=NETWORK)).status(HONEST) == "online"
    report.tell(
        "stale: a card of another network",
        weakened="listed",
        ours="not listed; network",
        cost="one signature",
    )
