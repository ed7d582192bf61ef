"""What it costs, as two people see it: the bound, the charge, what came in on the other side, a cap."""

from __future__ import annotations

import re
from pathlib import Path

from tests.e2e.terminal import Terminal
from tests.e2e.test_two_roles import Person, ask, network, person, quit_app, shows

__all__ = ["network", "person"]
MOST = r"(?:at most|≤) (0\.\d+) cr"


def serve(host: Terminal) -> None:
    host.wait_for("ready", seconds=60)
    host.press("f7")
    host.wait_for("You can read their prompts")
    host.press("tab")
    host.wait_for("Serve")
    host.press("enter")
    host.wait_for("serving guide", seconds=60)


def choose(guest: Terminal, name: str) -> None:
    guest.wait_for("ready", seconds=60)
    guest.press("alt+m")
    guest.wait_for(shows(rf"{name}·\w{{8}} .*online"), seconds=30)
    guest.wait_for(shows(rf"{name}·\w{{8}} .*0\.20"))
    guest.press("enter")
    guest.wait_for("answers from now on")


def test_a_person_sees_the_bound_pays_less_and_rates(person: Person) -> None:
    host = person("oak")
    serve(host)
    guest = person("fern")
    choose(guest, "oak")
    guest.send("What is a driver?")
    guest.wait_for(shows(rf"{MOST} .*0\.20/M \w+ \d+ s.*today 0\.00 of 0\.05"), seconds=30)
    most = re.search(MOST, guest.text)
    guest.press("enter")
    guest.wait_for("provider that you chose", seconds=60)
    guest.wait_for(shows(r"0\.0000\d+ cr · signed ✓"), seconds=30)
    charge = re.search(r"(0\.0000\d+) cr · signed ✓", guest.text)
    assert most is not None and charge is not None and 0 < float(charge[1]) < float(most[1])
    guest.press("alt+e")
    guest.wait_for(charge[1])
    host.press("alt+e")
    host.wait_for(charge[1], seconds=30)
    assert "driver?" not in host.text
    quit_app(guest)
    quit_app(host)


def test_a_daily_cap_keeps_the_message_and_says_why(
    person: Person, environment: dict[str, str], tmp_path: Path
) -> None:
    host = person("oak")
    serve(host)
    environment["INFRAXA_CAP_DAY"] = "0.00001"
    guest = person("fern")
    choose(guest, "oak")
    guest.send("What is a driver?")
    guest.wait_for(shows(r"(?s)✕ .* are spent.*cap_day"), seconds=30)
    ask(guest, " Please.")
    guest.wait_for(shows(r"▌ What is a driver\? Please\."))
    assert "provider that you chose" not in guest.text
    quit_app(guest)
    quit_app(host)
