"""Audits of a driver with a reason: what is no lie is not held against it, what is none is not paid."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import purse, replaying
from infraxa.app.choices import ModelEntry
from infraxa.app.ordering import request_of
from infraxa.app.sold import End
from infraxa.app.taken import Taken
from infraxa.app.terms import terms_of
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, Loaded, Request
from infraxa.net import deals
from infraxa.store import earnings, tabs
from tests.app.auditing import WARM, Real, auditing, in_module, real_provider
from tests.app.selling import SETTINGS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    async with real_provider(tmp_path_factory.mktemp("real")) as made:
        yield made


@in_module
@pytest.mark.parametrize(("other", "why"), [("template", "varying"), ("version", "other_prompt")])
async def test_an_honest_driver_may_have_another_prompt(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, why: str
) -> None:
    plain = request_of

    def dated(*given: Any) -> Request:
        request = plain(*given)
        return replace(request, messages=(ChatMessage("system", "Today is Monday."), *request.messages))

    honest = replaying.Replaying._held

    @contextlib.asynccontextmanager
    async def held(self: replaying.Replaying, entry: ModelEntry) -> AsyncIterator[tuple[Engine, Loaded]]:
        async with honest(self, entry) as (engine, loaded):
            yield engine, replace(loaded, varying=True)

    monkeypatch.setattr("infraxa.app.sales.request_of", dated)
    if other == "template":
        monkeypatch.setattr(replaying.Replaying, "_held", held)
    else:
        monkeypatch.setattr(replaying, "versions", lambda loaded: f"{loaded.version}+0.0.9")
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why) == ("undetermined", why)
        assert not user.drivers.audit_history.caught(user.id, real.shop.model_id)


@in_module
async def test_nobody_is_a_referee_with_a_prompt_of_its_own(real: Real) -> None:
    loaded, (entry,) = real.engine.status.loaded, await real.models.entries()
    assert loaded is not None and not loaded.varying
    terms = terms_of(entry, SETTINGS, real.shop.model_id, loaded)
    other = terms_of(entry, SETTINGS, real.shop.model_id, replace(loaded, varying=True))
    assert terms.scores and not other.scores and terms.modes == other.modes != 0


@in_module
async def test_what_a_driver_cannot_open_any_more_is_no_silence(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        user.auditor.automatic = False
        await user.answer()
        await user.signed()
        real.shop.provider.till.transcripts.close()  # as a restart
        await user.auditor.audit(user.place)
        verdict = await user.ended()
        assert (verdict.state, verdict.why, verdict.opened, verdict.by) == ("undetermined", "gone", 0, "")
        (offer,) = user.drivers.offers(user.nodes())
        assert offer.success == pytest.approx(1, abs=0.01) and not offer.caught


@in_module
@pytest.mark.parametrize("committed", [False, True])
async def test_a_whole_answer_is_not_paid_as_one_that_failed(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    honest = Taken.end_of

    def end_of(self: Taken, outcome: deals.Outcome) -> End:
        end = honest(self, outcome)
        return end._replace(outcome="failed", transcript=end.transcript if committed else None)

    monkeypatch.setattr(Taken, "end_of", end_of)
    monkeypatch.setattr(purse, "CLOSE_S", 0.1)
    async with auditing(real, tmp_path) as user:
        await user.answer(sampling=replace(WARM, max_tokens=20))
        assert "transcript" in await user.note()
        assert not await user.store.run(earnings.list_receipts, "user")
        assert (await user.store.run(tabs.get_tab, "user", user.id)).owed == 0
