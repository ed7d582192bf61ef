"""`POST /v1/embeddings`: texts to vectors. Pure but for the one call."""

from __future__ import annotations

import base64
from array import array
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta

from infraxa.app.calls import MAX_TEXTS, EmbedCall, EmbeddedBy, Policy
from infraxa.app.config import LOCAL
from infraxa.app.gateway.bodies import Anything, Model, is_there
from infraxa.app.gateway.errors import bad_request, unsupported

_FLOAT_BYTES: Final = 4


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True):
    """The whole body."""

    model: Model
    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Anything = UNSET


embedding_decoder = msgspec.json.Decoder(EmbeddingBody)


def embed_call(body: EmbeddingBody, policy: Policy) -> EmbedCall:
    """Raises ApiError 400."""
    if is_there(body.dimensions):
        raise unsupported("dimensions", "a vector is as long as the model makes it.")
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = tuple(one for one in given if isinstance(one, str))
    if len(texts) != len(given):
        raise unsupported("input", "tokens are the model's own: write the input as text.")
    if len(texts) > MAX_TEXTS:
        raise bad_request(f"There can be {MAX_TEXTS} texts, not {len(texts)}.", "input")
    if not all(texts):
        raise bad_request("A text is empty.", "input")
    return EmbedCall(body.model, texts, policy)


def embedded(body: EmbeddingBody, made: EmbeddedBy) -> dict[str, Any]:
    """The answer. The openai package asks for base64, and makes numbers of it itself."""
    as_text = body.encoding_format == "base64"
    n_tokens = sum(made.n_tokens)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(vector).decode() if as_text else _numbers(vector),
            }
            for place, vector in enumerate(made.vectors)
        ],
        "model": made.model,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        "infraxa": {
            "driver": made.driver or LOCAL,
            "driver_name": made.driver_name,
            "model": made.model,
            "cost": made.charge or 0,
            "readers": [{"id": made.driver, "name": made.driver_name}] if made.driver else [],
        },
    }


def _numbers(vector: bytes) -> list[float]:
    import sys

    numbers = array("f", vector)
    assert numbers.itemsize == _FLOAT_BYTES
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
