"""Pulls a model from the hub: a short list of good ones, and any other by its name."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option
from textual.worker import Worker

from infraxa.app import hub, hub_names, hub_words, pulling
from infraxa.app.errors import FAILURES, sentence
from infraxa.app.hub_curated import CURATED, Curated
from infraxa.app.hub_values import PullAsked, PullPlan
from infraxa.app.sizes import size_text
from infraxa.app.tui.screens.dialogs import Confirm
from infraxa.app.tui.screens.view import View
from infraxa.app.tui.widgets.text import one_line
from infraxa.engine.sizing import free_memory

BAR = 32
"""Cells of the bar that shows how much is here."""
NAME = 48
SIZES = 8
"""Cells of a column with a size."""


class PullScreen(View[None]):
    """The list, and below it where another name is typed. A download goes on when this is closed."""

    HEADING = "Pull a model from the hub"
    KEYS = "Enter pulls it · Tab to a name of your own · c cancels · Esc closes"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "cancel", "Cancel", show=False),
    ]
    DEFAULT_CSS = """
    PullScreen OptionList {
        height: 1fr; background: $surface; border: none; padding: 0; scrollbar-size-vertical: 1;
    }
    PullScreen #columns { height: 1; width: 1fr; color: $text-muted; }
    PullScreen #about { height: 1; width: 1fr; color: $text-muted; margin-top: 1; }
    PullScreen #other { height: 1; margin-top: 1; }
    PullScreen #other Input { width: 1fr; background: $panel; border: none; height: 1; padding: 0 1; }
    PullScreen #other Button { margin-left: 2; }
    PullScreen #running { height: 1; margin-top: 1; display: none; }
    PullScreen #running.-shown { display: block; }
    PullScreen #bar { width: 1fr; height: 1; }
    PullScreen #said { height: auto; max-height: 3; width: 1fr; margin-top: 1; }
    PullScreen.-short #about { display: none; }
    PullScreen.-short #other, PullScreen.-short #running, PullScreen.-short #said { margin-top: 0; }
    """

    def __init__(self, wanted: str = "") -> None:
        super().__init__()
        self._wanted = wanted
        self._looking: Worker[None] | None = None
        self._free = free_memory()

    def compose_body(self) -> ComposeResult:
        yield Static(f"{'':<{NAME}}{'download':>{SIZES}}{'memory':>{SIZES}}  license", id="columns")
        yield OptionList(*(Option(_row(one, self._free)) for one in CURATED), markup=False, compact=True)
        yield Static("", id="about", markup=False)
        with Horizontal(id="other"):
            yield Input(self._wanted, placeholder="OWNER/NAME or OWNER/NAME:Q4_K_M", compact=True)
            yield Button("Pull", id="pull", variant="primary", compact=True)
        with Horizontal(id="running"):
            yield Static("", id="bar", markup=False)
            yield Button("Cancel", id="cancel", compact=True)
        yield Static("", id="said", markup=False)

    def on_mount(self) -> None:
        self.app.pulls.changed.subscribe(self, lambda _: self._paint())
        self.query_one(OptionList).focus()
        self._paint()
        if self._wanted:
            self._look_up(self._wanted)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        one = CURATED[event.option_index]
        fits = "fits in" if one.memory <= self._free else "is too large for"
        self.query_one("#about", Static).update(
            f"{one.parameters} · {one.good_for} · {fits} the free memory ({size_text(self._free)})"
        )

    def _paint(self) -> None:
        """Show how the download is."""
        pull = self.app.pulls.running
        self.query_one("#running").set_class(pull is not None, "-shown")
        if pull is not None:
            full = round(pull.share * BAR)
            self.query_one("#bar", Static).update(
                Content.assemble(
                    (f"{pull.share:>4.0%} ", "bold"),
                    ("━" * full, "$text-primary"),
                    ("━" * (BAR - full), "$foreground 15%"),
                    f"  {one_line(pull.name, 40)}",
                )
            )
            self._say(pull.words)
        elif self.app.pulls.ended:
            self._say(self.app.pulls.ended)

    def _say(self, text: str, *, is_problem: bool = False) -> None:
        said = self.query_one("#said", Static)
        said.set_class(is_problem, "problem")
        said.update(one_line(text, 400))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._look_up(CURATED[event.option_index].text)

    @on(Input.Submitted)
    @on(Button.Pressed, "#pull")
    def _typed(self) -> None:
        text = self.query_one(Input).value.strip()
        if text:
            self._look_up(text)
        else:
            self._say("Type the name of a repository: OWNER/NAME.", is_problem=True)
            self.query_one(Input).focus()

    def _look_up(self, text: str) -> None:
        """Ask the hub what would be downloaded, then the person."""
        if self.app.pulls.running is not None:
            # Below the list it would be gone with the next bytes.
            self.app.notify("One model at a time: wait for this one, or cancel it.", severity="warning")
            return

        async def look() -> None:
            try:
                repo, quant = hub_names.parse(text)
                asked = PullAsked(repo, quant, access=await hub.access())
                plan = await pulling.plan(asked, self.app.folders, await self.app.node.list_models())
            except FAILURES as error:
                self._say(sentence(error), is_problem=True)
            else:
                self._ask(asked, plan)
            finally:
                self._looking = None

        self._say(f"Asking the hub about {one_line(text, 100)} · Esc cancels")
        self._looking = self.run_worker(look, group="look up", exclusive=True)

    def _ask(self, asked: PullAsked, plan: PullPlan) -> None:
        def answered(yes: bool | None) -> None:
            if not yes:
                self._say("Nothing was downloaded.")
            elif self.app.pulls.running is None:
                self.app.pulls.start(asked, plan)
                self.query_one(OptionList).focus()

        self._say("")
        size = size_text(plan.missing or plan.size)
        lines = "\n\n".join(one_line(line, 400) for line in hub_words.plan_lines(plan))
        self.app.push_screen(Confirm(f"Download {size}?", lines, "Download"), answered)

    @on(Button.Pressed, "#cancel")
    def action_cancel(self) -> None:
        """End the download; what came is kept."""
        self.app.pulls.cancel()

    def action_close(self) -> None:
        """Cancel what is asked of the hub; else close, and let a download go on."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
            self._say("Cancelled.")
        else:
            self.dismiss(None)


def _row(one: Curated, free: int) -> Content:
    return Content.assemble(
        (f"{one_line(one.text, NAME - 1):<{NAME}}", "bold"),
        f"{size_text(one.size):>{SIZES}}",
        (f"{size_text(one.memory):>{SIZES}}", "" if one.memory <= free else "$text-error"),
        (f"  {one.license}", "$foreground 60%"),
    )
