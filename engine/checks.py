"""What a request may ask for: everything that can be said without a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from infraxa.engine.types import EngineError, Request, Sampling, Verified

MAX_STOP: Final = 4096
"""Characters of all stop strings; they are searched for after every token."""
MAX_STOPS: Final = 16
MAX_PENALTY: Final = 2.0
"""Of presence and frequency, up or down."""
MAX_LOGPROBS: Final = 20
MAX_TOOLS: Final = 128
MAX_SCHEMAS: Final = 256 << 10
"""Characters of all schemas of a request, and of what is said about its tools."""
MAX_CALLS: Final = 128
"""Of one turn of the assistant."""

MAX_TEXTS: Final = 2048
"""To be embedded at once."""
MAX_EMBEDDED: Final = 8 << 20
"""Characters of these together."""

MAX_STEPS: Final = 8192
"""Of one answer that is scored: 6 MB of logits."""
MAX_ANSWER: Final = 1 << 18
"""Its tokens; the model's own context is the nearer limit."""
MAX_CANDIDATES: Final = 64
"""Of one step."""

_TOOL_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_VERIFIED_SIZES = (16, 32, 32)
_CHOICES = ("auto", "none", "required")


def check_request(request: Request) -> None:
    """Raises EngineError `bad_request` for what means nothing or is too much. Whether a schema can be
    followed is found out by `constraint.py`."""
    check_sampling(request.sampling)
    problem = _problem(request)
    if problem:
        raise EngineError("bad_request", f"This cannot be generated: {problem}.", "Correct the request.")
    if request.verified is not None:
        _check_verified(request, request.verified)


def _check_verified(request: Request, verified: Verified) -> None:
    s, sizes = request.sampling, (len(verified.order), len(verified.seed), len(verified.salt))
    problem = ""
    if sizes != _VERIFIED_SIZES or not all(0 <= value < 1 << 32 for value in verified.ppm):
        problem = "its parts are not what they must be"
    elif s.repeat_penalty != 1:
        problem = "it has a repeat penalty"
    elif s.presence_penalty or s.frequency_penalty:
        problem = "it has a penalty for what was said before"
    elif request.format is not None:
        problem = "it must have a given format"
    elif request.tool_choice not in ("auto", "none"):
        problem = "it must call a tool"
    if problem:
        raise EngineError(
            "bad_request",
            f"This answer cannot be verified: {problem}.",
            "Ask without that, or without verification.",
        )


def check_texts(texts: Sequence[str]) -> None:
    """Raises EngineError `bad_request` for what cannot be embedded."""
    problem = ""
    if not texts or not all(texts):
        problem = "there is no text"
    elif len(texts) > MAX_TEXTS:
        problem = f"there can be {MAX_TEXTS} texts at once, not {len(texts)}"
    elif sum(map(len, texts)) > MAX_EMBEDDED:
        problem = f"the texts are longer than {MAX_EMBEDDED} characters together"
    if problem:
        raise EngineError("bad_request", f"This cannot be embedded: {problem}.", "Correct the texts.")


def check_answer(answer: Sequence[int], steps: Sequence[int], ids: Sequence[bytes]) -> None:
    """Raises EngineError `bad_request` for an answer that no model could be asked to score."""
    n, problem = len(answer), ""
    if n > MAX_ANSWER or len(steps) > MAX_STEPS:
        problem = f"there can be {MAX_STEPS} steps of {MAX_ANSWER} tokens, not {len(steps)} of {n}"
    elif not steps or steps[0] < 0 or steps[-1] >= n or any(a >= b for a, b in pairwise(steps)):
        problem = f"the steps must rise and be some of its {n}"
    elif ids and len(ids) != len(steps):
        problem = f"there are candidates of {len(ids)} steps, not of {len(steps)}"
    elif any(len(one) % 4 or len(one) > 4 * MAX_CANDIDATES for one in ids):
        problem = f"a step has at most {MAX_CANDIDATES} candidates"
    if problem:
        raise EngineError("bad_request", f"This answer cannot be scored: {problem}.", "Ask for another.")


def check_sampling(sampling: Sampling) -> None:
    """Raises EngineError `bad_request` for values that mean nothing."""
    s = sampling
    problem = ""
    if not (math.isfinite(s.temperature) and s.temperature >= 0):
        problem = f"temperature must be 0 or more, not {s.temperature}"
    elif not 0 <= s.top_k < 2**31:
        problem = f"top-k must be 0 or more, not {s.top_k}"
    elif not 0 <= s.top_p <= 1:
        problem = f"top-p must be between 0 and 1, not {s.top_p}"
    elif not 0 <= s.min_p <= 1:
        problem = f"min-p must be between 0 and 1, not {s.min_p}"
    elif not (math.isfinite(s.repeat_penalty) and s.repeat_penalty > 0):
        problem = f"the repeat penalty must be above 0, not {s.repeat_penalty}"
    elif not abs(s.presence_penalty) <= MAX_PENALTY:
        problem = f"the presence penalty must be between -2 and 2, not {s.presence_penalty}"
    elif not abs(s.frequency_penalty) <= MAX_PENALTY:
        problem = f"the frequency penalty must be between -2 and 2, not {s.frequency_penalty}"
    elif s.max_tokens is not None and s.max_tokens < 0:
        problem = f"max tokens must be 0 or more, not {s.max_tokens}"
    elif len(s.stop) > MAX_STOPS:
        problem = f"there can be {MAX_STOPS} stop strings, not {len(s.stop)}"
    elif sum(map(len, s.stop)) > MAX_STOP:
        problem = f"the stop strings are longer than {MAX_STOP} characters together"
    if problem:
        raise EngineError("bad_request", f"This cannot be generated: {problem}.", "Correct the setting.")


def _problem(request: Request) -> str:
    """What is wrong with it; "" for nothing."""
    r = request
    names = [tool.name for tool in r.tools]
    schema = r.format.schema if r.format is not None else ""
    said = sum(len(tool.description) + len(tool.parameters) for tool in r.tools)
    if r.messages and r.prompt:
        return "it has both messages and a prompt"
    if not r.messages and r.tools:
        return "tools need messages"
    if r.logprobs is not None and not 0 <= r.logprobs <= MAX_LOGPROBS:
        return f"there are log-probabilities of 0 to {MAX_LOGPROBS} tokens, not {r.logprobs}"
    if len(names) > MAX_TOOLS:
        return f"there can be {MAX_TOOLS} tools, not {len(names)}"
    if any(len(message.tool_calls) > MAX_CALLS for message in r.messages):
        return f"a turn has more than {MAX_CALLS} tool calls"
    if said + len(schema) > MAX_SCHEMAS:
        return f"the tools and schemas are longer than {MAX_SCHEMAS} characters together"
    if not all(map(_TOOL_NAME.fullmatch, names)):
        return "the name of a tool must be 1 to 128 letters, digits or _.:/-"
    if not set(names).isdisjoint(_CHOICES):
        return f"no tool can be named {', '.join(_CHOICES)}"
    if len(set(names)) < len(names):
        return "two tools have the same name"
    if not all(_is_schema(tool.parameters) for tool in r.tools):
        return "the parameters of a tool must be a JSON schema"
    if r.tool_choice not in _CHOICES and r.tool_choice not in names:
        return "the tool that must be called is not one of the tools"
    if r.tool_choice == "required" and not names:
        return "a tool must be called, and there is none"
    if r.format is not None and r.format.kind == "json_schema" and not _is_schema(schema):
        return "the schema of the format must be a JSON schema"
    return ""


def _is_schema(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
