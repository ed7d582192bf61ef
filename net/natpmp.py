"""NAT-PMP (RFC 6886): asking a router, in packets of 12 bytes, to let others in at a port.

The packets are pure; `NatPmp` sends them to one gateway and believes nobody else. UPnP, which other routers
speak, is in upnp.py; when to ask at all in portmap.py.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, Generic, NamedTuple, TypeVar

from infraxa.net.errors import NetError

T = TypeVar("T")

_log = logging.getLogger(__name__)

PORT: Final = 5351
FIRST_WAIT_S: Final = 0.25
"""Until the first repetition; each further one waits twice as long."""
TOTAL_S: Final = 3.0
"""The RFC would wait for a minute; a router on the same wire answers in a millisecond or never."""

_ADDRESS, _MAP_TCP, _ANSWER = 0, 2, 128
_REASONS: Final = {
    1: "it speaks another version of NAT-PMP",
    2: "port mapping is switched off in it",
    3: "it is not connected itself",
    4: "it has no mapping left",
    5: "it does not know NAT-PMP's requests",
}


class Mapped(NamedTuple):
    """What a router maps to this machine."""

    ip: IPv4Address
    """The router's own address outside."""
    port: int
    lease_s: int
    """How long, from when it was asked."""


def ask_address() -> bytes:
    """The request for the router's address outside."""
    return struct.pack("!BB", 0, _ADDRESS)


def ask_mapping(port: int, outside: int, lease_s: int) -> bytes:
    """The request to map TCP port `outside`, or another one, to `port` here. A lease of 0 ends it."""
    return struct.pack("!BBHHHI", 0, _MAP_TCP, 0, port, outside, lease_s)


def read_address(packet: bytes) -> IPv4Address | None:
    """The answer to `ask_address`; None when it is none. Raises NetError `port_mapping`."""
    if not _answers(packet, _ADDRESS, 12):
        return None
    return IPv4Address(packet[8:12])


def read_mapping(packet: bytes, port: int) -> tuple[int, int] | None:
    """The answer to `ask_mapping`: the port outside and its lease in seconds; None when it is none, or about
    another port. Raises NetError `port_mapping`."""
    if not _answers(packet, _MAP_TCP, 16):
        return None
    inside, outside, lease_s = struct.unpack("!HHI", packet[8:16])
    return (outside, lease_s) if inside == port else None


def _answers(packet: bytes, operation: int, size: int) -> bool:
    if len(packet) < 4 or packet[1] != operation | _ANSWER:
        return False
    result = int.from_bytes(packet[2:4])
    if packet[0] != 0 or result:
        why = _REASONS.get(result, "it refused")
        raise NetError("port_mapping", f"The router does not map a port: {why}.")
    return len(packet) >= size


class NatPmp:
    """A gateway that may speak NAT-PMP. Not for several tasks at once."""

    name = "NAT-PMP"

    def __init__(self, gateway: str, port: int = PORT) -> None:
        self._gateway = (gateway, port)
        self._inside = 0

    async def map(self, port: int, outside: int, lease_s: int) -> Mapped:
        """Map, or renew. Takes 2 · TOTAL_S at most. Raises NetError `port_mapping`."""
        ip = await self._ask(ask_address(), read_address)
        self._inside = port
        answer = await self._ask(
            ask_mapping(port, outside, lease_s), lambda packet: read_mapping(packet, port)
        )
        return Mapped(ip, *answer)

    async def unmap(self) -> None:
        """End the mapping. Raises NetError `port_mapping`."""
        await self._ask(ask_mapping(self._inside, 0, 0), lambda packet: read_mapping(packet, self._inside))

    async def _ask(self, request: bytes, read: Callable[[bytes], T | None]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        try:
            # Connected, so that the kernel drops what comes from anybody else.
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Answers(answer, read), remote_addr=self._gateway
            )
        except OSError:
            raise NetError("port_mapping", "The router is not reached.") from None
        try:
            async with asyncio.timeout(TOTAL_S):
                wait_s = FIRST_WAIT_S
                while True:
                    transport.sendto(request)
                    done, _ = await asyncio.wait([answer], timeout=wait_s)
                    if done:
                        return answer.result()
                    wait_s *= 2
        except TimeoutError:
            raise NetError("port_mapping", "The router does not answer NAT-PMP.") from None
        finally:
            answer.cancel()
            transport.close()


class _Answers(asyncio.DatagramProtocol, Generic[T]):
    def __init__(self, answer: asyncio.Future[T], read: Callable[[bytes], T | None]) -> None:
        self._answer = answer
        self._read = read

    def datagram_received(self, data: bytes, addr: object) -> None:
        try:
            found = self._read(data)
        except NetError as error:
            if not self._answer.done():
                self._answer.set_exception(error)
            return
        if found is not None and not self._answer.done():
            self._answer.set_result(found)

    def error_received(self, exc: Exception) -> None:
        # Nothing listens there; the port may yet open while the router starts, so go on asking.
        _log.debug("NAT-PMP: %r", exc)
