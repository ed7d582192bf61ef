"""The terminal app: opens the node after the first paint, passes its events on, and ends in order.

What a person sees is in `screens/`, what they can do in `actions.py`. Nothing heavy is imported here: the
first frame is drawn before the store, the engine or any view but the chat is loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ScreenStackError
from textual.binding import Binding, BindingType
from textual.command import CommandPalette, Provider
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.signal import Signal
from textual.widgets import Input, TextArea
from textual.worker import Worker

from infraxa.app.config import Settings
from infraxa.app.errors import FAILURES, NodeError, sentence
from infraxa.app.events import Event, GatewayChanged, LogLine, SettingsChanged
from infraxa.app.folders import Folders
from infraxa.app.gateway.values import GatewayStatus
from infraxa.app.tui import actions
from infraxa.app.tui.log_book import FILE_NAME, LogBook
from infraxa.app.tui.provider_mode import ProviderMode
from infraxa.app.tui.pulls import Pulls
from infraxa.app.tui.screens.chat import ChatScreen
from infraxa.app.tui.terminal import give_up, keep_title, line_modes, restore_title, set_title, unusable
from infraxa.app.tui.theming import Themed
from infraxa.engine.types import EngineError
from infraxa.net.errors import NetError
from infraxa.net.identity import display
from infraxa.net.status import SeenNode
from infraxa.store.records import StoreError

if TYPE_CHECKING:
    from infraxa.app.control.client import AttachedNode
    from infraxa.app.facade import NodeFacade

_log = logging.getLogger(__name__)

CLOSE_LIMIT = 10.0
"""Seconds in which the app has ended after it was asked to, whatever hangs. Closing takes half a second, and
two on a machine with ten times as much to do as it can."""
HANGS = (
    f"infraxa: closing took more than {CLOSE_LIMIT:.0f} s, so it was ended as it was. Chats are kept up to "
    "here; other nodes were not told that this one leaves."
)
QUIT_AGAIN = 2.0
"""Seconds in which a second ctrl+c quits."""

WIDTHS = [(0, "-too-narrow"), (32, "-narrow"), (100, "-medium"), (120, "-wide")]
HEIGHTS = [(0, "-too-low"), (8, "-short"), (16, "-tall")]
"""From how many cells on a screen has which class."""


_FROM_VIEWS = {
    "models", "settings", "log", "help", "themes", "chat", "market", "network", "next_view", "invite", "join",
    "provide", "toggle_provider", "earnings", "pull_model",
}  # fmt: skip
"""Actions for which an open view gives way."""


def _palette() -> type[Provider]:
    from infraxa.app.tui.palette import Everything

    return Everything


def _network() -> Screen[None]:
    from infraxa.app.tui.screens.network import NetworkScreen

    return NetworkScreen()


def _provide() -> Screen[None]:
    from infraxa.app.tui.screens.provide import ProvideScreen

    return ProvideScreen()


def _earnings() -> Screen[None]:
    from infraxa.app.tui.screens.earnings import EarningsScreen

    return EarningsScreen()


def _market() -> Screen[None]:
    from infraxa.app.tui.screens.market import MarketScreen

    return MarketScreen()


class InfraxaApp(Themed):
    """infraxa in a terminal."""

    TITLE = "infraxa"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    SCREENS: ClassVar[dict[str, Callable[[], Screen[Any]]]] = {
        "market": _market,
        "provide": _provide,
        "earnings": _earnings,
        "network": _network,
    }
    """The full-screen views besides the chat; each is made when it is first shown, and kept."""
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_palette}
    BINDINGS: ClassVar[list[BindingType]] = [
        *actions.bindings("app"),
        Binding("ctrl+c,super+c", "copy_or_quit", "Copy, or quit", show=False, priority=True, id="app.copy"),
    ]
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS
    PAUSE_GC_ON_SCROLL = True
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        settings: Settings,
        folders: Folders,
        *,
        open_node: Callable[[Settings, Folders], Awaitable[NodeFacade]] | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        """`open_node` gives an own node, not yet started, for when nobody else has the folder; `clock` is the
        time of day in seconds."""
        super().__init__(settings.theme, folders.themes)
        self._settings = settings
        self.folders = folders
        self.clock = clock
        self.log_book = LogBook(clock)
        self.told: Signal[Event] = Signal(self, "told")
        """What Node says, for the screens."""
        self.provider_mode = ProviderMode(self)
        self.pulls = Pulls(self)
        self._open_node = open_node or _import_node
        self._node: NodeFacade | None = None
        self._opening: NodeFacade | None = None
        self.lost = ""
        """Which process that had the node has ended; empty at the start."""
        self.problem = ""
        """Why there is no node, when it has been given up to open one."""
        self._ending = False
        self._deaf: Callable[[], None] = _nothing_to_end
        """Ends the subscription to the node."""
        self._limit: threading.Timer | None = None
        """Ends the process when closing hangs."""
        self._line_modes = line_modes()
        """Of the terminal, as they were."""
        self.last_words = ""
        """A line for standard error once the terminal is restored."""
        self._interrupted_at = 0.0
        self._not_begun: list[tuple[str, Awaitable[object]]] = []
        """What `attempt` was given and its worker has not begun, with the group."""
        if settings.reduced_motion or os.environ.get("SSH_CONNECTION"):
            self.animation_level = "none"

    # What the screens use of it.

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._node.settings if self._node is not None else self._settings

    @property
    def opened(self) -> bool:
        """Whether the store is open, so that chats can be read and written."""
        return self._node is not None

    @property
    def attached_to(self) -> int | None:
        """The process whose node this is, when it is another one."""
        return getattr(self._node, "pid", None)

    @property
    def node(self) -> NodeFacade:
        """The node. Only when `opened`."""
        if self._node is None:
            raise NodeError("closed", "infraxa is still opening.", "Try again in a moment.")
        return self._node

    def get_default_screen(self) -> ChatScreen:
        # With the classes of its size from the start: the first frame is laid out once, and right.
        width, height = self.size
        sizes = ((width, WIDTHS), (height, HEIGHTS))
        names = [[name for least, name in points if cells >= least][-1] for cells, points in sizes]
        return ChatScreen(classes=" ".join(names))

    @property
    def chat_screen(self) -> ChatScreen:
        """The chat view, which is always there, under whatever is open."""
        screen = self.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    def attempt(
        self,
        work: Awaitable[object],
        *,
        group: str = "attempt",
        exclusive: bool = False,
        screen: Screen[Any] | None = None,
    ) -> None:
        """Do `work` in the background; what a person can be told of its failure, they are."""

        if exclusive:
            self._give_up(group)
        self._not_begun.append((group, work))

        async def guarded() -> None:
            self._not_begun.remove((group, work))
            try:
                with self._while_running():
                    await work
            except FAILURES as error:
                if self.is_running:
                    self.complain(error)
            except OSError as error:
                self.complain(NodeError("io", f"{error.filename or 'A file'}: {error.strerror or error}."))

        _: Worker[None] = (screen or self).run_worker(guarded, group=group, exclusive=exclusive)

    def _give_up(self, group: str | None = None) -> None:
        """Close what was cancelled before it began: Python complains of it on the terminal otherwise."""
        for pair in [pair for pair in self._not_begun if group in (None, pair[0])]:
            self._not_begun.remove(pair)
            if isinstance(pair[1], Coroutine):
                pair[1].close()

    def complain(self, error: NodeError | EngineError | NetError | StoreError) -> None:
        """Show what went wrong and what helps."""
        text = sentence(error)
        self.log_book.add("infraxa", text)
        self.notify(text, severity="error", timeout=10, markup=False)

    # Opening and closing.

    def on_mount(self) -> None:
        self.log_book.on_line = self._log_line
        self._watch_signals()
        for problem in sorted(self.theme_problems):
            self.warn(problem)

    def on_app_focus(self) -> None:
        """In a browser the app has no focus at first, so that nothing in it has got one."""
        self.call_later(self._focus_first)

    def _focus_first(self) -> None:
        if self.screen.focused is None and (first := self.screen.AUTO_FOCUS):
            self.screen.focus_next(first)

    def begin(self) -> None:
        """Open the node; called once the first frame is on the screen."""
        if not gc.isenabled():  # off since the start
            # What was made up to here stays: to look through it would stop the app for two frames each time.
            gc.freeze()
            gc.enable()
        self.run_worker(self._begin(), group="open", name="open the node")

    async def _begin(self) -> None:
        self.log_book.open(self.folders.log)
        try:
            with self._while_running():
                node, _ = await asyncio.gather(self._open(), self.chat_screen.mount_conversation())
                await self._opened(node)
        except FAILURES as error:
            self.last_words = f"infraxa: {sentence(error)}"
            self.exit(return_code=1)

    async def _open(self, *, after_another: bool = False) -> NodeFacade:
        """A node of this process, or that of the one which has the folder, which may be ending."""
        await asyncio.to_thread(_import_opening)  # takes long
        from infraxa.app.control import opening
        from infraxa.app.control.client import AttachedNode

        return await opening.open_node(
            self.folders.data,
            lambda: self._open_node(self._settings, self.folders),
            lambda: AttachedNode(self._settings, self.folders),
            self._use,
            limit=opening.LEAVING_LIMIT if after_another else opening.COMING_LIMIT,
        )

    def _use(self, node: NodeFacade) -> None:
        """Listen to this one from now on, and end it with the app."""
        if self._ending:
            raise NodeError("closed", "infraxa is ending.")
        self._deaf()
        self._opening, self._deaf = node, node.subscribe(self._hear)

    async def _opened(self, node: NodeFacade) -> None:
        """Show what the node has, and take its place when its process ends."""
        own, self._settings = self._settings, node.settings
        self._node = node
        if (attached := _as_attached(node)) is not None:
            self.run_worker(self._stay_attached(attached), group="attached", name="stay attached")
            self._say_what_is_shared(own, attached)
        try:
            await self.chat_screen.node_opened()
        except NodeError:
            if attached is None or not attached.gone.is_set():
                raise  # else the next node is being opened

    def _say_what_is_shared(self, own: Settings, node: AttachedNode) -> None:
        """Settings that were given for this terminal, but are those of the process that has the node."""
        names = [name for name in own.__struct_fields__ if getattr(own, name) != getattr(node.settings, name)]
        if names:
            self.warn(
                f"Attached to the infraxa that is open (pid {node.pid}): its {', '.join(names)} "
                f"{'is' if len(names) == 1 else 'are'} used, not what was given here."
            )

    async def _stay_attached(self, node: AttachedNode) -> None:
        """Until the other process ends; then open the folder again."""
        await node.gone.wait()
        if self._node is not node:
            return
        self._settings, self._node = node.settings, None
        self.lost = f"infraxa (pid {node.pid}) has ended"
        self.chat_screen.node_lost()
        await node.close()
        await self._open_again()

    async def _open_again(self) -> None:
        self.problem = ""
        self.chat_screen.node_lost()
        try:
            with self._while_running():
                await self._opened(await self._open(after_another=True))
                now = "this one goes on" if self.attached_to is None else f"pid {self.attached_to} goes on"
                self.notify(f"{self.lost}: {now}.", markup=False)
        except FAILURES as error:
            if self.is_running:
                self.problem = sentence(error)
                self.complain(error)
                self.chat_screen.node_lost()

    def action_reopen(self) -> None:
        """Try again to get a node."""
        self.run_worker(self._open_again(), group="open", name="open the node again")

    @contextlib.contextmanager
    def _while_running(self) -> Iterator[None]:
        """What is done here ends without a word when the app ends meanwhile and its widgets go away."""
        try:
            yield
        except (NoMatches, ScreenStackError):
            # The screen goes before the app does.
            if self.is_running and self.screen_stack and self.screen_stack[0].is_running:
                raise

    def _hear(self, event: Event) -> None:
        if isinstance(event, LogLine):
            self.log_book.add(event.source, event.text)
            return
        if not self.is_running:
            return  # the app ends: its widgets go away one after the other
        try:
            if isinstance(event, SettingsChanged) and self.opened:
                self._apply(event.name)
            elif isinstance(event, GatewayChanged) and self.opened:
                self._gateway_changed(event.status)
            self.chat_screen.hear(event)
            self.provider_mode.hear(event)
        except Exception as error:  # a defect of the screen must not end an answer: Node is calling
            self._handle_exception(error)
        self.told.publish(event)

    def _gateway_changed(self, status: GatewayStatus) -> None:
        self.chat_screen.role_changed()
        if status.error is not None:
            text = sentence(status.error)
            self.notify(text, severity="error", timeout=10, markup=False)
        elif status.address:
            key = "that was given" if status.has_given_key else "infraxa gateway key"
            self.notify(f"{status.address}/v1 · its key: {key}", timeout=8, markup=False)

    def _log_line(self, entry: object) -> None:
        from infraxa.app.tui.log_book import Entry

        if isinstance(entry, Entry):
            self.told.publish(LogLine(entry.source, entry.line))

    async def on_unmount(self) -> None:
        self._give_up()
        await self.close_node()

    async def close_node(self) -> None:
        """End the node: what was said and typed is kept. May be called again."""
        self._ending = True
        node, self._node = self._opening, None
        self._opening = None
        self._deaf()  # the screens are gone before the node has said its last
        self._deaf = _nothing_to_end
        if node is not None:
            await node.close()
        self.log_book.close()

    def _watch_signals(self) -> None:
        if self.is_headless:
            return
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):
            number = getattr(signal, name, None)
            if number is not None:
                try:
                    loop.add_signal_handler(number, self._end_by_signal, number)
                except (NotImplementedError, RuntimeError):  # Windows has no such handlers
                    return

    def _end_by_signal(self, number: int) -> None:
        self.leave(128 + number)

    def leave(self, code: int = 0) -> None:
        """End the app now, in bounded time."""
        if self._limit is None and not self.is_headless:
            self._limit = threading.Timer(CLOSE_LIMIT, give_up, [HANGS, code or 1, self._line_modes])
            self._limit.daemon = True
            self._limit.start()
        self.call_later(self._leave, code)

    def closed_in_time(self) -> None:
        """All is closed: the process need not be ended."""
        if self._limit is not None:
            self._limit.cancel()

    async def _leave(self, code: int) -> None:
        try:
            await self.chat_screen.keep_draft()
        except FAILURES as error:  # such as: another process had the node, and has just ended
            self.last_words = f"infraxa: What you typed is not kept. {sentence(error)}"
        self.exit(return_code=code)

    def _fatal_error(self) -> None:
        """Textual calls this within the handling of an exception that is a defect of ours."""
        error = sys.exception() if sys.version_info >= (3, 12) else sys.exc_info()[1]
        _log.error("the app had to end", exc_info=error)
        self.last_words = (
            f"infraxa: a defect ended the app ({type(error).__name__}); your chats are kept. "
            f"What happened is in {self.folders.log / FILE_NAME}"
        )
        self._close_messages_no_wait()

    # Actions of the whole app.

    def situation(self) -> actions.Situation:
        """What decides which actions are possible."""
        return self.chat_screen.situation()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = actions.BY_METHOD.get(action)
        if known is None or not self.screen_stack:
            return super().check_action(action, parameters)
        if self.screen.is_modal and action in _FROM_VIEWS:
            # A dialog is answered first; a view gives way to another.
            return self.screen.has_class("-view") and known.enabled(self.situation())
        return known.enabled(self.situation())

    async def action_perform(self, action_id: str, argument: str = "") -> None:
        """Do an action of the registry, wherever it was chosen: palette, slash command, click."""
        action = actions.BY_ID.get(action_id)
        if action is None:
            return
        target = self if action.scope == "app" else self.chat_screen
        if not action.enabled(self.situation()):
            self.flash(f"{action.title}: not possible now")
            return
        method: Callable[..., object] = getattr(target, f"action_{action.method}")
        result = method(argument) if argument and action.argument else method()
        if isinstance(result, Awaitable):
            await result

    def flash(self, text: str) -> None:
        """A word in the status bar, for a moment."""
        self.chat_screen.flash(text)

    def _view(self, make: Callable[[], Screen[Any]]) -> None:
        """Open a view over the chat, in the place of another one; the same one again closes it."""
        screen = make()
        same = type(self.screen) is type(screen)
        if self.screen.has_class("-view"):
            self.pop_screen()
            if same:
                return
        self.push_screen(screen)

    def _show(self, name: str) -> None:
        """Show a full-screen view; what is open over it closes. The chat is always there, under all."""
        wanted = self.get_screen(name) if name in self.SCREENS else self.chat_screen
        while self.screen is not wanted and len(self.screen_stack) > 1:
            self.pop_screen()
        if self.screen is not wanted:
            self.push_screen(wanted)

    def action_chat(self) -> None:
        self._show("chat")

    def action_market(self) -> None:
        self._show("market")

    def action_provide(self) -> None:
        self._show("provide")

    def action_toggle_provider(self) -> None:
        self.provider_mode.toggle()

    def action_toggle_gateway(self) -> None:
        is_set = self.settings.gateway
        if self.node.gateway.address and not is_set:
            text = "The gateway was opened by infraxa gateway or infraxa serve: end that command to close it."
            self.notify(text, timeout=8, markup=False)
        else:
            self.attempt(self.node.change_setting("gateway", not is_set), group="gateway")

    def action_earnings(self) -> None:
        self._show("earnings")

    def action_network(self) -> None:
        self._show("network")

    async def action_next_view(self) -> None:
        """The full-screen view after the shown one."""
        names = [actions.BY_ID[action_id].method for action_id in actions.VIEWS]
        shown = [
            name for name in names if name in self.SCREENS and self.get_screen(name) in self.screen_stack
        ]
        at = names.index(shown[0]) if shown else 0
        await self.action_perform(actions.VIEWS[(at + 1) % len(names)])

    def action_invite(self) -> None:
        from infraxa.app.tui.screens.invites import InviteScreen

        self.push_screen(InviteScreen())

    def action_join(self, invite: str = "") -> None:
        from infraxa.app.tui.screens.invites import JoinScreen

        def joined(met: SeenNode | None) -> None:
            if met is not None:
                self.notify(f"Joined: {display(met.name, met.id)} is a peer now.", markup=False)

        self.push_screen(JoinScreen(invite), joined)

    def action_help(self) -> None:
        from infraxa.app.tui.screens.help import HelpScreen

        self._view(HelpScreen)

    def action_models(self) -> None:
        from infraxa.app.tui.screens.models import ModelsScreen

        self._view(ModelsScreen)

    def action_pull_model(self, name: str = "") -> None:
        from infraxa.app.tui.screens.pull import PullScreen

        self._view(lambda: PullScreen(name))

    def action_settings(self) -> None:
        from infraxa.app.tui.screens.settings import SettingsScreen

        self.load_themes()
        self._view(SettingsScreen)

    def action_log(self) -> None:
        from infraxa.app.tui.screens.log import LogScreen

        self._view(LogScreen)

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, CommandPalette):
            self.begin_preview()
            self.push_screen(CommandPalette(placeholder="An action, a theme, a chat or a model…"))

    def action_themes(self, name: str = "") -> None:
        """Pick a theme with a preview, or take the one that is named."""
        self.begin_preview()
        if name:
            self.choose_theme(name)
        elif not isinstance(self.screen, CommandPalette):
            from infraxa.app.tui.palette import Themes

            self.push_screen(CommandPalette([Themes], placeholder="A theme…"))

    async def action_quit(self) -> None:
        """Quit; ask first when an answer is running, here or for another node, or a download."""
        from infraxa.app.tui.screens.dialogs import Confirm

        # Attached, only a download ends with this terminal.
        ending = self._what_would_end() if self.attached_to is None else self.pulls.cut_by_quitting
        if ending and not isinstance(self.screen, Confirm):

            def answered(yes: bool | None) -> None:
                if yes:
                    self.leave()

            self.push_screen(Confirm("Quit?", ending, "Quit", "Stay"), answered)
        else:
            self.leave()

    def _what_would_end(self) -> str:
        """Which answers would be cut by quitting now."""
        own = "An answer is running. What it has said so far is kept." if self.chat_screen.running else ""
        served = self.provider_mode.cut_by_quitting
        return " ".join(part for part in (own, served, self.pulls.cut_by_quitting) if part)

    def action_copy_or_quit(self) -> None:
        """Copy what is selected; without a selection, quit when pressed twice."""
        focused = self.focused
        selected = focused.selected_text if isinstance(focused, TextArea | Input) else ""
        selected = selected or self.screen.get_selected_text() or ""
        if selected:
            self.copy(selected)
            return
        now = monotonic()
        if now - self._interrupted_at <= QUIT_AGAIN:
            self.leave()
            return
        self._interrupted_at = now
        self.flash("press ctrl+c again to quit")

    def copy(self, text: str, what: str = "selection") -> None:
        """Put `text` on the clipboard and say how that went."""
        self.attempt(self.chat_screen.copy_text(text, what), group="copy")

    async def use_model(self, name: str) -> None:
        """Have this model answer from now on, once it is loaded."""
        await self.node.use_model(name)
        self.chat_screen.model_changed()

    def theme_chosen(self, name: str) -> None:
        """Remember the theme that was chosen."""
        if self.opened:
            self.attempt(self.node.change_setting("theme", name))

    def warn(self, text: str) -> None:
        """A line that the person should see, and find again in the log."""
        self.log_book.add("infraxa", text)
        self.notify(text, severity="warning", timeout=10, markup=False)

    def setting_changed(self, name: str) -> None:
        """A setting was saved."""
        self.flash(f"{name.replace('_', ' ')} is saved")

    def _apply(self, name: str) -> None:
        """A setting is another one, here or by another process: what shows it follows."""
        settings = self.settings
        if name == "theme":
            self.theme_changed(settings.theme)
        elif name == "reduced_motion":
            self.animation_level = "none" if settings.reduced_motion else "full"
        elif name == "send_key":
            self.chat_screen.prompt.send_key = settings.send_key
        elif name in ("model", "driver"):
            self.chat_screen.model_changed()

    # The terminal around the app.

    def show_title(self, text: str) -> None:
        """The terminal's title."""
        set_title(self, text)


def _nothing_to_end() -> None:
    """There is no subscription yet."""


def _as_attached(node: NodeFacade) -> AttachedNode | None:
    from infraxa.app.control.client import AttachedNode

    return node if isinstance(node, AttachedNode) else None


def _import_opening() -> None:
    import infraxa.app.control.opening  # noqa: F401


async def _import_node(settings: Settings, folders: Folders) -> NodeFacade:
    """A node, imported off the loop: what it needs takes longer to import than the app."""

    def load() -> Callable[[Settings, Folders], NodeFacade]:
        from infraxa.app.node import Node

        return Node

    return (await asyncio.to_thread(load))(settings, folders)


def run(settings: Settings, folders: Folders) -> int:
    """Show the app until it is quit; the exit code."""
    if problem := unusable():
        print(f'infraxa: {problem} For one answer use: infraxa ask "…"', file=sys.stderr)
        return 1
    app = InfraxaApp(settings, folders)

    async def main() -> None:
        try:
            await app.run_async(mouse=settings.mouse)
        finally:
            await app.close_node()
            app.closed_in_time()

    keep_title()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        return 130
    finally:
        restore_title()
    if app.last_words:
        print(app.last_words, file=sys.stderr)
    return app.return_code or 0
