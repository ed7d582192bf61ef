"""`infraxa demo`: two providers and a user on this machine, in a folder that is thrown away.

Each provider is a process of its own, `infraxa serve` on loopback in a network that nobody else is in; the
user is the app, or with --headless one exchange that is printed with its timings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from infraxa.app import config
from infraxa.app.answering import Moved, Sent, Times, Waits
from infraxa.app.commands.output import clean, note
from infraxa.app.config import PREFIX, Settings
from infraxa.app.errors import NodeError
from infraxa.app.events import NodesChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.offers import OfferSeen
from infraxa.engine.types import Delta, Finished, Usage
from infraxa.net.identity import display, id_text
from infraxa.store.records import ChatOptions

PROVIDERS = ("maple", "cedar")
SLOTS = 4
READY_S = 60.0
"""Seconds in which a provider has started and loaded the guide."""
FOUND_S = 20.0
ANSWER_S = 60.0
STOP_S = 8.0
"""Seconds in which a provider has said goodbye."""
QUESTION = "What is a driver?"


class Provider:
    """`infraxa serve` in a process of its own, and what it says."""

    def __init__(
        self, name: str, folder: Path, network: str, bootstrap: str, *, slots: int = SLOTS, mdns: bool = False
    ) -> None:
        self.name = name
        self.port = 0
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        """None: it has ended."""
        self._serving = False
        self._said: list[str] = []
        """The end of what it wrote to standard error."""
        options = {
            "name": name,
            "network": network,
            "listen-hosts": "127.0.0.1",
            "listen-port": "0",
            "slots": str(slots),
            "threads": "1",
            "bootstrap": bootstrap,
        }
        given = [part for key, value in options.items() if value for part in (f"--{key}", value)]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "infraxa", "--data-dir", str(folder), "serve"),
                *("--json-events", "--until-eof", "--mdns" if mdns else "--no-mdns", *given),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the demo, which ends its providers in order.
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if not key.startswith(PREFIX)},
        )
        for stream, take in ((self._process.stdout, self._event), (self._process.stderr, self._line)):
            assert stream is not None
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self, stream: IO[bytes], take: Any) -> None:
        for line in stream:
            take(line)
        take(None)

    def _event(self, line: bytes | None) -> None:
        if not self._serving:  # nobody asks for the later ones
            self._events.put(None if line is None else msgspec.json.decode(line))

    def _line(self, line: bytes | None) -> None:
        if line is not None:
            self._said = [*self._said[-20:], clean(line.decode("utf-8", "replace")).strip()]

    def wait_serving(self) -> None:
        """Until it serves. Raises NodeError `failed` with what it said."""
        until = time.monotonic() + READY_S
        serving = False
        while not (serving and self.port):
            try:
                event = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise NodeError(
                    "timeout",
                    f"The provider {self.name} did not serve within {READY_S:g} s.",
                    "Close other programs, then try again.",
                ) from None
            if event is None:
                self._process.wait(STOP_S)
                raise NodeError("failed", f"The provider {self.name} ended: {' '.join(self._said[-3:])}")
            if event["event"] == "listening":
                self.port = int(event["addresses"][0].rpartition(":")[2])
            elif event["event"] == "provider":
                serving = event["mode"] == "serving"
        self._serving = True

    def stop(self) -> None:
        """It says goodbye and ends."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def wait_stopped(self) -> None:
        """Bounded; what does not end by itself is killed."""
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def market(say: Any) -> Iterator[tuple[list[Provider], Settings, Folders]]:
    """Two providers that serve, and what their user needs. All of it is gone at the end."""
    root = Path(tempfile.mkdtemp(prefix="infraxa-demo-"))
    providers: list[Provider] = []
    network = f"demo-{secrets.token_hex(6)}"
    try:
        for name in PROVIDERS:
            bootstrap = f"127.0.0.1:{providers[0].port}" if providers else ""
            providers.append(Provider(name, root / name, network, bootstrap))
            say(f"started {name}: process {providers[-1].pid}")
            providers[-1].wait_serving()
            say(f"{name} listens on 127.0.0.1:{providers[-1].port} and serves the built-in guide")
        flags = {
            "name": "you",
            "network": network,
            "listen_hosts": "127.0.0.1",
            "listen_port": 0,
            "mdns": False,
            "bootstrap": ",".join(f"127.0.0.1:{provider.port}" for provider in providers),
            "threads": 1,
        }
        folders = Folders.find(root / "you", {})
        yield providers, config.load(folders, flags, {}), folders
    finally:
        for provider in providers:
            provider.stop()
        for provider in providers:
            provider.wait_stopped()
        shutil.rmtree(root, ignore_errors=True)


def demo(*, headless: bool) -> int:
    """Returns the exit code. Raises NodeError when a part of it does not start."""
    if headless:
        return _Exchange().run()
    from infraxa.app.commands.open_app import require_terminal

    require_terminal()
    note("infraxa demo: starting two providers on this machine, each in its own process; a few seconds")
    with market(lambda line: None) as (_, settings, folders):
        from infraxa.app.tui.app import run

        return run(settings, folders)


class _Exchange:
    """One question and its answer, printed with the time since the start."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def run(self) -> int:
        print("infraxa demo: two providers and a user on this machine, in a throw-away folder", flush=True)
        with market(self._say) as (providers, settings, folders):
            code = asyncio.run(self._use(providers, settings, folders))
        self._say("all of it is thrown away")
        return code

    def _say(self, line: str) -> None:
        print(f"{time.perf_counter() - self._began:7.3f} s  {clean(line)}", flush=True)

    async def _use(self, providers: list[Provider], settings: Settings, folders: Folders) -> int:
        from infraxa.app.node import Node

        node = Node(settings, folders, load_model=False)
        started = time.perf_counter()
        await node.start()
        try:
            offers = await self._discover(node, len(providers))
            took = (time.perf_counter() - started) * 1000
            self._say(f"discovered {len(offers)} offers, {took:.0f} ms after this node began to start:")
            for offer in offers:
                self._say(f"  {_offer_text(offer)}")
            first, second = offers[0], offers[1]
            await self._ask(node, first)
            await self._ask(node, second)
        finally:
            await node.close()
        return 0

    async def _discover(self, node: NodeFacade, wanted: int) -> list[OfferSeen]:
        changed = asyncio.Event()
        end = node.subscribe(lambda event: changed.set() if isinstance(event, NodesChanged) else None)
        try:
            async with asyncio.timeout(FOUND_S):
                while len(offers := await node.list_offers()) < wanted:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            raise NodeError("timeout", f"Not both providers were found within {FOUND_S:g} s.") from None
        finally:
            end()
        return offers

    async def _ask(self, node: NodeFacade, offer: OfferSeen) -> None:
        name = display(offer.node.name, offer.node.id)
        self._say(f"you ask {name}: {QUESTION}")
        asked = time.perf_counter()
        text, readers, first, times = "", [], None, Times()
        stream = node.ask(
            QUESTION,
            ChatOptions(
                driver=id_text(offer.node.id), driver_model=offer.model.model_id.hex(), temperature=0.0
            ),
        )
        try:
            async with asyncio.timeout(ANSWER_S), contextlib.aclosing(stream):
                async for item in stream:
                    match item:
                        case Waits(what=what):
                            self._say(f"  waiting for {what}")
                        case Sent(reader=reader):
                            readers.append(reader.name)
                            self._say(f"  a slot is ours: the prompt goes out, sealed for {name}")
                        case Moved(reason=reason) if reason:
                            self._say(f"  {reason}")
                        case Delta(text=more):
                            if first is None:
                                first = time.perf_counter() - asked
                            text += more
                        case Times():
                            times = item
                        case Finished(reason="failed", error=error) if error is not None:
                            raise NodeError(error.code, error.message, error.remedy)
                        case Finished(usage=usage):
                            self._say(f"  {name} answers: {' '.join(text.split())}")
                            self._say(
                                f"  {_facts(usage, times, first)} · readable by {', '.join(readers)} only"
                            )
        except TimeoutError:
            raise NodeError(
                "timeout",
                f"{name} did not answer within {ANSWER_S:g} s.",
                "Close other programs, then try again.",
            ) from None


def _offer_text(offer: OfferSeen) -> str:
    node, model = offer.node, offer.model
    return (
        f"{display(node.name, node.id)} serves {model.name} ({model.quantization}), "
        f"{model.context:,} tokens of context, {node.slots} at a time, free"
    )


def _facts(usage: Usage, times: Times, first_s: float | None) -> str:
    """What was measured of an answer."""
    rate = usage.tokens_per_second
    parts = [
        "" if times.connect_ms is None else f"connected in {times.connect_ms:.1f} ms",
        "" if first_s is None else f"first token after {first_s * 1000:.0f} ms",
        "" if rate is None else f"{rate:.0f} tok/s",
        f"{usage.n_out} tokens, counted here",
    ]
    return " · ".join(part for part in parts if part)
