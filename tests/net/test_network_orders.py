"""Orders between whole nodes on loopback: who is known as what, what is refused, what others are told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from infraxa.net import auth, codec, prompts, wire
from infraxa.net.connect import accept
from infraxa.net.errors import NetError
from infraxa.net.interfaces import Survey
from infraxa.net.link import Clock, Link, LinkClosed, LinkEnd, Stream, StreamFailed
from infraxa.net.network import Network
from infraxa.net.orders import Claimed, Done, Piece, Placed
from infraxa.net.patience import Patience, PatienceLimits
from infraxa.net.prompts import Prompt, Turn
from infraxa.net.purchase import Item, OrderFailed, Purchase
from infraxa.net.records import MAX_CARD, MAX_MODELS, Card, ModelOffer, Record, State
from infraxa.net.sale import Sale
from infraxa.net.status import Load, Offer, SeenNode
from tests.net.nodes import until
from tests.net.test_finder import dials
from tests.net.test_network import Someone, listening, village
from tests.net.test_peering import stranger

PROMPT = Prompt((Turn("user", "What is a maple?"),), ())
MODEL = bytes(range(32))


def an_order() -> wire.Order:
    return wire.Order(os.urandom(16), MODEL, len(prompts.encode_prompt(PROMPT)), 100)


def an_offer(name: str = "Tiny 0.5B", *, models: int = 1, slots: int = 2) -> Offer:
    model = ModelOffer(name, "qwen2", "Q4_K_M", MODEL, 4096, 1024, 0, 0, backend="CPU", speed=12_000)
    return Offer((model,) * models, slots)


async def served(sale: Sale) -> None:
    """An order as a provider serves it."""
    await sale.placed(1)
    prompt = await sale.claim(4096, 100)
    await sale.piece(prompt.turns[-1].text, (1, 2))
    await sale.piece("A tree.", (3,))
    await sale.done(Done("stop", 5, 0, 3, 1, 2, 3))


def purchase(link: Link) -> Purchase:
    return Purchase(link, an_order(), PROMPT, Patience(PatienceLimits(), link.clock.monotonic()))


async def bought(link: Link) -> list[Item]:
    """All that comes of one order. Raises OrderFailed."""
    async with asyncio.timeout(20), purchase(link) as one:
        return [item async for item in one]


async def refused(link: Link, order: wire.Order | None = None) -> wire.Failure:
    """Why an order is not served."""
    with pytest.raises(StreamFailed) as failed:
        async with asyncio.timeout(10), await link.request(order or an_order()) as stream:
            async for _ in stream:
                pass
    return failed.value.failure


@asynccontextmanager
async def user_of(provider: Someone) -> AsyncIterator[Someone]:
    """A node that knows where the provider is, and never links with it as a peer by itself."""
    user = Someone("user", provider.options.network)
    await user.open()
    try:
        user.net._finder.look = lambda: None  # type: ignore[method-assign]
        user.net._finder.book.put(provider.id, provider.where, "person")
        yield user
    finally:
        await user.close()


@asynccontextmanager
async def market(
    handler: Callable[[Sale], Awaitable[None]] | None = served,
) -> AsyncIterator[tuple[Someone, Someone]]:
    """A provider and a user of it; bounded."""
    async with asyncio.timeout(60), village("birch") as (birch,):
        birch.net.sell(handler)
        birch.net._finder.look = lambda: None  # type: ignore[method-assign]
        async with user_of(birch) as oak:
            yield birch, oak


async def ended(link: Link) -> str | None:
    """Why it was closed, which it is soon."""
    async with asyncio.timeout(10):
        return (await link.wait_closed()).reason


def seen(node: Someone, other: Someone) -> SeenNode | None:
    return next((found for found in node.net.nodes() if found.id == other.id), None)


async def test_an_order_is_served_and_shows_an_account_and_no_node() -> None:
    sales: list[Sale] = []

    async def noted(sale: Sale) -> None:
        sales.append(sale)
        await served(sale)

    async with market(noted) as (birch, oak):
        link = await oak.net.order_link(birch.id)
        first, second, *pieces, last = await bought(link)
        assert (first, second) == (Placed(1), Claimed(4096, 100))
        assert isinstance(last, Done) and last.n_out == 3
        text = "".join(piece.text for piece in pieces if isinstance(piece, Piece))
        assert text == "What is a maple?A tree."
        (sale,) = sales
        account = oak.identity.account_key(birch.id).id
        assert (sale.account, sale.group, sale.relayed) == (account, "local", False)
        (here,) = oak.net.peers()
        assert (here.kind, here.id, here.direction, here.account) == ("order", birch.id, "out", account)
        (there,) = birch.net.peers()
        assert (there.kind, there.id, there.direction, there.account) == ("order", b"", "in", account)
        assert seen(birch, oak) is None
        assert account != oak.identity.account_key(oak.id).id


async def test_who_says_its_account_at_once_has_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests may be answered before a link is seen as accepted."""

    async def slow(*args: Any, **options: Any) -> Link:
        link = await accept(*args, **options)
        await asyncio.sleep(0.2)
        accepted.append(link)
        return link

    accepted: list[Link] = []
    monkeypatch.setattr("infraxa.net.peering.accept", slow)
    async with market() as (birch, oak):
        await oak.net.order_link(birch.id)
        assert not accepted and [peer.kind for peer in birch.net.peers()] == ["order"]
        await until(lambda: accepted)
        await asyncio.sleep(0)
        assert [peer.kind for peer in birch.net.peers()] == ["order"]


async def test_all_orders_to_one_provider_share_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async with market() as (birch, oak):
        made = dials(oak, monkeypatch)
        links = await asyncio.gather(*(oak.net.order_link(birch.id) for _ in range(3)))
        assert made == [birch.id] and len(set(links)) == 1
        answers = await asyncio.gather(*(bought(links[0]) for _ in range(8)))
        assert all(isinstance(answer[-1], Done) for answer in answers), "eight at a time"
        assert await oak.net.order_link(birch.id) is links[0]
        watching = await oak.net.link_to(birch.id)
        assert watching is not links[0], "who is watched must not learn that it is by this account"


@pytest.mark.parametrize("why", ["closed", "aged", "silent"])
async def test_a_session_that_cannot_be_used_is_replaced(why: str) -> None:
    async with market() as (birch, oak):
        old = await oak.net.order_link(birch.id)
        if why == "closed":
            await old.close()
        elif why == "aged":
            old.aged = True
        else:
            old.heard_at -= 60
        new = await oak.net.order_link(birch.id)
        assert new is not old
        assert isinstance((await bought(new))[-1], Done)
        if why == "silent":
            await until(lambda: old.closed)


async def test_an_idle_session_ends_after_ten_minutes() -> None:
    async with market() as (birch, oak):
        right, passed = Clock(), 0.0
        await oak.close()
        oak.clock = Clock(lambda: right.monotonic() + passed, right.unix_ms)
        await oak.open()
        oak.net._finder.book.put(birch.id, birch.where, "person")
        link = await oak.net.order_link(birch.id)
        passed = 601.0
        await until(lambda: link.closed)
        assert birch.net.status.refused == {}


async def test_who_has_no_account_orders_nothing() -> None:
    async with market() as (birch, oak):
        async with stranger(birch) as link:
            assert (await refused(link)).code == "not_allowed"
            assert birch.net.status.refused == {"not_allowed": 1}
        peer = (await oak.net._finder.join(birch.id, birch.where)).link
        assert (await refused(peer)).code == "not_allowed", "nor does a node"


async def test_a_provider_orders_nothing_of_its_user() -> None:
    async with market() as (birch, oak):
        oak.net.sell(served)
        link = await oak.net.order_link(birch.id)
        (back,) = birch.net._customers
        await back.request(an_order())
        assert await ended(link) == "not_allowed"


@pytest.mark.parametrize(
    "request_",
    [wire.CardPlease(), wire.Probe(), wire.PeersPlease(), wire.BucketsPlease(bytes(16))],
    ids=lambda request: type(request).__name__,
)
async def test_a_provider_learns_nothing_by_asking_its_user(request_: wire.Request) -> None:
    """Not even when it is a peer of the same node on another link."""
    async with market() as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        link = await oak.net.order_link(birch.id)
        (back,) = birch.net._customers
        await back.request(request_)
        assert await ended(link) == "not_allowed"
        assert oak.net.status.refused == {"not_allowed": 1}
        assert [peer.id for peer in oak.net.peers()] == [birch.id]


async def test_a_provider_tells_its_user_nothing_by_which_to_know_it_again() -> None:
    async with market() as (birch, oak), listening(codec.network_id(oak.options.network)) as trace:
        await oak.net.join(birch.id, birch.where)
        link = await oak.net.order_link(birch.id)
        (back,) = birch.net._customers
        back.tell_soon(wire.Push((codec.decode(trace.card(), Record),)))
        assert await ended(link) == "not_allowed"
        assert oak.net._gossip.card(trace.id) is None


async def test_nothing_is_sold_without_a_handler() -> None:
    async with market(None) as (birch, oak):
        link = await oak.net.order_link(birch.id)
        assert (await refused(link)).code == "model_gone"
        birch.net.sell(served)
        assert isinstance((await bought(link))[-1], Done)


async def test_no_order_is_served_twice() -> None:
    async with market() as (birch, oak):
        link = await oak.net.order_link(birch.id)
        order = an_order()
        async with await link.request(order) as stream:
            await anext(stream)
        again = await refused(link, order)
        assert (again.code, again.field) == ("bad_request", "id")
        await link.close()
        assert (await refused(await oak.net.order_link(birch.id), order)).code == "bad_request"
        async with user_of(birch) as elm, await (await elm.net.order_link(birch.id)).request(order) as stream:
            assert await anext(stream), "another account's number is another number"


async def test_a_handler_ends_when_its_user_cancels_or_goes() -> None:
    running, ended = 0, 0

    async def hang(sale: Sale) -> None:
        nonlocal running, ended
        await sale.placed(0)
        running += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    async with market(hang) as (birch, oak):
        link = await oak.net.order_link(birch.id)
        async with purchase(link) as one:
            await anext(one)
        await until(lambda: ended == 1)
        async with purchase(link) as one:
            await anext(one)
            assert birch.net._customers.sales == 1
            await link.close()
            await until(lambda: ended == running == 2)
        assert birch.net._customers.sales == 0
        await until(lambda: not birch.net.peers())


async def test_a_handler_that_fails_says_nothing_of_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(sale: Sale) -> None:
        prompt = await sale.claim(4096, 100)
        raise ValueError(prompt.turns[-1].text)

    async with market(breaks) as (birch, oak):
        link = await oak.net.order_link(birch.id)
        with pytest.raises(OrderFailed) as failed:
            await bought(link)
        assert failed.value.code == "internal" and not link.closed
        assert "an order was not answered: ValueError" in caplog.text and "breaks" in caplog.text
        assert "maple" not in caplog.text


async def test_a_handler_that_says_nothing_is_an_order_that_failed() -> None:
    async def forgets(sale: Sale) -> None:
        pass

    async with market(forgets) as (birch, oak):
        assert (await refused(await oak.net.order_link(birch.id))).code == "internal"


async def test_a_user_that_breaks_an_order_loses_its_session() -> None:
    async with market() as (birch, oak):
        link = await oak.net.order_link(birch.id)
        stream = await link.request(an_order())
        await stream.send(bytes(5000))
        await stream.end()
        with suppress(StreamFailed, LinkClosed):
            async for _ in stream:
                pass
        assert await ended(link) == "too_large"
        assert birch.net.status.refused == {"too_large": 1}


async def test_a_provider_that_goes_says_so_before(caplog: pytest.LogCaptureFixture) -> None:
    async def endless(sale: Sale) -> None:
        await sale.claim(4096, 10_000)
        while True:
            await sale.piece("word ", (7,))
            await asyncio.sleep(0.001)

    async def waits(sale: Sale) -> None:
        await sale.placed(3)
        await asyncio.Event().wait()

    for handler in (endless, waits):
        async with market(handler) as (birch, oak):
            link = await oak.net.order_link(birch.id)
            buying = asyncio.ensure_future(bought(link))
            await until(lambda: birch.net._customers.sales == 1)
            await birch.close()
            with pytest.raises(OrderFailed) as failed:
                await buying
            assert failed.value.code == "leaving"
    assert not [record for record in caplog.records if record.name.startswith("infraxa")]


async def test_an_order_that_comes_while_a_provider_goes_is_told_so() -> None:
    async with market() as (birch, oak):
        link = await oak.net.order_link(birch.id)
        await birch.net._customers.close()
        assert (await refused(link)).code == "leaving"


async def test_orders_go_through_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[tuple[str, bool]] = []

    async def noted(sale: Sale) -> None:
        groups.append((sale.group, sale.relayed))
        await served(sale)

    async with market(noted) as (birch, oak):
        relay = Someone("relay", oak.options.network, relay=True)
        await relay.open()
        try:
            await birch.net.join(relay.id, relay.where)
            place = birch.net._peering.peer(relay.id)
            assert place is not None
            await birch.net._relayed.listen(place.link, birch.net._peering.take)
            await oak.net.join(relay.id, relay.where)
            oak.net._finder.book.take_away(birch.id, "person")
            monkeypatch.setattr(oak.net._finder, "relays_of", lambda node: (relay.id,) * (node == birch.id))
            link = await oak.net.order_link(birch.id)
            assert isinstance((await bought(link))[-1], Done)
            assert link.remote.startswith("relay:") and relay.net.status.relaying == 1
            assert groups == [(link.remote, True)]
            assert oak.net.blame(birch.id, link) == "peer"
            carrier = oak.net._finder.carrier(relay.id)
            assert carrier is not None
            assert seen(relay, oak) is not None and all(
                peer.id != oak.id for peer in relay.net.peers() if peer.kind == "stranger"
            )
            await carrier.close()
            await until(lambda: link.closed)
            assert oak.net.blame(birch.id, link) == "relay"
            assert oak.net.blame(birch.id, None) == "relay"
        finally:
            await relay.close()


async def test_one_session_is_one_account_for_good() -> None:
    async with market() as (birch, oak):
        other = oak.identity.account_key(bytes(32))
        for first, second in (("account", "account"), ("account", "node"), ("node", "account")):
            async with stranger(birch) as link:
                for role, key in ((first, oak.identity), (second, other)):
                    said = auth.prove(key, role, link)  # type: ignore[arg-type] # the roles are right
                    stream = await link.request(said)
                    if key is oak.identity:
                        assert codec.decode(await anext(stream), wire.Authenticated)
                assert await ended(link) == "not_asked"
        await until(lambda: birch.net.status.refused == {"not_asked": 3})


async def test_a_key_of_another_session_is_not_believed() -> None:
    async with market() as (birch, oak):
        async with stranger(birch) as one, stranger(birch) as other:
            said = auth.prove(oak.identity.account_key(birch.id), "account", one)
            await other.request(said)
            assert await ended(other) == "bad_signature"
            role = wire.Auth("node", said.key, said.signature)
            await one.request(role)
            assert await ended(one) == "bad_signature", "nor in another role"


async def test_a_provider_without_room_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infraxa.net.strangers.MAX_LOCAL", 1)

    async def hang(sale: Sale) -> None:
        await sale.placed(0)
        await asyncio.Event().wait()

    async with market(hang) as (birch, oak):
        link = await oak.net.order_link(birch.id)
        async with purchase(link) as one:
            await anext(one)
            async with user_of(birch) as elm:
                with pytest.raises(NetError) as full:
                    await elm.net.order_link(birch.id)
                assert full.value.code == "busy" and "60 s" in full.value.remedy
                assert not link.closed and birch.net.status.refused == {"full": 1}
                one.cancel()
                await until(lambda: birch.net._customers.sales == 0)
                assert await elm.net.order_link(birch.id)
                await until(lambda: link.closed)


async def test_a_provider_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auth, "ANSWER_S", 0.2)
    async with market() as (_, oak), listening(codec.network_id(oak.options.network)) as mute:

        async def answer(link: Link, stream: Stream, request: wire.Request) -> None:
            if answering == "fails":
                await stream.fail(wire.Failure("unsupported"))
            elif answering == "closes":
                await link.close()
            elif answering == "lies":
                await stream.send(b"what")
            else:
                await asyncio.Event().wait()

        mute.handler = answer
        oak.net._finder.book.put(mute.id, (mute.address,), "person")
        answers = {"hangs": "timeout", "fails": "refused", "closes": "refused", "lies": "refused"}
        for what, code in answers.items():
            answering = what
            with pytest.raises(NetError) as failed:
                await oak.net.order_link(mute.id)
            assert failed.value.code == code and failed.value.message and failed.value.remedy
        await until(lambda: not oak.net.peers())


async def test_who_cannot_be_found_is_said_in_a_sentence() -> None:
    async with market() as (_, oak):
        with pytest.raises(NetError) as failed:
            await oak.net.order_link(bytes(32))
        assert failed.value.code == "unreachable" and failed.value.remedy
        assert oak.net.blame(bytes(32), None) in ("own", "peer")


async def test_who_is_told_of_an_offer_and_of_its_end() -> None:
    async with village("birch", "oak") as (birch, oak):
        birch.net.offer(an_offer())
        await oak.net.join(birch.id, birch.where)

        def offered() -> tuple[int, tuple[ModelOffer, ...]] | None:
            found = seen(oak, birch)
            return (found.slots, found.models) if found is not None else None

        await until(lambda: offered() == (2, an_offer().models))
        birch.net.offer(an_offer("Tiny 1B", slots=3))
        await until(lambda: offered() == (3, an_offer("Tiny 1B").models))
        assert oak.sees(birch) == "online"
        birch.net.offer(None)
        await until(lambda: offered() == (0, ()))


async def test_what_is_said_before_the_start_stands_in_the_first_card() -> None:
    async with village("birch", "oak") as (birch, oak):
        await birch.close()
        birch.network = Network(birch.identity, birch.options, birch.kept.memory, birch.kept)
        birch.net.offer(an_offer())
        birch.net.load(Load("busy", 255, 1200))
        cards = len(birch.kept.seqs)
        await birch.net.start()
        await until(lambda: birch.net._presence.state)
        assert len(birch.kept.seqs) == cards + 2, "one card and one state"
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "busy")
        found = seen(oak, birch)
        assert found is not None
        assert (found.slots, found.util, found.first_token_ms) == (2, 255, 1200)
        assert not found.relayed and not found.reachable


async def test_what_is_offered_while_the_first_card_is_signed_is_not_lost() -> None:
    async with asyncio.timeout(60), village("birch") as (birch,):
        await birch.close()
        keep, signing, may_go_on = birch.kept.seq_used, asyncio.Event(), asyncio.Event()

        async def slow(seq: int) -> None:
            signing.set()
            await may_go_on.wait()
            await keep(seq)

        birch.kept.seq_used = slow  # type: ignore[method-assign]
        opening = asyncio.ensure_future(birch.open())
        await signing.wait()
        birch.net.offer(an_offer())
        may_go_on.set()
        await opening
        await until(lambda: card_of(birch).models == an_offer().models)


async def test_what_is_offered_while_a_card_is_signed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(60), village("birch") as (birch,):
        keep, signing, may_go_on = birch.kept.seq_used, asyncio.Event(), asyncio.Event()

        async def slow(seq: int) -> None:
            signing.set()
            await may_go_on.wait()
            await keep(seq)

        monkeypatch.setattr(birch.kept, "seq_used", slow)
        birch.net.offer(an_offer("one"))
        await signing.wait()
        birch.net.offer(an_offer("two"))
        may_go_on.set()
        await until(lambda: card_of(birch).models == an_offer("two").models)
        card = card_of(birch)
        birch.net.offer(an_offer("two"))
        await birch.net._presence.renew()
        assert card_of(birch) == card, "nothing new is no new card"


def card_of(node: Someone) -> Card:
    record: Record = codec.decode(node.net._presence.card, Record)
    card: Card = codec.decode(record.signed.body, Card)
    return card


async def test_a_card_has_as_many_models_as_it_holds() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        for name, least, most in (("Tiny", MAX_MODELS, MAX_MODELS), ("é" * 96, 1, MAX_MODELS - 1)):
            birch.net.offer(an_offer(name, models=MAX_MODELS + 4))
            await until(lambda name=name: card_of(birch).models and card_of(birch).models[0].name == name)  # type: ignore[misc]
            assert least <= len(card_of(birch).models) <= most
            assert len(birch.net._presence.card) <= MAX_CARD
            models = card_of(birch).models
            await until(lambda models=models: (found := seen(oak, birch)) and found.models == models)  # type: ignore[misc]


async def test_how_busy_a_node_is_reaches_who_watches_it() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "online")
        link = await oak.net.link_to(birch.id)
        async with asyncio.timeout(20), await link.request(wire.Probe()) as probe:
            await anext(probe)
            birch.net.load(Load("busy", 255, 800))
            assert state_in(await anext(probe)) == ("busy", 255, 800)
            birch.net.load(Load("online", 128))
            assert state_in(await anext(probe)) == ("online", 128, 0)
        await until(lambda: (found := seen(oak, birch)) and found.util == 128)


def state_in(chunk: bytes) -> tuple[str, int, int]:
    record: Record = codec.decode(chunk, Record)
    state: State = codec.decode(record.signed.body, State)
    return state.status, state.util, state.first_token_ms


async def test_who_has_left_is_not_online_again_by_its_load() -> None:
    async with village("birch", "oak") as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "online")
        await birch.net._presence.leave()
        await until(lambda: oak.sees(birch) == "offline")
        birch.net.load(Load("busy"))
        birch.net.offer(an_offer())
        await until(lambda: (found := seen(oak, birch)) and found.slots)
        assert oak.sees(birch) == "offline"


async def test_whose_fault_it_is_on_one_machine() -> None:
    async with market() as (birch, oak):
        link = await oak.net.order_link(birch.id)
        assert oak.net.blame(birch.id, link) == "peer"
        await birch.close()
        await until(lambda: link.closed)
        assert oak.net.blame(birch.id, link) == oak.net.blame(birch.id, None) == "peer"


async def test_all_links_that_fall_silent_are_this_machines_fault() -> None:
    async with village("birch", "oak", "elm") as (birch, oak, elm):
        for other in (birch, elm):
            await oak.net.join(other.id, other.where)
        for node in (birch, oak, elm):
            node.net._finder.look = lambda: None  # type: ignore[method-assign]
        link = await oak.net.order_link(birch.id)
        others = [peer.link for peer in oak.net._peering.peers() if peer.id != birch.id]

        def blamed(*silent: Link, of: Link | None = link) -> str:
            """When nothing came on these for half a minute."""
            for one in silent:
                one.heard_at = oak.clock.monotonic() - 30
            return oak.net.blame(birch.id, of)

        assert blamed(link) == "peer"
        # Somebody may be there for a moment to see whether this node is reached.
        await until(lambda: blamed(link, *others) == "own")
        await until(lambda: blamed(*others, of=None) == "own")
        for one in (link, *others):
            one._receive = lambda frame: None  # type: ignore[method-assign]
            one._close_soon(LinkEnd("silent", "carrier"))
        await until(lambda: [peer.id for peer in oak.net._peering.peers()] == [birch.id])
        assert blamed(link) == "own", "they fell silent a moment ago"


async def test_no_network_is_this_machines_fault() -> None:
    async with market() as (birch, oak):
        oak.net._cards_changed(Survey((), ("127.0.0.1",), ()))
        assert oak.net.blame(birch.id, None) == "peer", "it is on this machine"
        oak.net._finder.book.put(birch.id, ("ws://192.0.2.7:7741",), "person")
        assert oak.net.blame(birch.id, None) == "own"


async def test_a_node_behind_a_relay_is_shown_so() -> None:
    async with market() as (birch, oak):
        await oak.net.join(birch.id, birch.where)
        await until(lambda: oak.sees(birch) == "online")
        assert not shown(oak, birch).relayed
        birch.net._places = lambda: ((), (bytes(32),), True)  # type: ignore[method-assign]
        birch.net._presence._places = birch.net._places
        await birch.net._presence.renew()
        await until(lambda: shown(oak, birch).relays)
        assert shown(oak, birch).reachable
        assert not shown(oak, birch).relayed, "its address was typed"
        oak.net._finder.book.take_away(birch.id, "person")
        oak.net._finder.book.take_away(birch.id, "gossip")
        assert shown(oak, birch).relayed


def shown(node: Someone, other: Someone) -> SeenNode:
    found = seen(node, other)
    assert found is not None
    return found
