"""Whom to try and whom to tell others of, after somebody filled the table with its own."""

from __future__ import annotations

import random
from collections import Counter

from infraxa.net import codec, sampling
from infraxa.net.records import Record
from infraxa.net.sampling import Candidate
from infraxa.net.table import Table
from infraxa.net.wire import MAX_PEERS_TOLD, Push
from tests.attacks import report
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, a_card, a_state, node_id

ASKER = node_id(99)
HONEST = [node_id(1000 + number) for number in range(40)]


def by_card(table: Table, me: bytes, count: int, rng: random.Random, now: float) -> list[Candidate]:
    """Each card is as good as another."""
    entries = rng.sample(list(table.entries.values()), count)
    return [Candidate(entry.id, (f"ws://{entry.group}",)) for entry in entries if entry.card.records]


def poisoned(made_up: int) -> Victim:
    """Knows forty honest nodes, of which it has spoken to ten, and many in four networks of a liar."""
    victim = Victim(PEER)
    for number, node in enumerate(HONEST):
        card = a_card(node, victim.now_ms, f"h{number}", addresses=(f"ws://{20 + number}.1.1.1:7741",))
        victim.learn(ASKER, (card, a_state(card, victim.now_ms)))
    for node in HONEST[:10]:
        victim.gossip.contacted(node)
    victim.learn(PEER, sybils(100_000, made_up))
    return victim


def sampled(made_up: int) -> float:
    """The share of made-up nodes among those that are tried."""
    victim = poisoned(made_up)
    found: Counter[bool] = Counter()
    for _ in range(20):
        found.update(one.node not in HONEST for one in victim.gossip.candidates(victim.now, 40))
    return found[True] / found.total()


def test_whom_to_dial() -> None:
    made_up = 1000
    with replaced((sampling, "candidates", by_card)):
        weakened = sampled(made_up)
    ours = sampled(made_up)
    assert weakened > 0.9 and ours <= 4 / 40
    report.tell(
        f"peer exchange: {made_up:,} ids in 4 networks, 40 honest nodes",
        weakened=f"{weakened:.0%} of those tried are made up",
        ours=f"{ours:.0%}",
        cost="1024 places of 8192",
    )


def told(victim: Victim) -> list[Record]:
    return list(victim.gossip.peers_told(ASKER, 10**6, victim.now).records)


def test_whom_others_are_told_of() -> None:
    """Those that were spoken to come first; nobody else's poison is handed on."""
    victim = poisoned(1000)
    records = told(victim)
    assert len(records) <= MAX_PEERS_TOLD
    assert len(codec.encode(Push(tuple(records)))) <= codec.MAX_MESSAGE
    assert {one.signed.signer for one in records[:10]} == set(HONEST[:10])
    made_up = sum(one.signed.signer not in HONEST for one in records)
    assert made_up <= MAX_PEERS_TOLD - 10
    for entry in victim.gossip.table.entries.values():
        entry.contacted = False  # as of one that cannot tell them apart
    weakened = sum(one.signed.signer not in HONEST for one in told(victim))
    assert weakened > made_up
    report.tell(
        "peer exchange: whom others are told of",
        weakened=f"{weakened} of {MAX_PEERS_TOLD} made up",
        ours=f"{made_up} of {MAX_PEERS_TOLD}, after those spoken to",
        cost=f"{MAX_PEERS_TOLD} cards an answer",
    )


def test_an_answer_is_judged_like_any_other_news() -> None:
    """Cards that were asked for are verified, of this network, and not from the future."""
    victim = Victim(PEER)
    good = a_card(HONEST[0], victim.now_ms)
    victim.learn(PEER, [a_card(HONEST[1], victim.now_ms + 700_000), good])
    assert victim.known == 1 and victim.refused["stale"] == 1
    forged = Record("card", codec.Signed(good.signed.body, HONEST[2], bytes(64)))
    victim.learn(PEER, [forged, a_card(HONEST[3], victim.now_ms)])
    assert victim.known == 1 and victim.dropped == [PEER]
