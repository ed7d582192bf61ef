"""A sealed stream comes back as it was, or not at all."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.net import sealing
from infraxa.net.errors import NetError
from infraxa.net.sealing import CHUNK, MARK, Sealer, Unsealer

SIZES = st.one_of(
    st.integers(0, 200), st.integers(CHUNK - 2, CHUNK + 2), st.integers(2 * CHUNK - 2, 2 * CHUNK + 2)
)


@pytest.fixture(autouse=True, scope="module")
def _quick() -> object:
    """Stretching is keyfile's, and slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "stretched", lambda word, salt: hashlib.sha256(word.encode() + salt).digest())
        yield


def sealed(data: bytes, piece: int = CHUNK) -> bytes:
    out = io.BytesIO()
    sealer = Sealer(out, "word")
    for start in range(0, len(data), piece):
        sealer.write(data[start : start + piece])
    sealer.close()
    return out.getvalue()


def unsealed(text: bytes, piece: int = CHUNK, word: str = "word") -> bytes:
    source = io.BytesIO(text)
    assert source.read(len(MARK)) == MARK
    unsealer = Unsealer(source, word)
    return b"".join(iter(lambda: unsealer.read(piece), b""))


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1000, 3 * CHUNK), st.integers(1000, 3 * CHUNK))
def test_it_comes_back_as_it_was(size: int, written: int, read: int) -> None:
    data = hashlib.shake_256(b"x").digest(size)
    assert unsealed(sealed(data, written), read) == data


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_any_change_is_seen(size: int, chosen: st.DataObject) -> None:
    text = sealed(bytes(size))
    at = chosen.draw(st.integers(len(MARK), len(text) - 1))
    changed = bytearray(text)
    changed[at] ^= 1 << chosen.draw(st.integers(0, 7))
    for bad in (bytes(changed), text[:at], text + b"\x00"):
        with pytest.raises(NetError):
            unsealed(bad)


def test_chunks_cannot_be_swapped_dropped_or_be_the_end() -> None:
    text = sealed(bytes(range(256)) * (4 * CHUNK // 256))
    head, size = len(MARK) + 16 + 24, CHUNK + 17
    chunks = [text[at : at + size] for at in range(head, len(text), size)]
    assert len(chunks) == 4
    for order in ([1, 0, 2, 3], [0, 2, 3], [0, 1, 2], [0, 1, 1, 2, 3], [3]):
        with pytest.raises(NetError):
            unsealed(text[:head] + b"".join(chunks[number] for number in order))


def test_a_wrong_passphrase_is_told_from_damage_further_on() -> None:
    text = sealed(bytes(3 * CHUNK))
    with pytest.raises(NetError) as wrong:
        unsealed(text, word="other")
    assert wrong.value.code == "locked_key"
    with pytest.raises(NetError) as damaged:
        unsealed(text[:-1])
    assert damaged.value.code == "bad_backup"
