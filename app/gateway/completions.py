"""`POST /v1/completions`: text that goes on as it is, without a chat's turns. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from infraxa.app.gateway.bodies import LEAST_LOGPROB, Asked
from infraxa.app.gateway.errors import bad_request, unsupported
from infraxa.engine.types import Delta, Request, Sampling, TokenLogprob

MAX_PROMPTS: Final = 16
MAX_ANSWERS: Final = 32
"""To all prompts of a request."""
MAX_LOGPROBS: Final = 5
MAX_TOKENS: Final = 16
"""Of the answer, when nothing is said of it: as OpenAI has it."""


class CompletionBody(Asked, frozen=True, kw_only=True):
    """The whole body."""

    prompt: str | list[str | int | list[int]]
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def prompts(self) -> list[str]:
        """Raises ApiError 400 for tokens."""
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        texts = [one for one in given if isinstance(one, str)]
        if len(texts) != len(given):
            raise unsupported("prompt", "tokens are the model's own: write the prompt as text.")
        if not 1 <= len(texts) <= MAX_PROMPTS or len(texts) * (self.n or 1) > MAX_ANSWERS:
            raise bad_request(
                f"There can be 1 to {MAX_PROMPTS} prompts, with {MAX_ANSWERS} answers in all.",
                "prompt",
            )
        return texts


completion_decoder = msgspec.json.Decoder(CompletionBody)


def completion_requests(body: CompletionBody, defaults: Sampling) -> list[Request]:
    """One for each answer that is wanted: all of the first prompt, then all of the second. Raises ApiError
    400."""
    if body.suffix:
        raise unsupported("suffix", "text is only continued at its end.")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise unsupported("best_of", "ask for n answers and choose one.")
    if body.echo and body.logprobs is not None:
        raise unsupported("logprobs", "the prompt has none; leave echo out.")
    most = body.max_tokens or MAX_TOKENS
    return [
        Request(prompt=prompt, sampling=body.sampling(defaults, place, most), logprobs=body.logprobs)
        for prompt in body.prompts
        for place in range(body.n or 1)
    ]


class CompletionChoice:
    """One answer, as a Choice: the same shape whole and in a stream."""

    enough = False

    def __init__(self, place: int, body: CompletionBody, request: Request) -> None:
        self._place = place
        self._has_logprobs = body.logprobs is not None
        self._said = request.prompt if body.echo else ""
        """That a stream has not told yet."""
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._offsets: list[int] = []
        self._size = 0
        self._reason = ""

    def take(self, delta: Delta) -> list[dict[str, Any]]:
        text, self._said = self._said + delta.text, ""
        first = len(self._logprobs)
        if self._has_logprobs:
            self._place_tokens(delta)
        self._texts.append(text)
        self._size += len(text)
        if not text and first == len(self._logprobs):
            return []
        return [self._shape(text, first, None)]

    def finish(self, reason: str) -> list[dict[str, Any]]:
        told = self.take(Delta("", ())) if self._said else []
        self._reason = reason
        return [*told, self._shape("", len(self._logprobs), reason)]

    def whole(self) -> dict[str, Any]:
        return self._shape("".join(self._texts), 0, self._reason)

    def _place_tokens(self, delta: Delta) -> None:
        """Where each begins in the text; several tokens that make one character begin at the same place."""
        at = self._size
        for one in delta.logprobs:
            self._logprobs.append(one)
            self._offsets.append(min(at, self._size + len(delta.text)))
            at += len(one.piece.decode("utf-8", "ignore"))

    def _shape(self, text: str, first: int, reason: str | None) -> dict[str, Any]:
        shown = self._logprobs[first:]
        logprobs = None
        if self._has_logprobs and (shown or reason is None or first == 0):
            logprobs = {
                "tokens": [_text(one.piece) for one in shown],
                "token_logprobs": [max(one.logprob, LEAST_LOGPROB) for one in shown],
                "top_logprobs": [
                    {_text(piece): max(logprob, LEAST_LOGPROB) for _, piece, logprob in one.top}
                    for one in shown
                ],
                "text_offset": self._offsets[first:],
            }
        return {"index": self._place, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _text(piece: bytes) -> str:
    """A token in the shape of this endpoint, which has no bytes: those that are no characters are written
    out."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
