"""`infraxa models pull`: the short list, a download in a pipe and on a terminal, and its end with Ctrl-C."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infraxa.app.config import Settings
from infraxa.app.events import Event, ModelsChanged
from infraxa.app.folders import Folders
from infraxa.app.node import Node
from infraxa.engine.guide import GUIDE_PATH
from tests.app.command_line import COMMAND, Ran, environment, infraxa, one_line
from tests.app.fake_hub import Hub, fake_hub
from tests.e2e.terminal import Terminal

CONTENT = GUIDE_PATH.read_bytes()
REPO = "somebody/guide-GGUF"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def there() -> Iterator[Hub]:
    with fake_hub() as it:
        it.add(REPO, Q8_0=CONTENT)
        yield it


def pull(there: Hub, data: Path, *arguments: str, **env: str) -> Ran:
    return infraxa("models", "pull", *arguments, data=data, env={"HF_ENDPOINT": there.url, **env})


def names(data: Path) -> list[str]:
    return [model["name"] for model in json.loads(infraxa("models", "list", "--json", data=data).out)]


def terminal(there: Hub, data: Path, *arguments: str) -> Terminal:
    command = [*COMMAND, "models", "pull", *arguments]
    return Terminal(command, environment(data, HF_ENDPOINT=there.url), size=(120, 30))


def test_the_short_list(there: Hub, data: Path) -> None:
    ran = pull(there, data)
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 9)
    assert ran.out.splitlines()[4].split("\t")[:4] == ["Qwen/Qwen3-4B-GGUF:Q4_K_M", "4B", "2.5 GB", "3.0 GB"]
    listed = json.loads(pull(there, data, "--json").out)
    assert listed["total_memory"] >= listed["free_memory"] > 0
    first = listed["models"][0]
    assert first["license"] == "apache-2.0" and first["fits"] == (first["memory"] <= listed["free_memory"])
    assert there.asked == [] and not data.exists()
    with closing(terminal(there, data)) as shown:
        assert shown.wait_exit() == 0
        assert "good for" in shown.text and "of memory are free here" in shown.text


def test_a_pull_in_a_pipe(there: Hub, data: Path) -> None:
    there.cuts = [2_000_000]
    ran = pull(there, data, f"{REPO}:q8_0", "--name", "mine")
    assert ran.code == 0 and ran.out.startswith("Pulled mine (5M · Q8_0 · 5.7 MB): "), ran
    assert "It answers new chats from now on." in ran.out
    assert "license apache-2.0" in ran.err and "Attempt 1 of 5" in ran.err and "100%" in ran.err
    assert names(data) == ["guide", "mine"]
    for folder in (data, data / "models"):
        assert folder.stat().st_mode & 0o077 == 0, "its owner's alone, as it also holds the keys"
    answer = infraxa("ask", "What is 2+2?", "--json", data=data)
    assert json.loads(answer.out)["model"] == "mine"
    one_line(pull(there, data, REPO), "is already here, as mine")
    removed = infraxa("models", "remove", "mine", data=data)
    assert "Its file stays" in removed.out, "nobody can be asked in a pipe"
    path = Path(removed.out.split("stays: ")[1].splitlines()[0])
    assert path.read_bytes() == CONTENT
    assert pull(there, data, REPO, "--yes").code == 0
    removed = infraxa("models", "remove", "model-Q8_0", "--delete", data=data)
    assert "its file is deleted" in removed.out and not path.exists()


def test_what_was_pulled_is_wiped_with_the_rest(there: Hub, data: Path) -> None:
    assert pull(there, data, REPO).code == 0 and (data / "models").exists()
    ran = infraxa("wipe", "--yes", data=data)
    assert ran.code == 0 and "they can be pulled again" in ran.out
    assert not (data / "models").exists()


def test_each_event_is_a_line_of_json(there: Hub, data: Path) -> None:
    ran = pull(there, data, REPO, "--json", HF_TOKEN="hf_mine")
    events: list[dict[str, Any]] = [json.loads(line) for line in ran.out.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["chosen", "added"] and ran.err == ""
    assert {"moved", "checked"} <= {event["event"] for event in events}
    assert events[0]["plan"]["files"][0]["path"] == "model-Q8_0.gguf"
    assert events[-1]["model"]["default"] is True
    assert {authorization for *_, authorization in there.asked} == {"Bearer hf_mine"}
    assert "hf_mine" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "OWNER/NAME"),
        (("a/b",), "Check the name"),
        ((f"{REPO}:Q2_K",), "There are: Q8_0."),
        ((REPO, "--name", "a b"), "cannot be the name"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(
    there: Hub, data: Path, arguments: tuple[str, ...], words: str
) -> None:
    one_line(pull(there, data, *arguments), words)
    assert not data.exists()


def test_no_hub_is_one_line(data: Path) -> None:
    with fake_hub() as gone:
        pass
    one_line(pull(gone, data, REPO), "cannot be reached", "HF_ENDPOINT")
    one_line(pull(gone, data, REPO, HF_HUB_OFFLINE="1"), "HF_HUB_OFFLINE")


def test_a_person_is_asked_and_sees_how_it_goes(there: Hub, data: Path) -> None:
    with closing(terminal(there, data, REPO)) as shown:
        shown.wait_for("Download it? [Y/n]")
        assert "model-Q8_0.gguf: 5.7 MB" in shown.text and there.ranges() == []
        shown.press("n", "enter")
        assert shown.wait_exit() == 1 and "Nothing was downloaded." in shown.text
    assert there.ranges() == [] and not data.exists()
    there.slowly = (50_000, 0.02)
    with closing(terminal(there, data, REPO)) as shown:
        shown.wait_for("Download it? [Y/n]")
        shown.press("enter")
        shown.wait_for(lambda screen: "downloading" in screen and "MB/s" in screen and "left" in screen)
        there.slowly = None
        shown.wait_for("Pulled model-Q8_0")
        assert shown.wait_exit() == 0
    with closing(Terminal([*COMMAND, "models", "remove", "model-Q8_0"], environment(data))) as shown:
        shown.wait_for("Delete its file, too (5.7 MB)? [y/N]")
        shown.press("y", "enter")
        assert shown.wait_exit() == 0 and "its file is deleted" in shown.text.replace("\n", "")


def test_ctrl_c_keeps_what_came(there: Hub, data: Path) -> None:
    there.slowly = (50_000, 0.02)
    with closing(terminal(there, data, REPO, "--yes")) as shown:
        shown.wait_for(lambda screen: "MB/s" in screen)
        shown.press("ctrl+c")
        assert shown.wait_exit() == 130
        assert "is kept, and the next pull goes on from there" in shown.text
    assert names(data) == ["guide"]
    there.slowly = None
    ran = pull(there, data, REPO)
    assert ran.code == 0 and "are here" in ran.err
    assert not there.ranges()[-1].startswith("bytes=0-")


async def test_the_infraxa_that_is_open_pulls_it(there: Hub, data: Path) -> None:
    node = Node(Settings(online=False, threads=1, slots=2), Folders.find(data, {}), load_model=False)
    heard: list[Event] = []
    node.subscribe(heard.append)
    await node.start()
    try:
        there.token = "hf_mine"
        refused = await asyncio.to_thread(pull, there, data, REPO)
        one_line(refused, "HF_TOKEN")
        ran = await asyncio.to_thread(pull, there, data, REPO, HF_TOKEN="hf_mine")
        assert ran.code == 0 and "Pulled model-Q8_0" in ran.out, ran
        assert ModelsChanged() in heard and node.current_model() == "model-Q8_0"
        removed = await asyncio.to_thread(infraxa, "models", "remove", "model-Q8_0", "--delete", data=data)
        assert "its file is deleted" in removed.out
        assert [entry.name for entry in await node.list_models()] == ["guide"]
    finally:
        await node.close()
