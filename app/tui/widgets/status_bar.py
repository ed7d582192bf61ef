"""The line at the bottom: the model and what it does, this node in the network, the keys that help.

What is waited for is said with its seconds. The bar shows a value, `Status`, and owns no clock but the one
that counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic, time

import msgspec
from textual.content import Content
from textual.events import Click
from textual.reactive import reactive
from textual.style import Style
from textual.timer import Timer
from textual.widget import Widget

from infraxa.app.answering import Waits
from infraxa.app.network_words import activity
from infraxa.app.serving_words import Role
from infraxa.app.tui.actions import BY_ID, HINTS, key_label
from infraxa.app.tui.widgets.facts import speed
from infraxa.app.tui.widgets.text import one_line
from infraxa.engine.types import EngineStatus
from infraxa.net.credits import shown
from infraxa.net.identity import display
from infraxa.net.status import NetworkStatus, Waiting

WIDE = 100
"""Cells of a bar from which what was spent today has room in it."""
SHORT_WAIT = 1.0
"""Seconds of a wait that are not worth a number."""

_SIGNS = {
    "online": ("●", "$text-success"),
    "alone": ("○", "$text-warning"),
    "off": ("○", "$foreground 60%"),
    "blocked": ("✕", "$text-error"),
}


class Status(msgspec.Struct, frozen=True):
    """What the bar shows, besides the engine."""

    engine: EngineStatus = EngineStatus()
    model: str = ""
    """The label of the model that answers here; empty while it is not known."""
    opening: str = ""
    """What must be opened before anything can be sent."""
    problem: str = ""
    """Why there is no node."""
    attached_to: int | None = None
    """The process whose node this is, when it is another one."""
    answering: bool = False
    """The shown chat is being answered."""
    waits: Waits | None = None
    """What its driver is waited for."""
    prompt_read: tuple[int, int] | None = None
    n_out: int = 0
    """Tokens of the answer so far."""
    rate: float | None = None
    """Tokens per second so far."""
    spent_today: int = 0
    """µcr, where a driver on the network that may cost something is used."""
    elsewhere: int = 0
    """Answers that run in other chats."""
    flash: str = ""
    """A word that takes the place of all that for a moment."""
    network: NetworkStatus = NetworkStatus()
    pull: str = ""
    """A model that is being downloaded, and how much of it is here."""
    role: Role = Role()
    """The provider's; every node is a user too."""
    gateway: str = ""
    """Where the gateway is open."""


def waited_for(status: Status) -> str:
    """What is being waited for; empty when nothing is."""
    engine = status.engine
    if status.opening:
        return status.opening
    if engine.state == "restarting":
        return "the model to be back"
    if engine.state in ("starting", "loading"):
        return "the model to load"
    if status.waits is not None:
        return status.waits.what
    if status.answering and not status.n_out:
        return "the first word"
    return ""


def describe(status: Status, seconds: float, now: float, now_ms: int) -> tuple[str, str, str]:
    """Sign, words and their style: what happens now.

    `seconds`: how long it has been waited; `now`: monotonic time, for when the engine tries again; `now_ms`:
    milliseconds since the epoch, for the wait of a driver.
    """
    engine = status.engine
    since = f" · {int(seconds)} s" if seconds >= SHORT_WAIT else ""
    if status.flash:
        return "›", one_line(status.flash, 200), "$text-accent"
    if status.problem:
        return (
            "✕",
            one_line(f"{key_label(BY_ID['app.reopen'].key)} tries again: {status.problem}", 300),
            ("$text-error"),
        )
    if status.opening:
        return "◌", f"{status.opening}{since}", "$foreground 60%"
    if engine.state == "failed":
        return "✕", _reason(engine, "The model cannot answer."), "$text-error"
    if engine.state == "restarting":
        left = max(0, round(engine.retry_at - now)) if engine.retry_at is not None else 0
        when = f"restarting in {left} s" if left else "restarting"
        return "◌", f"{when}: {_reason(engine, 'it ended')}", "$text-warning"
    if engine.state in ("starting", "loading"):
        percent = f" {engine.progress:.0%}" if engine.progress is not None else ""
        return "◌", f"loading{percent}{since}", "$foreground 60%"
    if status.waits is not None:
        return "◌", f"waiting for {waiting_text(status.waits, now_ms)}", "$foreground 60%"
    if status.answering:
        if status.n_out:
            rate = f" · {speed(status.rate)}" if status.rate is not None else ""
            return "●", f"answering{rate} · {status.n_out} token{'s' * (status.n_out != 1)}", "$text-success"
        if status.prompt_read is not None:
            done, total = status.prompt_read
            return "◌", f"reading the prompt {done}/{total}{since}", "$foreground 60%"
        return "◌", f"waiting for the first word{since}", "$foreground 60%"
    if engine.state == "ready":
        other = f"answering in {status.elsewhere} other chat{'s' * (status.elsewhere > 1)}"
        return "●", other if status.elsewhere else "ready", "$text-success"
    return "○", "no model is loaded", "$foreground 60%"


def sign(status: NetworkStatus) -> tuple[str, str]:
    """A sign for what the network does, and its style."""
    return _SIGNS.get(status.activity, ("◌", "$foreground 60%"))


def waiting_text(waiting: Waiting | Waits, now_ms: int) -> str:
    """`looking for peers · 3 s of 10 s`: what is waited for, since when, for how long at most."""
    return f"{one_line(waiting.what, 80)} · {passed_text(waiting, now_ms)}"


def passed_text(waiting: Waiting | Waits, now_ms: int) -> str:
    """`3 s of 10 s`."""
    passed = min(max(0.0, (now_ms - waiting.since_ms) / 1000), waiting.limit_s)
    return f"{int(passed)} s of {waiting.limit_s:.0f} s"


def leads_to(action_id: str) -> Style:
    """A click on it does this action. Not as a link, whose one colour would take the place of the others."""
    return Style.from_meta({"leads_to": action_id})


def network_words(status: NetworkStatus, role: Role, now_ms: int) -> list[Content]:
    """This node in the network: who it is, its roles, its peers or what is waited for.

    The first says all; those after it say less and less, for where there is less room.
    """
    role_words, role_short = role_contents(role, now_ms)
    if status.activity == "off" and not status.id:
        return [words for words in (role_words, role_short) if words]
    mark, style = sign(status)
    if status.waiting is not None:
        short = longest = Content.styled(f"◌ {waiting_text(status.waiting, now_ms)}", "$text-warning")
    else:
        short = longest = Content.assemble((mark, style), f" {activity(status)}")
    if status.notices:
        count = len(status.notices)
        longest = short + Content.styled(f" · {count} notice{'s' * (count != 1)}", "$text-warning")
        short += Content.styled(f" · {count}!", "$text-warning")
    who = Content(display(status.name, status.id) if status.id else "")
    user = Content("user" if status.id else "")
    fuller = [
        (who, user, role_words, longest),
        (who, user, role_words, short),
        (who, role_words, short),
        (who, role_short, short),
        (role_words, short),
        (role_short, short),
        (role_short or short,),
    ]
    return [Content(" · ").join([part for part in parts if part]) for parts in fuller]


def role_contents(role: Role, now_ms: int) -> tuple[Content, Content]:
    """The provider's role, long and short."""
    wait = f" · {passed_text(role.wait, now_ms)}" if role.wait is not None else ""
    words, short = (
        Content.styled(f"{one_line(text, 48)}{wait}", role.style).stylize(leads_to("app.provide"))
        if text
        else Content("")
        for text in (role.words, role.short)
    )
    return words, short


def _reason(engine: EngineStatus, otherwise: str) -> str:
    if engine.error is None:
        return otherwise
    return one_line(f"{engine.error.message} {engine.error.remedy}", 300)


class StatusBar(Widget):
    """One line. This node in it and the hints at its right can be clicked."""

    DEFAULT_CSS = """
    StatusBar {
        height: 1; width: 1fr; background: $panel; color: $foreground; padding: 0 1;
        link-style: none; link-color: $foreground 60%; link-background: transparent;
        link-style-hover: none; link-color-hover: $foreground; link-background-hover: $block-hover-background;
    }
    """

    status: reactive[Status] = reactive(Status, layout=False)

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002 - Textual's name for it
        clock: Callable[[], float] = monotonic,
        time_of_day: Callable[[], float] = time,
        hints: Iterable[str] = HINTS,
    ) -> None:
        """`hints`: ids of actions, the most important first."""
        super().__init__(id=id)
        self._clock = clock
        self._time_of_day = time_of_day
        self._hints = tuple(hints)
        self._waiting = ""
        self._since = 0.0
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self._count(self.status)

    def watch_status(self, status: Status) -> None:
        if self.is_mounted:
            self._count(status)

    def follow(self, other: StatusBar) -> None:
        """Show what `other`, the bar of another screen, shows."""
        self._waiting, self._since = other._waiting, other._since
        self.watch(other, "status", self._take)

    def _take(self, status: Status) -> None:
        self.status = status

    def _count(self, status: Status) -> None:
        """Count the seconds while something is waited for, and only then."""
        waiting = waited_for(status)
        if waiting != self._waiting:
            self._waiting, self._since = waiting, self._clock()
        counting = bool(waiting) or status.network.waiting is not None or status.role.wait is not None
        if counting and self._timer is None:
            self._timer = self.set_interval(1.0, self.refresh)
        elif not counting and self._timer is not None:
            self._timer.stop()
            self._timer = None

    def render(self) -> Content:
        width = self.content_size.width
        left = self._left().truncate(width, ellipsis=True)
        network = self._network(width - left.cell_length - 3)
        if network:
            left += Content("   ") + network
        hints = self._right(width - left.cell_length - 3)
        gap = max(0, width - left.cell_length - hints.cell_length)
        return left + Content(" " * gap) + hints

    def _network(self, width: int) -> Content:
        """As much of this node in the network as has room beside the status."""
        if width < 1:
            return Content("")
        now_ms = int(self._time_of_day() * 1000)
        for words in network_words(self.status.network, self.status.role, now_ms):
            if words.cell_length <= width:
                return words.stylize_before("$foreground 60%").stylize_before(leads_to("app.network"))
        return Content("")

    async def on_click(self, event: Click) -> None:
        if action_id := event.style.meta.get("leads_to"):
            await self.run_action(f"app.perform({action_id!r})")

    def _left(self) -> Content:
        status = self.status
        now = self._clock()
        waited = now - self._since if self._waiting else 0.0
        sign, words, style = describe(status, waited, now, int(self._time_of_day() * 1000))
        model = one_line(status.model, 40)
        parts: list[Content | tuple[str, str]] = [(f"{sign} ", style)]
        # A reason needs the room, and a wait names the driver.
        told = status.flash or status.waits or status.engine.state in ("failed", "restarting")
        if model and not told:
            parts += [(model, "bold"), Content("  ")]
        parts.append((words, style))
        if status.spent_today and not told and self.content_size.width >= WIDE:
            parts.append((f" · today {shown(status.spent_today)} cr", "$foreground 60%"))
        if status.gateway and not told:
            parts.append((f" · API :{status.gateway.rpartition(':')[2]}", "$text-success"))
        if status.pull:
            parts.append(Content.styled(f" · {status.pull}", "$text-accent").stylize(leads_to("app.pull")))
        if status.attached_to is not None:
            parts.append((f" · attached to pid {status.attached_to}", "$foreground 60%"))
        return Content.assemble(*parts)

    def _right(self, width: int) -> Content:
        """As many hints as have room beside the status, which comes first."""
        result = Content("")
        for action_id in self._hints:
            word = HINTS[action_id]
            hint = Content.assemble((key_label(BY_ID[action_id].key), "$footer-key-foreground"), f" {word}")
            hint = hint.stylize(Style.from_meta({"@click": f"app.perform({action_id!r})"}))
            longer = hint if not result else result + Content("  ") + hint
            if longer.cell_length > width:
                break
            result = longer
        return result.stylize_before("$foreground 60%")
