"""Places of links on which nobody said which node they are: how many, and who goes when one more comes.

A node that wants to say who it is begins as a stranger, so a newcomer is never the one that is refused: who
fills the places with links that are not used loses them first. How long an idle link lives is in session.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from infraxa.net.addresses import LOCAL, group
from infraxa.net.link import Link

MAX_ALL: Final = 256
MAX_GROUP: Final = 32
"""Of one group of addresses (addresses.group)."""
MAX_LOCAL: Final = 192
"""Of all local addresses, which are many machines of one group."""


class Strangers:
    """Those who dialled are counted; a link that was dialled from here has no limit here."""

    def __init__(self, idle_since: Callable[[Link], float | None] = lambda link: link.idle_since) -> None:
        """`idle_since`: since when a link is of no use; None while it may not go."""
        self._idle_since = idle_since
        self._links: dict[Link, str] = {}
        """In the order in which they came, and the group of each."""

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(tuple(self._links))

    def __contains__(self, link: object) -> bool:
        return link in self._links

    def add(self, link: Link) -> Link | None:
        """One more. Returns the one to be closed for it: of its own group when that is full, else of the
        largest; there the one that was idle for longest; `link` itself when all others are in use."""
        here = group(link.remote)
        goes = None if link.initiator else self._goes(here)
        self._links[link] = here
        if goes is None:
            return None
        victim = self.longest_idle(goes) or link
        self.discard(victim)
        return victim

    def longest_idle(self, links: Iterable[Link]) -> Link | None:
        """Of these the one that is of no use for longest; None: none may go."""
        idle = [(since, link) for link in links if (since := self._idle_since(link)) is not None]
        return min(idle, key=lambda found: found[0])[1] if idle else None

    def discard(self, link: Link) -> None:
        self._links.pop(link, None)

    def _goes(self, here: str) -> list[Link] | None:
        """Of whom one must go before one more comes from the group `here`; None: there is room."""
        groups = Counter(where for link, where in self._links.items() if not link.initiator)
        if groups[here] >= (MAX_LOCAL if here == LOCAL else MAX_GROUP):
            crowd = here
        elif groups.total() >= MAX_ALL:
            crowd = groups.most_common(1)[0][0]
        else:
            return None
        return [link for link, where in self._links.items() if where == crowd and not link.initiator]
