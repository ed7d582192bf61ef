"""`infraxa serve`: a node without a screen that serves its model to others, until a signal ends it.

Where another infraxa has this data folder open, provider mode is turned on there, and this command shows what
happens. What is said is made in journal.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from infraxa.app import choices, config
from infraxa.app.commands.front import opened_node
from infraxa.app.commands.gateway_run import gateway_of, wish_of
from infraxa.app.commands.given import folders_of, ignored, settings_of
from infraxa.app.commands.journal import JSON_VERSION, Entry, Journal
from infraxa.app.commands.output import clean
from infraxa.app.commands.providers import require_online
from infraxa.app.commands.signals import ENDS, handled
from infraxa.app.config import Settings
from infraxa.app.control.client import AttachedNode
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import Event, ProviderChanged, ServedChanged, TradeChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.gateway.values import GatewayWish
from infraxa.app.node import Node
from infraxa.app.serving_notice import points
from infraxa.app.serving_words import capacity
from infraxa.net.tasks import TaskGroup

CALM = 0.2
"""Seconds between two looks at the requests, or at the receipts."""
LATE = 10.0
"""A receipt that nobody signs makes no news: it is looked for so often."""
RECEIPTS = 50
"""The newest that are looked at."""
LIMITS = "set with options, or in the Provide view of an infraxa that is opened beside it"
"""Where the limits of provider mode are, for who has no view of it."""
DRAIN = 130.0
"""Seconds after which a drain is over in any case; provider mode has its own, shorter limit."""


def serve(
    data_dir: Path | None,
    flags: Mapping[str, object],
    *,
    json_events: bool,
    until_eof: bool,
    api: bool = False,
) -> int:
    """Returns the exit code: 0 after an end that was asked for. `api`: with the gateway open. Raises
    NodeError, StoreError."""
    folders = folders_of(data_dir)
    given = {**flags, "provide": True}
    settings = settings_of(folders, given)
    require_online(settings)
    logging.basicConfig(level=logging.WARNING, format="infraxa: %(message)s")
    wish = wish_of(given, settings.gateway_port, None, None) if api else None
    return asyncio.run(_Serving(folders, given, settings, json_events, wish).run(until_eof))


class _Serving:
    """One run."""

    def __init__(
        self,
        folders: Folders,
        flags: Mapping[str, object],
        settings: Settings,
        as_json: bool,
        wish: GatewayWish | None = None,
    ) -> None:
        """`wish`: have the gateway open too."""
        self._folders = folders
        self._wish = wish
        self._flags = flags
        self._settings = settings
        self._as_json = as_json
        self._journal = Journal()
        self._tasks = TaskGroup()
        self._asked = asyncio.Event()
        """To end."""
        self._asked_again = asyncio.Event()
        self._changed = asyncio.Event()
        """Of provider mode."""
        self._served = asyncio.Event()
        """The requests of others are other ones."""
        self._traded = asyncio.Event()
        """Receipts are other ones."""
        self._node: NodeFacade | None = None

    async def run(self, until_eof: bool) -> int:
        """Until a signal comes and what runs has ended, or provider mode fails for good."""
        if until_eof:
            loop = asyncio.get_running_loop()
            threading.Thread(target=_call_at_eof, args=(loop, self._stop), daemon=True).start()
        with handled(self._handlers()):
            # Not yet: first is said what it means.
            settings = msgspec.structs.replace(self._settings, provide=False)
            async with opened_node(self._folders, settings, self._hear) as node:
                self._node = node
                try:
                    await self._run(node)
                finally:
                    await self._tasks.cancel_all()
        self._say(Entry("stopped", "stopped", {}))
        return 0

    async def _run(self, node: NodeFacade) -> None:
        own = isinstance(node, Node)
        self._say(Entry("started", "", {"version": JSON_VERSION, "pid": self._pid(node)}))
        if not own:
            self._print(f"attached to the infraxa that is open (pid {self._pid(node)})")
            if words := ignored(self._flags, self._settings, node.settings):
                self._say(Entry("ignored", words, {}))
        await self._require_model(node)
        on_before = not own and node.provider.mode not in ("off", "failed", "draining")
        if on_before:
            self._print("provider mode is on there, and stays on when this command ends")
        async with contextlib.AsyncExitStack() as stack:
            if self._wish is not None:
                await stack.enter_async_context(gateway_of(node, self._wish))
            await self._provide(node, on_before=on_before)

    async def _provide(self, node: NodeFacade, *, on_before: bool) -> None:
        await self._accept(node)
        if self._as_json:
            self._tasks.spawn(self._follow_requests(node), name="requests", told=FAILURES)
        self._tasks.spawn(self._follow_receipts(node), name="receipts", told=FAILURES)
        await node.provide(True, keep=False)
        gone = node.gone if isinstance(node, AttachedNode) else asyncio.Event()
        failed = await self._serve(node, gone)
        if failed is not None:
            raise failed
        if not on_before:
            await self._end(node)

    async def _require_model(self, node: NodeFacade) -> None:
        """Raises NodeError `no_model` before anything is said of serving."""
        choices.find_model(node.settings.provide_model or node.settings.model, await node.list_models())

    async def _accept(self, node: NodeFacade) -> None:
        """Who starts this command wants to serve; what that means is said, the first time."""
        if await node.accept_serving():
            self._print("Before others use this machine's model (this is said once):")
            for point, meaning in points(capacity(node.settings), "Ctrl-C", LIMITS):
                self._print(f"- {point} {meaning}")

    async def _serve(self, node: NodeFacade, gone: asyncio.Event) -> NodeError | None:
        """Returns when the end was asked for, or why there is nothing left to do."""
        has_served = False
        while not self._asked.is_set():
            status = node.provider
            has_served = has_served or status.mode == "serving"
            # Later it is tried again by itself.
            if status.mode == "failed" and isinstance(node, Node) and not has_served:
                return NodeError("failed", status.reason, status.remedy)
            if gone.is_set():
                return NodeError(
                    "gone", "The infraxa that was served with has ended.", "Start infraxa serve again."
                )
            self._changed.clear()
            waits = [
                self._tasks.spawn(event.wait(), name="serve") for event in (self._changed, self._asked, gone)
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return None

    async def _end(self, node: NodeFacade) -> None:
        """Nobody new; those that are being answered get their answers, unless it is asked for again."""
        await node.provide(False, keep=False)
        if node.provider.mode == "draining" and (running := node.provider.running):
            answers = "answer" if running == 1 else "answers"
            self._print(f"finishing {running} {answers}; the same signal again ends now")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while node.provider.mode == "draining":
                    self._changed.clear()
                    again = self._tasks.spawn(self._asked_again.wait(), name="end now")
                    changed = self._tasks.spawn(self._changed.wait(), name="drained")
                    await asyncio.wait((again, changed), return_when=asyncio.FIRST_COMPLETED)
                    again.cancel()
                    changed.cancel()
                    if self._asked_again.is_set():
                        await node.provide(False, now=True, keep=False)
                        break
        await self._tell_requests(node)
        with contextlib.suppress(*FAILURES):  # they are kept, and told of by other commands
            await self._tell_receipts(node)

    def _handlers(self) -> dict[signal.Signals, Callable[[], None]]:
        """SIGTERM and Ctrl-C end in order, a second one now; SIGHUP reads config.toml again."""
        handlers = dict.fromkeys(ENDS, self._stop)
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self._reload
        return handlers

    def _stop(self) -> None:
        (self._asked_again if self._asked.is_set() else self._asked).set()

    def _reload(self) -> None:
        if self._node is not None:
            self._tasks.spawn(self._read_again(self._node), name="read the settings again")

    async def _read_again(self, node: NodeFacade) -> None:
        try:
            settings = await asyncio.to_thread(config.load, self._folders, self._flags)
            changed = await node.use_settings(settings)
        except FAILURES as error:  # a bad line in config.toml: all stays as it is
            self._say(Entry("reload", f"nothing was changed. {sentence(error)}", {"error": sentence(error)}))
        else:
            said = ", ".join(changed) or "nothing"
            self._say(Entry("reload", f"read the settings again; changed: {said}", {"changed": changed}))

    def _hear(self, event: Event) -> None:
        for entry in self._journal.take(event):
            self._say(entry)
        if isinstance(event, ProviderChanged):
            self._changed.set()
        elif isinstance(event, ServedChanged):
            self._served.set()
        elif isinstance(event, TradeChanged):
            self._traded.set()

    async def _follow_requests(self, node: NodeFacade) -> None:
        while True:
            await self._served.wait()
            await asyncio.sleep(CALM)
            self._served.clear()
            await self._tell_requests(node)

    async def _tell_requests(self, node: NodeFacade) -> None:
        for entry in self._journal.requests(await node.list_served()):
            self._say(entry)

    async def _follow_receipts(self, node: NodeFacade) -> None:
        while True:
            await self._tell_receipts(node)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE):
                    await self._traded.wait()
            await asyncio.sleep(CALM)
            self._traded.clear()

    async def _tell_receipts(self, node: NodeFacade) -> None:
        receipts = await node.list_receipts(role="provider", count=RECEIPTS)
        for entry in self._journal.receipts(receipts, time.time_ns() // 1_000_000):
            self._say(entry)

    def _pid(self, node: NodeFacade) -> int:
        return getattr(node, "pid", os.getpid())

    def _say(self, entry: Entry) -> None:
        if self._as_json:
            line = {"at": time.time_ns() // 1_000_000, "event": entry.event, **entry.fields}
            self._write(msgspec.json.encode(line).decode())
        elif entry.text:
            self._print(entry.text)

    def _print(self, text: str) -> None:
        if not self._as_json:
            moment = time.strftime("%H:%M:%S")
            for line in clean(text).splitlines():
                self._write(f"{moment}  {line}")

    def _write(self, line: str) -> None:
        try:
            print(line, flush=True)
        except OSError:
            # Whoever read it has gone. What the node tells must not fail for that: it ends in order.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            self._asked.set()


def _call_at_eof(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Read standard input to its end; runs in a thread of its own."""
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin is not None and sys.stdin.buffer.read(4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended before
        loop.call_soon_threadsafe(callback)
