"""Both roles, as people: one picks a driver and sees it die in mid-answer; one serves, another one asks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infraxa.app.commands.demo import Provider
from infraxa.engine.guide import GUIDE_PATH
from tests.app.networked import network_name
from tests.e2e.conftest import INFRAXA
from tests.e2e.terminal import Terminal
from tests.random_model import write_random_model

Person = Callable[..., Terminal]


@pytest.fixture
def network(tmp_path: Path) -> str:
    return network_name(tmp_path)


@pytest.fixture
def person(environment: dict[str, str], tmp_path: Path, network: str) -> Iterator[Person]:
    """Opens the app of somebody with this name, who finds others by mDNS on loopback."""
    opened: list[Terminal] = []

    def open_app(name: str, size: tuple[int, int] = (120, 150)) -> Terminal:
        env = {
            **environment,
            "INFRAXA_ONLINE": "true",
            "INFRAXA_DATA_DIR": str(tmp_path / name),
            "INFRAXA_NAME": name,
            "INFRAXA_NETWORK": network,
            "INFRAXA_LISTEN_PORT": "0",
            "INFRAXA_LISTEN_HOSTS": "127.0.0.1",
            "INFRAXA_TEMPERATURE": "0",
        }
        opened.append(Terminal(INFRAXA, env, size=size, cwd=environment["HOME"]))
        opened[-1].wait_for("Ask anything", seconds=60)
        return opened[-1]

    yield open_app
    for app in opened:
        app.close()


@pytest.fixture
def slow_providers(
    environment: dict[str, str], tmp_path: Path, network: str
) -> Iterator[dict[str, Provider]]:
    """Two whose answers take seconds, so that one can die in the middle of one, and fit the screen."""
    made: dict[str, Provider] = {}
    slow_model = tmp_path / "slow.gguf"
    write_random_model(slow_model, GUIDE_PATH, layers=16, dim=1024, context=512)
    try:
        for name in ("maple", "cedar"):
            added = subprocess.run(
                [*INFRAXA, "--data-dir", str(tmp_path / name), "models", "add", str(slow_model)],
                env=environment,
                capture_output=True,
                timeout=60,
            )
            assert added.returncode == 0, added.stderr
            made[name] = Provider(name, tmp_path / name, network, "", mdns=True)
        for provider in made.values():
            provider.wait_serving()
        yield made
    finally:
        for provider in made.values():
            provider.stop()
        for provider in made.values():
            provider.wait_stopped()


def shows(pattern: str) -> Callable[[str], bool]:
    return lambda screen: re.search(pattern, screen) is not None


def ask(app: Terminal, text: str) -> None:
    app.send(text)
    app.wait_for(text)
    app.press("enter")


def quit_app(app: Terminal) -> None:
    app.press("ctrl+q")
    app.wait_for(lambda screen: app.ended or "Quit?" in screen)
    if not app.ended:
        app.press("enter")
    assert app.wait_exit() == 0, app.text


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, id="dies"), pytest.param(signal.SIGSTOP, id="freezes")],
)
def test_a_driver_dies_or_freezes_in_mid_answer_and_another_goes_on(
    person: Person, slow_providers: dict[str, Provider], number: signal.Signals
) -> None:
    you = person("you")
    you.wait_for("ready", seconds=60)
    you.press("alt+m")
    you.wait_for(
        lambda screen: all(re.search(rf"{name}·\w{{8}} .*online", screen) for name in slow_providers)
    )
    you.press("enter")  # the row under the cursor
    you.wait_for("answers from now on")
    you.wait_for(shows(r"→ goes to \w+·"))
    driver = next(name for name in slow_providers if f"→ goes to {name}·" in you.text)
    other = next(name for name in slow_providers if name != driver)
    ask(you, "tell me something long")
    you.wait_for("tok/s", seconds=60)
    os.killpg(slow_providers[driver].pid, number)
    # A frozen one still has its connection: that nothing comes is found either of it, or of the answer.
    reasons = [f"The connection with {driver} was lost in mid-answer."]
    if number == signal.SIGSTOP:
        reasons.append(f"{driver} fell silent in mid-answer.")
    you.wait_for(lambda screen: any(reason in screen for reason in reasons), seconds=40)
    you.wait_for("continue elsewhere")
    you.press("f5")
    you.wait_for("Continue elsewhere")
    you.send(other)
    you.wait_for(lambda screen: "whoever infraxa chooses" not in screen and f"{other}·" in screen)
    you.press("enter")
    you.wait_for(f"↪ {other}", seconds=60)
    you.wait_for(shows(rf"{driver}·\w{{8}} .*then"))
    you.wait_for("copy · ", seconds=60)
    # Both have read it, and both are said to have.
    you.wait_for(shows(rf"{driver}·\w{{8}},"))
    you.wait_for(shows(rf"{other}·\w{{8}} only"))
    if number == signal.SIGSTOP:
        os.killpg(slow_providers[driver].pid, signal.SIGCONT)
    quit_app(you)


def test_one_key_serves_another_person(person: Person) -> None:
    host = person("oak")
    host.wait_for("ready", seconds=60)
    host.press("f7")
    host.wait_for("You can read their prompts")
    host.press("tab")
    host.wait_for("Serve")
    host.press("enter")
    host.wait_for("serving guide", seconds=60)
    guest = person("fern")
    guest.wait_for("ready", seconds=60)
    guest.press("alt+m")
    guest.wait_for(shows(r"oak·\w{8} .*online"), seconds=30)
    guest.press("enter")
    guest.wait_for("answers from now on")
    ask(guest, "What is a driver?")
    guest.wait_for("provider that you chose", seconds=60)
    guest.wait_for(shows(r"oak·\w{8} only"))
    # What the other one sees of it: that it was, not what it said.
    host.press("alt+p")
    host.wait_for(shows(r"done"))
    assert "driver?" not in host.text and "you chose" not in host.text
    host.press("f7")
    host.wait_for("Provider mode is off")
    guest.press("alt+m")
    guest.wait_for(lambda screen: not re.search(r"oak·\w{8} .*online", screen), seconds=30)
    quit_app(guest)
    quit_app(host)
