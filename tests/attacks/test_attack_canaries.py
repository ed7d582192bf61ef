"""A driver that wants to answer honestly only what is audited: it looks for canaries by what repeats, and
serves a cheaper model to everybody."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from infraxa.app import canary_texts
from infraxa.app.canary_texts import Author
from infraxa.app.config import Settings
from tests.app.auditing import Real, in_module, real_provider
from tests.app.canaried import soon
from tests.app.test_canaries_judged import ASKS, canarying, judged
from tests.attacks import report
from tests.attacks.cheats import speaking, spoken
from tests.attacks.den import WARM, Den, den
from tests.attacks.target import replaced


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cheat(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Den, Real, Real]]:
    """One that cheats, and two referees."""
    folder = tmp_path_factory.mktemp
    async with den(folder("den")) as made, real_provider(folder("b")) as b, real_provider(folder("c")) as c:
        yield made, b, c


def repeats(texts: list[str]) -> int:
    """What a driver finds that remembers all that it was asked, without its case and its spaces."""
    count = Counter("".join(text.casefold().split()) for text in texts)
    return sum(n for n in count.values() if n > 1)


@pytest.mark.parametrize("chars", [20, 45])
def test_canaries_are_not_known_by_what_repeats(chars: int) -> None:
    """Short ones; long ones would not repeat by chance alone."""
    count = report.scale(300, 3000)

    def texts(made: int) -> list[str]:
        """Of a node that is started anew after so many."""
        rng = random.Random(chars)
        said: list[str] = []
        while len(said) < count:
            author = Author(random.Random(rng.random()))
            said += [author.question(author.persona(), chars) for _ in range(made)]
        return said

    with replaced((canary_texts, "LEAST_BITS", 0), (Author, "_new", lambda self, make: make())):
        weak = repeats(texts(50))
    assert weak >= count // 100
    assert repeats(texts(50)[:300]) == 0
    assert repeats(texts(count)) == 0, "of one that is not started anew"
    ours = repeats(texts(50))
    assert ours <= count // 300
    report.tell(
        f"canaries: looked for by repeats, {chars} characters",
        weakened=f"{weak} of {count} known",
        ours=f"{ours} of {count}",
    )


@in_module
async def test_who_serves_a_cheaper_model_to_all_is_caught_by_one(
    cheat: tuple[Den, Real, Real], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon(monkeypatch, ASKS)
    made, *referees = cheat
    await made.load("Q4_0")
    caught = asked = 0
    for run in range(report.scale(1, 10)):
        with speaking(made, lambda request: spoken(made.cheap, request)):
            async with canarying(tmp_path / f"weak{run}", made.real, *referees) as (user, canaries):
                canaries.use(Settings(canaries=False))
                await user.answer(sampling=WARM)
                assert not user.drivers.audit_history.caught(user.id, made.real.shop.model_id)
            async with canarying(tmp_path / str(run), made.real, *referees) as (user, canaries):
                for _ in range(4):  # an answer may be too short to be judged
                    asked += 1
                    await user.answer(sampling=WARM)
                    if rows := await judged(user, 1):
                        break
                assert rows, f"nothing was judged in {asked} answers"
                assert (rows[0].verdict.state, rows[0].verdict.why) == ("failed", "other_model")
                assert user.drivers.audit_history.caught(user.id, made.real.shop.model_id)
                assert not user.readers, "no chat was shown"
                caught += 1
    report.tell(
        "canaries: Q4_0 in place of Q8_0 for all, the file not here",
        weakened="not seen",
        ours="other_model, for this user",
        cost=f"caught {caught} times, after {asked} answers",
    )
