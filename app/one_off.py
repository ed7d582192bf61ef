"""An answer that is kept nowhere, as the stream that front ends have of it.

What it is made of is said in asking.py and calling.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Self

from infraxa.app.answering import AskBegan, Item, Source


class OneOff:
    """A stream: AskBegan, then items, the last of which is Finished. Raises what keeps it from beginning."""

    def __init__(self) -> None:
        self._source: Source | None = None
        """Set by `_play` as soon as something answers, which it has stop when it was stopped before."""
        self._stopped = False
        self._events = self._play()

    def _play(self) -> AsyncGenerator[AskBegan | Item, None]:
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AskBegan | Item:
        return await anext(self._events)

    def stop(self) -> None:
        """End the answer at its next step; before its first, there is none."""
        self._stopped = True
        if self._source is not None:
            self._source.cancel()

    async def aclose(self) -> None:
        self.stop()
        await self._events.aclose()
