"""What a model file is: its metadata, its hash, the memory it will take. How the bytes are read is in
gguf_header.py; whether llama.cpp can run it is known only when it loads it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from infraxa.engine.ggml_types import FILE_TYPES, TENSOR_TYPES
from infraxa.engine.gguf_header import Header, Value, open_model_file, read_header
from infraxa.engine.types import EngineError, KvType

MAX_TEXT = 200
"""Characters kept of a name or a licence."""
MAX_PARTS = 1000
MAX_DIMENSION = 1 << 30
"""A larger number of heads, layers or the like is none."""
MAX_BYTES = 1 << 62
HASH_CHUNK = 1 << 20
UBATCH = 512
"""Prompt tokens that llama.cpp works on at once; its buffers grow with it."""
PROCESS_BYTES = 64 << 20
"""A worker process before any model: the interpreter and the libraries."""
CACHE_BITS: dict[KvType, int] = {"f16": 32 * 16, "q8_0": 34 * 8, "q4_0": 18 * 8}
"""Of 32 numbers in a cache."""

_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)$", re.IGNORECASE)
_POOLED = (1, 2, 3)
_RANKS = 4
"""llama.cpp's kinds of pooling: chat models have none."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
# key under general.sampling. -> (field of Sampling, least, most)
_SAMPLING = {
    "temp": ("temperature", 0.0, 5.0),
    "top_k": ("top_k", 0, 1_000_000),
    "top_p": ("top_p", 0.0, 1.0),
    "min_p": ("min_p", 0.0, 1.0),
    "penalty_repeat": ("repeat_penalty", 0.01, 10.0),
}


class ModelInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model file says of itself. 0 and "" mean that it does not say."""

    path: str
    name: str
    size: int
    """Bytes, all parts together."""
    parts: tuple[str, ...] = ()
    """The paths of all files, in order, when there are several."""
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    size_label: str = ""
    """The number of parameters for people: `7.2B`."""
    context_length: int = 0
    layers: int = 0
    embedding_length: int = 0
    feed_forward_length: int = 0
    cache_width: tuple[int, ...] = ()
    """For each layer, how many numbers its cache keeps per token."""
    heads: int = 0
    head_length: int = 0
    """Numbers of a key in one head of attention."""
    vocabulary: int = 0
    license: str = ""
    has_template: bool = False
    embeds_only: bool = False
    """It makes embeddings and cannot answer."""
    sampling: dict[str, float] = {}
    """The author's defaults, by the names of the fields of `Sampling`."""

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.parts or (self.path,)))


def read_metadata(path: Path) -> ModelInfo:
    """What the GGUF file at `path` contains; for a split model, the path of its first part.

    Raises EngineError `not_found`, `not_gguf`, `truncated` or `unsupported` (not a language model).
    """
    header = read_header(path)
    _refuse_other_kinds(path, header.values)
    headers = {path: header} | {part: read_header(part) for part in _further_parts(path, header)}
    for part, its_header in headers.items():
        _check_tensors(part, its_header)
    architecture = _text(header.values.get("general.architecture"))
    parameters = sum(math.prod(tensor.shape) for its in headers.values() for tensor in its.tensors)
    parameters = min(parameters, MAX_BYTES)
    layers = min(_number(header, "block_count"), 65_536)
    return ModelInfo(
        path=str(path),
        name=_text(header.values.get("general.name")) or path.stem,
        size=sum(its.file_size for its in headers.values()),
        parts=tuple(map(str, headers)) if len(headers) > 1 else (),
        architecture=architecture,
        quantization=_quantization(header),
        parameters=parameters,
        size_label=_text(header.values.get("general.size_label")) or size_label(parameters),
        context_length=_number(header, "context_length"),
        layers=layers,
        embedding_length=_number(header, "embedding_length"),
        feed_forward_length=max(_per_layer(header, "feed_forward_length", 1), default=0),
        cache_width=_cache_width(header, layers),
        heads=max(_per_layer(header, "attention.head_count", layers), default=0),
        head_length=_key_length(header),
        vocabulary=header.counts.get("tokenizer.ggml.tokens", 0),
        license=_text(header.values.get("general.license")),
        has_template=bool(header.values.get("tokenizer.chat_template")),
        embeds_only=_embeds_only(header),
        sampling=_sampling(header),
    )


def sha256(
    files: tuple[Path, ...] | Path,
    on_progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> str | None:
    """The SHA-256 of the file, or of the parts one after the other, as hexadecimal; None when cancelled.

    `on_progress(done, total)` is told bytes. Raises EngineError `not_found`.
    """
    files = (files,) if isinstance(files, Path) else files
    opened = [open_model_file(path) for path in files]
    digest, done = hashlib.sha256(), 0
    try:
        total = sum(file.seek(0, 2) for file in opened)
        for file in opened:
            file.seek(0)
            while chunk := file.read(HASH_CHUNK):
                if cancelled is not None and cancelled():
                    return None
                digest.update(chunk)
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done, total)
    except OSError as error:
        raise EngineError(
            "not_found", f"{files[0]} cannot be read: {error.strerror or error}.", "Check the disk."
        ) from error
    finally:
        for file in opened:
            file.close()
    return digest.hexdigest()


def cache_bytes(info: ModelInfo, kv_type: KvType) -> int:
    """What the cache takes for each token."""
    return -(-sum(info.cache_width) * CACHE_BITS[kv_type] // (32 * 8))


def memory_estimate(info: ModelInfo, n_ctx: int, slots: int, kv_type: KvType = "f16") -> int:
    """Bytes that the model takes once loaded: weights, the cache of `slots` contexts of `n_ctx` tokens, and
    the buffers of one step. Layers with a sliding window count in full: llama.cpp keeps all their tokens
    too (`swa_full`), so that a conversation can go on from any of them.
    """
    cache = cache_bytes(info, kv_type) * n_ctx * slots
    step = UBATCH * (info.vocabulary + 6 * info.embedding_length + 2 * info.feed_forward_length) * 4
    return min(info.size + cache + step + PROCESS_BYTES, MAX_BYTES)


def size_label(parameters: int) -> str:
    """`5.3M`, `7.2B`."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return str(parameters) if parameters else ""


def _refuse_other_kinds(path: Path, values: dict[str, Value]) -> None:
    """A GGUF file may hold something that cannot answer."""
    architecture = values.get("general.architecture")
    kind = values.get("general.type", "model")
    if not isinstance(architecture, str) or not architecture:
        raise EngineError("not_gguf", f"{path} does not say which architecture it has.", "Download it again.")
    if kind == "adapter":
        what = "an adapter for another model"
    elif kind == "mmproj" or architecture == "clip":
        what = "the vision or audio part of a model"
    elif kind == "imatrix" or architecture == "imatrix":
        what = "data for quantizing a model"
    elif values.get(f"{architecture}.pooling_type") == _RANKS:
        what = "a model that ranks texts"
    else:
        return
    raise EngineError("unsupported", f"{path} is {what}; it cannot answer.", "Choose a chat model.")


def _embeds_only(header: Header) -> bool:
    architecture = header.values.get("general.architecture")
    sees_all = header.values.get(f"{architecture}.attention.causal") is False
    return sees_all or header.values.get(f"{architecture}.pooling_type") in _POOLED


def _further_parts(path: Path, header: Header) -> list[Path]:
    """The other files of a split model."""
    count = header.values.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return []
    named = _PART.match(path.name)
    if count > MAX_PARTS or named is None or int(named["count"]) != count:
        raise EngineError(
            "not_gguf",
            f"{path} is one of {count} parts, and its name does not say which.",
            "Name the parts as they were: NAME-00001-of-00002.gguf and so on.",
        )
    files = [
        path.with_name(f"{named['stem']}-{n:05}-of-{count:05}{named['suffix']}") for n in range(1, count + 1)
    ]
    if int(named["number"]) != 1:
        raise EngineError(
            "not_gguf", f"{path} is part {int(named['number'])} of {count}.", f"Give {files[0]}."
        )
    return files[1:]


def _check_tensors(path: Path, header: Header) -> None:
    """Each tensor lies where the one before it ends, as llama.cpp wants it, and within the file."""
    room = header.file_size - header.data_offset
    expected: int | None = 0
    for tensor in header.tensors:
        if expected is not None and tensor.offset != expected:
            raise _damaged(path, f"the tensor {_text(tensor.name)!r} is not where the one before it ends")
        kind = TENSOR_TYPES.get(tensor.type_id)
        if kind is None:  # newer than this table; llama.cpp may know it
            expected = None
            continue
        if tensor.shape and tensor.shape[0] % kind.block:
            raise _damaged(
                path, f"the tensor {_text(tensor.name)!r} has rows that are no whole {kind.name} blocks"
            )
        numbers = math.prod(tensor.shape)
        if numbers >= 1 << 63:
            raise _damaged(path, f"the tensor {_text(tensor.name)!r} is impossibly large")
        size = numbers // kind.block * kind.size
        if tensor.offset + size > room:
            raise EngineError(
                "truncated",
                f"{path} is not complete: it has {header.file_size:,} bytes and needs at least "
                f"{_least_size(header):,}.",
                "Download or copy the file again.",
            )
        if expected is not None:
            expected += -(-size // header.alignment) * header.alignment


def _least_size(header: Header) -> int:
    """Bytes of a file that holds all tensors of the table whose size is known."""
    ends = (
        tensor.offset + math.prod(tensor.shape) // kind.block * kind.size
        for tensor in header.tensors
        if (kind := TENSOR_TYPES.get(tensor.type_id))
    )
    return header.data_offset + max(ends, default=0)


def _damaged(path: Path, reason: str) -> EngineError:
    return EngineError("not_gguf", f"{path} is damaged: {reason}.", "Download or copy the file again.")


def _quantization(header: Header) -> str:
    """The name of the mixture; of a file that does not say, the format of most of its numbers."""
    named = header.values.get("general.file_type")
    if isinstance(named, int) and named in FILE_TYPES:
        return FILE_TYPES[named]
    sizes: Counter[str] = Counter()
    for tensor in header.tensors:
        if kind := TENSOR_TYPES.get(tensor.type_id):
            sizes[kind.name] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0] if sizes else ""


def _number(header: Header, key: str) -> int:
    """The non-negative whole number `{architecture}.key`; the largest when there is one per layer."""
    return max(_per_layer(header, key, 1), default=0)


def _per_layer(header: Header, key: str, layers: int) -> list[int]:
    """One number per layer: the file has one for all, or a list."""
    value = header.values.get(f"{header.values.get('general.architecture')}.{key}")
    if isinstance(value, list):
        return [number if _is_dimension(number) else 0 for number in value if isinstance(number, int)]
    return [value] * layers if isinstance(value, int) and _is_dimension(value) else []


def _is_dimension(number: int) -> bool:
    return 0 < number <= MAX_DIMENSION


def _cache_width(header: Header, layers: int) -> tuple[int, ...]:
    heads = _number(header, "attention.head_count")
    key_length = _key_length(header)
    value_length = _number(header, "attention.value_length") or _even_length(header)
    kv_heads = _per_layer(header, "attention.head_count_kv", layers) or [heads] * layers
    return tuple(n * (key_length + value_length) for n in kv_heads[:layers])


def _key_length(header: Header) -> int:
    return _number(header, "attention.key_length") or _even_length(header)


def _even_length(header: Header) -> int:
    heads = _number(header, "attention.head_count")
    return _number(header, "embedding_length") // heads if heads else 0


def _sampling(header: Header) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, (field, least, most) in _SAMPLING.items():
        value = header.values.get(f"general.sampling.{key}")
        if isinstance(value, int | float) and least <= value <= most:
            found[field] = int(value) if field == "top_k" else round(float(value), 6)  # stored with 32 bits
    return found


def _text(value: Value | None) -> str:
    """A text of the file, safe to show."""
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value[:10])
    return _CONTROL.sub(" ", value).strip()[:MAX_TEXT] if isinstance(value, str) else ""
