"""The calls and streams of `NodeFacade`, with the types of what travels: read from its signatures."""

from __future__ import annotations

import functools
import inspect
import typing
from typing import Any, Literal, NamedTuple

import msgspec

from infraxa.app.facade import NodeFacade, OnProgress, Stream

PROGRESS = "on_progress"
"""The parameter that is told of progress; what travels is whether there is somebody to tell."""
_OWN = {"start", "close"}
"""What each process does by itself."""


class Method(NamedTuple):
    """One method of the facade."""

    name: str
    kind: Literal["call", "stream"]
    signature: inspect.Signature
    arguments: type[msgspec.Struct]
    """A struct of the arguments, in the order of the parameters."""
    result: Any
    """The type of the result, or of the values of the stream."""
    reports: bool
    """It has the parameter `on_progress`."""

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[msgspec.Struct, OnProgress | None]:
        """The arguments of a call, without `self`, as they travel, and whom to tell of progress.

        Raises TypeError like the call would.
        """
        bound = self.signature.bind(None, *args, **kwargs)
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        on_progress = given.get(PROGRESS)
        if self.reports:
            given[PROGRESS] = on_progress is not None
        return self.arguments(**given), on_progress

    def unpack(self, arguments: msgspec.Struct, on_progress: OnProgress) -> dict[str, Any]:
        """The arguments as keywords for the call."""
        given = {name: getattr(arguments, name) for name in arguments.__struct_fields__}
        if self.reports:
            given[PROGRESS] = on_progress if given[PROGRESS] else None
        return given


@functools.cache
def methods() -> dict[str, Method]:
    """By name."""
    found = {}
    for name, function in inspect.getmembers(NodeFacade, inspect.isfunction):
        hints = typing.get_type_hints(function)
        result = hints.pop("return", None)
        is_stream = typing.get_origin(result) is Stream
        if name in _OWN or not (is_stream or inspect.iscoroutinefunction(function)):
            continue
        reports = PROGRESS in hints
        if reports:
            hints[PROGRESS] = bool
        # msgspec takes `object` for a class to be made, and Any for what may be anything.
        fields = [(field, Any if kind is object else kind) for field, kind in hints.items()]
        found[name] = Method(
            name,
            "stream" if is_stream else "call",
            inspect.signature(function),
            msgspec.defstruct(f"{name}_arguments", fields, array_like=True, frozen=True),
            typing.get_args(result)[0] if is_stream else result,
            reports,
        )
    return found
