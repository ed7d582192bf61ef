"""`infraxa demo`: a whole market on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infraxa.app.commands import exchange
from infraxa.app.errors import NodeError
from infraxa.app.events import Event
from infraxa.app.facade import NodeFacade
from infraxa.app.trade import Bound
from infraxa.net.credits import read_credits
from infraxa.store.records import Chat, ChatOptions
from tests.app.offered import OFFERS
from tests.e2e.conftest import INFRAXA
from tests.e2e.terminal import Terminal


@pytest.fixture
def temporary(environment: dict[str, str]) -> Iterator[Path]:
    """Where a demo has its folders, and no other one; sockets are in them, so its name is short."""
    with tempfile.TemporaryDirectory() as folder:
        environment["TMPDIR"] = folder
        yield Path(folder)


def test_one_exchange_without_a_screen(environment: dict[str, str], temporary: Path) -> None:
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
        assert re.search(rf"first token after \d+ ms · \d+ tok/s · readable by {name} only", said)
        assert re.search(rf"tokens of the answer: (\d+) as {name} counts, \1 as counted here", said)
    bounds = [
        read_credits(most) for most in re.findall(r"locked 0.20/M for \d+ s: at most ([\d.]+) credits", said)
    ]
    charges = [
        read_credits(charge)
        for charge in re.findall(r"charged ([\d.]+) credits, of .*: signed by both", said)
    ]
    assert len(charges) == 2 and all(0 < charge < most for charge, most in zip(charges, bounds, strict=True))
    receipts = re.findall(r"checked offline: signed by (\w+), countersigned by account (\w+), keeps to", said)
    assert len({*receipts[0], *receipts[1]}) == 4  # no account is the same at two providers
    same = r"you owe ([\d.]+) here, \1 there; spent \1, earned \1: the same"
    assert [read_credits(owed) for owed in re.findall(same, said)] == charges
    assert not list(temporary.glob("infraxa-demo-*"))
    for pid in providers.values():
        assert not Path(f"/proc/{pid}").exists()


class Still(NodeFacade):
    """Takes everything and says nothing."""

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        return lambda: None

    async def create_chat(self) -> Chat:
        return Chat("c", "", 0, 0, None)

    async def set_chat_options(self, chat_id: str, options: ChatOptions) -> None:
        pass

    async def bound(self, chat_id: str, text: str) -> Bound:
        return Bound("locked", price_out=1)

    async def send(self, chat_id: str, text: str) -> str:
        return "m"


async def test_an_answer_that_does_not_come_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_S", 0.01)
    with pytest.raises(NodeError, match=r"^\w+·\w{8} did not answer within 0.01 s\.$") as raised:
        await exchange.Exchange().order(Still(), OFFERS[1])
    assert raised.value.code == "timeout" and raised.value.remedy


def test_the_app_in_the_middle_of_a_market(environment: dict[str, str], temporary: Path) -> None:
    app = Terminal([*INFRAXA, "demo"], environment, size=(120, 36))
    try:
        app.wait_for("Ask anything", seconds=60)
        app.wait_for("2 peers", seconds=60)
        assert len(list(temporary.glob("infraxa-demo-*"))) == 1
        app.press("alt+m")
        app.wait_for(lambda screen: "maple·" in screen and "cedar·" in screen)
        app.press("ctrl+q")
        assert app.wait_exit() == 0, app.text
    finally:
        app.close()
    assert not list(temporary.glob("infraxa-demo-*"))
