"""Opens a model the way the machine allows: on which device, with how much context, for how many at once."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from infraxa.engine import llama
from infraxa.engine.attention import Attention, chosen
from infraxa.engine.batching import N_BATCH, Batcher
from infraxa.engine.embedding import Embedder
from infraxa.engine.llama import Context, Model
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.models import ModelInfo, cache_bytes, memory_estimate
from infraxa.engine.offload import Fit, backend_of, free_gpu_memory, layers_for
from infraxa.engine.room import CACHE_SHARE
from infraxa.engine.scoring import Means
from infraxa.engine.sizing import (
    BusyCores,
    Size,
    check_limit,
    choose_size,
    free_cores,
    free_memory,
    next_smaller,
)
from infraxa.engine.template import ChatTemplate, varies
from infraxa.engine.types import EngineError, Loaded, LoadOptions
from infraxa.engine.work import Work

MAX_SLOTS = 64
PROGRESS_STEP = 0.01
PARK_SHARE = 4
"""Conversations without a slot get one such part of the main memory that is free beside the model."""
MAX_PARK = 8 << 30
_NO_SUCH_CACHE = re.compile(r"does not divide n_embd_head|requires (flash_attn|Flash Attention)")


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
    if options.kv_type != "f16" and options.flash_attention == "off":
        raise EngineError(
            "bad_request",
            f"A cache of {options.kv_type} needs flash attention, and that is switched off.",
            "Set flash_attention to auto, or kv_type to f16.",
        )
    limit = options.memory_limit
    if limit is not None:
        limit = check_limit(limit, memory_estimate(info, 0, 0))
    log = _start_log(on_log)
    free, busy = free_memory() - options.kept_free, BusyCores()
    weights = _open_weights(info, options, _in_steps(on_progress), log)
    model, gpu_layers = weights.model, weights.gpu_layers
    threads = max(1, options.threads or free_cores(busy))
    per_token = cache_bytes(info, options.kv_type)
    left = free - round(model.size_bytes * (1 - weights.on_gpu))
    try:
        size = choose_size(
            n_ctx=options.n_ctx,
            slots=min(options.slots, MAX_SLOTS),
            n_ctx_train=model.n_ctx_train,
            kv_bytes_per_token=per_token,
            free_bytes=_free_for_caches(left, weights),
            limit_bytes=limit,
        )
        attention = chosen(info, options, gpu_layers, limit)
        context, size = open_context(model, size, threads, options, log, attention)
    except EngineError:
        model.close()
        raise
    caches = per_token * size.n_ctx * size.slots
    park_bytes = options.park_bytes
    if park_bytes is None:
        unused = left - round(caches * (1 - weights.on_gpu))
        park_bytes = max(0, min(unused // PARK_SHARE, MAX_PARK))
        if limit is not None:
            park_bytes = max(0, min(park_bytes, limit - caches))
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
        gpu_layers=gpu_layers,
        pid=os.getpid(),
        kv_type=options.kv_type,
        flash_attention=context.flash_attention,
        park_bytes=park_bytes,
        load_ms=round((time.perf_counter() - started) * 1000),
        backend=backend_of(gpu_layers),
        version=llama.version(),
        varying=varies(model.chat_template),
    )
    batcher = Batcher(model, context, template, slots=size.slots, n_ctx=size.n_ctx, park_bytes=park_bytes)
    return batcher, loaded


def open_work(
    info: ModelInfo,
    options: LoadOptions,
    *,
    on_progress: Callable[[float], None] = lambda done: None,
    on_log: Callable[[str], None] = lambda line: None,
) -> tuple[Work, Loaded]:
    """Everything that a worker does with a model, ready for its first request. As `open_model`."""
    if not info.embeds_only:
        batcher, loaded = open_model(info, options, on_progress=on_progress, on_log=on_log)
        batcher.template.prepare()
        means = Means(
            batcher.model,
            batcher.read,
            loaded.threads,
            lambda kv_type: cache_bytes(info, kv_type),
            lambda: free_memory() - options.kept_free,
            options.flash_attention,
        )
        return Work(batcher, Embedder(batcher.model, loaded.threads), means), loaded
    started = time.perf_counter()
    if options.memory_limit is not None:
        check_limit(options.memory_limit, memory_estimate(info, 0, 0))
    log = _start_log(on_log)
    busy = BusyCores()
    weights = _open_weights(info, options, _in_steps(on_progress), log)
    threads = max(1, options.threads or free_cores(busy))
    embedder = Embedder(weights.model, threads)
    loaded = Loaded(
        path=info.path,
        n_ctx=embedder.limit,
        n_ctx_train=weights.model.n_ctx_train,
        slots=1,
        threads=threads,
        gpu_layers=weights.gpu_layers,
        pid=os.getpid(),
        load_ms=round((time.perf_counter() - started) * 1000),
        chat=False,
    )
    return Work(None, embedder), loaded


def _start_log(on_log: Callable[[str], None]) -> LoadLog:
    """Sends llama.cpp's lines to `on_log`, for good, and to what knows the causes of a failure."""
    log = LoadLog()

    def heard(line: str) -> None:
        log.add(line)
        on_log(line)

    llama.route_log(heard)
    on_log(llama.system_info())
    return log


class _Weights(NamedTuple):
    """A model that is loaded."""

    model: Model
    gpu_layers: int
    """How many of its layers are on GPUs, as llama.cpp counts them."""
    gpu_left: int | None
    """Bytes that are free there for the caches of those layers; None: not known."""

    @property
    def on_gpu(self) -> float:
        """The part of weights and caches that is not in main memory, which a Mac's GPU uses too."""
        if sys.platform == "darwin":
            return 0.0
        return min(1.0, max(0, self.gpu_layers - 1) / max(1, self.model.n_layer))


def _open_weights(
    info: ModelInfo, options: LoadOptions, progress: Callable[[float], None], log: LoadLog
) -> _Weights:
    """The model, on GPUs as far as their memory holds it, or as was asked for."""
    path, most = Path(info.path), info.layers + 1
    if not llama.supports_gpu():
        return _Weights(Model.load(path, progress=progress, log=log), 0, None)
    if options.gpu_layers is not None:
        layers = min(options.gpu_layers, most)
        return _Weights(Model.load(path, gpu_layers=layers, progress=progress, log=log), layers, None)
    free = free_gpu_memory()
    fit = Fit(most, 0) if free is None else layers_for(info, options, free)
    # What was estimated may still be too much for the device.
    for layers in dict.fromkeys((fit.layers, fit.layers // 2)):
        if layers:
            try:
                model = Model.load(path, gpu_layers=layers, progress=progress, log=log)
            except EngineError as error:
                if error.code not in ("no_memory", "load_failed"):
                    raise
            else:
                return _Weights(model, layers, None if free is None else fit.left)
    return _Weights(Model.load(path, progress=progress, log=log), 0, None)


def _free_for_caches(left: int, weights: _Weights) -> int:
    """Bytes, of which choose_size takes half; `left`: of main memory."""
    if weights.gpu_left is None or not weights.on_gpu:
        return left
    return min(left, round(CACHE_SHARE * weights.gpu_left / weights.on_gpu))


def open_context(
    model: Model,
    wanted: Size,
    threads: int,
    options: LoadOptions,
    log: LoadLog,
    attention: Callable[[Size], Attention] | None = None,
) -> tuple[Context, Size]:
    """A context of that size, or the largest smaller one that there is memory for, ready for its first
    request. When `options` ask for an `n_ctx`, only slots may be fewer. `attention`: what is tried before
    what the options say. Raises EngineError.
    """
    size, asked = wanted, options.n_ctx is not None
    own = Attention(options.flash_attention, None)
    way = attention(size) if attention else own
    while True:
        try:
            context = Context(
                model,
                n_ctx=size.n_ctx,
                slots=size.slots,
                n_batch=N_BATCH,
                threads=threads,
                kv_type=options.kv_type,
                flash_attention=way.flash,
                unified=options.unified_kv,
                n_ubatch=way.rows,
            )
        except EngineError as error:
            if error.code == "no_memory" and way != own:
                way = own
                continue
            if log.says(_NO_SUCH_CACHE):
                raise EngineError(
                    "unsupported",
                    f"{model.path.name} cannot keep its cache as {options.kv_type}.",
                    "Set kv_type to f16.",
                ) from None
            smaller = next_smaller(size, asked=asked)
            if error.code != "no_memory" or smaller is None:
                raise
            size = smaller
            way = attention(size) if attention else own
            continue
        if asked and size.n_ctx < wanted.n_ctx:
            context.close()
            raise EngineError(
                "no_memory",
                f"There is no memory for a context of {wanted.n_ctx} tokens; one of {size.n_ctx} fits.",
                "Choose a smaller context or model, or close other programs.",
            )
        try:
            context.warm_up()
        except EngineError:
            context.close()
            raise
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
