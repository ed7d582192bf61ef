"""What is measured of answers of drivers, by a clock that a test moves."""

from __future__ import annotations

from infraxa.app.answering import Times
from infraxa.app.tally import Tally
from infraxa.engine.types import Usage
from infraxa.net.orders import Done


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_order_that_waited_in_line() -> None:
    clock = Clock()
    tally = Tally(clock)
    tally.connected(0.25)
    part = tally.order()
    clock.now += 1
    part.placed()
    clock.now += 2
    part.placed()
    clock.now += 2
    part.claimed()
    clock.now += 0.5
    part.piece(1)
    clock.now += 2
    part.piece(4)
    part.over()
    clock.now += 50
    tally.done(Done("stop", 7, 3, 5))
    assert part.first_token_ms == 1500.0, "without the line"
    assert part.tokens_per_second == 2.0
    usage = tally.usage()
    assert usage == Usage(7, 3, 5, queued_ms=4000.0, first_token_ms=5500.0, decode_ms=2000.0)
    assert tally.times() == Times(connect_ms=250.0, wait_ms=4000.0)


def test_one_order_that_began_again() -> None:
    clock = Clock()
    tally = Tally(clock)
    part = tally.order()
    clock.now += 1
    part.placed()
    clock.now += 2
    part.claimed()
    clock.now += 10
    part.placed()
    clock.now += 0.5
    part.placed()
    clock.now += 4
    assert part.first_token_ms is None
    part.claimed()
    clock.now += 3
    part.piece(1)
    part.over()
    assert part.waited == 6.5
    assert part.first_token_ms == 14_000.0, "what was in vain counts"
    assert tally.usage().queued_ms == 6500.0 and tally.times().wait_ms == 6500.0


def test_several_orders_add_up() -> None:
    clock = Clock()
    tally = Tally(clock)
    refused = tally.order()
    clock.now += 1
    refused.placed()
    clock.now += 1
    refused.over()
    clock.now += 1
    for tokens in (2, 3):
        part = tally.order()
        clock.now += 1
        part.claimed()
        part.piece(tokens)
        clock.now += 1
        part.piece(1)
        part.over()
        clock.now += 9
        tally.done(Done("stop", 10, 1, tokens + 1))
    usage = tally.usage()
    assert usage == Usage(20, 2, 7, queued_ms=1000.0, first_token_ms=4000.0, decode_ms=2000.0)
    assert usage.tokens_per_second == 3.0
    assert refused.first_token_ms is None and refused.tokens_per_second is None
    assert tally.times() == Times(connect_ms=None, wait_ms=1000.0)


def test_nothing_came() -> None:
    assert Tally(Clock()).usage() == Usage()
    assert Tally(Clock()).times() == Times()
