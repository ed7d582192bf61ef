"""What a provider commits to of an answer, and what it opens of it later: to its user, as it was."""

from __future__ import annotations

import asyncio
import gc
import struct
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa import __version__
from infraxa.app import transcripts
from infraxa.app.fraud import Opened
from infraxa.app.models import Models
from infraxa.app.provider import Limits
from infraxa.app.till import Till
from infraxa.app.transcripts import Transcripts, Written
from infraxa.engine import gumbel, transcript
from infraxa.engine.host import Engine
from infraxa.engine.transcript import LEAF_BYTES, Leaf, Tree, encode_leaf, token_of
from infraxa.engine.types import Delta, ErrorInfo, Loaded, Verified
from infraxa.net import audits, codec, deals, wire
from infraxa.net.customers import Customer
from infraxa.net.link import StreamFailed
from infraxa.net.orders import Checkpoint, Claimed, Done, Piece
from infraxa.net.prompts import Format, Prompt, Tool, Turn
from infraxa.net.purchase import Item, OrderFailed
from infraxa.net.records import MODE_FRAUD_PROOF, MODE_MERKLE
from infraxa.net.sale import Sale
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import Store
from tests.app.checked import Wish, bought, ids_of, opened, wish
from tests.app.leaves import CTX0, leaves_of
from tests.app.selling import Scripted, ScriptedGeneration, Shop, scripted, selling
from tests.app.tills import facts_of, payer, selling_at
from tests.net.nodes import until

LONG: Any = {"temperature": 5_000_000, "top_k": 0, "top_p": 1_000_000, "min_p": 0}
"""So hot that the end of the turn hardly ever comes."""
ACCOUNT = bytes([1]) * 32
SECRET = bytes([2]) * 32
SALT = bytes([3]) * 32
PROMPT = Prompt((Turn("user", "?"),), salt=SALT, draw=bytes([4]) * 32)


def order_of(number: int = 0) -> wire.Order:
    return wire.Order(
        number.to_bytes(16, "big"),
        bytes(32),
        1,
        mode="merkle",
        prompt_hash=bytes(32),
        audit=codec.digest("audit", SECRET),
    )


def steps_of(order: wire.Order, count: int, start: int = 0) -> tuple[bytes, ...]:
    """Leaves of an answer whose tokens are the numbers of their steps."""
    return leaves_of(order.id, SALT, range(start, start + count), start)


def write(window: Transcripts, order: wire.Order, steps: int, account: bytes = ACCOUNT) -> Written:
    """One that was written, and is not over."""
    written = window.write(account, order)
    written.begin(PROMPT, "test")
    list(written.take(Delta("", (), leaves=steps_of(order, steps), ctx0=CTX0)))
    return written


def ended(written: Written) -> deals.Transcript:
    data = written.end(whole=True)
    assert data is not None and written.end(whole=True) == data
    return cast(deals.Transcript, codec.decode(data, deals.Transcript))


async def ask(
    window: Transcripts,
    order: wire.Order,
    *,
    account: bytes = ACCOUNT,
    secret: bytes = SECRET,
    all_: bool = False,
) -> bytes | wire.Failure:
    return await window.audit(Customer(account, "", False), wire.AuditPlease(order.id, secret, all_))


async def ask_opened(window: Transcripts, order: wire.Order, *, all_: bool = False) -> audits.Opening:
    data = await ask(window, order, all_=all_)
    assert isinstance(data, bytes)
    return audits.decode(data)


def check(
    said: deals.Transcript, order: bytes, secret: bytes, opening: audits.Opening, points: dict[int, bytes]
) -> list[Leaf]:
    """What was opened, when it is what was committed to: then by checkpoints, and at the end."""
    n = len(opening.tokens) // 4
    assert n == said.steps and sorted(points) == list(range(64, n + 1, 64))
    if len(opening.leaves) == n:
        tree = Tree()
        for leaf in opening.leaves:
            tree.append(leaf)
        assert transcript.committed(n, tree.root()) == said.root
        assert {at: transcript.committed(at, tree.root(at)) for at in points} == points
        assert not (opening.paths or opening.consistency or opening.root)
        return [transcript.decode_leaf(leaf) for leaf in opening.leaves]
    steps = transcript.challenge(secret, said.root, order, n, audits.OPENED)
    assert transcript.committed(n, opening.root) == said.root
    for step, leaf, path in zip(steps, opening.leaves, opening.paths, strict=True):
        assert transcript.verify_path(leaf, step, n, hashes(path), opening.root)
    for (at, point), proof in zip(sorted(points.items()), opening.consistency, strict=True):
        root, *rest = hashes(proof)
        assert transcript.committed(at, root) == point
        assert transcript.verify_consistency(at, n, root, opening.root, rest)
    return [transcript.decode_leaf(leaf) for leaf in opening.leaves]


def hashes(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def points_of(items: list[Item]) -> dict[int, bytes]:
    return {item.n: item.root for item in items if isinstance(item, Checkpoint)}


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=5), st.booleans())
def test_what_is_opened_is_what_was_committed_to(parts: list[int], all_: bool) -> None:
    async def go() -> None:
        window, order = Transcripts(), order_of()
        written = window.write(ACCOUNT, order)
        written.begin(PROMPT, "test")
        points: dict[int, bytes] = {}
        for count in parts:
            leaves = steps_of(order, count, written.steps)
            points.update(written.take(Delta("", (), leaves=leaves, ctx0=CTX0)))
        steps = sum(parts)
        said = ended(written)
        assert (said.steps, said.mode, said.draw_u) == (steps, "merkle", PROMPT.draw)
        assert codec.digest("draw", said.draw_p) == written.commit
        assert said.output == transcript.output_hash(SALT, range(steps))
        assert said.ctx0 == CTX0
        if steps:
            opening = await ask_opened(window, order, all_=all_)
            assert opening.tokens == struct.pack(f"<{steps}I", *range(steps))
            leaves_ = check(said, order.id, SECRET, opening, points)
            assert len(leaves_) == (steps if all_ else min(steps, audits.OPENED))
            assert await ask_opened(window, order, all_=all_) == opening, "the same again"
        window.close()

    asyncio.run(go())


async def test_only_its_user_has_an_answer_opened_and_only_so_often() -> None:
    window, order = Transcripts(), order_of()
    written = write(window, order, 40)
    running = await ask(window, order)
    assert isinstance(running, wire.Failure) and running.code == "audit_refused", "it is not over"
    ended(written)
    other = await ask(window, order, account=bytes([9]) * 32)
    assert other == running, "nobody else is told that there is one"
    assert isinstance(await ask(window, order, secret=bytes(32)), wire.Failure)
    assert isinstance(await ask(window, order_of(1)), wire.Failure)
    for _ in range(transcripts.MAX_ASKED):
        assert isinstance(await ask(window, order), bytes)
    assert await ask(window, order) == wire.Failure("audit_refused", limit=transcripts.MAX_ASKED)
    window.close()


async def test_what_nobody_would_take_is_not_opened_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    window, order = Transcripts(), order_of()
    said = ended(write(window, order, 1100))
    monkeypatch.setattr(audits, "MAX_OPENING", 1099 * transcripts.STEP_BYTES)
    assert await ask(window, order, all_=True) == wire.Failure("audit_refused", field="all")
    opening = await ask_opened(window, order)
    tree = Tree()
    for leaf in steps_of(order, 1100):
        tree.append(leaf)
    points = {n: transcript.committed(n, tree.root(n)) for n in range(64, 1101, 64)}
    check(said, order.id, SECRET, opening, points)
    window.close()


async def test_a_transcript_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "WINDOW_S", 0.05)
    monkeypatch.setattr(transcripts, "MAX_ASKED", 10_000)
    window, order = Transcripts(), order_of()
    ended(write(window, order, 3))
    found = await ask(window, order)
    assert isinstance(found, bytes)
    for _ in range(1000):
        await asyncio.sleep(0.01)
        found = await ask(window, order)
        if isinstance(found, wire.Failure):
            break
    assert found == wire.Failure("audit_refused", field="order")
    window.close()


async def test_what_was_served_and_cannot_be_opened_is_gone() -> None:
    served = {(ACCOUNT, order_of(1).id)}

    async def was(account: bytes, order: bytes) -> bool:
        return (account, order) in served

    window = Transcripts(served=was)
    assert await ask(window, order_of(1)) == wire.Failure("audit_refused", field="gone")
    assert await ask(window, order_of(2)) == wire.Failure("audit_refused", field="order")
    other = await ask(window, order_of(1), account=bytes([9]) * 32)
    assert other == wire.Failure("audit_refused", field="order")


async def test_the_oldest_go_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 10 * transcript.LEAF_BYTES + transcripts.KEPT_BYTES
    monkeypatch.setattr(transcripts, "MAX_BYTES", 3 * one)
    window = Transcripts()
    for number in range(4):
        ended(write(window, order_of(number), 10))
    there = [isinstance(await ask(window, order_of(number)), bytes) for number in range(4)]
    assert there == [False, True, True, True]
    # One that is being written pushes others out, and is given up when it alone is too much.
    large = write(window, order_of(9), 15)
    assert isinstance(await ask(window, order_of(3)), bytes)
    assert isinstance(await ask(window, order_of(2)), wire.Failure)
    assert list(large.take(Delta("", (), leaves=steps_of(order_of(9), 85, 15))))
    assert isinstance(await ask(window, order_of(3)), wire.Failure)
    said = ended(large)
    assert said.steps == 100 and said.output == transcript.output_hash(SALT, range(100))
    assert isinstance(await ask(window, order_of(9)), wire.Failure)
    assert window.room(ACCOUNT, 3 * one), "nothing is left of it"
    assert not window.room(ACCOUNT, 1)
    window.close()


async def test_who_has_much_pushes_out_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 10 * transcript.LEAF_BYTES + transcripts.KEPT_BYTES
    monkeypatch.setattr(transcripts, "MAX_BYTES", 4 * one)
    window, busy = Transcripts(), bytes([8]) * 32
    ended(write(window, order_of(0), 10))
    for number in range(1, 9):
        ended(write(window, order_of(number), 10, busy))
    assert isinstance(await ask(window, order_of(0)), bytes)
    there = [isinstance(await ask(window, order_of(number), account=busy), bytes) for number in range(1, 9)]
    assert there == [False] * 5 + [True] * 3
    # One that is being written and is the largest of all is not kept, rather than those of others.
    large = write(window, order_of(9), 10, bytes([7]) * 32)
    assert list(large.take(Delta("", (), leaves=steps_of(order_of(9), 60, 10)))), "it is committed to"
    ended(large)
    assert isinstance(await ask(window, order_of(0)), bytes)
    assert isinstance(await ask(window, order_of(9), account=bytes([7]) * 32), wire.Failure)
    # Whoever comes new has a place.
    ended(write(window, order_of(10), 10, bytes([6]) * 32))
    assert isinstance(await ask(window, order_of(10), account=bytes([6]) * 32), bytes)
    assert isinstance(await ask(window, order_of(0)), bytes)
    window.close()


async def test_what_is_written_counts_with_its_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    growing, other = 2 * transcript.HASH + audits.TOKEN, bytes([5]) * 32
    most = 10 * (LEAF_BYTES + growing)
    monkeypatch.setattr(transcripts, "MAX_BYTES", most)
    window = Transcripts()
    large = write(window, order_of(), 10)
    assert not window.room(other, 1)
    # One more is too much: it goes on without its leaves, of which there is room for others then.
    list(large.take(Delta("", (), leaves=steps_of(order_of(), 1, 10))))
    assert window.room(other, most - 11 * growing) and not window.room(other, 1)
    # Its tree grows also where there is no room.
    list(large.take(Delta("", (), leaves=steps_of(order_of(), 1, 11))))
    window.give_back(other, growing)
    assert not window.room(other, 1)
    ended(large)
    window.give_back(other, most - 12 * growing)
    assert window.room(other, most), "nothing is left of it"
    window.close()


async def test_a_token_takes_600_bytes_in_the_window_and_while_it_is_written_what_is_counted() -> None:
    window, steps = Transcripts(), 256
    ended(write(window, order_of(), 1))
    before = window._all

    def memory() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        empty = memory()
        written = write(window, order_of(1), steps)
        writing, counted = memory() - empty, window._all - before
        ended(written)
        del written
        kept, counted_kept = memory() - empty, window._all - before
    finally:
        tracemalloc.stop()
    # What grows has up to an eighth in reserve.
    assert steps * LEAF_BYTES < writing <= counted * 9 / 8 + transcripts.KEPT_BYTES
    assert steps * LEAF_BYTES < kept <= counted_kept + transcripts.KEPT_BYTES
    assert kept / steps <= 600 and counted_kept / steps <= 600
    window.close()


def test_what_was_said_is_not_shown() -> None:
    opened_ = Opened(b"\x01said\x02", 3, (), b"")
    leaf = transcript.decode_leaf(steps_of(order_of(), 1)[0])
    verified = Verified(bytes(16), b"\x01seed" * 6 + bytes(2), b"\x01salt" * 6 + bytes(2), (0, 0, 0, 0))
    kept = transcripts._Kept(bytes(16), b"\x01audit", b"", b"\x01leaves", cast(asyncio.TimerHandle, None))
    for one in (opened_, leaf, verified, kept):
        assert "\\x01" not in repr(one) and len(repr(one)) < 80
        assert all(not isinstance(value, bytes) for _, value in one.__rich_repr__())


def engine_of(shop: Shop) -> Scripted:
    return cast(Scripted, shop.engine)


def say_steps(generation: ScriptedGeneration, count: int, ids: int | None = None) -> None:
    """So many steps, of which so many tokens are said."""
    ids = count if ids is None else ids
    generation.say("word " * ids, ids, hidden=count - ids)


async def test_an_answer_is_committed_to_step_by_step(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        assert shop.offers[-1] is not None
        assert shop.offers[-1].models[0].modes == MODE_MERKLE | MODE_FRAUD_PROOF
        user, wished = await payer(shop), wish(mode="fraud_proof")
        items = asyncio.ensure_future(bought(user.user, wished))
        (generation,) = await engine_of(shop).asked(1)
        say_steps(generation, 1, 0)  # a control token
        say_steps(generation, 63)
        say_steps(generation, 100)
        say_steps(generation, 28, 0)
        generation.finish()
        came = await items
        points = points_of(came)
        assert sorted(points) == [64, 128, 192]
        pieces = [at for at, item in enumerate(came) if isinstance(item, Piece)]
        first = cast(Piece, came[pieces[0]])
        claimed = next(item for item in came if isinstance(item, Claimed))
        assert codec.digest("draw", first.draw) == claimed.commit
        done = cast(Done, came[-1])
        assert (done.steps, done.n_out) == (192, 163)
        receipt = facts_of(await user.receipt(wished.id))
        said = receipt.transcript
        assert said is not None and (said.mode, said.steps) == ("fraud_proof", 192)
        assert (said.draw_u, said.draw_p) == (wished.prompt.draw, first.draw)
        assert points[192] == said.root
        verified = generation.request.verified
        assert verified is not None and verified.order == wished.id and verified.salt == wished.prompt.salt
        assert verified.seed == gumbel.seed_of(wished.id, said.draw_u, said.draw_p, receipt.request)
        assert verified.ppm == (0, 40, 950_000, 50_000)
        check(said, wished.id, wished.secret, await opened(user.user, wished, 192), points)
        with pytest.raises(StreamFailed) as refused:
            await opened(await shop.user(), wished, 192)
        assert refused.value.failure.code == "audit_refused"


async def test_what_is_said_was_committed_to_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[int] = []
    """Tokens of pieces; steps of checkpoints, below 0."""
    piece, checkpoint = Sale.piece, Sale.checkpoint

    async def say(sale: Sale, text: str, ids: tuple[int, ...], *rest: Any) -> None:
        said.append(len(ids))
        await piece(sale, text, ids, *rest)

    async def commit(sale: Sale, n: int, root: bytes) -> None:
        said.append(-n)
        await checkpoint(sale, n, root)

    monkeypatch.setattr(Sale, "piece", say)
    monkeypatch.setattr(Sale, "checkpoint", commit)
    async with scripted(tmp_path) as shop:
        await shop.open()
        items = asyncio.ensure_future(bought(await shop.user(), wish()))
        (generation,) = await engine_of(shop).asked(1)
        for count in (63, 1, 200, 1):
            say_steps(generation, count)
        generation.finish()
        await items
    assert said == [63, -64, 1, -128, -192, -256, 200, 1]


async def test_the_draw_is_told_once_also_in_small_parts(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(upload_limit=1)
        items = asyncio.ensure_future(bought(await shop.user(), wish()))
        (generation,) = await engine_of(shop).asked(1)
        say_steps(generation, 120)
        generation.finish()
        came = await items
        draws = [item.draw for item in came if isinstance(item, Piece)]
        assert len(draws) > 1 and len(draws[0]) == 32 and not any(draws[1:])
        assert cast(Done, came[-1]).steps == 120


async def test_an_answer_that_begins_anew_has_the_same_draw(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user, wished = await payer(shop), wish()
        items = asyncio.ensure_future(bought(user.user, wished))
        (first,) = await engine_of(shop).asked(1)
        say_steps(first, 2, 0)
        first.finish(ErrorInfo("worker_died", "It died."))
        second = (await engine_of(shop).asked(2))[1]
        assert second.request.verified == first.request.verified
        say_steps(second, 5)
        second.finish()
        came = await items
        commits = [item.commit for item in came if isinstance(item, Claimed)]
        assert len(commits) == 2 and commits[0] == commits[1]
        said = facts_of(await user.receipt(wished.id)).transcript
        assert said is not None and said.steps == cast(Done, came[-1]).steps == 5
        opening = await opened(user.user, wished, 5)
        assert [leaf.step for leaf in check(said, wished.id, wished.secret, opening, {})] == [0, 1, 2, 3, 4]


async def test_what_was_cancelled_is_committed_to_as_far_as_it_came(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user, wished = await payer(shop), wish()
        came: list[Item] = []

        async def say() -> None:
            say_steps((await engine_of(shop).asked(1))[0], 70)

        async with asyncio.timeout(30), user.user.buy(prompt=wished.prompt, **wished.fields) as purchase:
            saying = asyncio.ensure_future(say())
            async for item in purchase:
                came.append(item)
                if isinstance(item, Piece):
                    break
        await saying
        await shop.state("cancelled")
        await shop.free()
        receipt = facts_of(await user.receipt(wished.id))
        said = receipt.transcript
        assert receipt.outcome == "cancelled" and said is not None and said.steps == 70
        opening = await opened(user.user, wished, 70)
        check(said, wished.id, wished.secret, opening, points_of(came))
        tokens = struct.unpack("<70I", opening.tokens)
        assert list(tokens[: len(ids_of(came))]) == ids_of(came) != []


async def test_nothing_is_committed_to_before_anything_was_sampled(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        user, wished = await payer(shop), wish()
        items = asyncio.ensure_future(bought(user.user, wished))
        (generation,) = await engine_of(shop).asked(1)
        generation.finish(ErrorInfo("compute_failed", "It failed."))
        with pytest.raises(OrderFailed):
            await items
        receipt = facts_of(await user.receipt(wished.id))
        assert (receipt.outcome, receipt.transcript) == ("failed", None)
        await user.pay(wished.id)
        # An answer that is whole, and empty.
        wished = wish()
        items = asyncio.ensure_future(bought(user.user, wished))
        (await engine_of(shop).asked(2))[1].finish()
        assert cast(Done, (await items)[-1]).steps == 0
        said = facts_of(await user.receipt(wished.id)).transcript
        assert said is not None and said.steps == 0


async def test_a_cache_of_four_bits_cannot_be_checked(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open(kv_type="q4_0")
        assert shop.offers[-1] is not None and not shop.offers[-1].models[0].modes
        wished = wish()
        failed = await (await shop.user()).refused(prompt=wished.prompt, **wished.fields)
        assert (failed.code, failed.sent) == ("unsupported", False)


@pytest.mark.parametrize(
    "more",
    [
        {"format": Format("json_object")},
        {"tools": (Tool("look"),), "tool_choice": "required"},
        {"tools": (Tool("look"),), "tool_choice": "look"},
    ],
)
async def test_what_cannot_be_drawn_freely_is_refused(tmp_path: Path, more: Any) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        wished = wish(prompt=Prompt((Turn("user", "?"),), salt=SALT, draw=SALT, **more))
        failed = await (await shop.user()).refused(prompt=wished.prompt, **wished.fields)
        assert failed.code == "unsupported"
        assert not engine_of(shop).generations


async def test_a_receipt_of_another_run_commits_to_the_same(tmp_path: Path) -> None:
    async with selling_at(tmp_path) as (shop, time):
        user = await payer(shop)
        order = await user.order()
        wished = wish(quote=order["quote"], hold=order["hold"])
        items = asyncio.ensure_future(bought(user.user, wished))
        (generation,) = await engine_of(shop).asked(1)
        say_steps(generation, 70)
        generation.finish()
        points = points_of(await items)
        order = await user.order()
        running = wish(quote=order["quote"], hold=order["hold"])
        lost = asyncio.ensure_future(bought(user.user, running))
        say_steps((await engine_of(shop).asked(2))[1], 70)
        await shop.state("answering")

        again = Till(clock=time)
        again.open(shop.store)
        again.identity = lambda: shop.identity
        customer = Customer(user.key, "", False)

        async def receipt(number: bytes) -> deals.Receipt:
            billed = await again.bargain(customer, wire.ReceiptPlease(number))
            assert isinstance(billed, wire.Billed) and billed.receipt is not None
            return facts_of(billed.receipt)

        said = (await receipt(wished.id)).transcript
        assert said is not None and said.steps == 70
        # What is opened is lost with the program, but not what it fits to.
        check(said, wished.id, wished.secret, await opened(user.user, wished, 70), points)
        assert isinstance(
            await again.transcripts.audit(customer, wire.AuditPlease(wished.id, wished.secret)), wire.Failure
        )
        await user.pay(wished.id)
        other = await receipt(running.id)
        assert (other.outcome, other.charge, other.transcript) == ("failed", 0, None)
        lost.cancel()
        await asyncio.wait([lost])
        await again.close()


class Real:
    """A provider with the real engine and the guide model."""

    def __init__(self, shop: Shop, engine: Engine) -> None:
        self.shop = shop
        self.engine = engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Real]:
    tasks = TaskGroup()
    engine = Engine(on_status=lambda status: models.engine_changed())
    models = Models(lambda: engine, tasks)
    store = await Store.open(tmp_path_factory.mktemp("real"))
    models.open(store)
    async with selling(engine, models, store, limits=Limits(look=0.1)) as shop:
        models.on_change = shop.provider.engine_changed
        await shop.open()
        yield Real(shop, engine)
    await tasks.cancel_all()
    await engine.close()
    await store.close()


in_module = pytest.mark.asyncio(loop_scope="module")


def redrawn(wished: Wish, said: deals.Transcript, request: bytes, leaves: list[Leaf]) -> list[int]:
    """The tokens as they have to be, by what was committed to."""
    fields = wished.fields
    draw = gumbel.draw_of(*(fields[name] for name in ("temperature", "top_k", "top_p", "min_p")))
    seed = gumbel.seed_of(wished.id, said.draw_u, said.draw_p, request)
    return [gumbel.choose(leaf.ids, leaf.q, draw, seed, leaf.step) for leaf in leaves]


@in_module
async def test_what_a_real_engine_says_is_drawn_from_what_is_committed_to(real: Real) -> None:
    user = await payer(real.shop)
    for _ in range(50):  # some end soon, by chance
        wished = wish("Tell me a story.", max_tokens=150, **LONG)
        came = await bought(user.user, wished)
        done = cast(Done, came[-1])
        receipt = facts_of(await user.receipt(wished.id))
        await user.pay(wished.id)
        if done.steps > 64:
            break
    said = receipt.transcript
    assert said is not None and said.steps == done.steps >= done.n_out == receipt.n_out >= 64
    loaded = cast(Loaded, real.engine.status.loaded)
    assert said.profile == f"{loaded.version}+{__version__}/cpu/f16/auto" and loaded.version
    opening = await opened(user.user, wished, said.steps, all_=True)
    leaves = check(said, wished.id, wished.secret, opening, points_of(came))
    tokens = [leaf.token for leaf in leaves]
    assert redrawn(wished, said, receipt.request, leaves) == tokens
    assert opening.tokens == struct.pack(f"<{said.steps}I", *tokens)
    assert transcript.output_hash(wished.prompt.salt, tokens) == said.output
    ctx, salt = said.ctx0, wished.prompt.salt
    for step, leaf in enumerate(leaves):
        assert (leaf.order, leaf.step, leaf.ctx) == (wished.id, step, ctx)
        assert leaf.tag == transcript.leaf_tag(salt, step)
        ctx = transcript.ctx_next(ctx, leaf.token)
    rest = iter(tokens)
    assert all(token in rest for token in ids_of(came)), "what was said is among it, in order"
    assert [leaf.flags for leaf in leaves[:-1]] == [0] * (said.steps - 1)
    assert leaves[-1].flags == (transcript.LENGTH if done.finish == "length" else transcript.EOS)
    some = await opened(user.user, wished, said.steps)
    assert len(some.leaves) == audits.OPENED
    check(said, wished.id, wished.secret, some, points_of(came))


@in_module
async def test_the_token_that_ends_the_turn_is_committed_to(real: Real) -> None:
    user, wished = await payer(real.shop), wish("What is 2+2?", temperature=0)
    came = await bought(user.user, wished)
    done = cast(Done, came[-1])
    assert (done.finish, done.steps) == ("stop", done.n_out + 1)
    receipt = facts_of(await user.receipt(wished.id))
    await user.pay(wished.id)
    assert receipt.transcript is not None
    opening = await opened(user.user, wished, done.steps, all_=True)
    leaves = check(receipt.transcript, wished.id, wished.secret, opening, points_of(came))
    assert [leaf.token for leaf in leaves[:-1]] == ids_of(came) and leaves[-1].flags == transcript.EOS
    assert all(leaf.token == leaf.ids[0] for leaf in leaves), "the likeliest, as was asked for"


@in_module
async def test_what_a_stop_string_ends_is_committed_to(real: Real) -> None:
    prompt = Prompt((Turn("user", "What is 2+2?"),), ("4",), salt=SALT, draw=SALT)
    user, wished = await payer(real.shop), wish(prompt=prompt, temperature=0)
    done = cast(Done, (await bought(user.user, wished))[-1])
    opening = await opened(user.user, wished, done.steps, all_=True)
    assert transcript.decode_leaf(opening.leaves[-1]).flags == transcript.STOP
    await user.pay(wished.id)


@in_module
async def test_answers_that_can_be_checked_run_beside_each_other(real: Real) -> None:
    shop = real.shop
    user = await payer(shop)
    wished = [wish(str(number), max_tokens=80, **LONG) for number in range(2)]
    both = await asyncio.gather(*(bought(user.user, one) for one in wished))
    for one, came in zip(wished, both, strict=True):
        receipt = facts_of(await user.receipt(one.id))
        await user.pay(one.id)
        assert receipt.transcript is not None
        opening = await opened(user.user, one, receipt.transcript.steps, all_=True)
        leaves = check(receipt.transcript, one.id, one.secret, opening, points_of(came))
        assert redrawn(one, receipt.transcript, receipt.request, leaves) == [leaf.token for leaf in leaves]
    await until(lambda: not shop.customers.sales)


def test_what_is_sent_has_the_sizes_of_what_is_committed_to() -> None:
    assert (audits.MAX_LEAF, audits.HASH) == (LEAF_BYTES, transcript.HASH)
    leaf = Leaf(bytes(16), 3, bytes(32), 0x01020304, 0, tuple(range(64)), (0,) * 64, bytes(16))
    data = encode_leaf(leaf)
    assert len(data) == audits.MAX_LEAF and len(token_of(data)) == audits.TOKEN
    assert int.from_bytes(token_of(data), "little") == leaf.token
