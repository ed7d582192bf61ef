"""Two people at one machine, each with a terminal and a data folder: their apps find each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import INFRAXA
from tests.e2e.lab import Host, Lab
from tests.e2e.terminal import Terminal


class Person:
    """Somebody at a terminal of a host, with a data folder."""

    def __init__(self, host: Host, environment: dict[str, str], folder: Path, name: str) -> None:
        self._host = host
        self._folder = folder
        self.env = {
            **environment,
            "INFRAXA_DATA_DIR": str(folder),
            "INFRAXA_ONLINE": "true",
            "INFRAXA_NAME": name,
        }
        self.name = name

    def open(self) -> Terminal:
        return self._host.terminal(INFRAXA, self.env, size=(120, 36), cwd=self.env["HOME"])

    def providers(self) -> list[dict[str, Any]]:
        """What `infraxa providers --all --json` prints."""
        done = self._host.run(*INFRAXA, "providers", "--all", "--json", env=self.env, timeout=60)
        assert done.returncode == 0, done.stderr
        listed: list[dict[str, Any]] = json.loads(done.stdout)
        return listed


def shows_link(app: Terminal, name: str, address: str) -> None:
    """Until the Network view has a row for a link with `name` at `address`."""
    row = re.compile(rf"{name}·\w{{8}} +(in|out) +{re.escape(address)} ")
    app.wait_for(lambda screen: row.search(screen) is not None)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1"], ids=["on a LAN", "without a network card"])
def test_two_apps_find_each_other(
    lab: Lab, environment: dict[str, str], tmp_path: Path, address: str
) -> None:
    machine = lab.host("machine")
    if address != "127.0.0.1":
        machine.plug(lab.segment(), f"{address}/24")
    people = [Person(machine, environment, tmp_path / name, name) for name in ("maple", "willow")]
    apps = [person.open() for person in people]
    for app in apps:
        app.wait_for("1 peer")
    for app, other in zip(apps, reversed(people), strict=True):
        app.press("alt+n")
        shows_link(app, other.name, address)
    # Only one of them can have the port that both wish for. The other says so, and is found all the same.
    assert sorted("Port 7741 is taken" in app.text for app in apps) == [False, True]
    for person, other in zip(people, reversed(people), strict=True):
        assert [row["name"] for row in person.providers()] == [other.name]
    for app in apps:
        app.press("ctrl+q")
        assert app.wait_exit() == 0, app.text
