"""What goes wrong with machines and networks: it is said, and over without a restart when its cause is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import Lab, line_of
from tests.e2e.nodes import NetworkNode

TAKEN = (
    "import socket, time; s = socket.create_server(('', 7741)); print('ready', flush=True); time.sleep(999)"
)


def codes(view: dict[str, Any]) -> set[str]:
    return {notice["code"] for notice in view["status"]["notices"]}


def test_a_network_of_ipv6_alone(lab: Lab, tmp_path: Path) -> None:
    if not lab.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    lan = lab.segment()
    one = NetworkNode(lab.host("one", lan, "fd00::1/64"), tmp_path / "one")
    two = NetworkNode(lab.host("two", lan, "fd00::2/64"), tmp_path / "two")
    one.wait_linked(two)
    assert all(
        peer["address"].startswith("fd00::") for node in (one, two) for peer in node.ask("look")["peers"]
    )


def test_a_port_that_is_taken_is_said_and_another_used(lab: Lab, tmp_path: Path) -> None:
    lan = lab.segment()
    host = lab.host("one", lan, "10.0.0.1/24")
    program = host.python(TAKEN)
    assert program.stdout is not None and line_of(program.stdout, "the other program") == "ready"
    one = NetworkNode(host, tmp_path / "one")
    two = NetworkNode(lab.host("two", lan, "10.0.0.2/24"), tmp_path / "two")
    assert "port_taken" in codes(one.ask("look"))
    two.wait_linked(one)


def test_a_card_that_is_plugged_in_later_is_used(lab: Lab, tmp_path: Path) -> None:
    lan = lab.segment()
    late = lab.host("late")
    one = NetworkNode(late, tmp_path / "one")
    two = NetworkNode(lab.host("two", lan, "10.0.0.2/24"), tmp_path / "two")
    assert one.ask("look")["status"]["activity"] == "alone"
    late.plug(lan, "10.0.0.1/24")
    for node, other in ((one, two), (two, one)):
        node.wait_linked(other, seconds=30)


def test_a_clock_that_is_off_is_said_and_recovers_when_it_is_set(lab: Lab, tmp_path: Path) -> None:
    lan = lab.segment()
    right = NetworkNode(lab.host("right", lan, "10.0.0.1/24"), tmp_path / "right")
    wrong = NetworkNode(lab.host("wrong", lan, "10.0.0.2/24"), tmp_path / "wrong", clock_ms=600_000)
    for node in (right, wrong):
        node.wait("a word about the clocks", lambda seen: "clock_refused" in codes(seen))
        assert not node.ask("look")["peers"]
    wrong.ask("clock", ms=0)
    for node, other in ((right, wrong), (wrong, right)):
        node.wait_linked(other, seconds=40)
        node.wait("no such word any more", lambda seen: not codes(seen))
