"""Opens a model the way the machine allows: on which device, with how much context, for how many at once."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infraxa.engine import llama
from infraxa.engine.batching import N_BATCH, Batcher
from infraxa.engine.llama import Context, Model
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.models import CACHE_TYPE_BYTES, ModelInfo, memory_estimate
from infraxa.engine.sizing import (
    BusyCores,
    Size,
    check_limit,
    choose_size,
    free_cores,
    free_memory,
    next_smaller,
)
from infraxa.engine.template import ChatTemplate
from infraxa.engine.types import EngineError, Loaded, LoadOptions

MAX_SLOTS = 64
PROGRESS_STEP = 0.01
ALL_LAYERS = -1


def open_model(
    info: ModelInfo,
    options: LoadOptions,
    *,
    on_progress: Callable[[float], None] = lambda done: None,
    on_log: Callable[[str], None] = lambda line: None,
) -> tuple[Batcher, Loaded]:
    """Everything that answers need. `info` is what `models.read_metadata` says of the file.

    `on_progress` gets 0 to 1, `on_log` llama.cpp's lines, from now on for good. Raises EngineError.
    """
    started = time.perf_counter()
    log = LoadLog()

    def heard(line: str) -> None:
        log.add(line)
        on_log(line)

    limit = options.memory_limit
    if limit is not None:
        limit = check_limit(limit, memory_estimate(info, 0, 0))
    llama.route_log(heard)
    on_log(llama.system_info())
    free, busy = free_memory() - options.kept_free, BusyCores()
    model, gpu_layers = _open_weights(Path(info.path), options, _in_steps(on_progress), log)
    threads = max(1, options.threads or free_cores(busy))
    try:
        size = choose_size(
            n_ctx=options.n_ctx,
            slots=min(options.slots, MAX_SLOTS),
            n_ctx_train=model.n_ctx_train,
            kv_bytes_per_token=sum(info.cache_width) * CACHE_TYPE_BYTES,
            free_bytes=free - (model.size_bytes if _in_main_memory(gpu_layers) else 0),
            limit_bytes=limit,
        )
        context, size = open_context(model, size, threads, asked=options.n_ctx is not None)
    except EngineError:
        model.close()
        raise
    template = ChatTemplate(
        model.chat_template,
        bos=model.special_text("bos"),
        eos=model.special_text("eos"),
        builtin=model.apply_builtin_template,
    )
    loaded = Loaded(
        path=info.path,
        n_ctx=size.n_ctx,
        n_ctx_train=model.n_ctx_train,
        slots=size.slots,
        threads=threads,
        gpu_layers=model.n_layer + 1 if gpu_layers == ALL_LAYERS else gpu_layers,
        pid=os.getpid(),
        load_ms=round((time.perf_counter() - started) * 1000),
    )
    return Batcher(model, context, template, slots=size.slots, n_ctx=size.n_ctx), loaded


def _open_weights(
    path: Path, options: LoadOptions, progress: Callable[[float], None], log: LoadLog
) -> tuple[Model, int]:
    """The model and how many of its layers were asked onto a GPU."""
    if options.gpu_layers is not None:
        return Model.load(path, gpu_layers=options.gpu_layers, progress=progress, log=log), options.gpu_layers
    if llama.supports_gpu():
        try:
            return Model.load(path, gpu_layers=ALL_LAYERS, progress=progress, log=log), ALL_LAYERS
        except EngineError as error:
            # The GPU's memory may be what was missing.
            if error.code not in ("no_memory", "load_failed"):
                raise
    return Model.load(path, progress=progress, log=log), 0


def _in_main_memory(gpu_layers: int) -> bool:
    """Whether the weights take of what the caches need: a GPU has its own memory, but not in a Mac."""
    return gpu_layers == 0 or sys.platform == "darwin"


def open_context(model: Model, wanted: Size, threads: int, *, asked: bool = False) -> tuple[Context, Size]:
    """A context of that size, or the largest smaller one that there is memory for.

    `asked`: only slots may be fewer. Raises EngineError.
    """
    size = wanted
    while True:
        try:
            context = Context(model, n_ctx=size.n_ctx, slots=size.slots, n_batch=N_BATCH, threads=threads)
        except EngineError as error:
            smaller = next_smaller(size, asked=asked)
            if error.code != "no_memory" or smaller is None:
                raise
            size = smaller
            continue
        if asked and size.n_ctx < wanted.n_ctx:
            context.close()
            raise EngineError(
                "no_memory",
                f"There is no memory for a context of {wanted.n_ctx} tokens; one of {size.n_ctx} fits.",
                "Choose a smaller context or model, or close other programs.",
            )
        return context, size


def _in_steps(on_progress: Callable[[float], None]) -> Callable[[float], None]:
    """llama.cpp tells each tensor: hundreds of times the same to a person."""
    told = -1.0

    def progress(done: float) -> None:
        nonlocal told
        if abs(done - told) >= PROGRESS_STEP or done == 1.0:
            told = done
            on_progress(done)

    return progress
