"""What a headless node tells of requests: each end once, also when more end than are listed."""

from __future__ import annotations

from infraxa.app.commands.journal import Journal
from infraxa.app.serving import Served


def request(number: int, *, ended: bool = True) -> Served:
    return Served(
        number=number, user=bytes(32), where="local", state="done" if ended else "waiting", since_ms=1,
        ended_ms=2 if ended else 0,
    )  # fmt: skip


def test_each_end_is_told_once_oldest_first() -> None:
    journal = Journal()

    def told(*served: Served) -> list[int]:
        return [entry.fields["number"] for entry in journal.requests(served)]

    assert told(request(1, ended=False), request(3), request(2)) == [2, 3]
    assert told(request(1, ended=False), request(3), request(2)) == []
    assert told(request(4, ended=False), request(1), request(3)) == [1]
    assert told(request(4), request(1)) == [4]


def test_a_flood_of_requests_leaves_nothing_behind() -> None:
    journal = Journal()
    for last in range(100, 100_000, 100):
        # Of each hundred only the last ten are still listed.
        told = list(journal.requests([request(number) for number in range(last, last - 10, -1)]))
        assert len(told) == 10
    assert len(journal._ended) <= 10
