"""What Node's events say of the answers that are running: for the status bar and the marks in the list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from infraxa.app.answering import Waits
from infraxa.app.events import (
    AnswerEnded,
    AnswerGrew,
    AnswerMoved,
    AnswerStarted,
    AnswerWaits,
    Event,
    PromptRead,
)
from infraxa.app.tui.widgets.facts import with_part
from infraxa.store.records import DriverPart


@dataclass
class Progress:
    """One running answer."""

    message_id: str
    prompt_read: tuple[int, int] | None = None
    n_out: int = 0
    first_at: float | None = None
    """When its first token came."""
    last_at: float = 0.0
    first_n: int = 0
    """How many tokens came with the first ones."""
    waits: Waits | None = None
    """What its driver is waited for, while nothing comes."""
    parts: list[DriverPart] = field(default_factory=list)
    """Who wrote it so far, when that was told."""

    @property
    def rate(self) -> float | None:
        """Tokens per second since the first; None until there is something to divide."""
        if self.first_at is None or self.last_at <= self.first_at or self.n_out <= self.first_n:
            return None
        return (self.n_out - self.first_n) / (self.last_at - self.first_at)


class RunningAnswers:
    """The running answers by chat."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.by_chat: dict[str, Progress] = {}

    def take(self, event: Event) -> None:
        """Note what an event says."""
        match event:
            case AnswerStarted():
                self.by_chat[event.chat_id] = Progress(event.message.id)
            case PromptRead():
                if progress := self.by_chat.get(event.chat_id):
                    progress.prompt_read, progress.waits = (event.done, event.total), None
            case AnswerWaits():
                if progress := self.by_chat.get(event.chat_id):
                    progress.waits = event.waits
            case AnswerMoved():
                if progress := self.by_chat.get(event.chat_id):
                    progress.parts = with_part(progress.parts, event.part)
            case AnswerGrew():
                if progress := self.by_chat.get(event.chat_id):
                    progress.n_out, progress.waits = event.n_out, None
                    progress.last_at = self._clock()
                    if progress.first_at is None:
                        progress.first_at, progress.first_n = progress.last_at, event.n_out
            case AnswerEnded():
                self.by_chat.pop(event.chat_id, None)
            case _:
                return

    def __contains__(self, chat_id: str | None) -> bool:
        return chat_id in self.by_chat

    def __len__(self) -> int:
        return len(self.by_chat)
