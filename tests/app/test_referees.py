"""Audits by other providers, for a person without the model: who is asked, what they see, what their word
counts for."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from infraxa.app.errors import NodeError
from infraxa.app.transcripts import Written
from infraxa.engine import transcript
from infraxa.engine.types import Delta, EngineError, Sampling, Scored, ScoredRow
from infraxa.net import prompts, wire
from infraxa.net.customers import Customer
from infraxa.net.prompts import Prompt
from infraxa.net.records import PriceNow
from infraxa.net.sale import Sale
from infraxa.net.scores import Scoring
from infraxa.net.status import SeenNode
from infraxa.store import earnings, verdicts
from infraxa.store.records import Verdict
from tests.app.auditing import ASKED, MU0, WARM, Audits, Real, auditing, in_module, real_providers
from tests.net.nodes import until

COLD = Sampling(temperature=0.0)
Score = Callable[..., Awaitable[Scored]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reals(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Real, ...]]:
    """A driver and three referees."""
    async with real_providers(tmp_path_factory.mktemp, 4) as made:
        yield made


@pytest.fixture
def court(reals: tuple[Real, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[Real, ...]:
    """The same, each of whom knows the noise of the model."""
    for real in reals:
        tells(real, MU0, monkeypatch)
    return reals


def tells(real: Real, noise: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def told(*given: object) -> float | None:
        return noise

    monkeypatch.setattr(real.shop.provider, "noise", told)


def scoring(
    real: Real, monkeypatch: pytest.MonkeyPatch, change: Callable[[ScoredRow], ScoredRow]
) -> list[int]:
    """The referee says something else than it computed; each time that it is asked is noted."""
    honest: Score = real.engine.score
    asked: list[int] = []

    async def score(*given: Any, **more: Any) -> Scored:
        asked.append(len(given[2]))
        scored = await honest(*given, **more)
        return replace(scored, rows=tuple(map(change, scored.rows)))

    monkeypatch.setattr(real.engine, "score", score)
    return asked


def honestly(row: ScoredRow) -> ScoredRow:
    return row


def falsely(row: ScoredRow, by: int = 3000) -> ScoredRow:
    """As another model might have it: so many 1/4096 of a logit lower."""
    q = struct.unpack(f"<{len(row.q) // 4}i", row.q)
    return replace(row, q=struct.pack(f"<{len(q)}i", *(value - by for value in q)))


def cheats(monkeypatch: pytest.MonkeyPatch) -> None:
    """All drivers commit to other numbers than the model's."""
    honest = Written.take

    def worse(data: bytes) -> bytes:
        leaf = transcript.decode_leaf(data)
        return transcript.encode_leaf(leaf._replace(q=(leaf.q[0], *(q - 2000 for q in leaf.q[1:]))))

    def take(self: Written, delta: Delta) -> Any:
        return honest(self, replace(delta, leaves=tuple(map(worse, delta.leaves))))

    monkeypatch.setattr(Written, "take", take)


def telling(monkeypatch: pytest.MonkeyPatch, change: Callable[[Scoring], Scoring]) -> None:
    """All referees say something else of an answer than they found."""
    honest = Sale.scoring

    async def scoring(self: Sale, told: Scoring) -> None:
        await honest(self, change(told))

    monkeypatch.setattr(Sale, "scoring", scoring)


def saying(monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str]) -> None:
    """All drivers let people read something else than their tokens say."""
    honest = Sale.piece

    async def piece(self: Sale, text: str, *given: Any) -> None:
        await honest(self, change(text), *given)

    monkeypatch.setattr(Sale, "piece", piece)


def soap(text: str) -> str:
    return text.replace("o", "0")


async def asked(user: Audits) -> Verdict:
    """What comes of an audit that the person has agreed to."""
    before = len(user.verdicts)
    await user.auditor.audit(user.place, referee=True)
    return await user.ended(before)


async def answered(user: Audits, sampling: Sampling = WARM) -> None:
    """There is an answer whose receipt is signed."""
    user.auditor.automatic = False
    before = len(user.verdicts)
    await user.answer(sampling=sampling)
    await user.signed(before)


async def stopped(user: Audits) -> None:
    """There is one that its user ended after 20 tokens."""
    before, said = len(user.verdicts), 0
    source = user.source(sampling=COLD)
    async for item in source:
        said += len(item.token_ids) if isinstance(item, Delta) else 0
        if said > 20:
            source.cancel()
    await user.signed(before)


def orders(real: Real) -> int:
    return len(real.shop.provider.served())


@in_module
async def test_an_honest_answer_passes_by_one_referee_who_is_told_what_it_needs(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    seen: list[Prompt] = []
    decode = prompts.decode_prompt

    def decoded(data: bytes) -> Prompt:
        seen.append(decode(data))
        return seen[-1]

    monkeypatch.setattr(prompts, "decode_prompt", decoded)
    async with auditing(driver, tmp_path, noise=0, referees=tuple(others)) as user:
        await answered(user)
        plan = await user.auditor.plan(user.place)
        assert (plan.state, plan.referees) == ("referee", 3) and 0 < plan.most
        before = [orders(one) for one in others]
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.by) == ("passed", "", "referee")
        assert verdict.opened == 16 and verdict.ratio is not None and verdict.ratio < 1.75
        assert (await user.auditor.plan(user.place)).state == "done"
        # One was asked, and the person is told which one.
        (referee,) = (one for one, n in zip(others, before, strict=True) if orders(one) > n)
        assert [(*place, reader.name) for *place, reader in user.readers] == [(*user.place, "till")]
        told = seen[-1]
        assert (told.turns[0].text, len(told.steps)) == (ASKED[0].content, 16)
        assert (told.salt, told.draw, told.stop) == (b"", b"", ()) and len(told.answer) == 4 * verdict.steps
        # It is paid by what it read, as was said before, and nothing of it counts as an answer.
        await user.settled()
        rows = await user.store.run(earnings.list_receipts, "user")
        (paid,) = (order for _, order, _ in rows if order.peer == referee.shop.node.id)
        assert paid.outcome == "scored" and paid.billed is not None and paid.billed.n_out == 0
        assert paid.billed.n_prompt >= verdict.steps and paid.charge == paid.accepted
        assert paid.charge is not None and 0 < paid.charge <= plan.most
        # What it found counts as an audit of this node's own.
        assert user.drivers.audit_history.seen(user.id, driver.shop.model_id).passed == 1
        (kept,) = await user.store.run(verdicts.list_verdicts)
        assert not kept.told and kept.verdict == verdict


@in_module
async def test_nothing_leaves_that_nobody_agreed_to(court: tuple[Real, ...], tmp_path: Path) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        before = [orders(one) for one in others]
        verdict = await user.verdict()  # by itself
        assert (verdict.state, verdict.why) == ("signed", "no_file")
        assert (await user.auditor.plan(user.place)).state == "referee"
        with pytest.raises(NodeError) as refused:
            await user.auditor.audit(user.place)
        assert refused.value.code == "not_audited"
        await asyncio.sleep(0.2)
        assert [orders(one) for one in others] == before and not user.readers
        assert set(user.links) == {user.id}


@in_module
async def test_a_referee_that_lies_condemns_nobody(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, liar, *others = court
    scoring(liar, monkeypatch, falsely)
    async with auditing(driver, tmp_path, referees=(liar,)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.by) == ("undetermined", "one_referee", "referee")
        assert not user.drivers.audit_history.caught(user.id, driver.shop.model_id)
    for number in range(3):  # whoever is asked first
        async with auditing(driver, tmp_path / str(number), referees=(liar, *others)) as user:
            await answered(user)
            verdict = await asked(user)
            assert (verdict.state, verdict.why) == ("passed", "")


@in_module
async def test_one_that_cheats_is_caught_by_two(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheats(monkeypatch)
    driver, *others = court
    counts = [scoring(one, monkeypatch, honestly) for one in others]
    async with auditing(driver, tmp_path, noise=0, referees=tuple(others)) as user:
        await answered(user, COLD)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.by) == ("failed", "other_model", "referee")
        assert verdict.ratio is not None and verdict.ratio > 2.2 and not verdict.proof
        # The second one sees all steps.
        steps = sorted(n for of_one in counts for n in of_one)
        assert steps == [16, verdict.steps] and verdict.opened == verdict.steps
        assert len(user.readers) == 2 and len({reader.id for *_, reader in user.readers}) == 2
        assert user.drivers.audit_history.caught(user.id, driver.shop.model_id)
        # It counts for this user alone.
        assert not user.published
    async with auditing(driver, tmp_path / "one", referees=(others[0],)) as user:
        await answered(user, COLD)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "one_referee")


@in_module
async def test_it_does_not_help_to_show_no_more_after_the_first_look(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheats(monkeypatch)
    driver, *others = court
    opened = driver.shop.provider.till.transcripts.audit

    async def once(customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        return wire.Failure("busy") if request.all else await opened(customer, request)

    monkeypatch.setattr(driver.shop.customers, "auditor", once)
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user, COLD)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.opened) == ("failed", "other_model", 16)


@in_module
async def test_who_gives_nothing_useful_is_followed_by_another_one(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court

    async def fails(*given: object, **more: object) -> Scored:
        raise EngineError("no_memory", "There is none.")

    for one in others[:2]:
        monkeypatch.setattr(one.engine, "score", fails)
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.by) == ("passed", "referee")
        monkeypatch.setattr(others[2].engine, "score", fails)
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.ratio) == ("undetermined", "no_referee", None)
        # It can be asked for again.
        assert (await user.auditor.plan(user.place)).state in ("referee", "none")


@in_module
async def test_garbage_is_no_word(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, odd, *_ = court
    honest = Sale.score

    async def short(self: Sale, row: bytes, n_tokens: int) -> None:
        n = len(row) // 8
        await honest(self, row[: 4 * (n - 1)] + row[4 * n : -4], n_tokens)

    monkeypatch.setattr(Sale, "score", short)
    async with auditing(driver, tmp_path, referees=(odd,)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "no_referee")


@in_module
async def test_without_the_noise_only_what_is_close_by_any_measure_passes(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, referee, *_ = court
    tells(referee, None, monkeypatch)
    scoring(referee, monkeypatch, falsely)
    async with auditing(driver, tmp_path, noise=0, referees=(referee,)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "no_noise")
    tells(referee, 100.0, monkeypatch)
    async with auditing(driver, tmp_path / "capped", noise=0, referees=(referee,)) as user:
        await answered(user)
        # What it says of the noise has a limit.
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "one_referee")


@in_module
@pytest.mark.parametrize(
    ("off", "found"), [(1200, ("undetermined", "backend")), (3000, ("failed", "other_model"))]
)
async def test_another_kind_of_hardware_condemns_nobody_for_what_it_may_explain(
    court: tuple[Real, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    off: int,
    found: tuple[str, str],
) -> None:
    driver, *others = court
    telling(monkeypatch, lambda told: replace(told, profile=told.profile.replace("/cpu/", "/cuda/")))
    for one in others:
        scoring(one, monkeypatch, lambda row: falsely(row, off))
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.by) == (*found, "referee")
        seen = user.drivers.audit_history.seen(user.id, driver.shop.model_id)
        assert len(seen.apart) == (verdict.state == "undetermined")
    async with auditing(driver, tmp_path / "one", referees=(others[0],)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "one_referee")


@in_module
async def test_another_text_than_that_of_the_tokens_is_caught_by_two(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    saying(monkeypatch, soap)
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why, verdict.by) == ("failed", "other_text", "referee")
        assert not verdict.proof and not user.published and len(user.readers) == 2
        assert "text" in user.drivers.audit_history.caught(user.id, driver.shop.model_id)
    async with auditing(driver, tmp_path / "one", referees=(others[0],)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "one_referee")
        assert not user.drivers.audit_history.caught(user.id, driver.shop.model_id)


@in_module
async def test_referees_of_before_compare_no_text_and_no_end(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    telling(monkeypatch, lambda told: Scoring(told.profile, told.noise))
    for number in range(2):
        async with auditing(driver, tmp_path / str(number), referees=tuple(others)) as user:
            await answered(user)
            verdict = await asked(user)
            assert (verdict.state, verdict.why, verdict.by) == ("passed", "", "referee")
        saying(monkeypatch, soap)


@in_module
async def test_another_version_may_write_a_token_otherwise(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    saying(monkeypatch, soap)
    telling(monkeypatch, lambda told: replace(told, profile="9" + told.profile))
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        for _ in range(3):
            await answered(user)
            verdict = await asked(user)
            assert (verdict.state, verdict.why, verdict.by) == ("undetermined", "other_text", "referee")
        # That of a referee excludes nobody.
        assert not user.drivers.audit_history.caught(user.id, driver.shop.model_id)


@in_module
async def test_two_that_find_different_lies_confirm_none(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    lies: list[Callable[[Scoring], Scoring]] = [
        lambda told: replace(told, text=bytes(32)),
        lambda told: replace(told, end=3),
    ]
    left = list(lies)
    telling(monkeypatch, lambda told: left.pop()(told) if left else told)
    async with auditing(driver, tmp_path, referees=tuple(others[:2])) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("undetermined", "disagree")
        left += lies[:1] * 2
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("failed", "other_text")
    left.extend(lies[1:] * 2)
    async with auditing(driver, tmp_path / "ends", referees=tuple(others)) as user:
        await answered(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("failed", "wrong_end") and verdict.ratio is not None


@in_module
async def test_an_answer_that_a_stop_string_ended_or_its_user_passes(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user, COLD)
        (answer,) = user.auditor._answers.values()
        text = answer.kept.text
        places = range(len(text) * 2 // 3, len(text))
        stop = next(text[at : at + 6] for at in places if text.count(text[at : at + 6]) == 1)
        await answered(user, replace(COLD, stop=("never said", stop)))
        (*_, answer) = user.auditor._answers.values()
        assert answer.kept.text and text.startswith(answer.kept.text + stop)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("passed", ""), verdict

        honest = Sale.piece

        async def held(self: Sale, *given: Any) -> None:
            """Nothing comes after 20 tokens, whatever is sampled meanwhile."""
            await honest(self, *given)
            if self._n_put > 20:
                await asyncio.sleep(30)

        monkeypatch.setattr(Sale, "piece", held)
        await stopped(user)
        (*_, answer) = user.auditor._answers.values()
        assert answer.receipt is not None and answer.receipt.outcome == "cancelled" and not answer.kept.finish
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("passed", ""), verdict
        saying(monkeypatch, soap)
        await stopped(user)
        verdict = await asked(user)
        assert (verdict.state, verdict.why) == ("failed", "other_text"), verdict


@in_module
async def test_the_caps_of_the_person_hold(court: tuple[Real, ...], tmp_path: Path) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        before = [orders(one) for one in others]
        user.purse.use(replace(user.settings, cap_request=0.000001, cap_chat=1.0))
        with pytest.raises(NodeError) as refused:
            await user.auditor.audit(user.place, referee=True)
        assert refused.value.code == "cap_request"
        user.purse.use(replace(user.settings, cap_chat=0.000001))
        with pytest.raises(NodeError) as refused:
            await user.auditor.audit(user.place, referee=True)
        assert refused.value.code == "cap_chat"
        assert [orders(one) for one in others] == before and not user.readers
        assert (await user.auditor.plan(user.place)).state == "referee"


@in_module
async def test_short_answers_are_shown_to_nobody(court: tuple[Real, ...], tmp_path: Path) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user, replace(WARM, max_tokens=8))
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and "too short" in plan.reason


@in_module
async def test_who_can_be_a_referee(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        honest = user.nodes

        async def count(change: Callable[[SeenNode], SeenNode], of_driver: Any = None) -> int:
            seen = [of_driver(honest()[0]) if of_driver else honest()[0]]
            seen += [change(honest()[1]), *honest()[2:]]
            with monkeypatch.context() as patched:
                patched.setattr(user, "nodes", lambda: seen)
                return (await user.auditor.plan(user.place)).referees

        assert await count(lambda node: node) == 3
        assert await count(lambda node: replace(node, status="busy")) == 2
        assert await count(offering(does=3)) == 2
        assert await count(offering(model_id=bytes(32))) == 2
        assert await count(offering(context=20)) == 2
        dear = PriceNow(0, 10**9, 10**9)
        assert await count(lambda node: replace(node, prices=(dear,))) == 2
        near, far = at("ws://9.9.8.9:7741"), at("ws://9.10.9.9:7741")

        def there(node: SeenNode) -> SeenNode:
            return replace(node, found_in="9.9.0.0/16")

        assert await count(near, there) == 2
        assert await count(far, there) == 3
        # Whatever the driver says of itself.
        assert await count(near, at("ws://9.9.9.9:7741")) == 3
        # Nor are two asked that probably have the same owner: as the next one, or behind it.
        (other,) = honest()[2].addresses
        assert await count(at(other), there) == 2
        relayed = replace(honest()[1], addresses=(), relays=(honest()[2].id,))
        assert await count(lambda node: relayed) == 2
        assert await count(lambda node: replace(relayed, relays=(honest()[0].id,))) == 2
        # All of whom nothing is known may have one owner.
        local = "ws://192.168.1.2:7741"
        assert await count(at(local)) == 3
        assert await count(at(local), lambda node: replace(node, found_in="")) == 2
        await user.drivers.open(user.store)
        await user.drivers.mark(others[0].shop.node.id, "blocked")
        assert await count(lambda node: node) == 2
        user.shops = user.shops[:1]
        plan = await user.auditor.plan(user.place)
        assert plan.state == "none" and plan.remedy
        with pytest.raises(NodeError):
            await user.auditor.audit(user.place, referee=True)


def offering(**changed: Any) -> Callable[[SeenNode], SeenNode]:
    return lambda node: replace(node, models=(replace(node.models[0], **changed),))


def at(address: str) -> Callable[[SeenNode], SeenNode]:
    return lambda node: replace(node, addresses=(address,))


@in_module
async def test_of_whom_only_its_card_says_that_it_is_near_a_dial_tells(
    court: tuple[Real, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        honest = user.nodes

        def at_home() -> list[SeenNode]:
            """All name addresses of this private network; the last one is reached elsewhere."""
            return [
                replace(
                    node,
                    addresses=(f"ws://192.168.1.{number}:7741",),
                    near=number < 3 and node.id in user.links,
                    found_in="",
                )
                for number, node in enumerate(honest())
            ]

        monkeypatch.setattr(user, "nodes", at_home)
        await answered(user)
        await until(lambda: len(user.links) == 4)
        assert (await user.auditor.plan(user.place)).referees == 2
        # Not again with each answer.
        user.links.pop(others[2].shop.node.id)
        await answered(user)
        await until(lambda: not user.auditor._tasks._tasks)
        assert len(user.links) == 3


@in_module
async def test_chance_decides_who_is_asked(court: tuple[Real, ...], tmp_path: Path) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        (answer,) = user.auditor._answers.values()
        assert answer.receipt is not None and user.auditor._referees is not None
        available, avoided = user.auditor._referees.available, {user.id}

        receipt = answer.receipt

        def first(secret: bytes) -> bytes:
            found = available(replace(answer.kept, secret=secret), receipt, avoided)
            assert found == available(replace(answer.kept, secret=secret), receipt, avoided)
            return found[0].node.id

        firsts = [first(bytes([n]) * 32) for n in range(90)]
        assert all(firsts.count(one.shop.node.id) > 10 for one in others)
        await until(lambda: user.verdicts)


@in_module
async def test_what_a_long_answer_costs_is_known_without_making_it(
    court: tuple[Real, ...], tmp_path: Path
) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, referees=tuple(others)) as user:
        await answered(user)
        (answer,), judges = user.auditor._answers.values(), user.auditor._referees
        receipt = answer.receipt
        assert receipt is not None and receipt.transcript is not None and judges is not None
        offers = judges.available(answer.kept, receipt, {user.id})
        whole = judges.cost(answer.kept, receipt, offers)
        one = replace(receipt, transcript=replace(receipt.transcript, steps=1))
        assert 0 < judges.cost(answer.kept, one, offers).most < whole.most
        huge = replace(receipt, transcript=replace(receipt.transcript, steps=2**63))
        # No more than they can read.
        assert whole.most < judges.cost(answer.kept, huge, offers).most < 10**6
        await until(lambda: user.verdicts)


@in_module
async def test_who_asks_twice_pays_for_one_audit(court: tuple[Real, ...], tmp_path: Path) -> None:
    driver, *others = court
    async with auditing(driver, tmp_path, noise=0, referees=tuple(others)) as user:
        await answered(user)
        before, told = sum(map(orders, others)), len(user.verdicts)
        twice = (user.auditor.audit(user.place, referee=True) for _ in range(2))
        (refused,) = filter(None, await asyncio.gather(*twice, return_exceptions=True))
        assert isinstance(refused, NodeError) and refused.code == "not_audited"
        assert (await user.ended(told)).state == "passed"
        assert sum(map(orders, others)) == before + 1
        assert [one.state for one in user.verdicts].count("checking") == 1
