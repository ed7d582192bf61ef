"""Failures as OpenAI's clients understand them: a status, and `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import Final

import msgspec

from infraxa.app.errors import NodeError, sentence
from infraxa.engine.types import EngineError, ErrorInfo
from infraxa.net.errors import NetError
from infraxa.store.records import StoreError

_log = logging.getLogger(__name__)

RETRY_S: Final = 2
"""Seconds after which somebody who was turned away for want of room may come again."""

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
}

_STATUS: Final[Mapping[str, int]] = {
    # What was asked for cannot be done, now or later.
    "bad_request": 400,
    "bad_policy": 400,
    "bad_text": 400,
    "no_audits": 400,
    "no_template": 400,
    "prompt_too_long": 400,
    "too_long": 413,
    "unknown_node": 404,
    "no_model": 404,
    "model_gone": 404,
    "unsupported": 400,
    # It costs more than the person allows, or than the driver lends.
    "over_budget": 402,
    "too_dear": 402,
    "price_changed": 402,
    "cap_request": 402,
    "cap_chat": 402,
    "cap_day": 402,
    "cap_api": 402,
    "tab_limit": 402,
    "not_allowed": 403,
    "declined": 403,
    # There is no room; later there may be.
    "busy": 429,
    "rate_limited": 429,
    "strangers_full": 429,
    "receipt_due": 429,
    # This machine's own part failed.
    "not_found": 503,
    "not_gguf": 503,
    "truncated": 503,
    "no_memory": 503,
    "load_failed": 503,
    "closed": 503,
    "offline": 503,
    "no_driver": 503,
    "timeout": 504,
    # A driver failed.
    "unreachable": 502,
    "refused": 502,
    "silent": 504,
    "stalled": 504,
    "gone": 502,
    "garbage": 502,
    "internal": 502,
    "leaving": 502,
    "expired": 502,
    "cancelled": 502,
    "audit_refused": 502,
}
"""Of the codes of NodeError, EngineError, NetError and of what drivers say. Others are 500."""

_CODES: Final[Mapping[str, str]] = {
    "no_model": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
}
"""Where OpenAI's clients know a code of their own."""


class ApiError(Exception):
    """A request is answered with this error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after
        """Seconds."""
        self.paid = False
        """Something may have been bought for it: a client that asks again by itself would pay twice."""

    @property
    def body(self) -> bytes:
        """As JSON."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    @property
    def headers(self) -> dict[str, str]:
        """Those that belong to it."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if self.paid:
            headers["x-should-retry"] = "false"
        return headers


def api_error(error: NodeError | EngineError | NetError | StoreError | ErrorInfo) -> ApiError:
    """What a person would be told, for a program. Nothing of a prompt or an answer is in such a sentence."""
    status = _STATUS.get(error.code, 500)
    # A file's name may hold bytes that are no text.
    text = sentence(error).encode("utf-8", "replace").decode()
    return ApiError(
        status,
        text,
        code=_CODES.get(error.code, error.code),
        param="model" if error.code == "no_model" else None,
        retry_after=RETRY_S if status == 429 else None,
    )


def mistake(where: str, error: BaseException) -> ApiError:
    """What should not have happened: it is logged where, without what the message of an exception may
    quote."""
    trace = "".join((*traceback.format_tb(error.__traceback__), type(error).__name__))
    _log.error("the gateway failed at %s: %s", where, trace)
    return ApiError(500, "This is a mistake in infraxa.", code="internal")


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def unsupported(param: str, what: str) -> ApiError:
    """It would change the answer, and is not done: said rather than ignored."""
    return ApiError(400, f"{param} is not supported: {what}", param=param, code="unsupported_parameter")


def busy(message: str) -> ApiError:
    return ApiError(429, message, code="busy", retry_after=RETRY_S)
