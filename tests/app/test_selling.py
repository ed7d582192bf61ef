"""Orders at their provider: every way in which one goes and ends, and what is left of it: nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from infraxa.app import line, sales, turns, unsent
from infraxa.app.counting import EMBED_TEXTS
from infraxa.app.provider import Limits
from infraxa.app.serving import ServedState
from infraxa.engine.types import ChatMessage, Embedded, ErrorInfo
from infraxa.net.link import Link
from infraxa.net.orders import Claimed, Done, Piece, Placed
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Progressed, Vector
from infraxa.net.sale import Sale
from tests.app.selling import Scripted, ScriptedGeneration, Shop, scripted, text_of
from tests.net.nodes import until


def engine_of(shop: Shop) -> Scripted:
    return cast(Scripted, shop.engine)


async def test_an_order_goes_from_its_place_to_its_end(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user = await shop.user()
        bought = asyncio.ensure_future(user.bought(max_tokens=7, top_k=3, seed=9, repeat_penalty=1_100_000))
        (generation,) = await engine_of(shop).asked(1)
        request = generation.request
        assert request.messages == (ChatMessage("user", "What is 2+2?"),)
        sampling = request.sampling
        assert (sampling.max_tokens, sampling.top_k, sampling.seed) == (7, 3, 9)
        assert (sampling.temperature, sampling.top_p, sampling.repeat_penalty) == (0.0, 0.95, 1.1)
        assert request.user == user.key.hex()
        generation.read(2, 5)
        await shop.state("reading")
        generation.say("It is", 2)
        await shop.state("answering")
        generation.say(" four.", 2)
        generation.finish()
        items = await bought
        assert Claimed(1000, 7) in items
        assert text_of(items) == "It is four."
        done = items[-1]
        assert isinstance(done, Done) and (done.finish, done.n_prompt, done.n_out) == ("stop", 5, 4)
        served = await shop.state("done")
        assert (served.n_out, served.n_prompt, served.user, served.where) == (4, 5, user.key, "local")
        await shop.free()
        status = shop.provider.status
        assert (status.answered, status.tokens, status.failed, status.cancelled) == (1, 4, 0, 0)
        assert status.bytes_out > len("It is four.") and status.first_token_ms == 10
        assert status.tokens_per_second > 0
        assert any("4 tokens" in line and "done" in line for line in shop.log)


async def test_those_that_wait_are_told_their_places_and_come_in_turn(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        places: dict[int, list[int]] = {1: [], 2: []}

        async def follow(number: int) -> list[Item]:
            items = []
            async with (await shop.user()).buy(str(number)) as purchase:
                async for item in purchase:
                    items.append(item)
                    if isinstance(item, Placed) and number in places:
                        places[number].append(item.before)
            return items

        tasks = []
        for number in range(3):
            tasks.append(asyncio.ensure_future(follow(number)))
            if number == 0:
                await engine_of(shop).asked(1)
            else:
                await until(lambda: places[number])  # noqa: B023 - awaited at once
        assert (shop.provider.status.running, shop.provider.status.waiting) == (1, 2)
        assert shop.loads[-1].util == 255
        for number in range(3):
            generations = await engine_of(shop).asked(number + 1)
            assert len(generations) == number + 1, "one at a time"
            assert generations[-1].request.messages[0].content == str(number)
            if number == 1:
                await until(lambda: places[2][-1] == 0)
            generations[-1].say(str(number))
            generations[-1].finish()
        answers = [text_of(items) for items in await asyncio.gather(*tasks)]
        assert answers == ["0", "1", "2"]
        assert places[1][0] == 0 and places[2][0] == 1
        await shop.free()


async def test_who_finds_no_room_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        one, two, three = [await shop.user() for _ in range(3)]
        waiting = [asyncio.ensure_future(user.refused()) for user in (one, one, two)]
        await until(lambda: shop.provider.status.waiting == 2)
        assert shop.loads[-1].status == "busy"
        failed = await three.refused()
        assert failed.code == "busy" and 1000 <= failed.retry_after_ms <= 60_000
        assert not failed.sent, "the prompt has not left"
        await shop.provider.stop(now=True)
        assert {failed.code for failed in await asyncio.gather(*waiting)} == {"leaving"}
        assert shop.provider.status.refused["busy"] == 1


@pytest.mark.parametrize("at", ["waiting", "sending", "reading", "answering"])
@pytest.mark.parametrize("how", ["cancels", "vanishes", "is ended", "is blocked"])
async def test_no_slot_is_lost_wherever_an_order_ends(tmp_path: Path, at: str, how: str) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        engine = engine_of(shop)
        first = await shop.user()
        if at == "waiting":
            other = asyncio.ensure_future((await shop.user()).bought())
            await engine.asked(1)
        purchase = first.buy("something long " * (1000 if at == "sending" else 1))
        before = len(engine.generations)

        async def follow() -> str:
            try:
                async with purchase:
                    async for item in purchase:
                        if at == "sending" and isinstance(item, Claimed):
                            await asyncio.sleep(3600)  # and never asks for what comes next
                return "cancelled"
            except OrderFailed as failed:
                return failed.code

        following = asyncio.ensure_future(follow())
        if at in ("reading", "answering"):
            generation = (await engine.asked(before + 1))[-1]
            generation.read(1, 2)
            if at == "answering":
                generation.say("some")
        served = await shop.state(cast(ServedState, at))
        if how == "cancels":
            following.cancel()
        elif how == "vanishes":
            await first.link.close()
        elif how == "is ended":
            await shop.provider.end(served.number)
        else:
            await shop.provider.block(first.key, True)
        if at == "waiting":
            await until(lambda: not shop.provider.status.waiting)
            engine.generations[0].say("x")
            engine.generations[0].finish()
            assert text_of(await other) == "x"
        await shop.free()
        if at in ("reading", "answering"):
            assert engine.generations[-1].cancelled
        ended = next(s for s in shop.provider.served() if s.number == served.number)
        if how in ("cancels", "vanishes"):
            assert ended.state == "cancelled" and ended.reason
        else:
            assert ended.state == ("failed" if at == "answering" else "refused") and "You" in ended.reason
            if at != "sending":
                assert await following == ("cancelled" if how == "is ended" else "not_allowed")
        following.cancel()
        await asyncio.wait([following])
        # The slot serves the next one.
        after = asyncio.ensure_future((await shop.user()).bought())
        generation = (await engine.asked(len(engine.generations) + 1))[-1]
        generation.say("next")
        generation.finish()
        assert text_of(await after) == "next"
        if how == "is blocked":
            assert (await first.refused()).code == "not_allowed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ErrorInfo("prompt_too_long", "The conversation is ... tokens"), "too_large"),
        (ErrorInfo("no_template", "cannot format: MARKER"), "bad_request"),
        (ErrorInfo("bad_request", "MARKER"), "bad_request"),
        (ErrorInfo("worker_died", "The model's process ended (MARKER)."), "internal"),
        (ErrorInfo("closed", "Another model was loaded."), "internal"),
    ],
)
@pytest.mark.parametrize("shown", [False, True])
async def test_what_fails_in_the_engine_is_told_by_code_alone(
    tmp_path: Path, error: ErrorInfo, code: str, shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        task = asyncio.ensure_future((await shop.user()).refused("MARKER"))
        (generation,) = await engine_of(shop).asked(1)
        if shown:
            generation.say("MARKER")
        generation.finish(error)
        if error.code == "worker_died" and not shown:
            (await engine_of(shop).asked(2))[1].finish(error)
        failed = await task
        assert (failed.code, failed.shown) == (code, shown)
        assert failed.limit == (1000 if code == "too_large" else 0)
        await shop.free()
        served = shop.provider.served()[0]
        assert served.state == ("failed" if shown or code == "internal" else "refused")
        everything = repr((shop.events, shop.provider.status, shop.provider.served(), caplog.text))
        assert "MARKER" not in everything


async def test_a_defect_ends_one_order_and_is_logged_without_its_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("MARKER")

    async with scripted(tmp_path) as shop:
        await shop.open()
        user = await shop.user()
        with monkeypatch.context() as patched:
            patched.setattr(sales, "request_of", broken)
            assert (await user.refused("MARKER")).code == "internal"
        await shop.free()
        assert "RuntimeError" in caplog.text and "MARKER" not in caplog.text
        caplog.clear()
        task = asyncio.ensure_future(user.bought())
        (generation,) = await engine_of(shop).asked(1)
        generation.finish()
        await task


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"model": bytes(32)}, "model_gone"),
        ({"repeat_penalty": 0}, "bad_request"),
    ],
)
async def test_what_cannot_be_served_is_refused_before_it_waits(
    tmp_path: Path, changed: Any, code: str
) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        failed = await (await shop.user()).refused(**changed)
        assert (failed.code, failed.sent) == (code, False)
        assert shop.provider.status.refused == {code: 1}


async def test_a_prompt_that_cannot_fit_need_not_be_sent(tmp_path: Path) -> None:
    async with scripted(tmp_path, context=1000) as shop:
        await shop.open()
        failed = await (await shop.user()).refused("x" * 1000 * 40)
        assert (failed.code, failed.limit, failed.sent) == ("too_large", 1000, False)
        assert not engine_of(shop).generations
        await shop.free()


async def test_stop_strings_and_turns_reach_the_engine(tmp_path: Path) -> None:
    prompt = Prompt(
        (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hel")), ("\n", "END")
    )
    async with scripted(tmp_path) as shop:
        await shop.open()
        task = asyncio.ensure_future((await shop.user()).bought(prompt=prompt))
        (generation,) = await engine_of(shop).asked(1)
        assert [message.role for message in generation.request.messages] == ["system", "user", "assistant"]
        assert generation.request.sampling.stop == ("\n", "END")
        generation.finish()
        await task


async def test_the_user_hears_that_its_order_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (line, turns):
        monkeypatch.setattr(module, "ALIVE_S", 0.05)
    monkeypatch.setattr(line, "CALM_S", 0.01)
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        heard: list[Item] = []
        user = await shop.user()

        async def follow() -> None:
            async with user.buy() as purchase:
                async for item in purchase:
                    heard.append(item)

        async def silent() -> list[Item]:
            async with (await shop.user()).buy() as purchase:
                return [item async for item in purchase]

        first = asyncio.ensure_future(silent())
        await engine_of(shop).asked(1)
        second = asyncio.ensure_future(follow())
        await until(lambda: heard.count(Placed(0)) > 3)
        engine_of(shop).generations[0].finish()
        generation = (await engine_of(shop).asked(2))[1]
        generation.read(3, 10)
        await until(lambda: heard.count(Progressed(3, 10)) > 3)
        generation.say("x")
        generation.finish()
        await asyncio.gather(first, second)
        before = len(shop.provider._sales._turns._tasks._tasks)
        assert before == 0, "nothing tells of it any more"


async def test_the_user_hears_that_its_order_lives_while_the_model_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        first = asyncio.ensure_future((await shop.user()).bought())
        await engine_of(shop).asked(1)
        heard: list[Item] = []
        user = await shop.user()

        async def follow() -> None:
            async with user.buy() as purchase:
                async for item in purchase:
                    heard.append(item)

        second = asyncio.ensure_future(follow())
        await until(lambda: heard)
        for module in (line, turns):
            monkeypatch.setattr(module, "ALIVE_S", 0.05)
        loaded = engine_of(shop).status.loaded
        engine_of(shop).become("restarting", error=ErrorInfo("worker_died", "It died."))
        await shop.mode("paused")
        engine_of(shop).generations[0].finish()
        await first
        await until(lambda: shop.provider.status.running == 1)
        count = len(heard)
        await until(lambda: len(heard) > count + 3)
        assert set(heard) == {Placed(0)}
        engine_of(shop).become("ready", loaded=loaded)
        (await engine_of(shop).asked(2))[1].finish()
        await second
        await shop.free()


async def test_who_waits_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infraxa.app import admission

    monkeypatch.setattr(admission, "IN_LINE_S", 0.3)
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        first = asyncio.ensure_future((await shop.user()).bought())
        await engine_of(shop).asked(1)
        failed = await (await shop.user()).refused()
        assert (failed.code, failed.sent) == ("expired", False)
        assert shop.provider.status.waiting == 0
        engine_of(shop).generations[0].finish()
        await first


async def test_turned_off_for_good_it_waits_for_nobody_who_does_not_read(tmp_path: Path) -> None:
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open()
        user = await shop.user()
        async with user.buy() as purchase:

            async def begin() -> None:
                async for item in purchase:
                    if isinstance(item, Piece):
                        return

            begun = asyncio.ensure_future(begin())
            (generation,) = await engine_of(shop).asked(1)
            generation.say("x")
            await begun
            # From here on its node reads nothing: not its order, and not its socket.
            user.link._reader.cancel()
            for _ in range(500):
                generation.say("words " * 300, 20)
            (provided,) = shop.node.links
            await until(lambda: any(not provided.mux.room(number) for number in provided._streams))
            async with asyncio.timeout(3):
                await shop.provider.close()
            assert shop.provider.served()[0].state == "failed" and not shop.customers.sales


async def test_turned_off_those_that_wait_go_and_those_that_run_finish(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        running = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        waiting = asyncio.ensure_future((await shop.user()).refused())
        await until(lambda: shop.provider.status.waiting == 1)
        await shop.use(provide=False)
        assert shop.provider.status.mode == "draining" and shop.provider.status.wait is not None
        assert shop.offers[-1] is None
        failed = await waiting
        assert (failed.code, failed.sent) == ("leaving", False)
        assert (await (await shop.user()).refused(model=bytes(32))).code == "leaving"
        generation.say("to the end")
        generation.finish()
        assert text_of(await running) == "to the end"
        await shop.mode("off")
        assert shop.provider.status.answered == 1


async def test_what_runs_too_long_after_it_was_turned_off_is_ended(tmp_path: Path) -> None:
    async with scripted(tmp_path, limits=Limits(look=0.05, drain=0.3)) as shop:
        await shop.open()
        running = asyncio.ensure_future((await shop.user()).refused())
        (generation,) = await engine_of(shop).asked(1)
        generation.say("half")
        await shop.state("answering")
        await shop.provider.stop(now=False)
        failed = await running
        assert (failed.code, failed.shown) == ("leaving", True)
        await shop.mode("off")
        assert generation.cancelled


async def test_turned_on_again_while_it_drains_it_goes_on(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        running = asyncio.ensure_future((await shop.user()).bought())
        (generation,) = await engine_of(shop).asked(1)
        await shop.use(provide=False)
        await shop.mode("draining")
        await shop.open()
        generation.finish()
        await running
        assert shop.provider.status.answered == 1, "the counts are those since it was turned on first"
        await shop.mode("serving")


async def test_answers_keep_to_the_limit_of_the_line(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(upload_limit=20)
        user = await shop.user()
        text = "".join(f"word {number} ünd " for number in range(1500))
        began = time.monotonic()
        tasks = [asyncio.ensure_future(user.bought()) for _ in range(2)]
        for generation in await engine_of(shop).asked(2):
            generation.say(text, 1000)
            generation.finish()
        for items in await asyncio.gather(*tasks):
            done = items[-1]
            assert text_of(items) == text
            assert isinstance(done, Done) and done.n_out == 1000
        size = 2 * len(text.encode())
        assert size > 30_000
        # 20 kB go at once, the rest in its time.
        assert time.monotonic() - began >= (size - 20_000) / 20_000


async def test_a_flood_of_refusals_does_not_fill_the_log(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user = await shop.user()
        for _ in range(60):
            assert (await user.refused(model=bytes(32))).code == "model_gone"
        told = [line for line in shop.log if line.startswith("Request")]
        assert 0 < len(told) < 40
        assert shop.provider.status.refused["model_gone"] == 60
        bought = asyncio.ensure_future(user.bought())
        (generation,) = await engine_of(shop).asked(1)
        generation.finish()
        await bought
        await shop.free()
        assert "more without an answer before it" in shop.log[-1]


def blocked(link: Link) -> Callable[[], bool]:
    """Whether the user of this link reads no more: there is no room for what is said to it, look after
    look."""
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks = looks + 1 if any(not link.mux.room(number) for number in link._streams) else 0
        return looks > 20

    return look


@asynccontextmanager
async def unread(shop: Shop) -> AsyncIterator[ScriptedGeneration]:
    """The generation of a user that has read a little, while its provider waits for it to read on."""
    count, before = len(engine_of(shop).generations), set(shop.node.links)
    async with (await shop.user()).buy() as purchase:
        (link,) = set(shop.node.links) - before
        async for item in purchase:
            if isinstance(item, Claimed):
                break
        reading = asyncio.ensure_future(anext(purchase))
        generation = (await engine_of(shop).asked(count + 1))[-1]
        for _ in range(20):
            generation.say("x" * 50_000, 1000)
        await reading  # and nothing more
        await until(blocked(link))
        yield generation


async def next_is_answered(shop: Shop) -> None:
    """There is a slot."""
    count = len(engine_of(shop).generations)
    other = asyncio.ensure_future((await shop.user()).bought())
    (await engine_of(shop).asked(count + 1))[-1].finish()
    await other


async def test_a_slot_is_free_when_its_answer_was_generated(tmp_path: Path) -> None:
    """However long the user takes to read it; and the price is not that of work which is done."""
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        async with unread(shop) as generation:
            assert shop.provider.status.running == 1 and shop.provider._sales.work()
            generation.finish()
            await next_is_answered(shop)
            assert not shop.provider._sales.work()
            assert (await shop.state("answering", 1)).n_out < 20_000
        await shop.free()


@pytest.mark.parametrize("code", ["worker_died", "closed"])
async def test_a_slot_is_free_when_its_answer_broke_off(tmp_path: Path, code: str) -> None:
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        async with unread(shop) as generation:
            generation.finish(ErrorInfo(code, "It died."))
            await next_is_answered(shop)
        await shop.free()


async def test_a_slot_is_free_when_the_last_vectors_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, vector = asyncio.Event(), Sale.vector
    texts = tuple(f"text {number}" for number in range(EMBED_TEXTS + 1))

    async def blocked(sale: Sale, data: bytes, n_tokens: int) -> None:
        if computed == [EMBED_TEXTS, 1]:
            await read.wait()
        await vector(sale, data, n_tokens)

    async def embed(some: tuple[str, ...]) -> Embedded:
        computed.append(len(some))
        return Embedded((bytes(64),) * len(some), (2,) * len(some))

    computed: list[int] = []
    monkeypatch.setattr(Sale, "vector", blocked)
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=1)
        engine_of(shop).embed = embed  # type: ignore[attr-defined]
        user = await shop.user()
        first = asyncio.ensure_future(user.bought(prompt=Prompt(texts=texts), texts=len(texts)))
        await until(lambda: len(computed) == 2)
        await next_is_answered(shop)
        assert not first.done()
        read.set()
        assert sum(isinstance(item, Vector) for item in await first) == len(texts)
        await shop.free()


async def test_turned_off_it_waits_for_those_that_still_read(tmp_path: Path) -> None:
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        user = await shop.user()
        async with user.buy() as purchase:
            async for item in purchase:
                if isinstance(item, Claimed):
                    break
            reading = asyncio.ensure_future(anext(purchase))
            (generation,) = await engine_of(shop).asked(1)
            for _ in range(20):
                generation.say("x" * 50_000, 1000)
            items = [await reading]
            await until(blocked(next(iter(shop.node.links))))
            generation.finish()
            await until(lambda: not shop.provider.status.running)
            await shop.use(provide=False)
            assert shop.provider.status.mode == "draining"
            items += [item async for item in purchase]
        assert len(text_of(items)) == 1_000_000 and isinstance(items[-1], Done)
        await shop.mode("off")
        assert shop.provider.status.answered == 1


async def test_as_much_as_memory_has_room_for_is_kept_for_those_that_do_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they keep their slots."""
    monkeypatch.setattr(unsent, "MOST", 600_000)  # of about 480 kB each
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        async with unread(shop) as first:
            first.finish()
            await until(lambda: not shop.provider.status.running)
            async with unread(shop) as second:
                second.finish()
                kept = shop.provider._sales._turns._unsent
                await until(lambda: kept._waiting)
                assert shop.provider.status.running == 1 and len(kept._kept) == 1
                other = asyncio.ensure_future((await shop.user()).bought())
                await until(lambda: shop.provider.status.waiting == 1)
                await shop.provider.end(1)
                (await engine_of(shop).asked(3))[2].finish()
                await other
        await shop.free()
        assert not kept._kept and not kept._waiting


async def test_who_reads_slower_than_any_line_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "BEGIN_S", 0.2)
    monkeypatch.setattr(unsent, "RATE", 10**9)
    async with scripted(tmp_path, context=100_000) as shop:
        await shop.open(capacity=1)
        async with unread(shop) as generation:
            generation.finish()
            served = await shop.state("failed")
            assert served.reason == "Its user neither sent nor read for too long."
            assert 0 < served.n_out < 20_000
        await shop.free()


async def test_a_hundred_orders_of_many_are_all_answered_or_refused(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=2)
        engine = engine_of(shop)
        most = 0

        async def work() -> None:
            nonlocal most
            at = 0
            while True:
                while at < len(engine.generations):
                    generation = engine.generations[at]
                    generation.say(generation.request.messages[0].content)
                    generation.finish()
                    at += 1
                most = max(most, shop.provider.status.running)
                await asyncio.sleep(0.001)

        working = asyncio.ensure_future(work())
        users = [await shop.user() for _ in range(10)]

        async def ask(number: int) -> str:
            text = f"question {number}"
            try:
                assert text_of(await users[number % 10].bought(text)) == text
            except OrderFailed as failed:
                return failed.code
            return "answered"

        outcomes = await asyncio.gather(*(ask(number) for number in range(100)))
        working.cancel()
        await shop.free()
        assert set(outcomes) <= {"answered", "busy", "rate_limited"} and "answered" in outcomes
        status = shop.provider.status
        assert status.answered == outcomes.count("answered")
        assert most <= 2
        assert not status.users and not shop.provider._sales.admission.waiting


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_befalls_them_nothing_is_left(tmp_path: Path, seed: int) -> None:
    """Orders that are answered, fail, are given up, ended or lose their link, at any time and all at once."""
    fates = random.Random(seed)
    async with scripted(tmp_path) as shop:
        await shop.open(capacity=2)
        engine = engine_of(shop)
        users = [await shop.user() for _ in range(6)]

        async def ask() -> str:
            user = fates.choice(users)
            try:
                async with asyncio.timeout(fates.choice((0.02, 0.2, 30))):
                    items = await user.bought("some words " * fates.choice((1, 5000)))
            except OrderFailed as failed:
                return failed.code
            except TimeoutError:
                return "given up"
            return text_of(items) or "nothing"

        async def generate() -> None:
            at = 0
            while True:
                await asyncio.sleep(fates.choice((0, 0.005, 0.02)))
                for generation in engine.generations[at:]:
                    generation.read(1, 2)
                    if fates.random() < 0.7:
                        generation.say("word ")
                    if fates.random() < 0.3:
                        generation.finish(ErrorInfo("worker_died", "It died."))
                    elif fates.random() < 0.9:
                        generation.finish()
                at = len(engine.generations)
                assert shop.provider.status.running <= 2
                for served in shop.provider.served():
                    if not served.ended_ms and fates.random() < 0.05:
                        await shop.provider.end(served.number)

        generating = asyncio.ensure_future(generate())
        asking = [asyncio.ensure_future(ask()) for _ in range(40)]
        await asyncio.wait(asking, timeout=0.3)
        await users[0].link.close()
        await shop.provider.block(users[1].key, True)
        outcomes = Counter(await asyncio.gather(*asking))
        await shop.free()
        assert not generating.done(), "it met no failed assertion"
        generating.cancel()
        assert sum(outcomes.values()) == 40
        assert all(generation.cancelled or generation.ended for generation in engine.generations)
        after = asyncio.ensure_future(users[2].bought())
        generation = (await engine.asked(len(engine.generations) + 1))[-1]
        generation.say("next")
        generation.finish()
        assert text_of(await after) == "next"
