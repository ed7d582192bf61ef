"""Saying who is there: `Auth`, made, checked and sent.

A key signs the hash of one handshake and its role in it, so that nobody can use it in another session, or as
the other role. What a node or an account may do then is decided in peering.py and customers.py.
"""

from __future__ import annotations

from typing import Final

from infraxa.net import addresses, codec, wire
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.link import Link, LinkClosed, StreamCancelled, StreamFailed

ANSWER_S: Final = 10.0
"""How long a node may take for the answer."""


def prove(signer: Signer, role: wire.Role, link: Link) -> wire.Auth:
    """What the owner of a key says on a link that it dialled."""
    signed = signer.sign("auth", body(role, link.handshake_hash))
    return wire.Auth(role, signer.id, signed.signature)


def check(request: wire.Auth, link: Link) -> None:
    """Whether who dialled owns the key. Raises ProtocolError `bad_signature`."""
    signed = codec.Signed(body(request.role, link.handshake_hash), request.key, request.signature)
    if not codec.verify("auth", signed):
        raise ProtocolError("bad_signature", "auth")


def body(role: wire.Role, handshake_hash: bytes) -> bytes:
    """What `Auth` signs: the role, and a session that nobody else has."""
    return role.encode() + b"\0" + handshake_hash


async def open_account(link: Link, key: Signer) -> None:
    """Tell the provider on a link that was dialled here which account this is, and not which node.

    Raises NetError `busy`, `refused`, `timeout`; the link is of no use then.
    """
    try:
        await link.ask(prove(key, "account", link), wire.Authenticated, ANSWER_S)
    except StreamFailed as error:
        raise _turned_away(error.failure) from None
    except (StreamCancelled, LinkClosed, ProtocolError):
        raise NetError(
            "refused", "The provider ended the connection.", "Try again, or choose another driver."
        ) from None
    link.account = key.id


def observed_address(remote: str) -> str:
    """What a caller is told of how it is seen: an IP address, or nothing when it came through a relay."""
    try:
        return str(addresses.read_ip(remote))
    except ValueError:
        return ""


def _turned_away(failure: wire.Failure) -> NetError:
    if failure.code in ("busy", "rate_limited"):
        again = max(1, failure.retry_after_ms // 1000)
        return NetError(
            "busy",
            "The provider has no room for another user now.",
            f"Try again in {again} s, or choose another driver.",
        )
    return NetError("refused", "This node takes no orders.", "Choose another driver.")
