"""Tabs: settled, netted, taken back; and after a restored backup no number is given twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infraxa.store import buying, ledger, selling, tabs, trade
from infraxa.store.db import Connection, connect
from infraxa.store.trade_records import MAX_AMOUNT, Caps, Counts, OrderRow, ReceiptRow, Refused

PROVIDER, ACCOUNT, OTHER = b"p" * 32, b"a" * 32, b"o" * 32
MODEL = b"m" * 32
COUNTS = Counts(100, 20, 50)


def oid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def order(number: int, peer: bytes, hold: int = 1000) -> OrderRow:
    return OrderRow(peer=peer, id=oid(number), model=MODEL, model_name="tiny", hold=hold)


def sign(order: OrderRow, seq: int, owed: int) -> bytes:
    return b"%d %d" % (seq, owed)


def sold(conn: Connection, number: int, charge: int = 700, *, account: bytes = ACCOUNT) -> int:
    """A whole order on the provider's side; gives its number."""
    ended(conn, number, charge, account=account)
    receipt = issued(conn, number, account=account)
    assert isinstance(countersigned(conn, number, charge, account=account), ReceiptRow)
    return receipt.tab_seq


def ended(conn: Connection, number: int, charge: int = 700, *, account: bytes = ACCOUNT) -> None:
    assert selling.open_order(conn, order(number, account), limit=10**6, grace_ms=10**6) is None
    assert selling.end_order(conn, account, oid(number), "completed", COUNTS, charge)


def issued(conn: Connection, number: int, *, account: bytes = ACCOUNT) -> ReceiptRow:
    receipt = selling.issue_receipt(conn, account, oid(number), sign)
    assert isinstance(receipt, ReceiptRow), receipt
    return receipt


def countersigned(
    conn: Connection, number: int, accepted: int = 700, *, account: bytes = ACCOUNT
) -> ReceiptRow | Refused:
    return selling.accept_countersign(
        conn, account, oid(number), countersign=b"c", counted=COUNTS, accepted=accepted
    )


def bought(conn: Connection, number: int, seq: int, charge: int = 700) -> ReceiptRow | Refused:
    assert buying.open_hold(conn, order(number, PROVIDER), Caps()) is None
    return paid(conn, number, seq, charge)


def paid(conn: Connection, number: int, seq: int, charge: int = 700) -> ReceiptRow | Refused:
    return buying.sign_receipt(
        conn, PROVIDER, oid(number), seq=seq, receipt=b"r", countersign=b"c", billed=COUNTS, charge=charge,
        accepted=charge,
    )  # fmt: skip


def owed(conn: Connection) -> tuple[int, int]:
    """To this node by the account; by this node to the provider."""
    return (
        tabs.get_tab(conn, "provider", ACCOUNT).owed,
        tabs.get_tab(conn, "user", PROVIDER).owed,
    )


@pytest.fixture(autouse=True)
def whole(conn: Connection) -> object:
    yield
    assert ledger.check(conn) == []


def test_a_settlement_counts_once_on_both_sides(conn: Connection) -> None:
    sold(conn, 1)
    bought(conn, 1, 1)
    for _ in range(2):
        assert tabs.settle(conn, "s1", "provider", ACCOUNT, 300, "cash", b"proof", seq=2) is None
        assert tabs.settle(conn, "s1", "user", PROVIDER, 300, "cash", b"proof", seq=2) is None
    assert owed(conn) == (400, 400)
    assert sold(conn, 2) == 3  # the settlement used its number
    for seq in (2, 3, 5):
        refused = tabs.settle(conn, "s2", "provider", ACCOUNT, 1, "", b"", seq=seq)
        assert refused == Refused("seq_used", limit=3)
    assert tabs.settle(conn, "s2", "user", PROVIDER, 1, "", b"", seq=2) == Refused("seq_used", limit=2)
    # The same key from another peer is another settlement, and one can pay ahead.
    assert tabs.settle(conn, "s1", "provider", OTHER, 50, "", b"", seq=1) is None
    assert tabs.get_tab(conn, "provider", OTHER).owed == -50
    for amount in (0, -1, MAX_AMOUNT + 1):
        with pytest.raises(ValueError, match="settlement"):
            tabs.settle(conn, "s3", "user", PROVIDER, amount, "", b"", seq=9)


def test_nothing_is_settled_while_a_receipt_is_to_be_signed(conn: Connection) -> None:
    ended(conn, 1)
    issued(conn, 1)
    refused = tabs.settle(conn, "s1", "provider", ACCOUNT, 300, "", b"", seq=2)
    assert refused == Refused("receipt_due", order=oid(1))
    countersigned(conn, 1)
    assert tabs.settle(conn, "s1", "provider", ACCOUNT, 300, "", b"", seq=2) is None


def test_serving_back_shrinks_both_tabs_in_one_event(conn: Connection) -> None:
    sold(conn, 1, 700)
    bought(conn, 1, 1, 500)
    tabs.link_node(conn, ACCOUNT, PROVIDER)
    for _ in range(2):
        netted = tabs.net_tabs(
            conn, "n1", ACCOUNT, PROVIDER, 500, "", b"proof", account_seq=2, provider_seq=2
        )
        assert netted is None
    assert owed(conn) == (200, 0)
    assert conn.execute("SELECT count(*) FROM events WHERE kind = 'net'").fetchone()[0] == 1
    # Refused by either tab, it changes neither.
    for account_seq, provider_seq in ((3, 2), (2, 3)):
        refused = tabs.net_tabs(
            conn, "n2", ACCOUNT, PROVIDER, 10, "", b"", account_seq=account_seq, provider_seq=provider_seq
        )
        assert refused == Refused("seq_used", limit=2)
    assert owed(conn) == (200, 0)
    assert tabs.get_tab(conn, "provider", ACCOUNT).node == PROVIDER


def test_the_list_begins_with_the_most_that_is_owed(conn: Connection) -> None:
    sold(conn, 1, 100)
    sold(conn, 2, 900, account=OTHER)
    bought(conn, 1, 1, 500)
    tabs.set_note(conn, "provider", OTHER, "a friend")
    tabs.set_limit(conn, "provider", OTHER, 5)
    listed = tabs.list_tabs(conn)
    assert [(tab.role, tab.peer, tab.owed) for tab in listed] == [
        ("provider", OTHER, 900), ("user", PROVIDER, 500), ("provider", ACCOUNT, 100),
    ]  # fmt: skip
    assert (listed[0].note, listed[0].limit) == ("a friend", 5)
    assert tabs.list_tabs(conn, "user") == [listed[1]]
    assert tabs.get_tab(conn, "provider", OTHER) == listed[0]
    assert tabs.get_tab(conn, "user", OTHER).owed == 0


class Book:
    """A data folder, with a backup of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conn = connect(folder)

    def back_up(self) -> None:
        self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copytree(self.folder, self.folder.with_suffix(".backup"))

    def restore(self) -> None:
        self.conn.close()
        shutil.rmtree(self.folder)
        shutil.copytree(self.folder.with_suffix(".backup"), self.folder)
        self.conn = connect(self.folder)
        tabs.mark_restored(self.conn)


def test_a_restored_provider_gives_no_number_twice_and_owes_nothing_away(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    assert sold(book.conn, 1) == 1
    ended(book.conn, 2)
    assert selling.open_order(book.conn, order(3, ACCOUNT), limit=10**6, grace_ms=10**6) is None
    book.back_up()
    issued(book.conn, 2)
    countersigned(book.conn, 2)  # number 2
    selling.end_order(book.conn, ACCOUNT, oid(3), "completed", COUNTS, 300)
    assert issued(book.conn, 3).tab_seq == 3
    countersigned(book.conn, 3, 300)
    book.restore()
    conn = book.conn

    ended(conn, 4)
    assert selling.issue_receipt(conn, ACCOUNT, oid(4), sign) == Refused("out_of_step")
    assert tabs.settle(conn, "s", "provider", ACCOUNT, 1, "", b"", seq=2) == Refused("out_of_step")
    # What was open then is not charged: what became of it, only the other side can say.
    assert selling.issue_receipt(conn, ACCOUNT, oid(2), sign) == Refused("unknown")
    assert trade.unsettled(conn, "provider") == [trade.get_order(conn, "provider", ACCOUNT, oid(4))]
    assert selling.fail_open_orders(conn) == 0
    conn.close()


def test_a_restored_provider_adopts_what_the_user_signed(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    sold(book.conn, 1)
    book.back_up()
    sold(book.conn, 2)
    sold(book.conn, 3)
    book.restore()
    conn = book.conn
    ended(conn, 4)
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 3, 2100, b"proof") == "adopted"
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 3, 2100) == "same"
    tab = tabs.get_tab(conn, "provider", ACCOUNT)
    assert (tab.owed, tab.signed_seq, tab.needs_sync) == (2100, 3, False)
    receipt = issued(conn, 4)
    assert receipt.tab_seq > 3
    assert receipt.receipt == b"%d 2100" % receipt.tab_seq
    countersigned(conn, 4)
    assert tabs.get_tab(conn, "provider", ACCOUNT).owed == 2800
    assert issued_next(conn) == receipt.tab_seq + 1
    assert ledger.check(conn) == []
    conn.close()


def issued_next(conn: Connection) -> int:
    ended(conn, 99)
    return issued(conn, 99).tab_seq


def test_a_user_that_hides_what_it_signed_gets_no_number_twice(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    sold(book.conn, 1)
    book.back_up()
    used = {sold(book.conn, number) for number in (2, 3, 4)}
    book.restore()
    assert tabs.adopt_state(book.conn, "provider", ACCOUNT, 1, 700) == "same"
    assert issued_next(book.conn) not in used | {1}
    book.conn.close()


def test_a_receipt_that_was_out_when_the_backup_was_made_is_posted_once(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    ended(book.conn, 1)
    receipt = issued(book.conn, 1)
    book.back_up()
    countersigned(book.conn, 1)
    book.restore()
    conn = book.conn
    assert issued(conn, 1) == receipt  # it is the same one
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 1, 700) == "adopted"
    assert isinstance(countersigned(conn, 1), ReceiptRow)  # sent again
    assert tabs.get_tab(conn, "provider", ACCOUNT).owed == 700
    assert (ledger.balance(conn, "earned"), ledger.balance(conn, "adopted")) == (-700, 0)
    assert ledger.check(conn) == []
    conn.close()


def test_a_restored_user_adopts_and_signs_again_without_paying_again(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    bought(book.conn, 1, 1)
    assert buying.open_hold(book.conn, order(2, PROVIDER), Caps()) is None
    book.back_up()
    paid(book.conn, 2, 2)
    bought(book.conn, 3, 3)
    book.restore()
    conn = book.conn
    assert buying.release_unsent(conn) == []  # it may have been sent since
    assert paid(conn, 2, 2) == Refused("out_of_step")
    assert tabs.adopt_state(conn, "user", PROVIDER, 3, 2100) == "adopted"
    assert isinstance(paid(conn, 2, 2), ReceiptRow)
    assert paid(conn, 3, 3) == Refused("unknown")
    assert tabs.get_tab(conn, "user", PROVIDER).owed == 2100
    assert (ledger.balance(conn, "spent"), ledger.balance(conn, "adopted")) == (1400, 700)
    # An order of which nothing is left is signed for nothing, so that the provider serves on.
    assert buying.open_hold(conn, order(4, PROVIDER, 0), Caps()) is None
    lost = buying.sign_receipt(
        conn, PROVIDER, oid(4), seq=4, receipt=b"", countersign=b"", billed=COUNTS, charge=700, accepted=0
    )
    assert isinstance(lost, ReceiptRow) and lost.disputed == 700
    assert trade.get_order(conn, "user", PROVIDER, oid(4)) is not None
    assert ledger.check(conn) == []
    conn.close()


def test_whose_state_is_newer(conn: Connection) -> None:
    sold(conn, 1)
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 0, 0) == "ahead"
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 1, 699) == "differs"
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 1, 700) == "same"
    assert owed(conn)[0] == 700
    assert tabs.adopt_state(conn, "user", OTHER, 0, 0) == "same"
    assert tabs.adopt_state(conn, "user", OTHER, 4, -30) == "adopted"  # it had paid ahead
    assert tabs.get_tab(conn, "user", OTHER).owed == -30
    tabs.mark_restored(conn)
    assert tabs.adopt_state(conn, "provider", ACCOUNT, 1, 699) == "differs"
    assert tabs.get_tab(conn, "provider", ACCOUNT).needs_sync
