"""Answers that are too close to call for the model of this machine, and what others say of them."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app.errors import NodeError
from infraxa.app.replaying import Replaying
from infraxa.engine.gumbel import UNIT
from infraxa.engine.types import ScoredRow
from tests.app.auditing import MU0, Audits, Real, auditing, in_module, real_providers
from tests.app.test_audit_excuses import COLD, off
from tests.app.test_referees import falsely, scoring

NEAR = 1.8
"""Times the honest noise: beyond what passes and within what does not fail, for any number of steps."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reals(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Real, ...]]:
    """A driver and two referees."""
    async with real_providers(tmp_path_factory.mktemp, 3) as made:
        yield made


@pytest.fixture
def court(reals: tuple[Real, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Real, ...]:
    """The same: the driver's numbers are near, and this machine, which may ask others, has the file too."""
    off(monkeypatch, NEAR)
    monkeypatch.setattr("tests.app.auditing._WithoutFile.copy", Replaying.copy)
    return reals


def as_the_driver(row: ScoredRow) -> ScoredRow:
    """Its numbers are the driver's."""
    first, *q = struct.unpack(f"<{len(row.q) // 4}i", row.q)
    moved = [value - round(NEAR * MU0 * UNIT) for value in q]
    return replace(row, q=struct.pack(f"<{len(row.q) // 4}i", first, *moved))


async def near(user: Audits) -> None:
    """An answer of which the own look came to nothing."""
    verdict = await user.verdict(sampling=COLD)
    assert (verdict.state, verdict.why, verdict.by) == ("undetermined", "near", "own"), verdict
    assert verdict.opened == verdict.steps > 16, "it was looked at again with all of them"


@in_module
async def test_what_is_too_close_to_call_condemns_nobody(court: tuple[Real, ...], tmp_path: Path) -> None:
    async with auditing(court[0], tmp_path) as user:
        await near(user)
        history, model = user.drivers.audit_history, court[0].shop.model_id
        assert not history.caught(user.id, model) and history.seen(user.id, model).undetermined == 1
        # Without anybody to ask, this machine can look again.
        assert (await user.auditor.plan(user.place)).state == "own"


@in_module
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (as_the_driver, ("passed", "")),
        (falsely, ("failed", "other_model")),
        (lambda row: row, ("undetermined", "near")),
    ],
)
async def test_others_look_at_it_only_if_the_person_agrees_and_two_of_them_decide(
    court: tuple[Real, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[ScoredRow], ScoredRow],
    found: tuple[str, str],
) -> None:
    driver, *others = court
    for one in others:
        scoring(one, monkeypatch, change)
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await near(user)
        plan = await user.auditor.plan(user.place)
        assert (plan.state, plan.referees) == ("referee", 2) and "too close" in plan.reason
        with pytest.raises(NodeError, match="too close"):
            await user.auditor.audit(user.place)
        assert not user.readers
        before = len(user.verdicts)
        await user.auditor.audit(user.place, referee=True)
        verdict = await user.ended(before)
        assert (verdict.state, verdict.why) == found and verdict.by == "referee"
        assert len(user.readers) == 2, "the own look was not clear, so that one does not do"


@in_module
async def test_one_referee_alone_does_not_decide_it(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, one, _ = court
    scoring(one, monkeypatch, as_the_driver)
    async with auditing(driver, tmp_path, referees=(one,)) as user:
        await near(user)
        before = len(user.verdicts)
        await user.auditor.audit(user.place, referee=True)
        verdict = await user.ended(before)
        assert (verdict.state, verdict.why) == ("undetermined", "near")
