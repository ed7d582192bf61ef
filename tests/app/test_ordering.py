"""Conversations and sampling as a driver is told them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from infraxa.app.ordering import continued, order_of, prompt_of, request_of, shortened, tokens
from infraxa.engine.types import ChatMessage, Request, Role, Sampling
from infraxa.net import codec, wire

NUMBER = st.floats(allow_nan=False)


def chats(min_turns: int = 1) -> st.SearchStrategy[tuple[ChatMessage, ...]]:
    """Turns in turn, maybe after a system message; the last is the person's or a begun answer."""
    texts = st.lists(st.text(max_size=60), min_size=min_turns, max_size=12)

    def chat(system: bool, texts: list[str]) -> tuple[ChatMessage, ...]:
        roles: tuple[Role, Role] = ("user", "assistant")
        said = tuple(ChatMessage(roles[at % 2], text) for at, text in enumerate(texts))
        return (ChatMessage("system", "Be brief."), *said) if system else said

    return st.builds(chat, st.booleans(), texts)


@given(chats(), st.integers(1, 400))
@settings(deadline=None, max_examples=300)
def test_the_oldest_turns_go_and_what_is_left_is_a_conversation(
    said: tuple[ChatMessage, ...], context: int
) -> None:
    kept, dropped = shortened(said, context)
    assert len(kept) + dropped == len(said)
    system = [message for message in said if message.role == "system"]
    assert list(kept[: len(system)]) == system
    rest = kept[len(system) :]
    assert rest == said[len(said) - len(rest) :], "the newest stay, in order"
    assert rest[0].role == "user"
    questions = [message for message in said if message.role == "user"]
    assert dropped > 0 or len(questions) == 1
    room = min(context, tokens(said)) * 3 // 4
    assert tokens(kept) <= room or sum(message.role == "user" for message in kept) == 1
    # The fewest: with the question before the first that is kept, it would be too long.
    before = [at for at, message in enumerate(said[: len(said) - len(rest)]) if message.role == "user"]
    if dropped and before and before[-1] > len(system):
        assert tokens((*system, *said[before[-1] :])) > room


@given(chats(), st.text(max_size=30), st.text(max_size=30))
def test_a_text_is_continued_to_the_letter(said: tuple[ChatMessage, ...], one: str, other: str) -> None:
    whole = continued(said, one + other)
    assert continued(continued(said, one), other) == whole
    begun = said[-1].content if said[-1].role == "assistant" else ""
    if one + other:
        assert whole[-1] == ChatMessage("assistant", begun + one + other)
    else:
        assert whole == said


@given(
    st.builds(Sampling, NUMBER, st.integers(), NUMBER, NUMBER, NUMBER, st.none() | st.integers(), st.none()),
    st.none() | st.integers(1),
)
@settings(deadline=None, max_examples=200)
def test_any_sampling_becomes_an_order(sampling: Sampling, max_tokens: int | None) -> None:
    order = order_of(bytes(16), bytes(32), 10, Request((), sampling), max_tokens)
    assert codec.decode(codec.encode(order), wire.Order) == order
    if 0 <= sampling.temperature <= 5:
        assert abs(order.temperature / 1e6 - sampling.temperature) <= 5e-7
    assert (order.seed is None) == (sampling.seed is None)
    assert (order.max_tokens == 0) == (max_tokens is None)


@given(chats(), st.floats(0, 1), st.integers(0, 2**31 - 1), st.none() | st.integers(0, 2**32 - 1))
def test_the_driver_generates_what_the_user_meant(
    said: tuple[ChatMessage, ...], share: float, top_k: int, seed: int | None
) -> None:
    sampling = Sampling(5 * share, top_k, share, share, 10 * share, seed, None, ("\n",))
    asked = Request(said, sampling)
    order = order_of(bytes(16), bytes(32), 10, asked, None)
    request = request_of(order, prompt_of(asked), 7, "user")
    assert (request.messages, request.user) == (said, "user")
    found = request.sampling
    assert (found.top_k, found.seed, found.max_tokens, found.stop) == (top_k, seed, 7, ("\n",))
    for name in ("temperature", "top_p", "min_p", "repeat_penalty"):
        assert abs(getattr(found, name) - getattr(sampling, name)) <= 5e-7 + 1e-12, name


def test_the_defaults_are_those_of_the_wire() -> None:
    order = order_of(bytes(16), bytes(32), 10, Request(), None)
    assert order == wire.Order(bytes(16), bytes(32), 10)
    assert order_of(bytes(16), bytes(32), 10, Request(sampling=Sampling(seed=7)), 5).seed == 7
