"""What it costs, as two people see it: the bound, the charge, a full tab, settling by serving back, a cap."""

from __future__ import annotations

import re

from tests.e2e.terminal import Terminal
from tests.e2e.test_two_roles import Person, network, person, quit_app, shows

__all__ = ["network", "person"]
SIZE = (120, 36)
MOST = r"(?:at most|≤) (0\.\d+) cr"
CHARGE = r"(0\.0000\d+) cr · signed ✓"
LIMIT = "0.000054"
"""Credits: room for an order of 256 tokens, the least that is begun, and not for another one after it."""


def serve(host: Terminal) -> None:
    host.press("f7")
    host.wait_for("You can read their prompts")
    host.press("tab")
    host.wait_for("Serve")
    host.press("enter")
    host.wait_for("serving guide", seconds=60)


def choose(guest: Terminal, name: str) -> None:
    guest.press("alt+m")
    guest.wait_for(shows(rf"{name}·\w{{8}} .*0\.20.*online"), seconds=60)
    guest.press("enter")
    guest.wait_for("answers from now on")


def buy(app: Terminal, name: str) -> str:
    """Choose the driver and ask; what it cost, less than what was said before."""
    choose(app, name)
    app.send("What is a driver?")
    app.wait_for(shows(rf"{MOST} .*0\.20/M \w+ \d+ s"), seconds=60)
    most = re.search(MOST, app.text)
    app.press("enter")
    app.wait_for("provider that you chose", seconds=60)
    app.wait_for(shows(CHARGE), seconds=60)
    charge = re.search(CHARGE, app.text)
    assert most is not None and charge is not None and 0 < float(charge[1]) < float(most[1])
    return charge[1]


def settle(app: Terminal, cost: str, note: str) -> None:
    """Propose to settle what is owed to the driver."""
    app.press("alt+e")
    app.wait_for(shows(rf"I owe +{cost} +{LIMIT}"), seconds=30)
    for key in ("down", "tab", "down", "tab", "tab", "tab", "tab", "down"):
        if "as it said last" in app.text:  # said of the tab under the cursor
            break
        app.press(key)
        app.read(0.5)
    app.press("t")
    app.wait_for("what it gets for it")
    app.click("what it gets for it")
    app.send(note)
    app.wait_for(note)
    app.press("enter")


def test_two_people_buy_from_each_other_and_settle(person: Person, environment: dict[str, str]) -> None:
    environment["INFRAXA_STRANGER_LIMIT"] = LIMIT
    environment["INFRAXA_FREE_DAILY"] = "0"
    oak, fern = person("oak", SIZE), person("fern", SIZE)
    for app in (oak, fern):
        app.wait_for("ready", seconds=60)
        serve(app)

    # Seen before, charged less, rated; what it came to stands on the other side.
    cost = buy(fern, "oak")
    fern.wait_for(f"today {cost} cr")
    fern.send("/rate 4")
    fern.wait_for("/rate 4")
    fern.press("enter")
    fern.wait_for("★★★★☆")
    fern.wait_for("others are told in some minutes, without a name")
    oak.press("alt+e")
    oak.wait_for(shows(rf"owes me +{cost} +{LIMIT}"), seconds=30)
    oak.wait_for(shows(rf"sold +\w{{8}} .*{cost} +{cost} +✓ signed"))
    assert "driver?" not in oak.text

    # The tab has no room for another one, which is said before Enter and at Enter.
    fern.send("What is a tab?")
    fern.wait_for(shows(rf"(?s)The next answer could exceed.*{LIMIT} credits.*Serve it back and"), seconds=30)
    fern.press("enter")
    fern.wait_for("not sent: the reason stands above")
    fern.wait_for("▌ What is a tab?")

    # What is proposed to the other person can be declined.
    settle(fern, cost, "two apples")
    fern.wait_for("Proposed:")
    fern.wait_for("credits: not answered yet")
    oak.wait_for("1 waits for you", seconds=30)
    oak.press("tab")
    oak.wait_for("two apples")
    oak.press("enter")
    oak.wait_for(shows(r"Settle what fern·\w{8} owes\?"))
    oak.press("d")
    oak.wait_for("owed as before")
    fern.press("t")
    fern.wait_for("Ask now")
    fern.press("enter")
    fern.wait_for("declined to settle")

    # It is served back; then both ask to settle, and what is owed both ways is paid.
    oak.press("alt+c")
    assert buy(oak, "fern") == cost
    settle(fern, cost, "served back")
    fern.wait_for("credits: not answered yet", seconds=30)
    settle(oak, cost, "me too")
    oak.wait_for("Settled by what it owes this node", seconds=30)
    oak.wait_for(shows(r"owed to me 0\.00 · by me 0\.00"), seconds=30)
    oak.wait_gone("waits for you")
    fern.wait_for(shows(r"owed to me 0\.00 · by me 0\.00"), seconds=30)
    fern.press("alt+c")
    fern.wait_for("Nothing is owed", seconds=30)  # what this long a chat needs is above the limit
    fern.press("ctrl+n")
    assert buy(fern, "oak") == cost

    # Another day's cap: what was spent before counts, and is not spent again.
    quit_app(fern)
    environment["INFRAXA_CAP_DAY"] = "0.00001"
    fern = person("fern", SIZE)
    fern.wait_for("ready", seconds=60)
    fern.send("What is a hold?")
    fern.wait_for(shows(r"(?s)✕ Of the 0\.00001 credits for a day, 0\.0000\d+.*are.*spent"), seconds=30)
    fern.wait_for("cap_day")
    fern.press("enter")
    fern.wait_for("not sent: the reason stands above")
    fern.wait_for("▌ What is a hold?")
    quit_app(fern)
    quit_app(oak)
