"""What the network adds to an answer: to its first token, and to its speed, at 1 and at 8 streams.

The user's node is this process; the provider is a process of its own, over loopback. Both have the same model
with the same options; local and remote answers take turns, and the median of the pairs' ratios counts. No
prompt is asked twice, so that neither side computes less of it than the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import statistics
import string
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
letters = random.Random(1)


class Run(NamedTuple):
    first_s: float
    tokens: int
    computed: int
    """Tokens of the prompt that no cache had."""


async def answer(node: Node, driver: str, tokens: int) -> Run:
    """One whole answer."""
    began = time.perf_counter()
    first = last = None
    n_out = computed = 0
    options = ChatOptions(
        driver=driver,
        # Of its own from the first letter on: nobody has more of it in a cache than the template's first words.
        system="".join(letters.choices(string.ascii_lowercase, k=8)),
        temperature=1.0,
        seed=7,
        max_tokens=tokens,
        min_p=0.0,
        top_p=1.0,
    )
    stream = node.ask(QUESTION, options)
    async with contextlib.aclosing(stream):
        async for item in stream:
            match item:
                case Delta(token_ids=ids):
                    last = time.perf_counter()
                    first = first or last
                    n_out += len(ids)
                case Finished(reason="failed", error=error):
                    raise AssertionError(error)
                case Finished(usage=usage) if usage is not None:
                    computed = usage.n_prompt - usage.n_cached
    assert first is not None and last is not None
    return Run(first - began, n_out, computed)


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
            warm = [(await answer(node, driver, 2), await answer(node, "local", 2)) for _ in range(PAIRS)]
            added = statistics.median(a.first_s - b.first_s for a, b in warm) * 1000
            print(f"{label}, first token in a session that stands: {added:+.1f} ms over the local engine's "
                  f"{statistics.median(b.first_s for _, b in warm) * 1000:.1f} ms")  # fmt: skip
        cold = []
        for number in range(COLD):
            async with running(folder / f"c{number}", mdns=False, **more) as node:
                await offers(node)
                cold.append(await answer(node, driver, 2))
        # The driver caches nothing for who is new; the local engine has the first words of its template.
        local = statistics.median(run.first_s / run.computed for _, run in warm)
        each = [(run.first_s - local * run.computed) * 1000 for run in cold]
        print(f"{label}, first token with connecting: {statistics.median(each):+.1f} ms over the local engine's "
              f"for as many prompt tokens (each: {' '.join(f'{one:+.1f}' for one in each)})")  # fmt: skip
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
