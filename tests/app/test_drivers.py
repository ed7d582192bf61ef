"""What a node remembers of drivers, over a restart too, what it lists of them, and whom a person means."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from infraxa.app import drivers as module
from infraxa.app.drivers import Drivers
from infraxa.app.errors import NodeError
from infraxa.app.offers import OfferSeen
from infraxa.net.identity import display, id_text, short_id
from infraxa.net.ratings import DAY_MS, Rating
from infraxa.net.records import ModelOffer, PriceNow
from infraxa.net.reputation import Counterparty
from infraxa.net.routing import Outcome
from infraxa.net.status import SeenNode
from infraxa.store import drivers as kept
from infraxa.store.db import Store
from infraxa.store.folder import DATABASE_NAME
from infraxa.store.records import DriverRecord
from tests.app.networked import until

QWEN = ModelOffer("qwen", "qwen3", "Q4_K_M", b"q" * 32, 4096, 512, 7, 9)
GUIDE = ModelOffer("guide", "llama", "Q8_0", b"g" * 32, 512, 256, 0, 0)
ANSWERED = Outcome("answered", first_token_ms=200.0, tokens_per_second=20.0)
START = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = START

    def __call__(self) -> int:
        return self.now_ms


def node(first: int, *models: ModelOffer, name: str = "maple", **other: object) -> SeenNode:
    """Its id begins with the byte `first`."""
    seen = SeenNode(
        id=bytes([first]) * 5 + b"n" * 27, name=name, status="online", age_s=1.0, addresses=(), relays=(),
        slots=2, util=0, models=models or (QWEN,), prices=(), first_token_ms=0,
    )  # fmt: skip
    return replace(seen, **other)


def order_of(offers: list[OfferSeen]) -> list[int]:
    return [offer.node.id[0] for offer in offers]


class Told:
    def __init__(self) -> None:
        self.changes = 0

    def __call__(self) -> None:
        self.changes += 1


@asynccontextmanager
async def opened(
    folder: Path, clock: Clock | None = None, told: Told | None = None
) -> AsyncIterator[Drivers]:
    clock = clock or Clock()
    async with await Store.open(folder) as store:
        drivers = Drivers(told or Told(), clock=clock, rng=random.Random(3))
        await drivers.open(store)
        try:
            yield drivers
        finally:
            await drivers.close()


async def test_what_was_seen_and_said_is_there_after_a_restart(tmp_path: Path) -> None:
    one, other, third = node(1), node(2, QWEN, GUIDE), node(3)
    clock, told = Clock(), Told()
    async with opened(tmp_path, clock, told) as drivers:
        for outcome in (ANSWERED, Outcome("failed")):
            await drivers.observed(other.id, GUIDE.model_id, outcome)
        await drivers.mark(one.id, "blocked")
        await drivers.mark(other.id, "pinned")
        await drivers.mark(third.id, "pinned")
        await drivers.mark(third.id, "")
        assert told.changes == 6
        before = drivers.offers([one, other, third])
    async with opened(tmp_path, clock) as drivers:
        assert drivers.offers([one, other, third]) == before
    by_model = {(offer.node.id, offer.model.name): offer for offer in before}
    guide = by_model[other.id, "guide"]
    assert (guide.answered, guide.failed, guide.success) == (1, 1, 0.5)
    assert (guide.first_token_ms, guide.tokens_per_second, guide.cooling_s) == (200.0, 20.0, 8.0)
    untried = by_model[other.id, "qwen"]
    assert (untried.answered, untried.success, untried.mark) == (0, None, "pinned")
    assert by_model[third.id, "qwen"].mark == ""


async def test_what_was_seen_is_written_while_the_program_runs_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.05)
    writes = 0

    def counted(*given: object) -> None:
        nonlocal writes
        writes += 1
        keep(*given)  # type: ignore[arg-type]

    keep = kept.keep_drivers
    monkeypatch.setattr(kept, "keep_drivers", counted)

    def on_disk() -> list[int]:
        with sqlite3.connect(tmp_path / DATABASE_NAME) as look:
            rows = look.execute("SELECT evidence FROM drivers WHERE model <> x''").fetchall()
        look.close()
        return sorted(msgspec.json.decode(evidence)["answered"] for (evidence,) in rows)

    async with opened(tmp_path) as drivers:
        for number in range(30):
            await drivers.observed(node(number % 10).id, QWEN.model_id, ANSWERED)
        await until(lambda: on_disk() == [3] * 10, "all are on disk")
        await drivers.observed(node(4).id, QWEN.model_id, ANSWERED)
        await until(lambda: on_disk() == [*[3] * 9, 4], "the one that is newer is, too")
    assert writes == 2


async def test_evidence_of_more_than_the_bound_is_forgotten_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "DRIVERS_KEPT", 6)  # of each node two: its model, and all of them
    all_of_them = [node(number) for number in range(5)]
    async with opened(tmp_path) as drivers:
        for number in (0, 1, 2, 0, 3, 4):  # 0 is heard of again
            await drivers.observed(all_of_them[number].id, QWEN.model_id, ANSWERED)
        known = {offer.node.id[0] for offer in drivers.offers(all_of_them) if offer.answered}
        assert known == {0, 3, 4}
    async with opened(tmp_path) as drivers:
        assert {offer.node.id[0] for offer in drivers.offers(all_of_them) if offer.answered} == {0, 3, 4}


async def test_a_disk_that_fails_takes_nothing_from_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await Store.open(tmp_path)
    drivers = Drivers(Told())
    await drivers.open(store)
    await store.close()
    await drivers.observed(node(1).id, QWEN.model_id, ANSWERED)
    await drivers.close()
    assert drivers.offers([node(1)])[0].answered == 1
    assert [record.message for record in caplog.records] == [
        "what was seen of drivers is not kept: The store is closed."
    ]
    with pytest.raises(NodeError, match="not open"):
        await drivers.mark(node(1).id, "pinned")


async def test_what_another_version_wrote_is_left_alone(tmp_path: Path) -> None:
    async with await Store.open(tmp_path) as store:
        strange = DriverRecord(node(1).id, QWEN.model_id, 1, b'{"answered": "many"}')
        newer = DriverRecord(node(2).id, QWEN.model_id, 1, b'{"answered": 2, "stars": 5}')
        await store.run(kept.keep_drivers, [strange, newer])
    async with opened(tmp_path) as drivers:
        assert [offer.answered for offer in drivers.offers([node(1), node(2)])] == [0, 2]


async def test_offers_in_the_order_of_what_one_would_choose(tmp_path: Path) -> None:
    none = node(20, slots=0), node(21, models=())
    slow, fast = node(1, first_token_ms=5000), node(2, first_token_ms=50)
    busy, gone = node(3, status="busy"), node(4, status="offline")
    pinned, blocked = node(5, first_token_ms=9000), node(6, first_token_ms=1)
    both = node(7, GUIDE, QWEN, first_token_ms=60)
    nodes = [*none, gone, blocked, busy, slow, both, fast, pinned]
    async with opened(tmp_path) as drivers:
        await drivers.mark(pinned.id, "pinned")
        await drivers.mark(blocked.id, "blocked")
        listed = drivers.offers(nodes)
        assert order_of(listed) == [5, 2, 7, 7, 1, 3, 4, 6]
        assert [offer.problem for offer in listed if offer.node in (gone, blocked)] == [
            "It is offline.",
            "You blocked this provider.",
        ]
        assert not any(offer.problem for offer in listed if offer.node not in (gone, blocked))
        # A problem is what it says: each of the others can be the driver.
        for offer in listed:
            if not offer.problem:
                found = drivers.find(nodes, id_text(offer.node.id), offer.model.model_id.hex())
                assert found == offer
        # What was measured goes before what is claimed.
        for _ in range(3):
            await drivers.observed(fast.id, QWEN.model_id, replace(ANSWERED, tokens_per_second=0.5))
        assert order_of(drivers.offers(nodes))[:4] == [5, 7, 7, 1]


async def test_what_every_node_has_anyway_comes_after_other_models(tmp_path: Path) -> None:
    quick, slow = node(1, GUIDE, first_token_ms=1), node(2, first_token_ms=5000)
    busy = node(3, status="busy")
    async with opened(tmp_path) as drivers:
        assert order_of(drivers.offers([slow, quick, busy])) == [1, 2, 3]
        drivers.fallback = frozenset({GUIDE.model_id})
        assert order_of(drivers.offers([slow, quick, busy])) == [2, 1, 3]
        assert (drivers.choose([quick, slow]) or pytest.fail()).node == slow
        assert (drivers.choose([quick, slow], GUIDE.model_id) or pytest.fail()).node == quick


async def test_a_price_is_that_of_now(tmp_path: Path) -> None:
    dear = node(1, GUIDE, QWEN, prices=(PriceNow(1, 70, 90), PriceNow(5, 1, 1)))
    async with opened(tmp_path) as drivers:
        prices = {offer.model.name: (offer.price_in, offer.price_out) for offer in drivers.offers([dear])}
    assert prices == {"guide": (0, 0), "qwen": (70, 90)}


async def test_choosing_by_model_room_and_what_was_seen(tmp_path: Path) -> None:
    clock = Clock()
    small, large = node(1, GUIDE, first_token_ms=60_000), node(2, QWEN)
    nodes = [small, large]
    async with opened(tmp_path, clock) as drivers:

        def chosen(
            model: bytes | None = None, context: int = 1, exclude: Collection[bytes] = ()
        ) -> int | None:
            """The first byte of its id."""
            offer = drivers.choose(nodes, model, context, exclude)
            return None if offer is None else offer.node.id[0]

        assert chosen() == 2
        assert chosen(GUIDE.model_id) == 1 and chosen(exclude={large.id}) == 1
        assert chosen(context=1000) == 2 and chosen(context=5000) is None
        assert chosen(exclude={small.id, large.id}) is None
        await drivers.mark(large.id, "blocked")
        assert chosen() == 1 and chosen(QWEN.model_id) is None
        await drivers.mark(large.id, "")
        await drivers.observed(large.id, QWEN.model_id, Outcome("failed"))
        assert chosen() == 1 and chosen(QWEN.model_id) == 2
        clock.now_ms += 8000
        assert chosen() == 2
        await drivers.mark(small.id, "pinned")
        assert chosen() == 1


async def test_another_model_sheds_no_failure(tmp_path: Path) -> None:
    clock = Clock()
    hostile, other = node(1), node(2)
    renamed = node(1, replace(QWEN, model_id=b"z" * 32))
    async with opened(tmp_path, clock) as drivers:
        for _ in range(4):
            await drivers.observed(hostile.id, QWEN.model_id, Outcome("failed"))
            clock.now_ms += 8_000
        (offer,) = drivers.offers([renamed])
        assert (offer.cooling_s, offer.answered, offer.failed, offer.success) == (8.0, 0, 0, None)
        assert order_of(drivers.offers([renamed, other])) == [2, 1], "it is expected to fail again"
        assert {drivers.choose([renamed, other]).node.id[0] for _ in range(20)} == {2}  # type: ignore[union-attr]
    async with opened(tmp_path, clock) as drivers:
        assert drivers.offers([renamed])[0].cooling_s == 8.0
        await drivers.observed(hostile.id, b"z" * 32, ANSWERED)
        assert drivers.offers([hostile])[0].cooling_s == 0.0


async def test_the_price_of_the_moment_counts_not_that_of_the_card(tmp_path: Path) -> None:
    paid = replace(QWEN, price_in=50_000, price_out=200_000)
    risen = node(1, paid, prices=(PriceNow(0, 2_500_000, 10_000_000),))
    steady = node(2, paid)
    async with opened(tmp_path) as drivers:
        nodes = [risen, steady]
        assert order_of(drivers.offers(nodes)) == [2, 1]
        assert {drivers.choose(nodes).node.id[0] for _ in range(20)} == {2}  # type: ignore[union-attr]
        fallen = replace(risen, prices=(PriceNow(0, 0, 0),))
        assert {drivers.choose([fallen, steady]).node.id[0] for _ in range(20)} == {1}  # type: ignore[union-attr]
        # The second model of a card has its own price.
        two = node(3, GUIDE, paid, prices=(PriceNow(1, 1, 2),))
        assert [(one.price_in, one.price_out) for one in drivers.offers([two])] == [(0, 0), (1, 2)]


async def test_nobody_is_chosen_beyond_the_price_cap_and_that_is_said(tmp_path: Path) -> None:
    dear = node(1, replace(QWEN, price_in=50_000, price_out=200_000))
    busy = replace(dear, status="busy")
    async with opened(tmp_path) as drivers:
        for cap, found in ((200_000, True), (199_999, False), (None, True)):
            assert (drivers.choose([dear], max_price=cap) is not None) is found
        error = drivers.nobody([dear], max_price=150_000)
        assert error.code == "no_driver" and "0.15 credits per million" in error.message and error.remedy
        # It is not waited for, since it would not be asked.
        assert drivers.room_in([busy], max_price=150_000) is None
        assert drivers.room_in([busy], max_price=200_000) == 0
        assert drivers.nobody([busy], max_price=200_000).code == "busy"
        assert drivers.nobody([busy], max_price=150_000).code == "no_driver"


async def test_what_is_thought_of_a_provider_is_shown_and_counts_when_it_weighs(tmp_path: Path) -> None:
    friend, day = b"f" * 32, START // DAY_MS

    def rating(account: bytes, stars: int, of: SeenNode) -> Rating:
        return Rating(of.id, account, stars, day, 20, b"o" * 16)

    one, other = node(1), node(2)
    said = {
        one.id: [rating(friend, 1, one), *(rating(bytes([n]) * 32, 5, one) for n in range(50))],
        other.id: [rating(b"x" * 32, 1, other)],
    }
    async with opened(tmp_path) as drivers:
        (fresh,) = drivers.offers([one])
        assert (fresh.stars, fresh.ratings, fresh.unweighted, fresh.new) == (None, 0, 0, True)
        drivers.reputations.ratings_of = lambda node: said.get(node, ())
        (fresh,) = drivers.offers([one])
        assert (fresh.stars, fresh.ratings, fresh.unweighted) == (None, 0, 51), "anybody can say anything"
        drivers.reputations.counterparties = {friend: Counterparty(10**6)}
        (known,) = drivers.offers([one])
        assert known.stars is not None and known.stars < 3 and (known.ratings, known.unweighted) == (1, 50)
        assert order_of(drivers.offers([one, other])) == [2, 1]
        assert {drivers.choose([one, other]).node.id[0] for _ in range(20)} == {2}  # type: ignore[union-attr]
        # What was seen here goes before what is said.
        for _ in range(10):
            await drivers.observed(one.id, QWEN.model_id, ANSWERED)
        (known,) = drivers.offers([one])
        assert known.stars is not None and known.stars > 4 and not known.new
        (renamed,) = drivers.offers([node(1, GUIDE)])
        assert not renamed.new, "answers of all its models count"
        slow = drivers.offers([node(1, replace(QWEN, speed=200_000))])[0]
        assert slow.stars is not None and slow.stars < known.stars, "a tenth of what it promised"


async def test_why_there_is_nobody_says_what_is_closest(tmp_path: Path) -> None:
    async with opened(tmp_path) as drivers:

        def why(*nodes: SeenNode, model: bytes | None = None, context: int = 1, tried: int = 99) -> str:
            exclude = {node(tried).id}
            assert drivers.choose(nodes, model, context, exclude) is None
            error = drivers.nobody(nodes, model, context, exclude if tried != 99 else ())
            assert error.code == ("busy" if "busy" in error.message else "no_driver") and error.remedy
            return error.message

        gone = node(9, status="offline")
        assert "Nobody on the network offers" in why() == why(node(1, slots=0))
        assert "offline or blocked" in why(gone)
        assert "no other provider" in why(node(1), gone, tried=1)
        assert "offers this model" in why(node(1), gone, model=b"x" * 32)
        assert "room for 5000 tokens" in why(node(1), gone, context=5000)
        assert "busy" in why(node(1, status="busy"), node(2), gone, context=1, tried=2)
        await drivers.observed(node(1).id, QWEN.model_id, Outcome("refused", code="busy"))
        assert "busy" in why(node(1), gone)


async def test_a_driver_is_found_by_its_id_however_it_is_written(tmp_path: Path) -> None:
    one, other = node(1), node(2, GUIDE, QWEN, name="wil\u202elow")
    nodes = [one, other]
    async with opened(tmp_path) as drivers:
        for text in (
            id_text(other.id),
            id_text(other.id).upper(),
            id_text(other.id)[:4],
            id_text(other.id).replace("0", "o").replace("1", "l"),
            display(other.name, other.id),
            f" {short_id(other.id)} ",
        ):
            found = drivers.find(nodes, text)
            assert found.node == other and found.model == GUIDE, text
        assert drivers.find(nodes, short_id(other.id), QWEN.model_id.hex().upper()).model == QWEN


async def test_a_driver_that_is_not_found_has_a_reason(tmp_path: Path) -> None:
    one, twin, away = node(1), node(1, id=b"\x01" * 32, name="willow"), node(3, status="offline")
    empty, blocked = node(4, slots=0), node(5)
    nodes = [one, twin, away, empty, blocked]
    async with opened(tmp_path) as drivers:
        await drivers.mark(blocked.id, "blocked")

        def why(text: str, model: str | None = None) -> str:
            with pytest.raises(NodeError) as caught:
                drivers.find(nodes, text, model)
            assert caught.value.code == "no_driver" and caught.value.remedy
            return f"{caught.value.message} {caught.value.remedy}"

        for text in (short_id(one.id), display("anything", one.id)):
            assert display("maple", one.id) in why(text) and display("willow", twin.id) in why(text)
        assert "not on the network" in why(id_text(b"x" * 32))
        for text in ("", "0", "·", "zzzz", "nobody", "\x1b[2J"):
            assert "begins so" in why(text) and "\x1b" not in why(text)
        # A name alone chooses nobody, not even when there is one that has it.
        assert "by its id" in why("Willow") and display("willow", twin.id) in why("Willow")
        assert f"{display('maple', away.id)} is offline" in why(id_text(away.id))
        assert "offers no model" in why(id_text(empty.id))
        assert "You blocked" in why(id_text(blocked.id))
        assert "this model any more" in why(id_text(one.id), "00" * 32)


async def test_names_in_a_sentence_are_few(tmp_path: Path) -> None:
    crowd = [node(1, id=b"\x01" * 5 + bytes([number]) * 27, name=f"n{number}") for number in range(9)]
    async with opened(tmp_path) as drivers:
        with pytest.raises(NodeError, match=r"n3·\w+ and 5 more"):
            drivers.find(crowd, short_id(crowd[0].id))


async def test_what_this_machine_asks_for_at_once_is_spread(tmp_path: Path) -> None:
    """Nobody has said yet how busy it is: one's own orders are known before."""
    nodes = [node(number) for number in range(1, 6)]
    async with opened(tmp_path) as drivers:
        with contextlib.ExitStack() as under_way:
            asked: Counter[int] = Counter()
            for _ in range(30):
                offer = drivers.choose(nodes)
                assert offer is not None
                under_way.enter_context(drivers.asked(offer.node.id))
                asked[offer.node.id[0]] += 1
        assert len(asked) == 5 and max(asked.values()) - min(asked.values()) <= 3, asked
        with drivers.asked(nodes[0].id):
            assert {drivers.choose(nodes[:2]).node.id[0] for _ in range(20)} == {2}  # type: ignore[union-attr]
