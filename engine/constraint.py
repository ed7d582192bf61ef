"""What an answer may consist of: JSON, JSON of a schema, or calls of tools, token by token.

The schemas come from strangers. llguidance compiles them, in bounded memory and time; it is imported when the
first one is asked for. How a token is chosen of those that are allowed is in sampler.py and logits.py.
"""

from __future__ import annotations

import ctypes
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from infraxa.engine.bindings import api as _api
from infraxa.engine.llama import Model
from infraxa.engine.types import EngineError, Format, Request, Tool

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

MAX_KEYS: Final = 1000
"""Of one object in a schema: the time to compile grows with its square, 0.15 s for so many."""
MAX_ALL_KEYS: Final = 3000
"""Of all objects of a request's schemas."""
MAX_VARIANTS: Final = 1000
"""Of all `anyOf`, `oneOf` and `allOf` of a request."""
MAX_DIVISORS: Final = 2
"""Different numbers of `multipleOf`; a grammar's states are those of all of them at once."""
MAX_DIVISOR: Final = 10_000
"""Their product, as whole numbers without a decimal point."""
MAX_LITERAL: Final = 4096
"""Characters of a name, of a constant or of a pattern: each token costs time by them, 2 ms for so many."""
MAX_PLACES: Final = 10_000
"""Objects and lists in a request's schemas: by references each may lie within all others, and the compiler
calls itself for what lies within."""
STACK: Final = 256 << 20
"""Bytes for that: three times what so many places took. Only what is used of it takes memory."""
MAX_PARALLEL: Final = 8
"""Calls of tools in one answer that must consist of them."""
COMPILE_SECONDS: Final = 2.0
"""All sizes are such that half of it does; running answers wait as long."""
LIMITS: Final[dict[str, Any]] = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 200_000,  # 15 ms
    "step_max_items": 50_000,  # 3 ms
    "max_items_in_row": 2000,
    "max_lexer_states": 20_000,  # 40 MB
    "max_grammar_size": 100_000,
}
_JSON_OPTIONS: Final = {
    "item_separator": ",",
    "key_separator": ":",
    # A small model that may write spaces can write nothing else for ever.
    "whitespace_pattern": r"( |\n[ \t]{0,20})?",
    "whitespace_flexible": True,
    "coerce_one_of": True,
    "lenient": False,
    "json_allow_general_unicode_escapes": True,
}
T = TypeVar("T")
_VARIANTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_WHERE = re.compile(r"^at \d+\(\d+\): (failed to compile JSON schema: )?")
"""In a grammar that nobody else has seen."""


class Constraint:
    """Of one answer. Not what it has to be is kept, but what may come next."""

    def __init__(self, matcher: LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab

    @property
    def complete(self) -> bool:
        """The answer is what it has to be, and nothing more can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def take(self, token: int) -> bool:
        """Goes on with a token, when it is allowed; the end of the turn is when the answer may end here."""
        return self._matcher.try_consume_tokens([token]) == 1

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next. Raises EngineError when none may."""
        import numpy as np

        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed: NDArray[np.bool_] = np.unpackbits(mask, bitorder="little")[: self._n_vocab].view(np.bool_)
        if self._matcher.is_error() or not allowed.any():
            raise _stuck()
        return allowed

    def take_allowed(self, token: int) -> None:
        """Raises EngineError when it was not."""
        if not self.take(token):
            raise _stuck()


class Constraints:
    """Makes those of one model's answers."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._style = call_style(model.chat_template)
        self._tokenizer: LLTokenizer | None = None
        self._tokens: list[bytes] = []
        """What llguidance is to know of the vocabulary, as far as it was read."""
        self._ends: list[int] = []
        self._unusable = ""
        """Why there are no constraints with this vocabulary."""

    def wants(self, request: Request) -> bool:
        """Whether the answer may not be anything."""
        return request.format is not None or request.tool_choice not in ("auto", "none")

    def prepare(self, most: int) -> bool:
        """Reads so many more tokens of the vocabulary, and makes of all what constraints need, which takes
        0.4 s for 150,000 of them. Whether nothing is left to do."""
        if self._tokenizer is not None or self._unusable:
            return True
        model, tokens = self._model, self._tokens
        for token in range(len(tokens), min(len(tokens) + most, model.n_vocab)):
            piece = model.piece(token)
            if piece is None:
                self._ends.append(token)
            # What stands for no text is marked so: it is nowhere allowed.
            tokens.append(piece or b"\xff<%d>" % token)
        if len(tokens) == model.n_vocab:
            from llguidance import LLTokenizer

            try:
                self._tokenizer = LLTokenizer.from_llamacpp(  # type: ignore[attr-defined] # not in its stubs
                    tokens=tokens,
                    vocab_ptr=_api.llama_model_get_vocab(model.handle),
                    tokenize_fptr=ctypes.cast(_api.llama_tokenize, ctypes.c_void_p).value,
                    eos_token=self._ends,
                    # Quicker masks would take three times as long to prepare, and few tokens need one.
                    slices=[],
                )
            except ValueError as error:
                # No token that ends a turn, or none for single bytes.
                self._unusable = str(error)
            self._tokens = []
            return True
        return False

    def of(self, request: Request) -> Constraint | None:
        """None: the answer may be anything. `request` has passed `check_request`.

        Raises EngineError `bad_request` for a schema that cannot be followed.
        """
        if not self.wants(request):
            return None
        try:
            grammar = self._grammar(request)
        except EngineError:
            raise
        except Exception as error:
            # One schema must not end all others: numbers and depths that Python itself refuses, for one.
            raise _refused(f"it is malformed ({type(error).__name__})") from error
        constraint = self._compile(grammar)
        if request.messages and request.messages[-1].role == "assistant":
            self._go_on(constraint, request.messages[-1].content)
        return constraint

    def _grammar(self, request: Request) -> str:
        must_call = [t for t in request.tools if request.tool_choice in ("required", t.name)]
        tools = must_call or (request.tools if request.tool_choice == "auto" else ())
        schemas = [json.loads(tool.parameters) for tool in tools]
        if request.format is not None and request.format.schema:
            schemas.append(json.loads(request.format.schema))
        _check_sizes(schemas)
        if must_call:
            return _calls(must_call, self._style, one=request.tool_choice != "required")
        assert request.format is not None
        return _json_or_calls(request.format, tools, self._style)

    def _compile(self, grammar: str) -> Constraint:
        from llguidance import LLMatcher, LLParserLimits

        self.prepare(self._model.n_vocab)
        if self._tokenizer is None:
            raise EngineError(
                "unsupported",
                f"With this model's vocabulary no format can be kept to ({self._unusable}).",
                "Ask without it, or choose another model.",
            )
        tokenizer, limits = self._tokenizer, LLParserLimits(**LIMITS, verbose_errors=False)

        def compile_() -> LLMatcher:
            matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=limits)
            if not matcher.is_error():
                # What is too complicated shows with the first token.
                matcher.compute_bitmask()
            return matcher

        matcher = _with_deep_stack(compile_)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Constraint(matcher, self._model.n_vocab)

    def _go_on(self, constraint: Constraint, text: str) -> None:
        """The answer's beginning is there already."""
        assert self._tokenizer is not None
        # By its bytes: the model's own way may begin with a space that nobody wrote.
        for token in self._tokenizer.greedy_tokenize(text):
            if not constraint.take(token):
                raise EngineError(
                    "bad_request",
                    "The answer that shall go on does not follow the format that is asked for.",
                    "Ask without its beginning.",
                )


def call_style(template: str | None) -> str:
    """In which format a model with this chat template calls tools: `hermes`, `mistral`, `mistral_args` or
    `llama`."""
    template = template or ""
    if "[TOOL_CALLS]" in template:
        return "mistral_args" if "[ARGS]" in template else "mistral"
    if "<tool_call>" not in template and '"parameters": ' in template and "<|eot_id|>" in template:
        return "llama"
    return "hermes"


def _json_or_calls(format_: Format, tools: Sequence[Tool], style: str) -> str:
    """A grammar for an answer in that format, or calls instead where there are tools."""
    schema: object = json.loads(format_.schema) if format_.kind == "json_schema" else {"type": "object"}
    answer = f"answer: {_json(schema)}\n"
    if not tools:
        return f"start: answer\n{answer}"
    return f"start: answer | calls\n{answer}" + _calls(tools, style, one=False, rule="calls")


def _calls(tools: Sequence[Tool], style: str, *, one: bool, rule: str = "start") -> str:
    """A grammar for one call or several of these tools."""
    rules = [f"call{i}: {_call(tool, style)}" for i, tool in enumerate(tools)]
    call = " | ".join(f"call{i}" for i in range(len(tools)))
    begin, between, end = {"mistral": ("[TOOL_CALLS][", ", ", "]"), "llama": ("", "; ", "")}.get(
        style, ("", "" if style == "mistral_args" else "\n", "")
    )
    more = "" if one else f" ({_text(between)} call){{0,{MAX_PARALLEL - 1}}}"
    return f"{rule}: {_text(begin)} call{more} {_text(end)}\ncall: {call}\n" + "\n".join(rules) + "\n"


def _call(tool: Tool, style: str) -> str:
    arguments = _json({**json.loads(tool.parameters), "type": "object"})
    name = json.dumps(tool.name)
    before, after = {
        "mistral_args": (f"[TOOL_CALLS]{tool.name}[ARGS]", ""),
        "mistral": (f'{{"name": {name}, "arguments": ', "}"),
        "llama": (f'{{"name": {name}, "parameters": ', "}"),
    }.get(style, (f'<tool_call>\n{{"name": {name}, "arguments": ', "}\n</tool_call>"))
    return f"{_text(before)} {arguments} {_text(after)}"


def _text(text: str) -> str:
    return json.dumps(text) if text else ""


def _json(schema: Any) -> str:
    """A schema's part of a grammar."""
    schema = {key: value for key, value in schema.items() if key != "x-guidance"}
    return "%json " + json.dumps({**schema, "x-guidance": _JSON_OPTIONS})


def _check_sizes(schemas: Sequence[object]) -> None:
    """Raises EngineError `bad_request` for what would take too long, or too deep a stack."""
    places = keys = variants = 0
    divisors: set[int] = set()
    left = list(schemas)
    while left:
        value = left.pop()
        if isinstance(value, list):
            places += 1
            left += value
        if not isinstance(value, dict):
            continue
        places += 1
        keys += len(value)
        variants += sum(len(of) for name in _VARIANTS if isinstance(of := value.get(name), list))
        if len(value) > MAX_KEYS or keys > MAX_ALL_KEYS or variants > MAX_VARIANTS or places > MAX_PLACES:
            raise _refused("it is too large")
        if isinstance(divisor := value.get("multipleOf"), int | float):
            divisors.add(_as_whole(divisor))
            if len(divisors) > MAX_DIVISORS or math.prod(divisors) > MAX_DIVISOR:
                raise _refused("multipleOf is too large, or there are too many")
        constants = [*value, value.get("const"), value.get("pattern")]
        if isinstance(choices := value.get("enum"), list):
            constants += choices
        if any(len(json.dumps(one, ensure_ascii=False)) > MAX_LITERAL for one in constants):
            raise _refused("a name, constant or pattern is too long")
        left += value.values()


def _as_whole(number: float) -> int:
    """Its digits, without a decimal point; at least MAX_DIVISOR + 1 where it has too many."""
    if isinstance(number, int):
        return abs(number) or MAX_DIVISOR + 1
    digits = f"{number:.9f}".rstrip("0").replace(".", "").lstrip("-0")
    return int(digits) if digits.isdigit() and len(digits) < 9 else MAX_DIVISOR + 1


def _with_deep_stack(work: Callable[[], T]) -> T:
    """What it returns, from a thread whose stack is larger than that of others. Raises EngineError
    `bad_request` when that takes too long: the thread goes on, but no other is started meanwhile."""
    global _compiling
    if _compiling is not None and _compiling.is_alive():
        raise _refused("another one is too complicated, and not done yet")
    made: list[T] = []
    before = threading.stack_size(STACK)
    try:
        thread = threading.Thread(target=lambda: made.append(work()), name="schema", daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join(COMPILE_SECONDS)
    if not made:
        _compiling = thread
        raise _refused("it is too complicated")
    return made[0]


_compiling: threading.Thread | None = None


def _refused(why: str) -> EngineError:
    first, _, _ = why.strip().partition("\n")
    reason = "it allows nothing" if first.startswith("NoExtension") else _WHERE.sub("", first)
    reason = " ".join(reason.split())[:200].rstrip(".:")
    return EngineError(
        "bad_request", f"The schema cannot be followed: {reason}.", "Simplify the schema, or ask without it."
    )


def _stuck() -> EngineError:
    return EngineError(
        "bad_request",
        "The answer cannot go on in the format that was asked for.",
        "Simplify the schema, or ask without it.",
    )
