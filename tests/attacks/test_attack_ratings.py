"""Ratings that nobody honest wrote: a ring that praises itself, forgeries, replays, floods."""

from __future__ import annotations

from msgspec.structs import replace

from infraxa.net import codec, rating_gossip, reputation
from infraxa.net.codec import Signed
from infraxa.net.rating_table import RatingLimits
from infraxa.net.ratings import Blank, Filled, day_of
from infraxa.net.records import Record
from infraxa.net.reputation import FULL_AMOUNT, PRIOR_STARS, Counterparty, Evidence, Score
from tests.attacks import report
from tests.attacks.crowd import Victim
from tests.attacks.target import replaced
from tests.net.gossiping import PEER, START_MS, a_card, a_state, node_id, sign

TODAY = day_of(START_MS)
PROVIDER, RIVAL, WITNESS = node_id(1), node_id(2), node_id(3)


def rating(account: int, stars: int, *, provider: bytes = PROVIDER, issuer: bytes = b"") -> Record:
    """With the blank of `issuer`, who says that it is `provider`."""
    writer = node_id(10**6 + account)
    issued = Blank(writer, TODAY, 40, account.to_bytes(16, "big"))
    blank = replace(sign("rating", codec.encode(issued), issuer or provider).signed, signer=provider)
    return sign("rating", codec.encode(Filled(stars, blank)), writer)


def thought_of(victim: Victim, known: dict[bytes, Counterparty]) -> Score:
    ratings = victim.gossip.ratings.table.of(PROVIDER)
    return reputation.score(Evidence(), reputation.weighed(ratings, known), TODAY)


def ring(count: int) -> Victim:
    """A provider serves itself under so many new accounts, and all of them love it; a customer did not."""
    victim = Victim(PEER, WITNESS)
    card = a_card(PROVIDER, START_MS)
    victim.gossip.ratings.table.trust([CUSTOMER])
    victim.tell(WITNESS, (card, a_state(card, START_MS), HONEST))
    for start in range(0, count, 50):
        victim.tell(PEER, (rating(number, 5) for number in range(start, min(start + 50, count))))
        victim.wait(10)
    return victim


HONEST = rating(10**6, 1)
CUSTOMER = HONEST.signed.signer


def test_a_thousand_new_identities_that_praise_their_provider() -> None:
    count = 1000
    known = {CUSTOMER: Counterparty(FULL_AMOUNT)}
    before = thought_of(ring(0), known)
    assert before.stars is not None and before.stars < PRIOR_STARS and before.ratings == 1
    victim = ring(count)
    # A node that hears everybody alike.
    gullible = {one.account: Counterparty(FULL_AMOUNT) for one in victim.gossip.ratings.table.of(PROVIDER)}
    weak = thought_of(victim, gullible)
    assert weak.stars is not None and weak.stars > 4
    ours = thought_of(victim, known)
    assert ours == replace(before, unweighted=ours.unweighted) and ours.unweighted == 63
    report.tell(
        f"ratings: {count} new identities of a provider",
        weakened=f"{weak.stars:.2f} stars instead of {before.stars:.2f}",
        ours=f"{before.stars:.2f} stars, and {ours.unweighted} unweighted",
        cost=f"{victim.checked} signatures",
    )


def test_ratings_that_a_rival_made_up() -> None:
    """Bad ratings of an honest provider, which never served anybody of them."""
    bad = [rating(number, 1, issuer=RIVAL) for number in range(50)]
    found = []
    for gullible in (True, False):
        victim = Victim(PEER, gullible=gullible)
        victim.tell(PEER, bad)
        found.append(len(victim.gossip.ratings.table))
    assert found == [50, 0]
    assert victim.checked == 2 and victim.dropped == [PEER] and victim.refused["bad_signature"] == 1
    report.tell(
        "ratings: of answers that never were", weakened="50 bad ratings",
        ours="none; bad_signature, banned for an hour", cost="2 signatures",
    )  # fmt: skip


def test_a_rating_that_is_changed_copied_or_said_again() -> None:
    signed = HONEST.signed
    said: Filled = codec.decode(signed.body, Filled)
    other = node_id(77)
    better = Signed(codec.encode(Filled(5, said.blank)), signed.signer, signed.signature)
    copied = sign("rating", signed.body, other)
    elsewhere = codec.encode(Filled(1, replace(said.blank, signer=RIVAL)))
    moved = sign("rating", elsewhere, signed.signer)
    for record, reason in (
        (Record("rating", better), "bad_signature"),
        (copied, "not_asked"),
        (moved, "bad_signature"),
    ):
        victim = Victim(PEER)
        victim.tell(PEER, (record,))
        assert victim.refused == {reason: 1} and len(victim.gossip.ratings.table) == 0
    victim = Victim(PEER)
    for _ in range(20):
        victim.tell(PEER, (HONEST,))
    # Another answer of the same day to the same account says no more.
    again = Blank(signed.signer, TODAY, 40, b"another order, x")
    blank = sign("rating", codec.encode(again), PROVIDER).signed
    victim.tell(PEER, (sign("rating", codec.encode(Filled(1, blank)), signed.signer),))
    assert len(victim.gossip.ratings.table) == 1 and victim.checked == 4 and not victim.refused
    report.tell(
        "ratings: changed, copied, said again",
        weakened="as many as are sent",
        ours="refused; one for a provider, an account and a day",
        cost="2 signatures each that is new",
    )


def test_a_flood_of_ratings() -> None:
    count = report.scale(2000, 20_000)
    flood = [rating(number, 5, provider=node_id(number % 500)) for number in range(count)]

    def flooded() -> Victim:
        victim = Victim(PEER, WITNESS)
        for number in range(40):
            card = a_card(node_id(number), START_MS)
            victim.tell(WITNESS, (card, a_state(card, START_MS)))
        before = victim.checked
        victim.tell(PEER, flood)
        victim.wait(1)
        victim.checked -= before
        return victim

    limits = (
        "BYTES_PER_S",
        "BYTES_AT_ONCE",
        "ALL_PER_S",
        "ALL_AT_ONCE",
        "PROVIDER_PER_S",
        "PROVIDER_AT_ONCE",
    )
    with replaced(*((rating_gossip, name, 1e12) for name in limits)):
        weak = flooded()
    assert weak.checked == 2 * count
    ours = flooded()
    assert ours.checked <= 2 * 100 and set(ours.refused) == {"rate"}
    assert ours.sent["rating"] <= 100 < weak.sent["rating"]
    # Cards are taken and handed on all the same.
    card = a_card(node_id(900), START_MS)
    ours.tell(PEER, (card, a_state(card, START_MS)))
    ours.wait(1)
    assert ours.status(node_id(900)) == "online" and ours.sent["card"] > 40
    assert len(weak.gossip.ratings.table) <= RatingLimits().total
    report.tell(
        f"ratings: {count} at once",
        weakened=f"{weak.checked} signatures, {weak.sent['rating']} handed on",
        ours=f"{ours.sent['rating']} handed on; rate",
        cost=f"{ours.checked} signatures",
    )
