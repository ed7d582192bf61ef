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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from infraxa.app import config
from infraxa.app.commands.output import clean, note
from infraxa.app.config import PREFIX, Settings
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders

PROVIDERS = ("maple", "cedar")
SLOTS = 4
READY_S = 60.0
"""Seconds in which a provider has started and loaded the guide."""
STOP_S = 8.0
"""Seconds in which a provider has said goodbye."""
NO_MONEY: Mapping[str, float] = {}


class Provider:
    """`infraxa serve` in a process of its own, and what it says."""

    def __init__(
        self,
        name: str,
        folder: Path,
        network: str,
        bootstrap: str,
        *,
        slots: int = SLOTS,
        mdns: bool = False,
        money: Mapping[str, float] = NO_MONEY,
        command: Sequence[str] = ("-m", "infraxa"),
    ) -> None:
        """`money`: options of `serve` in credits, by their names. `command`: what Python runs."""
        self.name = name
        self.folder = folder
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
            **{option: str(amount) for option, amount in money.items()},
        }
        given = [part for key, value in options.items() if value for part in (f"--{key}", value)]
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", *command, "--data-dir", str(folder), "serve"),
                # Without self-tests: what is sold here is sold to those who are seen to buy.
                *(
                    "--json-events",
                    "--until-eof",
                    "--no-self-test",
                    "--mdns" if mdns else "--no-mdns",
                    *given,
                ),
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
        from infraxa.app.commands.exchange import Exchange

        print("infraxa demo: two providers and a user on this machine, in a throw-away folder", flush=True)
        exchange = Exchange()
        with market(exchange.say) as (providers, settings, folders):
            code = asyncio.run(exchange.use(providers, settings, folders))
        exchange.say("all of it is thrown away")
        return code
    from infraxa.app.commands.open_app import require_terminal

    require_terminal()
    note("infraxa demo: starting two providers on this machine, each in its own process; a few seconds")
    with market(lambda line: None) as (_, settings, folders):
        from infraxa.app.tui.app import run

        return run(settings, folders)
