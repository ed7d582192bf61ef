"""What the network adds to an answer, and what money adds to that: to the first token, and to the speed, at 1
and at 8 streams. And what it takes off the speed at 8 streams that answers can be audited.

The user's node is this process; two providers are processes of their own, over loopback: one is free, one is
paid. All have the same model with the same options; their answers take turns, and the median of the pairs'
ratios counts. No prompt is asked twice, so that no side computes less of it than another.

The guide's answers are short, and its tokens cost next to nothing: there an order weighs the most. So it is
also said how many ms of wall and of CPU money adds to an order, and from which length of answers on that is
2 %. An order that is free has a hold, a receipt and its posts, too, of nothing; money adds the quote to that.

An answer with a seed of its own cannot be audited: those by which verifying is measured have none, neither
with it nor without. Audits are off: what counts is what each answer takes. The worker's part of that is in
transcript.py.

`BENCH_ONLY` is which of speed, verify and first is measured, `BENCH_MODELS` with which of guide, small, 130M
and 0.6B (with commas; the last takes long, and is measured only where it is named), `BENCH_PAIRS` how many
pairs.
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
from typing import Any, NamedTuple

import psutil

from infraxa.app.commands.demo import Provider
from infraxa.app.node import Node
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import Delta, Finished
from infraxa.net.identity import id_text
from infraxa.net.records import MODE_FRAUD_PROOF
from infraxa.store.records import ChatOptions
from tests.app.networked import running
from tests.crowd import CAPS, CREDIT, offers
from tests.random_model import write_random_model

PAIRS = int(os.environ.get("BENCH_PAIRS", "9"))
COLD = PAIRS
PARTS = ("speed", "verify", "first")
ONLY = os.environ.get("BENCH_ONLY", ",".join(PARTS)).split(",")
LABELS = os.environ.get("BENCH_MODELS", "guide,small,130M").split(",")
STREAMS = (1, 8)
SETTLED_S = 0.3
SLOTS = 9
"""One more than streams: a provider keeps one for its owner."""
LONG = 192
"""Tokens: it is random, and does not end before."""
MODELS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("guide", {}, 200),
    ("small", {"layers": 4, "dim": 256}, LONG),
    ("130M", {"layers": 16, "dim": 1024}, 64),
    ("0.6B", {"layers": 28, "dim": 1024, "ffn": 3072, "head": 128, "n_vocab": 151_936}, 64),
)
"""Each with the most tokens of an answer."""
QUESTION = "Tell me about infraxa."
letters = random.Random(1)


ENOUGH = 0.98
"""Of the speed of what is free."""


class Round(NamedTuple):
    """Answers at the same time."""

    tokens: int
    seconds: float
    cpu: float
    """Seconds of CPU of the node that asks and of the one that answers, without their engines."""

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


class Run(NamedTuple):
    first_s: float
    tokens: int
    computed: int
    """Tokens of the prompt that no cache had."""


async def answer(node: Node, driver: str, tokens: int, seed: int | None = 7) -> Run:
    """One whole answer. A random model may say nothing: then it is asked again."""
    while (run := await _answer(node, driver, tokens, seed)) is None:
        pass
    return run


async def _answer(node: Node, driver: str, tokens: int, seed: int | None) -> Run | None:
    began = time.perf_counter()
    first = last = None
    n_out = computed = 0
    options = ChatOptions(
        driver=driver,
        # Of its own from the first letter on: no cache has more of it than the template's first words.
        system="".join(letters.choices(string.ascii_lowercase, k=8)),
        temperature=1.0,
        seed=seed,
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
    if first is None:
        return None
    return Run(first - began, n_out, computed)


async def together(
    node: Node, driver: str, streams: int, tokens: int, pid: int | None = None, seed: int | None = 7
) -> Round:
    """All streams together; `pid`: the process of the driver."""
    processes = [psutil.Process(one) for one in (os.getpid(), pid) if one is not None]
    before, began = _cpu(processes), time.perf_counter()
    runs = await asyncio.gather(*(answer(node, driver, tokens, seed) for _ in range(streams)))
    seconds = time.perf_counter() - began
    await asyncio.sleep(SETTLED_S)  # its receipts, too
    return Round(sum(run.tokens for run in runs), seconds, _cpu(processes) - before)


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


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
        for who in ("p", "q", "u"):
            command = ["-P", "-m", "infraxa", "--data-dir", str(folder / who), "models", "add", str(model)]
            await asyncio.to_thread(
                subprocess.run, [sys.executable, *command], check=True, env=env, capture_output=True
            )
    free = Provider("p", folder / "p", network, "", slots=SLOTS, money={"base-price": 0.0})
    try:
        await asyncio.to_thread(free.wait_serving)
        where = f"127.0.0.1:{free.port}"
        paid = Provider("q", folder / "q", network, where, slots=SLOTS, money=CREDIT)
        try:
            await asyncio.to_thread(paid.wait_serving)
            more = {"network": network, "bootstrap": f"{where},127.0.0.1:{paid.port}", **CAPS, "audit": "off"}
            pids = (free.pid, paid.pid)
            await compare(folder, label, tokens, {**more, "listen_hosts": "127.0.0.1"}, pids)
        finally:
            paid.stop()
            await asyncio.to_thread(paid.wait_stopped)
    finally:
        free.stop()
        await asyncio.to_thread(free.wait_stopped)


async def compare(folder: Path, label: str, tokens: int, more: dict[str, Any], pids: tuple[int, int]) -> None:
    """Print what was measured with the providers that run: the free one, and the paid one."""
    async with running(folder / "u", mdns=False, slots=SLOTS, threads=1, **more) as node:
        found = sorted(await offers(node, 2), key=lambda offer: offer.price_out)
        assert all(offer.model.modes & MODE_FRAUD_PROOF for offer in found)
        free, paid = (id_text(offer.node.id) for offer in found)
        for who in (free, paid, "local"):
            await together(node, who, 8, 16)  # all are loaded and warm
        drivers = ((free, pids[0]), (paid, pids[1]), ("local", None))
        if "speed" in ONLY:
            await _speed(node, label, tokens, drivers)
        if "verify" in ONLY:
            for kind, (who, pid) in zip(("free", "paid"), drivers, strict=False):
                await _verified(node, f"{label}, {STREAMS[-1]} streams, {kind}", tokens, who, pid)
        if "first" not in ONLY:
            return
        warm = [[await answer(node, who, 2) for who, _ in drivers] for _ in range(PAIRS)]
        for what, one, other in (("over the local engine", 0, 2), ("for money", 1, 0)):
            added = statistics.median(run[one].first_s - run[other].first_s for run in warm) * 1000
            print(f"{label}, first token in a session that stands: {added:+.1f} ms {what} "
                  f"({statistics.median(run[other].first_s for run in warm) * 1000:.1f} ms)")  # fmt: skip
    cold = []
    for number in range(COLD):
        async with running(folder / f"c{number}", mdns=False, **more) as node:
            await offers(node, 2)
            cold.append(await answer(node, free, 2))
    # The driver caches nothing for who is new; the local engine has the first words of its template.
    local = statistics.median(run.first_s / run.computed for _, _, run in warm)
    each = [(run.first_s - local * run.computed) * 1000 for run in cold]
    print(f"{label}, first token with connecting: {statistics.median(each):+.1f} ms over the local engine's "
          f"for as many prompt tokens (each: {' '.join(f'{one:+.1f}' for one in each)})")  # fmt: skip


async def _speed(node: Node, label: str, tokens: int, drivers: tuple[tuple[str, int | None], ...]) -> None:
    for streams in STREAMS:
        rounds = [
            [await together(node, who, streams, tokens, pid) for who, pid in drivers] for _ in range(PAIRS)
        ]
        name = f"{label}, {streams} streams"
        ratios(f"{name}, remote / local", [(a.speed, c.speed) for a, _, c in rounds], "tok/s")
        ratios(f"{name}, paid / free", [(b.speed, a.speed) for a, b, _ in rounds], "tok/s")
        _what_it_adds(name, streams, [(a, b) for a, b, _ in rounds])


async def _verified(node: Node, name: str, tokens: int, driver: str, pid: int | None) -> None:
    """Answers that can be audited, and those that cannot, in turns."""
    rounds = []
    for number in range(PAIRS):
        made = dict[str, Round]()
        for mode in ("fraud_proof", "none") if number % 2 else ("none", "fraud_proof"):
            await node.change_setting("verify", mode)
            made[mode] = await together(node, driver, STREAMS[-1], tokens, pid, seed=None)
        rounds.append((made["fraud_proof"], made["none"]))
    await node.change_setting("verify", "fraud_proof")
    ratios(f"{name}, verified / not", [(one.speed, other.speed) for one, other in rounds], "tok/s")
    each = [
        sum(one.cpu for one in kind) / sum(one.tokens for one in kind) for kind in zip(*rounds, strict=True)
    ]
    print(
        f"{name}: {each[0] * 1e6:.0f} instead of {each[1] * 1e6:.0f} us of CPU per token on both sides, "
        "without their engines"
    )


def _what_it_adds(name: str, streams: int, pairs: list[tuple[Round, Round]]) -> None:
    length = statistics.mean(free.tokens for free, _ in pairs) / streams
    speed = statistics.median(free.speed for free, _ in pairs)
    wall = statistics.median(paid.tokens / paid.speed - paid.tokens / free.speed for free, paid in pairs)
    cpu = [
        1000 / streams * statistics.median(one.cpu for one in column) for column in zip(*pairs, strict=True)
    ]
    enough = max(0.0, wall) * speed / streams * ENOUGH / (1 - ENOUGH)
    print(
        f"{name}: answers of {length:.0f} tokens; money adds {wall * 1000 / streams:+.1f} ms to an order, "
        f"{cpu[1]:.1f} instead of {cpu[0]:.1f} ms of CPU on both sides; {ENOUGH} from {enough:.0f} tokens on"
    )


async def bench() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for label, shape, tokens in MODELS:
            if label not in LABELS:
                continue
            (root / label).mkdir()
            model = root / f"{label}.gguf" if shape else None
            if model is not None:
                write_random_model(model, GUIDE_PATH, **shape)
            await measure(root / label, model, label, tokens)


def main() -> None:
    asyncio.run(bench())


if __name__ == "__main__":
    main()
