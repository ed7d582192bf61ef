"""Watching nodes: what is learned and believed, when one is silent, what ends; and being watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infraxa.net import codec, health, wire
from infraxa.net.errors import NetError
from infraxa.net.health import Health, Probes
from infraxa.net.link import Clock, Link, Stream, StreamFailed
from infraxa.net.records import Record, State
from tests.net.nodes import Node, nodes, until


def state(node: Node, seq: int = 1) -> bytes:
    body = codec.encode(State(seq, bytes(8), "online", 0, (), 0))
    return codec.encode(Record("state", codec.sign("state", body, node.secret)))


class Watcher:
    """Health, and what it told."""

    def __init__(self, me: Node, them: Node) -> None:
        self.me = me
        self.them = them
        self.links: list[Link] = []
        self.let_go: list[Link] = []
        self.learned: list[bytes] = []
        self.changes = 0
        self.health = Health(self.link_to, self.let_go.append, self.learn, self.changed, Clock())

    async def link_to(self, node: bytes) -> Link:
        if node != self.them.id:
            raise NetError("unreachable", "No address of this node is known.")
        if not self.links or self.links[-1].closed:
            self.links.append(await self.me.dial(self.them))
        return self.links[-1]

    def learn(self, node: bytes, record: Record) -> None:
        self.learned.append(node)

    def changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def watching(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Watcher, Probes]]:
    """A watcher of a node, and the probes of that node, at ten times the pace."""
    monkeypatch.setattr(health, "EVERY_S", 0.1)
    monkeypatch.setattr(health, "AGAIN_S", 0.1)
    async with nodes(2) as (me, them):
        probes = Probes()

        async def serve(link: Link, stream: Stream, request: wire.Request) -> None:
            await probes.serve(link, stream, state(them))

        them.handler = serve
        watcher = Watcher(me, them)
        try:
            yield watcher, probes
        finally:
            await watcher.health.close()


async def test_a_watched_node_tells_its_state_at_once_and_each_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watching(monkeypatch) as (watcher, probes):
        watcher.health.watch((watcher.them.id,))
        await until(lambda: len(watcher.learned) == 1)
        await until(lambda: watcher.them.id in watcher.health.rtt_ms)
        assert not watcher.health.silent
        probes.tell(state(watcher.them, 2))
        await until(lambda: len(watcher.learned) == 2)


async def test_only_the_newest_choice_is_watched_and_nothing_of_others_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watching(monkeypatch) as (watcher, probes):
        them = watcher.them.id
        watcher.health.watch((them, bytes(32)))
        await until(lambda: them in watcher.health.rtt_ms and set(watcher.health.silent) == {bytes(32)})
        watcher.health.watch(())
        assert not watcher.health.rtt_ms
        await until(lambda: watcher.let_go == watcher.links)
        await until(lambda: not len(probes))
        changes = watcher.changes
        watcher.health._say(them, 1.0)  # the last turn of a task that is being cancelled
        assert not watcher.health.rtt_ms and watcher.changes == changes


async def test_so_many_nodes_are_watched_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(monkeypatch) as (watcher, _):
        watcher.health.watch(tuple(bytes((n,)) * 32 for n in range(2 * health.MAX_WATCHED)))
        await until(lambda: len(watcher.health.silent) == health.MAX_WATCHED)


async def test_a_node_that_does_not_answer_is_silent_until_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(monkeypatch) as (watcher, _):
        them = watcher.them.id
        watcher.health.watch((them,))
        await until(lambda: them in watcher.health.rtt_ms)
        (link,) = watcher.links
        ping = link.ping
        monkeypatch.setattr(link, "ping", lambda: None)
        await until(lambda: set(watcher.health.silent) == {them} and not watcher.health.rtt_ms)
        monkeypatch.setattr(link, "ping", ping)
        await until(lambda: not watcher.health.silent and them in watcher.health.rtt_ms)
        await watcher.them.links[0].close()
        await until(lambda: len(watcher.links) == 2)
        await until(lambda: not watcher.health.silent)


async def test_who_did_not_answer_is_silent_until_there_are_news_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    async with watching(monkeypatch) as (watcher, _):
        began, gone = clock.monotonic(), bytes(32)
        watcher.health.watch((gone,))
        await until(lambda: gone in watcher.health.silent)
        assert watcher.health.is_silent(gone, clock.monotonic())
        watcher.health.watch(())
        assert watcher.health.is_silent(gone, began)
        assert not watcher.health.is_silent(gone, clock.monotonic())
        assert not watcher.health.is_silent(watcher.them.id, began)
        # Asked again without an answer, it counts from then on.
        heard = clock.monotonic()
        watcher.health.watch((gone,))
        await until(lambda: watcher.health.silent[gone] > heard)
        watcher.health.watch(())
        assert watcher.health.is_silent(gone, heard)
        monkeypatch.setattr(health, "MAX_SILENT", 2)
        others = bytes((1,)) * 32, bytes((2,)) * 32
        watcher.health.watch(others)
        await until(lambda: set(watcher.health.silent) == set(others))
        assert gone not in watcher.health.silent


async def test_nothing_is_told_of_what_did_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(monkeypatch) as (watcher, _):
        watcher.health.watch((bytes(32),))
        await until(lambda: watcher.changes == 1)
        await asyncio.sleep(0.3)
        assert watcher.changes == 1


@pytest.mark.parametrize("lie", ["another's", "a card"])
async def test_who_tells_of_somebody_else_is_not_heard_any_more(
    lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(monkeypatch) as (watcher, probes):
        watcher.health.watch((watcher.them.id,))
        await until(lambda: len(probes) == 1)
        probes.tell(state(watcher.me) if lie == "another's" else watcher.them.card())
        end = await watcher.them.links[0].wait_closed()
        assert (end.reason, end.by) == ("not_asked", "peer")
        assert len(watcher.learned) == 1


async def test_states_cost_no_more_than_a_few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(monkeypatch) as (watcher, probes):
        watcher.health.watch((watcher.them.id,))
        await until(lambda: len(probes) == 1)
        for seq in range(3 * health.STATES_BURST):
            probes.tell(state(watcher.them, seq))
        end = await watcher.them.links[0].wait_closed()
        assert end.reason == "rate"
        assert len(watcher.learned) <= health.STATES_BURST + 1


async def test_a_watch_goes_on_after_a_failure_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(monkeypatch) as (watcher, _):
        with monkeypatch.context() as patch:
            patch.setattr(watcher.health, "_link_to", lambda node: 1 / 0)
            watcher.health.watch((watcher.them.id,))
            await until(lambda: "watch a node" in caplog.text)
        await until(lambda: bool(watcher.learned))


async def test_a_machine_has_so_many_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MAX_PROBES", 3)
    monkeypatch.setattr(health, "MAX_GROUP_PROBES", 2)
    monkeypatch.setattr(health, "group", lambda remote: "5.6.7.0/24")
    async with watching(monkeypatch) as (watcher, probes):
        links = [await watcher.me.dial(watcher.them) for _ in range(4)]
        streams = [await link.request(wire.Probe()) for link in links[:2]]
        for stream in streams:
            await anext(stream)
        with pytest.raises(StreamFailed) as refused:
            await anext(await links[2].request(wire.Probe()))
        assert refused.value.failure.code == "busy"
        monkeypatch.setattr(health, "group", lambda remote: "8.8.8.0/24")
        await anext(await links[2].request(wire.Probe()))
        with pytest.raises(StreamFailed):
            await anext(await links[3].request(wire.Probe()))
        streams[0].cancel()
        await until(lambda: len(probes) == 2)


async def test_one_probe_that_ends_keeps_no_other_from_hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching(monkeypatch) as (watcher, probes):
        links = [await watcher.me.dial(watcher.them) for _ in range(2)]
        streams = [await link.request(wire.Probe()) for link in links]
        for stream in streams:
            await anext(stream)
        ending = asyncio.ensure_future(watcher.them.links[0].close())
        await asyncio.sleep(0)  # it is said, and its handlers have not ended
        assert len(probes) == 2
        probes.tell(state(watcher.them, 2))
        heard = await asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
        assert sum(isinstance(one, bytes) for one in heard) == 1
        await ending
