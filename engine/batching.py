"""Continuous batching: carries out the scheduler's steps with llama.cpp and turns tokens into text.

A new request is admitted between any two steps, a finished one leaves at once. Knows no pipes: requests come
by method calls, and what happened is collected in `Output` until somebody takes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from infraxa.engine.caches import Caches
from infraxa.engine.checks import check_request
from infraxa.engine.compiling import Compiling
from infraxa.engine.constraint import Constraint, Constraints
from infraxa.engine.frames import Emitted, Ended, Reading
from infraxa.engine.inflight import Asked, InFlight
from infraxa.engine.jobs import Admitted, Job, Span
from infraxa.engine.llama import Aborted, Context, Model
from infraxa.engine.lookup import Lookup, RowCost
from infraxa.engine.prefixes import Parking
from infraxa.engine.prompt import prompt_tokens
from infraxa.engine.rows import fill, fill_check, fill_ones
from infraxa.engine.sampler import Sampler
from infraxa.engine.scheduler import Scheduler
from infraxa.engine.template import ChatTemplate
from infraxa.engine.transcript import EOS, LENGTH, STOP, TOP
from infraxa.engine.types import (
    ChatMessage,
    EngineError,
    ErrorInfo,
    Finished,
    FinishReason,
    PromptTooLong,
    Request,
    Usage,
    Verified,
)

if TYPE_CHECKING:
    from infraxa.engine.verified import VerifiedSampler

N_BATCH = 512
"""Rows of one step: what the largest piece of a prompt costs before anything else gets its turn."""


class Output(NamedTuple):
    """What happened since the last time; a request's text comes before its end."""

    reading: tuple[Reading, ...]
    emitted: tuple[Emitted, ...]
    ended: tuple[Ended, ...]


class Batcher:
    """All generations of one context. Not thread-safe but `Context.abort`."""

    def __init__(
        self,
        model: Model,
        context: Context,
        template: ChatTemplate,
        *,
        slots: int,
        n_ctx: int,
        park_bytes: int = 0,
    ) -> None:
        """`park_bytes`: main memory for conversations that lost their slot."""
        self.model = model
        self.context = context
        self.template = template
        self.n_ctx = n_ctx
        parking: Parking[bytearray] = Parking(park_bytes)
        self.scheduler = Scheduler(
            slots=slots,
            n_ctx=n_ctx,
            n_batch=context.n_batch,
            rewindable=model.rewindable,
            separate=context.separate,
            parking=parking,
        )
        self._caches = Caches(context, self.scheduler, parking)
        self.constraints = Constraints(model)
        self.row_cost = RowCost()
        self.step_number = 0
        self._being_read: frozenset[int] = frozenset()
        self._generations: dict[int, InFlight] = {}
        self._reading: dict[int, Reading] = {}
        self._emitted: list[Emitted] = []
        self._ended: list[Ended] = []

    @property
    def busy(self) -> bool:
        return bool(self._generations)

    @property
    def urgent(self) -> bool:
        """Something happened that is worth telling at once: an end, or a prompt that takes long to read."""
        return bool(self._ended or self._reading)

    def count(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of the prompt that this conversation makes. Raises EngineError."""
        return len(self.read(Request(tuple(messages))))

    def read(self, request: Request) -> list[int]:
        """A request's prompt. Raises EngineError, and nothing else: one conversation must not end all
        others."""
        try:
            return prompt_tokens(self.model, self.template, request)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                "bad_request",
                f"This conversation cannot be read ({type(error).__name__}: {error}).",
                "Start a new chat, or choose another model.",
            ) from error

    def submit(
        self,
        request_id: int,
        request: Request,
        received: float | None = None,
        compiling: Compiling[Constraint] | None = None,
    ) -> None:
        """Takes a request in. What is wrong with it comes out as its end.

        `received`: when it arrived, by `time.perf_counter`; None = now. `compiling`: its constraint, which is
        over; None: if it wants one, all wait for it.
        """
        received = time.perf_counter() if received is None else received
        tokens: list[int] = []
        asked: Asked | None = None
        try:
            check_request(request)
            tokens = self.read(request)
            if not (request.messages or request.prompt) or not tokens:
                raise EngineError("bad_request", "There is nothing to answer.", "Send a message.")
            if len(tokens) > self.n_ctx:
                raise PromptTooLong(len(tokens), self.n_ctx)
            affordable = None if request.budget is None else request.budget.tokens(len(tokens))
            if affordable is not None and affordable < 0:
                raise EngineError(
                    "over_budget", "The prompt costs more than it may.", "Allow it to cost more."
                )
            constraint = compiling.result() if compiling is not None else self.constraints.of(request)
            verified = self._verified(request.verified, tokens) if request.verified is not None else None
            if constraint is not None or request.logprobs is not None or verified is not None:
                asked = Asked(constraint, request.logprobs, verified)
        except EngineError as error:
            self._ended.append(Ended(request_id, Finished("failed", Usage(n_prompt=len(tokens)), error.info)))
            return
        # The last token of a full context needs no room: nothing follows it.
        limit = self.n_ctx - len(tokens) + 1
        if request.sampling.max_tokens is not None:
            limit = min(limit, request.sampling.max_tokens)
        if affordable is not None:
            limit = min(limit, affordable)
        job = Job(request_id, request.user, tokens, received)
        generation = self._generations[request_id] = InFlight(job, request.sampling, limit, received)
        generation.asked = asked
        if verified is not None:
            generation.ctx0 = verified.ctx0
        self.scheduler.submit(job)
        if constraint is not None and constraint.complete:
            self._end(generation, "stop")
        elif limit == 0:
            self._end(generation, "length")

    def _verified(self, verified: Verified, prompt: Sequence[int]) -> VerifiedSampler:
        """What chooses a verified answer's tokens. Raises EngineError where it could not be checked."""
        if self.context.kv_type == "q4_0":
            raise EngineError(
                "unsupported",
                "Answers cannot be verified while this model's cache is kept as q4_0.",
                "Set kv_type to q8_0 or f16.",
            )
        if self.model.n_vocab < TOP:
            raise EngineError(
                "unsupported",
                f"Answers of a model with fewer than {TOP} tokens cannot be verified.",
                "Choose another model, or ask without verification.",
            )
        from infraxa.engine.verified import VerifiedSampler

        return VerifiedSampler(self.context, verified, prompt)

    def cancel(self, request_id: int) -> None:
        """Ends a request before the next step; does nothing when it is over."""
        self.context.abort(False)
        generation = self._generations.get(request_id)
        if generation is not None:
            self._end(generation, "cancelled")

    def interrupt(self, request_id: int) -> None:
        """Any thread: ends the running step if it reads this request's prompt. `cancel` must follow, from the
        main one.

        A long piece of a prompt can take many seconds on a slow machine; one token of the others does not.
        """
        if request_id in self._being_read:
            self.context.abort(True)

    def step(self) -> None:
        """Admits who can be admitted and decodes once. Does nothing when there is nothing to do."""
        scheduler = self.scheduler
        if scheduler.n_waiting:
            for admitted in scheduler.admit(time.perf_counter()):
                self._start(admitted)
        if scheduler.n_sharing:
            for copy in scheduler.copies():
                self._caches.copy(copy)
        self._caches.let_go()
        if scheduler.steady is not None:
            self._generate(scheduler.steady)
            return
        spans = scheduler.plan()
        if not spans:
            return
        self.step_number += 1
        rows = fill(self.context, spans)
        if rows > len(spans) or self._being_read:
            self._being_read = frozenset(s.job.id for s in spans if s.job is not None and s.end - s.start > 1)
        seconds = self._decode(rows, lambda: spans)
        if seconds is not None:
            scheduler.decoded(spans, seconds)
            self._take(spans)

    def _decode(self, rows: int, spans: Callable[[], list[Span]]) -> float | None:
        """The seconds it took; None: `spans` were not done, and when it failed, their jobs are over."""
        began = time.perf_counter()
        try:
            self.context.decode(rows)
        except Aborted:
            self._undo(spans())
            return None
        except EngineError as error:
            undone = spans()
            self._undo(undone)
            for span in undone:
                if span.job is not None:
                    self._end(self._generations[span.job.id], "failed", error.info)
            return None
        return time.perf_counter() - began

    def _generate(self, jobs: list[Job]) -> None:
        """A step in which each of `jobs` does nothing but generate: nearly all are so, and little may be done
        for each token."""
        if len(jobs) == 1 and self.model.rewindable and self._generate_alone(jobs[0]):
            return
        rows = fill_ones(self.context, jobs)
        self.step_number += 1
        self._being_read = frozenset()
        generations = self._generations
        seconds = self._decode(
            rows, lambda: [Span(job.slot, job.n_past, job.n_past + 1, job, True) for job in jobs]
        )
        if seconds is None:
            return
        self.scheduler.generated(seconds)
        now = time.perf_counter()
        for row, job in enumerate(jobs):
            self._next(generations[job.id], row, now)
        if rows == 1:
            self.row_cost.took(0, seconds)

    def _generate_alone(self, job: Job) -> bool:
        """A step that checks what comes next, if something can be guessed."""
        generation = self._generations[job.id]
        lookup = generation.lookup = generation.lookup or Lookup(self.row_cost)
        context, slot, start = self.context, job.slot, job.n_past
        # What the last row gives is not guessed, and it must be allowed.
        room = min(self.n_ctx - len(job.tokens), generation.limit - job.n_out - 1, context.n_outputs - 1)
        draft = lookup.draft(job.tokens, room) if room > 0 else []
        if not draft:
            return False
        rows = fill_check(context, job, draft)
        self.step_number += 1
        self._being_read = frozenset()
        seconds = self._decode(rows, lambda: [Span(slot, start, start + rows, job, True)])
        if seconds is None:
            return True
        now = time.perf_counter()
        right = 0
        for row in range(rows):
            job.n_past = start + row + 1
            self._next(generation, row, now)
            if job.slot < 0 or row == len(draft) or job.tokens[-1] != draft[row]:
                break
            right += 1
        if not context.remove(slot, start + right + 1):
            raise AssertionError("a cache that can be cut was not")
        self.row_cost.took(len(draft), seconds)
        lookup.checked(len(draft), right)
        return True

    def _start(self, admitted: Admitted) -> None:
        job = admitted.job
        generation = self._generations[job.id]
        generation.started = time.perf_counter()
        self._caches.start(admitted)
        generation.sampler = Sampler(self.context, generation.sampling, job.tokens)

    def _take(self, spans: list[Span]) -> None:
        """Samples the next token of every sequence whose last row was decoded."""
        now = time.perf_counter()
        row = -1
        for slot, start, end, job, wants_output in spans:
            row += end - start
            if job is None:
                self._remove_bridge(slot, start)
                continue
            if not wants_output:
                # What is read once more after an interruption is no news, and may be more than the prompt.
                if not job.n_out:
                    self._reading[job.id] = Reading(job.id, end, job.n_prompt)
                continue
            self._next(self._generations[job.id], row, now)

    def _next(self, generation: InFlight, row: int, now: float) -> None:
        """Samples one token from that row of the step, which is the last of what this request knows."""
        job, asked = generation.job, generation.asked
        assert generation.sampler is not None
        try:
            token = generation.sampler.sample(row) if asked is None else self._choose(generation, asked, row)
        except EngineError as error:
            self._end(generation, "failed", error.info)
            return
        generation.last = now
        if not generation.first:
            generation.first = now
        verified = asked.verified if asked is not None else None
        piece = self.model.piece(token)
        if piece is None:
            if verified is not None:
                generation.leaves.append(verified.leaf(EOS))
            self._end(generation, "stop")
            return
        job.tokens.append(token)
        if piece:  # a control token is nothing that was said, and nobody pays for it (Vocabulary.count)
            generation.ids.append(token)
        text = generation.text.feed(piece)
        if text:
            generation.parts.append(text)
        stopped = generation.text.stopped
        full = job.n_out >= generation.limit
        if verified is not None:
            generation.leaves.append(verified.leaf(STOP if stopped else LENGTH if full else 0))
        if stopped or (asked is not None and asked.constraint and asked.constraint.complete):
            self._end(generation, "stop")
        elif full:
            self._end(generation, "length")

    def _choose(self, generation: InFlight, asked: Asked, row: int) -> int:
        """The next token, and how likely it was. Raises EngineError when a constraint allows none, and for a
        verified answer when the logits are not finite."""
        sampler = generation.sampler
        assert sampler is not None
        constraint, top = asked.constraint, asked.top
        if asked.verified is not None:
            token = asked.verified.sample(row)
        else:
            token = sampler.sample(row) if constraint is None else sampler.sample_allowed(row, constraint)
        if top is not None and self.model.piece(token):
            asked.logprobs.append(sampler.logprob(row, token, top))
        return token

    def _remove_bridge(self, slot: int, start: int) -> None:
        if not self.context.remove(slot, start):
            self.context.clear(slot)
            self.scheduler.forget(slot)

    def _undo(self, spans: list[Span]) -> None:
        """Removes what an unfinished step left in the caches, so that it can be tried again."""
        for slot, start, _, job, _ in spans:
            if job is None:
                self._remove_bridge(slot, start)
            elif not self.context.remove(slot, start):
                self.context.clear(slot)
                self.scheduler.restart(job)

    def _end(self, generation: InFlight, reason: FinishReason, error: ErrorInfo | None = None) -> None:
        job = generation.job
        if rest := generation.text.finish():
            generation.parts.append(rest)
        if job.slot >= 0 and job.n_past >= self.n_ctx and self.model.rewindable:
            # What its slot remembers leaves a cell free for a bridge.
            self.context.remove(job.slot, self.n_ctx - 1)
        self.scheduler.remove(job)
        if generation.sampler is not None:
            generation.sampler.close()
        if generation.ids or generation.parts or generation.leaves or generation.ctx0:
            self._emitted.append(generation.emit())
        self._ended.append(Ended(job.id, Finished(reason, generation.usage(), error)))
        del self._generations[job.id]
        self._reading.pop(job.id, None)

    def take(self) -> Output:
        """What happened since the last call."""
        for generation in self._generations.values():
            if generation.ids or generation.leaves:
                self._emitted.append(generation.emit())
        output = Output(tuple(self._reading.values()), tuple(self._emitted), tuple(self._ended))
        self._reading.clear()
        self._emitted.clear()
        self._ended.clear()
        return output

    def close(self) -> None:
        """Frees the samplers of whoever is still here."""
        for generation in self._generations.values():
            if generation.sampler is not None:
                generation.sampler.close()
        self._generations.clear()
