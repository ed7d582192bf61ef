"""What a person is told of the network although none of its parts told: a start that breaks, counters."""

from __future__ import annotations

from pathlib import Path

import pytest

from infraxa.net.network import Network
from tests.app.networked import linked, network_name, running, until


async def test_a_start_that_breaks_is_said_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Network) -> None:
        raise RuntimeError("a defect")

    async with running(tmp_path, network=network_name(tmp_path)) as node:
        with monkeypatch.context() as patch:
            patch.setattr(Network, "start", broken)
            await node._net.restart(node.settings)
            await until(lambda: node.network.activity == "blocked", "it is said")
            assert [notice.code for notice in node.network.notices] == ["internal"]
            assert "did not start" in caplog.text
        await node._net.restart(node.settings)
        await until(lambda: node.network.activity == "alone", "it runs")


async def test_counters_move_on_between_what_is_told(tmp_path: Path) -> None:
    name = network_name(tmp_path)
    async with running(tmp_path / "a", network=name) as one, running(tmp_path / "b", network=name) as two:
        await linked(one, two)
        assert one._net._network is not None
        one._net._network._teller.close()
        before = one.network
        await until(lambda: one.network.bytes_in > before.bytes_in, "something came")
