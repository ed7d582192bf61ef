"""Typed calls on llama.cpp's low-level API that cannot use memory after its end.

Knows models, contexts and llama.cpp's log; not how a token is chosen (`sampler.py`), who asks for what
(`batching.py`), nor processes (`worker.py`). Nothing here is thread-safe but `Context.abort`.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from infraxa.engine.bindings import api as _api
from infraxa.engine.loadlog import LoadLog
from infraxa.engine.types import ChatMessage, EngineError, FlashAttention, KvType
from infraxa.engine.vocabulary import MARKS

_CONTROL_ATTRIBUTES: int = _api.LLAMA_TOKEN_ATTR_CONTROL | _api.LLAMA_TOKEN_ATTR_UNKNOWN
_KV_TYPES: dict[KvType, int] = {
    "f16": _api.GGML_TYPE_F16,
    "q8_0": _api.GGML_TYPE_Q8_0,
    "q4_0": _api.GGML_TYPE_Q4_0,
}
_FLASH_ATTENTION: dict[FlashAttention, int] = {
    "auto": _api.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": _api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": _api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_LOG_DEBUG = 1
_LOG_CONT = 5
LEAST_OUTPUTS = 8
"""Rows of logits, so that one sequence alone can have several of its next tokens checked at once."""
# As large as any piece of a token gets in practice; llama.cpp says when it is not.
_PIECE_BYTES = 256

_LONG = 8192
_MUCH = 1 << 27
"""Letters copied: 0.1 s."""
_MOST_APART = 50


def route_log(sink: Callable[[str], None]) -> Callable[[], None]:
    """Sends llama.cpp's log lines to `sink` from now on. Returns a function that ends it; call it before
    `sink` dies."""
    parts: list[str] = []
    shown = True

    def receive(level: int, text: bytes, _: object) -> None:
        nonlocal shown
        if level != _LOG_CONT:
            shown = level != _LOG_DEBUG
        if not shown:
            return
        parts.append(text.decode("utf-8", "replace"))
        if text.endswith(b"\n"):
            line = "".join(parts).rstrip()
            parts.clear()
            if line.strip(". "):
                sink(line)

    callback = _api.llama_log_callback(receive)
    _api.llama_log_set(callback, None)
    _kept_callbacks.append(callback)
    return _silence_log


def _silence_log() -> None:
    _api.llama_log_set(_nothing, None)


_nothing = _api.llama_log_callback(lambda level, text, _: None)
# llama.cpp may log from another thread while the callback is replaced, so none is ever freed; there are few.
_kept_callbacks: list[object] = []


def version() -> str:
    """Of llama.cpp."""
    return str(_api.llama_version().decode())


def system_info() -> str:
    """llama.cpp's version and the instruction sets and backends it was built for."""
    return f"llama.cpp {version()}: {_api.llama_print_system_info().decode().strip()}"


def supports_gpu() -> bool:
    return bool(_api.llama_supports_gpu_offload())


def _not_for_chat(handle: int) -> str:
    if _api.llama_model_has_encoder(handle) or not _api.llama_model_has_decoder(handle):
        return "an encoder model"
    if _api.llama_model_is_diffusion(handle):
        return "a diffusion model"
    if not _api.llama_vocab_type(_api.llama_model_get_vocab(handle)):
        return "a file without a vocabulary"
    return ""


class Model:
    """The weights and vocabulary of one GGUF file."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle: int | None = handle
        self.path = path
        self._vocab = _api.llama_model_get_vocab(handle)
        self.n_vocab: int = _api.llama_vocab_n_tokens(self._vocab)
        self.n_ctx_train: int = _api.llama_model_n_ctx_train(handle)
        self.size_bytes: int = _api.llama_model_size(handle)
        self.n_layer: int = _api.llama_model_n_layer(handle)
        self.bos: int = _api.llama_vocab_bos(self._vocab)
        self.adds_bos: bool = _api.llama_vocab_get_add_bos(self._vocab)
        self.rewindable = not (_api.llama_model_is_recurrent(handle) or _api.llama_model_is_hybrid(handle))
        """A sequence's cache can be cut at any position."""
        self._pieces: dict[int, bytes | None] = {}
        self._controls: dict[int, str] = {}
        self._names: dict[bool, list[str]] = {}
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        gpu_layers: int = 0,
        progress: Callable[[float], None] = lambda done: None,
        log: LoadLog | None = None,
    ) -> Model:
        """Opens a GGUF file. `progress` gets 0 to 1. Raises EngineError with the cause.

        `log` is asked what went wrong: it must be where llama.cpp's log goes meanwhile.
        """
        log = log or LoadLog()
        log.clear()
        params = _api.llama_model_default_params()
        params.n_gpu_layers = gpu_layers

        def tell(done: float, _: object) -> bool:
            progress(done)
            return True

        callback = _api.llama_progress_callback(tell)
        params.progress_callback = callback
        handle = _api.llama_model_load_from_file(os.fsencode(path), params)
        if not handle:
            raise log.failure(path)
        what = _not_for_chat(handle)
        if what:
            _api.llama_model_free(handle)
            raise EngineError(
                "unsupported",
                f"{path.name} is {what}, which cannot answer in a chat.",
                "Choose a chat model.",
            )
        return cls(handle, path)

    def close(self) -> None:
        """Frees the weights; contexts of this model must be closed before. Does nothing the second time."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _api.llama_model_free(handle)

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise ValueError("this model is closed")
        return self._handle

    def metadata(self, key: str) -> str:
        """A value of the file's header as llama.cpp writes it, cut at 255 bytes; "" when there is none."""
        buffer = ctypes.create_string_buffer(256)
        _api.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja source in the metadata."""
        text = _api.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    def apply_builtin_template(
        self, template: str | None, messages: Sequence[ChatMessage], *, open_turn: bool = True
    ) -> str | None:
        """llama.cpp's own formatting of the templates it recognises; None when it does not know this one.

        `template` is a Jinja source or the name of a built-in one. `open_turn`: begin the assistant's answer.
        """
        # A C string would end at the first NUL.
        roles = [(m.role.encode(), m.content.replace("\0", "").encode()) for m in messages]
        chat = (_api.llama_chat_message * len(roles))(*roles)
        name = template.encode() if template is not None else None
        length = 1024 + 2 * sum(len(content) for _, content in roles)
        for _ in range(2):
            buffer = ctypes.create_string_buffer(length)
            needed: int = _api.llama_chat_apply_template(name, chat, len(roles), open_turn, buffer, length)
            if needed < 0:
                return None
            if needed <= length:
                return buffer.raw[:needed].decode("utf-8", "replace")
            length = needed
        return None

    def tokenize(self, text: str, literal: Mapping[str, str] | None = None) -> list[int]:
        """Tokens of a rendered prompt: its special tokens are recognised, the vocabulary's BOS is there
        exactly once when the vocabulary asks for it, and no EOS is added.

        `literal`: characters that stand for a text in which no special token is recognised.
        """
        pieces = re.split(f"([{''.join(literal)}])", text) if literal else [text]
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            # Every second piece is one of those characters.
            ids += self._tokenize(literal[piece], False) if literal and i % 2 else self._tokenize(piece, True)
        if self.adds_bos and self.bos >= 0 and ids[:1] != [self.bos]:
            ids.insert(0, self.bos)
        return ids

    def _tokenize(self, text: str, special: bool, around: bool = False) -> list[int]:
        apart = self._too_many_named(text, special) if len(text) > _LONG and not around else ()
        if not apart:
            return self._tokenize_at_once(text, special, around)
        ids: list[int] = []
        known = {name: self._tokenize_at_once(name, special) for name in apart}
        for i, piece in enumerate(re.split(f"({'|'.join(map(re.escape, apart))})", text)):
            # Every second piece is one of them.
            if piece:
                ids += known[piece] if i % 2 else self._tokenize_at_once(piece, special)
        return ids

    def _too_many_named(self, text: str, special: bool) -> list[str]:
        """The commonest texts of tokens that llama.cpp looks for before all others, the longest first, where
        there are so many of them in the text that it would take seconds: it copies the text for each."""
        counts = [(text.count(name), name) for name in self._named(special) if name in text]
        if sum(count for count, _ in counts) * len(text) < _MUCH:
            return []
        return sorted((name for _, name in sorted(counts)[-_MOST_APART:]), key=len, reverse=True)

    def _named(self, special: bool) -> list[str]:
        """Texts of tokens that are looked for whole: those of control tokens only among special ones."""
        if special not in self._names:
            wanted = _api.LLAMA_TOKEN_ATTR_USER_DEFINED | (_CONTROL_ATTRIBUTES if special else 0)
            self._names[special] = [
                text
                for token in range(self.n_vocab)
                if _api.llama_vocab_get_attr(self._vocab, token) & wanted
                and (text := _api.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))
            ]
        return self._names[special]

    def _tokenize_at_once(self, text: str, special: bool, around: bool = False) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        for _ in range(2):
            tokens = (ctypes.c_int32 * room)()
            n = _api.llama_tokenize(self._vocab, data, len(data), tokens, room, around, special)
            if n >= 0:
                return tokens[:n]
            room = -n
        raise EngineError("bad_request", "The text is too long to be cut into tokens.", "Send less text.")

    def tokenize_for_meaning(self, text: str) -> list[int]:
        """Tokens of a text that is embedded: no special token is recognised in it, and those stand around it
        that the vocabulary asks for."""
        return self._tokenize(text, False, around=True)

    def control_texts(self, tokens: Iterable[int]) -> set[str]:
        """How those of the tokens are written that are recognised as special only in a template's text."""
        return {text for token in set(tokens) if (text := self._control_text(token))}

    def _control_text(self, token: int) -> str:
        try:
            return self._controls[token]
        except KeyError:
            control = _api.llama_vocab_get_attr(self._vocab, token) & _CONTROL_ATTRIBUTES
            text = _api.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if control else ""
            self._controls[token] = text
            return text

    def piece(self, token: int) -> bytes | None:
        """The bytes that a token stands for (none for control tokens but MARKS); None = it ends the turn."""
        try:
            return self._pieces[token]
        except KeyError:
            ends = _api.llama_vocab_is_eog(self._vocab, token)
            shown = self._control_text(token) in MARKS
            piece = self._pieces[token] = None if ends else self._read_piece(token, shown)
            return piece

    def _read_piece(self, token: int, special: bool) -> bytes:
        n = _api.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        if n < 0:
            self._buffer = ctypes.create_string_buffer(-n)
            n = _api.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, special)
        return self._buffer.raw[:n]

    def special_text(self, name: str) -> str:
        """The text of the vocabulary's `bos` or `eos` token, as templates use it; "" when it has none."""
        token = self.bos if name == "bos" else _api.llama_vocab_eos(self._vocab)
        return self._read_piece(token, True).decode("utf-8", "replace") if token >= 0 else ""


class Aborted(Exception):
    """`Context.abort` ended a decode. What it did of the batch stays in the cache: remove it."""


class Context:
    """A model's working memory: one cache of `n_ctx` tokens per sequence, and one batch of up to `n_batch`
    rows.

    The caches are separate unless `unified`: a sequence's numbers then do not depend on which others run, and
    caches kept for later cost running answers nothing (unified: +90 % per token with seven idle conversations
    of 900 tokens).
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        slots: int,
        n_batch: int,
        threads: int,
        kv_type: KvType = "f16",
        flash_attention: FlashAttention = "auto",
        unified: bool = False,
        n_outputs: int = 0,
        n_ubatch: int | None = None,
    ) -> None:
        """`n_outputs`: so many rows of one step may give logits, or more. `n_ubatch`: llama.cpp computes so
        many of the `n_batch` rows at a time; None = all."""
        self._handle: int | None = None
        self.model = model
        self.n_batch = n_batch
        self.separate = not unified
        self.kv_type = kv_type
        self.flash_attention = flash_attention
        params = _api.llama_context_default_params()
        params.n_ctx = n_ctx * slots
        params.n_seq_max = slots
        params.n_batch = n_batch
        params.n_ubatch = n_ubatch or n_batch
        params.n_threads = threads
        params.n_threads_batch = threads
        # One row of logits per sequence: room for a whole batch of them would take 300 MB with a large
        # vocabulary.
        self.n_outputs = min(n_batch, max(slots, LEAST_OUTPUTS, n_outputs))
        params.n_outputs_max = self.n_outputs
        params.kv_unified = unified
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        # strlen is what llama.cpp calls before each operation of its graph: the length of the string "" or
        # "\1" is false or true, without entering Python (which would cost more than the operations of a small
        # model).
        self._abort = ctypes.create_string_buffer(2)
        params.abort_callback = ctypes.cast(_strlen, _api.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort)
        handle = _api.llama_init_from_model(model.handle, params)
        if not handle:
            raise EngineError(
                "no_memory",
                f"There is no memory for {slots} conversations of {n_ctx} tokens.",
                "Close other programs, or choose a smaller model or context.",
            )
        self._handle = handle
        self._memory = _api.llama_get_memory(handle)
        if not self._memory:
            self.close()
            raise EngineError(
                "unsupported", f"{model.path.name} cannot generate text.", "Choose a chat model."
            )
        # Any: ctypes arrays take whole slices of numbers, which their types do not say.
        self.token: Any = (ctypes.c_int32 * n_batch)()
        self.pos: Any = (ctypes.c_int32 * n_batch)()
        self.seq: Any = (ctypes.c_int32 * n_batch)()
        self.output: Any = (ctypes.c_int8 * n_batch)()
        self._one = (ctypes.c_int32 * n_batch)(*([1] * n_batch))
        int32_p = ctypes.POINTER(ctypes.c_int32)
        base = ctypes.addressof(self.seq)
        self._seq_p = (int32_p * n_batch)(*(ctypes.cast(base + 4 * i, int32_p) for i in range(n_batch)))
        batch = _api.llama_batch()
        batch.token = ctypes.cast(self.token, int32_p)
        batch.pos = ctypes.cast(self.pos, int32_p)
        batch.n_seq_id = ctypes.cast(self._one, int32_p)
        batch.seq_id = ctypes.cast(self._seq_p, ctypes.POINTER(int32_p))
        batch.logits = ctypes.cast(self.output, ctypes.POINTER(ctypes.c_int8))
        self._batch = batch

    def close(self) -> None:
        """Frees the memory. Does nothing the second time."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _api.llama_free(handle)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise ValueError("this context is closed")
        return self._handle

    def decode(self, rows: int) -> None:
        """Decodes the first `rows` rows of `token`, `pos`, `seq` and `output`.

        Raises Aborted, or EngineError: `no_memory` when the cache has no room, `compute_failed` for a failure
        inside llama.cpp.
        """
        self._batch.n_tokens = rows
        code = _api.llama_decode(self.handle, self._batch)
        if code == 0:
            return
        if code == 2:
            raise Aborted
        if code == 1:
            raise EngineError("no_memory", "The context has no room left for this step.", "Start a new chat.")
        raise EngineError(
            "compute_failed",
            f"llama.cpp failed while computing (code {code}).",
            "Try again; the log view shows what llama.cpp said.",
        )

    def warm_up(self) -> None:
        """One token, and it is forgotten: the first request finds the weights read and the buffers made."""
        self.token[0], self.pos[0], self.seq[0], self.output[0] = max(self.model.bos, 0), 0, 0, 1
        # Of a mixture of experts, all.
        _api.llama_set_warmup(self.handle, True)
        try:
            self.decode(1)
        finally:
            _api.llama_set_warmup(self.handle, False)
            self.clear(0)

    def abort(self, on: bool) -> None:
        """Ends the running decode before its next operation (CPU only), and each one until switched off. Any
        thread."""
        self._abort[0] = b"\1" if on else b"\0"

    def remove(self, seq: int, start: int) -> bool:
        """Removes the positions from `start` on. False when this kind of cache can only be cleared whole."""
        return bool(_api.llama_memory_seq_rm(self._memory, seq, start, -1))

    def clear(self, seq: int) -> None:
        _api.llama_memory_seq_rm(self._memory, seq, -1, -1)

    def share(self, source: int, target: int) -> None:
        """`target` holds what `source` holds. Takes neither time nor memory, and only a unified cache can."""
        self.clear(target)
        _api.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def state_size(self, seq: int) -> int:
        """Bytes that `save` would take."""
        return int(_api.llama_state_seq_get_size(self.handle, seq))

    def save(self, seq: int) -> bytearray:
        """What the sequence remembers: only its used cells, about 1/100 of the time that reading them took.
        Raises MemoryError."""
        size = self.state_size(seq)
        state = bytearray(size)
        buffer = (ctypes.c_uint8 * size).from_buffer(state)
        if _api.llama_state_seq_get_data(self.handle, buffer, size, seq) != size:
            raise MemoryError
        return state

    def load(self, seq: int, state: bytearray) -> bool:
        """Makes the sequence remember what was saved, and nothing else. False when that failed: it may then
        hold anything."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        return bool(_api.llama_state_seq_set_data(self.handle, buffer, len(state), seq))


def _find_strlen() -> Any:
    library = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
    return library.strlen


_strlen = _find_strlen()
