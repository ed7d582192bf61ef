"""The batching loop with real llama.cpp and the built-in model, in this process."""

from __future__ import annotations

import math
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from infraxa.engine import bindings, caches
from infraxa.engine.batching import N_BATCH
from infraxa.engine.llama import Context, Model
from infraxa.engine.types import Budget, ChatMessage, Finished, Request, Sampling, Usage
from infraxa.engine.vocabulary import Vocabulary

QUESTIONS = (
    "what is a driver?",
    "what is 12+5?",
    "hi",
    "what is infraxa?",
    "how do I become a provider?",
    "what is a tab?",
    "what is a receipt?",
    "who made you?",
)
Ask = Callable[..., Request]
OpenRoom = Callable[..., Any]


def test_together_gives_what_each_gives_alone(open_room: OpenRoom, ask: Ask) -> None:
    """Equal to the last token: each sequence has its own cache, and rows of Q8_0 are computed alike in
    batches of any size. What may differ, and by how much, is in the next test."""
    alone = open_room(slots=1)
    for i, question in enumerate(QUESTIONS):
        alone.answer(i, ask(question))
    together = open_room()
    for i, question in enumerate(QUESTIONS):
        together.batcher.submit(i, ask(question))
    together.run()
    assert together.ids == alone.ids
    assert together.text == alone.text
    assert "17" in together.text[1]
    assert {f.reason for f in together.ended.values()} == {"stop"}
    # One step reads all prompts, and one per token of the longest answer follows.
    assert together.batcher.step_number <= max(map(len, together.ids.values())) + 1


def test_control_tokens_in_an_answer_are_told_to_nobody(
    guide: Model, open_room: OpenRoom, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So both sides count the same: whoever is answered leaves out what stands for nothing, too."""
    room = open_room(slots=1)
    room.answer(0, ask(QUESTIONS[0]))
    ids = room.ids[0]
    control = ids[len(ids) // 2]
    monkeypatch.setitem(guide._pieces, control, b"")
    room.answer(1, ask(QUESTIONS[0]))
    assert room.ids[1] == [one for one in ids if one != control]
    assert room.ended[1].usage.n_out == len(ids), "but they took their time"
    pieces = [guide.piece(token) or b"" for token in range(guide.n_vocab)]
    vocabulary = Vocabulary(array("H", map(len, pieces)), b"".join(pieces))
    assert vocabulary.count(room.ids[1], room.text[1]) == len(room.ids[1])


@pytest.mark.parametrize("chunk", [1, 16, 64, 100])
def test_what_the_cut_of_a_long_prompt_changes_is_bounded(guide: Model, chunk: int) -> None:
    """Under load a prompt is read in smaller pieces. From 64 rows on, llama.cpp's attention takes another
    kernel, which rounds differently: by tenths of a logit, where those of the guide spread over 30."""
    tokens = guide.tokenize("the driver reads what the user asks and answers " * 20)[:200]

    def last_logits(size: int) -> list[float]:
        with Context(guide, n_ctx=256, slots=1, n_batch=N_BATCH, threads=1) as context:
            for start in range(0, len(tokens), size):
                rows = tokens[start : start + size]
                for i, token in enumerate(rows):
                    context.token[i], context.pos[i], context.seq[i] = token, start + i, 0
                    context.output[i] = start + i == len(tokens) - 1
                context.decode(len(rows))
            pointer = bindings.api.llama_get_logits_ith(context.handle, len(rows) - 1)
            logits: list[float] = pointer[: guide.n_vocab]
            return logits

    whole, cut = last_logits(len(tokens)), last_logits(chunk)
    assert max(abs(a - b) for a, b in zip(whole, cut, strict=True)) < 2
    moved = sum(abs(a - b) for a, b in zip(softmax(whole), softmax(cut), strict=True)) / 2
    assert moved < 0.1, "of the probability"
    small = last_logits(32)
    if chunk < 64:
        assert cut == small, "below 64 rows the size of the pieces changes nothing at all"


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights)
    return [w / total for w in weights]


def test_gaps_between_slots_change_no_answer(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    for i, question in enumerate(QUESTIONS):
        room.batcher.submit(i, ask(question))
    for _ in range(5):
        room.batcher.step()
    for i in (2, 4, 6):
        room.batcher.cancel(i)
    assert any(span.job is None for span in room.batcher.scheduler.plan())
    room.run()
    alone = open_room(slots=1)
    for i in (0, 1, 3, 5, 7):
        assert room.text[i] == alone.answer(i, ask(QUESTIONS[i]))
    # What the bridges went over can still be continued.
    again = room.answer(20, ask(QUESTIONS[2]))
    assert room.ended[20].usage.n_cached > 0
    assert again == alone.answer(21, ask(QUESTIONS[2]))


def test_a_request_is_admitted_between_two_steps(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    room.batcher.submit(1, ask("what is infraxa?"))
    for _ in range(4):
        room.batcher.step()
    room.batcher.submit(2, ask("hi"))
    room.batcher.step()
    room.take()
    assert len(room.ids[1]) == 5
    assert len(room.ids[2]) == 1, "the short prompt was read within one step, while the other went on"
    room.run()
    assert room.ended[1].reason == room.ended[2].reason == "stop"


def test_cancel_takes_effect_at_once_and_counts(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    room.batcher.submit(1, ask("what is infraxa?"))
    for _ in range(6):
        room.batcher.step()
    room.batcher.cancel(1)
    room.batcher.cancel(1)
    assert not room.batcher.busy
    room.take()
    assert room.ended[1].reason == "cancelled"
    assert room.ended[1].usage.n_out == len(room.ids[1]) == 6
    assert room.text[1]


def test_a_waiting_request_can_be_cancelled(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=1)
    room.batcher.submit(1, ask("hi"))
    room.batcher.submit(2, ask("hi"))
    room.batcher.step()
    room.batcher.cancel(2)
    room.run()
    assert room.ended[2] == Finished("cancelled", room.ended[2].usage)
    assert room.ended[2].usage.n_out == 0
    assert room.ended[1].reason == "stop"


def test_cancelling_interrupts_the_reading_of_a_long_prompt(
    open_room: OpenRoom, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = open_room(slots=2)
    aborted = []
    decode = Context.decode

    def watched(context: Context, rows: int) -> None:
        if rows > 100:
            # The cancel comes from another thread, in the middle of the step.
            timer = threading.Timer(0.001, room.batcher.interrupt, [1])
            timer.start()
        try:
            decode(context, rows)
        except Exception as error:
            aborted.append(error)
            raise
        finally:
            if rows > 100:
                timer.join()

    monkeypatch.setattr(Context, "decode", watched)
    room.batcher.submit(1, ask("again and " * 300))
    room.batcher.step()
    assert aborted
    room.batcher.cancel(1)
    assert room.ended.get(1) is None
    room.take()
    assert room.ended[1].reason == "cancelled"
    # The half-read prompt was taken out of the cache: the next answer is what it should be.
    assert "17" in room.answer(2, ask("what is 12+5?"))


def test_an_interrupted_step_is_done_again(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=2)
    room.batcher.submit(1, ask("what is 12+5?"))
    room.context.abort(True)
    for _ in range(3):
        room.batcher.step()
    room.context.abort(False)
    room.run()
    alone = open_room(slots=1)
    assert room.text[1] == alone.answer(1, ask("what is 12+5?"))


def test_users_take_turns(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=1)
    for i in range(4):
        room.batcher.submit(i, ask("hi", user="maple"))
    room.batcher.submit(9, ask("hi", user="birch"))
    room.run()
    assert room.order == [0, 9, 1, 2, 3]


def test_the_next_turn_finds_the_conversation_in_memory(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=2)
    first = room.answer(1, ask("what is 12+5?"))
    cold = open_room(slots=2).answer(1, ask("what is 12+5?", first, "and now add 7"))
    warm = room.answer(2, ask("what is 12+5?", first, "and now add 7"))
    usage = room.ended[2].usage
    assert usage.n_cached >= room.ended[1].usage.n_prompt
    assert usage.n_prompt - usage.n_cached < usage.n_prompt / 2
    assert warm == cold


def test_the_same_prompt_again_reads_one_token(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    first = room.answer(1, ask("what is infraxa?"))
    assert room.answer(2, ask("what is infraxa?")) == first
    assert room.ended[2].usage.n_cached == room.ended[2].usage.n_prompt - 1


def test_a_prompt_longer_than_the_context_says_both_numbers(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=1, n_ctx=256)
    room.batcher.submit(1, ask("word " * 400))
    room.take()
    error = room.ended[1].error
    assert room.ended[1].reason == "failed"
    assert error is not None and error.code == "prompt_too_long"
    n_prompt = room.batcher.count((ChatMessage("user", "word " * 400),))
    assert n_prompt > 256
    assert str(n_prompt) in error.message and "256" in error.message
    assert room.ended[1].usage.n_prompt == n_prompt
    assert not room.batcher.busy


def test_a_full_context_ends_with_length(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=1, n_ctx=256)
    words = 1
    while room.batcher.count(ask("na " * (words + 1)).messages) <= 250:
        words += 1
    # Hot enough that the end of the turn is hardly ever chosen.
    sampling = Sampling(temperature=50.0, top_k=0, top_p=1.0, min_p=0.0, seed=3)
    room.batcher.submit(1, Request(ask("na " * words).messages, sampling))
    room.run()
    usage = room.ended[1].usage
    assert room.ended[1].reason == "length"
    assert usage.n_prompt + usage.n_out == 256 + 1, "the last token needs no room: nothing follows it"
    assert "17" in room.answer(2, ask("what is 12+5?"))


def test_a_bridge_over_a_slot_that_was_full_ends_nobody(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=4, n_ctx=256)
    words = 1
    while room.batcher.count(ask("na " * (words + 1)).messages) <= 250:
        words += 1
    # Hot enough that the end of the turn is hardly ever chosen.
    hot: dict[str, Any] = {"temperature": 50.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 100}
    for i in range(4):
        room.batcher.submit(i, ask("na " * words if i == 2 else "what is infraxa?", seed=i, **hot))
    while 2 not in room.ended:
        room.batcher.step()
        room.take()
    usage = room.ended[2].usage
    assert usage.n_prompt + usage.n_out == 256 + 1
    bridges = [span for span in room.batcher.scheduler.plan() if span.job is None]
    assert [(span.slot, span.end) for span in bridges] == [(2, 256)]
    room.run()
    assert {room.ended[i].error for i in (0, 1, 3)} == {None}


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_max_tokens(open_room: OpenRoom, ask: Ask, max_tokens: int) -> None:
    room = open_room()
    room.answer(1, ask("what is infraxa?", max_tokens=max_tokens))
    assert room.ended[1].reason == "length"
    assert room.ended[1].usage.n_out == len(room.ids.get(1, [])) == max_tokens


@pytest.mark.parametrize(("more", "n_out"), [(-1, None), (0, 0), (2, 0), (3, 1), (15, 5), (17, 5)])
def test_an_answer_ends_before_it_costs_more_than_it_may(
    open_room: OpenRoom, ask: Ask, more: int, n_out: int | None
) -> None:
    room = open_room()
    room.answer(1, ask("what is infraxa?"))
    n_prompt, whole = room.ended[1].usage.n_prompt, room.ids[1]
    budget = Budget(7 * n_prompt + more, 7_000_000, 3_000_000)
    request = msgspec.structs.replace(ask("what is infraxa?"), budget=budget)
    room.answer(2, request)
    finished = room.ended[2]
    if n_out is None:
        assert finished.error is not None and finished.error.code == "over_budget"
        return
    assert (finished.reason, finished.usage.n_out) == ("length", n_out)
    assert room.ids.get(2, []) == whole[:n_out]
    free = msgspec.structs.replace(request, budget=Budget(0, 0, 0))
    room.answer(3, free)
    assert room.ids[3] == whole


def test_stop_strings_end_the_answer_before_them(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    whole = room.answer(1, ask("what is infraxa?"))
    pieces = [room.batcher.model.piece(t).decode() for t in room.ids[1]]
    # Begins in the middle of one token and ends in another.
    border = len("".join(pieces[:12]))
    stop = whole[border - 2 : border + 4]
    cut = room.answer(2, ask("what is infraxa?", stop=(stop, "never said")))
    assert cut == whole[: whole.index(stop)]
    assert room.ended[2].reason == "stop"
    assert room.ended[2].usage.n_out < room.ended[1].usage.n_out


def test_the_end_of_turn_is_not_in_the_text(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    text = room.answer(1, ask("hi"))
    assert "<|" not in text
    assert room.ended[1].usage.n_out == len(room.ids[1])
    assert b"".join(room.batcher.model.piece(t) or b"" for t in room.ids[1]).decode() == text


def test_a_seed_gives_the_same_answer_again(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    hot = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    answers = [room.answer(i, ask("what is infraxa?", seed=i // 2, **hot)) for i in range(6)]
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]
    assert len(set(answers)) == 3
    unseeded = {room.answer(i, ask("what is infraxa?", **hot)) for i in range(10, 14)}
    assert len(unseeded) > 1


def test_one_candidate_is_greedy(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    greedy = room.answer(1, ask("what is a driver?"))
    single: list[dict[str, float]] = [{"top_k": 1}, {"top_p": 0.0}, {"top_k": 0, "min_p": 1.0}]
    for i, one in enumerate(single, start=2):
        assert room.answer(i, ask("what is a driver?", temperature=3.0, seed=5, **one)) == greedy


def test_the_repeat_penalty_keeps_words_from_coming_back(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    plain = room.answer(1, ask("what is 12+5?"))
    other = room.answer(2, ask("what is 12+5?", repeat_penalty=50.0))
    assert other != plain
    # Only what stands in the last 64 tokens counts as repeated.
    beginning = room.ids[2][:40]
    assert len(set(beginning)) == len(beginning)


def test_an_assistant_message_is_continued(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room()
    whole = room.answer(1, ask("what is infraxa?"))
    words = whole.split(" ")
    beginning = " ".join(words[: len(words) // 2])
    rest = room.answer(2, ask("what is infraxa?", beginning))
    assert beginning + rest == whole


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", -1.0),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("repeat_penalty", 0.0),
        ("max_tokens", -1),
        ("stop", ("x" * 5000,)),
        ("stop", ("x",) * 17),
    ],
)
def test_a_setting_that_means_nothing_is_refused(
    open_room: OpenRoom, ask: Ask, setting: str, value: object
) -> None:
    room = open_room()
    room.batcher.submit(1, ask("hi", **{setting: value}))
    room.take()
    error = room.ended[1].error
    assert error is not None and error.code == "bad_request"
    assert "must be" in error.message or "stop strings" in error.message


def test_a_conversation_without_messages_is_refused(open_room: OpenRoom) -> None:
    room = open_room()
    room.batcher.submit(1, Request(()))
    room.take()
    error = room.ended[1].error
    assert error is not None and error.code == "bad_request"


def test_usage_adds_up(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=1)
    started = time.perf_counter()
    for i in (1, 2):
        room.batcher.submit(i, ask("what is infraxa?"))
    room.run()
    total = (time.perf_counter() - started) * 1000
    first, second = room.ended[1].usage, room.ended[2].usage
    for usage in (first, second):
        assert usage.first_token_ms is not None
        assert 0 <= usage.queued_ms <= usage.first_token_ms
        assert usage.first_token_ms + usage.decode_ms <= total
        assert usage.tokens_per_second == pytest.approx((usage.n_out - 1) * 1000 / usage.decode_ms)
    assert second.queued_ms >= first.decode_ms, "the second waited for the only slot"
    assert Usage(n_out=1, decode_ms=5).tokens_per_second is None


SYSTEM = "You answer about infraxa, drivers, tabs and receipts, in short and plain words. " * 6


def told(question: str, *, user: str = "") -> Request:
    messages = (ChatMessage("system", SYSTEM), ChatMessage("user", question))
    return Request(messages, Sampling(temperature=0, max_tokens=30), user=user)


@pytest.mark.parametrize("staggered", [False, True])
def test_a_system_prompt_is_read_once_for_all(open_room: OpenRoom, staggered: bool) -> None:
    room, alone = open_room(), open_room(slots=1)
    for i, question in enumerate(QUESTIONS):
        room.batcher.submit(i, told(question))
        if staggered:
            room.batcher.step()
    room.run()
    usages = [room.ended[i].usage for i in range(len(QUESTIONS))]
    system = min(u.n_cached for u in usages[1:])
    assert usages[0].n_cached == 0 and system > 100
    assert all(u.n_prompt - u.n_cached < 40 for u in usages[1:])
    for i, question in enumerate(QUESTIONS[:3]):
        # Read in the same pieces, so that nothing is rounded differently.
        alone.answer(100, Request((ChatMessage("system", SYSTEM),), Sampling(max_tokens=0)))
        assert alone.answer(i, told(question)) == room.text[i]


def test_who_waits_for_a_cancelled_reader_reads_himself(open_room: OpenRoom) -> None:
    room = open_room()
    for i in range(4):
        room.batcher.submit(i, told(QUESTIONS[i]))
    admitted = list(room.batcher.scheduler.admit())
    for one in admitted:
        room.batcher._start(one)
    assert [a.job.source is None for a in admitted] == [True, False, False, False]
    room.batcher.cancel(0)
    room.run()
    usages = [room.ended[i].usage for i in range(4)]
    assert [u.n_cached > 100 for u in usages] == [False, False, True, True]
    assert {room.ended[i].reason for i in (1, 2, 3)} <= {"stop", "length"}


def test_a_copy_that_fails_costs_only_time(open_room: OpenRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    room, whole = open_room(), open_room()
    for each in (room, whole):
        if each is room:
            monkeypatch.setattr(each.context, "load", lambda seq, state: False)
        for i in range(3):
            each.batcher.submit(i, told(QUESTIONS[i]))
        each.run()
    assert [room.ended[i].usage.n_cached for i in range(3)] == [0, 0, 0]
    assert {f.reason for f in room.ended.values()} <= {"stop", "length"}
    monkeypatch.setattr(Context, "save", _no_memory)
    other = open_room()
    for i in range(3):
        other.batcher.submit(i, told(QUESTIONS[i]))
    other.run()
    assert other.text == room.text


def _no_memory(context: Context, seq: int) -> bytearray:
    raise MemoryError


def test_another_user_gets_no_copy(open_room: OpenRoom) -> None:
    room = open_room()
    for i in range(4):
        room.batcher.submit(i, told(QUESTIONS[0], user="maple" if i % 2 else "birch"))
    room.run()
    assert [room.ended[i].usage.n_cached > 100 for i in range(4)] == [False, False, True, True]


def test_conversations_are_parked_when_there_are_more_than_slots(open_room: OpenRoom, ask: Ask) -> None:
    room = open_room(slots=2, park_bytes=1 << 28)
    twin = open_room(slots=5)
    questions = [f"{question} {'tell me all of it please ' * 40}" for question in QUESTIONS[:5]]
    for each in (room, twin):
        first = [each.answer(i, ask(question)) for i, question in enumerate(questions)]
        for i, question in enumerate(questions):
            each.answer(10 + i, ask(question, first[i], "go on"))
    for i in range(5):
        assert room.text[10 + i] == twin.text[10 + i]
        assert room.ended[10 + i].usage.n_cached == twin.ended[10 + i].usage.n_cached > 50
    assert 0 < room.batcher.scheduler.parking.n_bytes <= 1 << 28


def test_a_parked_conversation_is_copied_though_it_loses_its_place(open_room: OpenRoom, ask: Ask) -> None:
    """Parking what the slot held takes the room of the very state that goes into the slot."""
    words = "tell me all of it please " * 40
    shorter = f"what is a tab? {words[: len(words) * 3 // 4]} or something else"
    room = open_room(slots=1, park_bytes=1 << 28)
    room.answer(0, ask(f"what is a tab? {words}"))
    parking = room.batcher.scheduler.parking
    parking.budget = room.context.state_size(0) * 3 // 2
    room.answer(1, ask(f"who made you? {words}"))
    (first,) = parking.of("")
    text = room.answer(2, ask(shorter))
    assert room.ended[2].usage.n_cached > 100
    assert first not in parking.of("") and len(parking) == 1
    assert text == open_room(slots=1).answer(0, ask(shorter))


def test_without_memory_nothing_is_parked_and_nobody_hears_of_it(
    open_room: OpenRoom, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "LOOK_EVERY", 0)
    room = open_room(slots=1, park_bytes=1 << 28)
    texts = [f"{question} {'tell me all of it please ' * 40}" for question in QUESTIONS[:4]]
    room.answer(0, ask(texts[0]))
    room.answer(1, ask(texts[1]))
    assert len(room.batcher.scheduler.parking) == 1
    monkeypatch.setattr(caches, "free_memory", lambda: 0)
    room.answer(2, ask(texts[2]))
    assert len(room.batcher.scheduler.parking) == 0, "other programs need it more"
    monkeypatch.setattr(caches, "free_memory", lambda: 1 << 40)
    monkeypatch.setattr(room.context, "save", lambda seq: _no_memory(room.context, seq))
    room.answer(3, ask(texts[3]))
    assert len(room.batcher.scheduler.parking) == 0
    assert {f.reason for f in room.ended.values()} == {"stop"}
