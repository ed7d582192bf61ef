"""One order of another node while it is here, and what the reasons for its end mean.

What is done with it is in line.py, turns.py and sales.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from infraxa.app.ends import WHOLE
from infraxa.app.served import Row
from infraxa.app.serving import ServedState
from infraxa.app.sold import End, Sold
from infraxa.app.transcripts import Written
from infraxa.engine.generation import Generation
from infraxa.engine.types import Usage
from infraxa.net.deals import Outcome

ENDED: Final[dict[str, tuple[ServedState, str]]] = {
    "cancelled": ("cancelled", "Its user cancelled it."),
    "gone": ("cancelled", "Its user went away."),
    "stalled": ("failed", "Its user neither sent nor read for too long."),
    "bad": ("failed", "Its user's node did not keep to the protocol."),
}
"""By the reason of a SaleEnded."""
OUTCOMES: Final[dict[str, Outcome]] = {
    "cancelled": "cancelled",
    "gone": "failed",  # nobody knows whose fault it was
    "stalled": "cancelled",
    "bad": "cancelled",
}
"""What a receipt says of it, likewise."""
LEFT: Final[tuple[ServedState, str]] = ("failed", "This node left the network.")


@dataclass(eq=False)
class Taken:
    """One order while it is here."""

    row: Row
    arrived: float
    scope: asyncio.Timeout
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """It has a slot."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Another place in line, or a slot."""
    since: float = 0.0
    """When it got its slot."""
    max_out: int = 0
    """Tokens that its answer may have."""
    sold: Sold | None = None
    """In the ledger."""
    written: Written | None = None
    """What is committed to of its answer; None: nothing is."""
    generation: Generation | None = None
    usage: Usage | None = None
    """When its generation is over."""
    stopped: Exception | None = None
    gone: bool = False
    """Its user was lost."""
    over: bool = False
    again: bool = False
    """The engine was lost once, before anything was sent."""
    alive: asyncio.TimerHandle | asyncio.Task[None] | None = None
    """What tells the user next that its order lives."""
    bytes_counted: int = 0

    def end_of(self, outcome: Outcome) -> End:
        """Its end, with what was delivered."""
        row, usage = self.row, self.usage or Usage()
        n_prompt = max(usage.n_prompt, row.n_prompt) if row.n_out else row.prompt_read
        whole = outcome in WHOLE
        transcript = None if self.written is None else self.written.end(whole=whole)
        return End(outcome, n_prompt, min(usage.n_cached, n_prompt), row.n_out, self.gone, transcript)

    @property
    def steps(self) -> int:
        """Tokens that were sampled of an answer that can be checked."""
        return 0 if self.written is None else self.written.steps

    def sent(self, tokens: int) -> None:
        """No more tokens than these have left, of those that were counted."""
        self.row.n_out = min(self.row.n_out, tokens)

    def begin_again(self, why: str) -> None:
        """Nothing of what was done for it counts any more, and it waits."""
        self.again, self.generation, self.usage = True, None, None
        row = self.row
        row.state, row.reason = "waiting", why
        row.prompt_read = row.n_prompt = 0

    def stop(self, why: Exception) -> None:
        """End it now, wherever it is; does nothing the second time, or after its end."""
        if self.stopped is None and not self.over:
            self.stopped = why
            self.scope.reschedule(0)
