"""A rating: one to five stars that somebody who was served gives a provider, and that nobody else can give.

With a countersigned receipt the provider issues a *blank*: its signature over the account, the day, how much
was charged, about, and a hash of the order. The user fills it in and signs the whole with its account key. So
only who was served can rate, once per answer, and the provider can neither write nor change what is said. It
can serve itself under a thousand accounts: what a rating weighs is therefore not said by it, but by what the
reader knows of its writer (reputation.py).

What is told to everybody: that this account was served by this provider on this day for an amount between
two powers of two, and what it thought of it. Whose account it is, nobody learns of it, unless the person
chooses to say which node it is: then a statement of the node (deals.Linked) goes along, which anybody can
read.
How ratings are kept and spread is in rating_table.py and rating_gossip.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta, Struct

from infraxa.net import codec, deals
from infraxa.net.codec import Id, Signed, Tag
from infraxa.net.errors import ProtocolError
from infraxa.net.identity import Signer
from infraxa.net.records import Nonce16

MAX_RATING: Final = 640
"""Bytes of a rating's body."""
MAX_BLANK: Final = 128
"""Bytes of a blank's body: what is more would be kept for nothing."""
KEPT_DAYS: Final = 180
"""Six half-lives: an older one says next to nothing."""
DAYS_AHEAD: Final = 1
"""So far may the provider's clock, or the reader's, be off."""
DAY_MS: Final = 24 * 3600 * 1000

Day = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""UTC days since the epoch."""


class Blank(Struct, array_like=True, frozen=True):
    """That an order was served. Signed by the provider's node key, tag `rating`."""

    account: Id
    day: Day
    bucket: Annotated[int, Meta(ge=0, le=63)]
    """Binary digits of the accepted charge in µcr: 0 = it was free, b = at least 2 ** (b - 1)."""
    order: Nonce16
    """First 16 bytes of digest("rating", id of the order)."""


class Filled(Struct, array_like=True, frozen=True):
    """What was thought of it. Signed by the account key, tag `rating`; it begins with a number and a blank
    with bytes, so that none can be taken for the other."""

    stars: Annotated[int, Meta(ge=1, le=5)]
    blank: Signed
    linked: Signed | None = None
    """A deals.Linked of the writer's node, if its person chose to say who it is."""


class Rating(Struct, frozen=True):
    """A rating whose signatures held."""

    provider: bytes
    account: bytes
    stars: int
    day: int
    bucket: int
    order: bytes
    node: bytes = b""
    """The writer's node, when it says so."""

    @property
    def amount(self) -> int:
        """µcr that were charged at least."""
        return 1 << (self.bucket - 1) if self.bucket else 0


def day_of(now_ms: int) -> int:
    """The UTC day of a time."""
    return now_ms // DAY_MS


def blank(provider: Signer, account: bytes, day: int, charge: int, order: bytes) -> Signed:
    """What `account` may rate this order by. `charge`: µcr that were accepted."""
    value = Blank(account, day, charge.bit_length(), codec.digest("rating", order)[:16])
    return provider.sign("rating", codec.encode(value))


def filled(account: Signer, blank: Signed, stars: int, linked: Signed | None = None) -> Signed:
    """The rating. `linked`: see Filled. Raises ProtocolError when the blank is not for this account, and
    ValueError when there are not one to five `stars`."""
    if not 1 <= stars <= 5:
        raise ValueError("one to five stars")
    if codec.decode(blank.body, Blank).account != account.id:
        raise ProtocolError("not_asked", "a blank of another account")
    return account.sign("rating", codec.encode(Filled(stars, blank, linked)))


def check(signed: Signed, now_day: int, verify: Callable[[Tag, Signed], bool] = codec.verify) -> Rating:
    """The rating, if all of it was signed by those it names. Costs two signature checks, three with `linked`.

    Raises ProtocolError: bad_signature, malformed, too_large; stale (older than KEPT_DAYS or of a day to
    come); not_allowed (a provider's word about itself); not_asked (of another account).
    """
    if len(signed.body) > MAX_RATING:
        raise ProtocolError("too_large", "rating")
    if not verify("rating", signed):
        raise ProtocolError("bad_signature", "rating")
    said: Filled = codec.decode(signed.body, Filled)
    issued: Blank = codec.decode(said.blank.body, Blank)
    provider, account = said.blank.signer, issued.account
    if signed.signer != account:
        raise ProtocolError("not_asked", "a rating by another account")
    if not now_day - KEPT_DAYS <= issued.day <= now_day + DAYS_AHEAD:
        raise ProtocolError("stale", "rating")
    if not verify("rating", said.blank):
        raise ProtocolError("bad_signature", "blank")
    node = b""
    if said.linked is not None:
        node = said.linked.signer
        link: deals.Linked = codec.decode(said.linked.body, deals.Linked)
        if (link.node, link.account, link.provider) != (node, account, provider):
            raise ProtocolError("not_asked", "a link of others")
        if not verify("link", said.linked):
            raise ProtocolError("bad_signature", "link")
    if provider in (account, node):
        raise ProtocolError("not_allowed", "of itself")
    return Rating(provider, account, said.stars, issued.day, issued.bucket, issued.order, node)
