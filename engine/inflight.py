"""One request while it is in the batch: its sampler, its text, what of it nobody took yet, and its times."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from infraxa.engine.constraint import Constraint
from infraxa.engine.frames import Emitted
from infraxa.engine.jobs import Job
from infraxa.engine.lookup import Lookup
from infraxa.engine.sampler import Sampler
from infraxa.engine.text import TextAssembler
from infraxa.engine.types import Sampling, TokenLogprob, Usage

if TYPE_CHECKING:
    from infraxa.engine.verified import VerifiedSampler


class Asked:
    """What few requests ask for, besides text."""

    __slots__ = ("constraint", "logprobs", "top", "verified")

    def __init__(
        self, constraint: Constraint | None, top: int | None, verified: VerifiedSampler | None
    ) -> None:
        self.constraint = constraint
        self.verified = verified
        """Chooses in place of the request's sampler."""
        self.top = top
        """So many of the likeliest tokens are told with each one; None: not even its own log-probability."""
        self.logprobs: list[TokenLogprob] = []
        """One for each of the generation's `ids`."""


class InFlight:
    __slots__ = (
        "asked",
        "ctx0",
        "first",
        "ids",
        "job",
        "last",
        "leaves",
        "limit",
        "lookup",
        "parts",
        "received",
        "sampler",
        "sampling",
        "started",
        "text",
    )

    def __init__(self, job: Job, sampling: Sampling, limit: int, received: float) -> None:
        self.job = job
        self.sampling = sampling
        self.asked: Asked | None = None
        self.sampler: Sampler | None = None
        self.lookup: Lookup | None = None
        """What guesses for it, once it was alone."""
        self.text = TextAssembler(sampling.stop)
        self.limit = limit
        """Tokens after which the reason is `length`."""
        self.received = received
        self.started = 0.0
        self.first = 0.0
        self.last = 0.0
        self.parts: list[str] = []
        """Text and token ids that nobody took yet."""
        self.ids: list[int] = []
        self.leaves: list[bytes] = []
        """Of a verified answer, as `ids`."""
        self.ctx0 = b""
        """What the first of them stands on, until it is told."""

    def emit(self) -> Emitted:
        logprobs: tuple[TokenLogprob, ...] = ()
        if self.asked is not None:
            logprobs = tuple(self.asked.logprobs)
            self.asked.logprobs.clear()
        emitted = Emitted(
            self.job.id, "".join(self.parts), tuple(self.ids), logprobs, tuple(self.leaves), self.ctx0
        )
        self.parts.clear()
        self.ids.clear()
        self.leaves.clear()
        self.ctx0 = b""
        return emitted

    def usage(self) -> Usage:
        job = self.job
        now = self.started or time.perf_counter()
        return Usage(
            n_prompt=job.n_prompt,
            n_cached=job.n_cached,
            n_out=job.n_out,
            queued_ms=(now - self.received) * 1000,
            first_token_ms=(self.first - self.received) * 1000 if self.first else None,
            decode_ms=(self.last - self.first) * 1000,
        )
