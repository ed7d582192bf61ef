"""Keys, what they sign, and ids as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net.codec import verify
from infraxa.net.errors import NetError
from infraxa.net.identity import (
    Identity,
    Signer,
    base32,
    display,
    from_base32,
    hkdf,
    id_text,
    parse_id,
    short_id,
)

RECOVERY = bytes(range(32))
ids = st.binary(min_size=32, max_size=32)
quick = settings(deadline=None, max_examples=200)


def test_the_key_is_the_one_of_rfc_8032() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert Identity(seed, RECOVERY).id.hex() == public
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(seed[:31], RECOVERY)


def test_what_it_signs_holds_for_one_purpose_and_one_key() -> None:
    me = Identity(bytes(32), RECOVERY)
    signed = me.sign("card", b"body")
    assert signed.signer == me.id and verify("card", signed)
    assert not verify("state", signed)
    assert not verify("card", type(signed)(b"bodi", signed.signer, signed.signature))
    assert not verify("card", type(signed)(b"body", Signer(RECOVERY).id, signed.signature))


# RFC 5869, A.1 to A.3: SHA-256.
@pytest.mark.parametrize(
    ("key", "salt", "info", "length", "derived"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
    ids=["A.1", "A.2", "A.3"],
)
def test_hkdf_against_rfc_5869(key: str, salt: str, info: str, length: int, derived: str) -> None:
    got = hkdf(bytes.fromhex(key), bytes.fromhex(info), salt=bytes.fromhex(salt), length=length)
    assert got.hex() == derived


def test_hkdf_has_an_end() -> None:
    assert len(hkdf(b"k", b"", length=8160)) == 8160
    with pytest.raises(ValueError, match="8160"):
        hkdf(b"k", b"", length=8161)


@quick
@given(ids, ids, ids)
def test_an_account_key_is_one_per_provider_and_says_nothing_of_the_node(
    seed: bytes, provider: bytes, other: bytes
) -> None:
    me = Identity(seed, RECOVERY)
    account = me.account_key(provider)
    assert account.id == Identity(seed, bytes(32)).account_key(provider).id  # for ever, towards this one
    assert account.id != me.id
    assert (account.id == me.account_key(other).id) == (provider == other)
    assert verify("auth", account.sign("auth", b"x"))


def test_the_account_key_of_every_version_is_this_one() -> None:
    """Tabs and receipts hang on it: it may never become another one."""
    account = Identity(bytes(range(32)), RECOVERY).account_key(bytes(range(32, 64)))
    by_the_book = hkdf(bytes(range(32)), b"infraxa/1/account" + bytes(range(32, 64)))
    assert account.id == Signer(by_the_book).id
    assert account.id.hex() == "8b45ee42488bb446931d4731601eb84213e80bc3421418d01bc7f98df5e795b5"


@given(ids)
@quick
def test_no_text_of_a_key_holds_its_secret(seed: bytes) -> None:
    me = Identity(seed, RECOVERY)
    for text in (repr(me), str(me), f"{me.account_key(seed)}"):
        assert len(text) < 24 and seed.hex()[:12] not in text and repr(seed)[2:-1] not in text


@quick
@given(st.binary(max_size=200))
def test_base32_and_back(data: bytes) -> None:
    text = base32(data)
    assert from_base32(text) == data
    assert set(text) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert len(text) == (len(data) * 8 + 4) // 5
    assert from_base32(text.upper()) == data
    assert from_base32(text.replace("1", "I").replace("0", "O")) == data
    assert from_base32(text.replace("1", "l")) == data


@quick
@given(st.text(max_size=60) | st.text("0123456789abcdefghjkmnpqrstvwxyzILOilou=- ", max_size=60))
def test_base32_reads_only_what_it_writes(text: str) -> None:
    try:
        data = from_base32(text)
    except ValueError:
        return
    meant = text.lower().replace("i", "1").replace("l", "1").replace("o", "0")
    assert base32(data) == meant


def test_base32_is_ascii() -> None:
    assert from_base32("K0") == from_base32("k0") == b"\x98"
    with pytest.raises(ValueError, match="not base32"):
        from_base32("\N{KELVIN SIGN}0")  # of which the small letter is k


def test_base32_is_in_the_order_of_crockford() -> None:
    assert base32(bytes.fromhex("00443214c74254b635cf84653a56d7c675be77df")) == (
        "0123456789abcdefghjkmnpqrstvwxyz"
    )


@quick
@given(ids)
def test_an_id_as_text(node: bytes) -> None:
    text = id_text(node)
    assert len(text) == 52 and parse_id(text) == node and parse_id(text.upper()) == node
    assert text.startswith(short_id(node)) and len(short_id(node)) == 8


@pytest.mark.parametrize(
    "text",
    ["", "0" * 51, "0" * 53, "u" * 52, "z" * 52, "0" * 51 + "1", "é" * 52, "0" * 51 + "=", "0" * 51 + "\n"],
)
def test_what_is_no_id_is_said(text: str) -> None:
    with pytest.raises(NetError, match="not the id of a node") as caught:
        parse_id(text)
    assert caught.value.code == "bad_address" and caught.value.remedy


def test_a_node_as_it_is_shown() -> None:
    node = from_base32("7k2m9x4q" + "0" * 44)
    assert display("maple", node) == "maple·7k2m9x4q"
    assert display("\x1b[2Jma\u202eple·00000000\n", node) == "[2Jmaple00000000·7k2m9x4q"
    assert display("\u200b", node) == "7k2m9x4q"
