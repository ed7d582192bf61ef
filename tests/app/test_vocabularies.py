"""Which vocabulary an answer's tokens are counted with, where it comes from, and what is kept of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from infraxa.app import vocabularies
from infraxa.app.models import Models
from infraxa.app.offering import servable
from infraxa.app.offers import OfferSeen
from infraxa.app.vocabularies import Vocabularies, agreed, holders
from infraxa.engine.gguf_vocabulary import read_vocabulary
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.vocabulary import Vocabulary
from infraxa.net import wire
from infraxa.net.errors import NetError
from infraxa.net.link import Handler, Link, Stream
from infraxa.net.records import ModelOffer, Status
from infraxa.net.status import SeenNode
from infraxa.net.tasks import TaskGroup
from infraxa.store.db import Store
from tests.app.selling import scripted
from tests.net.nodes import Node, nodes, until

GUIDE = read_vocabulary(GUIDE_PATH)
GUIDE_ID = hashlib.sha256(GUIDE_PATH.read_bytes()).digest()
ELSEWHERE = b"e" * 32
"""A model that this machine does not have."""


def vocabulary(*pieces: bytes) -> Vocabulary:
    return Vocabulary(array("H", map(len, pieces)), b"".join(pieces))


OTHER = vocabulary(b"one", b"two")


@pytest_asyncio.fixture
async def models(tmp_path: Path) -> AsyncIterator[Models]:
    """The guide, and what is added."""
    store = await Store.open(tmp_path)
    engine, tasks = Engine(), TaskGroup()
    found = Models(lambda: engine, tasks)
    found.open(store)
    yield found
    await tasks.cancel_all()
    await engine.close()
    await store.close()


class Library:
    """Nodes that give what the test says, by their numbers; the last one asks."""

    def __init__(self, there: list[Node], *given: bytes | None) -> None:
        """None: nothing is said, for ever; empty: that it is not there."""
        self.ids = [bytes([number]) * 32 for number in range(len(given))]
        self.asked: list[int] = []
        self._there = there
        self._given = list(given)
        for number in range(len(given)):
            there[number].handler = self._handler(number)

    def _handler(self, number: int) -> Handler:
        async def handle(link: Link, stream: Stream, request: wire.Request) -> None:
            assert isinstance(request, wire.VocabPlease)
            self.asked.append(number)
            data = self._given[number]
            if data is None:
                await asyncio.Event().wait()
            elif data:
                await stream.send(data)
            else:
                await stream.fail(wire.Failure("model_gone"))

        return handle

    async def link_to(self, node: bytes) -> Link:
        if node not in self.ids:
            raise NetError("unreachable", "It is not there.")
        return await self._there[-1].dial(self._there[self.ids.index(node)])


@asynccontextmanager
async def library(*given: bytes | None) -> AsyncIterator[Library]:
    async with asyncio.timeout(60), nodes(len(given) + 1) as there:
        yield Library(there, *given)


async def nobody(node: bytes) -> Link:
    raise AssertionError("nobody is to be asked")


def kept(folder: Path) -> set[str]:
    return {path.name for path in (folder / "vocab").iterdir()}


async def test_the_file_of_the_model_is_the_best_source(tmp_path: Path, models: Models) -> None:
    it = Vocabularies(tmp_path, models, nobody)
    for vocab in (None, GUIDE.hash, OTHER.hash):
        found = await it.of(GUIDE_ID, vocab, [b"x" * 32], wait_s=1)
        assert found is not None and found.hash == GUIDE.hash
    assert not (tmp_path / "vocab").exists()


async def test_a_model_that_was_added_is_counted_by_its_file(tmp_path: Path, models: Models) -> None:
    path, content = tmp_path / "mine.gguf", GUIDE_PATH.read_bytes() + b"more"
    path.write_bytes(content)
    await models.add(path, "mine", None)
    model_id = hashlib.sha256(content).digest()
    it = Vocabularies(tmp_path, models, nobody)
    assert await it.of(model_id, None, []) is not None
    os.utime(path, (1, 1))
    again = Vocabularies(tmp_path, models, nobody)
    assert await again.of(model_id, None, []) is None, "it may be another one by now"


async def test_one_that_is_not_here_is_fetched_and_kept(tmp_path: Path, models: Models) -> None:
    async with library(OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, None, shelf.ids) is None
        assert await it.of(ELSEWHERE, OTHER.hash, []) is None and shelf.asked == []
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids) is None, "it is on its way"
        found = await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20)
        assert found is not None and found.count([0, 1], "onetwo") == 2
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids) is found
        assert shelf.asked == [0]
        await it.close()
    later = Vocabularies(tmp_path, models, nobody)
    found = await later.of(ELSEWHERE, OTHER.hash, [])
    assert found is not None and found.hash == OTHER.hash
    assert kept(tmp_path) == {OTHER.hash.hex()}


def garbled() -> bytes:
    """The same vocabulary with another hash: a field that is not known."""
    version, lengths, joined = msgspec.msgpack.decode(OTHER.encode())
    return msgspec.msgpack.encode([version, lengths, joined, 1])


@pytest.mark.parametrize("data", [b"garbage", garbled(), b"\xc1" * 100])
async def test_what_is_no_vocabulary_is_not_kept(tmp_path: Path, models: Models, data: bytes) -> None:
    """Although it is what its hash says."""
    async with library(data) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, hashlib.sha256(data).digest(), shelf.ids, wait_s=20) is None
        assert shelf.asked == [0] and not (tmp_path / "vocab").exists()
        await it.close()


async def test_others_are_asked_when_one_has_it_not_or_lies(tmp_path: Path, models: Models) -> None:
    async with library(b"", b"a lie", OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20) is not None
        assert shelf.asked == [0, 1, 2]
        await it.close()


async def test_not_more_than_so_many_are_asked_and_not_soon_again(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library(b"", b"", b"", OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        for _ in range(3):
            assert await it.of(ELSEWHERE, OTHER.hash, [b"?" * 32, *shelf.ids], wait_s=20) is None
        assert shelf.asked == [0, 1] and vocabularies.MAX_HOLDERS == 3
        monkeypatch.setattr(vocabularies, "RETRY_S", 0.0)
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids[::-1], wait_s=20) is not None
        await it.close()


async def test_two_who_want_it_have_it_fetched_once(tmp_path: Path, models: Models) -> None:
    async with library(OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        both = [it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20) for _ in range(2)]
        assert None not in await asyncio.gather(*both)
        assert shelf.asked == [0]
        await it.close()


async def test_a_node_that_says_nothing_keeps_nobody_waiting(tmp_path: Path, models: Models) -> None:
    async with library(None) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        for number in range(vocabularies.MAX_FETCHES + 2):
            vocab = bytes([number]) * 32
            assert await it.of(ELSEWHERE, vocab, shelf.ids, wait_s=0.01) is None
        await until(lambda: len(shelf.asked) == vocabularies.MAX_FETCHES)
        await it.close()
        assert len(shelf.asked) == vocabularies.MAX_FETCHES


async def test_a_file_that_is_damaged_is_fetched_again(tmp_path: Path, models: Models) -> None:
    path = tmp_path / "vocab" / OTHER.hash.hex()
    path.parent.mkdir()
    async with library(OTHER.encode()) as shelf:
        for number, damaged in enumerate((b"", b"rubbish", GUIDE.encode(), OTHER.encode()[:-1]), 1):
            path.write_bytes(damaged)
            it = Vocabularies(tmp_path, models, shelf.link_to)
            found = await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20)
            assert found is not None and found.hash == OTHER.hash
            assert shelf.asked == [0] * number and path.read_bytes() == OTHER.encode()
            await it.close()


async def test_a_full_disk_does_not_keep_answers_from_being_counted(tmp_path: Path, models: Models) -> None:
    (tmp_path / "vocab").write_text("no folder")
    async with library(OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20) is not None
        await it.close()


async def test_those_not_used_for_longest_go(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabularies, "MAX_FILES", 3)
    monkeypatch.setattr(vocabularies, "MAX_LOADED", 1)
    many = [vocabulary(b"%d" % number) for number in range(5)]
    for number, one in enumerate(many):
        async with library(one.encode()) as shelf:
            it = Vocabularies(tmp_path, models, shelf.link_to)
            assert await it.of(ELSEWHERE, one.hash, shelf.ids, wait_s=20) is not None
            await it.close()
        os.utime(tmp_path / "vocab" / one.hash.hex(), (number, number))
        assert len(kept(tmp_path)) <= 3
    assert kept(tmp_path) == {one.hash.hex() for one in many[2:]}
    it = Vocabularies(tmp_path, models, nobody)
    assert await it.of(ELSEWHERE, many[2].hash, []) is not None, "the oldest is used now"
    async with library(OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20) is not None
        assert kept(tmp_path) == {one.hash.hex() for one in (many[2], many[4], OTHER)}
        assert await it.of(ELSEWHERE, many[4].hash, []) is not None
        assert len(it._loaded) == 1
        await it.close()


async def test_others_get_what_they_were_told_of_and_nothing_else(tmp_path: Path, models: Models) -> None:
    async with library(OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        assert await it.of(ELSEWHERE, OTHER.hash, shelf.ids, wait_s=20) is not None
        assert await it.file(OTHER.hash) is None, "which models it uses is nobody's business"
        assert await it.file(GUIDE.hash) is None
        entry, model_id = await servable(models, "guide", None)
        assert (entry.vocab, model_id) == (GUIDE.hash, GUIDE_ID)
        path = await it.file(GUIDE.hash)
        assert path is not None and path.read_bytes() == GUIDE.encode()
        path.unlink()
        assert await it.file(GUIDE.hash) == path and path.exists()
        assert await it.file(OTHER.hash) is None
        await it.close()


async def test_a_model_file_that_became_another_is_not_given(tmp_path: Path, models: Models) -> None:
    path, content = tmp_path / "mine.gguf", GUIDE_PATH.read_bytes()
    path.write_bytes(content)
    await models.add(path, "mine", None)
    entry, _ = await servable(models, "mine", None)
    at = content.index(b"tokenizer.ggml.token_type") + len(b"tokenizer.ggml.token_type") + 16
    path.write_bytes(content[: at + 4000] + b"\3" + content[at + 4001 :])
    assert read_vocabulary(path).hash != entry.vocab
    it = Vocabularies(tmp_path, models, nobody)
    assert await it.file(entry.vocab) is None
    path.unlink()
    assert await it.file(entry.vocab) is None


async def test_the_model_that_is_served_is_read_once(tmp_path: Path, models: Models) -> None:
    chosen = await servable(models, "guide", None)
    assert await servable(models, "guide", chosen) is chosen


async def test_a_model_without_a_vocabulary_that_can_be_read_is_served_all_the_same(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infraxa.engine.gguf_header.MAX_WHOLE", 10)
    entry, model_id = await servable(models, "guide", None)
    assert (entry.vocab, model_id) == (b"", GUIDE_ID)


def offer(model_id: bytes, vocab: bytes = b"") -> ModelOffer:
    return ModelOffer("a model", "llama", "Q8_0", model_id, 4096, 512, 0, 0, vocab=vocab)


def test_offers_agree_or_the_count_is_not_checked() -> None:
    one, two, other = b"1" * 32, b"2" * 32, b"o" * 32
    assert agreed(ELSEWHERE, []) is None
    assert agreed(ELSEWHERE, [offer(ELSEWHERE)]) is None
    assert agreed(ELSEWHERE, [offer(ELSEWHERE, one), offer(ELSEWHERE), offer(other, two)]) == one
    assert agreed(ELSEWHERE, [offer(ELSEWHERE, one), offer(ELSEWHERE, two)]) is None


def node(number: int, status: Status, *offers: ModelOffer) -> SeenNode:
    return SeenNode(bytes([number]) * 32, "node", status, 1.0, (), (), 1, 0, offers, (), 0)


async def test_the_driver_is_asked_first_for_what_all_agree_on(tmp_path: Path, models: Models) -> None:
    model = offer(ELSEWHERE, OTHER.hash)
    seen = [node(0, "online", model), node(1, "online", model), node(2, "online", offer(ELSEWHERE))]
    driver = OfferSeen(seen[1], model, 0, 0)
    async with library(OTHER.encode(), OTHER.encode()) as shelf:
        it = Vocabularies(tmp_path, models, shelf.link_to)
        liar = node(3, "offline", offer(ELSEWHERE, b"?" * 32))
        assert await it.for_answer(driver, [*seen, liar], wait_s=20) is None and shelf.asked == []
        found = await it.for_answer(driver, seen, wait_s=20)
        assert found is not None and found.hash == OTHER.hash and shelf.asked == [1]
        await it.close()


async def test_what_is_offered_names_it(tmp_path: Path) -> None:
    async with scripted(tmp_path) as shop:
        await shop.open()
        await until(lambda: shop.offers)
        offered = shop.offers[-1]
        assert offered is not None
        assert [(model.model_id, model.vocab) for model in offered.models] == [(GUIDE_ID, GUIDE.hash)]


def test_who_offers_it_can_be_asked_for_it() -> None:
    seen = [
        node(1, "online", offer(ELSEWHERE, b"1" * 32)),
        node(2, "offline", offer(ELSEWHERE, b"1" * 32)),
        node(3, "busy", offer(b"o" * 32, b"2" * 32), offer(ELSEWHERE, b"1" * 32)),
        node(4, "online", offer(ELSEWHERE, b"2" * 32)),
        node(5, "online"),
    ]
    assert holders(b"1" * 32, seen) == [b"\1" * 32, b"\3" * 32]
