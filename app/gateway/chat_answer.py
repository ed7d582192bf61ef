"""Answers of a chat in OpenAI's shape, whole and as they stream. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infraxa.app.gateway.bodies import LEAST_LOGPROB
from infraxa.app.gateway.chat import ChatBody
from infraxa.engine.tool_text import CallPart, TextPart, ToolText
from infraxa.engine.types import Delta, Request, TokenLogprob


class ChatChoice:
    """One answer, as a Choice."""

    def __init__(self, place: int, body: ChatBody, request: Request) -> None:
        self._place = place
        self._tools = ToolText(request.tools) if request.tools and request.tool_choice != "none" else None
        self._one_call = body.parallel_tool_calls is False
        self._has_logprobs = request.logprobs is not None
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._reason = ""
        self._begun = False

    @property
    def enough(self) -> bool:
        return self._one_call and bool(self._calls)

    def take(self, delta: Delta) -> list[dict[str, Any]]:
        parts = [TextPart(delta.text)] if self._tools is None else self._tools.feed(delta.text)
        logprobs = [_logprob(one) for one in delta.logprobs] if self._has_logprobs else []
        self._logprobs += logprobs
        return self._told(parts, logprobs)

    def finish(self, reason: str) -> list[dict[str, Any]]:
        parts = [] if self._tools is None else self._tools.finish()
        told = self._told(parts, [])
        self._reason = "tool_calls" if self._calls and reason != "length" else reason
        return [*told, self._chunk(self._opening(), [], self._reason)]

    def whole(self) -> dict[str, Any]:
        text = "".join(self._texts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self._calls and not text else text,
            "refusal": None,
        }
        if self._calls:
            message["tool_calls"] = self._calls
        return {
            "index": self._place,
            "message": message,
            "logprobs": {"content": self._logprobs, "refusal": None} if self._has_logprobs else None,
            "finish_reason": self._reason,
        }

    def _told(
        self, parts: Sequence[TextPart | CallPart], logprobs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        chunks = []
        for part in parts:
            if self.enough:
                break  # what follows the one call
            more: dict[str, Any]
            if isinstance(part, CallPart):
                call = _call(part)
                self._calls.append(call)
                more = {"tool_calls": [{"index": len(self._calls) - 1, **call}]}
            elif part.text:
                self._texts.append(part.text)
                more = {"content": part.text}
            else:
                continue
            chunks.append(self._chunk(self._opening() | more, logprobs))
            logprobs = []
        if logprobs:
            chunks.append(self._chunk(self._opening(), logprobs))
        return chunks

    def _opening(self) -> dict[str, Any]:
        begun, self._begun = self._begun, True
        return {} if begun else {"role": "assistant", "content": ""}

    def _chunk(
        self, delta: dict[str, Any], logprobs: list[dict[str, Any]], reason: str | None = None
    ) -> dict[str, Any]:
        return {
            "index": self._place,
            "delta": delta,
            "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
            "finish_reason": reason,
        }


def _call(part: CallPart) -> dict[str, Any]:
    return {
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    return {
        **_token(one.piece, one.logprob),
        "top_logprobs": [_token(piece, logprob) for _, piece, logprob in one.top],
    }


def _token(piece: bytes, logprob: float) -> dict[str, Any]:
    return {
        "token": piece.decode("utf-8", "replace"),
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(piece),
    }
