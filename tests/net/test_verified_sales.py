"""Orders that are to be checked, between two nodes on real sockets: what each side takes of the other."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.net import codec, customers, orders, prompts, wire
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.link import Stream
from infraxa.net.orders import CHECKPOINT, Checkpoint, Claimed, Done, Frame, Piece, encode_frame
from infraxa.net.patience import Patience
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Purchase
from infraxa.net.sale import Sale
from tests.net.nodes import until
from tests.net.test_sale_purchase import Shop, shop

DRAW = os.urandom(32)
COMMIT = codec.digest("draw", DRAW)
SALTED = Prompt((Turn("user", "What is a maple?"),), salt=os.urandom(32), draw=os.urandom(32))
ROOTS = [os.urandom(32) for _ in range(4)]


def an_order(prompt: Prompt = SALTED, **changed: Any) -> wire.Order:
    data = prompts.encode_prompt(prompt)
    fields: dict[str, Any] = {
        "mode": "fraud_proof",
        "prompt_hash": codec.digest("prompt", data),
        "audit": codec.digest("audit", bytes(32)),
    }
    return wire.Order(os.urandom(16), bytes(32), len(data), **(fields | changed))


def purchase(here: Shop, order: wire.Order | None = None, prompt: Prompt = SALTED) -> Purchase:
    return Purchase(
        here.link, order or an_order(), prompt, Patience(here.patience, here.link.clock.monotonic())
    )


async def bought(here: Shop) -> list[Item]:
    async with asyncio.timeout(30), purchase(here) as one:
        return [item async for item in one]


async def failed(here: Shop) -> OrderFailed:
    with pytest.raises(OrderFailed) as failure:
        await bought(here)
    return failure.value


async def test_a_whole_order_with_its_draws_and_checkpoints() -> None:
    got: list[Prompt] = []

    async def serve(sale: Sale) -> None:
        got.append(await sale.claim(4096, 1000, COMMIT))
        await sale.piece("", ())
        await sale.piece("A maple", tuple(range(60)), draw=DRAW)
        await sale.checkpoint(64, ROOTS[0])
        await sale.piece(" is", tuple(range(64)))
        await sale.checkpoint(128, ROOTS[1])
        await sale.piece(" a tree.", (1,))
        await sale.done(Done("stop", 5, 2, 125, steps=129))

    async with shop() as here:
        here.serve = serve
        items = await bought(here)
        assert got == [SALTED]
        assert Claimed(4096, 1000, COMMIT) in items
        said = [item for item in items if isinstance(item, Piece)]
        assert [piece.draw for piece in said] == [DRAW, *[b""] * (len(said) - 1)]
        assert "".join(piece.text for piece in said) == "A maple is a tree."
        committed = [item for item in items if isinstance(item, Checkpoint)]
        assert [(one.n, one.root) for one in committed] == [(64, ROOTS[0]), (128, ROOTS[1])]
        assert items[-1] == Done("stop", 5, 2, 125, steps=129)
        await here.nothing_left()


async def test_a_second_claim_has_the_same_commitment() -> None:
    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 1000, COMMIT)
        await sale.placed(0)
        with pytest.raises(ValueError, match="draw"):
            await sale.claim_again(4096, 1000, bytes(32))
        await sale.claim_again(4096, 1000, COMMIT)
        await sale.piece("A", (1,), draw=DRAW)
        await sale.done(Done("stop", 5, 2, 1, steps=2))

    async with shop() as here:
        here.serve = serve
        items = await bought(here)
        assert items.count(Claimed(4096, 1000, COMMIT)) == 2
        assert isinstance(items[-1], Done)


async def test_a_sale_says_nothing_that_its_user_would_leave_it_for() -> None:
    async def serve(sale: Sale) -> None:
        with pytest.raises(ValueError, match="commitment"):
            await sale.claim(4096, 1000)
        await sale.claim(4096, 1000, COMMIT)
        with pytest.raises(ValueError, match="draw"):
            await sale.piece("A", (1,))
        with pytest.raises(ValueError, match="draw"):
            await sale.piece("A", (1,), draw=bytes(32))
        await sale.piece("A", (1,) * 64, draw=DRAW)
        with pytest.raises(ValueError, match="draw"):
            await sale.piece("A", (), draw=DRAW)
        with pytest.raises(ValueError, match="checkpoint"):
            await sale.piece("A", (1,))
        with pytest.raises(ValueError, match="steps"):
            await sale.checkpoint(128, ROOTS[0])
        await sale.checkpoint(64, ROOTS[0])
        with pytest.raises(ValueError, match="steps"):
            await sale.done(Done("stop", 5, 2, 64))
        await sale.done(Done("stop", 5, 2, 64, steps=65))

    async with shop() as here:
        here.serve = serve
        assert isinstance((await bought(here))[-1], Done)
        assert here.ends == [None]


@pytest.mark.parametrize(
    "sent",
    [
        replace(SALTED, draw=bytes(32)),  # the same length, another half
        replace(SALTED, salt=bytes(32)),
        replace(SALTED, turns=(Turn("user", "What is a Maple?"),)),
    ],
)
async def test_another_prompt_than_was_committed_to_breaks_the_link(sent: Prompt) -> None:
    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 1000, COMMIT)
        raise AssertionError("it was taken")

    async with shop() as here:
        here.serve = serve
        one = purchase(here)
        one._prompt = prompts.encode_prompt(sent)
        with pytest.raises(OrderFailed) as failure:
            async with one:
                async for _ in one:
                    pass
        assert (failure.value.code, failure.value.refusal) == ("gone", "malformed")
        await until(lambda: here.ends == ["bad"])
        await until(lambda: all(link.closed for link in here.links))


async def test_salt_in_a_prompt_that_is_not_to_be_checked_breaks_the_link() -> None:
    async def serve(sale: Sale) -> None:
        await sale.claim(4096, 1000)

    async with shop() as here:
        here.serve = serve
        data = prompts.encode_prompt(SALTED)
        stream = await here.link.request(wire.Order(os.urandom(16), bytes(32), len(data)))
        await stream.send(data)
        await stream.end()
        await until(lambda: here.ends == ["bad"])


async def lying(sale: Sale, *frames: Frame) -> None:
    """Say what a Sale would not."""
    await sale._stream.send(b"".join(map(encode_frame, frames)))


async def read_prompt(sale: Sale, commit: bytes = COMMIT) -> None:
    await lying(sale, Claimed(4096, 1000, commit))
    await sale._read()


FORGED = Checkpoint(64, ROOTS[0], bytes(64))


@pytest.mark.parametrize(
    ("frames", "refusal"),
    [
        ((Piece((1,), "A"),), "equivocation"),
        ((Piece((1,), "A", draw=bytes(32)),), "equivocation"),
        ((Piece((1,), "A", draw=DRAW), Piece((1,), "A", draw=DRAW)), "not_asked"),
        ((Piece((1,), "A", draw=DRAW), FORGED), "bad_signature"),
        ((Piece((1,) * 64, "A", draw=DRAW), Piece((1,), "A")), "not_asked"),
        ((replace(FORGED, n=65),), "malformed"),
        ((Piece((1,), "A", draw=DRAW), Done("stop", 5, 0, 1)), "malformed"),
    ],
)
async def test_a_driver_that_breaks_what_it_committed_to_is_garbage(
    frames: tuple[Frame, ...], refusal: str
) -> None:
    async def serve(sale: Sale) -> None:
        await read_prompt(sale)
        await lying(sale, *frames)

    async with shop() as here:
        here.serve = serve
        failure = await failed(here)
        assert (failure.code, failure.at, failure.refusal) == ("garbage", "driver", refusal)


async def test_a_checkpoint_of_another_key_or_of_another_order_is_garbage() -> None:
    others: list[wire.Order] = [an_order()]
    keys = [Signer(bytes(32))]

    async def serve(sale: Sale) -> None:
        await read_prompt(sale)
        key = keys.pop() if keys else here.signer
        order = sale.order if key is not here.signer else others.pop()
        await lying(sale, Piece((1,), "A", draw=DRAW), orders.checkpoint(order, 64, ROOTS[0], key))

    async with shop() as here:
        here.serve = serve
        for _ in range(2):
            assert (await failed(here)).refusal == "bad_signature"
        assert not keys and not others


async def test_no_commitment_is_garbage_before_the_prompt_leaves() -> None:
    for commit in (b"", COMMIT[:31]):

        async def serve(sale: Sale, commit: bytes = commit) -> None:
            await lying(sale, Claimed(4096, 1000, commit))

        async with shop() as here:
            here.serve = serve
            failure = await failed(here)
            assert (failure.code, failure.sent, failure.refusal) == ("garbage", False, "malformed")


async def test_checkpoints_alone_are_no_sign_that_it_goes_on() -> None:
    """A driver could sign for ever and say nothing."""

    async def serve(sale: Sale) -> None:
        await sale.claim(2**20, 1000, COMMIT)
        for number in range(1, 2**20 // CHECKPOINT):
            await sale.checkpoint(CHECKPOINT * number, ROOTS[0])
            await asyncio.sleep(0.05)

    async with shop() as here:
        here.serve = serve
        here.patience = replace(here.patience, advance=0.5)
        async with asyncio.timeout(30):
            assert (await failed(here)).code == "silent"


@pytest.mark.parametrize(
    ("prompt", "changed"),
    [
        (SALTED, {"prompt_hash": bytes(32)}),
        (SALTED, {"mode": "none"}),
        (SALTED, {"mode": "none", "prompt_hash": b"", "audit": b""}),
        (replace(SALTED, salt=b"", draw=b""), {}),
        (SALTED, {"audit": b""}),
        (SALTED, {"repeat_penalty": 1_100_000}),
    ],
)
async def test_what_a_user_would_be_refused_for_is_not_ordered(
    prompt: Prompt, changed: dict[str, Any]
) -> None:
    async with shop() as here:
        with pytest.raises(ValueError, match=r"order|hash"):
            purchase(here, an_order(prompt, **changed), prompt)


async def test_an_order_that_cannot_be_checked_closes_the_link_and_is_not_remembered() -> None:
    it = customers.Customers()

    class Quiet:
        remote, account, initiator, used_at, in_flight, closed = "5.6.7.8", b"", False, 0.0, 1, False

    link: Any = Quiet()
    it.add(link, bytes(32))
    stream: Any = object()
    asked: Stream = stream
    with pytest.raises(ProtocolError) as refused:
        await it.serve(link, asked, an_order(audit=b""))
    assert refused.value.reason == "malformed" and not it._ordered
