"""A node pulls a model from a hub: looked at before the first byte, checked after the last, then in use."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from infraxa.app import hub_download, pulling
from infraxa.app.commands.models import become_default, use_text
from infraxa.app.config import GUIDE, Settings
from infraxa.app.control.client import AttachedNode
from infraxa.app.errors import FAILURES, NodeError
from infraxa.app.events import Event, ModelsChanged
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import Folders
from infraxa.app.hub_partial import FOLDER, bytes_here
from infraxa.app.hub_values import (
    Access,
    PullAdded,
    PullAsked,
    PullChecked,
    PullChosen,
    PullEvent,
    PullMoved,
)
from infraxa.app.node import Node
from infraxa.app.pulling import Pulling, plan
from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.types import EngineError
from infraxa.store.records import ModelRecord, StoreError
from tests.app.fake_hub import Hub, fake_hub
from tests.engine.test_embeddings import write_bert

CONTENT = GUIDE_PATH.read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REPO = "somebody/guide-GGUF"
SETTINGS = Settings(online=False, threads=1, slots=2)
LIMIT = 60.0


@pytest.fixture
def there() -> Iterator[Hub]:
    with fake_hub() as it:
        it.add(REPO, Q8_0=CONTENT, F16=b"GGUF" * 10)
        yield it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "PAUSES", (0.01, 0.01, 0.01))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders.find(tmp_path / "data", {})


@pytest.fixture
async def node(folders: Folders) -> AsyncIterator[Node]:
    node = Node(SETTINGS, folders, load_model=False)
    await node.start()
    yield node
    await node.close()


def asked(there: Hub, **more: str | bool) -> PullAsked:
    return msgspec.structs.replace(PullAsked(REPO, access=Access(there.url)), **more)


async def pull(node: NodeFacade, wanted: PullAsked) -> list[PullEvent]:
    async with asyncio.timeout(LIMIT), contextlib.aclosing(node.pull_model(wanted)) as stream:
        return [event async for event in stream]


async def fails(node: NodeFacade, wanted: PullAsked, code: str) -> str:
    with pytest.raises(FAILURES) as caught:
        await pull(node, wanted)
    error = caught.value
    assert isinstance(error, NodeError | EngineError | StoreError) and error.code == code, error
    return f"{error.message} {error.remedy}"


def files(folders: Folders) -> list[Path]:
    return [path for path in (folders.data / "models").rglob("*") if path.is_file()]


async def test_a_model_is_pulled_and_used_and_removed(there: Hub, node: Node, folders: Folders) -> None:
    heard: list[Event] = []
    node.subscribe(heard.append)
    events = await pull(node, asked(there, quant="q8_0"))
    chosen, added = events[0], events[-1]
    assert isinstance(chosen, PullChosen) and isinstance(added, PullAdded)
    assert chosen.plan.missing == chosen.plan.size == len(CONTENT) and chosen.plan.name == "model-Q8_0"
    assert any(isinstance(event, PullMoved) and event.done == len(CONTENT) for event in events)
    assert added.is_default and added.model.sha256 == DIGEST and ModelsChanged() in heard
    assert [path.read_bytes() for path in files(folders)] == [CONTENT]
    assert Path(added.model.path) == files(folders)[0]
    assert node.current_model() == added.model.name == "model-Q8_0"

    words = await fails(node, asked(there, quant="q8_0"), "exists")
    assert "is already here, as model-Q8_0" in words
    before = len(there.ranges())
    await node.remove_model("model-Q8_0")
    assert len(files(folders)) == 1 and node.current_model() == GUIDE
    again = await pull(node, asked(there, quant="q8_0", name="mine"))
    assert isinstance(again[-1], PullAdded) and again[-1].model.name == "mine"
    assert len(there.ranges()) == before, "what is here is not downloaded again"
    await node.remove_model("mine", delete=True)
    assert files(folders) == [] and list((folders.data / "models").iterdir()) == []


async def test_only_files_that_were_pulled_are_deleted(node: Node, tmp_path: Path) -> None:
    (own := tmp_path / "own.gguf").write_bytes(CONTENT)
    await node.add_model(own)
    await node.remove_model("own", delete=True)
    assert own.exists()


async def test_another_process_pulls_through_the_node(
    there: Hub, node: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "LET_GO", 0.1)
    attached = AttachedNode(SETTINGS, folders)
    await attached.start()
    try:
        there.slowly = (100_000, 0.02)
        async with asyncio.timeout(LIMIT), contextlib.aclosing(attached.pull_model(asked(there))) as stream:
            async for event in stream:
                if isinstance(event, PullMoved) and event.done > 300_000:
                    await fails(attached, asked(there), "busy")
                    break
        there.slowly = None
        monkeypatch.setattr(hub_download, "LET_GO", LIMIT)
        events = await pull(attached, asked(there))
        assert isinstance(events[0], PullChosen) and 0 < events[0].plan.missing <= len(CONTENT) - 300_000
        assert PullChecked(len(CONTENT), len(CONTENT)) in events
        assert isinstance(events[-1], PullAdded) and events[-1].model.sha256 == DIGEST
        assert attached.current_model() == "model-Q8_0"
        await attached.remove_model("model-Q8_0", delete=True)
        assert files(folders) == []
    finally:
        await attached.close()


async def test_garbage_that_begins_like_a_model_leaves_nothing(
    there: Hub, node: Node, folders: Folders
) -> None:
    for content in (b"GGUF" + b"\7" * 100_000, CONTENT[:-40_000], CONTENT.replace(b"llama", b"zzama")):
        there.add(REPO, Q8_0=content)
        with pytest.raises(EngineError, match="Nothing was kept"):
            await pull(node, asked(there))
        assert files(folders) == []
    assert [entry.name for entry in await node.list_models()] == [GUIDE]


async def test_a_stopped_pull_goes_on_with_the_next(there: Hub, node: Node, folders: Folders) -> None:
    there.slowly = (100_000, 0.02)
    stream = node.pull_model(asked(there))
    async with asyncio.timeout(LIMIT), contextlib.aclosing(stream):
        async for event in stream:
            if isinstance(event, PullMoved) and event.done > 300_000:
                stream.stop()
    kept = bytes_here(folders.data / "models", DIGEST)
    assert 300_000 < kept < len(CONTENT)
    there.slowly = None
    assert isinstance((await pull(node, asked(there)))[-1], PullAdded)
    assert there.ranges()[-1].startswith(f"bytes={kept}-")
    assert not (folders.data / "models" / FOLDER).exists()


async def test_what_cannot_be_is_said_before_the_first_byte(
    there: Hub, node: Node, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "guide" in await fails(node, asked(there, name=GUIDE), "bad_name")
    assert "OWNER/NAME" in await fails(node, asked(there, repo="nothing"), "bad_repo")
    assert "Check the name" in await fails(node, asked(there, repo="a/b"), "no_repo")
    assert "There are: F16, Q8_0." in await fails(node, asked(there, quant="Q2_K"), "no_quant")
    there.repos["a/b"] = {"model.safetensors": b"x"}
    assert "has no GGUF files" in await fails(node, asked(there, repo="a/b"), "no_gguf")
    there.hashes["model-Q8_0.gguf"] = None
    await fails(node, asked(there), "no_hash")
    del there.hashes["model-Q8_0.gguf"]
    there.sizes["model-Q8_0.gguf"] = 1 << 45
    assert "--force" in await fails(node, asked(there, quant="q8_0"), "no_memory")
    assert "are free on the disk" in await fails(node, asked(there, quant="q8_0", force=True), "no_space")
    del there.sizes["model-Q8_0.gguf"]
    monkeypatch.setattr(pulling, "RESERVE", 1 << 60)
    await fails(node, asked(there), "no_space")
    assert there.ranges() == [] and files(folders) == []
    await pull_after(node, there, monkeypatch)


async def pull_after(node: Node, there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is taken is said, too."""
    monkeypatch.setattr(pulling, "RESERVE", 0)
    await pull(node, asked(there, name="mine"))
    there.add("another/one", Q8_0=CONTENT + b"\0" * 32)
    assert "named mine" in await fails(node, asked(there, repo="another/one", name="mine"), "exists")


async def test_too_little_memory_is_a_warning(
    there: Hub, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await plan(asked(there), folders, [])).warning == ""
    monkeypatch.setattr(pulling, "free_memory", lambda: 1_000_000)
    found = await plan(asked(there, quant="q8_0"), folders, [])
    assert found.warning == "It takes about 11.9 MB of memory, and 1.0 MB are free now."
    assert not folders.data.exists(), "nothing is written by looking"


async def test_a_file_that_was_changed_since_is_found(there: Hub, node: Node, folders: Folders) -> None:
    await pull(node, asked(there))
    await node.remove_model("model-Q8_0")
    path = files(folders)[0]
    path.write_bytes(CONTENT.replace(b"general.name", b"general.nama"))
    assert "--delete" in await fails(node, asked(there), "bad_hash")


async def test_all_files_of_a_split_model_are_pulled(there: Hub, folders: Folders) -> None:
    parts = [CONTENT[:1_000_000], b"GGUF" + CONTENT[1_000_000:]]
    there.repos[REPO] = {f"Q8_0/m-Q8_0-{n:05}-of-00002.gguf": part for n, part in enumerate(parts, 1)}
    taken: list[tuple[Path, str | None, str | None]] = []

    async def known() -> list[ModelRecord]:
        return []

    async def add(path: Path, name: str | None, digest: str | None) -> PullAdded:
        taken.append((path, name, digest))
        assert [part.read_bytes() for part in sorted(path.parent.iterdir())] == parts
        raise NodeError("busy", "Enough.", "Go.")

    there.cuts = [300_000, 100_000]
    told: list[PullEvent] = []
    with pytest.raises(NodeError, match="Enough"):
        async with contextlib.aclosing(Pulling(asked(there), folders, known, add)) as stream:
            async for event in stream:
                told.append(event)
    moved = [event.done for event in told if isinstance(event, PullMoved)]
    assert moved == sorted(moved) and moved[-1] == sum(map(len, parts))
    assert taken[0][0].name == "m-Q8_0-00001-of-00002.gguf" and taken[0][1:] == (None, None)


async def test_a_model_that_only_makes_embeddings_is_no_default(
    there: Hub, node: Node, tmp_path: Path
) -> None:
    there.repos["a/bert"] = {"bert-F32.gguf": await asyncio.to_thread(embedder, tmp_path)}
    added = (await pull(node, asked(there, repo="a/bert")))[-1]
    assert isinstance(added, PullAdded) and added.model.info.embeds_only and not added.is_default
    assert node.current_model() == GUIDE
    assert "makes embeddings" in use_text(added.model, added.is_default)
    assert not become_default(node.folders, SETTINGS, added.model)


def embedder(folder: Path) -> bytes:
    return write_bert(folder / "bert.gguf").read_bytes()


async def test_a_model_that_only_has_no_room_now_is_kept(there: Hub, folders: Folders) -> None:
    async def known() -> list[ModelRecord]:
        return []

    async def add(path: Path, name: str | None, digest: str | None) -> PullAdded:
        raise EngineError("no_memory", "There is no room.", "Close something.")

    with pytest.raises(EngineError, match="The file is kept") as caught:
        async with contextlib.aclosing(Pulling(asked(there), folders, known, add)) as stream:
            async for _ in stream:
                pass
    assert "nothing is downloaded twice" in caught.value.remedy
    assert [path.read_bytes() for path in files(folders)] == [CONTENT]
