"""The plain values that the store keeps and gives back."""

from __future__ import annotations

from typing import Literal

import msgspec

MessageRole = Literal["user", "assistant"]
MessageState = Literal["streaming", "complete", "stopped", "failed", "interrupted"]
"""`streaming`: being written now. `stopped`: by the person. `failed`: see `Message.error`.
`interrupted`: the program ended in mid-answer; found and marked at the next start."""


class Reader(msgspec.Struct, frozen=True):
    """A node that was sent a prompt."""

    id: str
    """As people write it."""
    name: str = ""
    """As it was claimed then."""


class DriverPart(msgspec.Struct, frozen=True):
    """Who wrote the text of an answer from a place on."""

    id: str = ""
    """As people write it; empty: this machine."""
    name: str = ""
    model: str = ""
    """The name of its model, as claimed."""
    at: int = 0
    """Characters of the answer before its part."""
    reason: str = ""
    """Why it is not the one before any more; one sentence. Empty for the first."""


class Bill(msgspec.Struct, frozen=True):
    """What one order of an answer cost. Amounts in µcr, prices per 1M tokens."""

    order: str
    """Its number, in hex."""
    driver: str
    """As people write its id."""
    price_in: int = 0
    price_out: int = 0
    hold: int = 0
    """It could cost so much at most."""
    n_prompt: int = 0
    n_cached: int = 0
    n_out: int = 0
    """As the driver counts, once it has said."""
    counted: int | None = None
    """Tokens of the answer as counted here with the model's vocabulary; None: it is not here."""
    charge: int = 0
    """As agreed, or expected."""
    disputed: int = 0
    """That the driver wants besides."""
    state: Literal["open", "due", "signed", "disputed", "unclaimed", "released"] = "open"
    """`due`: it ended, and no receipt is countersigned yet. `released`: nothing is owed."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether one order of an answer was computed as was agreed, as far as this side knows."""

    order: str
    """Its number, in hex."""
    driver: str
    """As people write its id."""
    state: Literal["unverified", "signed", "checking", "passed", "failed", "undetermined"]
    """`unverified`: the driver committed to nothing. `signed`: it signed what it computed, and can be held to
    it. `checking`: an audit runs. `passed`, `failed`, `undetermined`: what came of it."""
    why: str = ""
    """A code. Unverified: `sampling` (this kind of sampling is not verified), `not_offered`, `own_setting`.
    Signed, when an audit was wanted and did not begin or could not go on: `no_file`, `not_loaded`. Not
    determined: `no_calibration`, `backend`, `silent`, `gone` (the driver does not keep its steps any more),
    `few` (too few tokens), `other_prompt`, `other_text`, `wrong_end`, `varying` (the prompt cannot be put
    together again), `near`, `no_noise` (the noise of the file cannot be known); by referees also `no_referee`
    (none computed it), `one_referee` (one found a lie, and nobody else confirmed it), `disagree`.
    Failed: `wrong_token`, `wrong_leaf`, `wrong_end`, `two_receipts`, `other_model`, `other_prompt`,
    `other_text`, `bad_opening`."""
    by: Literal["", "own", "referee"] = ""
    """Who compared it with the model."""
    opened: int = 0
    """Steps that the driver has shown."""
    steps: int = 0
    """That it computed."""
    ratio: float | None = None
    """How far its numbers are from the model's, in the honest noise of the file: 1 is as far."""
    proof: bool = False
    """A proof that anybody can check is kept."""


class AnswerFacts(msgspec.Struct, frozen=True):
    """What was measured of one answer; times in milliseconds."""

    model: str = ""
    """The name that the person knows the model by."""
    finish: str = ""
    """`stop`, `length`, `cancelled` or `failed`."""
    n_prompt: int = 0
    n_cached: int = 0
    n_out: int = 0
    first_token_ms: float | None = None
    decode_ms: float = 0.0
    tokens_per_second: float | None = None
    dropped_turns: int = 0
    """How many of the oldest turns the person agreed to leave out of the prompt."""
    error_code: str = ""
    """For programs, when it failed; the sentence is `Message.error`."""
    drivers: tuple[DriverPart, ...] = ()
    """Who answered, in order; empty: this machine alone."""
    readers: tuple[Reader, ...] = ()
    """Every other node that was sent the prompt, whether it answered or not, in order; referees, too."""
    connect_ms: float | None = None
    """Until the session with the driver stood; None: there was one, or none was needed."""
    wait_ms: float | None = None
    """In line at the driver."""
    blame: Literal["", "own", "relay", "peer"] = ""
    """Whose fault it was, when a driver failed: this machine's own network, a relay, the driver."""
    bills: tuple[Bill, ...] = ()
    """One for each order that was made for it."""
    stars: int = 0
    """That the person gave it, 1 to 5; 0: none."""
    verdicts: tuple[Verdict, ...] = ()
    """One for each order that was made for it."""


class Message(msgspec.Struct, frozen=True):
    """One turn.

    The messages of a chat form a tree: editing or regenerating adds a sibling, nothing is overwritten.
    """

    id: str
    """ULID: sorts by creation."""
    chat_id: str
    parent_id: str | None
    role: MessageRole
    content: str
    state: MessageState
    created_at: int
    """Milliseconds since the epoch."""
    facts: AnswerFacts | None = None
    """For answers, once known."""
    error: str = ""
    """One sentence with the remedy, when `failed`."""


class Turn(msgspec.Struct, frozen=True):
    """A message of the branch that is shown, and its place among its siblings (1-based)."""

    message: Message
    sibling_ids: tuple[str, ...]
    """All versions of this turn, oldest first, this one included."""

    @property
    def index(self) -> int:
        return self.sibling_ids.index(self.message.id) + 1


class ChatOptions(msgspec.Struct, frozen=True):
    """What a person set for one chat; None = the default of the model or of the settings."""

    model: str | None = None
    driver: str | None = None
    """`local`: this machine; `auto`: infraxa chooses; else the id of a node, as people write it."""
    driver_model: str | None = None
    """The model_id, in hex, that the driver is to answer with; None: its first, or any."""
    max_price: int | None = None
    """µcr per 1M tokens of an answer, whoever gives it; None: as the setting says."""
    failover: Literal["ask", "auto", "off"] | None = None
    """Whether another driver goes on when one fails."""
    system: str | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None


class Chat(msgspec.Struct, frozen=True):
    """One conversation."""

    id: str
    title: str
    """Empty until the first message names it."""
    created_at: int
    updated_at: int
    head_id: str | None
    """The last message of the branch that is shown; None while the chat is empty."""
    options: ChatOptions = ChatOptions()
    draft: str = ""
    """What was typed and not sent."""


class ChatSummary(msgspec.Struct, frozen=True):
    """A chat as a list shows it."""

    id: str
    title: str
    created_at: int
    updated_at: int
    preview: str
    """The beginning of the last message that is shown, in one line."""


class SearchHit(msgspec.Struct, frozen=True):
    """A message that contains the words searched for, or a chat whose title does."""

    chat_id: str
    chat_title: str
    message_id: str | None
    """None when the title matched."""
    snippet: str
    """The words around the match, the match between U+E000 and U+E001 (private use: never in text)."""


class ModelRecord(msgspec.Struct, frozen=True):
    """A model file on this machine that the person added. The built-in guide is not in the store."""

    name: str
    path: str
    sha256: str
    size: int
    """Bytes."""
    mtime_ns: int
    """Of the file when it was hashed: another one means that the hash must be made again."""
    added_at: int
    metadata: bytes
    """What the engine read from the file, as JSON; opaque here."""


class PrekeyRecord(msgspec.Struct, frozen=True):
    """A prekey of this node's sessions."""

    secret: bytes
    public: bytes
    made_ms: int
    expires_ms: int


class NodeRecord(msgspec.Struct, frozen=True):
    """Another node that was spoken to."""

    id: bytes
    name: str
    """As it was first seen."""
    addresses: tuple[str, ...]
    """Those that worked, newest first."""
    last_contact_ms: int


class BanRecord(msgspec.Struct, frozen=True):
    """A node that nothing is taken from for a while."""

    node: bytes
    until_ms: int
    reason: str


class DriverRecord(msgspec.Struct, frozen=True):
    """What was seen of a node as a driver, with one of its models."""

    node: bytes
    model: bytes
    """The `model_id`."""
    changed_ms: int
    evidence: bytes
    """What the rules of routing keep, encoded; opaque here."""


class NetworkRecord(msgspec.Struct, frozen=True):
    """A network that was joined by invites."""

    name: str
    psk: bytes | None
    """Its key, when it is private."""
    nodes: tuple[tuple[bytes, tuple[str, ...]], ...]
    """Ids to begin with, and their addresses."""


class BlockedUserRecord(msgspec.Struct, frozen=True):
    """A user that this provider does not serve."""

    user: bytes
    """The key by which this provider knows it."""
    since_ms: int
    note: str


class StoreError(Exception):
    """The store could not do what was asked.

    Codes: `newer_schema` `read_only` `disk_full` `locked` `corrupt` `not_found` `exists` `io` `closed`.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
