"""Who goes when strangers fill the places, by links that are nothing but an address and a time."""

from __future__ import annotations

from typing import Any, cast

from infraxa.net import strangers
from infraxa.net.link import Link
from infraxa.net.strangers import Strangers


class Idle:
    """A link as far as its place is concerned."""

    def __init__(self, remote: str, idle_since: float | None, initiator: bool = False) -> None:
        self.remote = remote
        self.idle_since = idle_since
        self.initiator = initiator


def link(remote: str, idle_since: float | None = 0.0, initiator: bool = False) -> Link:
    return cast(Link, Idle(remote, idle_since, initiator))


def filled(*crowds: tuple[str, int], idle_since: float | None = 0.0) -> Strangers:
    """So many links of each of these networks, idle for longer the earlier they came."""
    made = Strangers()
    for net, count in crowds:
        for number in range(count):
            since = None if idle_since is None else idle_since + number
            assert made.add(link(f"{net}.{number % 256}", since)) is None
    return made


def test_in_a_full_group_the_one_goes_that_was_idle_for_longest() -> None:
    full = filled(("5.6.7", strangers.MAX_GROUP))
    oldest, *_ = full
    new = link("5.6.7.9", 99)
    assert full.add(new) is oldest
    assert new in full and oldest not in full and len(full) == strangers.MAX_GROUP
    assert full.add(link("9.9.9.1")) is None, "another network has room"


def test_when_all_is_full_the_largest_crowd_makes_room() -> None:
    crowds = [(f"8.51.{net}", strangers.MAX_GROUP) for net in range(7)]
    crowds += [("11.12.13", strangers.MAX_GROUP - 1), ("5.6.7", 1)]
    full = filled(*crowds)
    assert len(full) == strangers.MAX_ALL
    goes = full.add(link("5.6.8.1"))
    assert goes is not None and goes.remote.startswith("8.51.") and goes.remote.endswith(".0")
    assert len(full) == strangers.MAX_ALL


def test_who_is_in_use_stays_and_the_newcomer_goes_when_all_are() -> None:
    full = filled(("5.6.7", strangers.MAX_GROUP - 1), idle_since=None)
    idle = link("5.6.7.200", 1e9)
    assert full.add(idle) is None
    assert full.add(link("5.6.7.201", None)) is idle
    new = link("5.6.7.202", 5.0)
    assert full.add(new) is new and new not in full


def test_the_local_network_has_more_places_and_not_all() -> None:
    local = filled(("192.168.1", strangers.MAX_LOCAL))
    assert local.add(link("10.0.0.1")) is not None
    assert local.add(link("5.6.7.1")) is None


def test_links_that_were_dialled_from_here_take_no_place() -> None:
    made = filled(("5.6.7", strangers.MAX_GROUP - 1))
    for _ in range(3):
        assert made.add(link("5.6.7.1", -1.0, initiator=True)) is None
    assert made.add(link("5.6.7.1")) is None
    goes: Any = made.add(link("5.6.7.1"))
    assert goes is not None and not goes.initiator
