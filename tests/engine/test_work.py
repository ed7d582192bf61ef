"""What a worker does with its model between two steps: requests that wait for the vocabulary to be read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from infraxa.engine import compiling
from infraxa.engine import work as module
from infraxa.engine.constraint import Constraint, Constraints
from infraxa.engine.embedding import Embedder
from infraxa.engine.frames import Ended
from infraxa.engine.types import Format, Request, Tool
from infraxa.engine.work import Work

Ask = Callable[..., Request]
Open = Callable[..., Any]


@pytest.fixture
def work(open_room: Open) -> Iterator[Work]:
    room = open_room(slots=2)
    opened = Work(room.batcher, Embedder(room.batcher.model, threads=1))
    yield opened
    opened.close()


def as_json(request: Request) -> Request:
    return msgspec.structs.replace(request, format=Format("json_schema", '{"type": "boolean"}'))


def run(work: Work) -> dict[int, tuple[str, Ended]]:
    """The texts and ends of all."""
    texts: dict[int, str] = {}
    ended: dict[int, Ended] = {}
    for _ in range(3000):
        work.step()
        output = work.take()
        for emitted in output.emitted:
            texts[emitted.id] = texts.get(emitted.id, "") + emitted.text
        ended |= {one.id: one for one in output.ended}
        if not work.busy:
            return {one: (texts.get(one, ""), ended[one]) for one in ended}
    raise AssertionError("not done")


def test_answers_go_on_while_the_first_constraint_is_prepared(
    work: Work, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_READ", 100)
    work.submit(1, ask("what is 12+5?"), 0.0)
    work.submit(2, as_json(ask("hi")), 0.0)
    for _ in range(5):
        work.step()
    assert work.n_running == 1, "the second one waits"
    assert work.take().emitted
    ends = run(work)
    assert ends[1][1].finished.reason == ends[2][1].finished.reason == "stop"
    assert isinstance(json.loads(ends[2][0]), bool)
    monkeypatch.setattr(module, "TOKENS_READ", 0)
    work.submit(3, as_json(ask("hi")), 0.0)
    assert run(work)[3][1].finished.reason == "stop", "what is prepared serves all"


def test_a_schema_that_takes_long_keeps_nobody_else_waiting(
    work: Work, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, released = Constraints._compile, threading.Event()

    def stuck(constraints: Constraints, grammar: str) -> Constraint:
        assert "stuck" not in grammar or released.wait(60)
        return compile_(constraints, grammar)

    def hostile(user: str) -> Request:
        schema = Format("json_schema", '{"const": "stuck"}')
        return msgspec.structs.replace(ask("hi", user=user), format=schema)

    monkeypatch.setattr(Constraints, "_compile", stuck)
    monkeypatch.setattr(compiling, "COMPILE_SECONDS", 40.0)
    work.submit(1, hostile("maple"), 0.0)
    work.submit(2, hostile("maple"), 0.0)
    work.submit(3, ask("what is 12+5?", user="birch"), 0.0)
    work.submit(4, as_json(ask("hi", user="birch")), 0.0)
    ended = set[int]()
    for _ in range(3000):
        work.step()
        ended |= {one.id for one in work.take().ended}
        if ended == {3, 4}:
            break
    assert ended == {3, 4} and work.busy
    work.cancel(2)
    released.set()
    ends = run(work)
    assert ends[1] == ('"stuck"', ends[1][1]) and ends[2][1].finished.reason == "cancelled"


def test_who_waits_for_that_can_be_cancelled(work: Work, ask: Ask) -> None:
    work.submit(1, as_json(ask("hi")), 0.0)
    tool = Tool("a", parameters='{"additionalProperties": false}')
    work.submit(2, msgspec.structs.replace(ask("hi"), tools=(tool,), tool_choice="a"), 0.0)
    assert work.busy
    work.cancel(1)
    assert work.urgent
    ends = run(work)
    assert ends[1][1].finished.reason == "cancelled"
    assert ends[2][1].finished.reason == "stop" and '"name": "a"' in ends[2][0]


async def test_the_engine_answers_in_a_format_and_refuses_what_it_cannot(open_engine: Open, ask: Ask) -> None:
    engine = open_engine()
    await engine.load_guide()
    text, finished = await engine.generate(as_json(ask("hi"))).collect()
    assert text in ("true", "false") and finished.reason == "stop"
    bad = msgspec.structs.replace(ask("hi"), format=Format("json_schema", '{"type": "word"}'))
    _, finished = await engine.generate(bad).collect()
    assert finished.error.code == "bad_request"
    assert finished.error.message == "The schema cannot be followed: Invalid type: word."
