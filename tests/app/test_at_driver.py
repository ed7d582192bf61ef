"""Orders of this node at a driver: so many at a time, the others in their order, whatever becomes of them."""

from __future__ import annotations

import asyncio
import random

import pytest

from infraxa.app.at_driver import MOST, PER_SLOT, AtDriver

ONE, OTHER = b"one", b"other"


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_a_time_and_the_others_in_their_order() -> None:
    at, began, ends = AtDriver(), list[int](), [asyncio.Event() for _ in range(20)]

    async def order(number: int) -> None:
        async with at.turn(ONE, 2, 10):
            began.append(number)
            await ends[number].wait()

    tasks = [asyncio.ensure_future(order(number)) for number in range(20)]
    await settled()
    assert began == list(range(2 * PER_SLOT)) and at.busy(ONE, 2)
    assert not at.busy(OTHER, 2)
    async with at.turn(OTHER, 1, 0.1):
        pass
    for number in range(20):
        ends[number].set()
        await settled()
    assert began == list(range(20))
    await asyncio.gather(*tasks)
    assert not at.busy(ONE, 2) and not at._there and not at._waiting


async def test_who_waited_too_long_leaves_its_place_to_the_next() -> None:
    at = AtDriver()
    async with at.turn(ONE, 1, 1), at.turn(ONE, 1, 1):
        with pytest.raises(TimeoutError):
            async with at.turn(ONE, 1, 0.01):
                raise AssertionError
        after = asyncio.ensure_future(at._take(ONE, 2, 10))
        await settled()
        assert not after.done()
    await after
    at._next(ONE)
    assert not at._there and not at._waiting


async def test_no_more_than_any_driver_takes() -> None:
    at, there, most = AtDriver(), 0, 0
    chance = random.Random(7)

    async def order() -> None:
        nonlocal there, most
        async with at.turn(ONE, 1000, 10):
            there += 1
            most = max(most, there)
            try:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            finally:
                there -= 1

    tasks = [asyncio.ensure_future(order()) for _ in range(5 * MOST)]
    await asyncio.sleep(0)
    for task in chance.sample(tasks, MOST):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == MOST and not at._there and not at._waiting
