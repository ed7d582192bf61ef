"""Audits of a driver with a reason: what is no lie is not held against it, what is none is not paid."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import purse, replaying
from infraxa.app.choices import ModelEntry
from infraxa.app.errors import NodeError
from infraxa.app.ordering import request_of
from infraxa.app.sold import End
from infraxa.app.taken import Taken
from infraxa.app.terms import terms_of
from infraxa.app.transcripts import MAX_ASKED, Written
from infraxa.engine import transcript
from infraxa.engine.gumbel import UNIT
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, Delta, EngineError, Loaded, Request, Sampling
from infraxa.net import codec, deals, wire
from infraxa.net.customers import Customer
from infraxa.store import earnings, tabs
from infraxa.store.records import Verdict
from tests.app.auditing import MU0, WARM, Audits, Real, auditing, in_module, real_provider
from tests.app.selling import SETTINGS
from tests.net.nodes import until

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


class Measuring:
    """The noise of the model is measured when the test says so, and not found if it is `failing`. Counts what
    the driver is asked to open."""

    def __init__(self, real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.failing = False
        self._real = real
        monkeypatch.setattr(real.engine, "calibrate", self._calibrate)
        monkeypatch.setattr(real.shop.customers, "auditor", self._audit)

    async def _calibrate(self, on_progress: object = None, *, scratch: Path) -> float:
        self.begun.set()
        await self.over.wait()
        if self.failing:
            raise EngineError("unsupported", "It cannot be measured.", "")
        return MU0

    async def _audit(self, customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        self.asked += 1
        return await self._real.shop.provider.till.transcripts.audit(customer, request)


async def audited_again(user: Audits) -> Verdict:
    """The person asks for an audit of the last answer."""
    before = len(user.verdicts)
    await user.auditor.audit(user.place)
    verdict = await user.ended(before)
    await until(lambda: not any(answer.busy for answer in user.auditor._answers.values()), 30)
    return verdict


def unharmed(user: Audits) -> bool:
    """Nothing is held against the driver."""
    (offer,) = user.drivers.offers(user.nodes())
    seen = offer.audited
    return not (seen.failed or seen.undetermined) and (offer.success is None or offer.success > 0.9)


@in_module
async def test_while_the_noise_is_measured_no_driver_is_asked_however_often_the_person_asks(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = Measuring(real, monkeypatch)
    async with auditing(real, tmp_path, noise=0) as user:
        assert (await user.verdict()).why == "no_calibration", "it is measured for this one"
        await measuring.begun.wait()
        user.auditor.automatic = False
        for answers in range(2):
            before, asked = len(user.verdicts), measuring.asked
            if answers:
                await user.answer()
                await user.signed(before)
            for _ in range(MAX_ASKED + 2):
                verdict = await audited_again(user)
                assert (verdict.state, verdict.why) == ("undetermined", "no_calibration")
            assert measuring.asked == asked == 1
        assert unharmed(user)
        measuring.over.set()
        # Then it is asked, by itself.
        await until(lambda: sum(one.state == "passed" for one in user.verdicts) == 2, 30)
        assert measuring.asked == 3 and unharmed(user)


@in_module
async def test_where_no_noise_can_be_had_a_driver_opens_an_answer_once(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = Measuring(real, monkeypatch)
    measuring.failing = True
    async with auditing(real, tmp_path, noise=0) as user:
        await user.answer()
        await measuring.begun.wait()
        await user.answer()
        await until(lambda: sum(one.why == "no_calibration" for one in user.verdicts) == 2, 30)
        assert measuring.asked == 1
        measuring.over.set()
        await until(lambda: sum(one.why == "no_noise" for one in user.verdicts) == 2, 30)
        assert measuring.asked == 2
        for _ in range(MAX_ASKED + 2):
            verdict = await audited_again(user)
            assert (verdict.state, verdict.why, verdict.opened) == ("undetermined", "no_noise", 16)
        assert measuring.asked == 2 and unharmed(user)


@in_module
async def test_a_lie_is_found_without_any_noise(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = Measuring(real, monkeypatch)
    measuring.failing = True
    honest = Written.take

    def take(self: Written, delta: Delta) -> Iterator[tuple[int, bytes]]:
        read = (transcript.decode_leaf(leaf) for leaf in delta.leaves)
        made = tuple(transcript.encode_leaf(leaf._replace(token=leaf.ids[-1])) for leaf in read)
        return honest(self, replace(delta, leaves=made))

    async with auditing(real, tmp_path, noise=0) as user:
        await user.answer()
        await measuring.begun.wait()
        monkeypatch.setattr(Written, "take", take)
        before = len(user.verdicts)
        await user.answer()
        assert (await user.ended(before)).why == "no_calibration"
        measuring.over.set()
        await until(lambda: user.verdicts[-1].state == "failed", 30)
        assert (user.verdicts[-1].why, user.verdicts[-1].proof) == ("wrong_token", True)


@in_module
async def test_no_driver_is_asked_more_often_than_it_has_to_answer(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring = Measuring(real, monkeypatch)

    async def compare(*given: object, **more: object) -> replaying.Compared:
        raise replaying.NotCompared("not_loaded")

    monkeypatch.setattr(replaying.Replaying, "compare", compare)
    async with auditing(real, tmp_path) as user:
        user.auditor.automatic = False
        await user.answer()
        await user.signed()
        for _ in range(MAX_ASKED):
            verdict = await audited_again(user)
            assert (verdict.state, verdict.why, verdict.opened) == ("signed", "not_loaded", 16)
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and "as often as" in plan.reason
        with pytest.raises(NodeError, match="as often as"):
            await user.auditor.audit(user.place)
        assert measuring.asked == MAX_ASKED and user.verdicts[-1] == verdict and unharmed(user)


@in_module
async def test_a_driver_that_is_lost_when_it_was_asked_often_is_not_blamed(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had less time to answer than any other."""
    asked = 0

    async def audit(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        nonlocal asked
        asked += 1
        return wire.Failure("busy")

    monkeypatch.setattr(real.shop.customers, "auditor", audit)
    async with auditing(real, tmp_path) as user:
        user.auditor.automatic = False
        await user.answer()
        await user.signed()
        next(iter(user.auditor._answers.values())).openings.asked = MAX_ASKED - 1
        verdict = await audited_again(user)
        assert (verdict.state, verdict.why, asked) == ("signed", "", 1) and unharmed(user)


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
