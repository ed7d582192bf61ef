"""Chooses the model and the sampling of an answer from what was asked for, set, and said by the file.

Pure functions, but for looking at the model files. The order is always: what was asked for (the chat, a
flag), the settings, the model's own defaults, llama.cpp's.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from infraxa.app.config import GUIDE, Settings
from infraxa.app.errors import NodeError
from infraxa.app.files import FileMark, Stamp, mark_of, stamp_of
from infraxa.app.folders import whole_path
from infraxa.app.model_check import check_model
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.models import ModelInfo, read_metadata
from infraxa.engine.types import ChatMessage, EngineError, Sampling
from infraxa.store.records import ChatOptions, ModelRecord

__all__ = [
    "GUIDE", "GUIDE_LABEL", "ModelEntry", "check_model", "find_model", "model_entries", "one_off",
    "resolve_sampling",
]  # fmt: skip

GUIDE_LABEL = "built-in guide (tiny)"
_GUIDE_FILE: Final = ModelInfo(str(GUIDE_PATH), GUIDE, 0)
"""Before anything is read of it."""


class ModelEntry(msgspec.Struct, frozen=True):
    """A model that can be chosen. 0 and "" mean: not known."""

    name: str
    label: str
    """What to show for it."""
    path: str
    size: int
    """Bytes, all parts together."""
    info: ModelInfo
    quantization: str = ""
    architecture: str = ""
    parameters: str = ""
    """Their number, for people: `7.2B`."""
    context_length: int = 0
    license: str = ""
    sha256: str = ""
    added_at: int = 0
    """Milliseconds since the epoch."""
    builtin: bool = False
    problem: str = ""
    """Why it cannot be used now; one sentence."""
    stamp: Stamp = Stamp()
    """What the files were like when this was read of them."""
    loaded: bool = False
    """Memory holds it, ready to answer; only a running node says so."""
    vocab: bytes = b""
    """The hash of its vocabulary; known of what is served."""


def model_entries(records: Iterable[ModelRecord]) -> list[ModelEntry]:
    """The built-in guide, then the records' models; a file that is missing or changed has a `problem`."""
    return [_guide(), *map(_recorded, records)]


def find_model(name: str, entries: Iterable[ModelEntry]) -> ModelEntry:
    """The entry called `name`, or one for the GGUF file whose path it is.

    Raises NodeError `no_model`, and EngineError for a file that is no model.
    """
    known = {entry.name: entry for entry in entries}
    if name in known:
        return known[name]
    if is_path(name):
        path = whole_path(name)
        return _read(path, name, path.stem)
    close = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise NodeError(
        "no_model", f"There is no model named {name}.", f"{hint}See the names with: infraxa models list"
    )


def is_path(name: str) -> bool:
    """Whether a model is meant by its file and not by its name."""
    return os.sep in name or name.lower().endswith(".gguf")


def resolve_sampling(options: ChatOptions, settings: Settings, entry: ModelEntry | None = None) -> Sampling:
    """How the next token is chosen. `entry`: the model, when it is one of this machine."""
    defaults = {} if entry is None else entry.info.sampling
    chosen: dict[str, object] = {**defaults}
    if "top_k" in chosen:
        chosen["top_k"] = int(defaults["top_k"])  # JSON may have made it a float
    for source in (settings, options):
        for field in Sampling.__struct_fields__:
            if (value := getattr(source, field, None)) is not None:
                chosen[field] = value
    return msgspec.convert(chosen, Sampling)


def one_off(text: str, options: ChatOptions) -> tuple[ChatMessage, ...]:
    """What the model is told when `text` is all that is said."""
    said = ChatMessage("user", text)
    return (ChatMessage("system", options.system), said) if options.system else (said,)


def _guide() -> ModelEntry:
    try:
        guide, problem = _read_guide(mark_of(_GUIDE_FILE)), ""
    except EngineError as error:
        guide = _entry(GUIDE, GUIDE_LABEL, _GUIDE_FILE)
        problem = f"{error.message} Install infraxa again."
    return msgspec.structs.replace(guide, builtin=True, problem=problem)


@functools.lru_cache(1)
def _read_guide(mark: FileMark) -> ModelEntry:
    """`mark`: of the file as it is now. It is asked for with every order, and its vocabulary takes long."""
    return _read(GUIDE_PATH, GUIDE, GUIDE_LABEL)


def _recorded(record: ModelRecord) -> ModelEntry:
    try:
        info = msgspec.json.decode(record.metadata, type=ModelInfo)
    except msgspec.DecodeError:  # written by another version
        info = ModelInfo(record.path, record.name, record.size)
    return msgspec.structs.replace(
        _entry(record.name, record.name, info),
        path=record.path,
        size=record.size,
        stamp=Stamp(record.size, record.mtime_ns),
        sha256=record.sha256,
        added_at=record.added_at,
        problem=_problem(record, info),
    )


def _entry(name: str, label: str, info: ModelInfo) -> ModelEntry:
    return ModelEntry(
        name=name,
        label=label,
        path=info.path,
        size=info.size,
        info=info,
        quantization=info.quantization,
        architecture=info.architecture,
        parameters=info.size_label,
        context_length=info.context_length,
        license=info.license,
    )


def _read(path: Path, name: str, label: str) -> ModelEntry:
    """Of a file of which nothing is kept. Raises EngineError."""
    info = read_metadata(path)
    return msgspec.structs.replace(_entry(name, label, info), stamp=stamp_of(mark_of(info)))


def _problem(record: ModelRecord, info: ModelInfo) -> str:
    try:
        stamp = stamp_of(mark_of(info))
    except EngineError as error:
        return error.message
    if stamp != (record.size, record.mtime_ns):
        return "The file has changed since it was added; remove it and add it again."
    return ""
