"""Audits of real answers by a real model: the honest pass, whoever does otherwise is caught and pays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app import agreeing, auditable, auditor, bills, counting, examining, fraud, purse, replaying
from infraxa.app.agreeing import Due
from infraxa.app.audit_values import AuditsSeen
from infraxa.app.errors import NodeError
from infraxa.app.ordering import request_of
from infraxa.app.transcripts import Transcripts, Written
from infraxa.engine import transcript
from infraxa.engine.types import ChatMessage, Delta, EngineError, Request, Sampling, Verified
from infraxa.net import audits, codec, deals, wire
from infraxa.net.customers import Customer
from infraxa.net.identity import Signer, id_text
from infraxa.net.prompts import Prompt
from infraxa.net.sale import Sale
from infraxa.store import earnings, ledger, tabs, trade, verdicts
from infraxa.store.db import Connection
from infraxa.store.records import StoreError, Verdict
from infraxa.store.verdicts import VerdictRow
from tests.app.auditing import (
    ASKED,
    HOT,
    MU0,
    WARM,
    Audits,
    Real,
    auditing,
    in_module,
    leaves,
    real_provider,
)
from tests.net.nodes import until

COLD = Sampling(temperature=0.0)
COLD_SHORT = Sampling(temperature=0.0, max_tokens=6)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    async with real_provider(tmp_path_factory.mktemp("real")) as made:
        yield made


Rewrite = Callable[[Delta], Delta]


@in_module
@pytest.mark.parametrize("what", ["context", "max_out"])
async def test_less_room_than_was_quoted_gets_no_prompt(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """In it an answer could end wherever its driver likes."""
    honest, prompts = Sale.claim, list[Prompt]()

    async def claim(self: Sale, context: int, max_out: int, commit: bytes = b"") -> Prompt:
        context, max_out = (50, max_out) if what == "context" else (context, 20)
        prompts.append(await honest(self, context, max_out, commit))
        return prompts[-1]

    monkeypatch.setattr(Sale, "claim", claim)
    async with auditing(real, tmp_path) as user:
        if what == "max_out":  # no less than what is asked for
            assert (await user.answer(sampling=replace(COLD, max_tokens=20))).text and prompts
            prompts.clear()
        ended = (await user.answer()).end
        assert ended.error is not None and "no answer" in ended.error.message and not prompts


@in_module
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.02),
        COLD,
        Sampling(temperature=1.0, stop=("provid",)),
    ],
    ids=["warm", "cold", "stop"],
)
async def test_an_honest_answer_passes(real: Real, tmp_path: Path, sampling: Sampling) -> None:
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict(sampling=sampling)
        assert [one.state for one in user.verdicts[:2]] == ["signed", "checking"]
        if verdict.steps >= 16:
            assert (verdict.state, verdict.why, verdict.by) == ("passed", "", "own")
            assert verdict.opened == 16 and verdict.ratio is not None and verdict.ratio < 1.75
        else:
            assert sampling.stop and (verdict.state, verdict.why) == ("undetermined", "few")
        assert verdict.driver == id_text(user.id)
        (kept,) = await user.store.run(verdicts.list_verdicts)
        assert kept.verdict == verdict and not kept.proof
        assert not user.drivers.audit_history.caught(user.id, real.shop.model_id)


@in_module
async def test_a_long_answer_passes(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict_of_long()
        assert (verdict.state, verdict.why, verdict.opened) == ("passed", "", 16)


@in_module
async def test_a_hot_answer_keeps_to_its_draw(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict(sampling=HOT)
        assert verdict.state == "passed" or (verdict.why == "few" and verdict.steps < 16)


@in_module
async def test_a_conversation_that_goes_on_passes(real: Real, tmp_path: Path) -> None:
    said = (
        ChatMessage("system", "Be short."),
        *ASKED,
        ChatMessage("assistant", "To become"),
    )
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict(said)
        # How long it is, is chance.
        assert verdict.state == "passed" or (verdict.why == "few" and verdict.steps < 16), verdict


@in_module
async def test_short_answers_are_judged_together(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        found = [(await user.verdict(sampling=replace(WARM, max_tokens=6))) for _ in range(3)]
        assert [(one.state, one.why) for one in found] == [
            ("undetermined", "few"),
            ("undetermined", "few"),
            ("passed", ""),
        ]


@in_module
async def test_a_short_answer_that_fails_marks_none_of_those_after_it(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(WARM, max_tokens=6)
    async with auditing(real, tmp_path) as user:
        for _ in range(2):
            assert (await user.verdict(sampling=short)).why == "few"
        with monkeypatch.context() as lying:
            leaves(lying, lambda leaf: leaf._replace(q=(leaf.q[0], *(q - 9000 for q in leaf.q[1:]))))
            assert (await user.verdict(sampling=COLD_SHORT)).state == "failed"
        user.drivers.audit_history._known.clear()  # or nothing more would be bought there
        found = [(await user.verdict(sampling=short)) for _ in range(3)]
        assert {(one.state, one.why) for one in found} <= {("undetermined", "few"), ("passed", "")}


@in_module
async def test_a_token_that_was_not_drawn_is_proven_told_and_taken_back(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "wrong_token", True)
        proof = await user.convicting.proof_of(verdict.order)
        found = fraud.checked(proof)
        assert (found.kind, found.provider, found.order.hex()) == ("wrong_token", user.id, verdict.order)
        await until(lambda: user.published == [proof.encode()])
        # It is not chosen any more, with any of its models.
        (offer,) = user.drivers.offers(user.nodes())
        assert "proven" in offer.caught and not offer.has_room and offer.audited.failed == 1
        assert user.drivers.choose(user.nodes()) is None
        with pytest.raises(NodeError, match="cheated"):
            raise user.drivers.nobody(user.nodes())
        assert user.drivers.audit_history.caught(user.id, bytes(32))
        # The person can still ask it.
        assert user.drivers.find(user.nodes(), id_text(user.id)).node.id == user.id
        (row,) = await user.store.run(earnings.list_receipts, "user")
        _, order, receipt = row
        assert order.reversed == order.accepted == receipt.charge > 0
        tab = await user.store.run(tabs.get_tab, "user", user.id)
        assert tab.reversed == order.reversed and tab.owed == order.accepted
        assert await user.store.run(ledger.check) == []


@in_module
async def test_the_books_go_on_after_something_was_taken_back(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with auditing(real, tmp_path) as user:
        with monkeypatch.context() as lying:
            leaves(lying, lambda leaf: leaf._replace(token=leaf.ids[-1]))
            assert (await user.verdict()).why == "wrong_token"
        assert ((verdict := await user.verdict()).state, verdict.why) == ("passed", ""), verdict
        await user.settled()
        assert (await user.store.run(tabs.get_tab, "user", user.id)).note == ""


@in_module
async def test_a_lie_is_told_to_nobody_where_that_was_not_agreed(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    async with auditing(real, tmp_path, verify="merkle") as user:
        verdict = await user.verdict()
        assert verdict.why == "wrong_token" and verdict.proof
        assert not user.published


@in_module
async def test_what_was_caught_is_known_after_a_start(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    async with auditing(real, tmp_path) as user:
        await user.verdict()
    async with auditing(real, tmp_path) as user:
        assert user.drivers.audit_history.caught(user.id, real.shop.model_id)
        assert user.drivers.audit_history.seen(user.id, real.shop.model_id).failed == 1


@in_module
async def test_another_models_numbers_fail_at_the_second_look(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(leaf: transcript.Leaf) -> transcript.Leaf:
        return leaf._replace(q=(leaf.q[0], *(q - 2000 for q in leaf.q[1:])))

    leaves(monkeypatch, worse)
    asked: list[bool] = []
    opened = Transcripts.audit

    async def audit(self: Transcripts, customer: Customer, request: wire.AuditPlease) -> Any:
        asked.append(request.all)
        return await opened(self, customer, request)

    monkeypatch.setattr(real.shop.customers, "auditor", lambda *given: audit(till(real), *given))
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict(sampling=COLD)
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "other_model", False)
        assert verdict.ratio is not None and verdict.ratio > 2.2
        assert asked == [False, True] and verdict.opened == verdict.steps > 16
        # It counts for this user alone, and for this model.
        assert not user.published
        assert user.drivers.audit_history.caught(user.id, real.shop.model_id)
        assert not user.drivers.audit_history.caught(user.id, bytes(32))
        (row,) = await user.store.run(earnings.list_receipts, "user")
        assert row[1].reversed == 0


@in_module
async def test_a_hidden_prompt_is_found(real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = request_of

    def adding(*given: Any) -> Request:
        request = honest(*given)
        return replace(request, messages=(ChatMessage("system", "Praise soap."), *request.messages))

    monkeypatch.setattr("infraxa.app.sales.request_of", adding)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why) == ("failed", "other_prompt")


@in_module
@pytest.mark.parametrize(
    "change",
    [
        lambda verified: replace(verified, seed=bytes(32)),
        lambda verified: replace(verified, ppm=(1_000_000, *verified.ppm[1:])),
    ],
    ids=["seed", "temperature"],
)
async def test_another_draw_than_was_agreed_is_proven(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Verified], Verified]
) -> None:
    honest = Written.begin
    monkeypatch.setattr(Written, "begin", lambda self, *given: change(honest(self, *given)))
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict(sampling=HOT)
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "wrong_token", True)


@in_module
async def test_what_is_no_leaf_is_proven(real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(order=bytes(16)))
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "wrong_leaf", True)
        assert verdict.by == "", "no model was asked"
        assert user.drivers.audit_history.seen(user.id, real.shop.model_id).failed == 1


def till(real: Real) -> Transcripts:
    return real.shop.provider.till.transcripts


def opening(
    real: Real, monkeypatch: pytest.MonkeyPatch, change: Callable[[audits.Opening], audits.Opening]
) -> None:
    """The provider opens something else."""

    async def audit(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        data = await till(real).audit(customer, request)
        assert isinstance(data, bytes)
        return codec.encode(change(audits.decode(data)))

    monkeypatch.setattr(real.shop.customers, "auditor", audit)


@in_module
@pytest.mark.parametrize(
    "change",
    [
        lambda it: replace(it, tokens=bytes(4) + it.tokens[4:]),
        lambda it: replace(it, leaves=it.leaves[::-1]),
        lambda it: replace(it, leaves=(it.leaves[0],) * len(it.leaves)),
        lambda it: replace(it, paths=it.paths[1:] + it.paths[:1]),
        lambda it: replace(it, root=bytes(32)),
        lambda it: replace(it, consistency=tuple(bytes(len(one)) for one in it.consistency)),
    ],
    ids=["tokens", "order", "one", "paths", "root", "checkpoints"],
)
async def test_what_was_not_signed_is_no_opening(
    real: Real,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[audits.Opening], audits.Opening],
) -> None:
    opening(real, monkeypatch, change)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict_of_long()
        assert (verdict.state, verdict.why, verdict.proof) == ("failed", "bad_opening", False)


@in_module
async def test_a_checkpoint_that_the_receipt_does_not_continue(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Sale.checkpoint

    async def checkpoint(self: Sale, n: int, root: bytes) -> None:
        await honest(self, n, bytes(32))

    monkeypatch.setattr(Sale, "checkpoint", checkpoint)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict_of_long()
        assert (verdict.state, verdict.why) == ("failed", "bad_opening")


@in_module
async def test_silence_is_no_lie_and_lowers_the_success(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def audit(customer: Customer, request: wire.AuditPlease) -> wire.Failure:
        return wire.Failure("busy")

    monkeypatch.setattr(real.shop.customers, "auditor", audit)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.opened) == ("undetermined", "silent", 0)
        assert verdict.by == "", "nothing was compared"
        (offer,) = user.drivers.offers(user.nodes())
        assert offer.success == pytest.approx(0.5, abs=0.01)
        assert not offer.caught and offer.audited.undetermined == 1


@in_module
@pytest.mark.parametrize(
    "change",
    [
        lambda said: None,
        lambda said: replace(said, mode="merkle"),
        lambda said: replace(said, draw_u=bytes(32)),
        lambda said: replace(said, draw_p=bytes(32)),
        lambda said: replace(said, steps=said.steps + 1),
        lambda said: replace(said, output=bytes(32)),
    ],
    ids=["none", "mode", "draw_u", "draw_p", "steps", "output"],
)
async def test_no_receipt_is_signed_that_commits_to_something_else(
    real: Real,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[deals.Transcript], deals.Transcript | None],
) -> None:
    honest = Written.end

    def end(self: Written, **given: Any) -> bytes | None:
        said = honest(self, **given)
        other = None if said is None else change(codec.decode(said, deals.Transcript))
        return None if other is None else codec.encode(other)

    monkeypatch.setattr(Written, "end", end)
    monkeypatch.setattr(purse, "CLOSE_S", 0.1)
    async with auditing(real, tmp_path) as user:
        await user.answer(sampling=replace(WARM, max_tokens=20))
        assert "transcript" in await user.note()
        assert not await user.store.run(earnings.list_receipts, "user")
        assert not user.verdicts


@in_module
async def test_without_the_file_only_what_needs_none_is_checked(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(self: object, model_id: bytes) -> None:
        return None

    monkeypatch.setattr(replaying.Replaying, "copy", none)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.opened, verdict.by) == ("signed", "no_file", 16, "")
        seen = user.drivers.audit_history.seen(user.id, real.shop.model_id)
        assert (seen.fit, seen.passed, seen.last_ms) == (1, 0, 0)
        (row,) = await user.store.run(verdicts.list_verdicts)
        assert (row.verdict, row.told) == (verdict, False)
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and plan.remedy
        with pytest.raises(NodeError, match="file"):
            await user.auditor.audit(user.place)
        leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
        assert (await user.verdict()).why == "wrong_token"


@in_module
async def test_noise_that_is_not_known_is_measured_once_and_then_it_is_audited(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Path] = []

    async def calibrate(on_progress: object = None, *, scratch: Path) -> float:
        measured.append(scratch)
        return 0.042

    monkeypatch.setattr(real.engine, "calibrate", calibrate)
    async with auditing(real, tmp_path, noise=0) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.opened) == ("undetermined", "no_calibration", 16)
        await until(lambda: user.verdicts[-1].state == "passed")
        assert (await user.auditor.plan(user.place)).state == "done"
        assert (await user.verdict()).state == "passed"
        await until(lambda: not measured[0].exists())
        assert len(measured) == 1


@in_module
async def test_what_needs_no_model_counts_while_that_is_waited_for(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real.models, "room", lambda entry, settings: "beside")
    monkeypatch.setattr(replaying, "LOOK_S", 0.02)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, verdict.opened) == ("signed", "not_loaded", 16)
        order = bytes.fromhex(verdict.order)
        assert await asyncio.wait_for(user.auditor.verdicts([order], 600), 5) == [verdict]
        seen = user.drivers.audit_history.seen(user.id, real.shop.model_id)
        assert (seen.fit, seen.passed) == (1, 0)

        before = len(user.verdicts)
        await asyncio.sleep(0.2)
        assert len(user.verdicts) == before, "nothing is loaded unasked"
        assert (await user.auditor.plan(user.place)).state == "own"
        await user.auditor.audit(user.place)
        await until(lambda: user.verdicts[-1].state == "passed")
        assert [one.state for one in user.verdicts[before:]] == ["checking", "passed"]
        assert (await user.auditor.verdicts([order], 600))[0].state == "passed"
        seen = user.drivers.audit_history.seen(user.id, real.shop.model_id)
        assert (seen.fit, seen.passed) == (0, 1), "one answer"


@in_module
async def test_no_referee_is_paid_while_an_own_audit_waits(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(self: object, model_id: bytes) -> None:
        return None

    monkeypatch.setattr(real.models, "room", lambda entry, settings: "beside")
    async with auditing(real, tmp_path) as user:
        assert (await user.verdict()).why == "not_loaded"
        monkeypatch.setattr(replaying.Replaying, "copy", none)  # its file was removed
        assert (await user.auditor.plan(user.place)).state == "checking"
        with pytest.raises(NodeError) as raised:
            await user.auditor.audit(user.place, referee=True)
        assert raised.value.code == "not_audited"


@in_module
async def test_what_is_asked_for_as_it_is_given_up_is_done(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real.models, "room", lambda entry, settings: "beside")
    monkeypatch.setattr(replaying, "LOOK_S", 600)
    async with auditing(real, tmp_path) as user:
        user.replaying.wait_s = 1.0
        assert (await user.verdict()).why == "not_loaded"
        await user.auditor.audit(user.place)
        await until(lambda: user.verdicts[-1].state == "passed", 20)


@in_module
async def test_a_clear_look_that_did_not_come_leaves_the_first_one_unclear(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(q=(leaf.q[0], *(q - 2000 for q in leaf.q[1:]))))
    compare, asked = replaying.Replaying.compare, list[int]()

    async def once(self: replaying.Replaying, *given: Any, **more: Any) -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise replaying.NotCompared("not_loaded")
        return await compare(self, *given, **more)

    monkeypatch.setattr(replaying.Replaying, "compare", once)
    async with auditing(real, tmp_path) as user:
        passed = Verdict("", id_text(user.id), "passed")
        history, model = user.drivers.audit_history, real.shop.model_id
        history.open(VerdictRow(user.id, model, n, replace(passed, order=f"{n:032x}")) for n in range(60))
        assert history.rate(user.id, model) < 0.5
        user.auditor.automatic = False
        await user.answer(sampling=COLD)
        await user.signed()
        await user.auditor.audit(user.place)
        verdict = await user.ended()
        assert (verdict.state, verdict.why, len(asked)) == ("signed", "not_loaded", 2)
        assert history.rate(user.id, model) == 0.5


@in_module
@pytest.mark.parametrize("lies", [False, True])
async def test_what_was_found_holds_where_the_disk_fails(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lies: bool
) -> None:
    def full(*given: object) -> None:
        raise StoreError("full", "The disk is full.", "Free some.")

    monkeypatch.setattr(verdicts, "keep", full)
    if lies:
        leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why) == (("failed", "wrong_token") if lies else ("passed", ""))
        (offer,) = user.drivers.offers(user.nodes())
        assert bool(offer.caught) == lies


@in_module
async def test_who_did_not_open_it_before_this_node_ends_was_silent(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def audit(customer: Customer, request: wire.AuditPlease) -> wire.Failure:
        asked.append(request.order)
        return wire.Failure("busy")

    monkeypatch.setattr(real.shop.customers, "auditor", audit)
    async with auditing(real, tmp_path) as user:
        user.auditor._examining._pauses = (0.0, 0.05, 600.0)
        await user.answer()
        await until(lambda: len(asked) == 2)
        (offer,) = user.drivers.offers(user.nodes())
        assert offer.success is None or offer.success > 0.9
        await user.auditor.close()
        (offer,) = user.drivers.offers(user.nodes())
        assert offer.success == pytest.approx(0.5, abs=0.01)


@in_module
async def test_what_is_known_of_an_answer_is_waited_for_no_longer_than_asked(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(real, monkeypatch)
    async with auditing(real, tmp_path) as user:
        assert await user.auditor.verdicts([bytes(16)], 600) == []
        await user.answer()
        await until(lambda: gate.asked == 1)
        order = bytes.fromhex(user.verdicts[-1].order)
        (verdict,) = await user.auditor.verdicts([order], 0.05)
        assert verdict.state == "checking"
        gate.open.set()
        (verdict,) = await user.auditor.verdicts([order], 600)
        assert verdict.state == "passed"


@in_module
async def test_audits_are_made_by_the_person_alone_when_it_says_so(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        user.auditor.automatic = False
        await user.answer()
        await until(lambda: [one.state for one in user.verdicts] == ["signed"])
        assert user.verdicts[0].steps > 16
        await user.auditor.audit(user.place)
        assert (await user.auditor.plan(user.place)).state == "checking"
        assert (await user.ended()).state == "passed"
        with pytest.raises(NodeError):
            await user.auditor.audit(user.place)
        with pytest.raises(NodeError):
            await user.auditor.audit(("chat", "another message"))


@in_module
async def test_an_audit_gives_way_to_the_person(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def score(*given: Any, **more: Any) -> Any:
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(real.engine, "score", score)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        await asyncio.wait_for(begun.wait(), 20)
        await asyncio.wait_for(user.replaying.step_aside(), 5)
        verdict = await user.ended()
        assert (verdict.state, verdict.why) == ("signed", "not_loaded")


@in_module
@pytest.mark.parametrize(
    ("sampling", "setting", "why"),
    [
        (replace(HOT, repeat_penalty=1.1), "fraud_proof", "sampling"),
        (replace(HOT, seed=7), "merkle", "sampling"),
        (WARM, "none", "own_setting"),
    ],
)
async def test_what_is_not_verified_says_why(
    real: Real, tmp_path: Path, sampling: Sampling, setting: str, why: str
) -> None:
    async with auditing(real, tmp_path, verify=setting) as user:
        verdict = await user.verdict(sampling=sampling)
        assert (verdict.state, verdict.why) == ("unverified", why)
        await user.settled()
        (row,) = await user.store.run(earnings.list_receipts, "user")
        assert row[1].mode == "none"
        assert [one.state for one in user.verdicts] == ["unverified"]


@in_module
async def test_proofs_of_others_count_and_stay(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.app.lies import DRIVER, LIAR

    proof = fraud.made(LIAR.receipt, order=LIAR.order, opened=LIAR.opened(17))
    async with auditing(real, tmp_path) as user:
        user.convicting.convicted(DRIVER.id, proof.encode())
        await until(lambda: user.drivers.audit_history.is_guilty(DRIVER.id))
        assert "proven" in user.drivers.audit_history.caught(DRIVER.id, bytes(32))
        assert user.drivers.audit_history.seen(DRIVER.id, LIAR.said.model).failed == 0
        await until(lambda: not user.convicting._tasks._tasks)
    async with auditing(real, tmp_path) as user:
        assert user.drivers.audit_history.caught(DRIVER.id, bytes(32))


@in_module
async def test_an_answer_that_was_stopped_may_end_anywhere(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Sale.piece

    async def held(self: Sale, *given: Any) -> None:
        """The first one comes, and nothing of what is sampled meanwhile."""
        await honest(self, *given)
        await asyncio.sleep(30)

    monkeypatch.setattr(Sale, "piece", held)
    async with auditing(real, tmp_path) as user:
        source = user.source(sampling=COLD)
        async for item in source:
            if isinstance(item, Delta):
                source.cancel()
        verdict = await user.ended()
        (answer,) = user.auditor._answers.values()
        assert answer.receipt is not None and answer.receipt.outcome == "cancelled"
        assert verdict.state == "passed" or verdict.why == "few", verdict
        assert len(answer.kept.ids) <= verdict.steps <= 49


@in_module
async def test_an_answer_that_money_or_the_context_ended_passes(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "LEAST_OUT", 4)
    cold = replace(COLD, max_tokens=200)
    async with auditing(real, tmp_path) as user:
        user.purse.use(replace(user.settings, cap_request=0.000008))
        verdict = await user.verdict(sampling=cold)
        ((_, order, row),) = await user.store.run(earnings.list_receipts, "user")
        said: deals.Receipt = codec.decode(codec.decode_signed(row.receipt).body, deals.Receipt)
        assert (said.outcome, said.charge) == ("length", order.hold) and 16 <= verdict.steps < 40
        assert (verdict.state, verdict.why) == ("passed", ""), verdict
    async with auditing(real, tmp_path / "long") as user:
        context = user.nodes()[0].models[0].context
        text = "rain " * context
        while (count := await real.engine.count_tokens((ChatMessage("user", text),))) > context - 17:
            text = text[: -5 * max(1, (count - context + 17) // 2)]
        verdict = await user.verdict((ChatMessage("user", text),), replace(HOT, max_tokens=None))
        ((_, order, row),) = await user.store.run(earnings.list_receipts, "user")
        said = codec.decode(codec.decode_signed(row.receipt).body, deals.Receipt)
        # How long a hot one is, is chance.
        assert said.outcome == "stop" or verdict.steps == context - said.n_prompt + 1 > 16
        assert verdict.state == "passed" or verdict.why == "few", verdict


@in_module
async def test_two_receipts_for_one_order_are_proven(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        await user.verdict()
        await user.settled()
        ((_, order, row),) = await user.store.run(earnings.list_receipts, "user")
        first = codec.decode_signed(row.receipt)
        said: deals.Receipt = codec.decode(first.body, deals.Receipt)
        again = deals.sign(replace(said, charge=said.charge + 1), real.shop.identity)
        account = user.account(user.id)
        due = Due(again, said, order.id, True, account, b"", False, 1)
        step = await user.store.step(agreeing.agree, due)
        assert step.send is None and step.other == row
        user.purse.paying.twice(first, again)
        await until(lambda: user.verdicts[-1].why == "two_receipts")
        proof = await user.convicting.proof_of(order.id.hex())
        assert fraud.checked(proof).kind == "two_receipts"
        await until(lambda: user.published == [proof.encode()])
        taken = await user.store.run(trade.get_order, "user", user.id, order.id)
        assert taken is not None and taken.reversed == taken.accepted
        assert user.drivers.audit_history.is_guilty(user.id)


@in_module
@pytest.mark.parametrize("verify", ["fraud_proof", "merkle"])
async def test_a_second_receipt_that_a_driver_sends_is_proven_and_told_where_that_was_agreed(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: str
) -> None:
    honest = bills.countersign

    def again(
        conn: Connection, me: Signer, account: bytes, order: bytes, signed: codec.Signed
    ) -> wire.Accepted | wire.Failure:
        """What is due next is another receipt for the same order."""
        accepted = honest(conn, me, account, order, signed)
        kept = trade.get_receipt(conn, "provider", account, order)
        assert kept is not None and isinstance(accepted, wire.Accepted)
        first: deals.Receipt = codec.decode(codec.decode_signed(kept.receipt).body, deals.Receipt)
        return replace(accepted, next=deals.sign(replace(first, charge=first.charge + 1), me))

    monkeypatch.setattr(bills, "countersign", again)
    async with auditing(real, tmp_path, verify=verify) as user:
        await user.answer()
        await until(lambda: any(one.why == "two_receipts" for one in user.verdicts))
        told = next(one for one in user.verdicts if one.why == "two_receipts")
        proof = await user.convicting.proof_of(told.order)
        found = fraud.checked(proof)
        assert (found.kind, found.provider, found.order.hex()) == ("two_receipts", user.id, told.order)
        assert told.proof and user.drivers.audit_history.is_guilty(user.id)
        await until(lambda: not user.convicting._tasks._tasks)
        assert user.published == ([proof.encode()] if verify == "fraud_proof" else [])


@in_module
@pytest.mark.parametrize(("name", "value"), [("KEPT_BYTES", 1), ("KEPT_S", 0.0)])
async def test_what_is_needed_for_an_audit_is_kept_for_a_while(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    monkeypatch.setattr(auditor, name, value)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        await until(lambda: user.verdicts)
        # That it is signed is known of the books.
        assert (user.verdicts[0].state, user.verdicts[0].steps) == ("signed", 0)
        assert not user.auditor._answers and user.auditor._bytes == 0
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and "not kept" in plan.reason


@in_module
async def test_not_more_is_audited_than_can_be_done(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "WAITING", 0)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        await until(lambda: user.verdicts and user.verdicts[-1].steps)
        assert [one.state for one in user.verdicts] == ["signed"]
        await user.auditor.audit(user.place)
        assert (await user.ended()).state == "passed"


class Gate:
    """The provider opens nothing until it is let."""

    def __init__(self, real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self._real = real
        monkeypatch.setattr(real.shop.customers, "auditor", self._audit)

    async def _audit(self, customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        self.asked += 1
        await self.open.wait()
        return await till(self._real).audit(customer, request)


def told(user: Audits, state: str) -> int:
    return sum(one.state == state for one in user.verdicts)


@in_module
async def test_while_enough_is_audited_no_other_one_begins_by_itself(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "WAITING", 1)
    gate = Gate(real, monkeypatch)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        await until(lambda: gate.asked == 1)
        before = len(user.verdicts)
        await user.answer()
        await user.signed(before)
        await user.settled()
        assert [one.state for one in user.verdicts[before:]] == ["signed"] and told(user, "checking") == 1
        gate.open.set()
        await until(lambda: told(user, "passed") == 1)
        assert (await user.verdict()).state == "passed"


@in_module
async def test_some_are_asked_at_once_and_the_person_does_not_wait(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "AT_ONCE", 1)
    gate = Gate(real, monkeypatch)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        await until(lambda: told(user, "checking") == 1)
        await user.answer()
        await until(lambda: told(user, "checking") == 2)
        await until(lambda: gate.asked == 1)
        user.auditor.automatic = False
        before = len(user.verdicts)
        await user.answer()
        await user.signed(before)
        assert gate.asked == 1
        await user.auditor.audit(user.place)
        await until(lambda: gate.asked == 2)
        gate.open.set()
        await until(lambda: told(user, "passed") == 3)


@in_module
async def test_a_driver_that_does_not_answer_keeps_nobody_waiting(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "AT_ONCE", 1)
    asked: list[bytes] = []

    async def audit(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        asked.append(request.order)
        if request.order == asked[0]:
            return wire.Failure("busy")
        return await till(real).audit(customer, request)

    monkeypatch.setattr(real.shop.customers, "auditor", audit)
    async with auditing(real, tmp_path) as user:
        user.auditor._examining._pauses = (0.0, 600.0)
        await user.answer()
        await until(lambda: len(asked) == 1)
        await user.answer()
        await until(lambda: told(user, "passed") == 1)
        assert (told(user, "checking"), len(asked)) == (2, 2)


@in_module
async def test_whoever_need_not_open_it_any_more_is_not_silent(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditable, "LATE_S", auditor.KEPT_S)
    gate = Gate(real, monkeypatch)
    async with auditing(real, tmp_path) as user:
        verdict = await user.verdict()
        assert (verdict.state, verdict.why, gate.asked) == ("signed", "", 0)
        assert not await user.store.run(verdicts.list_verdicts)
        (offer,) = user.drivers.offers(user.nodes())
        assert offer.audited == AuditsSeen() and (offer.success is None or offer.success > 0.9)


@in_module
async def test_who_asks_twice_gets_one_audit(real: Real, tmp_path: Path) -> None:
    async with auditing(real, tmp_path) as user:
        user.auditor.automatic = False
        await user.answer()
        await user.signed()
        twice = (user.auditor.audit(user.place) for _ in range(2))
        (refused,) = filter(None, await asyncio.gather(*twice, return_exceptions=True))
        assert isinstance(refused, NodeError) and refused.code == "not_audited"
        await until(lambda: told(user, "passed") == 1)
        assert told(user, "checking") == 1


@in_module
async def test_before_the_receipt_is_signed_it_is_said_so(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor.Auditor, "signed", lambda self, order: None)
    async with auditing(real, tmp_path) as user:
        await user.answer()
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and "not signed" in plan.reason and "in a moment" in plan.remedy
        plan = await user.auditor.plan(("chat", "another message"))
        assert plan.state == "none" and "within an hour" in plan.remedy


@in_module
@pytest.mark.parametrize("code", ["unsupported", "no_memory"])
async def test_noise_that_cannot_be_measured_is_no_promise(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    measured: list[str] = []

    async def calibrate(on_progress: object = None, *, scratch: Path) -> float:
        measured.append(code)
        if len(measured) > 1:
            return MU0
        raise EngineError(code, "It cannot be measured.", "")

    monkeypatch.setattr(real.engine, "calibrate", calibrate)
    async with auditing(real, tmp_path, noise=0) as user:
        for _ in range(2):
            user.verdicts.clear()
            await user.answer()
            await until(lambda: user.verdicts and user.verdicts[-1].why == "no_noise")
            assert (user.verdicts[-1].state, user.verdicts[-1].by) == ("undetermined", "")
            assert len(measured) == 1, "it is not tried again at once"
        assert user.drivers.audit_history.seen(user.id, real.shop.model_id) == AuditsSeen(), (
            "it is not its affair"
        )
        if code == "no_memory":
            for model in user.replaying._not_before:
                user.replaying._not_before[model] = 0.0  # an hour later
            await user.answer()
            # What waits is audited, too.
            await until(lambda: told(user, "passed") == 3, 30)
