"""Programs call a node: this machine's engine answers, here and over the control socket."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.answering import AskBegan
from infraxa.app.calls import Call, CallEvent, EmbedCall, Policy
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade, Stream
from infraxa.app.node import Node
from infraxa.engine.types import ChatMessage, Delta, Finished, Request, Sampling
from tests.app.networked import attached, folders, running

ASKED = (ChatMessage("user", "What is 2+2?"),)
STEADY = Sampling(temperature=0, max_tokens=8)


def asked(model: str = "guide", sampling: Sampling = STEADY, **policy: Any) -> Call:
    return Call(model, Request(ASKED, sampling), Policy(**policy))


async def events(stream: Stream[CallEvent]) -> list[CallEvent]:
    try:
        return [event async for event in stream]
    finally:
        await stream.aclose()


def text_of(events: list[CallEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@contextlib.asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[Node]:
    async with running(folders(folder).data, online=False, threads=1) as node:
        yield node


async def test_this_machine_answers_a_call_here_and_over_the_control_socket(tmp_path: Path) -> None:
    async with alone(tmp_path / "one") as node, attached(node) as front:
        for name in ("guide", "Guide", "auto"):
            for asker in (node, front):
                found = await events(asker.call(asked(name)))
                began, *rest, end = found
                assert isinstance(began, AskBegan) and began.model == "guide" and not began.driver
                assert isinstance(end, Finished) and end.reason in ("stop", "length")
                assert "4" in text_of(rest)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (asked("no such"), "no_model"),
        (asked("no such", where="local"), "no_model"),
        (asked("/etc/passwd"), "no_model"),
        (asked("guide", where="market"), "no_model"),
        (asked("auto", where="market", audited=True), "no_audits"),
        (asked("guide", driver="7777", where="local"), "bad_policy"),
        (asked("guide", driver="nobody"), "no_driver"),
        (Call("guide", Request((ChatMessage("user", "word " * 100_000),), STEADY)), "prompt_too_long"),
    ],
)
async def test_what_cannot_be_answered_at_all_is_raised(tmp_path: Path, call: Call, code: str) -> None:
    async with alone(tmp_path / "one") as node, attached(node) as front:
        askers: list[NodeFacade] = [node, front]
        for asker in askers:
            with pytest.raises(NodeError) as error:
                await events(asker.call(call))
            assert error.value.code == code
            if call.model == "no such":
                with pytest.raises(NodeError) as error:
                    await asker.embed(EmbedCall(call.model, ("one",), call.policy))
                assert error.value.code == code


async def test_a_call_that_is_stopped_ends_and_lets_go_of_the_engine(tmp_path: Path) -> None:
    endless = Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=1)
    async with alone(tmp_path / "one") as node, attached(node) as front:
        for asker in (node, front):
            stream = asker.call(asked(sampling=endless))
            heard: list[CallEvent] = []
            async for event in stream:
                heard.append(event)
                if isinstance(event, Delta):
                    stream.stop()
            assert isinstance(heard[-1], Finished) and heard[-1].reason == "cancelled"
            await stream.aclose()
            left = asker.call(asked(sampling=endless))
            assert isinstance(await anext(left), AskBegan)
            await left.aclose()
        found = await events(node.call(asked()))
        assert isinstance(found[-1], Finished) and found[-1].reason in ("stop", "length")


async def test_the_models_of_this_machine_can_be_called(tmp_path: Path) -> None:
    async with alone(tmp_path / "one") as node, attached(node) as front:
        listed = await node.list_callable()
        assert [(model.id, model.where) for model in listed] == [("guide", "local")]
        assert listed[0].context > 0
        assert await front.list_callable() == listed
