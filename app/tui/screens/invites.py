"""Inviting another node, and joining with an invite: the two ways to meet outside one's own network."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Paste
from textual.widgets import Button, Input, Static
from textual.worker import Worker

from infraxa.app.errors import FAILURES, sentence
from infraxa.app.tui import clipboard
from infraxa.app.tui.screens.dialogs import Dialog
from infraxa.app.tui.widgets.status_bar import waiting_text
from infraxa.app.tui.widgets.text import one_line
from infraxa.net.status import SeenNode, Waiting

if TYPE_CHECKING:
    from infraxa.app.tui.app import InfraxaApp

HOUR, DAY, WEEK = 1, 24, 168
LIFETIMES = {HOUR: "1 hour", DAY: "1 day", WEEK: "7 days"}
"""How long an invite can be used, by its hours."""
INVITE_LIMIT = 10.0
"""Seconds in which an invite is made."""
JOIN_LIMIT = 30.0
"""Seconds after which joining is given up, whatever Node still tries."""
GROUP = 5
"""Characters of an invite that stand together, so that it can be read to somebody."""


def grouped(invite: str) -> str:
    """An invite in groups; an invite may be typed in with or without the gaps."""
    start = len("ix1")
    return " ".join([invite[:start], *(invite[at : at + GROUP] for at in range(start, len(invite), GROUP))])


def until(now: float, hours: int) -> str:
    """`until Sat 28 Nov 10:16, in 7 days`; `now` in seconds since the epoch."""
    return (
        f"until {time.strftime('%a %d %b %H:%M', time.localtime(now + hours * 3600))}, in {LIFETIMES[hours]}"
    )


class InviteScreen(Dialog[None]):
    """Makes an invite, shows it and copies it. Another lifetime makes another one."""

    app: InfraxaApp
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c,y", "copy", "Copy", show=False),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]
    DEFAULT_CSS = """
    InviteScreen > #dialog { width: 78; }
    InviteScreen #invite {
        width: 1fr; height: auto; background: $panel; color: $foreground; text-style: bold; padding: 1 2;
        margin-bottom: 1;
    }
    InviteScreen .buttons { align-horizontal: left; }
    InviteScreen .buttons Button { margin: 0 1 0 0; min-width: 12; }
    InviteScreen .buttons Button.lifetime { min-width: 10; }
    InviteScreen .spring { width: 1fr; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        """The invite; empty until it is made."""
        self._hours = WEEK

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("Invite a node", classes="heading", markup=False)
            yield Static(self._purpose(), classes="said", markup=False)
            yield Static("", id="invite", markup=False)
            yield Static("", classes="said", id="until", markup=False)
            yield Static("", classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Copy", id="copy", variant="primary", compact=True)
                for hours, label in LIFETIMES.items():
                    yield Button(label, id=f"hours-{hours}", classes="lifetime", compact=True)
                yield Static("", classes="spring")
                yield Button("Close", id="close", compact=True)

    def _purpose(self) -> str:
        status = self.app.node.network
        holds = "It holds the addresses of this node"
        if status.network != "public":
            holds += f" and the key of the network {one_line(status.network, 64)}"
        text = f"Send it to whoever is to join; there: /join, or infraxa join INVITE. {holds}."
        if status.reachability not in ("reachable", "relayed"):
            text += (
                " This node is not known to be reached from outside: away from this network it may not work."
            )
        return text

    def on_mount(self) -> None:
        self._make(WEEK)

    def _make(self, hours: int) -> None:
        self._hours = hours
        for each in LIFETIMES:
            mark = "✓ " if each == hours else ""
            self.query_one(f"#hours-{each}", Button).label = f"{mark}{LIFETIMES[each]}"
        self.run_worker(self._making(hours), group="invite", exclusive=True)

    async def _making(self, hours: int) -> None:
        self.text = ""
        problem = self.query_one(".problem", Static)
        problem.set_class(False, "-shown")
        self.query_one("#until", Static).update(f"Making it, for {INVITE_LIMIT:.0f} s at most…")
        try:
            async with asyncio.timeout(INVITE_LIMIT):
                text = await self.app.node.invite(hours)
        except (*FAILURES, TimeoutError) as error:
            said = "It could not be made in time." if isinstance(error, TimeoutError) else sentence(error)
            problem.update(one_line(said, 400))
            problem.set_class(True, "-shown")
            self.query_one("#invite", Static).update("")
            self.query_one("#until", Static).update("")
            return
        self.text = one_line(text, 2000)
        self.query_one("#invite", Static).update(grouped(self.text))
        await self._copy()

    async def _copy(self) -> None:
        """Copy it, and say so beside how long it lasts."""
        copied = await clipboard.copy(self.text, self.app.copy_to_clipboard)
        words = Content.assemble(
            ("✓ copied", "$text-success"),
            f" ({copied.way}) · it can be used {until(self.app.clock(), self._hours)}",
        )
        self.query_one("#until", Static).update(words)

    def action_copy(self) -> None:
        if self.text:
            self.run_worker(self._copy(), group="copy invite", exclusive=True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or ""
        if name == "copy":
            self.action_copy()
        elif name == "close":
            self.action_leave()
        else:
            self._make(int(name.removeprefix("hours-")))


class InviteInput(Input):
    """Takes an invite as it was sent: broken into lines, with gaps."""

    def _on_paste(self, event: Paste) -> None:
        event.stop()
        event.prevent_default()
        self.insert_text_at_cursor(" ".join(event.text.split()))


class JoinScreen(Dialog[SeenNode]):
    """Takes an invite, joins with it and answers with the node it led to. Esc cancels, then closes."""

    app: InfraxaApp
    DEFAULT_CSS = """
    JoinScreen > #dialog { width: 78; }
    JoinScreen #progress { width: 1fr; height: auto; color: $text-muted; margin-top: 1; display: none; }
    JoinScreen #progress.-shown { display: block; }
    """

    def __init__(self, invite: str = "") -> None:
        """With an `invite` it begins at once."""
        super().__init__()
        self._invite = invite
        self._joining: Worker[None] | None = None
        self._waiting = Waiting("", 0, 0)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("Join with an invite", classes="heading", markup=False)
            yield Static(
                "Paste the text that you were sent. It begins with ix1.", classes="said", markup=False
            )
            yield InviteInput(one_line(self._invite, 2000), placeholder="ix1…", compact=True)
            with Horizontal(classes="buttons"):
                yield Button("Join", id="join", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)
            yield Static("", id="progress", markup=False)
            yield Static("", classes="problem", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.set_interval(0.5, self._paint)
        if self._invite:
            self._join()

    @on(Input.Submitted)
    @on(Button.Pressed, "#join")
    def _join(self) -> None:
        invite = self.query_one(Input).value.strip()
        if self._joining is not None:
            return
        if not invite:
            self._say("Paste an invite first. Somebody makes it with /invite or `infraxa invite`.")
            return
        self._waiting = Waiting("joining", int(self.app.clock() * 1000), JOIN_LIMIT)
        self._joining = self.run_worker(self._try(invite), group="join", exclusive=True)
        self._say("")
        self._paint()

    async def _try(self, invite: str) -> None:
        try:
            async with asyncio.timeout(JOIN_LIMIT):
                met = await self.app.node.join(invite)
        except (*FAILURES, TimeoutError) as error:
            self._joining = None
            late = f"Nobody answered within {JOIN_LIMIT:.0f} s. Is the other infraxa running?"
            self._say(late if isinstance(error, TimeoutError) else sentence(error))
            self._paint()
            self.query_one(Input).focus()
            return
        self.dismiss(met)

    def _paint(self) -> None:
        """What is waited for, as Node says it where it does."""
        progress = self.query_one("#progress", Static)
        progress.set_class(self._joining is not None, "-shown")
        if self._joining is not None and self.app.opened:
            waiting = self.app.node.network.waiting or self._waiting
            said = waiting_text(waiting, int(self.app.clock() * 1000))
            progress.update(
                Content.assemble("◌ ", said, "   ", ("Esc", "$footer-key-foreground"), " cancels")
            )

    @on(Input.Changed)
    def _changed(self) -> None:
        self._say("")

    @on(Button.Pressed, "#cancel")
    def _cancelled(self) -> None:
        self.action_leave()

    def _say(self, problem: str) -> None:
        said = self.query_one(".problem", Static)
        said.update(one_line(problem, 400))
        said.set_class(bool(problem), "-shown")

    def action_leave(self) -> None:
        """Give up joining at once; with nothing to give up, close."""
        if self._joining is None:
            self.dismiss(None)
            return
        self._joining.cancel()
        self._joining = None
        self._paint()
        self._say("Cancelled.")
        self.query_one(Input).focus()
