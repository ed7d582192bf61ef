"""The tab with a driver as this side has it, compared with what the driver says of it.

Both adopt the highest state that both have signed (protocol §7). A difference that this does not explain is
kept as a note on the tab, which is shown, and nothing is signed on top of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from infraxa.app import proofs
from infraxa.app.locked import ANSWER_S
from infraxa.net import codec, ratings, wire
from infraxa.net.codec import Signed
from infraxa.net.deals import Receipt
from infraxa.net.errors import ProtocolError
from infraxa.store import tabs
from infraxa.store.db import Connection, Store
from infraxa.store.trade_records import TabRow

if TYPE_CHECKING:
    from infraxa.net.link import Link

_BEGIN: Final = "Nothing is signed: "
"""Of every note that is made here, so that it can be taken away again."""
DIFFERS: Final = f"{_BEGIN}its book has another balance than this one, and no signature explains it."
TWICE: Final = f"{_BEGIN}it made two receipts for one order, both are kept."


def improper(what: str) -> str:
    """The note on a receipt that is not signed for `what` of it: a word of ours."""
    return f"{_BEGIN}a receipt of it is not in order ({what.replace('_', ' ')})."


def note(conn: Connection, provider: bytes, text: str) -> bool:
    """Keep it on the tab; empty: whatever was found before is over. Whether that changed anything."""
    known = tabs.get_tab(conn, "user", provider).note
    if known == text or (not text and not known.startswith(_BEGIN)):
        return False
    tabs.set_note(conn, "user", provider, text)
    return True


async def tell(store: Store, link: Link, account: bytes, provider: bytes) -> tuple[wire.TabState, bool]:
    """Say what this side can prove of the tab, and adopt what the driver can, if that is more; whether both
    books are one then. Raises as Link.ask, and StoreError."""
    told = await link.ask(await store.run(proofs.last, "user", provider), wire.TabState, ANSWER_S)
    tab = await store.run(tabs.get_tab, "user", provider)
    if (told.seq, told.owed) != (tab.signed_seq, tab.owed) and not _proven(told, account, provider):
        return told, False
    kept = wire.TabPlease(told.receipt, told.countersign, told.settlement, told.signature)
    result = await store.run(
        tabs.adopt_state, "user", provider, told.seq, told.owed, proof=codec.encode(kept)
    )
    return told, result in ("same", "adopted")


def continues(tab: TabRow, receipt: Receipt) -> bool:
    """Whether the receipt is the next change of the tab as this side has it."""
    if tab.needs_sync or receipt.owed_before != tab.owed:
        return False
    return receipt.seq > tab.signed_seq and receipt.seq >= tab.seq  # see tabs.promise


def _proven(told: wire.TabState, account: bytes, provider: bytes) -> bool:
    """Whether both have signed what the driver says of the tab."""
    try:
        return told.seq > 0 and proofs.proven(told, account, provider) == (told.seq, told.owed)
    except ProtocolError:
        return False


def rating_blank(blank: Signed | None, account: bytes, provider: bytes) -> bytes | None:
    """What came with an acknowledged receipt, encoded, if the account can rate the provider by it."""
    if blank is None or blank.signer != provider or not codec.verify("rating", blank):
        return None
    try:
        issued: ratings.Blank = codec.decode(blank.body, ratings.Blank, ratings.MAX_BLANK)
    except ProtocolError:
        return None
    return codec.encode(blank) if issued.account == account else None
