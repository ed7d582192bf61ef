"""`infraxa providers`, `invite` and `join` as a person and as a program run them, beside real nodes."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import closing
from pathlib import Path

from infraxa.app.node import Node
from infraxa.net.identity import display, id_text
from infraxa.net.records import ModelOffer
from infraxa.net.routing import Outcome
from infraxa.net.status import Offer
from tests.app.command_line import COMMAND, LIMIT, Ran, environment, infraxa, one_line
from tests.app.networked import folders, linked, listening, network_name, running, settings_of, until
from tests.app.test_node_network import an_invite
from tests.e2e.terminal import Terminal

ANSWERED = Outcome("answered", first_token_ms=200.0, tokens_per_second=20.0)
ONLINE = {"INFRAXA_ONLINE": "true", "INFRAXA_LISTEN_PORT": "0"}


async def run(*arguments: str, data: Path, stdin: str = "", **env: str) -> Ran:
    """Run a command while the nodes of this process go on."""
    return await asyncio.to_thread(infraxa, *arguments, data=data, stdin=stdin, env=ONLINE | env)


QWEN = ModelOffer("Qwen \x1b[31m4B", "qwen3", "Q4_K_M", b"q" * 32, 4096, 512, 0, 0)
TINY = ModelOffer("tiny", "llama", "Q8_0", b"t" * 32, 512, 256, 50_000, 200_000)


async def offering(node: Node, *models: ModelOffer) -> None:
    """It listens, and its card says that it serves these."""
    await listening(node)
    node._net.offer(Offer(models, slots=4))


async def test_what_is_offered_alone_and_attached(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    where = folders(tmp_path / "me", network=network)
    async with (
        running(tmp_path / "friend", network=network, name="fri\u202eend") as friend,
        running(tmp_path / "idle", network=network, name="idle") as idle,
    ):
        await offering(friend, QWEN, TINY)
        await linked(friend, idle)
        alone = await run("providers", "--wait", "20", data=where.data)
        assert alone.code == 0 and alone.err == "", alone
        name = display("fri\u202eend", friend.network.id)
        lines = sorted(line.split("\t") for line in alone.out.splitlines())
        assert [cells[:6] for cells in lines] == [
            [name, "online", "Qwen [31m4B", "Q4_K_M", "free", "0/4"],
            [name, "online", "tiny", "Q8_0", "0.05 + 0.20/M", "0/4"],
        ]
        assert not {"\u202e", "\x1b"} & set(alone.out)
        async with running(where.data) as me:
            await linked(me, friend)
            await until(lambda: len(me._drivers.offers(me._net.nodes())) == 2, "it knows what is offered")
            await me._drivers.observed(friend.network.id, TINY.model_id, ANSWERED)
            asked = await run("providers", "--json", "--model", "TINY", data=where.data)
            assert asked.code == 0 and asked.err == "", asked
            (row,) = json.loads(asked.out)
            assert row["id"] == id_text(friend.network.id) and row["node"] == name
            assert row["model_id"] == TINY.model_id.hex() and row["price_out"] == 200_000
            assert (row["answered"], row["success"], row["tokens_per_second"]) == (1, 1.0, 20.0)
            assert row["mark"] == "" and row["warning"] is None
            none = await run("providers", "--json", "--model", "llama", data=where.data)
            assert (none.code, none.out) == (0, "[]\n") and "of 2 nodes offers a model called" in none.err


async def test_marks_and_sorting_decide_the_order(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    async with (
        running(tmp_path / "me", network=network) as me,
        running(tmp_path / "ash", network=network, name="ash") as ash,
        running(tmp_path / "birch", network=network, name="birch") as birch,
    ):
        for node in (ash, birch):
            await offering(node, QWEN)
        await until(lambda: len(me._drivers.offers(me._net.nodes())) == 2, "it knows what is offered")
        await me._drivers.observed(ash.network.id, QWEN.model_id, ANSWERED)
        await me.mark_provider(birch.network.id, "pinned")

        async def listed(*arguments: str) -> list[tuple[str, str]]:
            ran = await run("providers", "--json", *arguments, data=tmp_path / "me")
            assert ran.code == 0, ran
            return [(row["name"], row["mark"]) for row in json.loads(ran.out)]

        assert await listed() == [("birch", "pinned"), ("ash", "")]
        assert await listed("--sort", "tok/s") == [("ash", ""), ("birch", "pinned")]
        await me.mark_provider(birch.network.id, "blocked")
        assert await listed() == [("ash", ""), ("birch", "blocked")]
        wrong = await run("providers", "--sort", "stars", data=tmp_path / "me")
        assert wrong.code == 2 and "1st-token" in wrong.err and wrong.out == ""


async def test_those_that_offer_nothing_are_listed_when_all_are_asked_for(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    where = folders(tmp_path / "me", network=network)
    async with running(where.data) as me, running(tmp_path / "friend", network=network, name="ash") as friend:
        await listening(friend)
        await until(lambda: me._net.nodes(), "it knows the other one")
        none = await run("providers", data=where.data)
        assert (none.code, none.out) == (0, "") and "None of 1 nodes offers a model now" in none.err
        assert "--all" in none.err
        everybody = await run("providers", "--all", "--json", data=where.data)
        (row,) = json.loads(everybody.out)
        assert everybody.err == "" and row["name"] == "ash" and row["model"] is None
        await offering(friend, TINY)
        await until(lambda: me._drivers.offers(me._net.nodes()), "it offers something")
        (row,) = json.loads((await run("providers", "--all", "--json", data=where.data)).out)
        assert row["model"] == "tiny"


async def test_watching_in_a_pipe_tells_each_change_as_a_line(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    where = folders(tmp_path / "me", network=network)
    async with running(where.data) as me:
        await listening(me)
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "providers", "--watch", "--all", "--json"),
            env=environment(where.data, **ONLINE),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(LIMIT):
                async with running(tmp_path / "friend", network=network, name="friend") as friend:
                    first = json.loads(await process.stdout.readline())
                    assert first["id"] == id_text(friend.network.id)
                    assert first["status"] == "online" and first["model"] is None
                    await offering(friend, TINY)
                    while (offer := json.loads(await process.stdout.readline()))["model"] is None:
                        pass
                    assert offer["model"] == "tiny" and offer["answered"] == 0
                    await me._drivers.observed(friend.network.id, TINY.model_id, ANSWERED)
                    while (offer := json.loads(await process.stdout.readline()))["answered"] == 0:
                        pass
                    assert offer["first_token_ms"] == 200.0
                while (later := json.loads(await process.stdout.readline()))["status"] == "online":
                    pass
                assert later["id"] == first["id"] and later["status"] in ("offline", "gone")
        finally:
            process.send_signal(2)
            _, err = await process.communicate()
        assert process.returncode == 130 and err == b""


async def test_watching_on_a_terminal_is_a_table(tmp_path: Path) -> None:
    network = network_name(tmp_path)
    where = folders(tmp_path / "me", network=network)

    def watch(name: str) -> None:
        command = [*COMMAND, "providers", "--watch"]
        with closing(Terminal(command, environment(where.data, **ONLINE), size=(140, 20))) as terminal:
            terminal.wait_for(name, seconds=60)
            assert "trip" in terminal.text and "tiny" in terminal.text and "NEW" in terminal.text
            terminal.wait_for(lambda text: " ms" in text, seconds=60)  # health of those that are shown
            terminal.press("ctrl+c")
            assert terminal.wait_exit(seconds=60) == 130
            assert "Traceback" not in terminal.text

    async with running(tmp_path / "friend", network=network, name="friend") as friend:
        await offering(friend, TINY)
        await asyncio.to_thread(watch, display("friend", friend.network.id))


def test_nobody_there_is_said_beside_an_empty_list(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    ran = infraxa("providers", "--json", "--wait", "0.5", data=where.data, env=ONLINE)
    assert (ran.code, ran.out) == (0, "[]\n") and ran.err.count("\n") == 1 and "infraxa join" in ran.err


def test_what_keeps_a_node_from_the_network_is_a_failure(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    for arguments in (("providers",), ("providers", "--watch"), ("invite",), ("join", "ix1")):
        ran = infraxa(*arguments, data=where.data, env=ONLINE | {"INFRAXA_LISTEN_PORT": "80"})
        one_line(ran, "port 80", "listen_port")
        one_line(infraxa(*arguments, data=where.data), "offline", "online true")


async def test_an_invite_of_one_folder_lets_another_one_in(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    where, other = folders(tmp_path / "me", network=here), folders(tmp_path / "friend", network=there)
    async with running(other.data, announce=False) as friend:
        await listening(friend)
        made = await run("invite", "--hours", "2", "--json", data=other.data)
        facts = json.loads(made.out)
        assert made.code == 0 and made.err == "" and facts["network"] == there and facts["hours"] == 2
        plain = await run("invite", data=other.data)
        assert plain.out.startswith("ix1") and plain.out.count("\n") == 1

        # Alone, by standard input, in capitals.
        ran = await run("join", "-", data=where.data, stdin=facts["invite"].upper())
        assert ran.code == 0 and f"in the network {there}" in ran.out, ran
        assert "links with that one again when infraxa is open" in ran.err
        assert settings_of(where.data).network == there
        async with running(where.data, announce=False) as me:
            await linked(me, friend)
    # Attached: the node that is open goes there, and says so to its own screen.
    async with (
        running(other.data) as friend,
        running(folders(tmp_path / "third", network=here).data) as third,
    ):
        await listening(friend)
        invite = (await run("invite", data=other.data)).out
        ran = await run("join", invite, "--json", data=tmp_path / "third")
        assert ran.code == 0 and ran.err == "", ran
        assert json.loads(ran.out)["network"] == there == third.settings.network
        await linked(third, friend)


async def test_an_invite_that_is_no_good_is_one_line(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    where = folders(tmp_path / "me", network=here)
    good = an_invite(there)
    async with running(where.data) as me:
        await listening(me)
        one_line(await run("join", good[:-4], data=where.data), "cut off")
        one_line(await run("join", "rubbish\x1b[2J", data=where.data), "begins with ix1")
        one_line(await run("join", good, data=where.data), "No node answers at ws://127.0.0.1:2009")
        await until(lambda: me.network.network == here and me.network.activity == "alone", "it is back")
    assert settings_of(where.data).network == here
    ran = await run("join", good, data=where.data)  # and alone
    one_line(ran, "No node answers")
    assert settings_of(where.data).network == here
    empty = await run("join", "-", data=where.data)
    assert empty.code == 2 and "There is no invite" in empty.err
    assert (await run("invite", "--hours", "0", data=where.data)).code == 2


async def test_a_variable_that_goes_before_the_network_of_an_invite_is_said(tmp_path: Path) -> None:
    here, there = network_name(tmp_path, "a"), network_name(tmp_path, "b")
    async with running(tmp_path / "friend", network=there) as friend:
        await listening(friend)
        ran = await run("join", await friend.invite(), data=tmp_path / "me", INFRAXA_NETWORK=here)
        assert ran.code == 0 and "INFRAXA_NETWORK is set and goes before" in ran.err


def test_an_invite_that_will_lead_nowhere_later_comes_with_a_word(tmp_path: Path) -> None:
    where = folders(tmp_path / "me", network=network_name(tmp_path))
    ran = infraxa("invite", data=where.data, env=ONLINE)
    assert ran.code == 0 and ran.out.startswith("ix1")
    assert "does not run now" in ran.err and "another port" in ran.err
