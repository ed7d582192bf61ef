"""Who is decoded in the next step: slots, waiting requests, shares of a batch. Pure decisions, no llama.cpp.

A *slot* is one sequence of the context, with its own cache of n_ctx tokens, so no request can fail because of
others. A *step* is one call of llama_decode: one token for each sequence that is generating, and chunks of
the prompts that are being read. `engine/batching.py` carries the decisions out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

BRIDGE = 2
"""Idle slots between two generating ones that are worth a throw-away token each.

With one cache per sequence, llama.cpp decodes only neighbouring sequences together (`split_equal`), so a gap
costs one more pass over all weights. A pass is worth at least two more rows in one batch, and far more than
two in big models.
"""


OWN = ""
"""Whose requests come before those of all users: what the person of this machine asks."""


class Job:
    """One request between its arrival and its end."""

    __slots__ = ("id", "n_cached", "n_past", "n_prompt", "slot", "tokens", "user")

    def __init__(self, job_id: int, user: str, prompt: list[int]) -> None:
        self.id = job_id
        self.user = user
        self.tokens = list(prompt)
        """The prompt, then what was sampled."""
        self.n_prompt = len(prompt)
        self.n_past = 0
        """How many of `tokens` are in the cache."""
        self.n_cached = 0
        self.slot = -1

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


class Admitted(NamedTuple):
    job: Job
    n_keep: int
    """Tokens of the slot's cache that stay; the rest must be removed before the next step."""


class Scheduler:
    """Bookkeeping of one context.

    Free slots go to the person of this machine first; then users take turns, each user's requests in order of
    arrival. While somebody generates, prompts get at most `prompt_share` rows of a step, divided evenly, so a
    long prompt neither stalls running answers nor a short one.
    """

    def __init__(
        self, *, slots: int, n_ctx: int, n_batch: int, prompt_share: int, rewindable: bool = True
    ) -> None:
        if not 0 < slots <= prompt_share <= n_batch - slots:
            raise ValueError(f"{slots} slots do not fit a batch of {n_batch} with a share of {prompt_share}")
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.prompt_share = prompt_share
        self.rewindable = rewindable
        """A cache can be cut at any token (recurrent models: only kept whole or cleared)."""
        self._running: list[Job | None] = [None] * slots
        self._cached: list[list[int]] = [[] for _ in range(slots)]
        self._cached_of = [""] * slots
        """Whose each of them is."""
        self._last_used = [0] * slots
        self._clock = 0
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self.n_waiting = 0
        self.n_running = 0

    def submit(self, job: Job) -> None:
        self._waiting.setdefault(job.user, deque()).append(job)
        self.n_waiting += 1

    def running(self) -> Iterator[Job]:
        return (job for job in self._running if job is not None)

    def waiting(self) -> Iterator[Job]:
        return (job for queue in self._waiting.values() for job in queue)

    def admit(self) -> list[Admitted]:
        """Gives free slots to waiting requests, each the slot that remembers most of its prompt."""
        admitted: list[Admitted] = []
        while self.n_waiting and self.n_running < len(self._running):
            user = OWN if OWN in self._waiting else next(iter(self._waiting))
            queue = self._waiting[user]
            job = queue.popleft()
            self.n_waiting -= 1
            if queue:
                self._waiting.move_to_end(user)
            else:
                del self._waiting[user]
            admitted.append(self._place(job))
        return admitted

    def _place(self, job: Job) -> Admitted:
        free = (slot for slot, other in enumerate(self._running) if other is None)
        # Of equals, the one unused for longest: what it remembers is the least likely to be asked for again.
        slot = max(free, key=lambda s: (self._gain(s, job), -self._last_used[s], -s))
        job.slot = slot
        # The prompt's last token is always decoded, for its logits.
        n_keep = min(self._matching(slot, job), job.n_prompt - 1)
        if not self.rewindable and n_keep < len(self._cached[slot]):
            n_keep = 0
        job.n_cached = job.n_past = n_keep
        self._running[slot] = job
        self._cached[slot] = []
        self.n_running += 1
        return Admitted(job, n_keep)

    def _matching(self, slot: int, job: Job) -> int:
        """Tokens of the slot's cache that begin the prompt.

        What another user said does not count: how much of a prompt is known, and how soon it is read, would
        tell what others ask.
        """
        if self._cached_of[slot] != job.user:
            return 0
        cached = self._cached[slot]
        return common_prefix(cached, job.tokens, min(len(cached), job.n_prompt))

    def _gain(self, slot: int, job: Job) -> int:
        """Tokens that need not be read again in this slot; 0 when far more than these would be forgotten.

        All prompts of a model begin alike: that is no reason to overwrite another conversation.
        """
        matching = self._matching(slot, job)
        return matching if 4 * matching >= len(self._cached[slot]) else 0

    def restart(self, job: Job) -> None:
        """The job's cache is gone: everything is decoded again."""
        job.n_past = 0
        job.n_cached = 0

    def remove(self, job: Job) -> None:
        """The job is over, wherever it is. What its slot remembers stays until somebody needs the slot."""
        if job.slot < 0:
            queue = self._waiting[job.user]
            queue.remove(job)
            self.n_waiting -= 1
            if not queue:
                del self._waiting[job.user]
            return
        slot = job.slot
        # One position stays free for a bridging token.
        self._cached[slot] = job.tokens[: min(job.n_past, self.n_ctx - 1)]
        self._cached_of[slot] = job.user
        self._clock += 1
        self._last_used[slot] = self._clock
        self._running[slot] = None
        self.n_running -= 1
        job.slot = -1

    def forget(self, slot: int) -> None:
        """The idle slot's cache is gone."""
        self._cached[slot] = []

    def plan(self) -> list[Span]:
        """The next step, in order of slots; empty when nobody runs. Never more than `n_batch` rows."""
        generating = 0
        reading: list[Job] = []
        for job in self._running:
            if job is not None:
                if len(job.tokens) - job.n_past == 1:
                    generating += 1
                else:
                    reading.append(job)
        chunk = self._share_out(reading, generating) if reading else {}
        fill = self._bridges(chunk) if generating > 1 and self.rewindable else ()
        spans: list[Span] = []
        for slot, job in enumerate(self._running):
            if job is not None:
                end = len(job.tokens)
                start = job.n_past
                if end - start == 1:
                    spans.append(Span(slot, start, end, job, True))
                elif n := chunk[slot]:
                    spans.append(Span(slot, start, start + n, job, start + n == end))
            elif slot in fill:
                start = len(self._cached[slot])
                spans.append(Span(slot, start, start + 1, None, False))
        return spans

    def _share_out(self, reading: list[Job], generating: int) -> dict[int, int]:
        """Rows per reading slot: even shares, and what one does not need goes to the others."""
        budget = self.prompt_share if generating else self.n_batch - len(self._running)
        shares: dict[int, int] = {}
        by_need = sorted(reading, key=lambda job: len(job.tokens) - job.n_past)
        for i, job in enumerate(by_need):
            share = min(len(job.tokens) - job.n_past, budget // (len(by_need) - i))
            shares[job.slot] = share
            budget -= share
        return shares

    def _bridges(self, chunk: dict[int, int]) -> set[int]:
        """Idle slots to fill so that generating ones are neighbours."""
        generating = [slot for slot, job in enumerate(self._running) if job is not None and slot not in chunk]
        fill: set[int] = set()
        for a, b in pairwise(generating):
            if b - a > 1:
                idle = [slot for slot in range(a + 1, b) if self._running[slot] is None]
                if len(idle) <= BRIDGE:
                    fill.update(idle)
        return fill

    def decoded(self, spans: list[Span]) -> None:
        """The step was carried out."""
        for span in spans:
            if span.job is not None:
                span.job.n_past = span.end


def common_prefix(a: list[int], b: list[int], limit: int) -> int:
    """How many of the first `limit` tokens of both are equal."""
    if a[:limit] == b[:limit]:
        return limit
    low, high = 0, limit
    # Comparing slices runs in C: halving is far quicker than a loop over a long conversation.
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
