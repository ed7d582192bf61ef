"""Answers of drivers: whole, moved from one to another, cancelled, and failed in every way a driver can."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest

from infraxa.app.answering import Item, Moved, Sent, Times, Waits
from infraxa.app.asking import Asking
from infraxa.app.buyer import wanted
from infraxa.app.buying import BUSY_S, FIND_S
from infraxa.app.config import Settings
from infraxa.app.facade import AskBegan
from infraxa.app.models import Models
from infraxa.app.wanted import Wanted
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, Delta, Finished, Progress, Sampling
from infraxa.net import prompts, wire
from infraxa.net.identity import id_text
from infraxa.net.link import Link, Stream
from infraxa.net.orders import Claimed, Done, Piece, Placed, encode_frame
from infraxa.net.prompts import Turn
from infraxa.net.sale import Sale
from infraxa.net.status import NetworkStatus, Notice
from infraxa.net.tasks import TaskGroup
from infraxa.store.records import ChatOptions, DriverPart, Reader
from tests.app.stalls import (
    MODEL,
    OTHER_MODEL,
    SAID,
    SOON,
    Script,
    Stall,
    Told,
    ids,
    market,
    refusing,
    say,
    saying,
    silent,
    told,
)
from tests.net.nodes import until

SECRET = "words of the peer"


async def test_a_whole_answer() -> None:
    asked: list[prompts.Prompt] = []

    async def script(sale: Sale) -> None:
        await sale.placed(2)
        await sale.placed(0)
        asked.append(await sale.claim(4096, 1000))
        await sale.progress(3, 9)
        await sale.piece("Because ", (1, 2))
        await sale.piece("ünlucky", (3,))
        await sale.done(Done("length", 9, 4, 3, 0, 0, 0))

    sampling = Sampling(
        temperature=0.25, top_k=7, top_p=0.5, min_p=0, repeat_penalty=1.1, seed=-1, stop=("END",)
    )
    said = (ChatMessage("system", "Be brief."), *SAID)
    maple = Stall("maple", script)
    async with market(maple) as place:
        found = await told(place.buy(maple, said, sampling=sampling))
    assert found.text == "Because ünlucky" and found.tokens == 3
    assert found.end.reason == "length" and found.end.error is None
    usage = found.end.usage
    assert (usage.n_prompt, usage.n_cached, usage.n_out) == (9, 4, 3)
    assert usage.first_token_ms is not None and usage.first_token_ms > 0
    assert [type(item) for item in found.items if not isinstance(item, Waits | Delta)] == [
        Sent, Progress, Moved, type(found.times), Finished,
    ]  # fmt: skip
    assert found.moves == [Moved(DriverPart(id_text(maple.id), "maple", "model of maple", 0))]
    assert next(item for item in found.items if isinstance(item, Sent)).reader == Reader(
        id_text(maple.id), "maple"
    )
    what = [item.what for item in found.waits]
    assert what[:2] == ["the connection with maple", "maple to answer"]
    assert what[-1] == "maple to read the prompt"
    assert "a place at maple, 2 before you" in what and "a place at maple, next in line" in what
    assert all(item.limit_s > 0 and item.since_ms > 0 for item in found.waits)
    assert found.times.connect_ms is not None and found.times.wait_ms is not None
    assert asked == [
        prompts.Prompt((Turn("system", "Be brief."), Turn("user", "Why is the sky blue?")), ("END",))
    ]
    order = maple.orders[0]
    assert (order.model, order.max_tokens, order.temperature, order.top_k) == (MODEL, 0, 250_000, 7)
    assert (order.top_p, order.min_p, order.repeat_penalty) == (500_000, 0, 1_100_000)
    assert order.seed == 2**32 - 1
    assert place.drivers.offers(place.nodes())[0].answered == 1


async def test_a_driver_that_begins_again_is_waited_for() -> None:
    items: list[Item] = []
    waits = "maple to begin again, 1 before you", "maple to begin again, next in line"

    def waited(what: str) -> bool:
        return isinstance(items[-1], Waits) and items[-1].what == what

    async def script(sale: Sale) -> None:
        prompt = await sale.claim(4096, 1000)
        await sale.progress(4, 9)
        await until(lambda: items[-1] == Progress(4, 9))
        await sale.placed(1)
        await until(lambda: waited(waits[0]))
        await sale.placed(0)
        await until(lambda: waited(waits[1]))
        await sale.claim_again(4096, 1000)
        await until(lambda: waited("maple to read the prompt"))
        await asyncio.sleep(0.15)  # what is said too soon after the last is left out
        await sale.progress(1, 9)
        await until(lambda: items[-1] == Progress(1, 9))
        await say(sale, "Because", prompt=prompt)

    maple = Stall("maple", script)
    async with market(maple) as place:
        async for item in place.buy(maple):
            items.append(item)
        (offer,) = place.drivers.offers(place.nodes())
    found = Told(items)
    assert (found.text, found.end.reason) == ("Because", "stop")
    assert found.readers == ["maple"], "who reads it is said once"
    assert found.times.wait_ms is not None
    assert (offer.answered, offer.failed) == (1, 0)


@pytest.mark.parametrize("code", ["internal", "busy", "expired"])
async def test_who_has_begun_again_and_fails_has_failed(code: wire.ErrorCode) -> None:
    """Whatever it says: it had the prompt."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        await sale.placed(0)
        await sale.fail(code)

    maple, cedar = Stall("maple", script), Stall("cedar", saying("It scatters."))
    async with market(maple, cedar) as place:
        await place.trust(maple)
        found = await told(place.buy(None))
        offers = {offer.node.id: offer for offer in place.drivers.offers(place.nodes())}
    assert found.text == "It scatters."
    assert (offers[maple.id].failed, offers[cedar.id].answered) == (1, 1)
    assert found.readers == ["maple", "cedar"]


async def test_the_session_is_used_again() -> None:
    maple = Stall("maple", saying("one"))
    async with market(maple) as place:
        first, second = await told(place.buy(maple)), await told(place.buy(maple))
        assert first.times.connect_ms is not None and second.times.connect_ms is None
        assert len({order.id for order in maple.orders}) == 2


async def test_the_prompt_leaves_only_when_it_is_known_who_reads_it() -> None:
    arrived = asyncio.Event()

    async def script(sale: Sale) -> None:
        prompt = await sale.claim(4096, 1000)
        arrived.set()
        await say(sale, "yes", prompt=prompt)

    maple = Stall("maple", script)
    async with market(maple) as place:
        buying = place.buy(maple)
        async for item in buying:
            if isinstance(item, Sent):
                break
        link = place.links[maple.id]
        before = link.bytes_out
        link.ping()
        await until(lambda: link.rtt_ms is not None)
        for _ in range(20):
            await asyncio.sleep(0.01)
            assert not arrived.is_set()
        assert link.bytes_out - before < 200, "no more than pings"
        rest = [item async for item in buying]
        assert arrived.is_set() and isinstance(rest[-1], Finished)


async def test_before_its_first_token_another_answers() -> None:
    maple, birch = Stall("maple", refusing("leaving")), Stall("birch", saying("Hello"))
    async with market(maple, birch) as place:
        found = await told(place.buy(maple, failover="auto"))
    assert (found.text, found.end.reason, found.readers) == ("Hello", "stop", ["birch"])
    assert found.moves == [
        Moved(DriverPart(id_text(birch.id), "birch", "model of birch", 0, "maple has stopped serving."))
    ]


def breaking(*pieces: str) -> Script:
    """Says so much, then fails."""

    async def script(sale: Sale) -> None:
        await sale.claim(4096, 1000)
        for piece in pieces:
            await sale.piece(piece, ids(piece))
        await sale.fail("internal")

    return script


async def test_another_goes_on_from_the_text_that_is_there() -> None:
    asked: list[prompts.Prompt] = []

    async def goes_on(sale: Sale) -> None:
        asked.append(await sale.claim(4096, 1000))
        await say(sale, "ué ", "sky", prompt=asked[0])

    maple, birch = Stall("maple", breaking("The ", "bl")), Stall("birch", goes_on)
    said = (*SAID, ChatMessage("assistant", "Well: "))
    async with market(maple, birch) as place:
        found = await told(place.buy(maple, said, failover="auto", sampling=Sampling(max_tokens=50)))
        offers = {offer.node.name: offer for offer in place.drivers.offers(place.nodes())}
    assert found.text == "The blué sky" and found.end.reason == "stop"
    assert [(move.part.name, move.part.at) for move in found.moves] == [("maple", 0), ("birch", 6)]
    assert found.moves[1].part.reason == "maple met an error of its own in mid-answer."
    assert found.readers == ["maple", "birch"]
    assert asked[0].turns == (Turn("user", SAID[0].content), Turn("assistant", "Well: The bl"))
    assert [order.max_tokens for order in (*maple.orders, *birch.orders)] == [50, 44]
    assert found.tokens == found.end.usage.n_out == 12
    assert found.end.usage.n_prompt == sum(len(turn.text) for turn in asked[0].turns)
    assert (offers["maple"].failed, offers["birch"].answered) == (1, 1)


async def test_whoever_goes_on_has_only_the_tokens_that_are_left() -> None:
    maple, birch = Stall("maple", breaking("abc")), Stall("birch", saying("never"))
    async with market(maple, birch) as place:
        found = await told(place.buy(maple, failover="auto", sampling=Sampling(max_tokens=3)))
    assert (found.text, found.end.reason, birch.orders) == ("abc", "length", [])


@pytest.mark.parametrize(("failover", "chosen"), [("off", False), ("off", True), ("ask", True)])
async def test_nobody_else_is_asked_without_leave(failover: Any, chosen: bool) -> None:
    maple, birch = Stall("maple", breaking("abc")), Stall("birch", saying("never"))
    async with market(maple, birch) as place:
        await place.trust(maple)
        found = await told(place.buy(maple if chosen else None, failover=failover))
    assert (found.text, found.end.reason, birch.orders) == ("abc", "failed", [])
    assert found.end.error is not None
    assert found.end.error.message == "maple met an error of its own in mid-answer."


async def test_where_infraxa_chose_another_goes_on() -> None:
    maple, birch = Stall("maple", breaking("abc")), Stall("birch", saying("def"))
    async with market(maple, birch) as place:
        await place.trust(maple)
        found = await told(place.buy(failover="ask"))
    assert (found.text, found.end.reason) == ("abcdef", "stop")


async def test_at_most_three_and_none_twice() -> None:
    stalls = [Stall(name, breaking("x")) for name in ("maple", "birch", "oak", "yew")]
    async with market(*stalls) as place:
        found = await told(place.buy(failover="auto"))
    asked = [len(stall.orders) for stall in stalls]
    assert sorted(asked) == [0, 1, 1, 1]
    assert (found.text, found.end.reason, len(found.moves)) == ("xxx", "failed", 3)
    assert len(set(found.readers)) == 3


async def test_nobody_is_asked_twice_though_nothing_is_held_against_him() -> None:
    maple, birch = Stall("maple", refusing("bad_request")), Stall("birch", refusing("bad_request"))
    async with market(maple, birch) as place:
        found = await told(place.buy())
    assert (found.end.reason, len(maple.orders), len(birch.orders)) == ("failed", 1, 1)


async def test_the_same_model_goes_on_if_there_is_one() -> None:
    def stalls() -> list[Stall]:
        return [
            Stall("maple", breaking("a")),
            Stall("birch", saying("b"), OTHER_MODEL),
            Stall("oak", saying("c"), MODEL),
        ]

    for _ in range(4):
        maple, birch, oak = stalls()
        async with market(maple, birch, oak) as place:
            assert (await told(place.buy(maple, failover="auto"))).text == "ac"
    maple, birch, oak = stalls()
    async with market(maple, birch) as place:
        assert (await told(place.buy(maple, failover="auto"))).text == "ab"
    async with market(*(both := stalls()[:2])) as place:
        found = await told(place.buy(both[0], failover="auto", driver_model=MODEL.hex()))
    assert (found.text, found.end.reason, found.readers) == ("a", "failed", ["maple"])


def busy_once(retry_after_ms: int) -> tuple[Stall, list[int]]:
    turns: list[int] = []

    async def script(sale: Sale) -> None:
        turns.append(1)
        if len(turns) == 1:
            await sale.fail("busy", retry_after_ms=retry_after_ms)
        else:
            await say(sale, "now")

    return Stall("maple", script), turns


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_busy_driver_is_asked_again_when_there_is_no_other(chosen: bool) -> None:
    maple, turns = busy_once(300)
    async with market(maple) as place:
        found = await told(place.buy(maple if chosen else None))
    assert (found.text, len(turns)) == ("now", 2)
    wait = next(wait for wait in found.waits if "busy" in wait.what)
    if chosen:
        assert wait.what == "maple, which is busy; asked again in 1 s" and wait.limit_s == 0.3
    else:
        assert wait.what == "a driver that has room: all are busy" and wait.limit_s <= BUSY_S
    assert found.moves[0].part.reason == ""


async def test_a_busy_driver_is_left_for_another_where_that_may_be() -> None:
    maple, turns = busy_once(300)
    birch = Stall("birch", saying("Hello"))
    async with market(maple, birch) as place:
        await place.trust(maple)
        found = await told(place.buy())
    assert (found.text, len(turns)) == ("Hello", 1)
    assert found.moves[0].part.reason == "maple is busy with other answers."


async def test_the_first_that_has_room_again_is_asked() -> None:
    """Both are busy; one says for how short."""
    maple, turns = busy_once(400)
    birch = Stall("birch", refusing("busy", retry_after_ms=20_000))
    async with market(maple, birch) as place:
        found = await told(place.buy())
    assert (found.text, len(turns), len(birch.orders)) == ("now", 2, 1)
    assert found.readers == ["maple"]


@pytest.mark.parametrize("chosen", [True, False])
async def test_too_long_a_wait_is_left_to_the_person(chosen: bool) -> None:
    retry_after_s = BUSY_S + 1
    maple = Stall("maple", refusing("busy", retry_after_ms=round(retry_after_s * 1000)))
    async with market(maple) as place:
        found = await told(place.buy(maple if chosen else None))
        (offer,) = place.drivers.offers(place.nodes())
    assert found.end.error is not None and found.end.error.code == "busy"
    assert found.end.error.message == "maple is busy with other answers."
    assert found.end.error.remedy == f"Try again in {retry_after_s:.0f} s, or choose another driver."
    assert (offer.failed, offer.cooling_s, found.times.blame) == (0, 0, "")
    assert len(maple.orders) == 1


async def killed(link: Link, stream: Stream) -> None:
    await link.close()


async def prompted(stream: Stream, max_out: int) -> None:
    """The prompt was asked for, and has come."""
    await stream.send(encode_frame(Claimed(4096, max_out)))
    async for _ in stream:
        pass


async def killed_later(link: Link, stream: Stream) -> None:
    await prompted(stream, 1000)
    await stream.send(encode_frame(Piece((1,), "abc")))
    await asyncio.sleep(0.1)
    await link.close()


async def garbage(link: Link, stream: Stream) -> None:
    await stream.send(b"\x00\x08" + SECRET.encode()[:8])


async def garbage_later(link: Link, stream: Stream) -> None:
    await prompted(stream, 1000)
    await stream.send(encode_frame(Piece((1,), "abc")))
    await asyncio.sleep(0.05)
    await stream.send(encode_frame(Placed(1)))


async def too_much(link: Link, stream: Stream) -> None:
    await prompted(stream, 1)
    await stream.send(encode_frame(Piece((1, 2), SECRET)))


async def wrong_count(link: Link, stream: Stream) -> None:
    await stream.send(
        encode_frame(Claimed(4096, 9))
        + encode_frame(Piece((1,), "abc"))
        + encode_frame(Done("stop", 1, 0, 7))
    )


async def half_an_answer(link: Link, stream: Stream) -> None:
    await prompted(stream, 9)
    await stream.send(encode_frame(Piece((1,), "abc")))
    await stream.end()


async def never(link: Link, stream: Stream) -> None:
    await asyncio.sleep(60)


async def byte_by_byte(link: Link, stream: Stream) -> None:
    """The claim, a byte in each half second."""
    for byte in encode_frame(Claimed(4096, 1000)):
        await stream.send(bytes([byte]))
        await asyncio.sleep(0.5)


async def in_line_for_ever(link: Link, stream: Stream) -> None:
    while True:
        await stream.send(encode_frame(Placed(1)))
        await asyncio.sleep(0.3)


async def never_reads(link: Link, stream: Stream) -> None:
    await stream.send(encode_frame(Claimed(4096, 1000)))
    while True:
        await stream.progress(1, 100)
        await asyncio.sleep(0.3)


async def stops_speaking(link: Link, stream: Stream) -> None:
    await prompted(stream, 1000)
    await stream.send(encode_frame(Piece((1,), "abc")))
    await asyncio.sleep(60)


async def empty_talk(link: Link, stream: Stream) -> None:
    """Text without tokens, which is nothing new."""
    await prompted(stream, 1000)
    await stream.send(encode_frame(Piece((1,), "abc")))
    while True:
        await stream.send(encode_frame(Piece((), "x")))
        await asyncio.sleep(0.2)


FAULTS: dict[str, tuple[Any, str, str]] = {
    "killed at once": (killed, "gone", "The connection with maple was lost."),
    "killed later": (killed_later, "gone", "The connection with maple was lost in mid-answer."),
    "garbage": (garbage, "garbage", "maple sent something that is no answer."),
    "garbage later": (garbage_later, "garbage", "maple sent something that is no answer, in mid-answer."),
    "too much": (too_much, "garbage", "maple sent something that is no answer."),
    "a wrong count": (wrong_count, "garbage", "maple sent something that is no answer."),
    "half an answer": (half_an_answer, "garbage", "maple sent something that is no answer, in mid-answer."),
    "never": (never, "silent", "maple does not say anything."),
    "byte by byte": (byte_by_byte, "silent", "maple does not say anything."),
    "in line for ever": (in_line_for_ever, "stalled", "maple does not get on with the answer."),
    "never reads": (never_reads, "stalled", "maple does not get on with the answer."),
    "stops speaking": (stops_speaking, "silent", "maple fell silent in mid-answer."),
    "empty talk": (empty_talk, "silent", "maple fell silent in mid-answer."),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_driver_has_a_sentence_and_a_remedy(fault: str) -> None:
    raw, code, sentence = FAULTS[fault]
    maple = Stall("maple", silent)
    maple.raw = raw
    async with market(maple, limits=SOON) as place:
        found = await told(place.buy(maple))
        (offer,) = place.drivers.offers(place.nodes())
    error = found.end.error
    assert found.end.reason == "failed" and error is not None
    assert (error.code, error.message) == (code, sentence)
    assert error.remedy.endswith("another driver.") or error.remedy == "Choose another driver."
    assert SECRET not in str(found.items) or fault == "too much"
    assert SECRET not in error.message + error.remedy
    assert (offer.failed, found.times.blame) == (1, "peer")
    assert offer.cooling_s > 0


async def drips(link: Link, stream: Stream) -> None:
    """A token now and then, each soon enough after the one before."""
    await prompted(stream, 1000)
    while True:
        await stream.send(encode_frame(Piece((1,), "x")))
        await asyncio.sleep(0.5)


async def test_a_driver_whose_tokens_drip_is_left_for_another_who_goes_on() -> None:
    maple, birch = Stall("maple", silent), Stall("birch", saying(" and fast"))
    maple.raw = drips
    limits = msgspec.structs.replace(SOON, silence=2.0, longest=2.0, per_token=0.1, pace=1.2)
    async with market(maple, birch, limits=limits) as place:
        found = await told(place.buy(maple, failover="auto"))
        offers = {offer.node.name: offer for offer in place.drivers.offers(place.nodes())}
    goes_on, count = found.moves[1], found.text.index(" ")
    assert (found.text, found.end.reason) == ("x" * count + " and fast", "stop") and count < 12
    assert goes_on.part.at == count
    words = re.fullmatch(
        r"maple gave (\d+) tokens? in 1 s, which is too slow to wait for\.", goes_on.part.reason
    )
    assert words is not None and int(words[1]) < 12
    assert (offers["maple"].failed, offers["birch"].answered) == (1, 1)


REFUSALS: dict[wire.ErrorCode, tuple[str, str]] = {
    "model_gone": ("model_gone", "maple does not serve this model any more."),
    "too_large": ("prompt_too_long", "The conversation is longer than what maple can hold, 77 tokens."),
    "leaving": ("leaving", "maple has stopped serving."),
    "not_allowed": ("not_allowed", "maple does not answer your requests."),
    "internal": ("internal", "maple met an error of its own."),
    "expired": ("expired", "maple let the request go: it waited, or was sent, for too long."),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_has_a_sentence_and_only_an_error_is_a_fault(code: wire.ErrorCode) -> None:
    maple = Stall("maple", refusing(code, limit=77, field="secret"))
    async with market(maple) as place:
        found = await told(place.buy(maple))
        (offer,) = place.drivers.offers(place.nodes())
    error = found.end.error
    assert error is not None and (error.code, error.message) == REFUSALS[code]
    assert error.remedy and "secret" not in str(found.items)
    assert offer.failed == (code == "internal")
    assert found.readers == [] and found.times.blame == ""


async def test_the_fault_may_be_elsewhere() -> None:
    maple = Stall("maple", silent)
    maple.raw = killed_later
    for blame, words in (
        ("own", "This machine's own network failed, and the connection with maple with it."),
        ("relay", "The node that relays to maple failed."),
    ):
        async with market(maple) as place:
            place.fault = blame  # type: ignore[assignment] # one of its values
            found = await told(place.buy(maple))
            (offer,) = place.drivers.offers(place.nodes())
        assert found.end.error is not None and found.end.error.message == words
        assert (found.times.blame, offer.failed) == (blame, 0)
        maple = Stall("maple", silent)
        maple.raw = killed_later


async def test_a_driver_that_is_not_there() -> None:
    maple = Stall("maple", silent)
    async with market(maple) as place:
        await maple.node.close()
        found = await told(place.buy(maple))
        (offer,) = place.drivers.offers(place.nodes())
    assert found.end.error is not None
    assert (found.end.error.code, found.end.error.message) == ("unreachable", "maple cannot be reached.")
    assert (found.readers, offer.failed) == ([], 1)


async def test_a_session_that_ended_meanwhile_is_made_anew() -> None:
    maple = Stall("maple", saying("one"))
    async with market(maple) as place:
        await told(place.buy(maple))
        once = True

        async def drop(link: Link, stream: Stream) -> None:
            nonlocal once
            assert once
            once, maple.raw = False, None
            await link.close()

        maple.raw = drop
        found = await told(place.buy(maple))
    assert (found.text, found.end.reason, found.readers) == ("one", "stop", ["maple"])


@pytest.mark.parametrize("when", ["connecting", "answer", "line", "sent", "reading", "words"])
async def test_cancelled_at_any_moment(when: str) -> None:
    claimed = asyncio.Event()

    async def script(sale: Sale) -> None:
        if when == "answer":
            await asyncio.sleep(60)
        if when == "line":
            await sale.placed(1)
            await asyncio.sleep(60)
        prompt = await sale.claim(4096, 1000)
        claimed.set()
        if when == "reading":
            await sale.progress(1, 2)
            await asyncio.sleep(60)
        await sale.piece("abc", (1, 2, 3))
        await asyncio.sleep(60)
        await say(sale, prompt=prompt)

    maple = Stall("maple", script)
    async with market(maple) as place:
        if when == "connecting":
            place.hold = asyncio.Event()
        buying = place.buy(maple)
        items = []
        async for item in buying:
            items.append(item)
            match item:
                case Waits():
                    stop = {
                        "connecting": "the connection with maple",
                        "answer": "maple to answer",
                        "line": "a place at maple, 1 before you",
                    }.get(when) == item.what
                case _:
                    stop = type(item) is {"sent": Sent, "reading": Progress, "words": Delta}.get(when)
            if stop and when == "answer":
                await until(lambda: maple.orders)
            if stop:
                break
        waiting = asyncio.ensure_future(anext(buying))
        await asyncio.sleep(0)
        buying.cancel()
        # At once: nothing of the network is waited for.
        for _ in range(3):
            await asyncio.sleep(0)
        assert waiting.done()
        items += [waiting.result(), *[item async for item in buying]]
        end = items[-1]
        assert isinstance(end, Finished) and end.reason == "cancelled" and end.error is None
        assert end.usage.n_out == (3 if when == "words" else 0)
        if when != "connecting":
            await until(lambda: maple.ends)
            assert maple.ends == ["cancelled"]
        (offer,) = place.drivers.offers(place.nodes())
        assert (offer.failed, offer.answered) == (0, 0)
        buying.cancel()


async def test_who_reads_slowly_slows_the_driver_down() -> None:
    said = 0

    async def script(sale: Sale) -> None:
        nonlocal said
        prompt = await sale.claim(4096, 10**6)
        for _ in range(2000):
            await sale.piece("x" * 200, (1,) * 10)
            said += 1
        await sale.done(Done("stop", len(prompt.turns), 0, 20_000, 0, 0, 0))

    maple = Stall("maple", script)
    async with market(maple) as place:
        buying = place.buy(maple)
        text = 0
        async for item in buying:
            if isinstance(item, Delta):
                text += len(item.text)
                break
        for _ in range(30):
            before = said
            await asyncio.sleep(0.05)
        assert said == before < 2000
        found = [item async for item in buying]
    text += sum(len(item.text) for item in found if isinstance(item, Delta))
    assert text == 400_000
    assert isinstance(found[-1], Finished) and found[-1].reason == "stop"


def holding(context: int) -> tuple[Stall, list[int]]:
    """A driver for which a character is a token."""
    sizes: list[int] = []

    async def script(sale: Sale) -> None:
        prompt = await sale.claim(context, 1000)
        sizes.append(sum(len(turn.text) for turn in prompt.turns))
        if sizes[-1] > context:
            await sale.fail("too_large", limit=context)
        else:
            assert prompt.turns[0].role == "system" and prompt.turns[1].role == "user"
            await say(sale, "short enough", prompt=prompt)

    return Stall("maple", script, context=context), sizes


def long_chat(turns: int) -> tuple[ChatMessage, ...]:
    chat = [ChatMessage("system", "Be brief.")]
    for number in range(turns):
        chat += [ChatMessage("user", f"{number:04}" * 10), ChatMessage("assistant", f"{number:04}" * 10)]
    return (*chat, ChatMessage("user", "And now?"))


async def test_too_long_a_conversation_loses_its_oldest_turns_only_when_asked() -> None:
    said = long_chat(20)
    maple, sizes = holding(500)
    async with market(maple) as place:
        found = await told(place.buy(maple, said, failover="off"))
        assert found.end.error is not None and found.end.error.code == "prompt_too_long"
        assert "500 tokens" in found.end.error.message
        assert found.end.error.remedy.startswith("Drop the oldest turns")
        assert found.times.dropped_turns == 0 and len(sizes) == 1
        found = await told(place.buy(maple, said, failover="off", drop_oldest=True))
    assert found.text == "short enough"
    assert found.times.dropped_turns == len(said) - 1 - (sizes[-1] - len("Be brief.And now?")) // 40 - 1
    assert 100 < sizes[-1] <= 500


async def test_too_long_a_conversation_is_told_with_both_numbers() -> None:
    maple, sizes = holding(100)
    async with market(maple) as place:
        found = await told(place.buy(maple, long_chat(20), failover="off"))
    about = sizes[0] // 4 + 1
    assert found.end.error is not None
    assert found.end.error.message.endswith(f": it is about {about} tokens, where 100 fit.")


async def test_one_message_that_is_too_long_for_anybody() -> None:
    maple, sizes = holding(50)
    said = (ChatMessage("system", "Be brief."), ChatMessage("user", "word " * 30))
    async with market(maple) as place:
        found = await told(place.buy(maple, said, drop_oldest=True))
    assert found.end.error is not None and found.end.error.code == "prompt_too_long"
    assert len(sizes) == 1


async def test_a_driver_with_more_room_is_taken_when_one_has_too_little() -> None:
    maple, _ = holding(500)
    birch, oak = Stall("birch", saying("x"), context=500), Stall("oak", saying("y"), context=5000)
    async with market(maple, birch, oak) as place:
        await place.trust(maple)
        found = await told(place.buy(said=long_chat(20)))
    assert (found.text, found.readers) == ("y", ["maple", "oak"])
    maple, _ = holding(500)
    birch = Stall("birch", saying("x"), context=500)
    async with market(maple, birch) as place:
        await place.trust(maple)
        found = await told(place.buy(said=long_chat(20)))
    assert found.end.error is not None and found.end.error.code == "prompt_too_long"
    assert birch.orders == []


async def test_at_the_start_it_waits_for_nodes_to_be_heard_of() -> None:
    maple = Stall("maple", saying("Hello"))
    maple.seen = False
    async with market(maple) as place:
        for stall in (maple, None):
            buying = place.buy(stall)
            first = await anext(buying)
            assert isinstance(first, Waits) and (first.what, first.limit_s) == ("a driver", FIND_S)
            maple.seen = True
            assert Told([first, *[item async for item in buying]]).text == "Hello"
            maple.seen = False


async def test_who_is_not_there_is_said_at_once_when_others_are() -> None:
    maple, birch = Stall("maple", silent), Stall("birch", silent)
    maple.seen = False
    async with market(maple, birch) as place:
        found = await told(place.buy(maple))
        assert found.end.error is not None and found.end.error.code == "no_driver"
        assert found.waits == []


async def test_an_offline_node_says_so_at_once() -> None:
    maple = Stall("maple", silent)
    maple.seen = False
    notice = Notice("clock", "The clock is wrong.", "Set it.")
    async with market(maple) as place:
        for status, words in (
            (NetworkStatus("off"), "This node is offline, so no driver can be reached."),
            (NetworkStatus("blocked", notices=(notice,)), "The clock is wrong."),
        ):
            place.status = status
            found = await told(place.buy(maple))
            assert found.end.error is not None and found.end.error.code == "offline"
            assert found.end.error.message == words and found.waits == []


async def test_another_answers_for_a_driver_that_is_not_there_where_that_may_be() -> None:
    maple, birch = Stall("maple", silent), Stall("birch", saying("Hello"))
    maple.seen = False
    async with market(maple, birch) as place:
        found = await told(place.buy(maple, failover="auto"))
        assert (found.text, found.moves[0].part.reason) == ("Hello", "The driver is not on the network now.")
        other = await told(place.buy(maple, failover="auto", driver_model=OTHER_MODEL.hex()))
        odd = await told(place.buy(driver_model="no hex"))
    assert other.end.error is not None and other.end.error.code == "no_driver"
    assert odd.end.error is not None and odd.end.error.code == "no_model"


async def test_what_cannot_be_sent_is_said() -> None:
    maple = Stall("maple", silent)
    async with market(maple) as place:
        found = await told(place.buy(maple, sampling=Sampling(stop=("x",) * 99)))
        assert found.end.error is not None and found.end.error.code == "bad_request"
        lone = (ChatMessage("user", "\ud800"),)
        found = await told(place.buy(maple, lone))
        assert found.end.error is not None and found.end.error.code == "bad_request"
        huge = (ChatMessage("user", "x" * (wire.MAX_PROMPT + 1)),)
        found = await told(place.buy(maple, huge))
        assert found.end.error is not None and found.end.error.code == "prompt_too_long"
    assert maple.orders == []


async def test_a_name_is_only_shown_clean() -> None:
    maple = Stall("ma\x1b[31mple\u202e", refusing("internal"))
    nameless = Stall("\u200b", saying("x"))
    maple.model = nameless.model = orders_model("evil\x1b]0;\u202ename")
    async with market(maple, nameless) as place:
        failed = await told(place.buy(maple))
        whole = await told(place.buy(nameless))
    shown = str((failed.items, whole.items))
    assert "\x1b" not in shown and "\\x1b" not in shown and "\\u202e" not in shown
    assert failed.end.error is not None and failed.end.error.message.startswith("ma[31mple ")
    assert whole.waits[0].what == f"the connection with {id_text(nameless.id)[:8]}"


def orders_model(name: str) -> Any:
    return Stall("", silent).model.__class__(name, "llama", "Q4_0", MODEL, 4096, 1000, 0, 0)


async def test_the_node_closes_in_mid_answer() -> None:
    maple = Stall("maple", silent)
    maple.raw = stops_speaking
    async with market(maple) as place:
        buying = place.buy(maple)
        async for item in buying:
            if isinstance(item, Delta):
                break
        await place.buyer.close()
        assert [type(item).__name__ for item in [item async for item in buying]] == ["Times", "Finished"]


async def test_a_single_question_to_a_driver() -> None:
    maple = Stall("maple", saying("Hello"))
    engine, tasks = Engine(), TaskGroup()
    options = ChatOptions(driver=id_text(maple.id), system="Be brief.")
    async with market(maple) as place:

        def ask() -> Asking:
            return Asking(Models(lambda: engine, tasks), Settings(), "Hi", options, place.buyer)

        began, *items = [item async for item in ask()]
        assert began == AskBegan("", 0) and Told(items).text == "Hello"  # type: ignore[arg-type] # all but that
        stopped = ask()
        stopped.stop()
        assert [type(item) for item in [item async for item in stopped]] == [AskBegan, Times, Finished]
        left = ask()
        async for event in left:
            if isinstance(event, Delta):
                break
        await left.aclose()
        assert len(maple.orders) == 2
    assert engine.status.state == "off"


def test_who_answers_is_the_chats_choice_before_the_settings() -> None:
    settings = Settings(failover="off", temperature=0.5)
    assert wanted(ChatOptions(), settings) is None
    assert wanted(ChatOptions(driver="auto", top_k=3), settings) == Wanted(
        "auto", Sampling(temperature=0.5, top_k=3), None, "off"
    )
    remote = Settings(driver="auto")
    assert wanted(ChatOptions(driver="local"), remote) is None
    assert wanted(ChatOptions(driver="auto", failover="auto"), settings) == Wanted(
        "auto", Sampling(temperature=0.5), None, "auto"
    )
    assert wanted(ChatOptions(driver_model="00"), remote) == Wanted("auto", Sampling(), "00", "ask")
