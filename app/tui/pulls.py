"""The download of a model, wherever in the app the person is: it goes on when its screen is left.

One at a time. What is downloaded, and how, is said by Node; here is who waits for it, and what is painted.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
from textual.signal import Signal
from textual.worker import Worker

from infraxa.app import hub_words
from infraxa.app.errors import FAILURES
from infraxa.app.hub_values import (
    PullAdded,
    PullAsked,
    PullChecked,
    PullChosen,
    PullEvent,
    PullMoved,
    PullPlan,
    PullWaits,
)
from infraxa.app.tui.widgets.text import one_line

if TYPE_CHECKING:
    from infraxa.app.tui.app import InfraxaApp


class Pull(msgspec.Struct, frozen=True):
    """How a download is."""

    name: str
    """What the model will be called."""
    words: str
    share: float = 0.0

    @property
    def short(self) -> str:
        """For the status bar."""
        return f"↓ {one_line(self.name, 24)} {self.share:.0%}"


class Pulls:
    """The app's download."""

    def __init__(self, app: InfraxaApp) -> None:
        self._app = app
        self._worker: Worker[None] | None = None
        self._moved: PullMoved | None = None
        self.running: Pull | None = None
        self.ended = ""
        """How the last one ended."""
        self.changed: Signal[None] = Signal(app, "pull")

    @property
    def cut_by_quitting(self) -> str:
        """What would be cut if the app ended now."""
        if self.running is None:
            return ""
        return f"{one_line(self.running.name, 60)} is being downloaded. What came is kept."

    def start(self, asked: PullAsked, plan: PullPlan) -> None:
        """Download what was planned. Only when none is running."""
        self._moved, self.ended = None, ""
        self._be(Pull(plan.name, "Asking the hub"))
        self._worker = self._app.run_worker(
            self._run(msgspec.structs.replace(asked, quant=plan.files[0].path)), group="pull", name="pull"
        )

    def cancel(self) -> None:
        """End it at once; what came is kept."""
        if self._worker is not None and self.running is not None:
            self._worker.cancel()
            self._end(hub_words.kept(self._moved))

    async def _run(self, asked: PullAsked) -> None:
        try:
            async with contextlib.aclosing(self._app.node.pull_model(asked)) as stream:
                async for event in stream:
                    self._hear(event)
        except asyncio.CancelledError:
            raise
        except FAILURES as error:
            self._end(f"{error.message} {error.remedy}".strip())
            if self._app.is_running:
                self._app.complain(error)

    def _hear(self, event: PullEvent) -> None:
        if self.running is None:
            return  # it was cancelled
        match event:
            case PullChosen():
                self._be(Pull(event.plan.name, "Beginning"))
            case PullMoved():
                self._moved = event
                share = event.done / event.total if event.total else 0.0
                self._be(Pull(self.running.name, hub_words.progress(event), share))
            case PullWaits():
                self._be(Pull(self.running.name, hub_words.waits(event), self.running.share))
            case PullChecked():
                words = (
                    "Checking it" if event.done == event.total else f"Checking: {hub_words.progress(event)}"
                )
                self._be(Pull(self.running.name, words, event.done / event.total))
            case PullAdded():
                name = one_line(event.model.label, 60)
                now = "It answers from now on." if event.is_default else "It is in the list of models."
                self._end(f"{name} is here. {now}")
                self._app.notify(self.ended, markup=False)
                if event.is_default:
                    self._app.chat_screen.model_changed()

    def _end(self, words: str) -> None:
        self.ended = words
        self._be(None)

    def _be(self, pull: Pull | None) -> None:
        self.running = pull
        if self._app.is_running:
            self._app.chat_screen.pull_changed()
            self.changed.publish(None)
