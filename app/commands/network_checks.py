"""The checks of `infraxa doctor` for the network: which there are, and those that need no node.

What a node sees is in network_seen.py. Nothing is said by which others could be known: no id, no name, no
address of theirs, nor the name of a network, which is what lets one in.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator
from pathlib import Path

from infraxa.app import config
from infraxa.app.commands.checkup import Check, Finding
from infraxa.app.commands.network_seen import Seen
from infraxa.app.config import PASSPHRASE_VARIABLE, BadSettings, Settings
from infraxa.app.folders import Folders
from infraxa.app.self_test import ANSWER_S, MOST_SILENT
from infraxa.net import addresses
from infraxa.net.errors import NetError
from infraxa.net.status import Interface
from infraxa.net.threads import in_daemon_thread

JOIN_S = 10.0
BOOTSTRAP_S = 12.0
TEST_S = MOST_SILENT * ANSWER_S + 30.0
"""More than peers take that do not answer."""
SHOWN = 4
"""Cards that are named, of those that others are told of, and of the rest."""

NAMES = (
    "identity",
    "network cards",
    "network",
    "port",
    "reachable",
    "clock",
    "local network",
    "peers",
    "self-test",
    "bootstrap",
)


async def network_checks(folders: Folders, *, self_test: bool = False) -> AsyncGenerator[Check, None]:
    """Each check, to be made before the next one is asked for. To be closed. `self_test`: one is made now."""
    yield Check("identity", _identity, 10, "The disk does not answer.")
    try:
        settings = await in_daemon_thread(lambda: config.load(folders))
    except BadSettings:
        yield _said("network", Finding("warn", "Not checked: the settings are wrong.", "Correct them first."))
        return
    if not settings.online:
        reason = "This node is set to stay offline (online = false): it talks to no other node."
        yield _said("network", Finding("ok", reason))
        return
    yield Check("network cards", _cards, 10, "The system does not list its network cards.")
    async with contextlib.AsyncExitStack() as stack:
        seen = Seen(folders, settings, stack)
        yield Check("network", seen.join, JOIN_S, "The machine may be busy; try again.")
        if seen.running:
            yield Check("port", seen.port, 10, "")
            yield Check("reachable", seen.reachable, 5, "")
            yield Check("clock", seen.clock, 5, "")
            yield Check("local network", seen.local_network, 5, "")
            yield Check("peers", seen.peers, 10, "")
            tested, limit = (seen.test, TEST_S) if self_test else (seen.tested, 5.0)
            yield Check("self-test", tested, limit, "The peers may be busy; try again.")
    bootstrap = functools.partial(_bootstrap, settings)
    yield Check(
        "bootstrap", bootstrap, BOOTSTRAP_S, "None of those addresses answers; see whether they exist."
    )


def _said(name: str, finding: Finding) -> Check:
    async def say(folders: Folders) -> Finding:
        return finding

    return Check(name, say, 5, "")


async def _identity(folders: Folders) -> Finding:
    return await in_daemon_thread(lambda: _identity_now(folders.data))


def _identity_now(folder: Path) -> Finding:
    from infraxa.net import keyfile
    from infraxa.net.identity import short_id
    from infraxa.net.keyfile import IDENTITY_NAME, RECOVERY_NAME

    path = folder / IDENTITY_NAME
    try:
        key = keyfile.read(path)
    except FileNotFoundError:
        return Finding("ok", "There is no key yet: it is made when this node first goes online.")
    found = f"{path} is there, of the node {short_id(key.id)}"
    if (notice := keyfile.exposed(path)) is not None:
        return Finding("warn", f"{found}. {notice.message}", notice.remedy)
    if key.locked:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE)
        if passphrase is None:
            return Finding(
                "warn",
                f"{found}, locked with a passphrase that was not given.",
                f"Give it in the variable {PASSPHRASE_VARIABLE}; until then this node stays offline.",
            )
        keyfile.unseal(key, passphrase)
    lock = "with a passphrase, which fits" if key.locked else "readable by you alone, without a passphrase"
    if (folder / RECOVERY_NAME).exists():
        return Finding(
            "ok",
            f"{found}, {lock}; its recovery key is beside it.",
            f"Move {RECOVERY_NAME} to another place than this machine, and keep a copy of both.",
        )
    return Finding("ok", f"{found}, {lock}.")


async def _cards(folders: Folders) -> Finding:
    from infraxa.net.interfaces import survey

    seen = await in_daemon_thread(survey)
    told = [card for card in seen.interfaces if card.chosen]
    rest = [card for card in seen.interfaces if not card.chosen]
    left_out = f" Not told: {_listed(rest)}." if rest else ""
    if not seen.hosts:
        return Finding(
            "fail",
            f"No network card has an address that others could use.{left_out}",
            "Connect this machine to a network.",
        )
    found = f"Others are told of {_listed(told)}.{left_out}"
    ips = [addresses.read_ip(host) for host in seen.hosts]
    if all(ip.is_loopback for ip in ips):
        return Finding(
            "warn", found, "Only nodes on this machine can be found; connect it to a network for others."
        )
    if all(ip.version == 6 for ip in ips):
        found += " IPv6 only: nodes that have IPv4 alone are reached through a relay or not at all."
    return Finding("ok", found)


def _listed(cards: list[Interface]) -> str:
    texts = [_card_text(card) for card in cards[:SHOWN]]
    if len(cards) > SHOWN:
        texts.append(f"{len(cards) - SHOWN} more")
    return "; ".join(texts)


def _card_text(card: Interface) -> str:
    where = f" ({', '.join(card.addresses)})" if card.chosen else ""
    return f"{card.name}, {card.reason}{where}"


async def _bootstrap(settings: Settings, folders: Folders) -> Finding:
    """Each by its place in the setting: where somebody's node is, is not to be pasted."""
    texts = config.split(settings.bootstrap)
    if not texts:
        return Finding("ok", "None is set: other nodes are found on the LAN and by invites.")
    psk = await _network_key(folders, settings.network)
    results = await asyncio.gather(*(_reached(text, settings.network, psk) for text in texts))
    missed = [f"number {place} not: {why}" for place, why in enumerate(results, 1) if why]
    found = f"{len(texts) - len(missed)} of {len(texts)} reached"
    if not missed:
        return Finding("ok", f"{found}.")
    remedy = "See: infraxa config show; the node there must run, in the same network, with its port open."
    return Finding("fail" if len(missed) == len(texts) else "warn", f"{found}; {' '.join(missed)}", remedy)


async def _reached(text: str, network: str, psk: bytes | None) -> str:
    """Why not, or nothing."""
    from infraxa.net.bootstrap import probe

    try:
        async with asyncio.timeout(BOOTSTRAP_S - 2):
            await probe(text, network, psk)
    except NetError as error:
        return error.message
    except TimeoutError:
        return f"nothing answered within {BOOTSTRAP_S - 2:g} s."
    return ""


async def _network_key(folders: Folders, network: str) -> bytes | None:
    from infraxa.store import peers
    from infraxa.store.db import Store
    from infraxa.store.folder import DATABASE_NAME

    if not (folders.data / DATABASE_NAME).exists():
        return None
    async with await Store.open(folders.data) as store:
        known = await store.run(peers.get_network, network)
    return known.psk if known is not None else None
