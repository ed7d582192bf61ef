"""Whole nodes audit each other: what a person sees of it, and what the network hears of one that lies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infraxa.app import fraud
from infraxa.app.audit_values import AuditPlan
from infraxa.app.errors import NodeError
from infraxa.app.events import FactsChanged
from infraxa.app.node import Node
from infraxa.app.offers import OfferSeen
from infraxa.net import deals
from infraxa.net.identity import id_text
from infraxa.net.intake import BAN_S
from infraxa.net.peering import Peering
from infraxa.net.wire import Proof
from infraxa.store import messages, verdicts
from infraxa.store.records import ChatOptions, Verdict
from tests.app.auditing import leaves
from tests.app.lies import LIAR
from tests.app.networked import attached, folders, network_name, running, until
from tests.app.test_node_driver import chat_with, provider

QUESTION = "What is an audit?"
NOISE = 0.0776


async def ready(user: Node) -> None:
    """It has the model loaded, and its noise was measured."""
    await user.use_model("guide")
    (guide,) = await user.list_models()
    model = await user.models.model_id(guide)
    await user._store.run(verdicts.keep_noise, model.hex(), "cpu", NOISE)


async def verdict_of(user: Node, chat_id: str, *states: str) -> Verdict:
    """Of the last answer, once it is one of these."""
    for _ in range(600):
        facts = (await user.branch(chat_id))[-1].message.facts
        if facts is not None and facts.verdicts and facts.verdicts[-1].state in states:
            return facts.verdicts[-1]
        await asyncio.sleep(0.05)
    raise AssertionError(f"not {states} within 30 s: {facts}")


async def offer_of(user: Node, node: Node) -> OfferSeen:
    return next(offer for offer in await user.list_offers() if offer.node.id == node.network.id)


async def test_answers_are_audited_and_the_message_says_so(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network, threads=1) as user,
        provider(tmp_path / "maple", user, network, "maple") as maple,
    ):
        await ready(user)
        async with chat_with(user, id_text(maple.network.id)) as chat:
            message = await user.send(chat.id, QUESTION)
            await chat.ended(message)
            verdict = await verdict_of(user, chat.id, "passed")
            assert verdict.by == "own" and verdict.opened == 16 and verdict.steps > 40
            told = [event.facts.verdicts for event in chat.events if isinstance(event, FactsChanged)]
            assert [one[-1].state for one in told if one][-2:] == ["checking", "passed"]
            offer = await offer_of(user, maple)
            assert (offer.audited.passed, offer.audited.failed, offer.caught) == (1, 0, "")
            async with attached(user) as front:
                assert await front.audit_plan(chat.id, message) == AuditPlan("done", "It was audited.")
                with pytest.raises(NodeError, match="audited"):
                    await front.audit_answer(chat.id, message)
                with pytest.raises(NodeError) as none:
                    await front.proof_of(verdict.order)
                assert none.value.code == "no_proof"

            await user.change_setting("audit", "off")
            message = await user.send(chat.id, QUESTION)
            await chat.ended(message)
            await verdict_of(user, chat.id, "signed")
            assert (await user.audit_plan(chat.id, message)).state == "own"
            # With the model here nobody else is asked, whatever the person would let them read.
            await user.audit_answer(chat.id, message, referee=True)
            assert (await verdict_of(user, chat.id, "passed")).by == "own"

            assert (await user.bound(chat.id, "?")).unverified == ""
            await user.change_setting("verify", "none")
            assert (await user.bound(chat.id, "?")).unverified == "own_setting"
            message = await user.send(chat.id, QUESTION)
            await chat.ended(message)
            assert (await verdict_of(user, chat.id, "unverified")).why == "own_setting"
            assert (await user.audit_plan(chat.id, message)).state == "none"


async def test_a_referee_in_a_private_network_reads_what_the_person_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(model_id: bytes) -> None:
        return None

    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network, threads=1) as user,
        provider(tmp_path / "maple", user, network, "maple") as maple,
        provider(tmp_path / "oak", user, network, "oak") as oak,
    ):
        monkeypatch.setattr(user._audits._replaying, "copy", none)
        await ready(oak)
        await user.change_setting("audit", "off")
        async with chat_with(user, id_text(maple.network.id)) as chat, attached(user) as front:
            message = await user.send(chat.id, QUESTION)
            await chat.ended(message)
            await verdict_of(user, chat.id, "signed")
            plan = await front.audit_plan(chat.id, message)
            assert (plan.state, plan.referees) == ("referee", 1)
            with pytest.raises(NodeError):
                await front.audit_answer(chat.id, message)
            assert not await oak.list_served()
            await front.audit_answer(chat.id, message, referee=True)
            assert (await verdict_of(user, chat.id, "passed")).by == "referee"
            facts = (await user.branch(chat.id))[-1].message.facts
            assert facts is not None
            assert {reader.name for reader in facts.readers} == {"maple", "oak"}
            kept = await user._store.run(messages.get_message, message)
            assert kept.facts == facts
            # The answer is the driver's, and so is what the person says of it.
            assert [bill.driver for bill in facts.bills] == [id_text(maple.network.id)]
            (served,) = await oak.list_served()
            assert served.n_out == 0 and served.n_prompt > 0

            async def paid() -> list[int]:
                """For scores, in the person's book."""
                listed = await user.list_receipts(role="user")
                return [one.charge for one in listed if one.outcome == "scored"]

            for _ in range(600):
                if await paid():
                    break
                await asyncio.sleep(0.05)
            (charge,) = await paid()
            assert charge <= plan.most


async def test_a_driver_that_lies_is_known_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network, threads=1) as user,
        running(folders(tmp_path / "other").data, network=network, threads=1) as other,
        provider(tmp_path / "maple", user, network, "maple") as maple,
    ):
        await other.join(await maple.invite())
        await until(lambda: user.network.peers and other.network.peers, "all are linked")
        async with chat_with(user, id_text(maple.network.id)) as chat:
            await chat.ended(await user.send(chat.id, QUESTION))
            verdict = await verdict_of(user, chat.id, "failed")
        assert (verdict.why, verdict.proof) == ("wrong_token", True)
        assert fraud.checked(await user.proof_of(verdict.order)).provider == maple.network.id
        assert "proven" in (await offer_of(user, maple)).caught
        (receipt,) = await user.list_receipts(role="user")
        assert receipt.state == "reversed"
        (tab,) = await user.list_tabs()
        assert tab.owed == 0

        for _ in range(600):
            if (await offer_of(other, maple)).caught:
                break
            await asyncio.sleep(0.05)
        assert "proven" in (await offer_of(other, maple)).caught
        chat_id = (await other.create_chat()).id
        await other.set_chat_options(chat_id, ChatOptions(driver="auto"))
        assert (await other.bound(chat_id, "?")).state == "refused"


def peering(node: Node) -> Peering:
    assert node._net._network is not None
    return node._net._network._peering


async def tell(teller: Node, node: Node, proof: str) -> None:
    """On the link that it has with that node."""
    await until(lambda: peering(teller).peer(node.network.id) is not None, "they are linked")
    peer = peering(teller).peer(node.network.id)
    assert peer is not None and peer.link.tell_soon(Proof(proof.encode()))


async def test_a_proof_with_another_byte_costs_its_teller_and_excludes_nobody(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network, threads=1) as user,
        running(folders(tmp_path / "other").data, network=network, threads=1) as other,
        provider(tmp_path / "maple", user, network, "maple") as maple,
    ):
        await other.join(await user.invite())
        await until(lambda: peering(user).peer(other.network.id) is not None, "they are linked")
        identity = maple._net.identity
        assert identity is not None
        proof = fraud.made(deals.sign(LIAR.said, identity), order=LIAR.order, opened=LIAR.opened(17))
        middle = len(proof) // 2
        changed = proof[:middle] + ("A" if proof[middle] != "A" else "B") + proof[middle + 1 :]

        await tell(other, user, changed)
        await until(lambda: peering(user).peer(other.network.id) is None, "its teller is left")
        now = peering(user)._clock.monotonic()
        assert peering(user)._overlay.banned(other.network.id, now + BAN_S - 60)
        assert not (await offer_of(user, maple)).caught
        assert not await user._store.run(verdicts.list_verdicts)

        await tell(maple, user, proof)
        for _ in range(600):
            if (await offer_of(user, maple)).caught:
                break
            await asyncio.sleep(0.05)
        assert "proven" in (await offer_of(user, maple)).caught
        assert peering(user).peer(maple.network.id) is not None, "a true one costs nothing"
