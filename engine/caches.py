"""What slots remember, carried out: trimmed, copied from slot to slot, parked in main memory and restored.

Which of it is worth doing is the scheduler's decision. Nothing here can make a request fail: what cannot be
copied is read again.
"""

from __future__ import annotations

from infraxa.engine.jobs import Admitted, Copy, Job
from infraxa.engine.llama import Context
from infraxa.engine.prefixes import Parked, Parking
from infraxa.engine.scheduler import Scheduler
from infraxa.engine.sizing import free_memory

KEEP_FREE = 256 << 20
"""Bytes of main memory that parking leaves free, whatever its budget."""
LOOK_EVERY = 64 << 20
"""Bytes parked between two looks at what is free, which takes as long as a small model's step."""


class Caches:
    def __init__(self, context: Context, scheduler: Scheduler, parking: Parking[bytearray]) -> None:
        self._context = context
        self._scheduler = scheduler
        self._parking = parking
        self._saved: tuple[int, bytearray] | None = None
        """A slot and its state: several may want a copy of it."""
        self._since_look = LOOK_EVERY

    def start(self, admitted: Admitted) -> None:
        """Makes the slot hold what the request begins with."""
        job, n_keep, park, copy = admitted
        if park is not None:
            self._park(job.slot, *park)
        if copy is not None:
            self.copy(copy)
        else:
            self._cut(job, n_keep)

    def copy(self, copy: Copy) -> None:
        job, n, slot, parked = copy
        if parked is None and not self._context.separate:
            self._context.share(slot, job.slot)
            self._cut(job, n)
            return
        state: bytearray | None
        if parked is not None:
            state = parked.state
            if len(parked.tokens) == n:
                self._parking.drop(parked)
            else:
                self._parking.used(parked)
        else:
            state = self._state_of(slot)
        if state is None or not self._context.load(job.slot, state):
            self._context.clear(job.slot)
            self._scheduler.restart(job)
            n = 0
        self._cut(job, n)

    def let_go(self) -> None:
        """No more copies come before the next step."""
        self._saved = None

    def _state_of(self, slot: int) -> bytearray | None:
        saved = self._saved
        if saved is not None and saved[0] == slot:
            return saved[1]
        self._saved = None
        try:
            state = self._context.save(slot)
        except MemoryError:
            return None
        self._saved = slot, state
        return state

    def _park(self, slot: int, user: str, tokens: list[int]) -> None:
        parking, size = self._parking, self._context.state_size(slot)
        self._since_look += size
        if self._since_look > LOOK_EVERY:
            self._since_look = 0
            if size + KEEP_FREE > free_memory():
                # Other programs need it more.
                self._since_look = LOOK_EVERY
                parking.clear()
                return
        if not parking.make_room(size):
            return
        try:
            state = self._context.save(slot)
        except MemoryError:
            parking.clear()
            return
        parking.add(Parked(user, tokens, len(state), state))

    def _cut(self, job: Job, n: int) -> None:
        if self._saved is not None and self._saved[0] == job.slot:
            self._saved = None
        if not self._context.remove(job.slot, n):
            self._context.clear(job.slot)
            self._scheduler.restart(job)
