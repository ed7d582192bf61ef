"""The laboratory itself: without these, a network test that passes would say nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e import lab_nat
from tests.e2e.lab import Host, Lab, Segment, line_of, until
from tests.e2e.lab_capture import tcp_streams, websocket_frames

SERVER = """
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 7741), family=family)
print('ready', flush=True)
while True:
    connection, peer = server.accept()
    with connection:
        connection.settimeout(10)
        print(peer[0], peer[1], connection.recv(1000).decode(), flush=True)
        connection.sendall(b'answer')
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7741), timeout=float(sys.argv[3])) as connection:
    print(connection.getsockname()[1], flush=True)
    connection.sendall(sys.argv[2].encode())
    assert connection.recv(100) == b'answer'
"""
LISTENER = """
import socket, struct, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(('', 5353))
joined = socket.inet_aton('224.0.0.251') + socket.inet_aton(sys.argv[1])
listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
print('ready', flush=True)
while True:
    print(listener.recv(1000).decode(), flush=True)
"""
SPEAKER = """
import socket, sys
speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
speaker.sendto(b'anybody?', ('224.0.0.251', 5353))
"""


def serve(host: Host, address: str) -> subprocess.Popen[bytes]:
    server = host.python(SERVER, address)
    assert heard(server) == "ready"
    return server


def heard(program: subprocess.Popen[bytes], seconds: float = 15) -> str:
    assert program.stdout is not None
    return line_of(program.stdout, "a test program", seconds=seconds)


def dial(host: Host, address: str, text: str = "hello", seconds: float = 10) -> int | None:
    """The port from which the host dialled; None when nobody answered."""
    done = host.run(sys.executable, "-c", CLIENT, address, text, str(seconds), timeout=seconds + 10)
    return int(done.stdout) if done.returncode == 0 else None


@pytest.fixture
def lan(lab: Lab) -> Segment:
    return lab.segment()


def test_hosts_of_a_segment_reach_each_other(lab: Lab, lan: Segment) -> None:
    one, two = lab.host("one", lan, "10.0.0.1/24"), lab.host("two", lan, "10.0.0.2/24")
    server = serve(one, "10.0.0.1")
    port = dial(two, "10.0.0.1")
    assert heard(server) == f"10.0.0.2 {port} hello"


def test_ipv6_alone(lab: Lab, lan: Segment) -> None:
    if not lab.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    one, two = lab.host("one", lan, "fd00::1/64"), lab.host("two", lan, "fd00::2/64")
    server = serve(one, "fd00::1")
    port = dial(two, "fd00::1")
    assert heard(server) == f"fd00::2 {port} hello"
    assert "inet " not in one.run("ip", "addr", "show", "eth0").stdout


def test_multicast_reaches_the_segment_and_nobody_beyond(lab: Lab, lan: Segment) -> None:
    other = lab.segment()
    lab.router("router", (lan, "10.0.0.254/24"), (other, "10.1.0.254/24"))
    speaker = lab.host("speaker", lan, "10.0.0.1/24", gateway="10.0.0.254")
    listeners = []
    for address, segment in (("10.0.0.2", lan), ("10.0.0.3", lan), ("10.1.0.2", other)):
        host = lab.host(address, segment, f"{address}/24", gateway=address.rpartition(".")[0] + ".254")
        listeners.append(host.python(LISTENER, address))
        assert heard(listeners[-1]) == "ready"
    assert speaker.run(sys.executable, "-c", SPEAKER, "10.0.0.1").returncode == 0
    assert [heard(listener) for listener in listeners[:2]] == ["anybody?", "anybody?"]
    with pytest.raises(AssertionError, match="have passed"):
        heard(listeners[2], seconds=0.3)


def test_a_router_changes_nothing(lab: Lab, lan: Segment) -> None:
    other = lab.segment()
    lab.router("router", (lan, "10.0.0.254/24"), (other, "10.1.0.254/24"))
    one = lab.host("one", lan, "10.0.0.1/24", gateway="10.0.0.254")
    two = lab.host("two", other, "10.1.0.2/24", gateway="10.1.0.254")
    server = serve(one, "10.0.0.1")
    port = dial(two, "10.0.0.1")
    assert heard(server) == f"10.1.0.2 {port} hello"


def test_behind_a_nat_one_can_dial_out_and_nobody_in(lab: Lab, lan: Segment) -> None:
    internet = lab.segment()
    lab.nat("nat", inside=(lan, "192.168.7.1/24"), outside=(internet, "20.9.0.1/8"), public="20.9.0.2")
    inner = lab.host("inner", lan, "192.168.7.10/24", gateway="192.168.7.1")
    outer = lab.host("outer", internet, "20.1.0.1/8")
    server = serve(outer, "20.1.0.1")
    seen = set()
    for text in ("a", "b" * 900):
        own_port = dial(inner, "20.1.0.1", text)
        address, port, said = heard(server).split()
        assert (address, said) == ("20.9.0.2", text)
        assert own_port is not None and int(port) != own_port
        seen.add(int(port))
    assert len(seen) == 2  # a port per conversation
    serve(inner, "192.168.7.10")
    outer.ip("route add 192.168.7.0/24 via 20.9.0.1")  # not even who knows the way gets in
    arriving = inner.capture()
    assert dial(outer, "20.9.0.2", seconds=0.7) is None
    assert dial(outer, "192.168.7.10", seconds=0.7) is None
    assert "20.1.0.1" not in {frame.source[0] for frame in arriving.stop()}


def test_a_cut_cable_carries_nothing_and_a_healed_one_all(lab: Lab, lan: Segment) -> None:
    one, two = lab.host("one", lan, "10.0.0.1/24"), lab.host("two", lan, "10.0.0.2/24")
    server = serve(one, "10.0.0.1")
    two.cables[0].cut()
    until("no carrier", lambda: "NO-CARRIER" in two.run("ip", "link", "show", "eth0").stdout)
    assert "10.0.0.2" in two.run("ip", "addr", "show", "eth0").stdout
    assert dial(two, "10.0.0.1", seconds=0.5) is None
    two.cables[0].heal()
    until("an answer", lambda: dial(two, "10.0.0.1", "again", seconds=3))
    assert heard(server).endswith("again")


def test_a_capture_has_what_was_said(lab: Lab, lan: Segment) -> None:
    one, two = lab.host("one", lan, "10.0.0.1/24"), lab.host("two", lan, "10.0.0.2/24")
    server = serve(one, "10.0.0.1")
    before = two.capture()
    port = dial(two, "10.0.0.1", "the spoken word")
    frames = before.stop()
    assert heard(server).endswith("word")
    assert dial(two, "10.0.0.1", "unheard") and heard(server).endswith("unheard")
    ends = (("10.0.0.2", port), ("10.0.0.1", 7741))
    streams = tcp_streams(frames)
    assert streams == {ends: b"the spoken word", ends[::-1]: b"answer"}


def test_a_websocket_s_mask_is_taken_off() -> None:
    masked = bytes(letter ^ key for letter, key in zip(b"Hello", b"\x37\xfa\x21\x3d\x37", strict=True))
    large = b"x" * 300
    stream = (
        b"GET / HTTP/1.1\r\n\r\n"
        + (b"\x81\x85\x37\xfa\x21\x3d" + masked)
        + (b"\x82\x7e" + len(large).to_bytes(2, "big") + large)
        + b"\x82\x05cut"
    )
    assert list(websocket_frames(stream)) == [(1, b"Hello"), (2, large)]


def test_the_sums_of_a_translated_packet_hold() -> None:
    # RFC 1071 §3 gives 0xddf2 as the sum of these words; the checksum is its complement.
    assert lab_nat.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
    assert lab_nat.checksum(b"\0\0") == 0xFFFF
    assert lab_nat.checksum(b"\xff\xff") == 0
    assert lab_nat.checksum(b"\x01") == lab_nat.checksum(b"\x01\0")


def test_only_the_other_end_of_a_conversation_gets_in() -> None:
    translation = lab_nat.Translation(socket.inet_aton("20.9.0.2"))
    out = translation.translate(udp("192.168.7.10", 500, "20.1.0.1", 53))
    assert out is not None and out[12:16] == socket.inet_aton("20.9.0.2")
    port = int.from_bytes(out[20:22], "big")
    back = translation.translate(udp("20.1.0.1", 53, "20.9.0.2", port))
    assert back is not None
    assert back[16:20] == socket.inet_aton("192.168.7.10") and back[22:24] == (500).to_bytes(2, "big")
    assert translation.translate(udp("20.1.0.1", 54, "20.9.0.2", port)) is None
    assert translation.translate(udp("20.1.0.2", 53, "20.9.0.2", port)) is None
    assert translation.translate(udp("20.1.0.1", 53, "20.9.0.2", port + 1)) is None
    for size in range(28):
        assert translation.translate(udp("192.168.7.10", 500, "20.1.0.1", 53)[:size]) is None
    for number in range(lab_nat.PORTS):
        assert translation.translate(udp("192.168.7.11", 1000 + number, "20.1.0.1", 53)) is not None
    newer = translation.translate(udp("20.1.0.1", 53, "20.9.0.2", port))
    assert newer is not None and newer[16:20] == socket.inet_aton("192.168.7.11")


def udp(source: str, source_port: int, target: str, target_port: int) -> bytes:
    head = bytes([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0])
    ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    return head + socket.inet_aton(source) + socket.inet_aton(target) + ports + b"\0\x08\0\0"


def test_what_a_host_has_to_itself(lab: Lab, lan: Segment) -> None:
    host = lab.host("one", lan, "10.0.0.1/24")
    listing = host.run("sh", "-c", "pwd; ls /proc/self/net/dev_snmp6", cwd=str(lab.folder)).stdout.split()
    assert listing[0] == str(lab.folder)
    assert set(listing[1:]) == {"lo", "eth0"}
    terminal = host.terminal(["sh", "-c", "tty; ip -br addr show eth0; cat"], {**os.environ, "TERM": "dumb"})
    terminal.wait_for("10.0.0.1/24")
    assert "/dev/pts/" in terminal.text
    assert psutil.Process(terminal.process.pid).name() == "sh"


def test_a_killed_test_run_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    source = f"""
import time
from pathlib import Path
from tests.e2e.lab import Lab, line_of
lab = Lab(Path({str(tmp_path)!r}))
host = lab.host("one", lab.segment(), "10.0.0.1/24")
program = host.start("sh", "-c", "echo up && exec sleep 1000")
line_of(program.stdout, "the program")
print(lab.hub.pid, host.pid, program.pid, flush=True)
time.sleep(1000)
"""
    run = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, bufsize=0)
    try:
        assert run.stdout is not None
        pids = [int(pid) for pid in line_of(run.stdout, "the run").split()]
        assert len({os.readlink(f"/proc/{pid}/ns/net") for pid in pids}) == 2
    finally:
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=15)
    until("the end of the programs", lambda: not any(psutil.pid_exists(pid) for pid in pids))
