"""What orders are served with, and what the engine's end of an answer means on the wire.

Errors of the engine may quote a prompt: none of their texts passes through here, only what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.engine.types import ErrorInfo, Finished
from infraxa.net import orders, wire

PAUSED: Final = "paused"
"""The field of a refusal while nobody is served."""


class Refusal(Exception):
    """An order is not served (any more), and why: a code and its values for the user, a sentence for this
    side's own screen."""

    def __init__(
        self,
        code: wire.ErrorCode,
        reason: str,
        *,
        retry_after_ms: int = 0,
        limit: int = 0,
        field: str = "",
        fault: bool = False,
    ) -> None:
        """`fault`: something failed, instead of the order being refused."""
        super().__init__(code)
        self.code: wire.ErrorCode = code
        self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.limit = limit
        self.field = field
        self.fault = fault


Why = Callable[[], Refusal]
"""Makes the refusal for each order that it is for."""


class Terms(NamedTuple):
    """What orders are served with."""

    entry: ModelEntry
    settings: Settings
    model_id: bytes
    context: int


def max_out(order: wire.Order, terms: Terms) -> int:
    """Tokens that the answer may have."""
    return min(order.max_tokens or terms.context, terms.context, orders.MAX_OUT)


def done_of(finished: Finished, n_out: int, in_line_s: float) -> orders.Done:
    """The end of an answer of which `n_out` tokens were sent."""
    usage = finished.usage
    return orders.Done(
        finish="length" if finished.reason == "length" else "stop",
        n_prompt=usage.n_prompt,
        n_cached=usage.n_cached,
        n_out=n_out,
        queued_ms=round(in_line_s * 1000 + usage.queued_ms),
        first_token_ms=round(usage.first_token_ms or 0),
        decode_ms=round(usage.decode_ms),
    )


def refusal_of(error: ErrorInfo, terms: Terms, now: Terms | None) -> Refusal:
    """What an error of the engine means for an order; `now`: what orders are served with by then."""
    if error.code == "prompt_too_long":
        return Refusal("too_large", "Its prompt was longer than the context.", limit=terms.context)
    if error.code == "over_budget":
        return Refusal("bad_request", "It reserved less than its prompt costs.", field="hold")
    if error.code in ("bad_request", "no_template"):
        return Refusal("bad_request", "It asked for what the model cannot read.", field="prompt")
    if error.code == "closed" and (now is None or now.model_id != terms.model_id):
        return Refusal("model_gone", "Another model was loaded.", fault=True)
    if error.code == "not_found":
        return Refusal("model_gone", "The model's file has changed, or is missing.", fault=True)
    return Refusal("internal", f"The engine failed ({error.code}).", fault=True)
