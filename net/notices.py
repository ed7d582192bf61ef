"""What a person should know of the network, until it is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from infraxa.net.errors import NetError
from infraxa.net.status import Notice


class Notices:
    """The notices in force, one of each code. `changed` is told of each change."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._notices: dict[str, Notice] = {}

    def __iter__(self) -> Iterator[Notice]:
        return iter(tuple(self._notices.values()))

    def put(self, notice: Notice) -> None:
        if self._notices.get(notice.code) != notice:
            self._notices[notice.code] = notice
            self._changed()

    def put_error(self, error: NetError) -> None:
        self.put(Notice(error.code, error.message, error.remedy))

    def withdraw(self, code: str) -> None:
        if self._notices.pop(code, None) is not None:
            self._changed()

    async def of(self, doing: Awaitable[None], code: str) -> bool:
        """Do it; returns whether it was done. A failure is a notice, success withdraws that of this code."""
        try:
            await doing
        except NetError as error:
            self.put_error(error)
            return False
        self.withdraw(code)
        return True
