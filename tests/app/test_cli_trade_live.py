"""Commands about money beside a provider that runs: what an answer costs, a price too high, settling; and
what is said at a command where infraxa is open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infraxa.app.asking import Asking
from infraxa.app.node import Node
from infraxa.app.transcripts import Transcripts
from infraxa.net import wire
from infraxa.net.credits import shown
from infraxa.net.customers import Customer
from infraxa.net.identity import id_text
from infraxa.store.records import ChatOptions
from tests.app.auditing import leaves
from tests.app.command_line import COMMAND, Ran, environment, infraxa, one_line
from tests.app.networked import folders, linked, listening, network_name, running, until

ONLINE = {"INFRAXA_ONLINE": "true", "INFRAXA_LISTEN_PORT": "0"}


async def run(*arguments: str, data: Path) -> Ran:
    """A command, while the nodes of this process go on."""
    return await asyncio.to_thread(infraxa, *arguments, data=data, env=ONLINE)


@contextlib.asynccontextmanager
async def provider(folder: Path, network: str) -> AsyncIterator[tuple[Node, int]]:
    """It serves the guide for 0.3 credits per 1M tokens; with the port at which it listens."""
    async with running(
        folder, network=network, name="oak", threads=1, base_price=0.3, pause_on_battery=False
    ) as node:
        port = await listening(node)
        await node.accept_serving()
        await node.provide(True)
        await until(lambda: node.provider.mode == "serving", "it serves")
        yield node, port


async def test_an_answer_is_bought_and_settled(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with provider(tmp_path / "oak", network) as (oak, port):
        bootstrap = f"127.0.0.1:{port}"
        me = folders(tmp_path / "me", network=network, bootstrap=bootstrap, driver="auto").data
        oak_id = id_text(oak.network.id)

        ran = await run("ask", "What is a driver?", "--max-price", "0.5", data=me)
        assert ran.code == 0 and "driver" in ran.out, ran
        bound, *_, charge, audited = ran.err.splitlines()
        (sold,) = await oak.list_receipts(role="provider")
        assert bound.startswith("infraxa: at most 0.000") and sold.charge > 0
        assert charge == f"infraxa: charged {shown(sold.charge)} credits, signed by both"
        assert audited.startswith("infraxa: audit: 16 of ") and audited.endswith(
            "the model is not loaded here."
        )

        answer = json.loads((await run("ask", "What is 2+2?", "--json", data=me)).out)
        (bill,) = answer["bills"]
        assert (bill["state"], bill["driver"]) == ("signed", oak_id)
        assert 0 < bill["charge"] <= bill["hold"] and bill["price_out"] >= 300_000
        assert (await oak.list_receipts(count=1))[0].accepted == bill["charge"]
        (verdict,) = answer["verdicts"]
        assert (verdict["order"], verdict["state"], verdict["why"]) == (bill["order"], "signed", "not_loaded")
        assert verdict["opened"] == min(16, verdict["steps"]) > 0
        bought = json.loads((await run("receipts", "list", "--json", data=me)).out)
        assert all(one["verdict"] in ("signed", "passed", "undetermined") for one in bought), bought
        assert {one.verdict for one in await oak.list_receipts()} == {""}, "who sells audits nothing"

        one_line(await run("ask", "hi", "--max-price", "0.1", data=me), "more than 0.10 credits")
        named = await run("ask", "hi", "--max-price", "0.1", "--driver", oak_id, data=me)
        one_line(named, "credits per million tokens now")
        assert len(await oak.list_receipts()) == 2
        wrong = await run("ask", "hi", "--max-price", "cheap", data=me)
        assert wrong.code == 2 and wrong.out == ""

        dear = await run("providers", "--max-price", "0.1", "--wait", "20", data=me)
        assert (dear.code, dear.out) == (0, "") and "for at most 0.10 credits" in dear.err
        (row,) = json.loads((await run("providers", "--max-price", "0.4", "--json", data=me)).out)
        assert row["id"] == oak_id

        why = await run("earnings", "--why", "--json", data=tmp_path / "oak")
        assert why.code == 0 and why.err == "" and isinstance(json.loads(why.out), list)

        owed = sold.charge + bill["charge"]
        (tab,) = await oak.list_tabs()
        assert tab.owed == owed
        asked = await run("tabs", "settle", oak_id, "--note", "lunch", data=me)
        assert asked.code == 0 and "Proposed" in asked.out and "You owe it" in asked.out, asked
        (tab,) = await oak.list_tabs()
        assert "lunch" in tab.note and tab.owed == owed
        agreed = await run("tabs", "settle", tab.peer[:10], data=tmp_path / "oak")
        assert agreed.code == 0 and "Agreed" in agreed.out and "Nothing is owed." in agreed.out, agreed
        known = json.loads((await run("tabs", "settle", oak_id, "--json", data=me)).out)
        assert known["tab"]["owed"] == 0
        (tab,) = await oak.list_tabs()
        assert tab.owed == 0
    off = await run("tabs", "settle", tab.peer[:10], data=tmp_path / "oak")
    one_line(off, "none is open")


async def test_an_answer_that_fails_its_audit_is_an_error_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves(monkeypatch, lambda leaf: leaf._replace(token=leaf.ids[-1]))
    network = network_name(tmp_path)
    async with provider(tmp_path / "oak", network) as (oak, port):
        bootstrap = f"127.0.0.1:{port}"
        me = folders(tmp_path / "me", network=network, bootstrap=bootstrap, driver="auto").data
        ran = await run("ask", "What is a driver?", data=me)
        *_, caught = ran.err.splitlines()
        assert ran.code == 1 and "driver" in ran.out and "caught lying: wrong token" in caught, ran
        order = caught.rpartition(" writes the proof.")[0].split()[-1]
        proof = await run("receipts", "proof", order, data=me)
        (tmp_path / "proof").write_text(proof.out)
        checked = await run("verify", str(tmp_path / "proof"), data=tmp_path / "else")
        assert checked.code == 0 and id_text(oak.network.id) in checked.out, checked
        one_line(await run("ask", "What is a receipt?", data=me), "proven")


async def test_ctrl_c_does_without_an_audit_that_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def audit(self: Transcripts, customer: Customer, request: wire.AuditPlease) -> wire.Failure:
        asked.set()
        return wire.Failure("busy")

    monkeypatch.setattr(Transcripts, "audit", audit)
    network = network_name(tmp_path)
    async with provider(tmp_path / "oak", network) as (_, port):
        me = folders(tmp_path / "me", network=network, bootstrap=f"127.0.0.1:{port}", driver="auto").data
        command = await asyncio.create_subprocess_exec(
            *(*COMMAND, "ask", "What is a driver?", "--json"),
            env=environment(me, **ONLINE),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        await asyncio.wait_for(asked.wait(), 60)
        for _ in range(2):  # the second one finds it closing
            command.send_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        out, err = await asyncio.wait_for(command.communicate(), 60)
        assert b"Traceback" not in err and command.returncode in (0, 130), err
        if command.returncode == 0:
            (verdict,) = json.loads(out)["verdicts"]
            assert (verdict["state"], verdict["opened"]) == ("checking", 0)


async def test_what_is_said_at_ask_holds_where_infraxa_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_name(tmp_path)
    async with provider(tmp_path / "oak", network) as (oak, port):
        settings = {"network": network, "bootstrap": f"127.0.0.1:{port}", "max_price": 0.1, "failover": "off"}
        async with running(tmp_path / "me", driver="auto", **settings) as me:
            await linked(oak, me)
            asked: list[ChatOptions] = []
            ask = me.ask

            def told(text: str, options: ChatOptions) -> Asking:
                asked.append(options)
                return ask(text, options)

            monkeypatch.setattr(me, "ask", told)
            to = ("ask", "What is 2+2?", "--driver", "auto")
            one_line(await run(*to, data=tmp_path / "me"), "more than 0.10 credits")
            ran = await run(*to, "--max-price", "auto", "--failover", "auto", data=tmp_path / "me")
            assert ran.code == 0 and ran.out, ran
            assert asked[-1].failover == "auto"
            named = ("--driver", id_text(oak.network.id))
            assert (await run(*to[:2], *named, "--max-price", "auto", data=tmp_path / "me")).code == 0
