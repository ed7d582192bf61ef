"""Requests as the scheduler sees them, and what it decides for them. How it decides is in scheduler.py; what
is made of it, in batching.py and caches.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from infraxa.engine.prefixes import Parked

OWN = ""
"""Whose requests come before those of all users: what the person of this machine asks."""


class Job:
    """One request between its arrival and its end."""

    __slots__ = (
        "arrived",
        "id",
        "mark",
        "n_cached",
        "n_past",
        "n_prompt",
        "order",
        "queued",
        "slot",
        "source",
        "tokens",
        "user",
    )

    def __init__(self, job_id: int, user: str, prompt: list[int], arrived: float = 0.0) -> None:
        """`arrived`: seconds by any clock that all jobs share."""
        self.id = job_id
        self.user = user
        self.tokens = list(prompt)
        """The prompt, then what was sampled."""
        self.n_prompt = len(prompt)
        self.n_past = 0
        """How many of `tokens` are in the cache."""
        self.n_cached = 0
        self.slot = -1
        self.arrived = arrived
        """When it came; when it got its slot, if it had to wait for one."""
        self.queued = False
        self.order = 0
        """Its number among all that got a slot."""
        self.source: Job | None = None
        """Who reads what both begin with; this one waits until `mark` tokens of it are read."""
        self.mark = 0

    @property
    def n_out(self) -> int:
        return len(self.tokens) - self.n_prompt


class Span(NamedTuple):
    """Consecutive rows of one step: the positions [start, end) of one slot."""

    slot: int
    start: int
    end: int
    job: Job | None
    """None: a throw-away token that bridges a gap; to be removed from the cache after the step."""
    output: bool
    """The last row gives the next token."""


class Copy(NamedTuple):
    """The job's slot shall hold the first `n` tokens of a cache, and nothing else."""

    job: Job
    n: int
    slot: int
    """Whose cache, as it is now; -1: the parked one."""
    parked: Parked[Any] | None = None


class Admitted(NamedTuple):
    """What a slot has to do, in this order, before the next step."""

    job: Job
    n_keep: int
    """Tokens of the slot's cache that stay; the rest must be removed."""
    park: tuple[str, list[int]] | None = None
    """Whose conversation and its tokens: what the slot remembers is worth saving before."""
    copy: Copy | None = None
