"""The self-test between whole nodes: a peer buys an answer as strangers do, and what is made of its word."""

from __future__ import annotations

import time
from pathlib import Path

from infraxa.app import self_test_words
from infraxa.app.node import Node
from infraxa.app.self_test_words import Verdict
from tests.app.networked import folders, network_name, running
from tests.app.test_node_driver import provider


def verdict(node: Node) -> Verdict:
    return self_test_words.verdict(node.provider.self_test, time.time_ns() // 1_000_000)


async def test_a_peer_buys_an_answer_as_a_stranger(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "birch").data, network=network) as birch,
        provider(tmp_path / "maple", birch, network, "maple") as maple,
    ):
        assert verdict(maple).state == "open"
        test = await maple.self_test()
        last = test.last
        assert last is not None and (last.code, last.way, last.signed) == ("", "local", True)
        assert last.peer == birch.network.id and last.first_token_ms > 0 and last.connect_ms > 0
        assert verdict(maple).state == "ok" and "bought an answer" in verdict(maple).text
