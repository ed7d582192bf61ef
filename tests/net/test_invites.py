from __future__ import annotations

import string
import zlib
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import addresses, identity, invites
from infraxa.net.errors import NetError
from infraxa.net.invites import Invite, decode, encode

HOUR = 3600 * 1000
NOW = 497_222 * HOUR
NODE = bytes(range(32))
HOME = ("ws://192.168.1.20:7741", "ws://[2606:4700:1:2::3]:7741", "ws://[fd12:3456::7]:7741")
PUBLIC = Invite(NODE, HOME[:1], NOW + invites.LIFETIME_MS)
PRIVATE = Invite(NODE, HOME, NOW + invites.LIFETIME_MS, "the lab", bytes(range(100, 132)))

unicast = (
    st.ip_addresses()
    .filter(lambda ip: ip.version == 4 or not ip.ipv4_mapped)
    .map(lambda ip: addresses.at(ip, 7741))
    .filter(lambda address: addresses.may_dial(address, "person"))
)
places = st.one_of(
    st.builds(
        lambda address, port: addresses.format(msgspec.structs.replace(address, port=port)),
        unicast,
        st.sampled_from([443, 1024, 7741, 65535]),
    ),
    st.binary(min_size=32, max_size=32).map(lambda id_: addresses.format(addresses.through(id_))),
)
some_invites = st.builds(
    Invite,
    node=st.binary(min_size=32, max_size=32),
    addresses=st.lists(places, min_size=1, max_size=4).map(tuple),
    expires_ms=st.integers(NOW // HOUR + 1, NOW // HOUR + 10_000).map(lambda hours: hours * HOUR),
    network=st.text(min_size=1, max_size=32).filter(invites._is_name),
    psk=st.none() | st.binary(min_size=32, max_size=32),
)


def refused(text: str) -> str:
    with pytest.raises(NetError) as caught:
        decode(text, NOW)
    assert caught.value.code == "bad_invite"
    assert caught.value.remedy
    return caught.value.message


@given(some_invites)
@settings(deadline=None)
def test_an_invite_comes_back(invite: Invite) -> None:
    text = encode(invite)
    assert decode(text, NOW) == invite
    assert len(text) <= 387


def test_its_length() -> None:
    assert len(encode(PUBLIC)) <= 90
    assert len(encode(PRIVATE)) <= 200


@given(some_invites, st.data())
@settings(deadline=None, max_examples=30)
def test_dashes_spaces_and_capitals_do_not_matter(invite: Invite, data: st.DataObject) -> None:
    text = encode(invite)
    written = ""
    for sign in text:
        sign = {"0": "0oO", "1": "1iIlL"}.get(sign, sign + sign.upper())
        written += data.draw(st.sampled_from(["", "", "", "-", " ", "\n", "\t", "\u00a0"]))
        written += data.draw(st.sampled_from(sign))
    assert decode(f"  `{written}`\n", NOW) == invite


@pytest.mark.parametrize("invite", [PUBLIC, PRIVATE])
def test_every_wrong_sign_is_found(invite: Invite) -> None:
    text = encode(invite)
    alike = {"0": "0oO", "1": "1iIlL"}
    for place, right in enumerate(text):
        for wrong in string.ascii_letters + string.digits + "_.é":
            mistyped = text[:place] + wrong + text[place + 1 :]
            if wrong.lower() == right or wrong in alike.get("1" if right == "i" else right, ""):
                assert decode(mistyped, NOW) == invite
            else:
                refused(mistyped)


@pytest.mark.parametrize("invite", [PUBLIC, PRIVATE])
def test_every_swap_of_neighbours_is_found(invite: Invite) -> None:
    text = encode(invite)
    swaps = 0
    for place in range(3, len(text) - 1):
        swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
        if swapped != text:
            refused(swapped)
            swaps += 1
    assert swaps > len(text) // 2


@given(some_invites, st.data())
@settings(deadline=None, max_examples=60)
def test_a_cut_invite_says_how_much_is_missing(invite: Invite, data: st.DataObject) -> None:
    text = encode(invite)
    left = data.draw(st.integers(6, len(text) - 1))
    missing = len(text) - left
    said = f"{missing} character{'s' * (missing > 1)} missing"
    assert said in refused(text[:left])
    # A part lost in the middle is missing just as well.
    start = data.draw(st.integers(6, len(text) - missing))
    assert said in refused(text[:start] + text[start + missing :])


def test_what_is_wrong_is_said() -> None:
    text = encode(PUBLIC)
    assert "cut off" in refused(text[:5])
    assert "not an invite" in refused("hello")
    assert "not an invite" in refused("")
    assert "not an invite" in refused(text * 20)
    assert "too many" in refused(text + "0")
    assert "holds a sign" in refused(text[:-1] + "u")
    assert "mistyped: its characters" in refused(text[:20] + ("2" if text[20] != "2" else "3") + text[21:])
    assert "newer version" in refused("ix2" + text[3:])


def test_an_expired_invite_says_when_it_ended() -> None:
    text = encode(PUBLIC)
    decode(text, PUBLIC.expires_ms - 1)
    with pytest.raises(NetError) as caught:
        decode(text, PUBLIC.expires_ms + 2 * HOUR)
    assert caught.value.code == "expired"
    assert "2026-09-28 at 14:00 UTC" in caught.value.message


@given(st.text(max_size=300), st.integers(0, 2**53))
@settings(deadline=None, max_examples=300)
def test_no_text_does_more_than_be_refused(text: str, now_ms: int) -> None:
    for tried in (text, "ix1" + text):
        with pytest.raises(NetError):
            decode(tried, now_ms)


def body_of(invite: Invite) -> bytes:
    return identity.from_base32(encode(invite)[6:])[:-4]


@given(
    st.one_of(
        st.binary(max_size=250),
        st.tuples(some_invites.map(body_of), st.integers(0, 40), st.binary(max_size=3)).map(
            lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + len(made[2]) :]
        ),
    )
)
@settings(deadline=None, max_examples=150)
def test_no_bytes_with_a_right_checksum_do_more_than_be_refused(body: bytes) -> None:
    """The checksum stops accidents; whoever computes it may write anything before it."""
    try:
        invite = decode(sealed(body), 0)
    except NetError as error:
        assert error.code in ("bad_invite", "expired")
    else:
        assert decode(encode(invite), 0) == invite


@pytest.mark.parametrize("ip", ["169.254.169.254", "0.0.0.0", "224.0.0.251", "255.255.255.255"])
def test_an_invite_leads_nowhere_that_a_node_must_not_go(ip: str) -> None:
    place = addresses.format(addresses.at(ip_address(ip), 7741))
    with pytest.raises(NetError):
        encode(Invite(NODE, (place,), NOW + HOUR))
    good = body_of(Invite(NODE, ("ws://8.8.8.8:7741",), NOW + HOUR))
    refused(sealed(good.replace(bytes((8, 8, 8, 8)), ip_address(ip).packed)))


def test_a_network_whose_name_would_play_tricks_is_refused() -> None:
    for name in ("", " lab", "a\x1b[31m", "a\u202eb", "x" * 33):
        with pytest.raises(NetError):
            encode(Invite(NODE, HOME, NOW + HOUR, name))
    body = body_of(Invite(NODE, HOME, NOW + HOUR, "abcdefg"))
    assert body.endswith(b"abcdefg")
    for bad in (b"a\x1b[31mz", b"ab\xe2\x80\xaez", b"abcdef ", b"abcde\xff\xff"):
        refused(sealed(body[:-7] + bad))


def sealed(body: bytes) -> str:
    """The invite that holds `body`, whatever that is, with a right checksum."""
    whole = body + zlib.crc32(body).to_bytes(4, "little")
    return "ix1" + invites._header(len(whole)) + identity.base32(whole)


def test_a_node_without_an_address_invites_nobody() -> None:
    with pytest.raises(NetError) as caught:
        encode(Invite(NODE, (), NOW + HOUR))
    assert caught.value.code == "no_interface"
