"""Who of those that ask is served now, who waits and who is refused: decisions on numbers and times that are
passed in. Nothing here knows what is asked for.

An order comes in a *lane* and of a *user*. A free slot goes to the lane that has the fewest slots, of equals
to the one that has waited longest since its last; within the lane likewise to a user; a user's own orders go
in the order in which they came. So nobody gains by asking often, and a crowd of keys in one lane counts as
one.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Final, NamedTuple

ROOM: Final = 2
"""So many orders may wait per slot."""
IN_LINE_S: Final = 180.0
"""An order waits so long and no longer."""
FIRST_MEAN_S: Final = 10.0
"""What an answer is taken to last before any was measured."""
MEAN_OF: Final = 16
"""About so many answers are in the mean."""
RETRY_MS: Final = (1000, 60_000)
"""Least and most of what somebody who is refused is told to wait."""


class _Place(NamedTuple):
    lane: Hashable
    user: Hashable
    since: float
    """When it began to wait."""
    returned: bool = False
    """It had a slot before."""


class Admission:
    """Slots, and the line before them. All times are seconds of one monotonic clock.

    An order is a number, a higher one than all that came before. It arrives once and leaves once, wherever it
    is by then; what is unknown may leave too, which changes nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        """Slots. May be changed at any time; those that run keep theirs."""
        self._running: dict[int, _Place] = {}
        self._waiting: dict[int, _Place] = {}
        self._lanes: OrderedDict[Hashable, OrderedDict[Hashable, deque[int]]] = OrderedDict()
        """Those that wait. Whose turn is over goes to the end."""
        self._mean_s = FIRST_MEAN_S

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many may wait."""
        return ROOM * self.capacity

    @property
    def full(self) -> bool:
        """Nobody who came now would be let in, whoever it is."""
        return self.running >= self.capacity and self.waiting >= self.room

    def arrive(self, number: int, lane: Hashable, user: Hashable, now: float) -> bool:
        """Let the order in, into the line at first: `admit` is to follow. False when there is no room for it.

        One lane waits with no more than half of the room, so that there is some for others.
        """
        if self.running + self.waiting >= self.capacity:
            before = sum(map(len, self._lanes[lane].values())) if lane in self._lanes else 0
            if self.waiting >= self.room or before >= self.room // 2:
                return False
        self._waiting[number] = _Place(lane, user, now)
        self._lanes.setdefault(lane, OrderedDict()).setdefault(user, deque()).append(number)
        return True

    def admit(self) -> list[int]:
        """Give the free slots away; the orders that got one, in order."""
        admitted: list[int] = []
        for number in self._in_turn():
            if self.running >= self.capacity:
                break
            place = self._leave_line(number)
            self._running[number] = place
            users = self._lanes.get(place.lane)
            if users is not None:
                self._lanes.move_to_end(place.lane)
                if place.user in users:
                    users.move_to_end(place.user)
            admitted.append(number)
        return admitted

    def leave(self, number: int) -> bool:
        """The order is over; False when it was before."""
        if self._running.pop(number, None) is not None:
            return True
        if number in self._waiting:
            self._leave_line(number)
            return True
        return False

    def give_back(self, number: int, now: float) -> None:
        """The order has no use for its slot yet, which others may have: it goes back into the line, with or
        without room, before all that came after it, as if it had not been its turn."""
        place = self._running.pop(number)._replace(since=now, returned=True)
        self._waiting[number] = place
        users = self._lanes.setdefault(place.lane, OrderedDict())
        users[place.user] = deque(sorted([*users.get(place.user, ()), number]))
        # Those that were given back come first, as they came; what is equal stays as it was.
        first = self._first_returned
        self._lanes[place.lane] = OrderedDict(sorted(users.items(), key=lambda item: first(item[1])))
        self._lanes = OrderedDict(
            sorted(self._lanes.items(), key=lambda item: min(map(first, item[1].values())))
        )

    def _first_returned(self, numbers: Iterable[int]) -> float:
        return min((number for number in numbers if self._waiting[number].returned), default=math.inf)

    def line(self) -> list[int]:
        """Those that wait, in the order in which slots would go to them now."""
        return list(self._in_turn())

    def deadline(self, number: int) -> float:
        """Until when this order may wait."""
        return self._waiting[number].since + IN_LINE_S

    def took(self, seconds: float) -> None:
        """An answer had its slot for so long."""
        self._mean_s += (seconds - self._mean_s) / MEAN_OF

    def retry_after_ms(self) -> int:
        """When somebody who is refused now may expect a place: when half of those before it are through."""
        seconds = self._mean_s * (self.waiting + 1) / (2 * self.capacity)
        least, most = RETRY_MS
        return max(least, min(most, round(seconds * 1000)))

    def _leave_line(self, number: int) -> _Place:
        place = self._waiting.pop(number)
        users = self._lanes[place.lane]
        users[place.user].remove(number)
        if not users[place.user]:
            del users[place.user]
        if not users:
            del self._lanes[place.lane]
        return place

    def _in_turn(self) -> Iterator[int]:
        """All who wait, in the order of their slots if none of those that run ended before."""
        slots = Counter(place.lane for place in self._running.values())
        slots_of = Counter((place.lane, place.user) for place in self._running.values())
        lanes = OrderedDict(
            (lane, OrderedDict((user, deque(numbers)) for user, numbers in users.items()))
            for lane, users in self._lanes.items()
        )
        while lanes:
            # Of equals, min gives the first: the one that has waited longest since its last turn.
            lane = min(lanes, key=slots.__getitem__)
            users = lanes[lane]
            user = min(users, key=lambda user: slots_of[lane, user])
            number = users[user].popleft()
            users.move_to_end(user)
            lanes.move_to_end(lane)
            if not users[user]:
                del users[user]
            if not users:
                del lanes[lane]
            slots[lane] += 1
            slots_of[lane, user] += 1
            yield number
