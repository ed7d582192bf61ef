"""Ten providers and a hundred questions at once: each is answered, or refused with a reason."""

from __future__ import annotations

from pathlib import Path

from tests.books import compare
from tests.crowd import Crowd, ask_all

PROVIDERS, USERS, QUESTIONS = 10, 5, 100


async def test_a_hundred_questions_at_once(tmp_path: Path) -> None:
    crowd = Crowd(tmp_path)
    try:
        await crowd.start(PROVIDERS)
        async with crowd.users(USERS, failover="auto") as users:
            asked = await ask_all(users, QUESTIONS)
            assert len(asked) == QUESTIONS
            lost = [one for one in asked if one.finish not in ("stop", "length") and not one.reason]
            assert not lost
            assert not [one for one in asked if one.mixed_up]
            answered = [one for one in asked if one.finish == "stop"]
            # There are 30 slots and room for 60 more: who is refused by all of them is told so.
            assert len(answered) >= 80, [one.reason for one in asked if one.finish != "stop"]
            drivers = {one.readers[-1] for one in answered}
            assert len(drivers) >= PROVIDERS // 2, drivers
            # Afterwards nothing is held: the same again works, and nobody waits.
            again = await ask_all(users, USERS)
            assert [one.finish for one in again] == ["stop"] * USERS, [one.reason for one in again]
    finally:
        crowd.close()
    compared = compare(tmp_path)
    assert not compared.problems
    assert compared.agreed >= len(answered) // 2 and compared.amount
