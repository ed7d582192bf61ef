"""What passes a cable: recorded by a raw socket, and taken apart for questions about what it says.

Run as `lab_capture.py INTERFACE FILE` it records until its stdin ends. Imported, it gives the frames back,
the two directions of each TCP connection in order, and the payloads of WebSocket frames without their mask,
which hides nothing from who listens, but everything from a search for bytes.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

ETH_P_ALL = 3
LARGEST = 1 << 17
ETHERNET_HEADER = 14


class Frame(NamedTuple):
    """One Ethernet frame; the ends are empty unless it is TCP or UDP over IP."""

    data: bytes
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    sequence: int
    payload: bytes
    """Of TCP or UDP; else everything after the Ethernet header."""


def record(interface: str, path: str) -> None:
    """Write each frame with its length in front (4 bytes, big-endian), until stdin ends."""
    with open(path, "wb") as file, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        raw.bind((interface, ETH_P_ALL))
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([raw.fileno(), 0], [], [])
            if raw.fileno() in ready:
                try:
                    frame = raw.recv(LARGEST)
                except OSError:  # told once that the interface went down
                    continue
                file.write(struct.pack("!I", len(frame)) + frame)
            elif not os.read(0, 1):
                return


def frames_of(recording: bytes) -> list[Frame]:
    """The frames of a recording."""
    frames = []
    at = 0
    while at < len(recording):
        (size,) = struct.unpack_from("!I", recording, at)
        frames.append(_parsed(recording[at + 4 : at + 4 + size]))
        at += 4 + size
    return frames


def _parsed(data: bytes) -> Frame:
    packet = data[ETHERNET_HEADER:]
    nothing = Frame(data, 0, ("", 0), ("", 0), 0, packet)
    kind = data[12:14]
    if kind == b"\x08\x00" and len(packet) >= 20:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
        packet = packet[: struct.unpack_from("!H", packet, 2)[0] or len(packet)]  # without Ethernet's padding
        family, ends = socket.AF_INET, (packet[12:16], packet[16:20])
    elif kind == b"\x86\xdd" and len(packet) >= 40:
        protocol, start = packet[6], 40
        family, ends = socket.AF_INET6, (packet[8:24], packet[24:40])
    else:
        return nothing
    least = {socket.IPPROTO_TCP: 20, socket.IPPROTO_UDP: 8}.get(protocol)
    if least is None or len(packet) < start + least:
        return nothing
    source_port, target_port, sequence = struct.unpack_from("!HHI", packet, start)
    skip = (packet[start + 12] >> 4) * 4 if protocol == socket.IPPROTO_TCP else 8
    return Frame(
        data,
        protocol,
        (socket.inet_ntop(family, ends[0]), source_port),
        (socket.inet_ntop(family, ends[1]), target_port),
        sequence if protocol == socket.IPPROTO_TCP else 0,
        packet[start + skip :],
    )


def tcp_streams(frames: list[Frame]) -> dict[tuple[tuple[str, int], tuple[str, int]], bytes]:
    """By (source, target): the bytes one end sent the other over TCP, in order, each once."""
    parts: dict[tuple[tuple[str, int], tuple[str, int]], list[Frame]] = {}
    for frame in frames:
        if frame.protocol == socket.IPPROTO_TCP and frame.payload:
            parts.setdefault((frame.source, frame.target), []).append(frame)
    return {ends: _in_order(sent) for ends, sent in parts.items()}


def _in_order(sent: list[Frame]) -> bytes:
    first = sent[0].sequence
    stream = bytearray()
    # Distance from the first by arithmetic modulo 2³²; a capture here never holds half of that.
    for frame in sorted(sent, key=lambda frame: (frame.sequence - first + (1 << 31)) % (1 << 32)):
        at = (frame.sequence - first + (1 << 31)) % (1 << 32) - (1 << 31)
        if at < 0:
            continue
        if at > len(stream):
            raise AssertionError(
                f"the capture lost {at - len(stream)} bytes of {frame.source} → {frame.target}"
            )
        stream += frame.payload[len(stream) - at :]
    return bytes(stream)


CONTROL = 8
"""From this opcode on, a WebSocket frame is the transport's own word (close, ping, pong), not a message."""


def websocket_frames(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame of one side's WebSocket stream, after its HTTP head: RFC 6455 §5.2."""
    at = stream.index(b"\r\n\r\n") + 4
    while at + 2 <= len(stream):
        opcode, masked, size = stream[at] & 0x0F, stream[at + 1] >> 7, stream[at + 1] & 0x7F
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(stream[at : at + width], "big")
            at += width
        key = stream[at : at + 4] if masked else b"\0\0\0\0"
        at += 4 if masked else 0
        if at + size > len(stream):
            return  # the recording ended within a frame
        body = stream[at : at + size]
        mask = (key * (size // 4 + 1))[:size]
        yield opcode, (int.from_bytes(body, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
        at += size


if __name__ == "__main__":
    record(*sys.argv[1:])
