"""What an answer may consist of: JSON, JSON of a schema, or calls of tools, token by token.

The schemas come from strangers. llguidance compiles them, in bounded memory; it is imported when the first
one is asked for. In which thread, and for how long, is in compiling.py; how a token is chosen of those that
are allowed is in sampler.py and logits.py.
"""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING, Any, Final

from infraxa.engine.bindings import api as _api
from infraxa.engine.checks import check_request
from infraxa.engine.compiling import Compilers, Compiling
from infraxa.engine.grammars import call_style, grammar_of, refused
from infraxa.engine.llama import Model
from infraxa.engine.types import EngineError, Request

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

LIMITS: Final[dict[str, Any]] = {
    "initial_lexer_fuel": 1_000_000,  # 20 ms
    "step_lexer_fuel": 200_000,  # 15 ms
    "step_max_items": 50_000,  # 3 ms
    "max_items_in_row": 2000,
    "max_lexer_states": 20_000,  # 40 MB
    "max_grammar_size": 100_000,
}
WAIT: Final = 0.05
"""Seconds between two looks at what is compiled."""


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
        self.compilers: Compilers[Constraint] = Compilers()
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
        """None: the answer may be anything. Waits until it is compiled.

        Raises EngineError `bad_request` for a schema that cannot be followed.
        """
        if not self.wants(request):
            return None
        compiling = self.begin(request)
        while not compiling.over:
            self.compilers.wait(WAIT)
            self.compilers.go_on()
        return compiling.result()

    def begin(self, request: Request) -> Compiling[Constraint]:
        """Of a request that `wants` one; what is wrong with it comes out as the result."""
        self.prepare(self._model.n_vocab)
        try:
            check_request(request)
            grammar = grammar_of(request, self._style)
        except EngineError as error:
            return _refused(request, error)
        except Exception as error:
            # One schema must not end all others: numbers and depths that Python itself refuses, for one.
            return _refused(request, refused(f"it is malformed ({type(error).__name__})"))
        last = request.messages[-1] if request.messages else None
        begun = last.content if last is not None and last.role == "assistant" else ""

        def make(until: float) -> Constraint:
            constraint = self._compile(grammar)
            if begun:
                self._go_on(constraint, begun, until)
            return constraint

        return self.compilers.begin(request.user, make)

    def _compile(self, grammar: str) -> Constraint:
        from llguidance import LLMatcher, LLParserLimits

        if self._tokenizer is None:
            raise EngineError(
                "unsupported",
                f"With this model's vocabulary no format can be kept to ({self._unusable}).",
                "Ask without it, or choose another model.",
            )
        limits = LLParserLimits(**LIMITS, verbose_errors=False)
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=limits)
        if not matcher.is_error():
            # What is too complicated shows with the first token.
            matcher.compute_bitmask()
        if matcher.is_error():
            raise refused(matcher.get_error())
        return Constraint(matcher, self._model.n_vocab)

    def _go_on(self, constraint: Constraint, text: str, until: float) -> None:
        """The answer's beginning is there already. Each of its tokens may cost what LIMITS allow for one."""
        assert self._tokenizer is not None
        # By its bytes: the model's own way may begin with a space that nobody wrote.
        for token in self._tokenizer.greedy_tokenize(text):
            if time.monotonic() >= until:
                raise refused("it is too complicated")
            if not constraint.take(token):
                raise EngineError(
                    "bad_request",
                    "The answer that shall go on does not follow the format that is asked for.",
                    "Ask without its beginning.",
                )


def _refused(request: Request, error: EngineError) -> Compiling[Constraint]:
    def never(until: float) -> Constraint:
        raise error

    compiling = Compiling(request.user, never)
    compiling.refuse(error)
    return compiling


def _stuck() -> EngineError:
    return EngineError(
        "bad_request",
        "The answer cannot go on in the format that was asked for.",
        "Simplify the schema, or ask without it.",
    )
