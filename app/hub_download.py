"""Downloads one file of the hub: goes on where it was left, tries again after a cut, checks the hash.

Where the file goes in the end, and what it is, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from infraxa.app import hub
from infraxa.app.errors import NodeError
from infraxa.app.hub_errors import Again, host_of
from infraxa.app.hub_partial import Partial
from infraxa.app.hub_values import Access, HubFile, PullChecked, PullEvent, PullMoved, PullWaits
from infraxa.app.sizes import size_text
from infraxa.net.tasks import TaskGroup

if TYPE_CHECKING:
    import httpx2

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt; after the last the download ends, and what came is kept."""
PROGRESS = 1 << 20
"""Bytes after which the attempts are counted anew: a long file may be cut many times."""
ASKED_AT_ONCE = 8 << 30
"""Bytes of one request: some servers send no more than 50 GB."""
WRITTEN_AT_ONCE = 1 << 20
TOLD_EVERY = 0.2
"""Seconds between two events; what came in such a time is written."""
RATE_OVER = 5.0
"""Seconds of which the rate is told."""
LET_GO = 2.0
"""Seconds that another download of the same file is given to end."""
MAGIC = b"GGUF"


class Meter:
    """How fast it goes, by the last seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now: float, done: int) -> PullMoved:
        """So much is here, at this time."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_OVER:
            self._seen.popleft()
        then, had = self._seen[0]
        if now <= then or done < had:
            return PullMoved(done, self._total)
        rate = (done - had) / (now - then)
        return PullMoved(done, self._total, rate, (self._total - done) / rate if rate else None)


class Download:
    """One file of `repo` at `commit`, for the folder `models`."""

    def __init__(
        self, http: httpx2.AsyncClient, access: Access, repo: str, commit: str, file: HubFile, models: Path
    ) -> None:
        self._http = http
        self._access = access
        self._repo = repo
        self._commit = commit
        self._file = file
        self._models = models
        self._best = 0
        """The most bytes that were here when an attempt ended."""

    async def run(self, place: Path, meter: Meter, before: int) -> AsyncGenerator[PullEvent, None]:
        """Have it at `place`. `before`: bytes of the files before it, for what is told.

        Raises NodeError and StoreError; what came until then is kept, unless it is not what was promised.
        """
        what = f"{self._repo}/{self._file.path}"
        partial = await self._locked(what)
        try:
            if await asyncio.to_thread(place.exists):  # somebody else was quicker
                return
            async with contextlib.aclosing(self._resume(partial)) as checking:
                async for checked in checking:
                    yield checked
            async with contextlib.aclosing(self._attempts(partial)) as moves:
                async for event in moves:
                    yield event if event is not None else meter.at(monotonic(), before + partial.done)
            if partial.digest != self._file.sha256:
                await asyncio.to_thread(partial.drop)
                raise NodeError(
                    "bad_hash",
                    f"{what} is not what {host_of(self._access)} promised: its SHA-256 is another one. "
                    "Nothing was kept.",
                    "Pull it again; if it happens again, do not trust that hub or the network in between.",
                )
            await asyncio.to_thread(partial.move_to, place)
        finally:
            partial.close()

    async def _locked(self, what: str) -> Partial:
        """What is here, for this download alone. One that was just stopped lets go of it in a moment."""
        until = monotonic() + LET_GO
        while True:
            try:
                # Not in a thread: whoever is cancelled meanwhile would leave it locked.
                return Partial(self._models, self._file.sha256, what)
            except NodeError as error:
                if error.code != "busy" or monotonic() >= until:
                    raise
            await asyncio.sleep(LET_GO / 20)

    async def _resume(self, partial: Partial) -> AsyncGenerator[PullChecked, None]:
        """Hash what an earlier attempt has left."""
        if partial.there > self._file.size:
            partial.begin_again()
        if not partial.there or partial.there > self._file.size:
            return
        tasks, cancelled = TaskGroup(), threading.Event()
        try:
            reading = tasks.spawn(
                asyncio.to_thread(partial.read_again, cancelled.is_set),
                name="hash what is here",
                told=(NodeError,),
            )
            while not reading.done():
                await asyncio.wait((reading,), timeout=TOLD_EVERY)
                yield PullChecked(partial.done, partial.there)
            await reading
        finally:
            cancelled.set()
            await tasks.cancel_all()

    async def _attempts(self, partial: Partial) -> AsyncGenerator[PullWaits | None, None]:
        """Until all is here; None: more is here."""
        attempt, self._best = 0, partial.done
        while partial.done < self._file.size:
            try:
                async with contextlib.aclosing(self._attempt(partial)) as moves:
                    async for _ in moves:
                        yield None
            except Again as again:
                attempt = 1 if partial.done >= self._best + PROGRESS else attempt + 1
                self._best = max(self._best, partial.done)
                if attempt > len(PAUSES):
                    raise self._given_up(again.error, partial) from again
                seconds = max(PAUSES[attempt - 1], again.wait_s)
                yield PullWaits(again.error.message, seconds, attempt, len(PAUSES))
                await asyncio.sleep(seconds)

    def _given_up(self, error: NodeError, partial: Partial) -> NodeError:
        if not partial.done:
            return error
        kept = f"{size_text(partial.done)} of {size_text(self._file.size)} came and is kept."
        return NodeError(
            error.code, f"{error.message} {kept}", f"Pull again to go on from there. {error.remedy}"
        )

    async def _attempt(self, partial: Partial) -> AsyncGenerator[None, None]:
        """One request and what it brings."""
        end = min(self._file.size, partial.done + ASKED_AT_ONCE)
        opened = hub.read_from(
            self._http, self._access, self._repo, self._commit, self._file, partial.done, end
        )
        async with opened as (start, chunks):
            if start != partial.done:
                partial.begin_again()
            async with contextlib.aclosing(self._take(partial, chunks, end)) as moves:
                async for _ in moves:
                    yield
        if partial.done < end:
            host = host_of(self._access)
            raise Again(NodeError("cut", f"{host} ended before the file did.", "Try again."))

    async def _take(
        self, partial: Partial, chunks: AsyncIterator[bytes], end: int
    ) -> AsyncGenerator[None, None]:
        """Write what comes, up to `end`: whatever the hub says, no more is taken than was asked for."""
        waiting, at = bytearray(), partial.done
        written = told = monotonic()
        head = bytearray() if at == 0 else bytearray(MAGIC)
        try:
            async for chunk in chunks:
                head += chunk[: len(MAGIC) - len(head)]
                if not MAGIC.startswith(head):
                    raise self._no_model(partial)
                taken = chunk[: end - at]
                waiting += taken
                at += len(taken)
                now = monotonic()
                if len(waiting) >= WRITTEN_AT_ONCE or now - written >= TOLD_EVERY or at == end:
                    # A cancelled write still happens: what it was given must not be given again.
                    data, waiting, written = bytes(waiting), bytearray(), now
                    await asyncio.to_thread(partial.add, data)
                    if now - told >= TOLD_EVERY or at == end:
                        told = now
                        yield
                if at == end:
                    return
        finally:
            if waiting:
                with contextlib.suppress(NodeError):
                    partial.add(bytes(waiting))

    def _no_model(self, partial: Partial) -> NodeError:
        partial.drop()
        return NodeError(
            "not_gguf",
            f"{self._repo}/{self._file.path} is not a GGUF file. Nothing was kept.",
            "Choose another repository; a network that asks you to log in sends such pages, too.",
        )
