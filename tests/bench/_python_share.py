"""What of the engine's time is spent outside llama.cpp's decode, in the worker's loop."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Protocol

from infraxa.engine.models import read_metadata
from infraxa.engine.opening import open_model
from infraxa.engine.sizing import free_cores
from infraxa.engine.types import LoadOptions, Request, Sampling

STREAMS = 8
TOKENS = 64


class Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...


async def python_share(model: Named) -> None:
    """Prints the time of a step besides `llama_decode`, sampling included, as a part of it."""
    threads = int(os.environ.get("BENCH_THREADS", "0")) or free_cores()
    options = LoadOptions(n_ctx=512, slots=STREAMS, threads=threads)
    batcher, _ = open_model(read_metadata(model.path), options)
    decode = batcher.context.decode
    decoding = 0.0

    def timed(rows: int) -> None:
        nonlocal decoding
        began = time.perf_counter()
        decode(rows)
        decoding += time.perf_counter() - began

    batcher.context.decode = timed  # type: ignore[method-assign] # to measure it
    for number in range(STREAMS):
        sampling = Sampling(temperature=0.8, seed=number, max_tokens=TOKENS)
        batcher.submit(number, Request(prompt=f"{number}. who are you?", sampling=sampling))
    began = time.perf_counter()
    while batcher.busy:
        batcher.step()
        batcher.take()
    seconds = time.perf_counter() - began
    print(
        f"{model.name}, {STREAMS} streams, all but llama_decode: {(seconds - decoding) / decoding:.4f} of it "
        f"({(seconds - decoding) / batcher.step_number * 1e6:.0f} us a step)",
        flush=True,
    )
    batcher.close()
    batcher.context.close()
    batcher.model.close()
