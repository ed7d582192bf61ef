"""Reads the vocabulary of a GGUF file as llama.cpp understands it, from its header and without llama.cpp.

A token stands for exactly the bytes that `Model.piece` of llama.py gives, and for none when it ends a turn.
Where a file marks a token wrongly, llama.cpp goes by its name; so does this, by the names of the llama.cpp
that is built in.
Source: github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp (load, token_to_piece)
"""

from __future__ import annotations

import codecs
import itertools
from array import array
from pathlib import Path
from typing import Final

from infraxa.engine.gguf_header import Header, read_header
from infraxa.engine.types import EngineError
from infraxa.engine.vocabulary import MARKS, MAX_ENCODED, MAX_PIECE, Vocabulary

_TOKENS: Final = "tokenizer.ggml.tokens"
_TYPES: Final = "tokenizer.ggml.token_type"
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6
_SPACE: Final = "\u2581".encode()
"""How a space is written in vocabularies of SentencePiece."""
# tokenizer.ggml.model -> the end-of-turn token when the file does not say which it is
_DEFAULT_EOS: Final = {"llama": 2, "bert": -1, "t5": 1, "gpt2": 11, "gemma4": -1}
_SPACED_BPE: Final = frozenset({"gemma4", "granite-embed-multi-311m", "sarvam-moe"})
"""By tokenizer.ggml.pre: spaces as in SentencePiece, and no alphabet of bytes."""
_ENDS: Final = frozenset(
    name.encode()
    for name in (
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
        "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
        "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[",
    )
)  # fmt: skip
"""Names that end a turn whatever the file says, but for:"""
_NO_ENDS: Final = (
    (
        b"<|end|>",
        ({b"<|return|>", b"<|call|>"}, {b"<|return|>", b"<|calls|>"},
         {b"<|flush|>", b"<|call|>"}, {b"<|flush|>", b"<|calls|>"}),
        _USER_DEFINED,
    ),
    (b"</s>", ({b"<|tool_response>"},), _NORMAL),
)  # fmt: skip
"""Those that do not when all names of one of these sets are there, and what they are then."""
_SHOWN: Final = frozenset((b"<|channel|>", b"<|message|>", b"<|start|>", b"<|constrain|>"))
"""Names that are written out whatever the file says."""
# key under tokenizer.ggml. -> names of the token when the file does not say which it is, and whether it ends
# a turn; older names of a key after it
_FILL_IN: Final = (
    (("fim_pre_token_id", "prefix_token_id"), False, (
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>",
        "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>",
    )),
    (("fim_suf_token_id", "suffix_token_id"), False, (
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>",
        "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>",
    )),
    (("fim_mid_token_id", "middle_token_id"), False, (
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>",
        "\u2581<MID>", "<|code_middle|>", "<|middle|>",
    )),
    (("fim_pad_token_id",), True, ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]")),
    (("fim_rep_token_id",), True, ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    (("fim_sep_token_id",), True, ("<|file_sep|>",)),
)  # fmt: skip


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of the GGUF file at `path`; of a split model, its first part.

    Raises EngineError `not_found`, `not_gguf`, `truncated` or `unsupported` (a kind that is not known
    here, or one that llama.cpp does not load either).
    """
    header = read_header(path, frozenset((_TOKENS, _TYPES)))
    texts, types = header.lists.get(_TOKENS), header.lists.get(_TYPES)
    kind = header.values.get("tokenizer.ggml.model")
    if kind not in _DEFAULT_EOS:
        raise _unsupported(path, "it is of a kind that is not known")
    if not texts or not isinstance(texts[0], bytes):
        raise _unsupported(path, "it has no tokens")
    # A C string ends at the first NUL.
    names = [bytes(text).partition(b"\0")[0] or f"[EMPTY_{i}]".encode() for i, text in enumerate(texts)]
    by_name = dict(zip(names, range(len(names)), strict=True))
    if len(by_name) < len(names):
        raise _unsupported(path, "a token is there twice")
    if types is None:
        types = [_NORMAL] * len(names)
    if len(types) < len(names):
        raise _unsupported(path, "it has fewer types than tokens")
    kinds = [kind if isinstance(kind, int) else 0 for kind in types[: len(names)]]
    _correct(kinds, by_name, header, _DEFAULT_EOS[kind])
    spaced = kind != "gpt2" or header.values.get("tokenizer.ggml.pre") in _SPACED_BPE
    try:
        pieces = [_piece(name, kind, spaced) for name, kind in zip(names, kinds, strict=True)]
        lengths = array("H", map(len, pieces))
    except (ValueError, KeyError, OverflowError):
        raise _unsupported(path, "a token is not text, or too long") from None
    joined = b"".join(pieces)
    if len(joined) + 2 * len(lengths) + 16 > MAX_ENCODED:
        raise _unsupported(path, "it is too large")
    return Vocabulary(lengths, joined)


def _correct(kinds: list[int], by_name: dict[bytes, int], header: Header, eos: int) -> None:
    """Make the types those that llama.cpp goes by; what ends a turn becomes a control token. `eos`: the one
    that does so when the file names none."""

    def told(*keys: str, default: int = -1) -> int:
        """The id that the file names, the last of these keys first; -1: none."""
        for key in reversed(keys):
            token = header.values.get(f"tokenizer.ggml.{key}")
            if isinstance(token, int) and not isinstance(token, bool) and 0 <= token < len(kinds):
                return token
        return default if default < len(kinds) else -1

    ends = {told("eos_token_id", default=eos), told("eot_token_id"), told("eom_token_id")}
    for keys, is_end, names in _FILL_IN:
        token = told(*keys)
        if token < 0:
            # Of several names llama.cpp takes whichever its hash table has first.
            token = next((by_name[n] for name in names if (n := name.encode()) in by_name), -1)
            if token >= 0:
                kinds[token] = _CONTROL
        if is_end:
            ends.add(token)
    ends.update(by_name[name] for name in _ENDS if name in by_name)
    for name in _SHOWN:
        if name in by_name:
            kinds[by_name[name]] = _USER_DEFINED
    for end, others, kind in _NO_ENDS:
        if end in by_name and any(names <= by_name.keys() for names in others):
            kinds[by_name[end]] = kind
            ends.discard(by_name[end])
    for name in (mark.encode() for mark in MARKS):
        if name in by_name and kinds[by_name[name]] in (_CONTROL, _UNKNOWN):
            kinds[by_name[name]] = _USER_DEFINED
    for token in ends - {-1}:
        kinds[token] = _CONTROL


def _piece(name: bytes, kind: int, spaced: bool) -> bytes:
    """Raises ValueError or KeyError for what llama.cpp would not load, or is no text."""
    if kind == _NORMAL:
        return name.replace(_SPACE, b" ") if spaced else _bytes_of(name)
    if kind == _USER_DEFINED:
        return name
    if kind == _BYTE:  # <0x0A>
        return _BYTES[name[3:5].lower()]
    return b""


def _bytes_of(name: bytes) -> bytes:
    """From the alphabet of bytes of GPT-2."""
    text = name.decode()
    try:
        return codecs.charmap_encode(text, "strict", _ALPHABET)[0]
    except UnicodeEncodeError:
        pass
    piece = bytearray()
    for letter in text:
        try:
            piece += codecs.charmap_encode(letter, "strict", _ALPHABET)[0]
        except UnicodeEncodeError:  # what llama.cpp writes of a letter that is no byte
            piece += b"[UNK_BYTE_0x" + letter.encode().hex().encode() + name + b"]"
        if len(piece) > MAX_PIECE:
            raise ValueError("too long") from None
    return bytes(piece)


def _letters() -> str:
    """By byte. Letters that can be printed stand for their own, the others begin at U+0100."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return "".join(chr(byte if byte in plain else next(others)) for byte in range(256))


_ALPHABET: Final = codecs.charmap_build(_letters())
_BYTES: Final = {f"{byte:02x}".encode(): bytes((byte,)) for byte in range(256)}


def _unsupported(path: Path, reason: str) -> EngineError:
    return EngineError(
        "unsupported", f"The vocabulary of {path} cannot be read: {reason}.", "Use another model."
    )
