"""The answers to one request at the gateway when one of them fails: what that may cost, and that it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.answering import AskBegan, Billed
from infraxa.app.calls import Call, CallEvent
from infraxa.app.errors import NodeError
from infraxa.engine.types import Delta, ErrorInfo, Finished, Usage
from infraxa.store.records import Bill
from tests.app.gateways import Opened, http, opened

CHAT = "/v1/chat/completions"
QUESTION: Any = {"model": "guide", "messages": [{"role": "user", "content": "What is 2+2?"}]}
BY_DRIVER = AskBegan("guide", 0, "7" * 26, "maple")
WAIT_S = 30.0
SECRET = "what is in the prompt"

Play = Callable[[asyncio.Event], AsyncGenerator[CallEvent, None]]


class Played:
    """A call whose answer is `play`; `came` is set once its first has been taken."""

    def __init__(self, play: Play, came: asyncio.Event) -> None:
        self._events = play(came)

    def __aiter__(self) -> Played:
        return self

    async def __anext__(self) -> CallEvent:
        return await anext(self._events)

    def stop(self) -> None:
        raise AssertionError("enough of it has come")

    async def aclose(self) -> None:
        await self._events.aclose()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path / "data") as one:
        yield one


async def ask(gateway: Opened, monkeypatch: pytest.MonkeyPatch, *plays: Play) -> tuple[int, str, str]:
    """Of one request with so many answers: the status, the code, and x-should-retry."""
    left, came = list(plays), asyncio.Event()

    def call(_: Call) -> Played:
        return Played(left.pop(0), came)

    monkeypatch.setattr(gateway.node, "call", call)
    async with asyncio.timeout(WAIT_S), http(gateway) as client:
        async with client.post(CHAT, json=QUESTION | {"n": len(plays)}) as answer:
            code = (await answer.json())["error"]["code"]
            return answer.status, code, answer.headers.get("x-should-retry", "")


async def goes_on(came: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    """A driver's answer that has begun and has no bill."""
    yield BY_DRIVER
    yield Delta("Four", (1,))
    came.set()
    await asyncio.sleep(WAIT_S)


async def goes_on_here(came: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    yield AskBegan("guide", 0)
    yield Delta("Four", (1,))
    came.set()
    await asyncio.sleep(WAIT_S)


async def is_refused(came: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    """After what the other one gave."""
    async with asyncio.timeout(WAIT_S):
        await came.wait()
    raise NodeError("busy", "All drivers are busy.")
    yield Delta("", ())


async def dies(_: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    """A driver in mid-answer."""
    yield BY_DRIVER
    yield Delta("Fo", (1,))
    yield Finished("failed", Usage(), ErrorInfo("gone", "The driver is gone.", ""))


async def fails_charged(_: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    """What was bought before this machine went on."""
    yield AskBegan("guide", 0)
    yield Billed((Bill("0" * 32, "7" * 26, charge=3),))
    yield Finished("failed", Usage(), ErrorInfo("gone", "The driver is gone.", ""))


async def is_wrong(_: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    yield AskBegan("guide", 0)
    raise ValueError(SECRET)


async def just_ends(_: asyncio.Event) -> AsyncGenerator[CallEvent, None]:
    yield AskBegan("guide", 0)
    yield Delta("Four", (1,))


@pytest.mark.parametrize(
    ("plays", "told"),
    [
        ((goes_on, is_refused), (429, "busy", "false")),
        ((goes_on_here, is_refused), (429, "busy", "")),
        ((dies,), (502, "gone", "false")),
        ((fails_charged,), (502, "gone", "false")),
    ],
)
async def test_what_may_be_paid_is_not_asked_for_again(
    gateway: Opened, monkeypatch: pytest.MonkeyPatch, plays: tuple[Play, ...], told: tuple[int, str, str]
) -> None:
    assert await ask(gateway, monkeypatch, *plays) == told


async def test_an_answer_that_fails_in_no_known_way_ends_the_request(
    gateway: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert await ask(gateway, monkeypatch, is_wrong) == (500, "internal", "")
    assert "ValueError" in caplog.text and SECRET not in caplog.text
    assert await ask(gateway, monkeypatch, just_ends) == (503, "closed", "")
