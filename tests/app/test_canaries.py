"""Questions that nobody asked: when they are sent, what their driver sees of them, what they cost, and that
the person never waits for one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from infraxa.app import canary_rules
from infraxa.app.canaries import Canaries
from infraxa.app.canary_rules import Habits
from infraxa.app.config import Settings
from infraxa.app.wanted import Wanted
from infraxa.app.watch import Bought
from infraxa.engine.types import ChatMessage, Request, Sampling, Tool
from infraxa.net import wire
from infraxa.net.identity import id_text
from infraxa.net.market import Rates
from infraxa.net.orders import Done
from infraxa.net.prompts import Prompt
from infraxa.net.sale import Sale
from infraxa.store import buying, ledger
from infraxa.store.trade_records import OrderRow
from tests.app.canaried import soon
from tests.app.purses import Place, Shop, buying_at
from tests.app.stalls import Script, ids, say, saying, told
from tests.net.nodes import until

ON = Settings()


class Verified(Canaries):
    """It takes all answers for such as can be checked."""

    def ended(self, bought: Bought | None) -> None:
        super().ended(None if bought is None else bought._replace(verified=True))


class Quick:
    """How canaries of this test are sent, and what their drivers were told."""

    def __init__(self, place: Place, *, here: bool = False, judged: bool = True) -> None:
        self.here, self.judged = here, judged

        async def copy(model: bytes) -> object | None:
            return "a file" if self.here else None

        self.canaries = Verified(
            place.buyer,
            place.purse,
            place.drivers.audit_history,
            lambda: place.drivers.offers(place.nodes()),
            copy,
            lambda model, tokens, avoided: self.judged,
            rng=random.Random(1),
        )
        self.canaries.use(ON)
        self.place = place

    async def over(self) -> None:
        """None is on its way."""
        await until(lambda: self.canaries._task is None, 30)
        await self.place.idle()

    async def sent(self) -> list[OrderRow]:
        """The canaries, in the ledger, the oldest first."""
        await self.over()
        return [order for order in await self.place.orders() if order.canary]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


@asynccontextmanager
async def sending(
    folder: Path, *shops: Shop, here: bool = False, judged: bool = True
) -> AsyncIterator[Quick]:
    async with buying_at(folder, *shops) as place:
        quick = Quick(place, here=here, judged=judged)
        try:
            yield quick
        finally:
            await quick.canaries.close()


def noting(prompts: list[Prompt], *texts: str) -> Script:
    """Says one after the other, the last one again and again, and notes what it was asked."""
    left = list(texts)

    async def script(sale: Sale) -> None:
        prompts.append(await sale.claim(4096, 1000))
        await say(sale, left.pop(0) if len(left) > 1 else left[0], prompt=prompts[-1])

    return script


async def test_its_driver_sees_an_order_like_the_persons(tmp_path: Path) -> None:
    prompts: list[Prompt] = []
    maple = Shop("maple", noting(prompts, "An answer."))
    sampling = Sampling(temperature=0.4, top_k=7, max_tokens=120, stop=("END",))
    async with sending(tmp_path, maple) as quick:
        answer = await quick.place.chat(maple, sampling=sampling)
        assert answer.text == "An answer."
        (order,) = await quick.sent()
        mine, made = maple.orders
        assert replace(made, id=mine.id, quote=mine.quote, prompt_bytes=0, hold=0) == replace(
            mine, prompt_bytes=0, hold=0
        )
        # It costs what its text and `max_tokens` may cost, as the other one does.
        for order_, prompt in zip(maple.orders, prompts, strict=True):
            chars = sum(len(turn.text.encode()) + 16 for turn in prompt.turns)
            assert order_.hold == chars * 5 + 120 * 20
        said, other = (prompt.turns for prompt in prompts)
        assert [turn.role for turn in other] == [turn.role for turn in said]
        assert other[0].text != said[0].text and prompts[0].stop == prompts[1].stop
        # Asked for in the same way, paid in the same way, by the same account over the same link; after it
        # there is a price for the next message, for which nobody looks here after the other one.
        await until(lambda: [type(one) for one in maple.asked].count(wire.QuotePlease) == 3, 10)
        kinds = [type(one).__name__ for one in maple.asked]
        assert kinds[:4] == ["QuotePlease", "ReceiptPlease", "CountersignPlease", "QuotePlease"]
        assert sorted(kinds[4:]) == ["CountersignPlease", "QuotePlease", "ReceiptPlease"]
        assert {one.receipt.signer for one in maple.sold.values() if one.receipt} == {maple.id}
        assert len(quick.place.links) == 1
        # And the person sees nothing of it but in the books.
        assert {bill[:2] for bill in quick.place.bills} == {("chat", "message")}
        assert len({bill.order for *_, bill in quick.place.bills}) == 1
        assert (order.chat_id, order.message_id, order.called) == (None, None, False)
        assert order.accepted and order.bill == "closed"
        spent = await quick.place.store.run(buying.spent_on_canaries, 0)
        assert (spent.spent, spent.held) == (order.accepted, 0)


async def test_it_goes_on_with_what_its_driver_said(tmp_path: Path) -> None:
    prompts: list[Prompt] = []
    maple = Shop("maple", noting(prompts, "one", "two", "three", "four", "five", "six"))
    said = (
        ChatMessage("system", "Be kind to everybody who asks you anything at all."),
        ChatMessage("user", "Hello there, how is it?"),
        ChatMessage("assistant", "Good."),
        ChatMessage("user", "What did you say?"),
    )
    async with sending(tmp_path, maple) as quick:
        for number in (2, 4):
            await told(quick.place.buy(maple, said, chat_id="chat", message_id="message"))
            assert len(await quick.sent()) == number
    made = [prompt.turns for at, prompt in enumerate(prompts) if at % 3]
    # One has as many turns as the person's, after one answer of the person; then another one begins.
    assert [len(turns) for turns in made] == [2, 4, 2, 4]
    assert made[1][:3] == (*made[0], type(made[0][0])("assistant", "two"))
    # Somebody has one system prompt for long, and it is not the person's.
    assert made[0][0] == made[1][0] == made[2][0] and made[0][0].role == "system"
    assert made[0][0].text != said[0].content
    assert len({turns[-1].text for turns in made}) == 4


async def test_a_program_s_calls_are_imitated_too(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Yes."))
    async with sending(tmp_path, maple) as quick:
        request = Request((ChatMessage("user", "Is it?"),), Sampling(min_p=0.2))
        await told(quick.place.buyer.call(request, Wanted(id_text(maple.id))))
        (order,) = await quick.sent()
        mine, made = maple.orders
        assert made.min_p == mine.min_p == 200_000
        # It is no call of a program: those have a cap of their own.
        assert not order.called
        # And as there, nobody looks at the price of a next one.
        await asyncio.sleep(0.1)
        assert [type(one) for one in maple.asked].count(wire.QuotePlease) == 2


@pytest.mark.parametrize("called", [False, True])
async def test_its_hold_is_what_such_an_order_can_have(tmp_path: Path, called: bool) -> None:
    maple = Shop("maple", saying("Yes."))
    async with sending(tmp_path, maple) as quick:
        place = quick.place
        place.purse.use(replace(place.settings, cap_chat=0.015, cap_api=0.017))
        (offer,) = place.drivers.offers(place.nodes())
        # Without `max_tokens` it may cost more than 20 000.
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, called))
        assert await quick.sent()
        assert maple.orders[0].hold == (17_000 if called else 15_000)


@pytest.mark.parametrize(
    "why",
    ["off", "audit", "verify", "here", "nobody judges", "blocked", "free", "small cap", "used up", "tools"],
)
async def test_where_none_is_sent(tmp_path: Path, why: str) -> None:
    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple, here=why == "here", judged=why != "nobody judges") as quick:
        place = quick.place
        plain = Request((ChatMessage("user", "Hello"),))
        request, used = plain, bytes(16)
        match why:
            case "off":
                quick.canaries.use(replace(ON, canaries=False))
            case "audit":
                quick.canaries.use(replace(ON, audit="off"))
            case "verify":
                quick.canaries.use(replace(ON, verify="none"))
            case "blocked":
                await place.drivers.open(place.store)
                await place.drivers.mark(maple.id, "blocked")
            case "free":
                maple.free_daily = 3
                place.purse.use(replace(place.settings, cap_request=0.0))
            case "small cap":
                place.purse.use(replace(place.settings, cap_day=0.1, cap_request=0.01))
            case "used up":
                row = OrderRow(peer=maple.id, id=used, model=bytes(32), hold=60_000, canary=True, held=60_000)
                assert await place.store.run(buying.open_hold, row, place.purse.caps()) is None
            case "tools":
                request = replace(plain, tools=(Tool("look"),))
        (offer,) = place.drivers.offers(place.nodes())
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, request, True, False))
        await quick.over()
        assert not maple.orders and not maple.asked
        # And one is where there is no such reason.
        quick.canaries.use(ON)
        quick.here, quick.judged, maple.free_daily = False, True, 0
        place.purse.use(place.settings)
        if why == "blocked":
            await place.drivers.mark(maple.id, "")
        assert await place.store.run(buying.release, maple.id, used) == (why == "used up")
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, plain, True, False))
        await quick.over()
        assert len(maple.orders) == 1


async def test_an_answer_that_cannot_be_checked_is_followed_by_none(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple) as quick:
        (offer,) = quick.place.drivers.offers(quick.place.nodes())
        request = Request((ChatMessage("user", "Hello"),))
        for bought in (None, Bought(offer, request, False, False)):
            quick.canaries.began()
            Canaries.ended(quick.canaries, bought)
            await quick.over()
        assert not maple.orders


async def test_it_is_put_off_when_the_person_asks_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[Prompt] = []
    maple = Shop("maple", noting(prompts, "Hello."))
    monkeypatch.setattr(Habits, "delay_s", lambda self, rng: 0.05 if len(prompts) == 3 else 30.0)
    async with sending(tmp_path, maple) as quick:
        for _ in range(2):
            await quick.place.chat(maple)
            assert quick.canaries._task is not None
        # Where one is owed, no chance decides.
        monkeypatch.setattr(canary_rules, "AFTER", 0.0)
        await quick.place.chat(maple)
        assert len(await quick.sent()) == 1
        assert [prompt.turns[0].text == prompts[0].turns[0].text for prompt in prompts] == [True] * 3 + [
            False
        ]
        await quick.place.chat(maple)
        await quick.over()
        assert len(prompts) == 5


class Slow:
    """A driver that answers the person at once, and canaries when it is told to."""

    def __init__(self, *, in_line: bool = False) -> None:
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.orders = 0
        self.in_line = in_line

    async def __call__(self, sale: Sale) -> None:
        self.orders += 1
        if self.orders == 2:
            prompt = await sale.claim(4096, 1000)
            await sale.piece("Some", ids("Some"))
            self.began.set()
            try:
                await self.go.wait()
            finally:
                self.go.set()  # its place is free
            await sale.piece(" more", ids(" more"))
            n_prompt = sum(len(turn.text) for turn in prompt.turns)
            await sale.done(Done("stop", n_prompt, 0, len("Some more"), 0, 0, 0))
            return
        if self.orders == 3 and self.in_line:
            await sale.placed(1)
            await self.go.wait()  # until its place is free
        await say(sale, "Hello.")


async def while_one_runs(quick: Quick, maple: Shop, script: Slow) -> str:
    """Ask for something; the person's answer."""
    await quick.place.chat(maple)
    async with asyncio.timeout(30):
        await script.began.wait()
        answer = await quick.place.chat(maple)
    return answer.text


async def test_a_real_answer_goes_on_beside_it_where_there_is_room(tmp_path: Path) -> None:
    script = Slow()
    maple = Shop("maple", script)
    async with sending(tmp_path, maple) as quick:
        assert await while_one_runs(quick, maple, script) == "Hello."
        assert quick.canaries._buying is not None
        quick.canaries.use(ON)
        script.go.set()
        (first, *_) = await quick.sent()
        assert first.outcome == "stop"


async def test_its_conversation_goes_on_when_the_persons_answer_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[Prompt] = []
    began, done = asyncio.Event(), [asyncio.Event() for _ in range(2)]

    async def script(sale: Sale) -> None:
        prompts.append(await sale.claim(4096, 1000))
        if len(prompts) in (2, 3):
            began.set()
            await done[len(prompts) - 2].wait()
        await say(sale, "Well.", prompt=prompts[-1])

    maple = Shop("maple", script)
    said = (ChatMessage("user", "A?"), ChatMessage("assistant", "B."), ChatMessage("user", "C?"))
    async with sending(tmp_path, maple) as quick:
        place = quick.place
        await told(place.buy(maple, said, chat_id="chat", message_id="message"))
        await began.wait()
        # From here on no chance decides.
        monkeypatch.setattr(canary_rules, "AFTER", 0.0)
        asked = asyncio.ensure_future(place.chat(maple))
        await until(lambda: len(prompts) == 3, 10)
        done[0].set()
        await until(lambda: quick.canaries._task is None, 10)
        assert len(prompts) == 3
        done[1].set()
        assert (await asked).text == "Well."
        assert len(await quick.sent()) == 2
    assert [turn.text for turn in prompts[3].turns[:2]] == [prompts[1].turns[0].text, "Well."]


@pytest.mark.parametrize("reason", ["one slot", "in line"])
async def test_it_is_given_up_when_the_person_would_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    script = Slow(in_line=reason == "in line")
    maple = Shop("maple", script)
    seen = maple.as_seen
    if reason == "one slot":
        monkeypatch.setattr(maple, "as_seen", lambda: replace(seen(), slots=1))
    async with sending(tmp_path, maple) as quick:
        assert await while_one_runs(quick, maple, script) == "Hello."
        canaries = await quick.sent()
        assert canaries[0].outcome == "cancelled" and canaries[0].bill in ("closed", "released")
        spent = await quick.place.store.run(buying.spent_on_canaries, 0)
        assert spent.held == 0
        # What came of it is not gone on with.
        assert all("Some" not in one.content for talk in quick.canaries._talks.values() for one in talk.said)


async def test_it_is_stopped_before_it_costs_more_than_is_reserved(tmp_path: Path) -> None:
    async def endless(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        while True:
            await sale.piece("a" * 10, ids("a" * 10))
            await asyncio.sleep(0.005)

    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple) as quick:
        (offer,) = quick.place.drivers.offers(quick.place.nodes())
        maple.script = endless
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, False))
        (order,) = await quick.sent()
        share = canary_rules.share(2_000_000)
        assert maple.orders[0].hold > share // 3 and order.outcome == "cancelled"
        assert order.accepted is not None and 0 < order.accepted <= share // 3
        assert order.charge == order.accepted, "nothing is disputed"
        assert await quick.place.store.run(ledger.check) == []


async def test_where_a_question_like_the_persons_is_too_dear_a_shorter_one_is_sent(tmp_path: Path) -> None:
    prompts: list[Prompt] = []
    maple = Shop("maple", noting(prompts, "Well."))
    maple.rates = times(maple, 2)
    maple.price(maple.rates.price_in, maple.rates.price_out)
    async with sending(tmp_path, maple) as quick:
        (offer,) = quick.place.drivers.offers(quick.place.nodes())
        before = ChatMessage("user", "x"), ChatMessage("assistant", "x")
        said = (ChatMessage("system", "y" * 3000), *before, ChatMessage("user", "x" * 5000))
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, Request(said), True, False))
        # Where its second turn is too dear, no other conversation begins.
        (order,) = await quick.sent()
        assert order.accepted
        sizes = [len(turn.text) for turn in prompts[0].turns]
        # A third of the share is 20 000, of which an answer of 256 tokens takes 10 240.
        assert [1000 < sum(sizes) < 2928, sizes[1] > 500] == [True, True]


async def test_one_day_costs_no_more_than_its_share(tmp_path: Path) -> None:
    maple = Shop("maple", saying("x" * 600))
    async with sending(tmp_path, maple) as quick:
        (offer,) = quick.place.drivers.offers(quick.place.nodes())
        count = 0
        while True:
            quick.canaries.began()
            quick.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, False))
            sent = await quick.sent()
            if len(sent) == count:
                break
            count = len(sent)
        assert 1 < count < 10
        share = canary_rules.share(2_000_000)
        assert sum(order.accepted or 0 for order in sent) <= share
        # After another start it is as much, and on the next day it begins anew.
        await quick.canaries.close()
        await quick.place.again()
        again = Quick(quick.place)
        again.canaries.began()
        again.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, False))
        assert len(await again.sent()) == count
        quick.place.time.moved_ms += 24 * 3600 * 1000
        again.canaries.began()
        again.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, False))
        assert len(await again.sent()) == count + 1
        await again.canaries.close()


async def test_it_leaves_the_person_room_on_the_tab(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple) as quick:
        # Of 30 000 a message may take 21 000, and two of them have no room.
        maple.limit = 30_000
        await quick.place.chat(maple)
        assert not await quick.sent() and len(maple.orders) == 1
        maple.limit = 60_000
        await quick.place.chat(maple)
        (order,) = await quick.sent()
        assert order.accepted


async def test_none_is_sent_once_it_is_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Habits, "delay_s", lambda self, rng: 30.0)
    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple) as quick:
        await quick.place.chat(maple)
        assert quick.canaries._task is not None
        quick.canaries.use(replace(ON, canaries=False))
        await quick.over()
        assert len(maple.orders) == 1


async def test_a_dearer_price_is_not_taken_for_seen(tmp_path: Path) -> None:
    maple = Shop("maple", saying("Hello."))
    async with sending(tmp_path, maple) as quick:
        place = quick.place
        (offer,) = place.drivers.offers(place.nodes())
        maple.rates = times(maple, 3)
        quick.canaries.began()
        quick.canaries.ended(Bought(offer, Request((ChatMessage("user", "Hello"),)), True, False))
        assert not await quick.sent() and not maple.orders
        assert [type(one) for one in maple.asked] == [wire.QuotePlease]
        answer = await place.chat(maple)
        assert answer.end.error is not None and answer.end.error.code == "price_changed"


def times(shop: Shop, factor: int) -> Rates:
    """It asks for so much more than others were told."""
    rates = shop.rates
    return replace(rates, price_in=rates.price_in * factor, price_out=rates.price_out * factor)
