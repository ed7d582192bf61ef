"""The rows of one step, written into a context's batch."""

from __future__ import annotations

from collections.abc import Sequence

from infraxa.engine.jobs import Job, Span
from infraxa.engine.llama import Context


def fill(context: Context, spans: Sequence[Span]) -> int:
    """What the scheduler planned. Returns how many rows that are."""
    token, pos, seq, output = context.token, context.pos, context.seq, context.output
    row = 0
    for slot, start, end, job, wants_output in spans:
        n = end - start
        if n == 1:
            # Any token does for a bridge: it is removed again.
            token[row] = job.tokens[start] if job is not None else 0
            pos[row] = start
            seq[row] = slot
            output[row] = wants_output
            row += 1
        elif job is not None:
            stop = row + n
            token[row:stop] = job.tokens[start:end]
            pos[row:stop] = range(start, end)
            seq[row:stop] = [slot] * n
            output[row:stop] = [0] * n
            output[stop - 1] = wants_output
            row = stop
    return row


def fill_ones(context: Context, jobs: Sequence[Job]) -> int:
    """The last token of each, in one go."""
    rows = len(jobs)
    context.token[:rows] = [job.tokens[-1] for job in jobs]
    context.pos[:rows] = [job.n_past for job in jobs]
    context.seq[:rows] = [job.slot for job in jobs]
    context.output[:rows] = [1] * rows
    return rows


def fill_check(context: Context, job: Job, draft: Sequence[int]) -> int:
    """The last token of one, and what is thought to come after it."""
    rows = 1 + len(draft)
    context.token[:rows] = [job.tokens[-1], *draft]
    context.pos[:rows] = range(job.n_past, job.n_past + rows)
    context.seq[:rows] = [job.slot] * rows
    context.output[:rows] = [1] * rows
    return rows
