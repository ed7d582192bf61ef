"""What the Market view costs while every provider changes every second, next to the same app at rest.

The app runs in a real terminal, 500 providers in its market; they begin to change when the view is opened.
CPU of its process, as the operating system counts it; what it costs to change the nodes and to list their
offers is in it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil

from infraxa.app.config import Settings
from infraxa.app.events import NodesChanged
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.app.offers import OfferSeen
from infraxa.app.tui.app import InfraxaApp
from infraxa.app.tui.screens.market import SETTLED
from infraxa.net.status import SeenNode
from tests.app.still import StillNode, offered, seen
from tests.e2e.terminal import Terminal

PROVIDERS = 500
SECONDS = 2 * SETTLED
"""A window: twice in it all rows take new places."""
WINDOWS = 3
BUDGET = 0.08
"""Of one core."""
MODELS = ("Qwen3-8B", "gemma-3-4b-it", "Llama-3.3-70B-Instruct", "Mistral-Small-3.2-24B", "SmolLM3-3B")


class Market(StillNode):
    """Every second every node says something else: its state, load, news, round trip, time to first token."""

    models_each = 1

    async def start(self) -> None:
        await super().start()
        self._random = random.Random(1)
        self._nodes = [
            seen(
                f"node-{at}", at % 40, f"ws://198.51.100.{at % 250}:7741", slots=8, models=tuple(
                    offered("", MODELS[(at + model) % len(MODELS)], f"Q4_{model}", speed=20 + at % 60).model
                    for model in range(self.models_each)
                ),
            )
            for at in range(PROVIDERS)
        ]  # fmt: skip
        self._changing: asyncio.Task[None] | None = None

    async def list_offers(self) -> list[OfferSeen]:
        if self._changing is None:
            self._changing = self._tasks.spawn(self._change(), name="change the market")
        return self._drivers.offers(self._nodes)

    async def _change(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._nodes = [self._changed(node) for node in self._nodes]
            self._emit(NodesChanged())

    def _changed(self, node: SeenNode) -> SeenNode:
        draw = self._random.random
        return msgspec.structs.replace(
            node,
            status="busy" if draw() < 0.1 else "online",
            age_s=draw() * 60,
            util=int(draw() * 255),
            rtt_ms=1 + draw() * 200,
            first_token_ms=int(100 + draw() * 900),
        )


def child(folder: str, models_each: int) -> None:
    """The app, on this process's terminal."""
    Market.models_each = models_each

    async def open_node(settings: Settings, folders: Folders) -> Node:
        return Market(settings, folders)

    settings = Settings(online=False, threads=1, reduced_motion=True)
    gc.disable()  # as open_app does: what is made at the start is never looked through
    InfraxaApp(settings, Folders.find(Path(folder), {}), open_node=open_node).run()


def shares(models_each: int, size: tuple[int, int]) -> tuple[float, float]:
    """CPU seconds per second of the app: at rest, in its chat; and in the Market view, the median of some
    windows."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        argv = [sys.executable, "-m", "tests.bench.market_view", folder, str(models_each)]
        terminal = Terminal(argv, env, size=size)
        try:
            terminal.wait_for("peers", seconds=60)
            _drain(terminal, 3.0)
            rest = _share(terminal)
            terminal.press("alt+m")
            terminal.wait_for("providers there", seconds=60)
            _drain(terminal, 3.0)
            market = []
            for _ in range(WINDOWS):
                before = terminal.text
                market.append(_share(terminal))
                if terminal.text == before:
                    raise AssertionError(f"nothing changed on the screen:\n{terminal.text}")
            return rest, statistics.median(market)
        finally:
            terminal.close()


def _share(terminal: Terminal) -> float:
    """CPU seconds per second, over one window."""
    process = psutil.Process(terminal.process.pid)
    before, start = process.cpu_times(), time.monotonic()
    _drain(terminal, SECONDS)
    after, passed = process.cpu_times(), time.monotonic() - start
    return (after.user + after.system - before.user - before.system) / passed


def _drain(terminal: Terminal, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        terminal.read(0.2)


def main() -> None:
    for models_each, size in ((1, (120, 36)), (1, (200, 60)), (8, (200, 60))):
        rest, market = shares(models_each, size)
        within = "within" if market <= BUDGET else "OVER"
        print(
            f"{PROVIDERS} providers of {models_each} model{'s' * (models_each != 1)} changing every second, "
            f"{size[0]}x{size[1]}: {market:.1%} of a core, {within} {BUDGET:.0%}; "
            f"{market / max(rest, 0.001):.1f} × the app at rest ({rest:.1%})",
            flush=True,
        )


if __name__ == "__main__":
    child(sys.argv[1], int(sys.argv[2]))
