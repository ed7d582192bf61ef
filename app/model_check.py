"""Checks a model file before it is remembered: what it is, whether it fits and runs, its hash.

Nothing is written here: the record is made whole, or an error says why not.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from infraxa.app.config import GUIDE
from infraxa.app.errors import NodeError
from infraxa.app.folders import whole_path
from infraxa.engine import models
from infraxa.engine.models import ModelInfo
from infraxa.engine.sizing import free_memory
from infraxa.engine.types import EngineError, LoadOptions
from infraxa.store.records import ModelRecord, StoreError

MAX_NAME = 100
CHECK_CONTEXT = 512
"""Tokens of context of the attempt to load it."""
USEFUL_CONTEXT = 4096
"""A model that has no room for so many tokens (or all of its own) counts as too big."""

_NAME = re.compile(r"[\w.][\w.+:@-]*")
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")


async def check_model(
    path: Path,
    name: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    force: bool = False,
    known: Iterable[ModelRecord] = (),
    digest: str | None = None,
) -> ModelRecord:
    """The record of the GGUF file at `path`. `on_progress(done, total)` is told the bytes hashed.

    `force` goes on although the model is larger than the memory that is free. Cancelling ends it within a
    moment. `known` are the models that there are: the same file or the same name again is refused before
    anything takes long. `digest` is the SHA-256 where it has just been made. Raises EngineError, NodeError
    `bad_name` and StoreError `exists`.
    """
    path = _readable_path(path)
    chosen = check_name(name) if name is not None else None
    for record in known:
        if record.path == str(path):
            raise StoreError("exists", f"{path} is already here, as {record.name}.")
        if record.name == chosen:
            raise StoreError("exists", f"There is a model named {chosen}.", "Give another --name.")
    name = chosen if chosen is not None else name_of(path)
    info = await asyncio.to_thread(models.read_metadata, path)
    if not force:
        check_memory(info)
    await _check_loads(path)
    before = _stamp(info)
    digest = digest or await _hash(info, on_progress)
    size, mtime_ns = _stamp(info)
    if (size, mtime_ns) != before:
        raise EngineError("not_found", f"{path} changed while it was read.", "Try again when it is complete.")
    return ModelRecord(
        name=name,
        path=str(path),
        sha256=digest,
        size=size,
        mtime_ns=mtime_ns,
        added_at=time.time_ns() // 1_000_000,
        metadata=msgspec.json.encode(info),
    )


def _readable_path(path: Path) -> Path:
    path = whole_path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise NodeError(
            "bad_name", f"The path {shown} is not valid UTF-8.", "Rename the file or its folder."
        ) from None
    return path


def check_name(name: str) -> str:
    """A name that a person gives a model. Raises NodeError `bad_name`."""
    if name == GUIDE:
        raise NodeError("bad_name", f"{GUIDE} is the name of the built-in model.", "Choose another name.")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise NodeError(
            "bad_name",
            f"{name[:MAX_NAME]!r} cannot be the name of a model.",
            f"Use letters, digits and . - _ + : @, at most {MAX_NAME} of them.",
        )
    return name


def name_of(path: Path) -> str:
    """The name of a model that nobody named: the file's, without what a name cannot have."""
    stem = _SPLIT.sub("", path.stem)
    return re.sub(r"[^\w.+:@-]+", "-", stem).strip("-")[:MAX_NAME] or "model"


def check_memory(info: ModelInfo) -> None:
    """Raises EngineError `no_memory` when the model with a useful context is larger than what is free."""
    context = min(info.context_length or USEFUL_CONTEXT, USEFUL_CONTEXT)
    needed, free = models.memory_estimate(info, context, 1), free_memory()
    if needed > free:
        raise EngineError(
            "no_memory",
            f"{info.name} takes about {needed / 1e9:.1f} GB of memory with {context} tokens of context, "
            f"and {free / 1e9:.1f} GB are free.",
            "Close other programs or choose a smaller quantization; --force adds it all the same.",
        )


async def _check_loads(path: Path) -> None:
    """Load it once in a process of its own: only llama.cpp knows what it can run."""
    from infraxa.engine.host import Engine

    engine = Engine()
    try:
        await engine.load(path, LoadOptions(n_ctx=CHECK_CONTEXT, slots=1, threads=1, gpu_layers=0))
    finally:
        await engine.close()


async def _hash(info: ModelInfo, on_progress: Callable[[int, int], None] | None) -> str:
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if on_progress is not None and (done == total or time.monotonic() - told >= 0.05):
            told = time.monotonic()
            loop.call_soon_threadsafe(on_progress, done, total)

    try:
        digest = await asyncio.to_thread(models.sha256, info.files, progress, cancelled.is_set)
    finally:
        cancelled.set()
    if digest is None:
        raise EngineError("closed", "The hash was not finished.")
    return digest


def _stamp(info: ModelInfo) -> tuple[int, int]:
    """Size and time of the last change, of all parts."""
    stats = [file.stat() for file in info.files]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
