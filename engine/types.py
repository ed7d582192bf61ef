"""The plain values that go in and out of the engine: what to generate, what came, what went wrong.

They are also what travels over the pipe between host and worker, so each is a msgspec struct.
"""

from __future__ import annotations

from typing import Literal

import msgspec

KvType = Literal["f16", "q8_0", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]
Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "failed"]


class ToolCall(msgspec.Struct, frozen=True):
    """The assistant wants a function of its user to be called."""

    id: str
    name: str
    arguments: str
    """A JSON object, as text."""


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation as the chat template sees it."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """What an assistant's turn asked for."""
    tool_call_id: str = ""
    """Which of them a tool's turn answers."""


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may ask to be called."""

    name: str
    description: str = ""
    parameters: str = "{}"
    """JSON Schema of its arguments, as text."""


class Format(msgspec.Struct, frozen=True):
    """What the answer has to be, whatever the model would rather say."""

    kind: Literal["json_object", "json_schema"]
    schema: str = ""
    """JSON Schema, as text."""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the next token is chosen. The defaults are llama.cpp's own."""

    temperature: float = 0.8
    """0 picks the likeliest token every time."""
    top_k: int = 40
    """Only the k likeliest tokens; 0 = all."""
    top_p: float = 0.95
    """Only the likeliest tokens that together reach this probability; 1 = all."""
    min_p: float = 0.05
    """Only tokens at least this likely, relative to the likeliest; 0 = all."""
    repeat_penalty: float = 1.0
    """Above 1, tokens of the last 64 become less likely; 1 = off."""
    seed: int | None = None
    """Fixes the draw; None = another one each time."""
    max_tokens: int | None = None
    """End after so many tokens; None = until the model stops or its context is full."""
    stop: tuple[str, ...] = ()
    """End before any of these strings; they are not part of the answer."""
    presence_penalty: float = 0.0
    """Taken off the logit of each token that is among the last 64."""
    frequency_penalty: float = 0.0
    """The same, for each time that it is there."""


class Budget(msgspec.Struct, frozen=True):
    """What a generation may cost at most: it ends before its tokens cost more."""

    most: int
    per_million_in: int
    """For a million tokens of the prompt, in the same unit."""
    per_million_out: int

    def tokens(self, n_prompt: int) -> int | None:
        """How many the answer to so long a prompt may have; below 0: not even the prompt is covered; None:
        they cost nothing."""
        left = self.most * 1_000_000 - n_prompt * self.per_million_in
        if left < 0:
            return -1
        return left // self.per_million_out if self.per_million_out else None


class Verified(msgspec.Struct, frozen=True):
    """An answer whose every token can be checked later: its draw is repeatable, and each step is committed to
    (transcript.py)."""

    order: bytes
    """16 bytes."""
    seed: bytes
    """32 bytes, of both sides (gumbel.seed_of)."""
    salt: bytes
    """32 bytes of whom the answer is for."""
    ppm: tuple[int, int, int, int]
    """Temperature in millionths, top_k, top_p and min_p in millionths: these decide, and not the request's
    own sampling."""

    def __repr__(self) -> str:
        """Without what nobody else knows."""
        return f"Verified({self.order.hex()})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("order", self.order.hex())]


class Request(msgspec.Struct, frozen=True):
    """One generation.

    `messages` go through the model's own chat template. When the last one is an assistant's, its text is
    continued (the template's end-of-turn is left out), which is how a cut answer goes on. Without messages,
    `prompt` is continued as it is.
    """

    messages: tuple[ChatMessage, ...] = ()
    sampling: Sampling = Sampling()
    user: str = ""
    """Whom fairness counts this request for; empty: the person of this machine, who is before all others."""
    budget: Budget | None = None
    """None: it may cost anything."""
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the one that must be called."""
    format: Format | None = None
    logprobs: int | None = None
    """With each token its log-probability and those of so many likeliest ones; None: without."""
    verified: Verified | None = None


class LoadOptions(msgspec.Struct, frozen=True):
    """How a model is loaded; None = chosen by what the machine has free."""

    n_ctx: int | None = None
    """Tokens of context that one conversation can use."""
    slots: int = 8
    """How many requests are generated at the same time."""
    threads: int | None = None
    gpu_layers: int | None = None
    memory_limit: int | None = None
    """Bytes that the model and its contexts may take together; None = what is free."""
    park_bytes: int | None = None
    """Main memory for conversations that lost their slot; 0 = none, None = a part of what is free."""
    kv_type: KvType = "f16"
    """How the cache keeps its numbers: the smaller ones need flash attention."""
    flash_attention: FlashAttention = "auto"
    unified_kv: bool = False
    """One cache that all conversations share, instead of one each: what several begin with is kept once, and
    what idle ones remember slows the others."""
    kept_free: int = 0
    """Bytes that look free and are not: other models' weights are mapped into them, or soon will be."""


class Loaded(msgspec.Struct, frozen=True):
    """What the worker opened."""

    path: str
    n_ctx: int
    """Tokens of context that one conversation can use."""
    n_ctx_train: int
    slots: int
    threads: int
    gpu_layers: int
    pid: int
    load_ms: int
    kv_type: KvType = "f16"
    flash_attention: FlashAttention = "auto"
    park_bytes: int = 0
    """Main memory that conversations without a slot may take besides."""
    chat: bool = True
    """It can answer."""
    embeds: bool = True
    """It can say in numbers what a text means."""
    backend: str = "cpu"
    """What computes it: `cpu`, `cuda`, `metal`, `vulkan`, or as llama.cpp calls it."""
    version: str = ""
    """Of llama.cpp."""
    varying: bool = False
    """Its chat template may make another prompt of the same conversation: see template.varies."""


class Embedded(msgspec.Struct, frozen=True):
    """What texts mean, one of each for each text."""

    vectors: tuple[bytes, ...]
    """Of length 1, as little-endian 32-bit floating-point numbers."""
    n_tokens: tuple[int, ...]


class ScoredRow(msgspec.Struct, frozen=True, array_like=True):
    """What the loaded model computes at one step of an answer. Little-endian 32-bit integers; logits are
    signed, in 1/4096."""

    ids: bytes
    """Of the likeliest tokens, ordered as in a leaf (transcript.py)."""
    q: bytes
    """Their logits."""
    at: bytes = b""
    """Logits of the tokens that were asked for."""


class Scored(msgspec.Struct, frozen=True):
    """An answer, as the loaded model would have computed it."""

    n_prompt: int
    prompt_ids: bytes
    """Little-endian uint32."""
    rows: tuple[ScoredRow, ...]
    """One for each step that was asked for, in that order."""
    end: int = -1
    """The first token of the answer that ends the turn or completes a stop string; -1: none does."""
    text: bytes = b""
    """The hash of what its tokens say (said.text_hash), or of as much of it as was asked for."""


class Usage(msgspec.Struct, frozen=True):
    """Counts and times of one generation, measured in the worker. Times in milliseconds."""

    n_prompt: int = 0
    n_cached: int = 0
    """How many of the prompt tokens were still in memory from an earlier turn."""
    n_out: int = 0
    queued_ms: float = 0.0
    first_token_ms: float | None = None
    """From the request's arrival to its first token; None when there was none."""
    decode_ms: float = 0.0
    """From the first token to the last."""

    @property
    def tokens_per_second(self) -> float | None:
        """Rate after the first token; None for answers of fewer than two tokens."""
        if self.n_out < 2 or self.decode_ms <= 0:
            return None
        return (self.n_out - 1) * 1000 / self.decode_ms


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """How likely a token of the answer was, before sampling changed anything: natural logarithms."""

    token: int
    piece: bytes
    """The bytes that it stands for."""
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()
    """The likeliest tokens at this place: id, bytes, logprob."""


class Delta(msgspec.Struct, frozen=True, tag=True):
    """What came since the last one: whole characters, and the ids of the tokens behind them.

    `text` may be empty while a character or a possible stop string is incomplete.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each id, when they were asked for."""
    leaves: tuple[bytes, ...] = ()
    """Of a verified answer, one for each token that was sampled, also for those that are nothing said: what
    ends the turn, and control tokens."""
    ctx0: bytes = b""
    """What its first leaf stands on (transcript.ctx0); on its first Delta."""


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The end of a generation; always the last thing it yields."""

    reason: FinishReason
    usage: Usage
    error: ErrorInfo | None = None
    """Why, when the reason is `failed`."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """The prompt is being read: `done` of `total` tokens; nothing was generated yet."""

    done: int
    total: int


class ErrorInfo(msgspec.Struct, frozen=True):
    """An error as a plain value: a code for programs, a sentence and a remedy for people."""

    code: str
    message: str
    remedy: str = ""


class EngineError(Exception):
    """The engine could not do what was asked.

    Codes: `not_found` `not_gguf` `truncated` `unsupported` `no_memory` `load_failed` `no_template`
    `prompt_too_long` `over_budget` `bad_request` `no_token` `compute_failed` `worker_died` `timeout`
    `closed`.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy

    @property
    def info(self) -> ErrorInfo:
        return ErrorInfo(self.code, self.message, self.remedy)


class PromptTooLong(EngineError):
    """The prompt does not fit the context."""

    def __init__(self, n_prompt: int, n_ctx: int) -> None:
        super().__init__(
            "prompt_too_long",
            f"The conversation is {n_prompt} tokens long, and this model's context holds {n_ctx}.",
            "Drop the oldest turns, start a new chat, or choose a model with a larger context.",
        )
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx


class EngineStatus(msgspec.Struct, frozen=True):
    """What the engine is doing now; a value to show, replaced and never changed."""

    state: Literal["off", "starting", "loading", "ready", "restarting", "failed"] = "off"
    model: str = ""
    """The path of the model file."""
    progress: float | None = None
    """0 to 1 while loading."""
    loaded: Loaded | None = None
    error: ErrorInfo | None = None
    """Why it failed or restarts."""
    running: int = 0
    waiting: int = 0
    retry_at: float | None = None
    """Monotonic time of the next attempt while restarting."""
