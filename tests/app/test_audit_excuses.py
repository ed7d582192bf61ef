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
from infraxa.app.transcripts import Written
from infraxa.engine import transcript
from infraxa.engine.gumbel import UNIT
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, Delta, Loaded, Request, Sampling
from infraxa.net import codec, deals
from infraxa.store import earnings, tabs
from tests.app.auditing import MU0, WARM, Real, auditing, in_module, real_provider
from tests.app.selling import SETTINGS

COLD = Sampling(temperature=0.0)


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


def named(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """The provider says that it computes with this."""
    honest = Written.end

    def end(self: Written, **given: Any) -> bytes | None:
        said = honest(self, **given)
        assert said is not None
        other = codec.decode(said, deals.Transcript)
        return codec.encode(replace(other, profile=other.profile.replace("/cpu/", f"/{backend}/")))

    monkeypatch.setattr(Written, "end", end)


def off(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """The provider's logits are apart from the model's by so many times the noise, but for the largest."""
    honest, by = Written.take, round(ratio * MU0 * UNIT)

    def moved(data: bytes) -> bytes:
        leaf = transcript.decode_leaf(data)
        return transcript.encode_leaf(leaf._replace(q=(leaf.q[0], *(q - by for q in leaf.q[1:]))))

    def take(self: Written, delta: Delta) -> Any:
        return honest(self, replace(delta, leaves=tuple(map(moved, delta.leaves))))

    monkeypatch.setattr(Written, "take", take)


@in_module
async def test_other_hardware_is_no_excuse_for_what_none_explains(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, "cuda")
    async with auditing(real, tmp_path) as user:
        for _ in range(2):
            with monkeypatch.context() as lying:
                off(lying, 3.0)
                verdict = await user.verdict(sampling=COLD)
            assert (verdict.state, verdict.why) == ("undetermined", "backend")
            assert verdict.opened == verdict.steps and verdict.ratio == pytest.approx(3.0, abs=0.2)
        # Who computes honestly on it passes, and keeps its name.
        assert (await user.verdict(sampling=COLD)).state == "passed"
        off(monkeypatch, 3.0)
        for _ in range(3):
            (offer,) = user.drivers.offers(user.nodes())
            assert not offer.caught
            assert (await user.verdict(sampling=COLD)).why == "backend"
        (offer,) = user.drivers.offers(user.nodes())
        assert "other hardware" in offer.caught and user.drivers.choose(user.nodes()) is None
        assert offer.audited.apart == pytest.approx((3.0,) * 3, abs=0.2)
    off(monkeypatch, 5.0)  # and those 3
    async with auditing(real, tmp_path / "far") as user:
        verdict = await user.verdict(sampling=COLD)
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "other_model", False)
        assert user.drivers.audit_history.caught(user.id, real.shop.model_id)


@in_module
async def test_short_answers_of_other_hardware_are_judged_together(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, "cuda")
    short = replace(COLD, max_tokens=6)
    async with auditing(real, tmp_path) as user:
        found = [(await user.verdict(sampling=short)) for _ in range(3)]
        assert [one.why or one.state for one in found] == ["few", "few", "passed"]
    off(monkeypatch, 3.0)
    async with auditing(real, tmp_path / "far") as user:
        found = [(await user.verdict(sampling=short)) for _ in range(6)]
        assert [one.why for one in found] == ["few", "few", "backend"] * 2


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
