"""The first nodes to ask, as a person writes them: `host`, `host:port`, `[2001:db8::1]:7741`, `ws://…`.

Only here are names looked up: an address that comes from a peer holds numbers only (addresses.py).
"""

from __future__ import annotations

import asyncio
import re
import socket
from ipaddress import ip_address
from time import monotonic
from typing import Final

from infraxa.net import addresses, codec, wire
from infraxa.net.connect import Target, connect
from infraxa.net.dial import dial_first
from infraxa.net.errors import NetError
from infraxa.net.link import Link, Stream
from infraxa.net.threads import in_daemon_thread
from infraxa.net.websocket import WebSocketTransport

LOOK_UP_S: Final = 5.0
MAX_FOUND: Final = 4
"""Addresses of one name that are tried."""

_HOST_PORT: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?", re.ASCII)


def split(text: str) -> tuple[str, int]:
    """The host and the port that a person wrote. Raises NetError `bad_address`."""
    text = text.strip().removeprefix("ws://")
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"  # an IPv6 address without a port
    found = _HOST_PORT.fullmatch(text)
    port = int(found[3] or addresses.DEFAULT_PORT) if found else 0
    if found is None or port > 65535:
        raise NetError(
            "bad_address",
            "This is not an address of a node.",
            "Write host:port, such as node.example.org:7741 or [2001:db8::1]:7741.",
        )
    return found[1] or found[2], port


async def resolve(text: str) -> list[str]:
    """The addresses that can be dialled for `text`, at most MAX_FOUND; names are looked up, within LOOK_UP_S.

    Raises NetError `bad_address`, `unreachable`.
    """
    host, port = split(text)
    try:
        ips = [str(ip_address(host))]
    except ValueError:
        ips = await _look_up(host)
    return [addresses.format(addresses.at(addresses.read_ip(ip), port)) for ip in ips][:MAX_FOUND]


async def _look_up(host: str) -> list[str]:
    try:
        async with asyncio.timeout(LOOK_UP_S):
            found = await in_daemon_thread(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except TimeoutError:
        why = f"no answer within {LOOK_UP_S:g} s"
    except (OSError, UnicodeError):
        why = "there is no such name, or no name server answers"
    else:
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))
    raise NetError("unreachable", f"The name of the node cannot be looked up: {why}.", "Check the name.")


async def probe(text: str, network: str, psk: bytes | None = None) -> float:
    """Whether a node of this network answers at what a person wrote: seconds to the end of the handshake.

    Says nothing of this node. Bounded. Raises NetError.
    """
    where = await resolve(text)
    began = monotonic()
    transport = WebSocketTransport()

    async def attempt(address: str) -> Link:
        return await connect(
            await transport.dial(address),
            Target(),
            network=codec.network_id(network),
            psk=psk,
            handler=_answer_nothing,
            on_tell=lambda link, message: None,
        )

    try:
        link = await dial_first(where, attempt, Link.close)
        took = monotonic() - began
        await link.close()
    finally:
        await transport.close()
    return took


async def _answer_nothing(link: Link, stream: Stream, request: wire.Request) -> None:
    await stream.fail(wire.Failure("unsupported"))
