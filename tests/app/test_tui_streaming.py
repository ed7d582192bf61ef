"""The flusher shows what comes first at once, gathers what comes too fast to paint, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from infraxa.app.tui.widgets.streaming import LONGEST_REST, SHORTEST_REST, Flusher, rest_after
from infraxa.net.tasks import TaskGroup


class Screen:
    """Takes what is shown; each text costs `cost` seconds on a clock that only this moves."""

    def __init__(self, cost: float = 0.0) -> None:
        self.shown: list[str] = []
        self.cost = cost
        self.now = 0.0
        self.visible = True

    async def show(self, text: str) -> None:
        self.shown.append(text)
        self.now += self.cost


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions of any kind, bounded above
            await asyncio.sleep(0.005)


async def test_the_first_text_is_shown_alone_and_the_rest_together() -> None:
    screen = Screen()
    flusher = Flusher(screen.show)
    tasks = TaskGroup()
    running = tasks.spawn(flusher.run(), name="flusher")
    flusher.feed("first")
    await until(lambda: bool(screen.shown))
    for number in range(100):
        flusher.feed(f" {number}")
    await until(lambda: len(screen.shown) == 2)
    assert screen.shown == ["first", "".join(f" {number}" for number in range(100))]
    flusher.close()
    await asyncio.wait_for(running, 10)


async def test_closing_shows_what_is_left_without_resting() -> None:
    screen = Screen(cost=1000.0)
    flusher = Flusher(screen.show, clock=lambda: screen.now)
    running = TaskGroup().spawn(flusher.run(), name="flusher")
    flusher.feed("a")
    await until(lambda: bool(screen.shown))
    flusher.feed("b")
    flusher.close()
    await asyncio.wait_for(running, LONGEST_REST)
    assert screen.shown == ["a", "b"]


async def test_closing_an_idle_flusher_ends_it() -> None:
    flusher = Flusher(Screen().show)
    running = TaskGroup().spawn(flusher.run(), name="flusher")
    flusher.close()
    await asyncio.wait_for(running, 10)
    assert flusher.flushes == 0


async def test_nothing_is_shown_while_hidden_and_all_of_it_afterwards() -> None:
    screen = Screen()
    screen.visible = False
    flusher = Flusher(screen.show, is_visible=lambda: screen.visible)
    running = TaskGroup().spawn(flusher.run(), name="flusher")
    flusher.feed("a")
    await asyncio.sleep(3 * SHORTEST_REST)
    flusher.feed("b")
    await asyncio.sleep(3 * SHORTEST_REST)
    assert screen.shown == []
    screen.visible = True
    flusher.resume()
    await until(lambda: screen.shown == ["ab"])
    screen.visible = False
    flusher.feed("c")
    flusher.close()
    await asyncio.wait_for(running, 10)
    assert screen.shown == ["ab", "c"]


@pytest.mark.parametrize("cost", [0.001, 0.03, 0.1, 0.5])
def test_the_screen_takes_a_quarter_of_a_core_at_most(cost: float) -> None:
    assert cost / (cost + rest_after(cost)) <= 0.25


def test_rests_are_bounded() -> None:
    assert rest_after(0) == SHORTEST_REST
    assert rest_after(60) == LONGEST_REST
