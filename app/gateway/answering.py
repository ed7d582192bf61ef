"""Runs the calls of one request together, and keeps what is told of each besides its text.

How an answer looks in OpenAI's shape is in chat_answer.py and completions.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec

from infraxa.app.answering import AskBegan, Billed, Moved, Sent
from infraxa.app.calls import Call, CallEvent
from infraxa.app.config import LOCAL
from infraxa.app.errors import FAILURES
from infraxa.app.facade import NodeFacade
from infraxa.app.gateway.errors import ApiError, api_error, mistake
from infraxa.engine.types import Delta, Finished, Usage
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import Bill, Reader

_BEHIND: Final = 64
"""Events of each answer that wait for a client that reads slowly."""


class Choice(Protocol):
    """One answer in the shape of an endpoint."""

    def take(self, delta: Delta) -> list[dict[str, Any]]:
        """What a stream tells of it."""

    def finish(self, reason: str) -> list[dict[str, Any]]:
        """The same of its end: the last one has the reason."""

    def whole(self) -> dict[str, Any]:
        """All of it at once."""

    @property
    def enough(self) -> bool:
        """Nothing that still comes would be part of it."""


class Told:
    """What is told of one answer besides its text."""

    def __init__(self) -> None:
        self.began: AskBegan | None = None
        self.usage = Usage()
        self.bills: tuple[Bill, ...] = ()
        self.readers: dict[str, Reader] = {}
        self.over = False

    def take(self, event: CallEvent) -> None:
        match event:
            case AskBegan():
                self.began = event
                self._read_by(Reader(event.driver, event.driver_name))
            case Moved(part=part):
                load_ms = self.began.load_ms if self.began is not None else 0
                self.began = AskBegan(part.model, load_ms, part.id, part.name)
            case Sent(reader=reader):
                self._read_by(reader)
            case Billed(bills=bills):
                self.bills = bills
            case Finished(usage=usage):
                self.usage, self.over = usage, True
            case _:
                return

    @property
    def bought(self) -> bool:
        """Something of it was charged, or came of a driver, who may charge it yet."""
        by_driver = self.began is not None and bool(self.began.driver)
        return by_driver or any(bill.charge for bill in self.bills)

    def _read_by(self, reader: Reader) -> None:
        if reader.id:
            self.readers[reader.id] = reader


class Answers:
    """The answers to one request: `next` gives what comes of any of them, in order. A context manager: at
    its end nothing of them runs any more."""

    def __init__(self, node: NodeFacade, calls: Sequence[Call]) -> None:
        self.told = [Told() for _ in calls]
        self._streams = [node.call(call) for call in calls]
        self._events: asyncio.Queue[tuple[int, CallEvent | ApiError]] = asyncio.Queue(_BEHIND * len(calls))
        self._stopped: set[int] = set()
        self._tasks = TaskGroup()

    async def __aenter__(self) -> Answers:
        for place in range(len(self._streams)):
            self._tasks.spawn(self._pump(place), name="answer a request")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.cancel_all()

    async def _pump(self, place: int) -> None:
        """Whatever happens, `next` is told of an end."""
        stream, whole = self._streams[place], False
        try:
            async for event in stream:
                whole = isinstance(event, Finished)
                await self._events.put((place, event))
            if not whole:
                await self._events.put((place, _ended()))
        except FAILURES as error:
            await self._events.put((place, api_error(error)))
        except Exception as error:
            await self._events.put((place, mistake("an answer", error)))
        finally:
            await stream.aclose()

    @property
    def over(self) -> bool:
        return all(told.over for told in self.told)

    @property
    def waiting(self) -> bool:
        """There is something that `next` would give at once."""
        return not self._events.empty()

    def stop(self, place: int) -> None:
        """End this answer: enough of it has come."""
        self._stopped.add(place)
        self._streams[place].stop()

    async def next(self, *, timeout_s: float | None = None) -> tuple[int, CallEvent] | None:
        """None: nothing came for so long. Raises ApiError when one of them fails."""
        try:
            async with asyncio.timeout(timeout_s):
                place, event = await self._events.get()
        except TimeoutError:
            return None
        if isinstance(event, ApiError):
            raise self._failed(event)
        self.told[place].take(event)
        if isinstance(event, Finished):
            if event.error is not None:
                raise self._failed(api_error(event.error))
            if event.reason == "cancelled" and place not in self._stopped:
                raise self._failed(_ended())
        return place, event

    def _failed(self, error: ApiError) -> ApiError:
        """What a driver has begun costs something, though its bill may come later."""
        error.paid = any(told.bought for told in self.told)
        return error

    def usage(self, prompts: int = 1) -> dict[str, Any]:
        """In OpenAI's shape: each of the prompts counts once, whatever number of answers it has."""
        each = len(self.told) // prompts
        firsts = [told.usage for told in self.told[::each]]
        n_prompt = sum(usage.n_prompt for usage in firsts)
        n_out = sum(told.usage.n_out for told in self.told)
        return {
            "prompt_tokens": n_prompt,
            "completion_tokens": n_out,
            "total_tokens": n_prompt + n_out,
            "prompt_tokens_details": {"cached_tokens": sum(usage.n_cached for usage in firsts)},
        }

    @property
    def model(self) -> str:
        """The name of the model that answers; empty while it is not known."""
        began = self.told[0].began
        return began.model if began is not None else ""

    @property
    def cost(self) -> int:
        """µcr, as far as it is known."""
        return sum(bill.charge for told in self.told for bill in told.bills)

    def facts(self) -> dict[str, Any]:
        """The field `infraxa` of an answer."""
        began = self.told[0].began
        readers = {reader.id: reader for told in self.told for reader in told.readers.values()}
        bills = [bill for told in self.told for bill in told.bills]
        return {
            "driver": (began.driver if began is not None else "") or LOCAL,
            "driver_name": began.driver_name if began is not None else "",
            "model": self.model,
            "cost": self.cost,
            "readers": [msgspec.to_builtins(reader) for reader in readers.values()],
            "bills": [msgspec.to_builtins(bill) for bill in bills],
        }

    def headers(self) -> dict[str, str]:
        """The same in short, once all is known."""
        facts = self.facts()
        return {"X-Infraxa-Driver": facts["driver"], "X-Infraxa-Cost": str(facts["cost"])}


def _ended() -> ApiError:
    return ApiError(503, "The answer was ended before it was whole.", code="closed")
