"""Provider mode of a whole node: who turns it on and off, and that nobody serves without having been told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from infraxa.app.events import LogLine
from tests.app.networked import folders, running, until


async def test_nothing_turns_it_on_before_the_person_was_told_what_it_means(tmp_path: Path) -> None:
    folders(tmp_path / "data", provide=True)
    async with running(tmp_path / "data", online=False, threads=1) as node:
        said: list[str] = []
        node.subscribe(lambda event: said.append(event.text) if isinstance(event, LogLine) else None)
        modes: list[str] = []
        node.subscribe(lambda event: modes.append(node.provider.mode))
        await node.change_setting("capacity", 2)
        await node.change_setting("pause_on_battery", False)
        await node.use_settings(msgspec.structs.replace(node.settings, provide=True, upload_limit=100))
        await until(lambda: sum("Provider mode stays off" in text for text in said) >= 3, "it is refused")
        assert node.provider.mode == "off" and set(modes) == {"off"}
        await node.accept_serving()
        await node.change_setting("capacity", 1)
        await until(lambda: node.provider.mode == "serving", "it serves")


async def test_what_was_asked_for_last_is_how_it_is(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    async with running(tmp_path / "data", online=False, threads=1) as node:
        await node.accept_serving()
        for wishes in ((True, False), (False, True), (True, False, True, False)):
            await asyncio.gather(*(node.provide(wish) for wish in wishes))
            assert node.settings.provide is wishes[-1]
            assert (node.provider.mode in ("off", "draining")) is not wishes[-1]
