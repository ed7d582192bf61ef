"""A generation as its consumer sees it, without an engine."""

from __future__ import annotations

import asyncio

from infraxa.engine.frames import Emitted
from infraxa.engine.generation import Answer, Generation
from infraxa.engine.types import ChatMessage, Delta, Finished, Request

HI = Request((ChatMessage("user", "Hi"),))


async def test_its_end_is_told_before_what_came_is_taken() -> None:
    answer, told = Answer(1, HI, last_try=True), list[Finished | None]()
    generation = Generation(answer, lambda answer: None)
    generation.when_ended(lambda: told.append(generation.ended))
    answer.add(Emitted(1, "Hello", (1, 2)))
    await asyncio.sleep(0)
    assert not told and generation.ended is None
    answer.end("stop")
    answer.end("cancelled")
    await asyncio.sleep(0)
    assert told == [generation.ended] and answer.finished is generation.ended
    assert [type(item) async for item in generation] == [Delta, Finished]
    generation.when_ended(lambda: told.append(None))  # it is over already
    await asyncio.sleep(0)
    assert told[1:] == [None]
