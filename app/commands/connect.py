"""`infraxa invite` and `infraxa join`: connect nodes that do not find each other by themselves."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.front import is_open, opened_node
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json
from infraxa.app.commands.providers import require_online
from infraxa.app.config import variable
from infraxa.net.identity import display, id_text

MAX_INVITE = 4096
"""Characters that are read of an invite on standard input."""


def invite(data_dir: Path | None, *, hours: int, as_json: bool) -> None:
    """Print an invite. Raises NodeError, NetError, StoreError."""
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    require_online(settings)
    running = is_open(folders)

    async def make() -> tuple[str, str, bool]:
        async with opened_node(folders, settings) as node:
            text = await node.invite(hours)
            taken = any(notice.code == "port_taken" for notice in node.network.notices)
            return text, node.network.network, taken or settings.listen_port == 0

    text, network, other_port = asyncio.run(make())
    if as_json:
        print_json({"invite": text, "network": network, "hours": hours})
    else:
        print(text)
    if is_terminal(sys.stderr):
        note(f"Good for {hours} hours, for whoever has it. On the other machine: infraxa join …")
    if not running:
        note("This node does not run now: it can be joined when infraxa is open.")
        if other_port:
            note("It will then be at another port, and this invite lead nowhere: make one while it is open.")


def join(data_dir: Path | None, invite: str, *, as_json: bool) -> None:
    """Link with the node that made `invite`; `-` reads it from standard input.

    Raises NodeError, NetError, StoreError; UsageError when there is nothing to read.
    """
    text = sys.stdin.read(MAX_INVITE) if invite == "-" else invite
    if not text.strip():
        raise UsageError("There is no invite: give the text that infraxa invite printed.")
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    require_online(settings)
    running = is_open(folders)

    async def enter() -> tuple[str, str, str]:
        async with opened_node(folders, settings) as node:
            met = await node.join(text.strip())
            return id_text(met.id), display(met.name, met.id), node.settings.network

    if is_terminal(sys.stderr):
        note("joining: at most 40 s")
    node_id, name, network = asyncio.run(enter())
    if as_json:
        print_json({"id": node_id, "node": name, "network": network})
    else:
        print(f"Linked with {name} in the network {clean(network)}.")
    if os.environ.get(variable("network"), network) != network:
        note(f"infraxa: {variable('network')} is set and goes before the network of this invite next time.")
    if not running:
        note("This node does not run now: it links with that one again when infraxa is open.")
