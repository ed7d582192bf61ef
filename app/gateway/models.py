"""`GET /v1/models`: what can be asked for, here and on the market. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infraxa.app.calls import CallableModel
from infraxa.app.gateway.errors import ApiError


def listed(models: Sequence[CallableModel]) -> dict[str, Any]:
    """All of them; a name that this machine and the market have stands here once, as this machine's."""
    return {"object": "list", "data": [_shape(model) for model in _once(models).values()]}


def one(models: Sequence[CallableModel], name: str) -> dict[str, Any]:
    """The model of this name. Raises ApiError 404."""
    found = _once(models).get(name.casefold())
    if found is None:
        raise ApiError(404, "There is no such model.", code="model_not_found", param="model")
    return _shape(found)


def _once(models: Sequence[CallableModel]) -> dict[str, CallableModel]:
    first: dict[str, CallableModel] = {}
    for model in models:
        first.setdefault(model.id.casefold(), model)
    return first


def _shape(model: CallableModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.created_ms // 1000,
        "owned_by": model.where,
        "infraxa": {
            "where": model.where,
            "context": model.context,
            "providers": model.providers,
            "price_in": model.price_in,
            "price_out": model.price_out,
        },
    }
