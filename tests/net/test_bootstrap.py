"""The first nodes to ask: every way in which a person writes them, and whether a node answers there."""

from __future__ import annotations

import asyncio

import pytest

from infraxa.net import bootstrap
from infraxa.net.errors import NetError
from tests.net.nodes import Node


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("node.example.org", ("node.example.org", 7741)),
        ("node.example.org:9000", ("node.example.org", 9000)),
        (" 192.0.2.1:443 ", ("192.0.2.1", 443)),
        ("ws://192.0.2.1:7741", ("192.0.2.1", 7741)),
        ("[2001:db8::1]:9000", ("2001:db8::1", 9000)),
        ("[2001:db8::1]", ("2001:db8::1", 7741)),
        ("2001:db8::1", ("2001:db8::1", 7741)),
    ],
)
def test_every_way_of_writing_one(text: str, where: tuple[str, int]) -> None:
    assert bootstrap.split(text) == where


@pytest.mark.parametrize(
    "text", ["", ":7741", "host:", "host:port", "host:70000", "[::1", "http://[::1]:7741"]
)
def test_what_is_none_has_a_remedy(text: str) -> None:
    with pytest.raises(NetError) as caught:
        bootstrap.split(text)
    assert caught.value.code == "bad_address" and caught.value.remedy


async def test_names_become_numbers_and_ports_are_those_of_nodes() -> None:
    assert "ws://127.0.0.1:2000" in await bootstrap.resolve("localhost:2000")
    assert await bootstrap.resolve("[2001:DB8:0::1]:443") == ["ws://[2001:db8::1]:443"]
    for text, code in (("127.0.0.1:80", "bad_address"), ("no..such", "unreachable")):
        with pytest.raises(NetError) as caught:
            await bootstrap.resolve(text)
        assert caught.value.code == code


async def test_whether_a_node_of_the_network_answers() -> None:
    node = Node()
    await node.listen()
    try:
        async with asyncio.timeout(30):
            assert await bootstrap.probe(f"127.0.0.1:{node.port}", "test") > 0
            with pytest.raises(NetError):
                await bootstrap.probe(f"127.0.0.1:{node.port}", "another network")
    finally:
        await node.close()
