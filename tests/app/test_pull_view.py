"""Pulling a model in the app: from the list or by name, left alone, cancelled, refused; by keys and mouse."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Button, Input, OptionList, Static

from infraxa.app import hub_download
from infraxa.app.hub_curated import CURATED
from infraxa.app.hub_partial import bytes_here
from infraxa.app.tui.screens.dialogs import Confirm, Remove
from infraxa.app.tui.screens.models import ModelsScreen
from infraxa.app.tui.screens.pull import PullScreen
from infraxa.engine.guide import GUIDE_PATH
from tests.app.fake_hub import Hub, fake_hub
from tests.app.shell import Shell, shell

CONTENT = GUIDE_PATH.read_bytes()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REPO = "somebody/guide-GGUF"
SLOWLY = (50_000, 0.02)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with fake_hub() as it:
        it.add(REPO, Q8_0=CONTENT)
        monkeypatch.setattr(constants, "ENDPOINT", it.url)
        monkeypatch.setattr(hub_download, "PAUSES", (0.01, 0.01, 0.01))
        yield it


def said(it: Shell) -> str:
    return str(it.app.screen.query_one("#said", Static).content)


async def look_up(it: Shell, text: str) -> None:
    """Open the screen and ask for a model by its name; the question is shown."""
    if not isinstance(it.app.screen, PullScreen):
        it.app.action_pull_model()
    await it.until(lambda: isinstance(it.app.screen, PullScreen), "the screen")
    field = it.app.screen.query_one(Input)
    field.value = text
    field.focus()
    await it.pilot.press("enter")
    await it.until(lambda: isinstance(it.app.screen, Confirm), "the question")


async def begin(it: Shell, there: Hub) -> None:
    """A download that takes a while has begun."""
    there.slowly = SLOWLY
    await look_up(it, REPO)
    await it.pilot.press("enter")
    await it.until(lambda: (running := it.app.pulls.running) is not None and running.share > 0.1, "bytes")


async def test_a_model_comes_while_the_person_is_elsewhere(there: Hub, tmp_path: Path) -> None:
    async with shell(tmp_path, size=(80, 24)) as it:
        await it.opened()
        await it.type("/pull", "enter")
        await it.until(lambda: isinstance(it.app.screen, PullScreen), "the screen")
        shown = it.screen_text()
        assert all(one.text in shown for one in CURATED), "the whole list has room"
        assert CURATED[0].good_for in shown and "apache-2.0" in shown
        await look_up(it, f"{REPO}:q8_0")
        assert "model-Q8_0.gguf: 5.7 MB" in it.screen_text() and there.ranges() == []
        there.slowly = SLOWLY
        await it.pilot.press("enter")
        await it.until(lambda: "MB/s" in said(it) and "left" in said(it), "the rate")
        assert "Cancel" in it.screen_text() and "%" in it.screen_text()
        await it.pilot.press("escape")
        await it.until(lambda: it.app.screen is it.chat, "the chat")
        assert "↓ model-Q8_0" in it.screen_text().splitlines()[-1]
        there.slowly = None
        await it.until(lambda: it.app.pulls.running is None, "the end")
        assert it.toasts == ["model-Q8_0 is here. It answers from now on."]
        assert it.node.current_model() == "model-Q8_0" and "↓" not in it.screen_text().splitlines()[-1]
        assert (await it.ask("What is 2+2?")).state == "complete"


async def test_it_is_cancelled_at_once_and_goes_on_with_the_next(there: Hub, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await begin(it, there)
        there.stalls_at = [0] * 9  # no more comes, and nothing is waited for
        await it.pilot.press("c")
        assert it.app.pulls.running is None and "is kept" in said(it)
        kept = bytes_here(it.app.folders.data / "models", DIGEST)
        assert kept > 0
        there.slowly, there.stalls_at = None, []
        await look_up(it, REPO)
        assert "are here" in it.screen_text()
        await it.pilot.press("enter")
        await it.until(lambda: it.app.pulls.ended.startswith("model-Q8_0 is here"), "the rest")
        start = int(there.ranges()[-1].removeprefix("bytes=").partition("-")[0])
        assert start >= kept and said(it).startswith("model-Q8_0 is here")


async def test_with_the_mouse(there: Hub, tmp_path: Path) -> None:
    there.repos[CURATED[0].repo] = {"Qwen3-0.6B-Q8_0.gguf": CONTENT}
    async with shell(tmp_path, size=(80, 24)) as it:
        await it.opened()
        it.app.action_models()
        await it.until(lambda: isinstance(it.app.screen, ModelsScreen), "the models")
        await it.pilot.click("#pull-button")
        await it.until(lambda: isinstance(it.app.screen, PullScreen), "the screen")
        await it.pilot.click(OptionList, offset=(5, 0))
        await it.until(lambda: isinstance(it.app.screen, Confirm), "the question")
        there.slowly = SLOWLY
        await it.pilot.click("#yes")
        await it.until(lambda: "MB/s" in said(it), "the rate")
        await it.pilot.click("#cancel")
        await it.until(lambda: it.app.pulls.running is None, "the end")
        assert "is kept" in said(it)
        await it.pilot.press("escape")
        await begin(it, there)
        await it.pilot.press("escape")
        bar = it.screen_text().splitlines()[-1]
        await it.pilot.click(offset=(bar.index("↓") + 2, 23))
        await it.until(lambda: isinstance(it.app.screen, PullScreen), "the screen, by its mark")
        it.app.pulls.cancel()


async def test_what_cannot_be_is_said_where_it_was_asked(there: Hub, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await it.type("/pull somebody/guide-GGUF:Q2_K", "enter")
        await it.until(lambda: "There are: Q8_0." in said(it), "the refusal")
        field = it.app.screen.query_one(Input)
        field.value = "nothing"
        await it.pilot.click("#pull")
        await it.until(lambda: "OWNER/NAME" in said(it), "what a name is like")
        field.value = "a/b"
        field.focus()
        await it.pilot.press("enter")
        await it.until(lambda: "Check the name" in said(it), "that there is none")
        field.value = ""
        await it.pilot.press("enter")
        await it.until(lambda: "Type the name" in said(it), "what to do")
        there.listing = (500, {})
        field.value = REPO
        field.focus()
        await it.pilot.press("enter")
        await it.until(lambda: "Asking the hub" in said(it), "the question to the hub")
        await it.pilot.press("escape")
        assert said(it) == "Cancelled." and isinstance(it.app.screen, PullScreen)
        there.listing = (200, {})
        await look_up(it, REPO)
        await it.pilot.press("escape")
        assert said(it) == "Nothing was downloaded." and there.ranges() == []


async def test_a_download_that_fails_is_said_wherever_the_person_is(there: Hub, tmp_path: Path) -> None:
    there.changed = {CONTENT.index(b"general.name"): 0}
    async with shell(tmp_path) as it:
        await it.opened()
        await look_up(it, REPO)
        await it.pilot.press("enter", "escape")
        await it.until(lambda: bool(it.toasts), "the notice")
        assert "Nothing was kept" in it.toasts[0]
        assert not (it.app.folders.data / "models").exists() or bytes_here(it.app.folders.data, DIGEST) == 0
        assert [entry.name for entry in await it.node.list_models()] == ["guide"]


async def test_one_at_a_time_and_quitting_asks(there: Hub, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await begin(it, there)
        await it.pilot.press("enter")
        await it.until(lambda: any("One model at a time" in toast for toast in it.toasts), "the refusal")
        await it.app.action_quit()
        await it.until(lambda: isinstance(it.app.screen, Confirm), "the question")
        assert "is being downloaded" in it.screen_text()
        await it.pilot.click("#no")
        assert it.app.pulls.running is not None
        it.app.pulls.cancel()


async def test_leaving_the_app_keeps_what_came(there: Hub, tmp_path: Path) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await begin(it, there)
        models = it.app.folders.data / "models"
    kept = bytes_here(models, DIGEST)
    assert kept > 0
    there.slowly = None
    async with shell(tmp_path) as it:
        await it.opened()
        await look_up(it, REPO)
        assert "are here" in it.screen_text()
        await it.pilot.press("enter")
        await it.until(lambda: it.app.pulls.ended.startswith("model-Q8_0 is here"), "the rest")
    assert there.ranges()[-1].startswith(f"bytes={kept}-")


@pytest.mark.parametrize("button", ["#delete", "#keep"])
async def test_removing_a_pulled_model_asks_for_its_file(there: Hub, tmp_path: Path, button: str) -> None:
    async with shell(tmp_path) as it:
        await it.opened()
        await look_up(it, REPO)
        await it.pilot.press("enter")
        await it.until(lambda: it.app.pulls.ended.startswith("model-Q8_0 is here"), "the model")
        path = (await it.node.list_models())[1].path
        it.app.action_models()
        await it.until(lambda: isinstance(it.app.screen, ModelsScreen), "the models")
        await it.until(lambda: "model-Q8_0" in it.screen_text(), "the list")
        it.app.screen.query_one(OptionList).highlighted = 1
        await it.pilot.press("delete")
        await it.until(lambda: isinstance(it.app.screen, Remove), "the question")
        assert it.app.screen.query_one("#keep", Button).has_focus
        await it.pilot.click(button)
        await it.until(lambda: "is removed" in said(it), "the end")
        assert await asyncio.to_thread(os.path.exists, path) == (button == "#keep")
