"""Who is decoded in the next step: slots, waiting requests, rows of a batch. Pure decisions, no llama.cpp.

A *slot* is one sequence of the context, with its own cache of n_ctx tokens, so no request can fail because of
others. A *step* is one call of llama_decode: one token for each sequence that is generating, and chunks of
the prompts that are being read. A prompt that begins as another one of the same user is not read twice: its
slot gets a copy. What it decides is said in the types of `jobs.py`; `batching.py` carries it out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from infraxa.engine.jobs import OWN, Admitted, Copy, Job, Span
from infraxa.engine.prefixes import COPY, LEAST_PARKED, MIN_SHARED, Parking, common_prefix
from infraxa.engine.sharing import PIECE, TimeShare

BRIDGE = 3
"""Idle slots between two groups of generating ones that are worth a throw-away token each.

With one cache per sequence, llama.cpp decodes only neighbouring sequences together (`split_equal`), so a gap
costs one more pass over all weights. Measured on two cores, in models of 5 to 300 million parameters: a pass
costs as much as four more rows; but that of a single row as much as two, so that a lone slot is worth one
throw-away token, and two lone ones none.
"""
TOGETHER = 0.5
"""Seconds between two requests that came at the same time, as far as fairness goes: the prompts of both are
read before either is answered at full speed."""
FORGOTTEN = 1 / 3
"""How likely it is that a remembered conversation goes on, other than the one unused for longest."""
APART = 512
"""Tokens read again that it is worth to have one idle slot less between those who run: in each step of
an answer a throw-away token costs a CPU about as much as reading one or two, and answers are that long."""
TURN = 4
"""Of so many steps that read prompts, one is for the prompt that waits longest, if a later one would come
before it; in the others, those nearest to their end come first."""


class _Known(NamedTuple):
    """Where a prompt's beginning can be had from."""

    n: int
    gain: float
    """In tokens read."""
    copy: Copy | None
    """None: when `reader` will have read it."""
    reader: Job | None = None


class Scheduler:
    """Bookkeeping of one context.

    Free slots go to the person of this machine first; then users take turns, each user's requests in order of
    arrival. What prompts get while others generate is said in `sharing.py`.
    """

    def __init__(
        self,
        *,
        slots: int,
        n_ctx: int,
        n_batch: int,
        rewindable: bool = True,
        separate: bool = True,
        parking: Parking[Any] | None = None,
    ) -> None:
        """`separate`: each slot has its own stream of cells, so that gaps matter."""
        if not 0 < slots or slots + PIECE > n_batch:
            raise ValueError(f"{slots} slots do not fit a batch of {n_batch}")
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.rewindable = rewindable
        """A cache can be cut at any token (recurrent models: only kept whole or cleared)."""
        self.parking: Parking[Any] = parking if parking is not None else Parking(0)
        self.share = TimeShare()
        self._separate = separate
        self._bridging = separate and rewindable
        self._running: list[Job | None] = [None] * slots
        self._cached: list[list[int]] = [[] for _ in range(slots)]
        self._cached_of = [""] * slots
        """Whose each of them is."""
        self._last_used = [0] * slots
        self._clock = 0
        self._order = 0
        self.steady: list[Job] | None = None
        """All who run, in order of slots, while all that `plan` could say is one row for each of them."""
        self._sharing: list[Job] = []
        """Who waits for a source, in the order of admission."""
        self._readings = 0
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self.n_waiting = 0
        self.n_running = 0
        self.n_slowed = 0
        """Of the planned step: who generates and was there before those whose prompts are read."""

    @property
    def n_sharing(self) -> int:
        """How many wait for somebody else's reading."""
        return len(self._sharing)

    def submit(self, job: Job) -> None:
        job.queued = self.n_running + self.n_waiting >= len(self._running)
        self._waiting.setdefault(job.user, deque()).append(job)
        self.n_waiting += 1

    def running(self) -> Iterator[Job]:
        return (job for job in self._running if job is not None)

    def waiting(self) -> Iterator[Job]:
        return (job for queue in self._waiting.values() for job in queue)

    def admit(self, now: float = 0.0) -> Iterator[Admitted]:
        """Gives free slots to waiting requests. Each answer must be carried out before the next is asked for:
        what fails (`restart`) is not there for the next ones."""
        while self.n_waiting and self.n_running < len(self._running):
            user = OWN if OWN in self._waiting else next(iter(self._waiting))
            queue = self._waiting[user]
            job = queue.popleft()
            self.n_waiting -= 1
            if queue:
                self._waiting.move_to_end(user)
            else:
                del self._waiting[user]
            if job.queued:
                job.arrived = max(now, job.arrived)
            yield self._place(job)

    def _place(self, job: Job) -> Admitted:
        """A slot for the job, and how its beginning gets there with the least reading, counting what is
        forgotten for it."""
        free = [slot for slot, other in enumerate(self._running) if other is None]
        oldest = min(free, key=lambda s: (self._last_used[s], s))

        def cost(slot: int, matching: int) -> float:
            lost = 0.0 if slot == oldest else (len(self._cached[slot]) - matching) * FORGOTTEN
            return lost - matching + APART * self._apart(slot)

        costs = {slot: cost(slot, self._matching(slot, job)) for slot in free}
        slot = min(free, key=lambda s: (costs[s], self._last_used[s], s))
        spared = min(free, key=lambda s: (cost(s, 0), self._last_used[s], s))
        known = self._find(job, 0, spared)
        if known is not None and cost(spared, 0) - known.gain < costs[slot]:
            slot = spared
        else:
            known = None
        n_keep = 0 if known is not None else self._matching(slot, job)
        park = self._displaced(slot, n_keep)
        self._order += 1
        job.order = self._order
        job.slot = slot
        job.n_cached = job.n_past = n_keep
        self._running[slot] = job
        self.steady = None
        self._cached[slot] = []
        self.n_running += 1
        copy = self._follow(job, known) if known is not None else None
        return Admitted(job, n_keep, park, copy)

    def _apart(self, slot: int) -> int:
        """Idle slots between that one and the nearest that runs; more than a pass costs do not count."""
        running = [abs(slot - other) for other, job in enumerate(self._running) if job is not None]
        return min(min(running) - 1, BRIDGE + 1) if running and self._separate else 0

    def _matching(self, slot: int, job: Job) -> int:
        """Tokens of the idle slot's cache that the job can go on from.

        What another user said does not count: how much of a prompt is known, and how soon it is read, would
        tell what others ask.
        """
        cached = self._cached[slot]
        if self._cached_of[slot] != job.user:
            return 0
        # The prompt's last token is always decoded, for its logits.
        n = common_prefix(cached, job.tokens, min(len(cached), job.n_prompt - 1))
        return n if self.rewindable or n == len(cached) else 0

    def _displaced(self, slot: int, n_keep: int) -> tuple[str, list[int]] | None:
        cached = self._cached[slot]
        if not self.parking.budget or len(cached) - n_keep < LEAST_PARKED or 2 * n_keep > len(cached):
            return None
        return self._cached_of[slot], cached

    def _find(self, job: Job, have: int, slot: int) -> _Known | None:
        """The best copy for a job that has so many tokens and this slot; None when none is worth it."""
        best: _Known | None = None
        for other_slot, other in enumerate(self._running):
            if other_slot == slot:
                continue
            if other is None:
                if self._cached_of[other_slot] != job.user:
                    continue
                tokens = self._cached[other_slot]
                now = later = len(tokens)
            else:
                if other.user != job.user:
                    continue
                tokens, now = other.tokens, other.n_past
                # Only for who was admitted before: so nobody can wait for himself.
                later = max(now, other.n_prompt) if other.order < job.order or not job.order else now
            n = self._common(tokens, job, later, have)
            if n > now:
                known = _Known(n, n - have - COPY * n, None, other)
            elif n and (self.rewindable or n == now):
                known = _Known(n, n - have - COPY * now, Copy(job, n, other_slot))
            else:
                continue
            if known.gain > (best.gain if best is not None else 0):
                best = known
        for entry in self.parking.of(job.user):
            size = len(entry.tokens)
            n = self._common(entry.tokens, job, size, have)
            gain = n - have - COPY * size
            if n and (self.rewindable or n == size) and gain > (best.gain if best is not None else 0):
                best = _Known(n, gain, Copy(job, n, -1, entry))
        return best

    def _common(self, tokens: list[int], job: Job, limit: int, have: int) -> int:
        """Tokens that both begin with, if there are enough more than `have`; else 0."""
        limit = min(limit, job.n_prompt - 1)
        least = have + MIN_SHARED
        if limit < least or tokens[:MIN_SHARED] != job.tokens[:MIN_SHARED]:
            return 0
        n = common_prefix(tokens, job.tokens, limit)
        return n if n >= least else 0

    def _follow(self, job: Job, known: _Known) -> Copy | None:
        """The job has what is known, or waits for it."""
        if known.copy is None:
            job.source, job.mark = known.reader, known.n
            if job not in self._sharing:
                self._sharing.append(job)
            return None
        self._unfollow(job)
        job.n_past = known.n
        job.n_cached = max(job.n_cached, known.n)
        return known.copy

    def _unfollow(self, job: Job) -> None:
        if job.source is not None:
            job.source = None
            self._sharing.remove(job)

    def copies(self) -> Iterator[Copy]:
        """For those whose beginning is there now. Who waits for a request that is over finds another source
        or reads himself. Each must be carried out before the next is asked for."""
        for job in list(self._sharing):
            source = job.source
            if source is None:
                continue
            there = source.slot >= 0
            if there and source.n_past < job.mark:
                continue
            if there and (self.rewindable or source.n_past == job.mark):
                known: _Known | None = _Known(job.mark, 0, Copy(job, job.mark, source.slot))
            else:
                known = self._find(job, job.n_past, job.slot)
            if known is None:
                self._unfollow(job)
            elif copy := self._follow(job, known):
                yield copy

    def restart(self, job: Job) -> None:
        """The job's cache is gone: everything is decoded again."""
        self._unfollow(job)
        self.steady = None
        job.n_past = 0
        job.n_cached = 0

    def remove(self, job: Job) -> None:
        """The job is over, wherever it is. What its slot remembers stays until somebody needs the slot."""
        self._unfollow(job)
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
        self.steady = None
        self.n_running -= 1
        job.slot = -1

    def forget(self, slot: int) -> None:
        """The idle slot's cache is gone."""
        self._cached[slot] = []

    def plan(self) -> list[Span]:
        """The next step, in order of slots; empty when nobody runs. Never more than `n_batch` rows."""
        generating: list[Job] = []
        reading: list[Job] = []
        for job in self._running:
            if job is not None and job.source is None:
                if len(job.tokens) - job.n_past == 1:
                    generating.append(job)
                else:
                    reading.append(job)
        chunk = self._share_out(reading, generating) if reading else {}
        fill = self._bridges(generating) if len(generating) > 1 and self._bridging else ()
        spans: list[Span] = []
        for slot, job in enumerate(self._running):
            if job is not None:
                end = len(job.tokens)
                start = job.n_past
                if job.source is None and end - start == 1:
                    spans.append(Span(slot, start, end, job, True))
                elif n := chunk.get(slot):
                    spans.append(Span(slot, start, start + n, job, start + n == end))
            elif slot in fill:
                start = len(self._cached[slot])
                spans.append(Span(slot, start, start + 1, None, False))
        return spans

    def _share_out(self, reading: list[Job], generating: list[Job]) -> dict[int, int]:
        """Rows per reading slot.

        Those nearest to what they read for come first, each whole, and few in one step: the first tokens
        come soonest so. When nobody was there before, more: half of what is to be read, up to half a batch,
        since a row costs less among many (measured on two cores: 9 ms with one prompt of 50 tokens a step,
        7.4 ms with five), and the mean first token comes as soon.
        """
        ends = {job.slot: len(job.tokens) for job in reading}
        for job in self._sharing:
            slot = job.source.slot if job.source is not None else -1
            if slot in ends and (source := self._running[slot]) is not None and job.mark > source.n_past:
                ends[slot] = min(ends[slot], job.mark)
        came = min(job.arrived for job in reading) - TOGETHER
        self.n_slowed = sum(job.arrived < came for job in generating)
        order = sorted(reading, key=lambda job: (ends[job.slot] - job.n_past, job.order))
        if self._readings % TURN == TURN - 1 and order[0].arrived > came + 2 * TOGETHER:
            order.sort(key=lambda job: job.order)
        budget = self.n_batch - (len(self._running) if generating else 0)
        if self.n_slowed:
            budget = min(budget, self.share.rows())
            if budget < min(PIECE, ends[order[0].slot] - order[0].n_past):
                return {}
        shares: dict[int, int] = {}
        # What the step may grow to for those after the first.
        enough = self.share.enough() or budget
        if not self.n_slowed:
            half = sum(ends[job.slot] - job.n_past for job in reading) // 2
            enough = max(enough, min(self.n_batch // 2, max(self.n_batch // 4, half)))
        for job in order:
            left = ends[job.slot] - job.n_past
            # A few rows of the next prompt are a pass of their own over all weights.
            if shares and min(budget, enough) < min(left, PIECE):
                break
            n = shares[job.slot] = min(left, min(budget, enough) if shares else budget)
            budget -= n
            enough -= n
            if enough <= 0 or not budget:
                break
        return shares

    def _bridges(self, generating: list[Job]) -> set[int]:
        """Idle slots to fill so that generating ones are neighbours."""
        fill: set[int] = set()
        groups: list[list[int]] = []
        for job in generating:
            if groups and groups[-1][-1] == job.slot - 1:
                groups[-1].append(job.slot)
            else:
                groups.append([job.slot])
        for a, b in pairwise(groups):
            lone = (len(a) == 1) + (len(b) == 1)
            gap = range(a[-1] + 1, b[0])
            if len(gap) <= (BRIDGE, 1, 0)[lone] and not any(self._running[slot] for slot in gap):
                fill.update(gap)
                b[:0] = [*a, *gap]
        return fill

    def decoded(self, spans: list[Span], seconds: float = 0.0) -> None:
        """The step was carried out and took so long."""
        generating: list[Job] = []
        rows = 0
        for _slot, start, end, job, _ in spans:
            if job is not None:
                job.n_past = end
                if end - start == 1 and end == len(job.tokens):
                    generating.append(job)
                else:
                    rows += end - start
        n = len(generating)
        self.steady = generating if n == self.n_running == len(spans) else None
        reading = self.n_running - n
        if rows:
            self._readings += 1
        slowed = self.n_slowed if reading else n
        self.share.decoded(seconds, rows, reading=reading, generating=n, slowed=slowed)

    def generated(self, seconds: float) -> None:
        """The step was carried out, and was one row for each that is `steady`."""
        jobs = self.steady or ()
        for job in jobs:
            job.n_past += 1
        self.share.decoded(seconds, 0, reading=0, generating=len(jobs), slowed=len(jobs))
