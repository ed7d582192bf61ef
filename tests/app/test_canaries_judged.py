"""Canaries at real providers: who is honest passes by a referee, who cheats is caught, and nobody is asked
for consent, since nothing of the person is in them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from infraxa.app.canaries import Canaries
from infraxa.app.config import Settings
from infraxa.net import prompts
from infraxa.net.prompts import Prompt
from infraxa.store import buying, earnings, verdicts
from infraxa.store.verdicts import VerdictRow
from tests.app.auditing import ASKED, MU0, Audits, Real, auditing, in_module, real_providers
from tests.app.canaried import soon
from tests.app.test_referees import COLD, cheats, scoring, tells
from tests.net.nodes import until

ASKS = "How do I become a provider"
"""The guide answers it at some length."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reals(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Real, ...]]:
    """A driver and two referees."""
    async with real_providers(tmp_path_factory.mktemp, 3) as made:
        yield made


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch, ASKS)


@asynccontextmanager
async def canarying(folder: Path, *reals: Real) -> AsyncIterator[tuple[Audits, Canaries]]:
    """A user who has not the model, of the first one; the others can judge."""
    driver, *others = reals
    with pytest.MonkeyPatch.context() as patch:
        for one in others:
            tells(one, MU0, patch)
        async with auditing(driver, folder, noise=0, referees=tuple(others)) as user:
            judges = user.auditor._referees
            assert judges is not None
            canaries = Canaries(
                user.buyer,
                user.purse,
                user.drivers.audit_history,
                lambda: user.drivers.offers(user.nodes()),
                user.replaying.copy,
                judges.reachable,
                rng=random.Random(1),
            )
            canaries.use(Settings())
            try:
                yield user, canaries
            finally:
                await canaries.close()


async def judged(user: Audits, count: int, seconds: float = 30.0) -> list[VerdictRow]:
    """What audits by referees came to, once there are so many, or after so long."""
    rows: list[VerdictRow] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while len(rows) < count:
                listed = await user.store.run(verdicts.list_verdicts)
                rows = [row for row in listed if row.verdict.by == "referee"]
                await asyncio.sleep(0.05)
    return rows


async def found(user: Audits, count: int) -> list[VerdictRow]:
    """The same; so many there have to be."""
    rows = await judged(user, count)
    listed = [row.verdict for row in await user.store.run(verdicts.list_verdicts)]
    assert len(rows) >= count, [(one.by, one.state, one.why) for one in listed]
    return rows


@in_module
async def test_an_honest_driver_passes_by_a_referee(
    reals: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Prompt] = []
    decode = prompts.decode_prompt

    def decoded(data: bytes) -> Prompt:
        seen.append(decode(data))
        return seen[-1]

    monkeypatch.setattr(prompts, "decode_prompt", decoded)
    driver = reals[0]
    async with canarying(tmp_path, *reals) as (user, _):
        await user.answer(sampling=COLD)
        (row,) = await found(user, 1)
        verdict = row.verdict
        assert (verdict.state, verdict.by, verdict.opened) == ("passed", "referee", 16)
        assert user.drivers.audit_history.seen(user.id, driver.shop.model_id).passed == 1
        # The referee read the canary, and of the person's question nothing: that was never shown.
        texts = {one.turns[0].text for one in seen}
        judged = {one.turns[0].text for one in seen if one.steps}
        assert len(texts) == 2 and judged == texts - {ASKED[0].content}
        assert not user.readers
        # It is no message: only the person's answer is told of.
        assert {one.order for one in user.verdicts} != {verdict.order}
        assert verdict.order not in {one.order for one in user.verdicts}
        await user.settled()
        rows = [order for _, order, _ in await user.store.run(earnings.list_receipts, "user")]
        assert sorted((order.canary, order.outcome == "scored") for order in rows) == [
            (False, False),
            (True, False),
            (True, True),
        ]
        spent = await user.store.run(buying.spent_on_canaries, 0)
        assert spent.spent == sum(order.accepted or 0 for order in rows if order.canary) > 0
        caps = user.purse.caps()
        assert caps.day is not None and spent.spent <= caps.day * 3 // 100


@in_module
async def test_one_that_cheats_is_caught_without_a_question(
    reals: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheats(monkeypatch)
    driver = reals[0]
    async with canarying(tmp_path, *reals) as (user, canaries):
        await user.answer(sampling=COLD)
        (row,) = await found(user, 1)
        assert (row.verdict.state, row.verdict.why) == ("failed", "other_model")
        assert user.drivers.audit_history.caught(user.id, driver.shop.model_id)
        other = user.drivers.choose(user.nodes())
        assert other is not None and other.node.id != user.id
        assert not user.readers
        # And is sent no more of them.
        before = len(driver.shop.provider.served())
        await user.answer(sampling=COLD)
        await until(lambda: canaries._task is None, 30)
        assert len(driver.shop.provider.served()) == before + 1


@in_module
async def test_without_a_whole_answer_nothing_is_judged(
    reals: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [scoring(one, monkeypatch, lambda row: row) for one in reals[1:]]
    async with canarying(tmp_path, *reals) as (user, canaries):
        ended, sent = canaries._buyer.canary, []

        def cancelling(*given: Any, called: bool) -> Any:
            sent.append(ended(*given, called=called))
            sent[-1].cancel()
            return sent[-1]

        monkeypatch.setattr(canaries._buyer, "canary", cancelling)
        await user.answer(sampling=COLD)
        await until(lambda: sent and canaries._task is None, 30)
        await user.settled()
        assert not any(counts)
        assert user.drivers.audit_history.seen(user.id, reals[0].shop.model_id).passed == 0
