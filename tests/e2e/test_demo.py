"""`infraxa demo`: a whole market on this machine."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from infraxa.app.commands import demo
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade
from tests.app.offered import OFFERS
from tests.e2e.conftest import INFRAXA
from tests.e2e.terminal import Terminal


def leftovers() -> set[str]:
    return {entry.name for entry in Path(tempfile.gettempdir()).glob("infraxa-demo-*")}


def test_one_exchange_without_a_screen(environment: dict[str, str]) -> None:
    before = leftovers()
    done = subprocess.run(
        [*INFRAXA, "demo", "--headless"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    said = done.stdout
    providers = dict(re.findall(r"started (\w+): process (\d+)", said))
    assert set(providers) == {"maple", "cedar"} and len({*providers.values(), os.getpid()}) == 3
    assert re.search(r"discovered 2 offers, \d+ ms after", said)
    for name in providers:
        assert re.search(rf"you ask {name}·\w{{8}}: What is a driver\?", said)
        assert re.search(rf"{name}·\w{{8}} answers: .*provider that you chose", said)
        assert re.search(
            rf"connected in [\d.]+ ms · first token after \d+ ms · \d+ tok/s · \d+ tokens, counted here · "
            rf"readable by {name} only",
            said,
        )
    assert leftovers() == before
    for pid in providers.values():
        assert not Path(f"/proc/{pid}").exists()


async def test_an_answer_that_does_not_come_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def ask(self, *_: object) -> AsyncIterator[object]:
            await asyncio.Event().wait()
            yield None

    monkeypatch.setattr(demo, "ANSWER_S", 0.01)
    with pytest.raises(NodeError, match=r"^\w+·\w{8} did not answer within 0.01 s\.$") as raised:
        await demo._Exchange()._ask(cast(NodeFacade, Silent()), OFFERS[1])
    assert raised.value.code == "timeout" and raised.value.remedy


def test_the_app_in_the_middle_of_a_market(environment: dict[str, str]) -> None:
    before = leftovers()
    app = Terminal([*INFRAXA, "demo"], environment, size=(120, 36))
    try:
        app.wait_for("Ask anything", seconds=60)
        app.wait_for("2 peers", seconds=60)
        app.press("alt+m")
        app.wait_for(lambda screen: "maple·" in screen and "cedar·" in screen)
        app.press("ctrl+q")
        assert app.wait_exit() == 0, app.text
    finally:
        app.close()
    assert leftovers() == before
