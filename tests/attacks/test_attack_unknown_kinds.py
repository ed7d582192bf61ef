"""Kinds of records that nobody here knows are handed on for the future, but are no free way to flood."""

from __future__ import annotations

import os

from infraxa.net import admission
from infraxa.net.admission import MAX_UNKNOWN_SIGNERS, GossipLimits
from infraxa.net.records import Record
from tests.attacks import report
from tests.attacks.crowd import Victim, sybils
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, a_card, a_state, node_id, sign

SIGNER = node_id(1)
OTHERS = [node_id(number) for number in range(100, 106)]
LOOSE = GossipLimits(unknown_per_min=1e12)


def gadget(signer: bytes = SIGNER, size: int = 600, kind: str = "gadget") -> Record:
    return sign(kind, os.urandom(size), signer)


def flooded(count: int, limits: GossipLimits) -> Victim:
    victim = Victim(PEER, *OTHERS, limits=limits)
    card = a_card(SIGNER, START_MS)
    victim.tell(PEER, (card, a_state(card, START_MS)))
    victim.sent_bytes = 0
    for _ in range(count):
        victim.tell(PEER, (gadget(),))
        victim.wait(60 / count)
    return victim


def test_one_signer() -> None:
    count = report.scale(300, 5000)
    weak, ours = flooded(count, LOOSE), flooded(count, GossipLimits())
    assert weak.sent["gadget"] >= count
    # 4 kB at once and 4 kB in the minute, to half of the links
    assert 0 < ours.sent["gadget"] and ours.sent_bytes <= 2 * 4096 * 4 + 1000
    assert ours.checked <= 2 + 2 * 4096 / 600 + 1, "what is too much costs no signature"
    assert ours.refused["rate"] >= count - 20
    report.tell(
        f"unknown kinds: {count:,} records of one signer in a minute",
        weakened=f"{weak.sent_bytes >> 10:,} KiB handed on",
        ours=f"{ours.sent_bytes >> 10} KiB; rate",
        cost=f"{ours.checked} signatures, nothing kept",
    )


def test_signers_that_are_not_there() -> None:
    """Without a live card a signer is nobody: ids are free."""
    victim = Victim(PEER, *OTHERS)
    victim.tell(PEER, [gadget(node_id(number)) for number in range(2000, 2040)])
    assert victim.checked == 0 and not victim.sent
    assert victim.gossip.intake.refused["not_allowed"] == 40
    victim.tell(PEER, sybils(10, 1, live=False))
    victim.tell(PEER, (gadget(node_id(10)),))
    assert not victim.sent["gadget"]


def test_what_is_signed_for_something_else_is_no_unknown_kind() -> None:
    victim = Victim(PEER, *OTHERS)
    card = a_card(SIGNER, START_MS)
    victim.tell(PEER, (card, a_state(card, START_MS)))
    victim.tell(PEER, (gadget(kind="auth"),))
    assert not victim.sent["auth"] and victim.refused["not_allowed"] == 1
    victim.tell(PEER, (gadget(size=3000),))
    assert victim.refused["too_large"] == 1


def remembered(count: int) -> tuple[int, Victim]:
    """How many signers are accounted for after so many that are all there sent something."""
    victim = Victim(PEER, *OTHERS)
    for start in range(0, count, 500):
        made = sybils(10_000 + start, min(500, count - start))
        peer = OTHERS[start // 500 % len(OTHERS)]
        victim.learn(peer, made)
        victim.learn(peer, [gadget(card.signed.signer, 10) for card in made[::2]])
    return len(victim.gossip.intake._admission._unknown), victim


def test_many_signers() -> None:
    count = report.scale(1500, 4000)
    with replaced((admission, "MAX_UNKNOWN_SIGNERS", 10**9)):
        weakened, _ = remembered(count)
    assert weakened == count
    kept, victim = remembered(count)
    assert kept <= MAX_UNKNOWN_SIGNERS and victim.known == count
    assert victim.gossip.intake.refused["rate"] == count - kept
    report.tell(
        f"unknown kinds: {count:,} signers",
        weakened=f"{weakened:,} accounts",
        ours=f"{kept} accounts; rate",
        cost=f"{kept} accounts of one number",
    )
