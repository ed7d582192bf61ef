"""What orders are served with, and what the engine's end of an answer means on the wire.

Errors of the engine may quote a prompt: none of their texts passes through here, only what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from infraxa import __version__
from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.engine.transcript import TOP
from infraxa.engine.types import ErrorInfo, Finished, KvType, Loaded
from infraxa.net import orders, scores, vectors, wire
from infraxa.net.prompts import Prompt
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE

TOKEN_BYTES: Final = 32
"""Of a prompt, for each token of the context: several times what a token of any language has."""
SPARE_BYTES: Final = 4096
"""Of a prompt besides its text."""
MAX_PROFILE: Final = 64
"""Characters, as in deals.Transcript."""
_MODES: Final[dict[wire.Mode, int]] = {"none": 0, "merkle": MODE_MERKLE, "fraud_proof": MODE_FRAUD_PROOF}
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
    modes: int = 0
    """By which answers can be checked, see records.MODE_*."""
    profile: str = ""
    """With what answers are computed."""
    varying: bool = False
    """Its prompts may be other ones elsewhere, see Loaded."""

    @property
    def scores(self) -> bool:
        """It computes the steps of answers of others, as it can be asked to show its own. What it computed on
        another prompt would speak against whoever is honest."""
        return bool(self.modes) and not self.varying


def terms_of(entry: ModelEntry, settings: Settings, model_id: bytes, loaded: Loaded) -> Terms:
    """With a model as it is loaded."""
    # A cache of 4 bits changes what the model says as much as a smaller file does.
    checkable = loaded.chat and loaded.kv_type != "q4_0" and entry.info.vocabulary >= TOP
    modes = MODE_MERKLE | MODE_FRAUD_PROOF if checkable else 0
    profile = profile_of(loaded)
    return Terms(entry, settings, model_id, loaded.n_ctx, modes, profile, loaded.varying)


def profile_of(loaded: Loaded) -> str:
    """What a model is computed with: the versions, the backend, the cache, flash attention."""
    return "/".join((versions(loaded), loaded.backend, loaded.kv_type, loaded.flash_attention))[:MAX_PROFILE]


def versions(loaded: Loaded) -> str:
    """Of llama.cpp, and of infraxa, which puts prompts together."""
    return f"{loaded.version}+{__version__}"


def backend_of(profile: str) -> str:
    """What of a profile models give other numbers on; empty: it does not say."""
    return next(iter(profile.split("/")[1:]), "")


def versions_of(profile: str) -> str:
    """What of it are the `versions`."""
    return profile.split("/")[0]


def kv_type_of(profile: str) -> KvType:
    """The cache that it says; that of most when it says none."""
    return "q8_0" if profile.split("/")[2:3] == ["q8_0"] else "f16"


def check_order(order: wire.Order, terms: Terms) -> None:
    """Raises Refusal for one that is not served, whatever its prompt is."""
    info = terms.entry.info
    if order.model != terms.model_id:
        raise Refusal("model_gone", "It asked for a model that is not served.")
    if not order.repeat_penalty:
        raise Refusal("bad_request", "It asked for what cannot be generated.", field="repeat_penalty")
    if not order.texts and info.embeds_only:
        raise Refusal("bad_request", "It asked for an answer of a model that gives none.", field="texts")
    if order.texts and not vectors.fit(order.texts, info.embedding_length):
        raise Refusal("too_large", "It asked for more vectors than one order can have.", field="texts")
    if order.scores and not terms.scores:
        raise Refusal("unsupported", "It asked for scores of a model that gives none.", field="scores")
    if order.mode != "none" and not _MODES[order.mode] & terms.modes:
        raise Refusal("unsupported", "It asked for an answer that can be checked.", field="mode")
    # As much for each text, unless it is given away.
    prompts_most = max(1, order.texts) if order.quote else 1
    if order.prompt_bytes > prompts_most * terms.context * TOKEN_BYTES + SPARE_BYTES:
        # It need not be sent, and nobody else has to wait while it is cut into tokens.
        raise Refusal("too_large", "Its prompt was longer than the context.", limit=terms.context)


def check_prompt(prompt: Prompt) -> None:
    """Raises Refusal for one whose answer could not be checked, when it is to be: its tokens have to follow
    from the model's numbers and the draw alone. What an order says of that is in orders.check_order."""
    if prompt.format is not None:
        raise Refusal("unsupported", _UNCHECKED, field="format")
    if prompt.tools and prompt.tool_choice not in ("auto", "none"):
        raise Refusal("unsupported", _UNCHECKED, field="tool_choice")


_UNCHECKED: Final = "It asked for an answer that can be checked, and for what cannot."


def max_out(order: wire.Order, terms: Terms) -> int:
    """Tokens that the answer may have."""
    return min(order.max_tokens or terms.context, terms.context, orders.MAX_OUT)


def done_of(finished: Finished, n_out: int, steps: int, in_line_s: float) -> orders.Done:
    """The end of an answer of which `n_out` tokens were sent; `steps`: see orders.Done."""
    usage = finished.usage
    return orders.Done(
        finish="length" if finished.reason == "length" else "stop",
        n_prompt=usage.n_prompt,
        n_cached=usage.n_cached,
        n_out=n_out,
        queued_ms=round(in_line_s * 1000 + usage.queued_ms),
        first_token_ms=round(usage.first_token_ms or 0),
        decode_ms=round(usage.decode_ms),
        steps=steps,
    )


def refusal_of(error: ErrorInfo, terms: Terms, now: Terms | None) -> Refusal:
    """What an error of the engine means for an order; `now`: what orders are served with by then."""
    if error.code == "prompt_too_long":
        return Refusal("too_large", "Its prompt was longer than the context.", limit=terms.context)
    if error.code == "over_budget":
        return Refusal("bad_request", "It reserved less than its prompt costs.", field="hold")
    if error.code == "no_token":
        return Refusal("bad_request", "It asked for scores of what is no token.", field=scores.NO_TOKEN)
    if error.code in ("bad_request", "no_template"):
        return Refusal("bad_request", "It asked for what the model cannot read.", field="prompt")
    if error.code == "closed" and (now is None or now.model_id != terms.model_id):
        return Refusal("model_gone", "Another model was loaded.", fault=True)
    if error.code == "not_found":
        return Refusal("model_gone", "The model's file has changed, or is missing.", fault=True)
    return Refusal("internal", f"The engine failed ({error.code}).", fault=True)
