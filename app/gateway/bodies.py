"""What a body may hold that asks for text, and how JSON becomes it. Fields that are not named are ignored,
since clients send many; those that would change the answer and are not done here are refused."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from infraxa.app.gateway.errors import ApiError, bad_request, unsupported
from infraxa.engine.types import Sampling

T = TypeVar("T")

MAX_BODY: Final = 8 << 20
"""Bytes."""
MAX_N: Final = 8
"""Answers to one prompt."""
MAX_STOPS: Final = 16
LEAST_LOGPROB: Final = -9999.0
"""JSON has no infinity."""
_SEEDS: Final = 1 << 32

Model = Annotated[str, Meta(min_length=1, max_length=512)]
_Count = Annotated[int, Meta(ge=1, le=1 << 24)]
_Stop = Annotated[str, Meta(min_length=1, max_length=512)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Share = Annotated[float, Meta(ge=0, le=1)]
Anything = msgspec.Raw | UnsetType
"""It is only looked at whether it is there."""


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What chats and completions have in common. None is as not there."""

    model: Model
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Count | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_N)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    min_p: _Share | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=10)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    seed: int | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=MAX_STOPS)] | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def wants_usage(self) -> bool:
        """At the end of a stream."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, defaults: Sampling, place: int, max_tokens: int | None) -> Sampling:
        """For the answer at this place: with a seed, each is another one, and the same again next time.
        Raises ApiError."""
        if self.logit_bias:
            raise unsupported("logit_bias", "tokens are the model's own, which clients do not know.")
        given = {
            name: value
            for name in (
                "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty",
                "frequency_penalty",
            )
            if (value := getattr(self, name)) is not None
        }  # fmt: skip
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        seed = None if self.seed is None else (self.seed + place) % _SEEDS
        return msgspec.structs.replace(defaults, **given, stop=stop, seed=seed, max_tokens=max_tokens)


def is_there(value: Anything) -> bool:
    return value is not UNSET and bytes(value) != b"null"


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises ApiError 400, which names the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise bad_request("The body is not valid JSON.", code="invalid_json") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.", code="invalid_json") from None


def _invalid(problem: str) -> ApiError:
    """msgspec writes: Expected `int`, got `str` - at `$.messages[0].content`."""
    what, _, where = problem.partition(" - at `$")
    param = where.removesuffix("`").removeprefix(".")[:200] or None
    return bad_request(f"{what}{f' in {param}' if param else ''}.", param)
