"""A file of the hub arrives whole and right, or not at all, whatever the hub and the network do to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infraxa.app import hub, hub_download
from infraxa.app.errors import NodeError
from infraxa.app.hub_download import Download, Meter
from infraxa.app.hub_partial import FOLDER, Partial, bytes_here
from infraxa.app.hub_values import Access, HubFile, PullChecked, PullEvent, PullMoved, PullWaits
from infraxa.engine.guide import GUIDE_PATH
from tests.app.fake_hub import COMMIT, Hub, fake_hub

CONTENT = GUIDE_PATH.read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REPO, PATH = "somebody/guide-GGUF", "model-Q8_0.gguf"
LIMIT = 30.0


@pytest.fixture
def there() -> Iterator[Hub]:
    with fake_hub() as it:
        it.add(REPO, Q8_0=CONTENT)
        yield it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(hub_download, "LET_GO", 0.2)


def what(hub: Hub, **given: object) -> HubFile:
    return HubFile(str(given.get("path", PATH)), len(CONTENT), str(given.get("digest", DIGEST)))


async def download(there: Hub, models: Path, *, token: str = "", digest: str = DIGEST) -> list[PullEvent]:
    """What was told. Raises what the download does."""
    told: list[PullEvent] = []
    access = Access(there.url, token)
    async with asyncio.timeout(LIMIT), hub.client() as http:
        one = Download(http, access, REPO, COMMIT, HubFile(PATH, len(CONTENT), digest), models)
        async with contextlib.aclosing(one.run(models / "here.gguf", Meter(len(CONTENT)), 0)) as events:
            async for event in events:
                told.append(event)
    return told


async def fails(there: Hub, models: Path, code: str, **more: str) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await download(there, models, **more)
    assert caught.value.code == code, caught.value
    assert "\x1b" not in caught.value.message and caught.value.remedy
    return caught.value


def is_whole(models: Path) -> None:
    assert (models / "here.gguf").read_bytes() == CONTENT
    assert sorted(path.name for path in models.iterdir()) == ["here.gguf"], "nothing else stays"


def nothing(models: Path) -> None:
    assert [path for path in models.rglob("*") if path.is_file()] == []


async def test_a_file_arrives(there: Hub, tmp_path: Path) -> None:
    told = await download(there, tmp_path)
    is_whole(tmp_path)
    moved = [event for event in told if isinstance(event, PullMoved)]
    assert moved[-1].done == moved[-1].total == len(CONTENT)
    assert [event.done for event in moved] == sorted(event.done for event in moved)
    assert there.ranges() == [f"bytes=0-{len(CONTENT) - 1}"]


async def test_three_cuts_end_in_the_right_hash(there: Hub, tmp_path: Path) -> None:
    there.cuts = [1_500_000, 700_000, 2_000_000]
    told = await download(there, tmp_path)
    is_whole(tmp_path)
    assert len([event for event in told if isinstance(event, PullWaits)]) == 3
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for asked in there.ranges()]
    assert starts == [0, 1_500_000, 2_200_000, 4_200_000], "each goes on where the one before was cut"


@pytest.mark.parametrize("seed", range(6))
async def test_cut_at_any_byte(there: Hub, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    edges = [0, 1, 3, 4, 5, len(CONTENT) - 1, len(CONTENT)]
    there.cuts = [chance.choice([*edges, chance.randrange(len(CONTENT))]) for _ in range(3)]
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_an_answer_that_ends_before_the_file_does_is_a_cut(there: Hub, tmp_path: Path) -> None:
    there.ends_early = [0, 2_000_000]
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_what_comes_after_the_end_is_not_taken(there: Hub, tmp_path: Path) -> None:
    there.longer = b"more" * 100_000
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_too_many_cuts_are_given_up_and_the_next_pull_goes_on(there: Hub, tmp_path: Path) -> None:
    there.cuts = [1000] * 4
    error = await fails(there, tmp_path, "cut")
    assert "4.0 kB of 5.7 MB came and is kept" in error.message
    assert bytes_here(tmp_path, DIGEST) == 4000
    assert PullChecked(4000, 4000) in await download(there, tmp_path)
    is_whole(tmp_path)
    assert there.ranges()[-1].startswith("bytes=4000-")


async def test_a_hub_that_cannot_go_on_in_the_middle_sends_all_again(there: Hub, tmp_path: Path) -> None:
    there.ignores_range, there.cuts = True, [2_000_000]
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_a_hub_that_sends_another_part_is_not_believed(there: Hub, tmp_path: Path) -> None:
    there.shifts_range = 7
    await fails(there, tmp_path, "strange_hub")
    nothing(tmp_path)


async def test_a_long_file_is_asked_for_in_parts(
    there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "ASKED_AT_ONCE", 2_000_000)
    told = await download(there, tmp_path)
    is_whole(tmp_path)
    assert there.ranges()[:2] == ["bytes=0-1999999", "bytes=2000000-3999999"] and len(there.ranges()) == 3
    assert not [event for event in told if isinstance(event, PullWaits)]


@pytest.mark.parametrize("place", [0, 3, 1_234_567, len(CONTENT) - 1])
async def test_bytes_that_were_changed_leave_nothing(there: Hub, tmp_path: Path, place: int) -> None:
    there.changed = {place: CONTENT[place] ^ 1}
    error = await fails(there, tmp_path, "not_gguf" if place < 4 else "bad_hash")
    assert "Nothing was kept" in error.message
    nothing(tmp_path)


async def test_a_hub_that_lies_about_the_hash_leaves_nothing(there: Hub, tmp_path: Path) -> None:
    await fails(there, tmp_path, "bad_hash", digest="ab" * 32)
    nothing(tmp_path)


async def test_garbage_is_left_at_its_first_bytes(there: Hub, tmp_path: Path) -> None:
    there.repos[REPO][PATH] = b"<!DOCTYPE html><title>Log in</title>" * 100_000
    error = await fails(there, tmp_path, "not_gguf")
    assert "not a GGUF file" in error.message
    nothing(tmp_path)


async def test_what_an_earlier_attempt_left_wrong_is_found(there: Hub, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER / DIGEST
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(b"\0" * 1_000_000)
    await fails(there, tmp_path, "bad_hash")
    nothing(tmp_path)
    (folder := tmp_path / FOLDER / DIGEST).mkdir(parents=True)
    (folder / "part").write_bytes(CONTENT + b"more")
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_what_is_whole_already_is_only_checked(there: Hub, tmp_path: Path) -> None:
    (folder := tmp_path / FOLDER / DIGEST).mkdir(parents=True)
    (folder / "part").write_bytes(CONTENT)
    await download(there, tmp_path)
    is_whole(tmp_path)
    assert there.ranges() == []


async def test_nothing_comes_for_a_while(there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    there.stalls_at = [0, 2_000_000]
    told = await download(there, tmp_path)
    is_whole(tmp_path)
    assert [event.reason for event in told if isinstance(event, PullWaits)] == [
        f"{there.url.removeprefix('http://')} does not answer."
    ] * 2


async def test_a_hub_that_never_sends_anything_is_given_up(
    there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    there.stalls_at = [0] * 4
    await fails(there, tmp_path, "unreachable")
    nothing(tmp_path)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ((401, {}), "refused", "HF_TOKEN"),
        ((403, {"X-Error-Code": "GatedRepo"}), "gated", "Accept them at"),
        ((404, {}), "no_repo", "Check the name"),
        ((418, {}), "strange_hub", "HF_ENDPOINT"),
        ((302, {"Location": "file:///etc/passwd"}), "strange_hub", "HF_ENDPOINT"),
        ((302, {"Location": "http://[broken"}), "strange_hub", "HF_ENDPOINT"),
    ],
)
async def test_a_refusal_is_one_sentence_and_not_tried_again(
    there: Hub, tmp_path: Path, answer: tuple[int, dict[str, str]], code: str, words: str
) -> None:
    there.answers = [answer]
    error = await fails(there, tmp_path, code)
    assert words in error.remedy
    assert len(there.ranges()) == 1
    nothing(tmp_path)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_hub_in_trouble_is_asked_again_and_given_up_in_the_end(
    there: Hub, tmp_path: Path, status: int
) -> None:
    there.answers = [(status, {"Retry-After": "0"})] * 2
    await download(there, tmp_path)
    is_whole(tmp_path)
    (tmp_path / "here.gguf").unlink()
    there.answers = [(status, {})] * 4
    await fails(there, tmp_path, "rate_limited" if status == 429 else "hub_failed")


async def test_a_hub_that_asks_for_patience_gets_it_within_bounds(there: Hub, tmp_path: Path) -> None:
    there.answers = [(429, {"Retry-After": "999999"})]
    async with asyncio.timeout(LIMIT), hub.client() as http:
        one = Download(http, Access(there.url), REPO, COMMIT, what(there), tmp_path)
        async with contextlib.aclosing(one.run(tmp_path / "x", Meter(1), 0)) as events:
            waits = await anext(events)
    assert isinstance(waits, PullWaits) and waits.seconds == 60.0


async def test_a_redirect_leads_to_the_bytes_and_the_token_stays_behind(there: Hub, tmp_path: Path) -> None:
    with fake_hub("localhost") as store:
        store.repos = there.repos
        there.moved_to, there.token = store.url, "hf_secret"
        there.cuts, store.cuts = [], [1_000_000]
        await download(there, tmp_path, token="hf_secret")
        is_whole(tmp_path)
        assert {authorization for _, _, authorization in there.asked} == {"Bearer hf_secret"}
        assert {authorization for _, _, authorization in store.asked} == {""}
        assert store.ranges()[1].startswith("bytes=1000000-")


async def test_redirects_in_a_circle_end(there: Hub, tmp_path: Path) -> None:
    there.moved_to = there.url
    error = await fails(there, tmp_path, "strange_hub")
    assert "redirects" in error.message and len(there.ranges()) == hub.MAX_REDIRECTS + 1


async def test_a_file_that_is_compressed_on_the_way_is_not_taken(there: Hub, tmp_path: Path) -> None:
    there.compresses = True
    await fails(there, tmp_path, "strange_hub")
    nothing(tmp_path)


async def test_two_at_once(there: Hub, tmp_path: Path) -> None:
    partial = Partial(tmp_path, DIGEST, "the guide")
    try:
        error = await fails(there, tmp_path, "busy")
        assert "is being downloaded already" in error.message
    finally:
        partial.close()
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_one_that_was_just_stopped_is_waited_for(
    there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "LET_GO", LIMIT)
    partial = Partial(tmp_path, DIGEST, "the guide")
    asyncio.get_running_loop().call_later(0.2, partial.close)
    await download(there, tmp_path)
    is_whole(tmp_path)


async def test_what_came_until_it_was_cancelled_stays(there: Hub, tmp_path: Path) -> None:
    there.slowly = (100_000, 0.02)
    async with asyncio.timeout(LIMIT), hub.client() as http:
        one = Download(http, Access(there.url), REPO, COMMIT, what(there), tmp_path)
        async with contextlib.aclosing(one.run(tmp_path / "here.gguf", Meter(len(CONTENT)), 0)) as events:
            async for event in events:
                if isinstance(event, PullMoved) and event.done >= 500_000:
                    break
    kept = bytes_here(tmp_path, DIGEST)
    assert kept >= 500_000
    assert (tmp_path / FOLDER / DIGEST / "part").read_bytes() == CONTENT[:kept]
    there.slowly = None
    await download(there, tmp_path)
    is_whole(tmp_path)
    assert there.ranges()[-1].startswith(f"bytes={kept}-")


KILLED = """
import asyncio, sys
from pathlib import Path
from infraxa.app import hub
from infraxa.app.hub_download import Download, Meter
from infraxa.app.hub_values import Access, HubFile
url, models, repo, commit, path, size, digest = sys.argv[1:]

async def main():
    async with hub.client() as http:
        one = Download(http, Access(url), repo, commit, HubFile(path, int(size), digest), Path(models))
        async for event in one.run(Path(models) / "here.gguf", Meter(int(size)), 0):
            print(getattr(event, "done", 0), flush=True)

asyncio.run(main())
"""


def kill_in_the_middle(*arguments: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            if int(line) >= 500_000:
                break
        child.kill()
        child.wait(LIMIT)


async def test_what_came_until_it_was_killed_stays(there: Hub, tmp_path: Path) -> None:
    there.slowly = (100_000, 0.02)
    arguments = (there.url, str(tmp_path), REPO, COMMIT, PATH, str(len(CONTENT)), DIGEST)
    await asyncio.to_thread(kill_in_the_middle, *arguments)
    kept = bytes_here(tmp_path, DIGEST)
    assert kept >= 500_000
    there.slowly = None
    await download(there, tmp_path)
    is_whole(tmp_path)
    assert there.ranges()[-1].startswith(f"bytes={kept}-")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root can make a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)


async def test_a_disk_that_is_full_in_the_middle(there: Hub, small_disk: Path) -> None:
    error = await fails(there, small_disk, "disk_full")
    assert "is full" in error.message and "what came is kept" in error.remedy
    kept = bytes_here(small_disk, DIGEST)
    assert kept > 1_000_000
    assert (small_disk / FOLDER / DIGEST / "part").read_bytes() == CONTENT[:kept]
    await asyncio.to_thread(make_room, small_disk)
    await download(there, small_disk)
    is_whole(small_disk)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = Meter(1000)
    assert meter.at(0.0, 100) == PullMoved(100, 1000)
    assert meter.at(1.0, 200) == PullMoved(200, 1000, 100.0, 8.0)
    for second in range(2, 20):
        last = meter.at(float(second), 200 + second)
    assert last.rate is not None and last.rate < 2
    assert meter.at(20.0, 0) == PullMoved(0, 1000), "it began again"
