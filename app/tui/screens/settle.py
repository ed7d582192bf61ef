"""Questions about one tab or one receipt of the Earnings view: settling, and a receipt in full."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from infraxa.app.trade import ReceiptSeen, TabSeen
from infraxa.app.tui.screens.dialogs import Dialog
from infraxa.app.tui.widgets import earnings_rows as rows
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.credits import read_credits, shown
from infraxa.net.errors import NetError

PROMISE = "A credit is a promise between two nodes, not money."
NOTE_BYTES = 128
"""Of what is said about a settlement: what fits into it."""

_QUIET = "$foreground 60%"
_VERDICTS = {"passed": "$text-success", "failed": "$text-error"}
"""How what audits found is shown; what was not found out is quiet."""


class Given(NamedTuple):
    """What the person wants to settle."""

    amount: int | None
    """µcr; None: what was proposed."""
    note: str = ""
    declined: bool = False
    """It does not agree to what was proposed."""


class Settle(Dialog[Given]):
    """How much of a tab is settled, and for what; or what is said to a proposal."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
        Binding("d", "decline", "Decline", show=False),
    ]
    DEFAULT_CSS = """
    Settle .label { width: 10; height: 1; color: $foreground 60%; }
    Settle .row { width: 1fr; height: 2; }
    Settle .row Input { width: 1fr; }
    """

    def __init__(self, tab: TabSeen, netted: int) -> None:
        """`netted`: how much of it can be paid by what is owed the other way."""
        super().__init__()
        self._tab, self._netted = tab, netted
        self._who = rows.who(tab)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            if self._agrees:
                yield from self._agreeing()
            elif self._asks_again:
                yield from self._asking_again()
            else:
                yield from self._proposing()

    @property
    def _agrees(self) -> bool:
        """The other one proposed it."""
        return self._tab.role == "provider"

    @property
    def _asks_again(self) -> bool:
        """This side has proposed it."""
        return self._tab.role == "user" and self._tab.settling == "proposed"

    def on_mount(self) -> None:
        if self._agrees:
            # Enter has opened it: pressed twice, it agrees to nothing.
            self.query_one("#cancel", Button).focus()

    def _agreeing(self) -> Iterator[Widget]:
        yield Static(f"Settle what {self._who} owes?", classes="heading", markup=False)
        yield Static(one_line(self._tab.note, 300), classes="said", markup=False)
        yield Static(
            f"It owes {shown(self._tab.owed)}. {PROMISE} Agree if you got what you two agreed on: both "
            "sign it, and it cannot be undone. Decline, and nothing changes: it is told, and can propose "
            "something else.",
            classes="said",
            markup=False,
        )
        with Horizontal(classes="buttons"):
            yield Button("Agree", id="accept", variant="primary", compact=True)
            yield Button("Decline", id="decline", compact=True)
            yield Button("Not now", id="cancel", compact=True)

    def _asking_again(self) -> Iterator[Widget]:
        yield Static(f"Settle what you owe {self._who}?", classes="heading", markup=False)
        yield Static(one_line(self._tab.note, 300), classes="said", markup=False)
        yield Static(
            "Its node is asked again every minute. Until there is an answer nothing else can be proposed.",
            classes="said",
            markup=False,
        )
        yield from self._buttons("Ask now")

    def _proposing(self) -> Iterator[Widget]:
        yield Static(f"Settle what you owe {self._who}?", classes="heading", markup=False)
        yield Static(self._explained(), classes="said", markup=False)
        with Horizontal(classes="row"):
            yield Static("credits", classes="label", markup=False)
            yield Input(shown(self._tab.owed), id="amount", compact=True)
        with Horizontal(classes="row"):
            yield Static("note", classes="label", markup=False)
            yield Input(placeholder="what it gets for it", id="note", max_length=NOTE_BYTES, compact=True)
        yield from self._buttons("Settle" if self._netted else "Propose")
        yield Static("", classes="problem", markup=False)

    def _explained(self) -> Content:
        by_agreement = "is proposed to its person, who agrees if you two have settled it in another way"
        if self._netted >= self._tab.owed:
            how = "It owes you as much, or more: this is paid by that, by serving back."
        elif self._netted:
            how = f"It owes you as well: {shown(self._netted)} is paid by that. What is left {by_agreement}."
        else:
            how = f"If you serve it as well, what it owes you for that pays this tab. Else it {by_agreement}."
        return Content(f"{PROMISE} {how} Both nodes sign, and it cannot be undone.")

    def _buttons(self, accept: str) -> Iterator[Widget]:
        with Horizontal(classes="buttons"):
            yield Button(accept, id="accept", variant="primary", compact=True)
            yield Button("Cancel", id="cancel", compact=True)

    @on(Input.Changed)
    def _changed(self) -> None:
        self._say("")

    @on(Input.Submitted)
    @on(Button.Pressed, "#accept")
    def _accepted(self) -> None:
        if self._agrees or self._asks_again:
            self.dismiss(Given(None))
            return
        note = " ".join(self.query_one("#note", Input).value.split())
        try:
            amount = read_credits(self.query_one("#amount", Input).value)
        except NetError as error:
            self._say(f"{error.message} {error.remedy}")
            return
        if not 0 < amount <= self._tab.owed:
            self._say(f"You owe {shown(self._tab.owed)} credits: settle all of it, or less.")
        elif len(note.encode()) > NOTE_BYTES:
            self._say(f"A note has at most {NOTE_BYTES} bytes.")
        else:
            self.dismiss(Given(amount, note))

    @on(Button.Pressed, "#decline")
    def action_decline(self) -> None:
        """Do not agree to what the other one proposed."""
        if self._agrees:
            self.dismiss(Given(None, declined=True))

    @on(Button.Pressed, "#cancel")
    def _cancelled(self) -> None:
        self.action_leave()

    def _say(self, problem: str) -> None:
        said = self.query_one(".problem", Static)
        said.update(problem)
        said.set_class(bool(problem), "-shown")


class ShowReceipt(Dialog[bool]):
    """All of a receipt; True: it is to be exported."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "export", "Export", show=False),
        Binding("enter", "leave", "Close", show=False),
    ]
    DEFAULT_CSS = """
    ShowReceipt > #dialog { width: 72; }
    """

    def __init__(self, receipt: ReceiptSeen) -> None:
        super().__init__()
        self._receipt = receipt

    def compose(self) -> ComposeResult:
        one = self._receipt
        at = time.strftime("%a %d %b %Y %H:%M:%S", time.localtime(one.at_ms / 1000))
        with Vertical(id="dialog"):
            yield Static(f"Receipt · {rows.way(one)} · {at}", classes="heading", markup=False)
            yield Static(Content("\n").join(receipt_lines(one)), classes="said", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Export", id="export", compact=True)
                yield Button("Close", id="close", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one("#close", Button).focus()

    def action_export(self) -> None:
        self.dismiss(True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "export")


def receipt_lines(one: ReceiptSeen) -> list[Content]:
    """All of a receipt, line by line."""
    user = one.counted or (None, None, None)
    text, style = rows.STATES[one.state]
    table = (
        ("", "driver", "user", "per 1M"),
        ("prompt", _count(one.n_prompt), _count(user[0]), shown(one.price_in)),
        ("cached of it", _count(one.n_cached), _count(user[1]), ""),
        ("answer", _count(one.n_out), _count(user[2]), shown(one.price_out)),
    )
    colour = {".table--good": "$text-success", ".table--warn": "$text-warning"}[style]
    verdict = rows.verdict_of(one)
    return [
        _fact("user" if one.role == "provider" else "driver", rows.peer_name(one.name, one.peer)),
        _fact("", one_line(one.peer, 64), _QUIET),
        _fact("model", one_line(one.model, 50) or "without a name"),
        _fact("order", one_line(one.order, 32)),
        _fact("ended", rows.ending(one)),
        Content(""),
        *(
            Content.assemble((f"{name:<14}", _QUIET), f"{driver:>10}{counted:>10}{price:>14}").stylize(
                "" if at else _QUIET
            )
            for at, (name, driver, counted, price) in enumerate(table)
        ),
        Content(""),
        _fact("charge", f"{shown(one.charge)} credits"),
        _fact("accepted", f"{shown(one.accepted)} credits" if one.state != "due" else "nothing yet"),
        _fact("state", text, colour),
        _fact("", rows.said_of(one), _QUIET),
        *([_fact("verdict", verdict, _VERDICTS.get(one.verdict, _QUIET))] if verdict else ()),
    ]


def _count(number: int | None) -> str:
    return "–" if number is None else thousands(number)


def _fact(name: str, value: str, style: str = "") -> Content:
    return Content.assemble((f"{name:<14}", _QUIET), (value, style))
