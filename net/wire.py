"""What nodes say to each other inside a session, each message as a typed struct, with its limits.

A request opens a stream; its answer is chunks on that stream, then the end, or a failure. What is gossiped is
in records.py, how all of it is encoded in codec.py.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from infraxa.net.codec import Id, Signature, Signed
from infraxa.net.records import Address, Micro, Millis, Nonce8, Nonce16, Record, Sequence

MAX_FRAME: Final = 65_535
"""Bytes of one frame on a carrier; the limit of Noise."""
MAX_BODY: Final = 59_900
"""Bytes of one record's body, before padding."""
MAX_HELLO: Final = 4096
"""Bytes of a first message."""
MAX_REJECT: Final = 2816
"""Bytes of a refusal to a first message, which carries a card."""
MAX_PUSH: Final = 64
"""Records in one push."""
MAX_PROMPT: Final = 4 * 1024 * 1024
"""Bytes of an encoded prompt: a million tokens of text."""
MAX_TOP: Final = 20
"""Likeliest tokens that are named with each token of an answer."""
MAX_SCORES: Final = 256
"""Steps of an answer that are computed again."""
MAX_TEXTS: Final = 2048
"""Of which one order makes vectors."""
MAX_PEERS_TOLD: Final = 16
"""Cards in one answer to `PeersPlease`."""
MAX_PROOF: Final = 8 * 1024
"""Of a proof of fraud."""
MAX_WAIT_MS: Final = 3_600_000
"""Of what a trial may say that it took."""


Role = Literal["node", "account"]
Mode = Literal["none", "merkle", "fraud_proof"]
"""How an answer can be checked afterwards. `none`: not at all. `merkle`: its driver commits to every step of
it, and opens some when its user asks. `fraud_proof`: the same, and its user agrees that a lie which shows by
itself is told to everybody."""


class Auth(Struct, array_like=True, frozen=True, tag=1):
    """Who is speaking: a key, and its signature, tag `auth`, over the handshake hash and the role."""

    role: Role
    key: Id
    signature: Signature


class Authenticated(Struct, array_like=True, frozen=True, tag=2):
    """The answer to `Auth`."""

    observed: Address = ""
    """The address that the caller seems to have."""
    now_ms: Millis = 0


class BucketsPlease(Struct, array_like=True, frozen=True, tag=3):
    """Answered with one chunk: the XOR of the record digests in each of 256 buckets, 8 bytes each."""

    salt: Nonce16
    ratings: bool = False
    """Of the ratings; else of all other records."""


class DigestsPlease(Struct, array_like=True, frozen=True, tag=4):
    """Answered with chunks of 8-byte digests: the records in these buckets under this salt."""

    salt: Nonce16
    buckets: Annotated[bytes, Meta(min_length=1, max_length=256)]
    ratings: bool = False


class RecordsPlease(Struct, array_like=True, frozen=True, tag=5):
    """Answered with chunks, each an encoded `Push`: the records with these digests under this salt."""

    salt: Nonce16
    digests: Annotated[bytes, Meta(max_length=8 * 1024)]
    ratings: bool = False


class PeersPlease(Struct, array_like=True, frozen=True, tag=6):
    """Answered with one `Push` of at most MAX_PEERS_TOLD cards of reachable nodes."""

    count: Annotated[int, Meta(ge=1, le=MAX_PEERS_TOLD)] = MAX_PEERS_TOLD


class DialBack(Struct, array_like=True, frozen=True, tag=7):
    """Please try this address of mine, on the host that you see me on. Answered `DialedBack`."""

    address: Address


class DialedBack(Struct, array_like=True, frozen=True, tag=8):
    reached: bool
    reason: Annotated[str, Meta(max_length=64)] = ""


class RelayReserve(Struct, array_like=True, frozen=True, tag=9):
    """Please hand circuits for me on over this link. Answered `RelayReserved`; ends with the link."""


class RelayReserved(Struct, array_like=True, frozen=True, tag=10):
    circuits: Annotated[int, Meta(ge=0, le=65535)]
    bytes_per_second: Annotated[int, Meta(ge=0, le=2**40)]
    bytes_per_day: Annotated[int, Meta(ge=0, le=2**50)]


class RelayDial(Struct, array_like=True, frozen=True, tag=11):
    """Splice this stream to the node `target`, which has reserved. Chunks are sealed frames."""

    target: Id


class RelayDialed(Struct, array_like=True, frozen=True, tag=15):
    """The first chunk of the answer to `RelayDial`: what follows is handed on."""


class RelayIncoming(Struct, array_like=True, frozen=True, tag=12):
    """Relay → reserved node: somebody wants to speak to you on this stream. Chunks are sealed frames."""

    source: Annotated[str, Meta(max_length=64)] = ""
    """The address group of the caller, for limits only."""


class Probe(Struct, array_like=True, frozen=True, tag=13):
    """Tell me at once when your state changes, until I end the stream: chunks are encoded state Records."""


class CardPlease(Struct, array_like=True, frozen=True, tag=14):
    """Answered with one encoded Record: the current card."""


class Order(Struct, array_like=True, frozen=True, tag=37):
    """Please generate, or make vectors. Says nothing of the prompt, which is asked for when there is a place;
    see orders.py.

    Ratios in parts per million, so that nothing signed later holds a float. A field that a driver must not
    ignore comes with another tag, so that one that does not know it refuses the order.
    """

    id: Nonce16
    """Made by the user; never used twice."""
    model: Id
    """A `model_id` of the provider's card."""
    prompt_bytes: Annotated[int, Meta(ge=1, le=MAX_PROMPT)]
    """How long the encoded prompt will be."""
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """End after so many; 0 = until the model stops or its context is full."""
    temperature: Annotated[int, Meta(ge=0, le=5_000_000)] = 800_000
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 40
    top_p: Annotated[int, Meta(ge=0, le=1_000_000)] = 950_000
    min_p: Annotated[int, Meta(ge=0, le=1_000_000)] = 50_000
    repeat_penalty: Annotated[int, Meta(ge=0, le=10_000_000)] = 1_000_000
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None
    quote: Annotated[bytes, Meta(max_length=16)] = b""
    """The id of the quote whose rates hold; empty: it is asked for free of charge."""
    hold: Micro = 0
    """µcr that it may cost at most: the answer ends before it would cost more."""
    presence_penalty: Annotated[int, Meta(ge=-2_000_000, le=2_000_000)] = 0
    frequency_penalty: Annotated[int, Meta(ge=-2_000_000, le=2_000_000)] = 0
    logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP)] | None = None
    """With each token how likely it was, and so many of the likeliest; None: without."""
    texts: Annotated[int, Meta(ge=0, le=MAX_TEXTS)] = 0
    """So many vectors, one for each text of the prompt; 0: an answer."""
    mode: Mode = "none"
    prompt_hash: Annotated[bytes, Meta(max_length=32)] = b""
    """digest("prompt", the encoded prompt), which hides it: it holds 32 random bytes. Empty in mode `none`,
    as `audit`."""
    audit: Annotated[bytes, Meta(max_length=32)] = b""
    """digest("audit", the secret that `AuditPlease` will hold)."""
    scores: Annotated[int, Meta(ge=0, le=MAX_SCORES)] = 0
    """So many steps of the answer that the prompt holds are to be computed; 0: none. See scores.py."""


class QuotePlease(Struct, array_like=True, frozen=True, tag=17):
    """Of an account: lock the rates of this model for one order. Answered `Quoted`."""

    model: Id
    instead: Annotated[bytes, Meta(max_length=16)] = b""
    """The id of an earlier quote that is not needed any more: it is closed."""


class Quoted(Struct, array_like=True, frozen=True, tag=24):
    quote: Signed
    """A deals.Quote."""
    owed: Annotated[int, Meta(ge=-(2**62), le=2**62)]
    """µcr that the account owes, as the provider's book has it, unsigned charges and open holds included."""
    limit: Micro
    """How much it may owe now: no more than its limit, and than what strangers have left today."""
    free_left: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """Free requests that the account has left today."""


class ReceiptPlease(Struct, array_like=True, frozen=True, tag=18):
    """Of an account: what is charged for this order of mine? Answered `Billed`."""

    order: Nonce16


class Billed(Struct, array_like=True, frozen=True, tag=25):
    state: Literal["running", "queued", "due", "signed", "unknown", "tell"]
    """`running`: it is not over yet. `queued`: another receipt is to be countersigned first. `due`: this one
    is. `signed`: it was. `unknown`: nothing is owed for it. `tell`: the provider's book comes from
    a backup; say first what the account signed last, with `TabPlease`."""
    receipt: Signed | None = None
    """A deals.Receipt, when it is `due` or `signed`."""


class CountersignPlease(Struct, array_like=True, frozen=True, tag=19):
    """Of an account: my agreement to a receipt. Answered `Accepted`; again, likewise."""

    order: Nonce16
    countersign: Signed
    """A deals.Countersign."""


class Accepted(Struct, array_like=True, frozen=True, tag=26):
    seq: Sequence
    """The tab's last change."""
    owed: Annotated[int, Meta(ge=-(2**62), le=2**62)]
    """After it."""
    next: Signed | None = None
    """Another receipt that is due now."""
    ratable: Signed | None = None
    """With which the account may rate this answer; see ratings.py."""


class TabPlease(Struct, array_like=True, frozen=True, tag=22):
    """Of an account: what does your book have of me? This is the last change that both of us signed. Answered
    `TabState`."""

    receipt: Signed | None = None
    """When it was a receipt: that and its countersign."""
    countersign: Signed | None = None
    settlement: Signed | None = None
    """When it was a settlement: that, and the signature of the side that did not propose it."""
    signature: Signature | None = None


class TabState(Struct, array_like=True, frozen=True, tag=27):
    seq: Sequence
    owed: Annotated[int, Meta(ge=-(2**62), le=2**62)]
    limit: Micro
    receipt: Signed | None = None
    """The last change, as in `TabPlease`."""
    countersign: Signed | None = None
    settlement: Signed | None = None
    signature: Signature | None = None
    next: Sequence = 0
    """The number of the next change, when it is not one more than `seq`: after a restored backup."""
    due: Signed | None = None
    """A receipt that is to be countersigned."""


class LinkPlease(Struct, array_like=True, frozen=True, tag=23):
    """Of an account: I am this node, and say so with both keys; who are you at mine? Answered `LinkedTo`."""

    linked: Signed
    """A deals.Linked, signed by the node."""
    signature: Signature
    """Of the account, over the same body."""


class LinkedTo(Struct, array_like=True, frozen=True, tag=28):
    linked: Signed | None = None
    """The same of the provider: its own account at the node that asks; None: it does not want that, or has
    none."""
    signature: Signature | None = None


class SettlePlease(Struct, array_like=True, frozen=True, tag=29):
    """Of an account: I propose that my tab is reduced. Answered `Settled`; one id is settled once."""

    settlement: Signed
    """A deals.Settlement, signed by the account key of the debtor."""
    netted: Signed | None = None
    """The settlement in the other direction, signed by the proposer's node key as its creditor: both happen,
    or none."""


class AuditPlease(Struct, array_like=True, frozen=True, tag=38):
    """Of an account: open some steps of this answer of mine, whose receipt is signed. Answered with chunks,
    which joined are an encoded audits.Opening; refused `audit_refused`, with the field `all` for too long an
    answer, and `gone` for one that was served and cannot be opened any more."""

    order: Nonce16
    secret: Id
    """What the order's `audit` is the digest of: it decides which steps."""
    all: bool = False
    """All of them."""


class Settled(Struct, array_like=True, frozen=True, tag=31):
    state: Literal["agreed", "waiting", "refused"]
    """`waiting`: a person has to agree first; ask again."""
    signature: Signature | None = None
    """The creditor's node key's, over the settlement."""
    netted_signature: Signature | None = None
    """The provider's account key's, over the one in the other direction."""
    declined: bool = False
    """`refused` by the person of the creditor, not by what its books say."""


class VocabPlease(Struct, array_like=True, frozen=True, tag=32):
    """Answered with chunks, which joined are the encoded vocabulary with this hash; see vocabs.py."""

    vocab: Id


class TryPlease(Struct, array_like=True, frozen=True, tag=34):
    """Of a peer: buy a tiny answer of this model from me, by the way that everybody has to me and as somebody
    whom I do not know, and say what came of it. Answered `Tried`; see trials.py."""

    model: Id


class Tried(Struct, array_like=True, frozen=True, tag=35):
    """What came of it, which says no more than that this node says so."""

    code: Annotated[str, Meta(max_length=24)] = ""
    """Why there was no answer: an ErrorCode, or another word; empty: there was one."""
    way: Literal["", "direct", "relay", "local"] = ""
    """By which a session was had; `local`: in one local network with the asker."""
    connect_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0
    first_token_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)] = 0
    """From the order to the first token."""
    signed: bool = False
    """The receipt came, and was countersigned."""
    account: Annotated[bytes, Meta(max_length=32)] = b""
    """That ordered, made for this alone; empty: none did."""


Request = (
    Auth
    | BucketsPlease
    | DigestsPlease
    | RecordsPlease
    | PeersPlease
    | DialBack
    | RelayReserve
    | RelayDial
    | RelayIncoming
    | Probe
    | CardPlease
    | Order
    | QuotePlease
    | ReceiptPlease
    | CountersignPlease
    | TabPlease
    | LinkPlease
    | SettlePlease
    | VocabPlease
    | TryPlease
    | AuditPlease
)

Bargain = QuotePlease | ReceiptPlease | CountersignPlease | TabPlease | LinkPlease | SettlePlease
"""Requests of an account about money, each answered with one chunk."""

Answer = (
    Authenticated
    | DialedBack
    | RelayReserved
    | RelayDialed
    | Quoted
    | Billed
    | Accepted
    | TabState
    | LinkedTo
    | Settled
    | Tried
)


class Push(Struct, array_like=True, frozen=True, tag=20):
    """Records, unasked."""

    records: Annotated[tuple[Record, ...], Meta(max_length=MAX_PUSH)]


class Root(Struct, array_like=True, frozen=True, tag=21):
    """Every 10 s: the XOR over the digests of all records that I hold, unsalted, and how many."""

    root: Nonce8
    count: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Proof(Struct, array_like=True, frozen=True, tag=39):
    """That a provider lied, unasked; see proofs.py."""

    proof: Annotated[bytes, Meta(min_length=1, max_length=MAX_PROOF)]


Tell = Push | Root | Proof

ErrorCode = Literal[
    "busy",
    "price_changed",
    "tab_limit",
    "receipt_due",
    "strangers_full",
    "model_gone",
    "too_large",
    "rate_limited",
    "expired",
    "cancelled",
    "unsupported",
    "bad_request",
    "audit_refused",
    "internal",
    "not_allowed",
    "unreachable",
    "leaving",
]


class Failure(Struct, array_like=True, frozen=True):
    """Why a stream ended before its end."""

    code: Annotated[str, Meta(max_length=24)]
    """An ErrorCode; an unknown one is shown as `internal`."""
    retry_after_ms: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    limit: Annotated[int, Meta(ge=0, le=2**62)] = 0
    field: Annotated[str, Meta(max_length=32)] = ""
