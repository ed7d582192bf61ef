"""What the network adds to an answer: to its first token, and to its speed, at 1 and at 8 streams.

The user's node is this process; the provider is a process of its own, over loopback. Both have the same model
with the same options; local and remote answers take turns, and the median of the pairs' ratios counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from infraxa.app.commands.demo import Provider
from infraxa.app.node import Node
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import Delta, Finished
from infraxa.net.identity import id_text
from infraxa.store.records import ChatOptions
from tests.app.networked import running
from tests.crowd import offers
from tests.random_model import write_random_model

PAIRS = 9
COLD = 9
STREAMS = (1, 8)
SLOTS = 9
"""One more than streams: a provider keeps one for its owner."""
QUESTION = "Tell me about infraxa."


class Run(NamedTuple):
    first_s: float
    tokens: int
    decode_s: float


async def answer(node: Node, driver: str, tokens: int) -> Run:
    """One whole answer."""
    began = time.perf_counter()
    first = last = None
    n_out = 0
    stream = node.ask(
        QUESTION, ChatOptions(driver=driver, temperature=1.0, seed=7, max_tokens=tokens, min_p=0.0, top_p=1.0)
    )
    async with contextlib.aclosing(stream):
        async for item in stream:
            match item:
                case Delta(token_ids=ids):
                    last = time.perf_counter()
                    first = first or last
                    n_out += len(ids)
                case Finished(reason="failed", error=error):
                    raise AssertionError(error)
    assert first is not None and last is not None
    return Run(first - began, n_out, last - first)


async def together(node: Node, driver: str, streams: int, tokens: int) -> float:
    """Tokens per second of all streams together."""
    began = time.perf_counter()
    runs = await asyncio.gather(*(answer(node, driver, tokens) for _ in range(streams)))
    return sum(run.tokens for run in runs) / (time.perf_counter() - began)


def ratios(name: str, pairs: list[tuple[float, float]], unit: str) -> None:
    remote = statistics.median(pair[0] for pair in pairs)
    local = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name}: {ratio:.3f}  ({remote:.0f} / {local:.0f} {unit})  pairs "
          + " ".join(f"{a / b:.2f}" for a, b in pairs))  # fmt: skip


async def measure(folder: Path, model: Path | None, label: str, tokens: int) -> None:
    network = f"bench {os.getpid()} {label}"
    if model is not None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("INFRAXA_")}
        for who in ("p", "u"):
            command = ["-P", "-m", "infraxa", "--data-dir", str(folder / who), "models", "add", str(model)]
            await asyncio.to_thread(
                subprocess.run, [sys.executable, *command], check=True, env=env, capture_output=True
            )
    provider = Provider("p", folder / "p", network, "", slots=SLOTS)
    try:
        await asyncio.to_thread(provider.wait_serving)
        more = {"network": network, "bootstrap": f"127.0.0.1:{provider.port}", "listen_hosts": "127.0.0.1"}
        async with running(folder / "u", mdns=False, slots=SLOTS, threads=1, **more) as node:
            (offer,) = await offers(node)
            driver = id_text(offer.node.id)
            for who in (driver, "local"):
                await together(node, who, 8, 16)  # both are loaded and warm
            for streams in STREAMS:
                pairs = [
                    (
                        await together(node, driver, streams, tokens),
                        await together(node, "local", streams, tokens),
                    )
                    for _ in range(PAIRS)
                ]
                ratios(f"{label}, {streams} streams, remote / local", pairs, "tok/s")
            warm = [
                ((await answer(node, driver, 2)).first_s, (await answer(node, "local", 2)).first_s)
                for _ in range(PAIRS)
            ]
            added = statistics.median(a - b for a, b in warm) * 1000
            print(f"{label}, first token in a session that stands: {added:+.1f} ms over the local engine's "
                  f"{statistics.median(b for _, b in warm) * 1000:.1f} ms")  # fmt: skip
        cold = []
        for number in range(COLD):
            async with running(folder / f"c{number}", mdns=False, **more) as node:
                await offers(node)
                cold.append((await answer(node, driver, 2)).first_s)
        local = statistics.median(b for _, b in warm)
        added = (statistics.median(cold) - local) * 1000
        each = " ".join(f"{(one - local) * 1000:+.1f}" for one in cold)
        print(f"{label}, first token with connecting: {added:+.1f} ms over the local engine's (each: {each})")
    finally:
        provider.stop()
        await asyncio.to_thread(provider.wait_stopped)


async def bench() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for label in ("guide", "130M"):
            (root / label).mkdir()
        await measure(root / "guide", None, "guide", 200)
        model = root / "random.gguf"
        write_random_model(model, GUIDE_PATH, layers=16, dim=1024)
        await measure(root / "130M", model, "130M", 64)


def main() -> None:
    asyncio.run(bench())


if __name__ == "__main__":
    main()
