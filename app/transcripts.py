"""What this provider commits to of the answers that it sells, and opens when their users ask.

A transcript is begun with its order, grows with its answer and is kept in memory alone, for a while: it holds
what was said. What a leaf is and how a tree is made is in engine/transcript.py, when what is said in sales.py
and turns.py, what outlives this program in the ledger.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from infraxa.engine.gumbel import seed_of
from infraxa.engine.transcript import HASH, LEAF_BYTES, Tree, challenge, committed, output_hash, token_of
from infraxa.engine.types import Delta, Verified
from infraxa.net import codec, deals, wire
from infraxa.net.prompts import Prompt

if TYPE_CHECKING:
    from infraxa.net.customers import Customer

WINDOW_S: Final = 3600.0
"""A transcript can be opened for so long after the end of its answer."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all transcripts, those that are being written too; the oldest of the account with the most go first."""
KEPT_BYTES: Final = 1024
"""What one takes besides its leaves."""
GROWING_BYTES: Final = 2 * HASH + 4
"""Of each step while it is written, besides its leaf: what the tree has of it, and its token."""
MAX_ASKED: Final = 8
"""How often one is opened: its user may have lost the answer, and asks for all steps after some."""
STEP_BYTES: Final = LEAF_BYTES + 8
"""Of a step in an opening of all: its leaf, its token, and where they begin."""
QUICK_STEPS: Final = 1000
"""The tree of so many is made at once, that of more beside the other work of this program."""


class Written:
    """One answer while it is written: what its tokens are drawn by, and what is committed to."""

    def __init__(self, window: Transcripts, account: bytes, order: wire.Order, draw: bytes) -> None:
        """`draw`: this side's half of the draw, 32 random bytes."""
        self.order = order
        self.commit = codec.digest("draw", draw)
        """What is said of the half before the user's is known."""
        self.steps = 0
        """Tokens that were sampled."""
        self._window = window
        self._account = account
        self._draw = draw
        self._said_draw = False
        self._prompt = Prompt()
        self._profile = ""
        self._ctx0 = b""
        self._tree = Tree()
        self._tokens = bytearray()
        self._leaves: bytearray | None = bytearray()
        """None: there was no room."""
        self._taken = 0
        """Bytes of the window."""
        self._over = False
        self._said: bytes | None = None

    def begin(self, prompt: Prompt, profile: str) -> Verified:
        """Its prompt is here, and it is answered by an engine of this profile; what another engine wrote that
        was lost does not count."""
        self._forget()
        self._prompt, self._profile, self.steps = prompt, profile, 0
        order = self.order
        request = deals.request_hash(codec.encode(order))
        return Verified(
            order=order.id,
            seed=seed_of(order.id, prompt.draw, self._draw, request),
            salt=prompt.salt,
            ppm=(order.temperature, order.top_k, order.top_p, order.min_p),
        )

    def take(self, delta: Delta) -> Iterator[tuple[int, bytes]]:
        """More was sampled. Gives the checkpoints that are due before any of it is said: each a number of
        steps, and what is committed to."""
        from infraxa.net.orders import CHECKPOINT

        self._ctx0 = self._ctx0 or delta.ctx0
        for leaf in delta.leaves:
            self.steps += 1
            self._tree.append(leaf)
            self._tokens += token_of(leaf)
            if self._leaves is not None and self._take(self.steps * (LEAF_BYTES + GROWING_BYTES)):
                self._leaves += leaf
            else:
                self._leaves = None  # it goes on: its receipt takes the tree
                self._take(self.steps * GROWING_BYTES, must=True)
            if self.steps % CHECKPOINT == 0:
                yield self.steps, committed(self.steps, self._tree.root())

    def draw(self) -> bytes:
        """This side's half of the draw, to be told with the first piece; after that nothing."""
        if self._said_draw:
            return b""
        self._said_draw = True
        return self._draw

    def end(self, *, whole: bool) -> bytes | None:
        """It is over, and can be opened from now on. Gives what its receipt says of it, encoded; None when
        nothing was sampled of an answer that is not `whole`. The same when it is asked again."""
        if self._over:
            return self._said
        self._over = True
        steps = self.steps
        if steps or whole:
            root = committed(steps, self._tree.root())
            tokens = struct.unpack(f"<{steps}I", self._tokens)
            said = deals.Transcript(
                mode=self.order.mode,
                ctx0=self._ctx0 or bytes(32),
                steps=steps,
                root=root,
                output=output_hash(self._prompt.salt, tokens),
                draw_u=self._prompt.draw,
                draw_p=self._draw,
                profile=self._profile,
            )
            self._said = codec.encode(said)
            if self._leaves:
                leaves = bytes(self._leaves)
                self._forget()
                self._window.keep(self._account, self.order, root, leaves)
        self._forget()
        return self._said

    def _take(self, size: int, *, must: bool = False) -> bool:
        """So many bytes of the window, in place of those that it has; whether there is room, else none."""
        self._window.give_back(self._account, self._taken)
        self._taken = size if size and self._window.room(self._account, size, must=must) else 0
        return self._taken == size

    def _forget(self) -> None:
        self._take(0)
        self._ctx0, self._tree, self._tokens, self._leaves = b"", Tree(), bytearray(), bytearray()


@dataclass(eq=False)
class _Kept:
    """One that can be opened."""

    order: bytes
    audit: bytes
    """digest("audit", the secret that opens it)."""
    root: bytes
    """As in the receipt."""
    leaves: bytes
    """Joined."""
    expires: asyncio.TimerHandle
    asked: int = 0

    def __repr__(self) -> str:
        """Without what was said."""
        return f"_Kept({self.order.hex()})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("order", self.order.hex())]

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.leaves) + KEPT_BYTES

    @property
    def steps(self) -> int:
        return len(self.leaves) // LEAF_BYTES


async def _served_nothing(account: bytes, order: bytes) -> bool:
    return False


class Transcripts:
    """Those of one provider. All methods belong to one event loop."""

    def __init__(
        self,
        randbytes: Callable[[int], bytes] = os.urandom,
        served: Callable[[bytes, bytes], Awaitable[bool]] = _served_nothing,
    ) -> None:
        """`served`: whether an order of this account was answered, and committed to."""
        self._randbytes = randbytes
        self._served = served
        self._kept: dict[bytes, OrderedDict[bytes, _Kept]] = {}
        """By account and order, the oldest of each account first."""
        self._bytes: dict[bytes, int] = {}
        """By account."""
        self._all = 0
        """Of all of them."""
        self._opens = asyncio.Lock()
        """One tree is made at a time."""

    def close(self) -> None:
        """Forget all of them."""
        for account, order in [(account, order) for account, some in self._kept.items() for order in some]:
            self._drop(account, order)

    def write(self, account: bytes, order: wire.Order) -> Written:
        """Begin that of an order, before anything of its prompt is known."""
        return Written(self, account, order, self._randbytes(32))

    async def audit(self, customer: Customer, request: wire.AuditPlease) -> bytes | wire.Failure:
        """Open an answer of this account: encoded, and the same whenever it is asked for."""
        from infraxa.net import audits

        orders = self._kept.get(customer.account)
        kept = None if orders is None else orders.get(request.order)
        if kept is None:
            gone = await self._served(customer.account, request.order)
            return wire.Failure("audit_refused", field="gone" if gone else "order")
        if codec.digest("audit", request.secret) != kept.audit:
            return wire.Failure("audit_refused", field="secret")
        if request.all and kept.steps * STEP_BYTES > audits.MAX_OPENING:
            return wire.Failure("audit_refused", field="all")
        kept.asked += 1
        if kept.asked > MAX_ASKED:
            return wire.Failure("audit_refused", limit=MAX_ASKED)
        async with self._opens:
            if kept.steps <= QUICK_STEPS:
                return _opened(kept, request)
            return await asyncio.to_thread(_opened, kept, request)

    def keep(self, account: bytes, order: wire.Order, root: bytes, leaves: bytes) -> None:
        """It can be opened for WINDOW_S, unless there is no room."""
        expires = asyncio.get_running_loop().call_later(WINDOW_S, self._drop, account, order.id)
        kept = _Kept(order.id, order.audit, root, leaves, expires)
        self._drop(account, order.id)
        if self.room(account, kept.size):
            self._kept.setdefault(account, OrderedDict())[order.id] = kept
        else:
            expires.cancel()

    def room(self, account: bytes, size: int, *, must: bool = False) -> bool:
        """Whether so many more bytes may be taken for this account, and are. For it goes what can be opened:
        the oldest of whoever has the most then, so that nobody pushes out what others have. `must`: also
        where nothing may go."""
        self._bytes[account] = self._bytes.get(account, 0) + size
        self._all += size
        while self._all > MAX_BYTES:
            most = max(self._kept, key=self._bytes.__getitem__, default=b"")
            if self._bytes.get(most, 0) < self._bytes[account]:
                if not must:
                    self.give_back(account, size)
                return must
            self._drop(most, next(iter(self._kept[most])))
        return True

    def give_back(self, account: bytes, size: int) -> None:
        """So many bytes are not needed any more."""
        if not size:
            return
        self._all -= size
        self._bytes[account] -= size
        if not self._bytes[account]:
            del self._bytes[account]

    def _drop(self, account: bytes, order: bytes) -> None:
        orders = self._kept.get(account)
        kept = None if orders is None else orders.pop(order, None)
        if orders is None or kept is None:
            return
        if not orders:
            del self._kept[account]
        kept.expires.cancel()
        self.give_back(account, kept.size)


def _opened(kept: _Kept, request: wire.AuditPlease) -> bytes:
    from infraxa.net import audits
    from infraxa.net.orders import CHECKPOINT

    steps = kept.steps
    leaves = [kept.leaves[at : at + LEAF_BYTES] for at in range(0, len(kept.leaves), LEAF_BYTES)]
    tokens = b"".join(token_of(leaf) for leaf in leaves)
    if request.all or steps <= audits.OPENED:
        return audits.encode(audits.Opening(tokens, tuple(leaves)))
    tree = Tree()
    for leaf in leaves:
        tree.append(leaf)
    opened = challenge(request.secret, kept.root, kept.order, steps, audits.OPENED)
    return audits.encode(
        audits.Opening(
            tokens,
            tuple(leaves[step] for step in opened),
            tuple(b"".join(tree.path(step)) for step in opened),
            tuple(
                tree.root(n) + b"".join(tree.consistency(n)) for n in range(CHECKPOINT, steps + 1, CHECKPOINT)
            ),
            tree.root(),
        )
    )
