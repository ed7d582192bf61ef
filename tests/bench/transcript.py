"""What it costs that answers can be verified: repeatable draws, and a leaf for each token.

The same prompts are answered with and without, in turns, in the worker's loop as far as the frames to the
host. What a token's parts take is measured beside, next to the plainest way to compute the same. With
what the provider and the user do besides, over a link, it is in orders.py.

`BENCH_PAIRS` is how many pairs, `BENCH_THREADS` the threads, `BENCH_LAYERS` the depth of the model.
"""

from __future__ import annotations

import hashlib
import math
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infraxa.engine import frames, gumbel, transcript
from infraxa.engine.batching import Batcher
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.gumbel import Draw, choose, draw_of
from infraxa.engine.models import read_metadata
from infraxa.engine.opening import open_model
from infraxa.engine.sizing import free_cores
from infraxa.engine.transcript import Leaf, Tree, encode_leaf, leaf_tag, quantised
from infraxa.engine.types import LoadOptions, Request, Sampling, Verified
from tests.random_model import write_random_model

STREAMS = 8
TOKENS = 24
PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
LAYERS = int(os.environ.get("BENCH_LAYERS", "28"))
N_VOCAB = 151_936
PPM = (800_000, 40, 950_000, 50_000)
SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, max_tokens=TOKENS)
SEED, SALT, ORDER = b"s" * 32, b"t" * 32, b"o" * 16


def plainly_quantised(row: Any) -> tuple[Any, Any]:
    """As `quantised`, without a thought of its cost."""
    q = np.clip(np.rint(row.astype(np.float64) * 4096), -(2**31) + 1, 2**31 - 1).astype(np.int64)
    least = np.partition(q, len(q) - 64)[len(q) - 64]
    ids = np.nonzero(q >= least)[0]
    ids = ids[np.lexsort((ids, -q[ids]))[:64]]
    return ids.astype(np.uint32), q[ids].astype(np.int32)


def plainly_chosen(ids: list[int], q: list[int], draw: Draw, step: int) -> int:
    """As `choose`, likewise."""
    below = [((q[0] - v) * draw.inv_t) >> 12 for v in q[: draw.top_k]]
    n = sum(x <= draw.min_p for x in below)
    weights = [_exp(x) for x in below[:n]]
    total, so_far = sum(weights), 0
    for i, weight in enumerate(weights):
        so_far += weight
        if so_far << 30 >= draw.top_p * total:
            n = i + 1
            break
    scores = [q[i] * draw.inv_t + (_noise(step, ids[i]) << 12) for i in range(n)]
    best = max(scores)
    return min(ids[i] for i in range(n) if scores[i] == best)


def _exp(x: int) -> int:
    w = 1 << 30
    for bit in range(22):
        if x >> bit & 1:
            w = (w * round((1 << 30) * math.exp(-(2.0 ** (bit - 16)))) + (1 << 29)) >> 30
    return w


def _noise(step: int, token: int) -> int:
    data = struct.pack("<II", step, token)
    hashed = hashlib.blake2b(data, key=SEED, digest_size=8, person=b"infraxa-gumbel-1").digest()
    u = ((int.from_bytes(hashed, "little") >> 12) + 0.5) / 2.0**52
    return round(-math.log(-math.log(u)) * 65536)


def parts() -> None:
    """Prints microseconds of a token's parts, for rows as peaked as a chat model's are."""
    random = np.random.default_rng(1)
    rows = [(random.standard_normal(N_VOCAB) * 2).astype(np.float32) for _ in range(STREAMS)]
    draw = draw_of(*PPM)
    found = [quantised(row) for row in rows]
    lists = [(ids.tolist(), q.tolist()) for ids, q in found]
    for i, (ids, q) in enumerate(lists):
        plain = plainly_quantised(rows[i])
        assert (plain[0].tolist(), plain[1].tolist()) == (ids, q)
        assert choose(ids, q, draw, SEED, i) == plainly_chosen(ids, q, draw, i)
    kept = statistics.mean(gumbel._kept(q, draw) for _, q in lists)
    ids, q = lists[0]
    leaf = Leaf(ORDER, 1, SEED, 5, 0, tuple(ids), tuple(q), ORDER)
    encoded, tree = encode_leaf(leaf), Tree()

    def committed(i: int) -> None:
        made = leaf._replace(step=i, tag=leaf_tag(SALT, i), ctx=transcript.ctx_next(SEED, i))
        tree.append(encode_leaf(made))

    print(
        f"64 likeliest of {N_VOCAB}: {_us(lambda i: quantised(rows[i])):.0f} us"
        f" (plainly {_us(lambda i: plainly_quantised(rows[i])):.0f});"
        f" draw of {kept:.0f}: {_us(lambda i: choose(*lists[i], draw, SEED, i)):.0f} us"
        f" (plainly {_us(lambda i: plainly_chosen(*lists[i], draw, i)):.0f});"
        f" leaf, its hashes and the tree's: {_us(committed):.0f} us;"
        f" to read and check a leaf: {_us(lambda i: transcript.decode_leaf(encoded)):.0f} us",
        flush=True,
    )
    tree = Tree()
    for _ in range(1000):
        tree.append(encoded)
    nodes = sum(map(len, tree._levels)) / tree.n
    print(f"bytes per token: leaf {len(encoded)}, tree {nodes:.0f} while it grows", flush=True)


def _us(what: Callable[[int], object]) -> float:
    """Microseconds, the least of some runs: others are busy too."""
    least = math.inf
    for _ in range(15):
        began = time.perf_counter()
        for i in range(STREAMS):
            what(i)
        least = min(least, time.perf_counter() - began)
    return least / STREAMS * 1e6


def _steps(batcher: Batcher, streams: int, number: int, *, verified: bool) -> list[tuple[float, float]]:
    """Of each step in which all streams get a token: its seconds in llama.cpp's decode, and those besides."""
    decode, decoding = batcher.context.decode, [0.0, 0]

    def timed(rows: int) -> None:
        began = time.perf_counter()
        decode(rows)
        decoding[:] = time.perf_counter() - began, rows

    batcher.context.decode = timed  # type: ignore[method-assign] # to measure it
    for i in range(streams):
        request = Request(prompt=f"{i}. who are you?", sampling=SAMPLING)
        if verified:
            seed = bytes([number, i]) * 16
            request = msgspec.structs.replace(request, verified=Verified(ORDER, seed, SALT, PPM))
        batcher.submit(i, request)
    found, leaves, tokens = [], 0, 0
    while batcher.busy:
        began = time.perf_counter()
        batcher.step()
        output = batcher.take()
        frames.pack(frames.Steps(batcher.step_number, streams, 0, *output))
        seconds = time.perf_counter() - began
        leaves += sum(len(one.leaves) for one in output.emitted)
        tokens += sum(len(one.token_ids) for one in output.emitted)
        assert all(one.finished.error is None for one in output.ended)
        if decoding[1] == streams == len(output.emitted):
            found.append((decoding[0], seconds - decoding[0]))
    batcher.context.decode = decode  # type: ignore[method-assign]
    assert leaves >= tokens if verified else not leaves
    return found


def speed(path: Path) -> None:
    threads = int(os.environ.get("BENCH_THREADS", "0")) or free_cores()
    options = LoadOptions(n_ctx=512, slots=STREAMS, threads=threads)
    batcher, _ = open_model(read_metadata(path), options)
    for streams in (STREAMS, 1):
        _steps(batcher, streams, 0, verified=True)
        steps: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
        for pair in range(PAIRS):
            for verified in (True, False) if pair % 2 else (False, True):
                steps[verified] += _steps(batcher, streams, pair + 1, verified=verified)
        # Medians: what else runs on the machine makes single steps many times longer.
        decode = statistics.median(decode for kind in steps.values() for decode, _ in kind)
        besides = {kind: statistics.median(rest for _, rest in steps[kind]) for kind in steps}
        ratio = (decode + besides[False]) / (decode + besides[True])
        print(
            f"tokens/s verified over plain, random {LAYERS}x1024 with {N_VOCAB} tokens, {streams} at once:"
            f" {ratio:.4f} (of each token {decode / streams * 1e6:.0f} us in llama.cpp, besides"
            f" {besides[True] / streams * 1e6:.0f} us verified and {besides[False] / streams * 1e6:.0f} us"
            f" plain; {len(steps[True])} steps)",
            flush=True,
        )
    batcher.close()
    batcher.context.close()
    batcher.model.close()


def main() -> None:
    parts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        write_random_model(path, GUIDE_PATH, layers=LAYERS, dim=1024, ffn=3072, head=128, n_vocab=N_VOCAB)
        speed(path)


if __name__ == "__main__":
    main()
