"""How answers are played: what is stored before a prompt leaves, who wrote what, what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from infraxa.app.answering import Billed, Item, Moved, Sent, Times, Waits
from infraxa.app.answers import Answers, Prepared
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerMoved,
    AnswerStarted,
    AnswerWaits,
    Event,
    FactsChanged,
    LogLine,
)
from infraxa.engine.types import Delta, ErrorInfo, Finished, Progress, Usage
from infraxa.store import chats, messages, turns
from infraxa.store.db import Connection, Store, connect
from infraxa.store.records import AnswerFacts, Bill, DriverPart, Message, Reader, StoreError, Verdict

MAPLE, BIRCH = DriverPart("aaaa", "maple", "m7"), DriverPart("bbbb", "birch", "b3")
STOP = Finished("stop", Usage(n_prompt=5, n_out=3, first_token_ms=10.0, decode_ms=4.0))
FAILED = Finished("failed", Usage(), ErrorInfo("gone", "maple is gone.", "Try again."))

BillState = Literal["open", "due", "signed", "disputed", "unclaimed", "released"]
Step = Item | Callable[[], Awaitable[None]]


def at(part: DriverPart, place: int) -> DriverPart:
    return msgspec.structs.replace(part, at=place)


def because(part: DriverPart, reason: str) -> DriverPart:
    return msgspec.structs.replace(part, reason=reason)


def sent(part: DriverPart) -> Sent:
    return Sent(Reader(part.id, part.name))


class Scripted:
    """A Source of these steps; one that is no item happens when the item after it is asked for."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self._over = False
        self.cancelled = asyncio.Event()

    def __aiter__(self) -> Scripted:
        return self

    async def __anext__(self) -> Item:
        if self._over:
            raise StopAsyncIteration
        while self._steps and not self.cancelled.is_set():
            step = self._steps.pop(0)
            if callable(step):
                doing, stopping = asyncio.ensure_future(step()), asyncio.ensure_future(self.cancelled.wait())
                await asyncio.wait((doing, stopping), return_when="FIRST_COMPLETED")
                for task in (doing, stopping):
                    task.cancel()
                if doing.done() and not doing.cancelled():
                    doing.result()
                continue
            self._over = isinstance(step, Finished)
            return step
        self._over = True
        return Finished("cancelled", Usage())

    def cancel(self) -> None:
        self.cancelled.set()


class Desk:
    """A chat with a question, in a real store."""

    def __init__(self, store: Store, chat_id: str) -> None:
        self.store = store
        self.chat_id = chat_id
        self.events: list[Event] = []
        self.ended = asyncio.Event()
        self.answers = Answers(store, self._take)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, AnswerEnded):
            self.ended.set()

    async def play(self, source: Scripted, model: str = "", resumed: Message | None = None) -> Message:
        """The answer, when it has ended."""
        await self.begin(source, model, resumed)
        async with asyncio.timeout(20):
            await self.ended.wait()
        ended = self.events[-1]
        assert isinstance(ended, AnswerEnded)
        assert ended.message == await self.store.run(messages.get_message, ended.message.id)
        return ended.message

    async def begin(self, source: Scripted, model: str = "", resumed: Message | None = None) -> str:
        @contextlib.asynccontextmanager
        async def prepare() -> AsyncIterator[Prepared]:
            yield Prepared(lambda: source, model)

        self.ended.clear()
        with self.answers.reserved(self.chat_id) as run:
            if resumed is None:
                begun = await self.store.run(turns.ask, self.chat_id, "Why?", AnswerFacts(model=model))
            else:
                begun = await self.store.run(turns.resume, resumed.id)
            self.answers.start(run, begun.answer, prepare, resumed)
        return begun.answer.id

    def told(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kinds)]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with await Store.open(tmp_path) as store:
        desk = Desk(store, (await store.run(chats.create_chat)).id)
        yield desk
        await desk.answers.stop_all()


def facts_of(message: Message) -> AnswerFacts:
    assert message.facts is not None
    return message.facts


async def test_who_answered_and_who_could_read_it_is_kept(desk: Desk) -> None:
    waits = Waits("maple to answer", 1, 15.0)
    answer = await desk.play(
        Scripted(
            waits,
            sent(MAPLE),
            Progress(1, 2),
            Moved(MAPLE),
            Delta("The ", (1,)),
            Delta("bl", (2,)),
            sent(BIRCH),
            Moved(because(at(BIRCH, 6), "maple is gone.")),
            Delta("ue", (3,)),
            Times(3.5, 20.0, "peer", 2),
            STOP,
        )
    )
    facts = facts_of(answer)
    assert (answer.content, answer.state) == ("The blue", "complete")
    assert facts.drivers == (MAPLE, because(at(BIRCH, 6), "maple is gone."))
    assert facts.readers == (Reader("aaaa", "maple"), Reader("bbbb", "birch"))
    assert (facts.model, facts.n_out, facts.first_token_ms) == ("b3", 3, 10.0)
    assert (facts.connect_ms, facts.wait_ms, facts.blame, facts.dropped_turns) == (3.5, 20.0, "peer", 2)
    assert desk.told(AnswerWaits) == [AnswerWaits(desk.chat_id, answer.id, waits)]
    assert desk.told(AnswerMoved, AnswerGrew)[0] == AnswerMoved(desk.chat_id, answer.id, MAPLE)
    assert desk.told(AnswerMoved)[1] == AnswerMoved(
        desk.chat_id, answer.id, because(at(BIRCH, 6), "maple is gone.")
    )


async def test_a_reader_is_on_disk_before_the_prompt_leaves(desk: Desk, tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    async def look() -> None:
        # As another process would find it after this one was killed now.
        conn = connect(tmp_path)
        (answer,) = [turn.message for turn in messages.shown_branch(conn, desk.chat_id)][1:]
        seen.append(tuple(reader.name for reader in facts_of(answer).readers))
        conn.close()

    await desk.play(
        Scripted(look, sent(MAPLE), look, Moved(MAPLE), Delta("a", (1,)), sent(BIRCH), look, STOP)
    )
    assert seen == [(), ("maple",), ("maple", "birch")]


async def test_a_prompt_whose_reader_cannot_be_stored_does_not_leave(desk: Desk) -> None:
    left = False

    async def leave() -> None:
        nonlocal left
        left = True

    async def full() -> None:
        await desk.store.run(_break_facts)

    source = Scripted(full, sent(MAPLE), leave, Moved(MAPLE), Delta("a", (1,)), STOP)
    answer = await desk.play(source)
    assert (answer.state, left, source.cancelled.is_set()) == ("failed", False, True)
    assert answer.error and not answer.content


def _break_facts(conn: Connection) -> None:
    conn.execute(
        "CREATE TEMP TRIGGER broken BEFORE UPDATE OF facts ON messages "
        "WHEN new.state = 'streaming' BEGIN SELECT RAISE(ABORT, 'broken'); END"
    )


async def test_after_a_crash_the_parts_are_at_their_places(desk: Desk, tmp_path: Path) -> None:
    async def killed() -> None:
        conn = connect(tmp_path)
        (answer,) = [turn.message for turn in messages.shown_branch(conn, desk.chat_id)][1:]
        conn.close()
        assert answer.content == "The bl"
        assert facts_of(answer).drivers == (MAPLE, because(at(BIRCH, 6), "gone"))
        assert facts_of(answer).model == "b3"

    answer = await desk.play(
        Scripted(
            Moved(MAPLE),
            Delta("The bl", (1,)),
            Moved(because(at(BIRCH, 6), "gone")),
            killed,
            Delta("ue", (2,)),
            STOP,
        )
    )
    assert (answer.content, answer.state) == ("The blue", "complete")


async def test_a_driver_that_wrote_nothing_has_no_part(desk: Desk) -> None:
    answer = await desk.play(
        Scripted(Moved(MAPLE), Delta("", (1,)), Moved(because(BIRCH, "gone")), Delta("a", (2,)), STOP)
    )
    assert facts_of(answer).drivers == (because(BIRCH, "gone"),)


async def test_drivers_and_this_machine_go_on_with_one_another(desk: Desk) -> None:
    first = await desk.play(Scripted(Delta("one ", (1,)), STOP), "guide")
    assert facts_of(first).drivers == () and desk.told(AnswerMoved) == []
    cut = Finished("cancelled", Usage(n_out=1))
    second = await desk.play(
        Scripted(sent(MAPLE), Moved(MAPLE), Delta("two ", (2,)), Times(1.0, 2.0, "peer"), cut), "", first
    )
    here = DriverPart(model="guide")
    assert facts_of(second).drivers == (here, at(MAPLE, 4))
    third = await desk.play(Scripted(sent(MAPLE), Moved(MAPLE), Delta("more ", (2,)), cut), "", second)
    assert facts_of(third).drivers == (here, at(MAPLE, 4)), "the same goes on"
    fourth = await desk.play(Scripted(Delta("four ", (3,)), STOP), "guide", third)
    assert (facts_of(fourth).connect_ms, facts_of(fourth).wait_ms, facts_of(fourth).blame) == (None, None, "")
    assert facts_of(fourth).drivers == (here, at(MAPLE, 4), at(here, 13))
    fifth = await desk.play(Scripted(sent(BIRCH), Moved(BIRCH), Delta("five", (3,)), STOP), "", fourth)
    facts = facts_of(fifth)
    assert fifth.content == "one two more four five"
    assert facts.drivers == (here, at(MAPLE, 4), at(here, 13), at(BIRCH, 18))
    assert facts.readers == (Reader("aaaa", "maple"), Reader("bbbb", "birch"))
    assert [event.part.at for event in desk.events if isinstance(event, AnswerMoved)] == [4, 13, 18]


async def test_going_on_in_vain_keeps_the_answer_and_tells_who_read_it(desk: Desk) -> None:
    before = await desk.play(Scripted(Delta("one", (1,)), STOP), "guide")
    after = await desk.play(Scripted(sent(MAPLE), FAILED), "", before)
    assert (after.content, after.state, after.error) == ("one", "complete", "maple is gone. Try again.")
    assert facts_of(after) == msgspec.structs.replace(facts_of(before), readers=(Reader("aaaa", "maple"),))


async def test_somebody_who_comes_in_mid_answer_is_told_all_of_it(desk: Desk) -> None:
    reached = asyncio.Event()

    async def pause() -> None:
        reached.set()
        await asyncio.sleep(20)

    more = Waits("more from birch", 5, 15.0)
    before = await desk.play(Scripted(Delta("Well: ", (1,)), STOP), "guide")
    desk.events.clear()
    await desk.begin(
        Scripted(
            sent(MAPLE), Moved(MAPLE), Delta("a", (1,)), sent(BIRCH), Moved(because(at(BIRCH, 1), "gone")),
            Delta("b", (1,)), more, pause,
        ),
        "", before,
    )  # fmt: skip
    async with asyncio.timeout(20):
        await reached.wait()
    started, *rest = desk.answers.present()
    assert isinstance(started, AnswerStarted) and started.message.content == "Well: "
    assert facts_of(started.message).readers == (Reader("aaaa", "maple"), Reader("bbbb", "birch"))
    assert facts_of(started.message).drivers == ()
    answer = before.id
    assert rest == [
        AnswerMoved(desk.chat_id, answer, at(MAPLE, 6)),
        AnswerMoved(desk.chat_id, answer, because(at(BIRCH, 7), "gone")),
        AnswerGrew(desk.chat_id, answer, "ab", 2),
        AnswerWaits(desk.chat_id, answer, more),
    ]
    async with asyncio.timeout(20):
        await desk.answers.stop(desk.chat_id)
    ended = desk.events[-1]
    assert isinstance(ended, AnswerEnded)
    assert (ended.message.content, ended.message.state) == ("Well: ab", "stopped")


async def test_what_was_waited_for_is_over_when_something_comes(desk: Desk) -> None:
    for last in (Progress(1, 2), Delta("a", (1,))):
        reached = asyncio.Event()

        async def pause(reached: asyncio.Event = reached) -> None:
            reached.set()
            await asyncio.sleep(20)

        await desk.begin(Scripted(Waits("maple", 1, 1.0), last, pause))
        async with asyncio.timeout(20):
            await reached.wait()
            assert not [event for event in desk.answers.present() if isinstance(event, AnswerWaits)]
            await desk.answers.stop(desk.chat_id)


def bill(state: BillState, charge: int = 0, order: str = "01") -> Bill:
    return Bill(order, "aaaa", charge=charge, state=state)


async def test_what_an_answer_costs_is_kept_with_it(desk: Desk, tmp_path: Path) -> None:
    async def reserved() -> None:
        with contextlib.closing(connect(tmp_path)) as other:
            (message,) = [turn.message for turn in messages.shown_branch(other, desk.chat_id)][-1:]
        assert facts_of(message).bills == (bill("open"),), "before the prompt leaves"

    steps = (Billed((bill("open"),)), sent(MAPLE), reserved, Moved(MAPLE), Delta("one", (1,)))
    ended = await desk.play(Scripted(*steps, Billed((bill("due", 7),)), STOP))
    assert facts_of(ended).bills == (bill("due", 7),)


async def test_what_is_known_of_it_after_its_end_is_kept_and_told(desk: Desk) -> None:
    ended = await desk.play(Scripted(Moved(MAPLE), Delta("one", (1,)), Billed((bill("due", 9),)), STOP))
    desk.answers.billed(desk.chat_id, ended.id, bill("signed", 7))
    await _facts_changed(desk, 1)
    desk.answers.billed(desk.chat_id, ended.id, bill("due", 9))
    desk.answers.billed(desk.chat_id, ended.id, bill("released", order="02"))
    told = await _facts_changed(desk, 3)
    assert told[-1].facts.bills == (bill("signed", 7), bill("released", order="02")), "no step back"
    kept = await desk.store.run(messages.get_message, ended.id)
    assert kept.facts == told[-1].facts and (kept.content, kept.state) == (ended.content, ended.state)
    assert told[-1].message_id == ended.id and told[-1].chat_id == desk.chat_id


async def test_a_bill_that_comes_while_the_end_is_stored_is_not_lost(desk: Desk) -> None:
    answer = ""

    async def paid() -> None:
        desk.answers.billed(desk.chat_id, answer, bill("signed", 7))

    source = Scripted(Moved(MAPLE), Delta("one", (1,)), paid, STOP)
    answer = await desk.begin(source)
    await desk.ended.wait()
    desk.answers.billed(desk.chat_id, answer, bill("signed", 8, "02"))
    await _facts_changed(desk, 1)
    kept = facts_of(await desk.store.run(messages.get_message, answer))
    assert kept.bills == (bill("signed", 7), bill("signed", 8, "02"))


async def test_who_read_it_after_its_end_is_kept_and_told(desk: Desk) -> None:
    ended = await desk.play(Scripted(sent(MAPLE), Moved(MAPLE), Delta("one", (1,)), STOP))
    before = facts_of(ended).readers
    for _ in range(2):
        await desk.answers.read_by(desk.chat_id, ended.id, Reader("oak's id", "oak"))
    kept = await desk.store.run(messages.get_message, ended.id)
    assert facts_of(kept).readers == (*before, Reader("oak's id", "oak"))
    assert [event.facts for event in await _facts_changed(desk, 2)] == [kept.facts] * 2
    with pytest.raises(StoreError):
        await desk.answers.read_by(desk.chat_id, "nobody", Reader("oak's id", "oak"))


async def test_going_on_in_vain_costs_what_it_costs(desk: Desk) -> None:
    before = await desk.play(Scripted(Delta("one", (1,)), STOP), "guide")
    after = await desk.play(Scripted(sent(MAPLE), Billed((bill("due", 3),)), FAILED), "", before)
    assert facts_of(after).bills == (bill("due", 3),) and after.state == "complete"


async def test_a_bill_of_an_answer_that_is_gone_breaks_nothing(desk: Desk) -> None:
    desk.answers.billed(desk.chat_id, "nobody", bill("signed"))
    ended = await desk.play(Scripted(Delta("one", (1,)), STOP), "guide")
    desk.answers.billed(desk.chat_id, ended.id, bill("signed"))
    (told,) = await _facts_changed(desk, 1)
    assert told.message_id == ended.id and not desk.told(LogLine)


def verdict(state: str, order: str = "01") -> Verdict:
    return msgspec.convert({"order": order, "driver": "d", "state": state}, Verdict)


def states(facts: AnswerFacts | None) -> list[str]:
    return [] if facts is None else [one.state for one in facts.verdicts]


async def test_an_audit_that_runs_is_told_with_all_that_changes_and_is_not_stored(desk: Desk) -> None:
    ended = await desk.play(Scripted(Moved(MAPLE), Delta("one", (1,)), STOP))
    place = desk.chat_id, ended.id
    desk.answers.judged(*place, verdict("signed"))
    desk.answers.judged(*place, verdict("checking"))
    assert states((await _facts_changed(desk, 2))[-1].facts) == ["checking"]
    desk.answers.billed(*place, bill("signed", 7))
    await _facts_changed(desk, 3)
    await desk.answers.read_by(*place, Reader("oak's id", "oak"))
    desk.answers.judged(*place, verdict("passed", "02"))
    told = await _facts_changed(desk, 5)
    assert [states(one.facts) for one in told[2:]] == [["checking"], ["checking"], ["checking", "passed"]]
    kept = await desk.store.run(messages.get_message, ended.id)
    assert states(kept.facts) == ["signed", "passed"]
    assert states(desk.answers.as_known(kept).facts) == ["checking", "passed"]
    desk.answers.judged(*place, verdict("undetermined"))
    assert states((await _facts_changed(desk, 6))[-1].facts) == ["undetermined", "passed"]
    kept = await desk.store.run(messages.get_message, ended.id)
    assert desk.answers.as_known(kept) == kept and states(kept.facts) == ["undetermined", "passed"]


async def test_an_audit_that_begins_before_another_one_is_stored_is_told(desk: Desk) -> None:
    ended = await desk.play(Scripted(Moved(MAPLE), Delta("one", (1,)), STOP))
    for state in ("checking", "undetermined", "checking"):
        desk.answers.judged(desk.chat_id, ended.id, verdict(state))
    assert states((await _facts_changed(desk, 3))[-1].facts) == ["checking"]
    kept = await desk.store.run(messages.get_message, ended.id)
    assert states(kept.facts) == ["undetermined"]


async def test_an_audit_of_an_answer_that_still_grows_is_told_with_its_end(desk: Desk) -> None:
    answer = ""

    async def audited() -> None:
        desk.answers.judged(desk.chat_id, answer, verdict("checking"))
        desk.answers.judged(desk.chat_id, answer, verdict("checking", "02"))
        desk.answers.judged(desk.chat_id, answer, verdict("passed"))

    answer = await desk.begin(Scripted(Moved(MAPLE), Delta("one", (1,)), audited, STOP))
    await desk.ended.wait()
    (told,) = desk.told(AnswerEnded)
    assert isinstance(told, AnswerEnded) and states(told.message.facts) == ["passed", "checking"]
    assert states((await desk.store.run(messages.get_message, answer)).facts) == ["passed"]


async def _facts_changed(desk: Desk, count: int) -> list[FactsChanged]:
    """What was told, when it is so much."""
    for _ in range(1000):
        if len(desk.told(FactsChanged)) >= count:
            break
        await asyncio.sleep(0.01)
    return [event for event in desk.events if isinstance(event, FactsChanged)]
