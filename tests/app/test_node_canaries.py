"""Whole nodes: a user without the model's file, a driver, a referee; what a person sees of canaries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infraxa.app import canary_rules
from infraxa.app.node import Node
from infraxa.app.replaying import Replaying
from infraxa.net.identity import id_text
from infraxa.store import verdicts
from tests.app.canaried import soon
from tests.app.networked import attached, folders, network_name, running, until
from tests.app.test_node_audit import NOISE, QUESTION, offer_of
from tests.app.test_node_driver import chat_with, provider


async def noise_known(node: Node) -> None:
    (guide,) = await node.list_models()
    model = await node.models.model_id(guide)
    await node._store.run(verdicts.keep_noise, model.hex(), "cpu", NOISE)


async def test_a_driver_is_audited_and_no_chat_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(self: Replaying, model_id: bytes) -> None:
        return None

    monkeypatch.setattr(Replaying, "copy", none)
    soon(monkeypatch, QUESTION)
    network = network_name(tmp_path)
    async with (
        running(folders(tmp_path / "user").data, network=network, threads=1) as user,
        provider(tmp_path / "maple", user, network, "maple") as maple,
        provider(tmp_path / "oak", user, network, "oak") as oak,
    ):
        await noise_known(oak)
        async with (
            chat_with(user, id_text(maple.network.id), temperature=0.0) as chat,
            attached(user) as front,
        ):
            message = await user.send(chat.id, QUESTION)
            await chat.ended(message)
            for _ in range(600):
                if (await offer_of(user, maple)).audited.passed:
                    break
                await asyncio.sleep(0.05)
            offer = await offer_of(user, maple)
            assert (offer.audited.passed, offer.audited.failed, offer.caught) == (1, 0, "")
            # It is in no chat, and nobody else read what is in one.
            assert [one.id for one in await user.list_chats()] == [chat.id]
            (_, answer) = await user.branch(chat.id)
            facts = answer.message.facts
            assert facts is not None and [reader.name for reader in facts.readers] == ["maple"]
            assert [one.state for one in facts.verdicts] == ["signed"] and len(facts.bills) == 1
            assert await user.prompt_history() == [QUESTION]
            assert (await user.audit_plan(chat.id, message)).state == "referee"
            assert len(await maple.list_served()) == 2
            (judged,) = await oak.list_served()
            assert judged.n_out == 0 and judged.n_prompt > 0

            # In the books it is what it is, also for a second front end.
            async def receipts() -> list[tuple[bool, str]]:
                listed = await front.list_receipts(role="user")
                return sorted((one.canary, one.outcome) for one in listed)

            for _ in range(600):
                if len(await receipts()) == 3:
                    break
                await asyncio.sleep(0.05)
            assert [canary for canary, _ in await receipts()] == [False, True, True]
            assert (True, "scored") in await receipts()
            earnings = await front.earnings()
            assert 0 < earnings.canaries_today <= canary_rules.share(round(user.settings.cap_day * 10**6))
            assert earnings.canaries_today < earnings.today.spent

            await user.change_setting("canaries", False)
            await chat.ended(await user.send(chat.id, QUESTION))
            await until(lambda: user._audits._canaries._task is None, "none is sent")
            assert len(await maple.list_served()) == 3
        spent = earnings.canaries_today
    # Another start knows of them.
    async with running(tmp_path / "user", network=network) as again:
        assert (await again.earnings()).canaries_today == spent
        assert again.settings.canaries is False
