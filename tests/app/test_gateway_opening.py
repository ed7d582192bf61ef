"""When the gateway is open: as the settings say, and while somebody, here or elsewhere, asks for it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from infraxa.app import config
from infraxa.app.errors import NodeError
from infraxa.app.events import Event, LogLine
from infraxa.app.facade import NodeFacade, Stream
from infraxa.app.gateway.access import is_loopback
from infraxa.app.gateway.key import kept_key
from infraxa.app.gateway.values import GatewayStatus, GatewayWish
from infraxa.app.node import Node
from tests.app.gateways import KEY
from tests.app.networked import attached, folders, running, until
from tests.app.shell import shell

WISH = GatewayWish(port=0, key=KEY)
PAGE = "http://localhost:3000"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(folders(tmp_path / "data").data, online=False, threads=1, gateway_port=0) as one:
        yield one


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program uses."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


async def asked(address: str, key: str = KEY, **more: str) -> int:
    """The status of a request with the key; 0: nobody listens there."""
    headers = {"Authorization": f"Bearer {key}", **more}
    try:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{address}/v1/models", headers=headers) as one,
        ):
            return one.status
    except aiohttp.ClientConnectionError:
        return 0


async def test_it_is_as_the_settings_say(node: Node) -> None:
    said: list[Event] = []
    node.subscribe(said.append)
    assert not node.gateway.address
    await node.change_setting("gateway", True)
    await until(lambda: node.gateway.address, "the gateway is open")
    address = node.gateway.address
    key = kept_key(node.folders.data, os.environ)
    assert await asked(address, key) == 200 and await asked(address) == 401
    await node.change_setting("gateway_origins", PAGE)
    await until(lambda: node.gateway.address not in ("", address), "it is opened anew")
    address = node.gateway.address
    await node.change_setting("gateway", False)
    await until(lambda: not node.gateway.address, "the gateway is closed")
    assert await asked(address, key) == 0
    lines = [event.text for event in said if isinstance(event, LogLine)]
    assert any(address in line for line in lines) and not any(key in line for line in lines)


async def test_a_port_that_is_taken_is_one_clear_sentence(node: Node, taken: int) -> None:
    with pytest.raises(NodeError, match=f"port {taken}") as caught:
        await anext(node.open_gateway(GatewayWish(port=taken, key=KEY)))
    assert caught.value.code == "port_taken" and "--port" in caught.value.remedy
    await node.change_setting("gateway_port", taken)
    await node.change_setting("gateway", True)
    await until(lambda: node.gateway.error, "it is said why it is not open")
    assert node.gateway.error is not None and node.gateway.error.code == "port_taken"
    await node.change_setting("gateway_port", 0)
    await until(lambda: node.gateway.address, "another port is tried")
    assert node.gateway.error is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box.example"])
async def test_no_setting_lets_other_machines_in(node: Node, host: str) -> None:
    assert not is_loopback(host)
    await node.change_setting("gateway_host", host)
    with pytest.raises(NodeError, match="encrypted") as caught:
        await anext(node.open_gateway(WISH))
    assert caught.value.code == "not_loopback" and f"--host {host}" in caught.value.remedy


async def test_what_cannot_be_listened_on_is_said(node: Node) -> None:
    with pytest.raises(NodeError, match=r"192\.0\.2\.1") as caught:
        await anext(node.open_gateway(GatewayWish(port=0, host="192.0.2.1", key=KEY)))
    assert caught.value.code == "no_interface"
    with pytest.raises(NodeError, match="api-key") as caught:
        await anext(node.open_gateway(GatewayWish(port=0, key="short")))
    assert caught.value.code == "bad_key"


async def test_it_is_open_while_anybody_wants_it(node: Node) -> None:
    async with attached(node) as one, attached(node) as other:
        streams: list[Stream[GatewayStatus]] = []
        askers: list[NodeFacade] = [node, one, other]
        for asker in askers:
            streams.append(asker.open_gateway(WISH))
            assert (await anext(streams[-1])).address == node.gateway.address
        address = node.gateway.address
        await until(lambda: one.gateway.address == address, "the front end knows")
        with pytest.raises(NodeError, match="open already") as caught:
            await anext(one.open_gateway(GatewayWish(port=1, key=KEY)))
        assert caught.value.code == "busy"
        assert "end the command that opened it" in caught.value.remedy
        with pytest.raises(NodeError):
            await anext(other.open_gateway(GatewayWish(key="another-key-entirely")))
        await streams[0].aclose()
        streams[1].stop()
        with pytest.raises(StopAsyncIteration):
            await anext(streams[1])
        assert await asked(address) == 200
    await until(lambda: not node.gateway.address, "the last one that asked has gone")
    assert await asked(address) == 0


async def test_one_that_the_settings_opened_stays(node: Node) -> None:
    await node.change_setting("gateway", True)
    await until(lambda: node.gateway.address, "the gateway is open")
    stream = node.open_gateway(GatewayWish())
    address = (await anext(stream)).address
    await stream.aclose()  # returns when what follows from it is done
    assert node.gateway.address == address
    stream, other = node.open_gateway(GatewayWish()), node.open_gateway(GatewayWish())
    await anext(stream)
    await anext(other)
    await node.change_setting("gateway", False)
    await other.aclose()
    assert node.gateway.address == address, "somebody asked for it"
    await stream.aclose()
    assert not node.gateway.address


async def test_what_was_asked_for_by_hand_ends_with_who_asked(node: Node) -> None:
    async with attached(node) as front:
        stream = front.open_gateway(GatewayWish(port=0, host="0.0.0.0", key=KEY))
        by_hand = (await anext(stream)).address
        await node.change_setting("gateway", True)
        assert by_hand.startswith("http://0.0.0.0:") and await asked(by_hand) == 200
        await stream.aclose()
    await until(lambda: node.gateway.address not in ("", by_hand), "it is as the settings say")
    address = node.gateway.address
    assert address.startswith("http://127.0.0.1:")
    assert await asked(address) == 401 and await asked(by_hand) == 0
    assert await asked(address, kept_key(node.folders.data, os.environ)) == 200


async def test_settings_that_change_meanwhile_hold_afterwards(node: Node) -> None:
    await node.change_setting("gateway_origins", PAGE)
    await node.change_setting("gateway", True)
    await until(lambda: node.gateway.address, "the gateway is open")
    key = kept_key(node.folders.data, os.environ)
    stream = node.open_gateway(GatewayWish())
    address = (await anext(stream)).address
    assert await asked(address, key, Origin=PAGE) == 200
    await node.change_setting("gateway_origins", None)
    await anext(other := node.open_gateway(GatewayWish()))  # after what follows from the change
    await other.aclose()
    assert node.gateway.address == address
    await stream.aclose()
    assert node.gateway.address not in ("", address)
    assert await asked(node.gateway.address, key, Origin=PAGE) == 403


async def test_a_host_of_the_settings_is_no_host_that_was_asked_for(node: Node) -> None:
    await node.change_setting("gateway_host", "0.0.0.0")
    stream = node.open_gateway(GatewayWish(port=0, host="0.0.0.0"))
    address = (await anext(stream)).address
    await node.change_setting("gateway", True)
    await stream.aclose()
    assert node.gateway.error is not None and node.gateway.error.code == "not_loopback"
    assert await asked(address) == 0


async def test_the_node_that_ends_closes_it(tmp_path: Path) -> None:
    async with running(folders(tmp_path / "data").data, online=False, threads=1) as node:
        address = (await anext(stream := node.open_gateway(WISH))).address
    assert await asked(address) == 0
    await stream.aclose()


async def test_the_app_turns_it_on_and_shows_where(tmp_path: Path) -> None:
    where = folders(tmp_path / "data", gateway_port=0, online=False, threads=1)
    async with shell(where.data, settings=config.load(where, {}, {}), size=(140, 36)) as app:
        await app.opened()
        assert "API :" not in app.screen_text()
        await app.type("/gateway", "enter")
        await app.until(lambda: bool(app.node.gateway.address), "the gateway is open")
        address = app.node.gateway.address
        await app.until(lambda: f"API :{address.rpartition(':')[2]}" in app.screen_text(), "the bar says it")
        assert any(address in toast and "infraxa gateway key" in toast for toast in app.toasts)
        assert kept_key(where.data, os.environ) not in "\n".join((*app.toasts, app.screen_text()))
        assert config.load(where, {}, {}).gateway
        await app.type("/gateway", "enter")
        await app.until(lambda: not app.node.gateway.address, "the gateway is closed")
        await app.until(lambda: "API :" not in app.screen_text(), "the bar says it")


async def test_the_app_says_who_opened_it(tmp_path: Path) -> None:
    where = folders(tmp_path / "data", gateway_port=0, online=False, threads=1)
    async with shell(where.data, settings=config.load(where, {}, {}), size=(140, 36)) as app:
        await app.opened()
        stream = app.node.open_gateway(WISH)
        address = (await anext(stream)).address
        await app.until(lambda: any(address in toast for toast in app.toasts), "it is told")
        assert "infraxa gateway key" not in "\n".join(app.toasts), "which has another key"
        await app.type("/gateway", "enter")
        await app.until(lambda: any("end that command" in toast for toast in app.toasts), "it is said")
        assert app.node.gateway.address == address and not app.node.settings.gateway
        await stream.aclose()
        assert not app.node.gateway.address
