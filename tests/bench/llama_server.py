"""The engine next to llama.cpp's own server: same file, threads, slots and native code, one after the other.

Both answer the same prompts greedily, over what their users have: a pipe here, HTTP there. All figures are
ratios of what was measured within one pair, medians of pairs in turns; below 1 is less than llama-server.

`BENCH_ONLY` names the parts to run (speed, turns, system, admission, python), `BENCH_MODEL` one of the models
(guide, 5M, 130M, 0.6B), `BENCH_PAIRS` how many pairs, `BENCH_THREADS` the threads, `BENCH_FLASH` the
server's --flash-attn (else what the engine chose for itself).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.sizing import free_cores
from infraxa.engine.types import LoadOptions
from tests.bench._llama_server import LlamaServer
from tests.bench._python_share import python_share
from tests.bench._sides import Asked, Got, Ours, Side
from tests.random_model import write_random_model

CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
LOOK_S = 4.0
"""Running streams are measured so long before somebody comes."""
PAIRS = int(os.environ.get("BENCH_PAIRS", "9"))
WORDS = (
    "the driver answers a prompt and its price is locked before Enter while peers gossip about their health"
).split()


class Model(NamedTuple):
    name: str
    path: Path
    n_out: int
    """Tokens of an answer, at most."""
    template: str = "{}"
    """What a question is put into: without it the guide has nothing to say."""


def text(tokens: int, pair: int, which: int = 0) -> str:
    """About so many tokens; no other pair, and no other one of this pair, begins so."""
    topic = pair * 100 + which
    words = [f"{topic}."]
    words += (WORDS[(topic * 7 + i * (topic % 5 + 1)) % len(WORDS)] for i in range(tokens * 6 // 7))
    return " ".join(words)


@asynccontextmanager
async def both(model: Model, slots: int, n_ctx: int, *, parking: bool = False) -> AsyncIterator[list[Side]]:
    """The engine and the server, running. `parking`: what loses its slot is kept in main memory."""
    threads = int(os.environ.get("BENCH_THREADS", "0")) or free_cores()
    options = LoadOptions(n_ctx=n_ctx, slots=slots, threads=threads, park_bytes=None if parking else 0)
    flags: tuple[str, ...] = () if parking else ("--cache-ram", "0")
    ours = Ours(model.path, options)
    sides: list[Side] = [ours]
    try:
        await ours.start()
        flags += ("--flash-attn", os.environ.get("BENCH_FLASH", ours.loaded.flash_attention))
        theirs = LlamaServer(model.path, slots=slots, n_ctx=n_ctx, threads=threads, flags=flags)
        sides.append(theirs)
        await theirs.start()
        yield sides
    finally:
        for side in sides:
            await side.close()


async def together(side: Side, asked: Sequence[Asked]) -> list[Got]:
    return list(await asyncio.gather(*(side.ask(one) for one in asked)))


async def pairs(
    sides: Sequence[Side], run: Callable[[Side, int], Awaitable[dict[str, float]]], n: int = PAIRS
) -> dict[str, tuple[list[float], list[float]]]:
    """What `run` measures, for both sides, so many times in turns; the first of each is not counted.

    `run` gets the side and a number that is the same for both sides of a pair.
    """
    found: dict[str, tuple[list[float], list[float]]] = {}
    for number in range(n + 1):
        order = sides if number % 2 else tuple(reversed(sides))
        for side in order:
            for name, value in (await run(side, number)).items():
                found.setdefault(name, ([], []))[side is not sides[0]].append(value)
    return {name: (ours[1:], theirs[1:]) for name, (ours, theirs) in found.items()}


def show(what: str, found: dict[str, tuple[list[float], list[float]]]) -> None:
    for name, (ours, theirs) in found.items():
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{what}, {name}: {statistics.median(ratios):.3f} of llama-server "
            f"({statistics.median(ours):.4g} and {statistics.median(theirs):.4g}; "
            f"pairs {' '.join(f'{r:.2f}' for r in ratios)})",
            flush=True,
        )


async def speed(model: Model) -> None:
    """Tokens per second and time to first token with streams that begin together."""
    for streams in (1, 4, 8, 16):
        async with both(model, streams, 1024) as sides:

            async def run(side: Side, number: int, streams: int = streams) -> dict[str, float]:
                asked = [
                    Asked(model.template.format(text(48, number, i)), model.n_out) for i in range(streams)
                ]
                began = time.perf_counter()
                got = await together(side, asked)
                seconds = time.perf_counter() - began
                rate = sum(one.n_out for one in got) / seconds
                first = statistics.mean(one.first_token_s for one in got)
                return {"tokens/s": rate, "first token, s": first}

            show(f"{model.name}, {streams} streams", await pairs(sides, run))
            ours, theirs = (side.memory() for side in sides)
            print(
                f"{model.name}, {streams} streams, memory: {ours / theirs:.3f} ({ours >> 20} MiB)", flush=True
            )


async def turns(model: Model) -> None:
    """The second turn of a long chat."""
    async with both(model, 4, 3072, parking=True) as sides:

        async def run(side: Side, number: int) -> dict[str, float]:
            first = text(1900, number)
            await side.ask(Asked(first, 16))
            began = time.perf_counter()
            got = await side.ask(Asked(f"{first} so it is. {text(30, number, 1)}", 1))
            new = got.n_prompt - got.n_cached
            return {"second turn, s": time.perf_counter() - began, "tokens read": new}

        show(f"{model.name}, chat of 2000 tokens", await pairs(sides, run, max(3, PAIRS // 2)))


async def system(model: Model) -> None:
    """Eight users with one long system prompt, who come together, and their second turns."""
    for slots in (8, 4):
        async with both(model, slots, 2048, parking=True) as sides:

            async def run(side: Side, number: int) -> dict[str, float]:
                common = text(1000, number)
                began = time.perf_counter()
                questions = [f"{common} {text(30, number, i)}" for i in range(8)]
                await together(side, [Asked(question, 8) for question in questions])
                first = time.perf_counter() - began
                began = time.perf_counter()
                more = [Asked(f"{question} yes. {text(30, number, 8)}", 8) for question in questions]
                got = await together(side, more)
                return {
                    "all have their 8 tokens, s": first,
                    "second turns, s": time.perf_counter() - began,
                    "second turns, tokens read": sum(one.n_prompt - one.n_cached for one in got),
                }

            show(f"{model.name}, 8 users, {slots} slots", await pairs(sides, run, max(3, PAIRS // 3)))


async def admission(model: Model) -> None:
    """How much four running streams slow down while a prompt of 4000 tokens is read.

    Steps take longer the more has been said: what they slow down from is the same four streams over the same
    tokens, with nobody coming.
    """
    async with both(model, 5, 6144) as sides:

        async def run(side: Side, number: int) -> dict[str, float]:
            prompts = [text(32, number, i) for i in range(4)]
            slowed = [Got() for _ in prompts]
            streams = [
                asyncio.ensure_future(side.ask(Asked(prompt, 5000), got))
                for prompt, got in zip(prompts, slowed, strict=True)
            ]
            await asyncio.sleep(LOOK_S)
            came = time.perf_counter()
            await side.ask(Asked(text(4000, number, 9), 1))
            until = time.perf_counter()
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            first = sum(t <= came for got in slowed for t in got.times)
            alone = await together(
                side,
                [
                    Asked(prompt, sum(t <= until for t in got.times))
                    for prompt, got in zip(prompts, slowed, strict=True)
                ],
            )
            times = sorted(t for got in alone for t in got.times)
            gaps = [b - a for got in slowed for a, b in pairwise(got.times) if came <= b]
            found = {
                "streams' tokens/s of those with nobody coming, %": 100
                * (times[-1] - times[first - 1])
                / (until - came),
                "longest silence of a stream, s": max(gaps, default=until - came),
                "newcomer's first token, s": until - came,
            }
            print(f"  {model.name}, {side.name}: {found}", flush=True)
            return found

        show(f"{model.name}, 4000 tokens admitted", await pairs(sides, run, min(3, PAIRS)))


async def _all() -> None:
    only = os.environ.get("BENCH_ONLY", "speed,turns,system,admission,python").split(",")
    with tempfile.TemporaryDirectory() as folder:
        tiny, small, real = (Path(folder) / f"{name}.gguf" for name in ("tiny", "small", "real"))
        models = {
            "guide": Model("guide", GUIDE_PATH, 64, CHAT),
            "5M": Model("random 8x256 (5M)", tiny, 200),
            "130M": Model("random 12x1024 (130M)", small, 48),
            "0.6B": Model("random 28x1024 (0.6B)", real, 48),
        }
        chosen = os.environ.get("BENCH_MODEL", "guide,5M,130M,0.6B").split(",")
        write_random_model(tiny, GUIDE_PATH, layers=8, dim=256)
        write_random_model(small, GUIDE_PATH, layers=12, dim=1024, context=8192)
        write_random_model(
            real, GUIDE_PATH, layers=28, dim=1024, ffn=3072, head=128, n_vocab=151_936, context=8192
        )
        parts = {
            "speed": speed,
            "turns": turns,
            "system": system,
            "admission": admission,
            "python": python_share,
        }
        for part in only:
            for name in chosen:
                # Their context is too short for what is not about speed.
                if part in ("speed", "python") or name not in ("guide", "5M"):
                    await parts[part](models[name])


def main() -> None:
    asyncio.run(_all())


if __name__ == "__main__":
    main()
