"""Who listens on the cable between two nodes learns who they are and how much they say, and nothing else."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from infraxa.net.codec import network_id
from infraxa.net.identity import base32
from infraxa.net.noise import TAG
from infraxa.net.session import BUCKETS
from tests.e2e.conftest import INFRAXA
from tests.e2e.lab import Lab
from tests.e2e.lab_capture import CONTROL, tcp_streams, websocket_frames
from tests.e2e.nodes import NetworkNode

MDNS = 5353
CLOSE_CODE = 2
"""Bytes of the number that a WebSocket's close frame may hold."""
HELLO, WELCOME, REJECT = b"ix\x01", b"ix\x02", b"ix\x03"
WORDS = [
    *(b"state", b"online", b"offline", b"card", b"node", b"ws://", b"relay:", b"public"),
    network_id("public"),
]
"""Texts that records and messages hold, and the id of the network."""
QUESTION = "What is a driver?"
ANSWER = "the provider that you chose for a chat"
"""Part of what the built-in guide says."""


def marks(node: NetworkNode) -> list[bytes]:
    """Bytes by which a node could be told in a capture: its id in all its forms, and its name."""
    raw = bytes.fromhex(node.id)
    return [raw, node.id.encode(), base32(raw).encode(), base32(raw).upper().encode(), node.name.encode()]


def found(data: bytes, needles: list[bytes]) -> list[bytes]:
    return [needle for needle in needles if needle in data]


def test_nothing_that_is_said_can_be_read_on_the_cable(lab: Lab, tmp_path: Path) -> None:
    """`bob` has one cable. What he knows of `carol` was said to him by `ada`, on it."""
    lan, elsewhere = lab.segment(), lab.segment()
    between = lab.host("ada", lan, "10.0.0.1/24")
    between.plug(elsewhere, "10.1.0.1/24")
    bobs = lab.host("bob", lan, "10.0.0.2/24")
    capture = bobs.capture()
    ada = NetworkNode(between, tmp_path / "ada", name="Quetzalcoatl")
    carol = NetworkNode(lab.host("carol", elsewhere, "10.1.0.2/24"), tmp_path / "carol", name="Xochiquetzal")
    bob = NetworkNode(bobs, tmp_path / "bob", name="Huitzilopochtli")
    for node in (bob, carol):
        node.wait_linked(ada)
    bob.wait_online(ada, carol)
    bob.wait_measured(ada)
    frames = capture.stop()

    # What mDNS says is for everybody: the ids of nodes and of their network, and addresses. No names. Who is
    # on two networks names on one the nodes of the other as well, as answers it has already.
    nearby = [frame for frame in frames if MDNS in (frame.source[1], frame.target[1])]
    local = b"\n".join(frame.payload for frame in nearby)
    for node in (ada, bob):
        assert found(local, marks(node)) == [base32(bytes.fromhex(node.id)).encode()]
    assert not found(local, [carol.name.encode()])
    others = b"\n".join(frame.data for frame in frames if frame not in nearby)
    assert not found(others, marks(carol))

    refusals, hellos, sealed = b"", b"", b""
    streams = tcp_streams(frames)
    assert streams
    for stream in streams.values():
        hellos += stream[: stream.index(b"\r\n\r\n")]
        for opcode, frame in websocket_frames(stream):
            if opcode >= CONTROL:
                # Of two links between the same nodes one is closed: a code, and not a word with it.
                assert len(frame) <= CLOSE_CODE
            elif frame.startswith(REJECT):
                refusals += frame
            elif frame.startswith((HELLO, WELCOME)):
                hellos += frame
            else:
                assert len(frame) - TAG in BUCKETS
                sealed += frame
    # Who dials and has no key of the other yet gets its card in clear, as anybody would. Nothing else is.
    assert found(refusals, [ada.name.encode(), bob.name.encode()])
    assert not found(hellos, [*marks(ada), *marks(bob)])
    assert not found(sealed, [*marks(ada), *marks(bob), *WORDS])
    # Nor has it any other pattern: what is sealed cannot be compressed.
    assert len(sealed) > 5_000 and len(zlib.compress(sealed, 9)) > len(sealed)


def test_a_chat_is_read_by_nobody_but_its_driver(
    lab: Lab, environment: dict[str, str], tmp_path: Path
) -> None:
    """Neither the question nor the answer is on the cable, nor in what either side prints or keeps."""
    lan = lab.segment()
    provider, user = lab.host("ada", lan, "10.0.0.1/24"), lab.host("bob", lan, "10.0.0.2/24")
    capture = user.capture()
    env = {**environment, "INFRAXA_ONLINE": "true"}
    folders = {name: tmp_path / name for name in ("ada", "bob")}
    said = (tmp_path / "events").open("wb")
    serving = provider.start(
        *(*INFRAXA, "--data-dir", str(folders["ada"]), "serve", "--json-events"),
        env=env,
        stdout=said,
        stderr=said,
    )
    asked = user.run(
        *(*INFRAXA, "--data-dir", str(folders["bob"]), "ask", QUESTION, "--driver", "auto", "--json"),
        *("--temperature", "0"),
        env=env,
        timeout=60,
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert ANSWER in answer["text"] and len(answer["readers"]) == 1
    serving.terminate()
    assert serving.wait(30) == 0
    said.close()
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    requests = [event for event in events if event["event"] == "request"]
    assert [(one["state"], one["n_out"]) for one in requests] == [("done", answer["n_out"])]

    secrets = [text.encode() for text in (QUESTION, ANSWER, ANSWER[:12], ANSWER[-12:])]
    wire = b"\n".join(frame.data for frame in capture.stop())
    assert len(wire) > 5_000 and not found(wire, secrets)
    assert not found((tmp_path / "events").read_bytes(), secrets)
    files = [path for folder in folders.values() for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"identity.key", "infraxa.db"}, files
    for path in files:
        assert not found(path.read_bytes(), secrets), path
