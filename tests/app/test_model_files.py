"""A model file that is replaced, cut off, overwritten or deleted while it is loaded, with the real engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infraxa.app.errors import NodeError
from infraxa.app.node import Node
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import EngineError, Loaded
from infraxa.store.records import ChatOptions, Message
from tests.app.test_node import LONG, SETTINGS, Watched, folders

BOUND = 60.0


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    node = Node(SETTINGS, folders(tmp_path / "data"), load_model=False)
    watched = Watched(node)
    await node.start()
    try:
        yield watched
    finally:
        await node.close()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The guide, as a file of the person's own."""
    path = tmp_path / "model.gguf"
    path.write_bytes(GUIDE_PATH.read_bytes())
    return path


def another(path: Path) -> Path:
    """A model of which the last number is another one, elsewhere."""
    data = bytearray(GUIDE_PATH.read_bytes())
    data[-1] ^= 1
    other = path.with_name("other.gguf")
    other.write_bytes(data)
    return other


def overwrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def asked(watched: Watched, model: str, text: str = "What is 2+2?") -> str:
    """The id of the answer."""
    chat = await watched.node.create_chat()
    await watched.node.set_chat_options(chat.id, ChatOptions(model=model))
    return await watched.node.send(chat.id, text)


async def answer(watched: Watched, model: str, text: str = "What is 2+2?") -> Message:
    return await watched.ended(await asked(watched, model, text))


async def writing(watched: Watched, model: str) -> str:
    """An answer that has begun, and is long."""
    message_id = await asked(watched, model, LONG)
    async with asyncio.timeout(BOUND):
        while not watched.node.partial(message_id):  # noqa: ASYNC110 - what is asked for is a text
            await asyncio.sleep(0.01)
    return message_id


def loaded(watched: Watched) -> Loaded:
    loaded = watched.node.engine.loaded
    assert loaded is not None
    return loaded


async def test_a_file_that_is_replaced_is_loaded_anew_and_what_runs_ends_with_the_old_one(
    watched: Watched, model: Path
) -> None:
    running = await writing(watched, str(model))
    before = loaded(watched).pid
    os.replace(another(model), model)
    again = await answer(watched, str(model))
    assert again.state == "complete" and "4" in again.content
    assert loaded(watched).pid != before
    ended = await watched.ended(running)
    assert ended.state == "complete", "its process has the old file"
    async with asyncio.timeout(BOUND):
        while before in watched.node.models.workers:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
    pid = loaded(watched).pid
    assert (await answer(watched, str(model))).state == "complete" and loaded(watched).pid == pid


async def test_a_file_that_is_cut_off_in_place_ends_its_answers_with_one_clear_error(
    watched: Watched, model: Path
) -> None:
    running = await writing(watched, str(model))
    os.truncate(model, 4096)
    ended = await watched.ended(running)
    assert ended.state == "failed" and ended.facts is not None and ended.facts.error_code == "worker_died"
    assert "model.gguf was overwritten or cut off" in ended.error and "signal" not in ended.error
    failed = await answer(watched, str(model))
    assert failed.state == "failed" and "model.gguf" in failed.error
    assert (await answer(watched, "guide")).state == "complete"
    overwrite(model, GUIDE_PATH.read_bytes())
    assert "4" in (await answer(watched, str(model))).content


async def test_a_file_that_is_overwritten_in_place_is_loaded_anew(watched: Watched, model: Path) -> None:
    assert (await answer(watched, str(model))).state == "complete"
    before = loaded(watched).pid
    overwrite(model, another(model).read_bytes())
    assert "4" in (await answer(watched, str(model))).content
    assert loaded(watched).pid != before


async def test_a_file_that_is_deleted_ends_nothing_and_is_missed_by_the_next_question(
    watched: Watched, model: Path
) -> None:
    await watched.node.add_model(model, "mine")
    running = await writing(watched, "mine")
    os.unlink(model)
    assert (await watched.ended(running)).state == "complete"
    missing = await answer(watched, "mine")
    assert missing.state == "failed" and f"{model} is missing" in missing.error
    assert (await answer(watched, "guide")).state == "complete"


async def test_the_hash_of_a_model_is_that_of_the_file_that_answers(watched: Watched, model: Path) -> None:
    models = watched.node.models
    added = await watched.node.add_model(model, "mine")
    assert (await models.model_id(added)).hex() == digest(GUIDE_PATH)
    async with models.held(added, SETTINGS, guest=True) as engine:
        before = engine.status.loaded
        assert before is not None
    os.replace(another(model), model)
    # Whoever goes by what was known of it is not answered by another one.
    with pytest.raises(EngineError, match="changed"):
        async with models.held(added, SETTINGS, guest=True):
            pass
    changed = await models.entry("mine")
    assert "has changed since it was added" in changed.problem
    assert "has changed" in (await answer(watched, "mine")).error
    await watched.node.remove_model("mine")
    assert before.pid not in models.workers
    renewed = await watched.node.add_model(model, "mine")
    assert renewed.sha256 == digest(model) != added.sha256
    with pytest.raises(EngineError, match="changed"):
        async with models.held(added, SETTINGS, guest=True):
            pass
    async with models.held(renewed, SETTINGS, guest=True) as engine:
        assert engine.status.loaded is not None and engine.status.loaded.pid != before.pid


async def test_two_models_answer_side_by_side_and_are_seen(watched: Watched, model: Path) -> None:
    node = watched.node
    await node.add_model(model, "mine")
    first, second = await writing(watched, "guide"), await writing(watched, "mine")
    assert {entry.name for entry in await node.list_models() if entry.loaded} == {"guide", "mine"}
    assert len(node.models.workers) == 2
    assert Path(node.engine.model) == model, "what was wanted last"
    assert (await watched.ended(first)).state == (await watched.ended(second)).state == "complete"
    await node.change_setting("models_loaded", 1)
    other = str(another(model))
    assert (await answer(watched, other)).state == "complete"
    assert len(node.models.workers) == 1 and node.engine.model == other
    assert not [entry.name for entry in await node.list_models() if entry.loaded]


async def test_a_closed_node_has_no_workers(watched: Watched) -> None:
    assert (await answer(watched, "guide")).state == "complete"
    models = watched.node.models
    guide = await models.entry("guide")
    await watched.node.close()
    assert models.workers == () and models.ready == frozenset()
    with pytest.raises(NodeError, match="not open"):
        await models.load(guide, SETTINGS)
