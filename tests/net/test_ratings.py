"""A rating is of who was served and of nobody else: what is made, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.net import codec, deals
from infraxa.net.codec import Signed
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Identity, Signer
from infraxa.net.ratings import (
    DAY_MS,
    DAYS_AHEAD,
    KEPT_DAYS,
    MAX_RATING,
    Blank,
    Filled,
    blank,
    check,
    day_of,
    filled,
)
from infraxa.net.records import Record

DAY = 20_000
ORDER = b"o" * 16
PROVIDER, OTHER = Signer(b"p" * 32), Signer(b"q" * 32)
USER = Identity(b"u" * 32, b"r" * 32)
ACCOUNT = USER.account_key(PROVIDER.id)
BLANK = blank(PROVIDER, ACCOUNT.id, DAY, 300, ORDER)
RATING = filled(ACCOUNT, BLANK, 4)


def reason(signed: Signed, day: int = DAY) -> str:
    with pytest.raises(ProtocolError) as refused:
        check(signed, day)
    return refused.value.reason


def linked(**other: bytes) -> Signed:
    values = {"node": USER.id, "account": ACCOUNT.id, "provider": PROVIDER.id, **other}
    return deals.sign(deals.Linked(**values), USER)


def test_a_rating_says_who_served_whom_when_and_for_how_much_about() -> None:
    found = check(RATING, DAY)
    assert (found.provider, found.account, found.stars, found.day) == (PROVIDER.id, ACCOUNT.id, 4, DAY)
    assert found.node == b"" and found.amount == 256
    assert ORDER not in RATING.body and len(found.order) == 16
    other = check(filled(ACCOUNT, blank(PROVIDER, ACCOUNT.id, DAY, 300, b"x" * 16), 4), DAY)
    assert other.order != found.order
    assert day_of(DAY * DAY_MS) == day_of((DAY + 1) * DAY_MS - 1) == DAY


@settings(deadline=None, max_examples=50)
@given(charge=st.integers(0, 2**62))
def test_the_amount_is_within_a_factor_of_two_and_never_more_than_was_charged(charge: int) -> None:
    amount = check(filled(ACCOUNT, blank(PROVIDER, ACCOUNT.id, DAY, charge, ORDER), 1), DAY).amount
    assert amount <= charge and (2 * amount > charge or charge == 0)


def test_a_person_may_say_which_node_it_is() -> None:
    named = filled(ACCOUNT, BLANK, 5, linked())
    assert check(named, DAY).node == USER.id
    assert len(codec.encode(Record("rating", named))) <= MAX_RATING, "signed, it is still less"


@pytest.mark.parametrize("wrong", ["node", "account", "provider"])
def test_nobody_says_that_it_is_somebody_else(wrong: str) -> None:
    assert reason(filled(ACCOUNT, BLANK, 5, linked(**{wrong: b"z" * 32}))) == "not_asked"


def test_a_link_that_another_key_signed_is_refused() -> None:
    body = codec.encode(deals.Linked(USER.id, ACCOUNT.id, PROVIDER.id))
    forged = replace(OTHER.sign("link", body), signer=USER.id)
    assert reason(filled(ACCOUNT, BLANK, 5, forged)) == "bad_signature"


def test_only_who_was_served_can_rate() -> None:
    with pytest.raises(ProtocolError):
        filled(OTHER, BLANK, 5)
    foreign = OTHER.sign("rating", codec.encode(Filled(5, BLANK)))
    assert reason(foreign) == "not_asked"
    assert reason(replace(foreign, signer=ACCOUNT.id)) == "bad_signature"


def test_the_provider_can_write_no_rating_of_an_account_and_change_none() -> None:
    body = codec.encode(Filled(5, BLANK))
    assert reason(replace(PROVIDER.sign("rating", body), signer=ACCOUNT.id)) == "bad_signature"
    assert reason(PROVIDER.sign("rating", body)) == "not_asked"
    itself = blank(PROVIDER, PROVIDER.id, DAY, 300, ORDER)
    assert reason(filled(PROVIDER, itself, 5)) == "not_allowed"


def test_without_the_providers_blank_there_is_no_rating() -> None:
    for values in (
        Blank(ACCOUNT.id, DAY, 60, b"o" * 16),
        Blank(ACCOUNT.id, DAY + 1, 9, b"o" * 16),
    ):
        forged = replace(BLANK, body=codec.encode(values))
        assert reason(filled(ACCOUNT, forged, 5)) == "bad_signature"
    other = replace(BLANK, signer=OTHER.id)
    assert reason(filled(ACCOUNT, other, 1)) == "bad_signature"


def test_a_blank_is_no_rating_and_a_rating_no_blank() -> None:
    # Both are signed for the same purpose.
    own = Signer(b"s" * 32)
    as_rating = own.sign("rating", BLANK.body)
    assert reason(as_rating) == "malformed"
    as_blank = ACCOUNT.sign("rating", codec.encode(Filled(5, replace(RATING, signer=OTHER.id))))
    assert reason(as_blank) == "malformed"
    receipt = ACCOUNT.sign("countersign", RATING.body)
    assert reason(receipt) == "bad_signature"


def test_days_are_within_bounds() -> None:
    assert check(RATING, DAY + KEPT_DAYS).day == check(RATING, DAY - DAYS_AHEAD).day == DAY
    assert reason(RATING, DAY + KEPT_DAYS + 1) == reason(RATING, DAY - DAYS_AHEAD - 1) == "stale"


def test_stars_are_one_to_five() -> None:
    for stars in (0, 6, -1):
        with pytest.raises(ValueError, match="one to five"):
            filled(ACCOUNT, BLANK, stars)
        body = codec.encode(Filled(stars, BLANK))
        assert reason(ACCOUNT.sign("rating", body)) == "malformed"


def test_a_large_one_is_refused_before_it_is_looked_at() -> None:
    assert reason(ACCOUNT.sign("rating", bytes(MAX_RATING + 1))) == "too_large"


@settings(deadline=None, max_examples=200)
@given(
    place=st.integers(0, 10**6), bit=st.integers(0, 7), part=st.sampled_from(["body", "signature", "signer"])
)
def test_no_bit_can_be_changed(place: int, bit: int, part: str) -> None:
    whole = bytearray(getattr(RATING, part))
    whole[place % len(whole)] ^= 1 << bit
    assert reason(replace(RATING, **{part: bytes(whole)}))


@settings(deadline=None, max_examples=200)
@given(body=st.binary(max_size=MAX_RATING))
def test_whatever_an_account_signs_is_read_or_refused(body: bytes) -> None:
    assert reason(ACCOUNT.sign("rating", body))
