"""Invites: one line of text that leads one person's node to another's. Pure; nothing here dials.

`ix1` + three signs (how many bytes follow, and a check of that) + Crockford base32 of those bytes. The bytes:

    flags u8 | id 32 | expiry u32, hours since the epoch | addresses | name of the network | psk 32 | CRC-32

An address is its kind (u8: 4, 6 or relay; +16 when its port follows, else 7741) and 4, 16 or 32 bytes; the
flags say how many there are and whether a name and a psk follow. The count at the beginning tells an invite
of which a part is missing from one that was mistyped. A CRC-32, its low byte first, finds every burst of up
to 32 bits: each single wrong sign and each swap of neighbours, with certainty.

Dashes, spaces, line ends and capitals do not matter. Whoever holds an invite to a private network can join
that network.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NoReturn

from msgspec import Struct

from infraxa.net import addresses
from infraxa.net.addresses import Address
from infraxa.net.errors import NetError
from infraxa.net.identity import base32, from_base32

LIFETIME_MS: Final = 7 * 24 * 3600 * 1000
MAX_ADDRESSES: Final = 4
MAX_NAME: Final = 32
"""Bytes of a network's name."""
MAX_TEXT: Final = 1024
"""Characters that are looked at; an invite has 80 to 200, at most 387."""
PUBLIC: Final = "public"

_HOUR_MS: Final = 3600 * 1000
_NAMED, _KEYED = 8, 16  # flags; the lowest three bits count the addresses
_WITH_PORT: Final = 16
_KINDS: Final = {4: 4, 6: 16, 0: 32}
_HEADER: Final = 3
_SIGNS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LOOK_ALIKE: Final = str.maketrans("ilo", "110")
_AROUND: Final = frozenset(" -\t\r\n\v\f\u00a0\u2010\u2011\u200b\ufeff'\"`<>")


class Invite(Struct, frozen=True):
    """The way to a node."""

    node: bytes
    """Its id, 32 bytes: whoever answers at an address must prove it."""
    addresses: tuple[str, ...]
    """1 to MAX_ADDRESSES, the best first."""
    expires_ms: int
    """Milliseconds since the epoch; written to the full hour, rounded up."""
    network: str = PUBLIC
    psk: bytes | None = None
    """32 bytes that all nodes of a private network share."""


def encode(invite: Invite) -> str:
    """`invite` as text. Raises NetError `no_interface` without an address, `bad_invite` for a network's name
    that is too long."""
    places = [addresses.parse(text) for text in invite.addresses]
    name = b"" if invite.network == PUBLIC else invite.network.encode()
    if not places or not all(addresses.may_dial(place, "person") for place in places):
        raise NetError(
            "no_interface",
            "Nobody can be invited: this node has no address that others could dial.",
            "`infraxa doctor` shows the network cards of this machine.",
        )
    if not _is_name(invite.network):
        raise NetError(
            "bad_invite",
            f"The network's name does not fit in an invite: it may have {MAX_NAME} bytes.",
            "Give the network a shorter name.",
        )
    if len(invite.node) != 32 or len(invite.psk or bytes(32)) != 32 or len(places) > MAX_ADDRESSES:
        raise ValueError("a node id and a psk have 32 bytes, an invite has at most 4 addresses")
    flags = len(places) | (_NAMED if name else 0) | (_KEYED if invite.psk else 0)
    hours = -(-invite.expires_ms // _HOUR_MS)
    body = bytes((flags,)) + invite.node + hours.to_bytes(4) + b"".join(map(_packed, places))
    if name:
        body += bytes((len(name),)) + name
    body += invite.psk or b""
    body += zlib.crc32(body).to_bytes(4, "little")
    return "ix1" + _header(len(body)) + base32(body)


def decode(text: str, now_ms: int) -> Invite:
    """What `text` invites to. Raises NetError `bad_invite`, which says whether it is cut, mistyped or made by
    a newer version, or `expired`; their sentences hold nothing of `text`."""
    signs = "".join(sign for sign in text[:MAX_TEXT] if sign not in _AROUND).lower().translate(_LOOK_ALIKE)
    if len(text) > MAX_TEXT or not signs.startswith("1x"):
        _refuse(
            "This is not an invite: an invite begins with ix1.", "Paste the whole line that you were sent."
        )
    if any(sign not in _SIGNS for sign in signs):
        _refuse("This invite is mistyped: it holds a sign that no invite has.")
    if signs[2:3] != "1":
        _refuse(
            "This invite was made by a newer version of infraxa, or its beginning is mistyped.",
            "Update infraxa, or paste the invite again.",
        )
    signs = signs[3:]
    size = _size(signs[:_HEADER]) if len(signs) >= _HEADER else None
    if len(signs) < _HEADER:
        _refuse("This invite is cut off: it ends after its beginning.")
    if size is None:
        _refuse("This invite is mistyped near its beginning.")
    missing = -(-size * 8 // 5) - (len(signs) - _HEADER)
    if missing:
        count = abs(missing)
        what = f"{count} character{'s' * (count > 1)}"
        _refuse(
            f"This invite is cut off: {what} missing." if missing > 0 else f"This invite has {what} too many."
        )
    try:
        invite = _unpacked(from_base32(signs[_HEADER:]))
    except ValueError:
        _refuse("This invite is mistyped: its characters do not add up.")
    if invite.expires_ms <= now_ms:
        when = datetime.fromtimestamp(invite.expires_ms / 1000, UTC)
        raise NetError(
            "expired",
            f"This invite ended on {when:%Y-%m-%d at %H:%M} UTC.",
            "Ask for a new one; if it is new, check the clock of this machine.",
        )
    return invite


def _packed(address: Address) -> bytes:
    if address.ip is None:
        return bytes((0,)) + address.relay
    port = b"" if address.port == addresses.DEFAULT_PORT else address.port.to_bytes(2)
    return bytes((address.ip.version | (_WITH_PORT if port else 0),)) + address.ip.packed + port


def _unpacked(body: bytes) -> Invite:
    """Raises ValueError for anything that `encode` does not write."""
    if len(body) < 4 or zlib.crc32(body[:-4]).to_bytes(4, "little") != body[-4:]:
        raise ValueError("checksum")
    reader = _Reader(body[:-4])
    flags = reader.number(1)
    node = reader.take(32)
    expires_ms = reader.number(4) * _HOUR_MS
    texts = tuple(_address(reader) for _ in range(flags & 7))
    network = reader.take(reader.number(1)).decode() if flags & _NAMED else PUBLIC
    psk = reader.take(32) if flags & _KEYED else None
    if reader.left or flags >= 32 or not 1 <= len(texts) <= MAX_ADDRESSES or not _is_name(network):
        raise ValueError("not an invite")
    return Invite(node, texts, expires_ms, network, psk)


def _address(reader: _Reader) -> str:
    kind = reader.number(1)
    size = _KINDS.get(kind & ~_WITH_PORT)
    if size is None or kind == _WITH_PORT:
        raise ValueError("kind of address")
    where = reader.take(size)
    port = reader.number(2) if kind & _WITH_PORT else addresses.DEFAULT_PORT
    try:
        if size == 32:
            address = addresses.through(where)
        else:
            address = addresses.at(IPv4Address(where) if size == 4 else IPv6Address(where), port)
    except NetError:
        raise ValueError("address") from None
    if not addresses.may_dial(address, "person"):
        raise ValueError("address")
    return addresses.format(address)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, size: int) -> bytes:
        if len(self.left) < size:
            raise ValueError("too short")
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))


def _header(size: int) -> str:
    high, low = divmod(size, 32)
    return _SIGNS[high] + _SIGNS[low] + _SIGNS[_check(high, low)]


def _size(header: str) -> int | None:
    high, low, check = map(_SIGNS.index, header)
    return high * 32 + low if check == _check(high, low) else None


def _check(high: int, low: int) -> int:
    return (5 * high + 3 * low + 17) % 31


def _is_name(text: str) -> bool:
    return text.isprintable() and text == text.strip() and 1 <= len(text.encode()) <= MAX_NAME


def _refuse(message: str, remedy: str = "Copy it again, whole, or ask for a new one.") -> NoReturn:
    raise NetError("bad_invite", message, remedy)
