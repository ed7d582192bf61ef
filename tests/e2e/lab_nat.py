"""Address translation as home routers do it, in one process behind a TUN device: `lab_nat.py DEVICE ADDRESS`.

Every conversation (protocol, both ends) of a machine inside gets a port of its own at the public ADDRESS,
and only its other end may answer through it: the strictest kind of translation, with which no two machines
behind such routers can reach each other. TCP and UDP over IPv4; everything else is dropped. Runs alone, in
the router's namespace: it prints one line when the device is there, and ends with its stdin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import sys

TUN_SET_DEVICE = 0x400454CA
TUN_NO_PACKET_INFO = 0x1001  # IFF_TUN | IFF_NO_PI
TCP, UDP = 6, 17
FIRST_PORT, PORTS = 20_000, 4096
"""Conversations at a time; the oldest gives its port to a new one."""

End = tuple[bytes, int]
Conversation = tuple[int, End, End]
"""Protocol, the end inside, the end outside."""


class Translation:
    """Which conversation has which port, both ways round."""

    def __init__(self, public: bytes) -> None:
        self._public = public
        self._port_of: dict[Conversation, int] = {}
        self._by_port: dict[int, Conversation] = {}
        self._made = 0

    def translate(self, packet: bytes) -> bytes | None:
        """The packet as it goes on; None when it is dropped."""
        header = (packet[0] & 0x0F) * 4 if packet else 0
        fragment = struct.unpack_from("!H", packet, 6)[0] & 0x3FFF if len(packet) >= 20 else 1
        if header < 20 or packet[0] >> 4 != 4 or fragment or packet[9] not in (TCP, UDP):
            return None
        if len(packet) < header + (20 if packet[9] == TCP else 8):
            return None
        protocol = packet[9]
        source_port, target_port = struct.unpack_from("!HH", packet, header)
        source, target = (packet[12:16], source_port), (packet[16:20], target_port)
        if packet[16:20] == self._public:
            conversation = self._by_port.get(target_port)
            if conversation is None or (conversation[0], conversation[2]) != (protocol, source):
                return None
            target = conversation[1]
        else:
            source = (self._public, self._port((protocol, source, target)))
        return _rewritten(packet, header, source, target)

    def _port(self, conversation: Conversation) -> int:
        port = self._port_of.get(conversation)
        if port is None:
            port = FIRST_PORT + self._made % PORTS
            self._made += 1
            if (oldest := self._by_port.pop(port, None)) is not None:
                del self._port_of[oldest]
            self._port_of[conversation] = port
            self._by_port[port] = conversation
        return port


def _rewritten(packet: bytes, header: int, source: End, target: End) -> bytes:
    """The packet with other ends, and the sums that cover them."""
    new = bytearray(packet)
    new[12:16], new[16:20] = source[0], target[0]
    new[10:12] = b"\0\0"
    new[10:12] = struct.pack("!H", checksum(bytes(new[:header])))
    struct.pack_into("!HH", new, header, source[1], target[1])
    at = header + (16 if new[9] == TCP else 6)
    new[at : at + 2] = b"\0\0"
    covered = bytes(new[12:20]) + struct.pack("!BBH", 0, new[9], len(new) - header) + bytes(new[header:])
    # A UDP sum of zero would mean "none".
    new[at : at + 2] = struct.pack("!H", checksum(covered) or (0xFFFF if new[9] == UDP else 0))
    return bytes(new)


def checksum(data: bytes) -> int:
    """RFC 1071: the complement of the ones' complement sum of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    # 2¹⁶ ≡ 1 modulo 2¹⁶ − 1: the sum of the words with end-around carry is the number itself modulo that.
    total = int.from_bytes(data, "big")
    rest = total % 0xFFFF
    return 0xFFFF ^ (rest or (0xFFFF if total else 0))


def main(device: str, address: str) -> None:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUN_SET_DEVICE, struct.pack("16sH22x", device.encode(), TUN_NO_PACKET_INFO))
    translation = Translation(socket.inet_aton(address))
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([tun, 0], [], [])
        if 0 in ready and not os.read(0, 1):
            return
        if tun not in ready:
            continue
        # A device that is not up yet refuses both.
        with contextlib.suppress(OSError):
            if (translated := translation.translate(os.read(tun, 65_536))) is not None:
                os.write(tun, translated)


if __name__ == "__main__":
    main(*sys.argv[1:])
