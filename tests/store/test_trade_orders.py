"""The life of an order on both sides, step by step, each step repeated."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from infraxa.store import buying, earnings, ledger, selling, tabs, trade
from infraxa.store.db import Connection, connect
from infraxa.store.records import StoreError
from infraxa.store.trade_records import MAX_AMOUNT, Caps, Counts, OrderRow, ReceiptRow, Refused, Spending

NOW = 1_700_000_000_000
PROVIDER, ACCOUNT, OTHER = b"p" * 32, b"a" * 32, b"o" * 32
MODEL = b"m" * 32
COUNTS = Counts(100, 20, 50)
LIMIT = 10_000


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    """A clock of one second per look, so that graces pass."""
    connection = connect(
        tmp_path / "data",
        clock=itertools.count(NOW, 1000).__next__,
        randbytes=random.Random(7).randbytes,
    )
    yield connection
    assert ledger.check(connection) == []
    connection.close()


def order_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def an_order(number: int, peer: bytes = PROVIDER, hold: int = 1000, chat: str | None = "chat") -> OrderRow:
    return OrderRow(
        peer=peer, id=order_id(number), model=MODEL, model_name="tiny", chat_id=chat, quote=b"q",
        price_in=1, price_out=4, price_cached=0, hold=hold,
    )  # fmt: skip


def opened(conn: Connection, number: int, account: bytes = ACCOUNT, hold: int = 1000) -> Refused | None:
    return selling.open_order(
        conn, an_order(number, account, hold, None), limit=LIMIT, grace_ms=60_000, name="alice"
    )


def served(conn: Connection, number: int, charge: int = 700, account: bytes = ACCOUNT) -> None:
    assert opened(conn, number, account) is None
    assert trade.move(conn, "provider", account, order_id(number), ["pending"], "claimed")
    assert trade.move(conn, "provider", account, order_id(number), ["claimed"], "processing")
    assert selling.end_order(conn, account, order_id(number), "completed", COUNTS, charge, "stop")


def receipt_bytes(order: OrderRow, seq: int, owed: int) -> bytes:
    return f"receipt {order.id.hex()} {seq} {owed} {order.charge}".encode()


def issued(conn: Connection, number: int, account: bytes = ACCOUNT) -> ReceiptRow:
    receipt = selling.issue_receipt(conn, account, order_id(number), receipt_bytes)
    assert isinstance(receipt, ReceiptRow)
    return receipt


def signed(
    conn: Connection, number: int, accepted: int = 700, account: bytes = ACCOUNT
) -> ReceiptRow | Refused:
    return selling.accept_countersign(
        conn, account, order_id(number), countersign=b"cs %d" % number, counted=COUNTS, accepted=accepted,
        rating=b"r",
    )  # fmt: skip


def paid(
    conn: Connection, number: int, seq: int, charge: int = 700, accepted: int | None = None
) -> ReceiptRow | Refused:
    return buying.sign_receipt(
        conn, PROVIDER, order_id(number), seq=seq, receipt=b"receipt %d" % number,
        countersign=b"cs %d" % number, billed=COUNTS, charge=charge,
        accepted=charge if accepted is None else accepted,
    )  # fmt: skip


def test_a_paid_order_on_the_users_side(conn: Connection) -> None:
    order = an_order(1)
    for _ in range(2):
        assert (
            buying.open_hold(conn, order, Caps(day=1000, chat=1000, request=1000, tab=1000), "maple") is None
        )
    assert buying.spent_since(conn, NOW).held == buying.spent_in_chat(conn, "chat").held == 1000
    for _ in range(2):
        assert buying.mark_sent(conn, PROVIDER, order.id)
    assert trade.move(conn, "user", PROVIDER, order.id, ["pending"], "claimed")
    assert not trade.move(conn, "user", PROVIDER, order.id, ["pending"], "claimed")
    assert trade.move(conn, "user", PROVIDER, order.id, ["claimed"], "processing")

    assert buying.count_order(conn, PROVIDER, order.id, "completed", COUNTS, 700, "stop")
    assert not buying.count_order(conn, PROVIDER, order.id, "failed", Counts(), 0)
    kept = trade.get_order(conn, "user", PROVIDER, order.id)
    assert kept is not None
    assert (kept.state, kept.bill, kept.held, kept.counted, kept.outcome) == (
        "completed", "counted", 700, COUNTS, "stop",
    )  # fmt: skip
    assert buying.spent_since(conn, NOW).held == 700
    assert [one.id for one in trade.unsettled(conn, "user", PROVIDER)] == [order.id]

    receipt = paid(conn, 1, seq=1)
    assert isinstance(receipt, ReceiptRow)
    assert (receipt.receipt, receipt.countersign, receipt.tab_seq) == (b"receipt 1", b"cs 1", 1)
    # Another receipt for it changes nothing: the first one is what was signed.
    assert paid(conn, 1, seq=2, charge=900, accepted=100) == receipt
    tab = tabs.get_tab(conn, "user", PROVIDER)
    assert (tab.owed, tab.held, tab.seq, tab.signed_seq, tab.name) == (700, 0, 1, 1, "maple")
    spent = buying.spent_since(conn, NOW)
    assert (spent.spent, spent.held) == (700, 0)
    assert buying.spent_in_chat(conn, "chat") == spent
    assert ledger.balance(conn, "spent") == 700
    assert [one.bill for one in trade.unsettled(conn, "user")] == ["signed"]

    assert buying.acknowledge(conn, PROVIDER, order.id, b"rating")
    assert not buying.acknowledge(conn, PROVIDER, order.id, b"other")
    assert trade.unsettled(conn, "user") == []
    kept_receipt = trade.get_receipt(conn, "user", PROVIDER, order.id)
    assert kept_receipt is not None and kept_receipt.rating == b"rating"
    assert not buying.release(conn, PROVIDER, order.id)
    assert not buying.mark_unclaimed(conn, PROVIDER, order.id, NOW)


def test_a_paid_order_on_the_providers_side(conn: Connection) -> None:
    assert opened(conn, 1) is None
    assert opened(conn, 1) is None
    assert tabs.get_tab(conn, "provider", ACCOUNT).held == 1000
    assert selling.issue_receipt(conn, ACCOUNT, order_id(1), receipt_bytes) == Refused("running")
    claims = [trade.move(conn, "provider", ACCOUNT, order_id(1), ["pending"], "claimed") for _ in range(3)]
    assert claims == [True, False, False]
    assert [selling.requeue(conn, ACCOUNT, order_id(1)) for _ in range(2)] == [True, False]
    assert trade.move(conn, "provider", ACCOUNT, order_id(1), ["pending"], "claimed")
    assert not selling.requeue(conn, ACCOUNT, order_id(1))  # once in its life
    assert trade.move(conn, "provider", ACCOUNT, order_id(1), ["claimed"], "processing")
    assert not selling.expire_order(conn, ACCOUNT, order_id(1))
    with pytest.raises(ValueError, match="1001"):
        selling.end_order(conn, ACCOUNT, order_id(1), "completed", COUNTS, 1001)
    assert selling.end_order(conn, ACCOUNT, order_id(1), "completed", COUNTS, 700, "stop")
    assert not selling.end_order(conn, ACCOUNT, order_id(1), "cancelled", Counts(), 0)
    assert tabs.get_tab(conn, "provider", ACCOUNT).held == 700
    assert selling.due(conn, ACCOUNT) == selling.Due(None, (order_id(1),))
    assert signed(conn, 1) == Refused("unknown")

    receipt = issued(conn, 1)
    assert receipt.receipt == receipt_bytes(an_order(1, ACCOUNT), 1, 0).replace(b"None", b"700")
    assert issued(conn, 1) == receipt
    assert selling.due(conn, ACCOUNT) == selling.Due(receipt, ())
    with pytest.raises(ValueError, match="701"):
        signed(conn, 1, accepted=701)
    done = signed(conn, 1)
    assert isinstance(done, ReceiptRow)
    assert (done.countersign, done.rating, done.accepted, done.disputed) == (b"cs 1", b"r", 700, 0)
    assert signed(conn, 1, accepted=5) == done
    assert issued(conn, 1) == done
    tab = tabs.get_tab(conn, "provider", ACCOUNT)
    assert (tab.owed, tab.held, tab.seq, tab.signed_seq, tab.name) == (700, 0, 1, 1, "alice")
    assert ledger.balance(conn, "earned") == -700
    assert selling.due(conn, ACCOUNT) == selling.Due(None, ())


def test_one_unsigned_receipt_per_account_and_no_new_orders_while_it_is_late(conn: Connection) -> None:
    for number in (1, 2):
        served(conn, number)
    served(conn, 3, account=OTHER)
    assert issued(conn, 1).tab_seq == 1
    refused = selling.issue_receipt(conn, ACCOUNT, order_id(2), receipt_bytes)
    assert refused == Refused("receipt_due", order=order_id(1))
    assert issued(conn, 3, OTHER).tab_seq == 1  # another account has its own
    late = selling.open_order(conn, an_order(4, ACCOUNT, 0), limit=LIMIT, grace_ms=0)
    assert late == Refused("receipt_due", order=order_id(1))
    assert selling.open_order(conn, an_order(4, ACCOUNT, 0), limit=LIMIT, grace_ms=60_000) is None
    signed(conn, 1)
    assert issued(conn, 2).receipt.split()[2:] == [b"2", b"700", b"700"]


def test_an_account_that_never_asks_for_its_receipts_is_not_served_for_ever(conn: Connection) -> None:
    for number in range(selling.MAX_DUE):
        assert opened(conn, number, hold=0) is None
        selling.end_order(conn, ACCOUNT, order_id(number), "completed", COUNTS, 0)
    most = selling.MAX_DUE
    assert opened(conn, 999, hold=0) == Refused("receipt_due", most, most, order_id(0))
    issued(conn, 0)
    signed(conn, 0, accepted=0)
    assert opened(conn, 999, hold=0) is None


def test_a_tab_is_never_over_its_limit(conn: Connection) -> None:
    for number in range(10):
        assert opened(conn, number) is None
    assert opened(conn, 10, hold=1) == Refused("tab_limit", LIMIT, LIMIT)
    assert opened(conn, 10, hold=0) is None  # what is free raises nothing
    selling.end_order(conn, ACCOUNT, order_id(0), "completed", COUNTS, 400)
    assert opened(conn, 11, hold=600) is None
    assert opened(conn, 12, hold=1) == Refused("tab_limit", LIMIT, LIMIT)
    issued(conn, 0)
    signed(conn, 0, accepted=300)  # 100 are disputed, and held no more
    assert opened(conn, 13, hold=101) == Refused("tab_limit", LIMIT, LIMIT - 100)
    assert opened(conn, 13, hold=100) is None
    tabs.set_limit(conn, "provider", ACCOUNT, 20_000)
    assert opened(conn, 14, hold=10_001) == Refused("tab_limit", 20_000, LIMIT)
    assert opened(conn, 14, hold=10_000) is None
    assert tabs.get_tab(conn, "provider", ACCOUNT).disputed == 100


@pytest.mark.parametrize(
    ("caps", "reason"),
    [
        (Caps(request=999), "request_cap"),
        (Caps(chat=2499), "chat_cap"),
        (Caps(day=3499, day_start_ms=NOW), "day_cap"),
        (Caps(tab=2499), "tab_limit"),
    ],
)
def test_each_cap_counts_what_is_spent_and_what_is_held(conn: Connection, caps: Caps, reason: str) -> None:
    """Before: 1000 held and 500 spent here, 1000 spent with another provider in another chat."""
    other = an_order(7, OTHER, 1000, "other")
    assert buying.open_hold(conn, other, Caps()) is None
    buying.sign_receipt(
        conn, OTHER, other.id, seq=1, receipt=b"", countersign=b"", billed=COUNTS, charge=1000, accepted=1000
    )
    for number in (1, 8):
        assert buying.open_hold(conn, an_order(number), Caps()) is None
    assert isinstance(paid(conn, 8, seq=1, charge=500), ReceiptRow)
    refused = buying.open_hold(conn, an_order(2), caps)
    assert isinstance(refused, Refused) and refused.reason == reason
    assert refused.used + 1000 == refused.limit + 1
    assert trade.get_order(conn, "user", PROVIDER, order_id(2)) is None
    one_more = Caps(
        request=caps.request and caps.request + 1,
        chat=caps.chat and caps.chat + 1,
        day=caps.day and caps.day + 1,
        day_start_ms=caps.day_start_ms,
        tab=caps.tab and caps.tab + 1,
    )
    assert buying.open_hold(conn, an_order(2), one_more) is None
    # Of another day, nothing counts.
    tomorrow = Caps(day=1000, day_start_ms=NOW + 24 * 3600 * 1000)
    assert buying.open_hold(conn, an_order(3), tomorrow) is None


def test_calls_of_programs_have_a_cap_of_their_own(conn: Connection) -> None:
    def called(number: int) -> OrderRow:
        return structs.replace(an_order(number), chat_id=None, called=True)

    caps = Caps(day=10_000, calls=2000, day_start_ms=NOW)
    assert buying.open_hold(conn, an_order(1), caps) is None, "of a chat"
    assert buying.open_hold(conn, called(2), caps) is None
    assert isinstance(paid(conn, 2, seq=1, charge=500), ReceiptRow)
    assert buying.spent_by_calls(conn, NOW) == Spending(500, 0)
    assert buying.open_hold(conn, called(3), caps) is None
    assert buying.spent_by_calls(conn, NOW) == Spending(500, 1000)
    assert buying.open_hold(conn, called(4), caps) == Refused("calls_cap", 2000, 1500)
    assert buying.open_hold(conn, an_order(5), caps) is None, "chats may go on"
    kept = trade.get_order(conn, "user", PROVIDER, order_id(3))
    assert kept is not None and kept.called
    assert buying.release(conn, PROVIDER, order_id(3))
    assert buying.open_hold(conn, called(4), caps) is None
    tomorrow = structs.replace(caps, day_start_ms=NOW + 24 * 3600 * 1000, calls=1000)
    assert buying.open_hold(conn, called(6), tomorrow) is None
    assert ledger.check(conn) == []


def test_canaries_have_a_cap_of_their_own_and_hold_less_than_they_say(conn: Connection) -> None:
    def canary(number: int, held: int = 300) -> OrderRow:
        return structs.replace(an_order(number), chat_id=None, canary=True, held=held)

    caps = Caps(day=10_000, canaries=700, day_start_ms=NOW)
    assert buying.open_hold(conn, an_order(1), caps) is None, "of a chat"
    assert buying.open_hold(conn, canary(2), caps) is None
    kept = trade.get_order(conn, "user", PROVIDER, order_id(2))
    assert kept is not None and kept.canary and (kept.hold, kept.held) == (1000, 300)
    assert buying.spent_on_canaries(conn, NOW) == Spending(0, 300)
    assert buying.spent_since(conn, NOW) == Spending(0, 1300)
    assert ledger.check(conn) == []
    with pytest.raises(ValueError, match="are held"):
        paid(conn, 2, seq=1, charge=301)
    assert isinstance(paid(conn, 2, seq=1, charge=250), ReceiptRow)
    assert buying.open_hold(conn, canary(3), caps) is None
    assert buying.spent_on_canaries(conn, NOW) == Spending(250, 300)
    assert buying.open_hold(conn, canary(4), caps) == Refused("canaries_cap", 700, 550)
    assert buying.open_hold(conn, canary(5, held=150), caps) is None
    assert buying.open_hold(conn, an_order(6), caps) is None, "chats may go on"
    # What came back is not spent a second time.
    assert buying.reverse(conn, PROVIDER, order_id(2), b"proof") == 250
    assert buying.spent_on_canaries(conn, NOW).spent == 250
    assert buying.spent_on_canaries(conn, NOW + 24 * 3600 * 1000) == Spending(0, 0)
    # An order of somebody is reserved for whole, whatever it says.
    assert an_order(7).reserved == 1000 == canary(7, held=2000).reserved
    assert ledger.check(conn) == []


def test_a_disputed_receipt_moves_what_was_accepted(conn: Connection) -> None:
    buying.open_hold(conn, an_order(1), Caps())
    buying.count_order(conn, PROVIDER, order_id(1), "completed", COUNTS, 500)
    with pytest.raises(ValueError, match="501"):
        paid(conn, 1, seq=1, charge=700, accepted=501)
    with pytest.raises(ValueError, match="701"):
        paid(conn, 1, seq=1, charge=700, accepted=701)
    receipt = paid(conn, 1, seq=1, charge=5000, accepted=500)
    assert isinstance(receipt, ReceiptRow) and receipt.disputed == 4500
    tab = tabs.get_tab(conn, "user", PROVIDER)
    assert (tab.owed, tab.disputed) == (500, 4500)


def test_a_number_is_signed_once(conn: Connection) -> None:
    for number in (1, 2):
        buying.open_hold(conn, an_order(number), Caps())
    assert isinstance(paid(conn, 1, seq=5), ReceiptRow)
    for seq in (5, 4, 0, -1):
        assert paid(conn, 2, seq=seq) == Refused("seq_used", limit=5)
    assert paid(conn, 3, seq=6) == Refused("unknown")
    assert isinstance(paid(conn, 2, seq=6), ReceiptRow)


def test_silence_holds_for_its_time_and_is_released(conn: Connection) -> None:
    for number in (1, 2, 3):
        buying.open_hold(conn, an_order(number), Caps())
    assert buying.mark_unclaimed(conn, PROVIDER, order_id(1), NOW + 50_000)
    assert not buying.mark_unclaimed(conn, PROVIDER, order_id(1), NOW + 10**9)
    assert buying.count_order(conn, PROVIDER, order_id(1), "failed", COUNTS, 800)
    buying.mark_unclaimed(conn, PROVIDER, order_id(2), NOW + 10**9)
    assert buying.release_unclaimed(conn) == []
    assert buying.spent_since(conn, NOW).held == 2800
    while conn.clock() < NOW + 50_000:
        pass
    assert buying.release_unclaimed(conn) == [order_id(1)]
    assert buying.release_unclaimed(conn) == []
    assert buying.spent_since(conn, NOW).held == 2000
    # A receipt that comes too late can be signed for nothing, so that the provider serves on.
    assert paid(conn, 1, seq=1) == Refused("released", used=700)
    assert isinstance(paid(conn, 1, seq=1, accepted=0), ReceiptRow)
    # One in time is paid.
    assert isinstance(paid(conn, 2, seq=2), ReceiptRow)
    assert buying.spent_since(conn, NOW).spent == 700


def test_what_never_left_costs_nothing_after_a_restart(conn: Connection) -> None:
    for number in (1, 2):
        buying.open_hold(conn, an_order(number), Caps())
    buying.mark_sent(conn, PROVIDER, order_id(2))
    assert not buying.mark_sent(conn, PROVIDER, order_id(3))
    assert buying.release_unsent(conn) == [order_id(1)]
    assert buying.release_unsent(conn) == []
    sent = trade.get_order(conn, "user", PROVIDER, order_id(2))
    assert sent is not None
    assert (sent.state, sent.bill, sent.held, sent.outcome) == ("failed", "held", 1000, "interrupted")
    assert buying.release(conn, PROVIDER, order_id(2), "unknown")
    assert not buying.release(conn, PROVIDER, order_id(2))
    assert buying.spent_since(conn, NOW).held == 0


def test_a_provider_that_was_killed_charges_nothing_for_what_it_left(conn: Connection) -> None:
    for number in (1, 2):
        opened(conn, number)
    trade.move(conn, "provider", ACCOUNT, order_id(2), ["pending"], "claimed")
    served(conn, 3)
    assert selling.fail_open_orders(conn) == 2
    assert selling.fail_open_orders(conn) == 0
    assert [(one.state, one.held) for one in trade.unsettled(conn, "provider")] == [
        ("failed", 0), ("failed", 0), ("completed", 700),
    ]  # fmt: skip
    assert issued(conn, 2).charge == 0
    assert isinstance(signed(conn, 2, accepted=0), ReceiptRow)


def test_a_provider_that_was_killed_owes_nothing_for_what_still_waited(conn: Connection) -> None:
    for number in (1, 2, 3):
        opened(conn, number)
    for number in (2, 3):
        trade.move(conn, "provider", ACCOUNT, order_id(number), ["pending"], "claimed")
    assert selling.requeue(conn, ACCOUNT, order_id(3))
    buying.open_hold(conn, an_order(9, ACCOUNT), Caps())
    assert selling.expire_open_orders(conn) == 1
    assert selling.expire_open_orders(conn) == 0
    kept = [trade.get_order(conn, "provider", ACCOUNT, order_id(number)) for number in (1, 2, 3)]
    assert [(one.state, one.bill, one.held, one.ended_at is None) for one in kept if one is not None] == [
        ("expired", "released", 0, False), ("claimed", "held", 1000, True), ("pending", "held", 1000, True),
    ]  # fmt: skip
    bought = trade.get_order(conn, "user", ACCOUNT, order_id(9))
    assert bought is not None and bought.state == "pending"


def test_what_is_held_of_each_account_is_that_of_its_unsettled_orders_since_then(conn: Connection) -> None:
    served(conn, 1)
    since = conn.clock()
    opened(conn, 2)
    served(conn, 3)
    served(conn, 4, charge=0, account=OTHER)
    served(conn, 5, account=PROVIDER)
    issued(conn, 5, PROVIDER)
    assert selling.held_since(conn, since) == {ACCOUNT: 1700, PROVIDER: 700}
    signed(conn, 5, account=PROVIDER)
    buying.open_hold(conn, an_order(9, OTHER), Caps())
    assert selling.held_since(conn, 0) == {ACCOUNT: 2400}


def test_an_order_that_was_never_claimed_expires(conn: Connection) -> None:
    opened(conn, 1)
    assert selling.expire_order(conn, ACCOUNT, order_id(1))
    assert not selling.expire_order(conn, ACCOUNT, order_id(1))
    assert not trade.move(conn, "provider", ACCOUNT, order_id(1), ["pending"], "claimed")
    assert selling.issue_receipt(conn, ACCOUNT, order_id(1), receipt_bytes) == Refused("unknown")
    assert tabs.get_tab(conn, "provider", ACCOUNT).held == 0


def test_orders_that_were_never_claimed_are_forgotten_with_their_tabs(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selling, "FORGOTTEN_AT_ONCE", 10)
    strangers = [number.to_bytes(32, "big") for number in range(12)]
    for stranger in strangers:
        opened(conn, 1, stranger)
        assert selling.expire_order(conn, stranger, order_id(1))
    tabs.set_limit(conn, "provider", strangers[3], 9)
    served(conn, 7, account=strangers[4])
    issued(conn, 7, strangers[4])
    signed(conn, 7, account=strangers[4])
    opened(conn, 1)
    served(conn, 2)
    since = conn.clock()
    opened(conn, 3)
    assert selling.expire_order(conn, ACCOUNT, order_id(3))
    assert [selling.forget_expired(conn, since, 0) for _ in range(3)] == [10, 2, 0]
    assert {tab.peer for tab in tabs.list_tabs(conn)} == {*strangers[3:5], ACCOUNT}
    assert [trade.get_order(conn, "provider", one, order_id(1)) for one in strangers] == [None] * 12
    assert trade.get_order(conn, "provider", strangers[4], order_id(7)) is not None
    assert [trade.get_order(conn, "provider", ACCOUNT, order_id(n)) is None for n in (1, 2, 3)] == [False] * 3
    # A number that was forgotten is as one that never was.
    served(conn, 1, account=strangers[0])
    assert issued(conn, 1, strangers[0]).tab_seq == 1
    assert issued(conn, 2).charge == 700


def test_orders_that_cost_nothing_and_have_no_receipt_are_forgotten_with_their_tabs(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selling, "FORGOTTEN_AT_ONCE", 10)

    def cancelled(number: int, account: bytes) -> None:
        assert opened(conn, number, account) is None
        assert trade.move(conn, "provider", account, order_id(number), ["pending"], "claimed")
        assert selling.end_order(conn, account, order_id(number), "cancelled", Counts(0, 0, 0), 0, "failed")

    strangers = [number.to_bytes(32, "big") for number in range(12)]
    for stranger in strangers:
        cancelled(1, stranger)
    tabs.set_limit(conn, "provider", strangers[3], 9)
    served(conn, 7, account=strangers[4])
    cancelled(1, ACCOUNT)
    assert issued(conn, 1).charge == 0
    cancelled(1, OTHER)
    issued(conn, 1, OTHER)
    assert isinstance(signed(conn, 1, accepted=0, account=OTHER), ReceiptRow)
    opened(conn, 2)
    opened(conn, 3)
    assert selling.expire_order(conn, ACCOUNT, order_id(3))
    since = conn.clock()
    cancelled(4, ACCOUNT)
    assert selling.forget_expired(conn, 0, 0) == 0
    assert selling.forget_expired(conn, since, 0) == 1  # what expired has a time of its own
    opened(conn, 3)
    assert selling.expire_order(conn, ACCOUNT, order_id(3))
    until = conn.clock()
    # Of both kinds together no more than that at once.
    assert [selling.forget_expired(conn, until, since) for _ in range(3)] == [10, 3, 0]
    assert {tab.peer for tab in tabs.list_tabs(conn)} == {*strangers[3:5], ACCOUNT, OTHER}
    assert [trade.get_order(conn, "provider", one, order_id(1)) for one in strangers] == [None] * 12
    assert trade.get_order(conn, "provider", strangers[4], order_id(7)) is not None
    assert [trade.get_order(conn, "provider", ACCOUNT, order_id(n)) is None for n in (1, 2, 3, 4)] == [
        False, False, True, False,
    ]  # fmt: skip
    assert selling.issue_receipt(conn, strangers[0], order_id(1), receipt_bytes) == Refused("unknown")
    assert issued(conn, 7, strangers[4]).charge == 700
    assert isinstance(signed(conn, 1, accepted=0), ReceiptRow)
    assert issued(conn, 4).charge == 0


def test_nobody_reaches_the_order_of_another(conn: Connection) -> None:
    served(conn, 1)
    assert trade.get_order(conn, "provider", OTHER, order_id(1)) is None
    assert selling.issue_receipt(conn, OTHER, order_id(1), receipt_bytes) == Refused("unknown")
    issued(conn, 1)
    assert signed(conn, 1, account=OTHER) == Refused("unknown")
    # The same id is the other account's own order.
    served(conn, 1, 200, account=OTHER)
    assert issued(conn, 1, OTHER).charge == 200
    assert buying.open_hold(conn, an_order(1, ACCOUNT), Caps()) is None  # and the other role's
    with pytest.raises(StoreError, match="another order"):
        opened(conn, 1, hold=999)


def test_free_orders_have_receipts_too(conn: Connection) -> None:
    opened(conn, 1, hold=0)
    selling.end_order(conn, ACCOUNT, order_id(1), "completed", COUNTS, 0)
    issued(conn, 1)
    assert isinstance(signed(conn, 1, accepted=0), ReceiptRow)
    sums = earnings.earnings(conn, "provider", utc=True)
    assert (sums.accepted, sums.days[0].orders, sums.days[0].n_out) == (0, 1, 50)


def test_no_amount_is_too_large_for_the_sums(conn: Connection) -> None:
    for hold in (MAX_AMOUNT + 1, 2**62):
        refused = buying.open_hold(conn, an_order(1, hold=hold), Caps())
        assert refused == Refused("request_cap", MAX_AMOUNT, 0)
        taken = selling.open_order(conn, an_order(1, ACCOUNT, hold), limit=2**70, grace_ms=0)
        assert taken == Refused("tab_limit", MAX_AMOUNT, 0)
    for number in range(1, 5):
        assert buying.open_hold(conn, an_order(number), Caps()) is None
        receipt = paid(conn, number, seq=number, charge=2**62, accepted=1000)
        assert isinstance(receipt, ReceiptRow) and receipt.disputed == MAX_AMOUNT - 1000
    assert tabs.get_tab(conn, "user", PROVIDER).disputed == 4 * (MAX_AMOUNT - 1000)
    sums = earnings.earnings(conn, "user", utc=True)
    assert (sums.accepted, sums.days[0].disputed) == (4000, 4 * (MAX_AMOUNT - 1000))
