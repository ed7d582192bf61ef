"""Whole nodes on this machine, in networks that no other test and no other node of the machine is in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from infraxa.app import config
from infraxa.app.config import Settings
from infraxa.app.control.client import AttachedNode
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.net import addresses


def network_name(folder: Path, which: str = "") -> str:
    """A network of one test; `which` tells several apart."""
    return f"test {which}{os.getpid()} {folder.name}".encode()[:32].decode().strip()


def folders(path: Path, **settings: str | int | bool) -> Folders:
    """A data folder with a config.toml of these settings."""
    path.mkdir(exist_ok=True)
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (path / "config.toml").write_text("".join(lines))
    return Folders.find(path, {})


@contextlib.asynccontextmanager
async def running(path: Path, **settings: Any) -> AsyncIterator[Node]:
    """A node of this folder; its settings are those of its config.toml, and these."""
    where = Folders.find(path, {})
    fixed: dict[str, Any] = {"listen_port": 0}
    read = config.load(where, fixed | settings, {})
    node = Node(read, where, load_model=False)
    await node.start()
    try:
        yield node
    finally:
        await node.close()


@contextlib.asynccontextmanager
async def attached(node: Node) -> AsyncIterator[AttachedNode]:
    """A second front end of this node, by its control socket."""
    where = Folders.find(node.folders.data, {})
    front = AttachedNode(config.load(where, {}, {}), where)
    await front.start()
    try:
        yield front
    finally:
        await front.close()


async def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within 30 s: {what}")


async def linked(*nodes: Node) -> None:
    """Each of them has a peer."""
    await until(lambda: all(node.network.peers for node in nodes), "all are linked")


async def listening(node: Node) -> int:
    """The port at which it listens, once it does."""
    await until(lambda: node.network.activity in ("alone", "online"), "the network runs")
    return addresses.parse(node.network.listening[0]).port


def settings_of(path: Path) -> Settings:
    """What the next start will use."""
    return config.load(Folders.find(path, {}), None, {})
