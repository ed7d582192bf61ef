"""A node of the network without a screen and without a model: `network_node.py FOLDER CLOCK_MS`.

It is the network as the app opens it, with its store, keys and settings. It reads requests, one JSON object
per line, answers each with one line, and ends with its stdin. CLOCK_MS is how far its clock is ahead.
tests/e2e/nodes.py drives it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from infraxa.app import config
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders
from infraxa.app.network import NodeNetwork
from infraxa.app.rated import Ratings
from infraxa.app.reputations import Reputations
from infraxa.net.errors import NetError
from infraxa.net.link import Clock
from infraxa.store.db import Store

START_S = 15.0


async def serve(folder: Path, clock_ms: int) -> None:
    """Run a node until stdin ends."""
    ahead_ms = clock_ms
    clock = Clock(unix_ms=lambda: Clock().unix_ms() + ahead_ms)
    folders = Folders.find(folder, os.environ)
    folders.make()
    store = await Store.open(folders.data)
    told = asyncio.Event()
    network = NodeNetwork(folders, lambda event: told.set(), Ratings(Reputations()))
    with mock.patch("infraxa.net.parts.Clock", lambda: clock):
        network.start(store, config.load(folders, {}, os.environ, warn=lambda line: None))
        async with asyncio.timeout(START_S):
            while network.status.activity in ("off", "starting"):
                await told.wait()
                told.clear()

    async def answer(given: dict[str, Any]) -> object:
        nonlocal ahead_ms
        match given["do"]:
            case "look":
                return {
                    "status": network.status,
                    "nodes": network.nodes(),
                    "peers": network.peers(),
                    "refused": network.refused(),
                }
            case "invite":
                return await network.invite(1)
            case "join":
                await network.join(given["invite"])
                return None
            case "watch":
                network.watch(tuple(bytes.fromhex(node) for node in given["nodes"]))
                return None
            case "clock":
                ahead_ms = given["ms"]
                return None
        raise AssertionError(given)

    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            said: dict[str, object] = {"answer": await answer(json.loads(line))}
        except (NetError, NodeError) as error:
            said = {"failed": f"{error.code}: {error.message} {error.remedy}"}
        plain = msgspec.to_builtins(said, builtin_types=(bytes,))
        print(json.dumps(plain, default=bytes.hex), flush=True)
    await network.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
