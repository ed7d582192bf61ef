"""What canaries cost, in the ledger: by kill -9 nothing is lost, and nothing is spent twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.app import canary_money
from infraxa.app.canary_rules import share
from infraxa.app.counting import LEAST_OUT, TURN_TOKENS, planned
from infraxa.net import market
from infraxa.net.market import Rates
from infraxa.store import buying, ledger
from infraxa.store.db import Connection, connect, now_ms
from infraxa.store.trade_records import Caps, Counts, OrderRow, Refused
from tests.app.purses import SETTINGS

DAY = 50_000
CAPS = Caps(request=10_000, chat=50_000, day=DAY, canaries=share(DAY), day_start_ms=0)
PROVIDER, REFEREE, MODEL = b"p" * 32, b"r" * 32, b"m" * 32


def of(number: int, peer: bytes = PROVIDER) -> Callable[[int], OrderRow]:
    return lambda hold: OrderRow(
        peer=peer, id=number.to_bytes(16, "big"), model=MODEL, hold=hold, canary=True, held=hold
    )


def paid(conn: Connection, order: OrderRow, seq: int, charge: int, outcome: str = "stop") -> None:
    buying.count_order(conn, order.peer, order.id, "completed", Counts(10, 0, 10), charge, outcome)
    buying.sign_receipt(
        conn, order.peer, order.id, seq=seq, receipt=b"r", countersign=b"c", billed=Counts(10, 0, 10),
        charge=charge, accepted=charge,
    )  # fmt: skip


def test_the_driver_is_told_of_a_hold_as_of_any_and_less_is_reserved(tmp_path: Path) -> None:
    conn = connect(tmp_path)
    order = canary_money.reserve(conn, of(1), 6000, 100, CAPS, "maple")
    assert isinstance(order, OrderRow)
    assert (order.hold, order.reserved) == (6000, 500)
    assert buying.spent_on_canaries(conn, 0).held == 500
    # Of the rest a third, and so on, until it is not worth it.
    number = 1
    while not isinstance(order, Refused):
        number += 1
        order = canary_money.reserve(conn, of(number), 6000, 100, CAPS, "maple")
    assert (order.reason, order.limit) == ("canaries_cap", 1500) and number == 5
    assert isinstance(canary_money.reserve(conn, of(9), 90, 90, CAPS, "maple"), OrderRow)
    assert ledger.check(conn) == []
    conn.close()


def test_the_caps_of_a_message_bound_what_the_driver_is_told(tmp_path: Path) -> None:
    conn = connect(tmp_path)
    order = canary_money.reserve(conn, of(1), 60_000, 100, CAPS, "maple")
    assert isinstance(order, OrderRow) and order.hold == 10_000
    conn.close()


def test_what_the_driver_is_told_is_what_a_program_may_spend(tmp_path: Path) -> None:
    conn = connect(tmp_path)
    call = OrderRow(peer=PROVIDER, id=bytes(16), model=MODEL, hold=3000, called=True)
    caps = replace(CAPS, chat=None, calls=7000)
    assert buying.open_hold(conn, call, caps) is None
    order = canary_money.reserve(conn, of(1), 6000, 100, caps, "maple", begun=4000)
    assert isinstance(order, OrderRow) and order.hold == 4000
    refused = canary_money.reserve(conn, of(2), 6000, 100, caps, "maple", begun=4001)
    assert isinstance(refused, Refused) and refused.reason == "calls_cap"
    refused = canary_money.reserve(conn, of(3), 60_000, 100, CAPS, "maple", begun=10_001)
    assert isinstance(refused, Refused) and refused.reason == "request_cap"
    conn.close()


def test_what_a_message_may_cost_is_left_of_the_day(tmp_path: Path) -> None:
    conn = connect(tmp_path)
    chat = OrderRow(peer=PROVIDER, id=bytes(16), model=MODEL, hold=DAY - 10_000 - 300)
    assert buying.open_hold(conn, chat, Caps()) is None
    assert isinstance(canary_money.reserve(conn, of(1), 6000, 100, CAPS, "maple"), Refused)
    assert isinstance(canary_money.reserve(conn, of(2), 200, 100, CAPS, "maple"), OrderRow)
    conn.close()


def test_another_start_knows_what_was_spent_today(tmp_path: Path) -> None:
    conn = connect(tmp_path)
    order = canary_money.reserve(conn, of(1), 6000, 100, CAPS, "maple")
    assert isinstance(order, OrderRow)
    paid(conn, order, 1, 400)
    other = canary_money.reserve(conn, of(2), 6000, 100, CAPS, "maple")
    assert isinstance(other, OrderRow)
    conn.close()
    conn = connect(tmp_path)
    buying.release_unsent(conn)
    spent = buying.spent_on_canaries(conn, 0)
    assert (spent.spent, spent.held) == (400, (1500 - 400) // 3)
    yesterday = now_ms() + 2 * 24 * 3600 * 1000
    assert buying.spent_on_canaries(conn, yesterday).spent == 0
    conn.close()


KILLED = """
import sys
from pathlib import Path
from infraxa.app import canary_money
from infraxa.store.db import connect
from infraxa.store.trade_records import OrderRow
from tests.app.test_canary_money import CAPS, of, paid
conn = connect(Path(sys.argv[1]))

def tell(*words):
    print(*words, flush=True)
    sys.stdin.readline()  # until it was read

number = 0
while number < 10_000:
    number += 1
    order = canary_money.reserve(conn, of(number), 30, 5, CAPS, "maple")
    if isinstance(order, OrderRow):
        tell(number, "held", order.reserved)
        paid(conn, order, number, 7)
        tell(number, "paid", 7)
    else:
        tell("full")
"""


@pytest.mark.parametrize("go_on", [False, True])
@pytest.mark.parametrize("lines", [1, 2, 20, 61])
def test_killed_at_any_moment_nothing_is_lost_nor_spent_twice(
    tmp_path: Path, lines: int, go_on: bool
) -> None:
    """`go_on`: while it does its next step."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        told = [process.stdout.readline().split()]
        while len(told) < lines:
            process.stdin.write("\n")
            process.stdin.flush()
            told.append(process.stdout.readline().split())
        if go_on:
            process.stdin.write("\n")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)
    assert all(told)
    held = {line[0]: int(line[2]) for line in told if line[1:2] == ["held"]}
    held |= {line[0]: 7 for line in told if line[1:2] == ["paid"]}
    conn = connect(tmp_path)
    buying.release_unsent(conn)
    spent = buying.spent_on_canaries(conn, 0)
    # What was told is known, and at most one more step was done.
    assert sum(held.values()) - 23 <= spent.spent + spent.held <= sum(held.values()) + 30
    number = 20_000
    while isinstance(canary_money.reserve(conn, of(number), 6000, 5, CAPS, "maple"), OrderRow):
        number += 1
    spent = buying.spent_on_canaries(conn, 0)
    assert spent.spent + spent.held <= share(DAY) == 1500
    assert ledger.check(conn) == []
    conn.close()


PRICES = st.builds(Rates, st.integers(0, 10**8), st.integers(0, 10**8), st.just(0))


@given(st.integers(0, 10**6), st.integers(0, 2000), PRICES)
def test_a_prompt_of_the_length_that_can_be_paid_is_paid(part: int, asked: int, rates: Rates) -> None:
    chars = canary_money.most_chars(part, asked, rates)
    if chars:
        plan = planned(chars + 2 * TURN_TOKENS, 10**6, asked, 10**6, rates)
        assert canary_money.least_of(plan, rates) <= part + 1


def test_of_a_few_kilobytes_there_are_canaries_where_they_are_not_dear() -> None:
    rates, part = Rates(500_000, 1_000_000, 0), share(DAY) // 3
    assert canary_money.most_chars(part, 0, rates) > 1000
    plan = planned(1000, 4096, 0, 4096, rates)
    assert canary_money.least_of(plan, rates) <= part
    # It is not stopped at once, and not where it can say all.
    stopped = canary_money.most_out(plan, rates, part)
    assert stopped is not None and stopped >= 128
    assert canary_money.most_out(planned(300, 4096, 50, 4096, rates), rates, 100) is None


@given(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**6), PRICES)
def test_what_it_costs_when_it_is_stopped_is_reserved(
    n_prompt: int, asked: int, held: int, rates: Rates
) -> None:
    plan = planned(n_prompt, 10**5, asked, 10**5, rates)
    if held < canary_money.least_of(plan, rates):
        return
    stopped = canary_money.most_out(plan, rates, held)
    n_out = plan.max_out if stopped is None else min(stopped + LEAST_OUT // 2, plan.max_out)
    assert market.hold(-(-plan.n_prompt // 3), n_out, rates) <= held
    # What is worth sending says something.
    assert stopped is None or stopped >= LEAST_OUT // 2


def test_the_share_follows_the_cap() -> None:
    assert share(round(SETTINGS.cap_day * 10**6)) == 60_000
    assert share(0) == 0
