"""Both books through any sequence of steps, lost and repeated messages, crashes and old backups."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from infraxa.store import buying, db, ledger, selling, tabs, trade
from infraxa.store.db import Connection, connect
from infraxa.store.records import StoreError
from infraxa.store.trade_records import Caps, Counts, OrderRow, ReceiptRow, Refused

PROVIDER, ACCOUNT, MODEL = b"p" * 32, b"a" * 32, b"m" * 32
COUNTS = Counts(100, 20, 50)
CAPS = Caps(request=1000, chat=4000, day=6000, tab=5000)
LIMIT = 5000


class Crash(BaseException):
    """The program is gone."""


class Frail(Connection):
    """Ends before the statement of that number."""

    left: float = float("inf")

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.left -= 1
        if self.left < 0:
            raise Crash
        return super().execute(sql, parameters)


class Node:
    """One side: its book, and what it does when it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.crashes = 0
        self.backup: Path | None = None
        self.conn = self._open()

    def _open(self) -> Frail:
        conn = connect(self.folder, clock=itertools.count(1_700_000_000_000).__next__)
        assert isinstance(conn, Frail)
        buying.release_unsent(conn)
        selling.fail_open_orders(conn)
        return conn

    def run(self, step: Callable[..., Any], *args: Any, fault: int | None = None, **kwargs: Any) -> Any:
        """One step as one transaction, as `Store.run` does it; Crash when the program ended in it, before
        its statement number `fault`."""
        self.conn.left = float("inf") if fault is None else fault
        try:
            with db.transaction(self.conn):
                return step(self.conn, *args, **kwargs)
        except Crash:
            self.crashes += 1
            self.conn.left = float("inf")
            self.conn.close()  # as when the process is gone: what is not committed is not there
            self.conn = self._open()
            raise
        finally:
            self.conn.left = float("inf")

    def back_up(self) -> None:
        self.backup = self.folder.with_suffix(".backup")
        shutil.rmtree(self.backup, ignore_errors=True)
        self.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copytree(self.folder, self.backup)

    def restore(self) -> bool:
        if self.backup is None:
            return False
        self.conn.close()
        shutil.rmtree(self.folder)
        shutil.copytree(self.backup, self.folder)
        marked = connect(self.folder)
        tabs.mark_restored(marked)
        marked.close()
        self.conn = self._open()
        return True


@pytest.fixture(autouse=True, scope="module")
def frail() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db, "Connection", Frail)
        yield


@pytest.fixture(scope="module")
def template(frail: None) -> Iterator[Path]:
    """A folder with the schema in it: making it is slower than copying it."""
    with tempfile.TemporaryDirectory() as folder:
        connect(Path(folder) / "book").close()
        yield Path(folder) / "book"


class Trade:
    """The two nodes, and what each says to the other; an order is known by its number."""

    def __init__(self, template: Path, folder: Path) -> None:
        for name in ("user", "provider"):
            shutil.copytree(template, folder / name)
        self.user, self.provider = Node(folder / "user"), Node(folder / "provider")
        self.given: dict[int, bytes] = {}
        """Every receipt that the provider let out, by its number."""

    def close(self) -> None:
        self.user.conn.close()
        self.provider.conn.close()

    def open_hold(self, number: int, hold: int = 1000, fault: int | None = None) -> Refused | None:
        order = OrderRow(peer=PROVIDER, id=oid(number), model=MODEL, chat_id=f"chat {number % 2}", hold=hold)
        refused: Refused | None = self.user.run(buying.open_hold, order, CAPS, fault=fault)
        return refused

    def mark_sent(self, number: int, fault: int | None = None) -> None:
        self.user.run(buying.mark_sent, PROVIDER, oid(number), fault=fault)

    def open_order(self, number: int, fault: int | None = None) -> Refused | None:
        """The order arrives, if it was sent."""
        bought = trade.get_order(self.user.conn, "user", PROVIDER, oid(number))
        if bought is None or bought.sent_at is None or bought.bill != "held":
            return Refused("unknown")
        order = OrderRow(peer=ACCOUNT, id=oid(number), model=MODEL, hold=bought.hold)
        refused: Refused | None = self.provider.run(
            selling.open_order, order, limit=LIMIT, grace_ms=10**9, fault=fault
        )
        return refused

    def claim(self, number: int, fault: int | None = None) -> bool:
        claimed: bool = self.provider.run(
            trade.move, "provider", ACCOUNT, oid(number), ["pending"], "claimed", fault=fault
        )
        return claimed

    def process(self, number: int, fault: int | None = None) -> None:
        self.provider.run(
            trade.move, "provider", ACCOUNT, oid(number), ["claimed"], "processing", fault=fault
        )

    def requeue(self, number: int, fault: int | None = None) -> bool:
        """Its engine is lost."""
        requeued: bool = self.provider.run(selling.requeue, ACCOUNT, oid(number), fault=fault)
        return requeued

    def end(self, number: int, charge: int = 700, fault: int | None = None) -> None:
        sold = trade.get_order(self.provider.conn, "provider", ACCOUNT, oid(number))
        charge = min(charge, sold.hold) if sold else 0
        self.provider.run(selling.end_order, ACCOUNT, oid(number), "completed", COUNTS, charge, fault=fault)

    def count(self, number: int, charge: int = 700, fault: int | None = None) -> None:
        self.user.run(buying.count_order, PROVIDER, oid(number), "completed", COUNTS, charge, fault=fault)

    def bill(self, number: int, fault: int | None = None) -> ReceiptRow | Refused:
        """The user asks for the receipt."""
        receipt: ReceiptRow | Refused = self.provider.run(
            selling.issue_receipt, ACCOUNT, oid(number), receipt_bytes, fault=fault
        )
        if isinstance(receipt, ReceiptRow):
            assert self.given.setdefault(receipt.tab_seq, receipt.receipt) == receipt.receipt
        return receipt

    def sign(self, receipt: ReceiptRow, fault: int | None = None) -> ReceiptRow | Refused:
        """The user signs it for no more than it holds; one that it does not know, for nothing."""
        bought = trade.get_order(self.user.conn, "user", PROVIDER, receipt.order_id)
        if bought is None:
            order = OrderRow(peer=PROVIDER, id=receipt.order_id, model=MODEL)
            self.user.run(buying.open_hold, order, Caps())
            bought = trade.get_order(self.user.conn, "user", PROVIDER, receipt.order_id)
        assert bought is not None
        signed: ReceiptRow | Refused = self.user.run(
            buying.sign_receipt, PROVIDER, receipt.order_id, seq=receipt.tab_seq, receipt=receipt.receipt,
            countersign=b"countersign to " + receipt.receipt, billed=COUNTS, charge=receipt.charge,
            accepted=min(receipt.charge, bought.held), fault=fault,
        )  # fmt: skip
        return signed

    def accept(self, signed: ReceiptRow, fault: int | None = None) -> ReceiptRow | Refused:
        """The countersign arrives; the provider takes none that names another receipt."""
        kept = trade.get_receipt(self.provider.conn, "provider", ACCOUNT, signed.order_id)
        if kept is None or kept.receipt != signed.receipt:
            return Refused("unknown")
        assert signed.countersign is not None and signed.accepted is not None
        accepted: ReceiptRow | Refused = self.provider.run(
            selling.accept_countersign, ACCOUNT, signed.order_id, countersign=signed.countersign,
            counted=COUNTS, accepted=signed.accepted, fault=fault,
        )  # fmt: skip
        return accepted

    def acknowledge(self, number: int, fault: int | None = None) -> None:
        self.user.run(buying.acknowledge, PROVIDER, oid(number), fault=fault)

    def settle(self, amount: int, fault: int | None = None, user_fault: int | None = None) -> None:
        """Both persons agree; the creditor first."""
        theirs = tabs.get_tab(self.provider.conn, "provider", ACCOUNT)
        if tabs.get_tab(self.user.conn, "user", PROVIDER).owed != theirs.owed:
            return  # what the user signs says what it owes before: it is about no state of the other book
        seq = theirs.seq + 1
        key = str(seq)
        refused = self.provider.run(
            tabs.settle, key, "provider", ACCOUNT, amount, "", b"", seq=seq, fault=fault
        )
        if refused is None:
            with_proof = (key, "user", PROVIDER, amount, "", b"")
            try:
                self.user.run(tabs.settle, *with_proof, seq=seq, fault=user_fault)
            except Crash:
                self.user.run(tabs.settle, *with_proof, seq=seq)

    def sync(self) -> None:
        """Each tells its highest state; after it the two tabs are one."""
        for _ in range(2):
            mine = tabs.get_tab(self.provider.conn, "provider", ACCOUNT)
            theirs = tabs.get_tab(self.user.conn, "user", PROVIDER)
            self.provider.run(tabs.adopt_state, "provider", ACCOUNT, theirs.signed_seq, theirs.owed)
            self.user.run(tabs.adopt_state, "user", PROVIDER, mine.signed_seq, mine.owed)

    def take_up(self) -> None:
        """What both do whenever they have a session again, until nothing is open."""
        for order in trade.unsettled(self.user.conn, "user"):
            if order.bill == "signed":
                signed = trade.get_receipt(self.user.conn, "user", PROVIDER, order.id)
                assert signed is not None
                self.accept(signed)
                self.user.run(buying.acknowledge, PROVIDER, order.id)
        for _ in range(100):
            due = selling.due(self.provider.conn, ACCOUNT)
            ask = [due.receipt.order_id] if due.receipt else list(due.waiting[:1])
            ask += [order.id for order in trade.unsettled(self.user.conn, "user")]
            if not ask:
                return
            number = int.from_bytes(ask[0], "big")
            receipt = self.bill(number)
            if receipt == Refused("running"):
                self.end(number)
                continue
            if receipt == Refused("unknown"):
                self.user.run(buying.release, PROVIDER, ask[0])
                continue
            assert isinstance(receipt, ReceiptRow), receipt
            signed_now = self.sign(receipt)
            assert isinstance(signed_now, ReceiptRow), signed_now
            assert isinstance(self.accept(signed_now), ReceiptRow)
            self.acknowledge(number)
        raise AssertionError("it does not come to an end")

    def books(self) -> tuple[int, int]:
        return (
            tabs.get_tab(self.user.conn, "user", PROVIDER).owed,
            tabs.get_tab(self.provider.conn, "provider", ACCOUNT).owed,
        )

    def check(self) -> None:
        assert ledger.check(self.user.conn) == []
        assert ledger.check(self.provider.conn) == []


def oid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def receipt_bytes(order: OrderRow, seq: int, owed: int) -> bytes:
    return f"{order.id.hex()} {seq} {owed} {order.charge}".encode()


class Faulty(Protocol):
    def __call__(self, between: Trade, fault: int | None) -> object: ...


def _bill(between: Trade, fault: int | None) -> object:
    return between.bill(1, fault)


def _sign(between: Trade, fault: int | None) -> object:
    receipt = between.bill(1)
    assert isinstance(receipt, ReceiptRow)
    return between.sign(receipt, fault)


def _accept(between: Trade, fault: int | None) -> object:
    signed = trade.get_receipt(between.user.conn, "user", PROVIDER, oid(1))
    assert signed is not None
    return between.accept(signed, fault)


STEPS: dict[str, Faulty] = {
    "user holds": lambda between, fault: between.open_hold(1, fault=fault),
    "user is about to send": lambda between, fault: between.mark_sent(1, fault),
    "provider takes the order": lambda between, fault: between.open_order(1, fault),
    "provider claims it": lambda between, fault: between.claim(1, fault),
    "provider begins": lambda between, fault: between.process(1, fault),
    "provider takes its slot away": lambda between, fault: between.requeue(1, fault),
    "provider claims it again": lambda between, fault: between.claim(1, fault),
    "provider begins again": lambda between, fault: between.process(1, fault),
    "provider ends": lambda between, fault: between.end(1, fault=fault),
    "user counts": lambda between, fault: between.count(1, fault=fault),
    "provider issues the receipt": _bill,
    "user signs and posts": _sign,
    "provider accepts and posts": _accept,
    "user hears that it is accepted": lambda between, fault: between.acknowledge(1, fault),
}
"""The life of an order. A program can end before each, within each before every statement, and after it."""

PAID_FROM = "provider ends"
"""Once this is done, no crash makes the order free; before it, none makes it cost anything."""


@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_statement_of_any_step(step: str, template: Path, tmp_path: Path) -> None:
    names = list(STEPS)
    for fault in range(100):
        folder = tmp_path / str(fault)
        between = Trade(template, folder)
        for before in names[: names.index(step)]:
            STEPS[before](between, None)
        try:
            STEPS[step](between, fault)
        except Crash:
            pass
        crashed = between.user.crashes + between.provider.crashes == 1
        between.take_up()
        between.check()
        paid = names.index(step) > names.index(PAID_FROM)
        if crashed:
            assert between.books() == ((700, 700) if paid else (0, 0))
        spent = ledger.balance(between.user.conn, "spent")
        assert spent == -ledger.balance(between.provider.conn, "earned") == between.books()[0]
        assert buying.spent_since(between.user.conn, 0).held == 0
        assert tabs.get_tab(between.provider.conn, "provider", ACCOUNT).held == 0
        between.close()
        shutil.rmtree(folder)
        if not crashed:
            assert fault >= 2  # BEGIN, and one that writes
            return
    raise AssertionError(f"{step} never ends")


@pytest.mark.parametrize("gone", ["user", "provider"])
@pytest.mark.parametrize("step", STEPS)
def test_either_side_is_killed_after_any_step(step: str, gone: str, template: Path, tmp_path: Path) -> None:
    """What it was about to say is lost."""
    names = list(STEPS)
    between = Trade(template, tmp_path / "both")
    for done in names[: names.index(step) + 1]:
        STEPS[done](between, None)
    node = between.user if gone == "user" else between.provider
    with pytest.raises(Crash):
        node.run(lambda conn: conn.execute("SELECT 1"), fault=0)
    # The other one goes on by itself.
    if gone == "user":
        between.end(1)
    else:
        between.count(1)
    between.take_up()
    between.check()
    user, provider = between.books()
    assert user == provider == ledger.balance(between.user.conn, "spent")
    arrived = names.index(step) >= names.index("provider takes the order")
    ended = names.index(step) >= names.index(PAID_FROM)
    assert user == (700 if (arrived if gone == "user" else ended) else 0)
    between.close()


class AnySequence(RuleBasedStateMachine):
    """Σ debits = Σ credits, one claim, caps and limits kept, no number twice, both books equal at the end."""

    template: Path
    numbers = st.integers(0, 5)
    faults = st.none() | st.integers(0, 14)
    amounts = st.integers(0, 1500)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.between = Trade(self.template, Path(self.folder.name))
        self.claims: dict[int, int] = {}
        self.requeues: dict[int, int] = {}
        self.receipts: list[ReceiptRow] = []
        self.countersigns: list[ReceiptRow] = []
        self.lossy = False

    def attempt(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except Crash:
            return None

    @rule(number=numbers, hold=amounts, fault=faults)
    def hold(self, number: int, hold: int, fault: int | None) -> None:
        try:
            self.attempt(lambda: self.between.open_hold(number, hold, fault))
        except StoreError as error:
            assert error.code == "exists"

    @rule(number=numbers, fault=faults)
    def send(self, number: int, fault: int | None) -> None:
        self.attempt(lambda: self.between.mark_sent(number, fault))

    @rule(number=numbers, fault=faults)
    def arrive(self, number: int, fault: int | None) -> None:
        try:
            self.attempt(lambda: self.between.open_order(number, fault))
        except StoreError as error:
            assert error.code == "exists"

    @rule(number=numbers, fault=faults)
    def claim(self, number: int, fault: int | None) -> None:
        if self.attempt(lambda: self.between.claim(number, fault)):
            self.claims[number] = self.claims.get(number, 0) + 1
            assert self.claims[number] <= 1 + self.requeues.get(number, 0) or self.lossy

    @rule(number=numbers, fault=faults)
    def requeue(self, number: int, fault: int | None) -> None:
        if self.attempt(lambda: self.between.requeue(number, fault)):
            self.requeues[number] = self.requeues.get(number, 0) + 1
            assert self.requeues[number] == 1 or self.lossy

    @rule(number=numbers, fault=faults)
    def process(self, number: int, fault: int | None) -> None:
        self.attempt(lambda: self.between.process(number, fault))

    @rule(number=numbers, charge=amounts, fault=faults)
    def end(self, number: int, charge: int, fault: int | None) -> None:
        self.attempt(lambda: self.between.end(number, charge, fault))

    @rule(number=numbers, charge=amounts, fault=faults)
    def count(self, number: int, charge: int, fault: int | None) -> None:
        self.attempt(lambda: self.between.count(number, charge, fault))

    @rule(number=numbers, fault=faults)
    def bill(self, number: int, fault: int | None) -> None:
        receipt = self.attempt(lambda: self.between.bill(number, fault))
        if isinstance(receipt, ReceiptRow):
            self.receipts.append(receipt)

    @rule(which=st.integers(0), fault=faults)
    def sign(self, which: int, fault: int | None) -> None:
        """Any receipt that ever was under way, again and in any order."""
        if self.receipts:
            receipt = self.receipts[which % len(self.receipts)]
            signed = self.attempt(lambda: self.between.sign(receipt, fault))
            if isinstance(signed, ReceiptRow):
                self.countersigns.append(signed)

    @rule(which=st.integers(0), fault=faults)
    def accept(self, which: int, fault: int | None) -> None:
        if self.countersigns:
            signed = self.countersigns[which % len(self.countersigns)]
            accepted = self.attempt(lambda: self.between.accept(signed, fault))
            if isinstance(accepted, ReceiptRow):
                self.attempt(lambda: self.between.acknowledge(int.from_bytes(signed.order_id, "big"), fault))

    @rule(amount=st.integers(1, 500), fault=faults, user_fault=faults)
    def settle(self, amount: int, fault: int | None, user_fault: int | None) -> None:
        self.attempt(lambda: self.between.settle(amount, fault, user_fault))

    @rule()
    def take_up(self) -> None:
        self.between.sync()
        self.between.take_up()
        user, provider = self.between.books()
        assert user == provider

    @rule(provider=st.booleans())
    def back_up(self, provider: bool) -> None:
        (self.between.provider if provider else self.between.user).back_up()

    @rule(provider=st.booleans())
    def restore(self, provider: bool) -> None:
        if (self.between.provider if provider else self.between.user).restore():
            self.lossy = True

    @invariant()
    def the_books_are_whole(self) -> None:
        self.between.check()

    @invariant()
    def nothing_is_over_a_cap_or_a_limit(self) -> None:
        user, provider = self.between.user.conn, self.between.provider.conn
        day = buying.spent_since(user, 0)
        assert CAPS.day is not None and CAPS.chat is not None
        assert day.spent + day.held <= CAPS.day
        for chat in ("chat 0", "chat 1"):
            spent = buying.spent_in_chat(user, chat)
            assert spent.spent + spent.held <= CAPS.chat
        if not self.lossy:
            for tab in (tabs.get_tab(user, "user", PROVIDER), tabs.get_tab(provider, "provider", ACCOUNT)):
                assert tab.owed + tab.held <= LIMIT

    def teardown(self) -> None:
        try:
            self.take_up()
            self.between.check()
        finally:
            self.between.close()
            self.folder.cleanup()


def test_any_sequence_of_steps_and_crashes(template: Path) -> None:
    class Sequence(AnySequence):
        pass

    Sequence.template = template
    run_state_machine_as_test(
        Sequence, settings=settings(max_examples=20, stateful_step_count=30, deadline=None)
    )
