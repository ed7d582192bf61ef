"""Who is chosen as a driver: what counts against one, who is left alone for how long, how load spreads."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infraxa.net.market import BASE_OUT
from infraxa.net.records import ModelOffer
from infraxa.net.reputation import PRIOR_STARS
from infraxa.net.routing import (
    COOL_MS,
    HALF_LIFE_MS,
    MAX_COOL_MS,
    MAX_WAIT_MS,
    NEW_ANSWERS,
    NEW_SHARE,
    VALUE_OF_TIME,
    Candidate,
    Evidence,
    Outcome,
    Wanted,
    choose,
    cooling_ms,
    expected_cost,
    expected_ms,
    observed,
    success,
    waiting_ms,
    weights,
    why_not,
)
from infraxa.net.status import SeenNode
from tests.net.gossiping import node_id

NOW = 1_700_000_000_000
MODEL, OTHER = b"m" * 32, b"o" * 32
SEEN = SeenNode(
    id=b"", name="maple", status="online", age_s=1.0, addresses=(), relays=(), slots=4, util=0, models=(),
    prices=(), first_token_ms=0,
)  # fmt: skip
OFFER = ModelOffer("qwen", "qwen3", "Q4_K_M", MODEL, 4096, 512, 0, 0)
ANSWERED = Outcome("answered", first_token_ms=200.0, tokens_per_second=20.0)
FAULT = Outcome("failed")
ANY = Wanted()


NOTHING = Evidence()


def after(*outcomes: Outcome, evidence: Evidence = NOTHING, now_ms: int = NOW) -> Evidence:
    for outcome in outcomes:
        evidence = observed(evidence, outcome, now_ms)
    return evidence


KNOWN = after(*[ANSWERED] * NEW_ANSWERS)


def candidate(number: int, evidence: Evidence = KNOWN, **of_node: object) -> Candidate:
    node = replace(SEEN, id=node_id(number), models=(OFFER,), **of_node)
    return Candidate(node, OFFER, evidence=evidence)


def share(
    candidates: list[Candidate], wanted: Wanted = ANY, now_ms: int = NOW, turns: int = 2000
) -> list[float]:
    """How often each is chosen."""
    rng = random.Random(5)
    chosen: Counter[bytes] = Counter()
    for _ in range(turns):
        one = choose(candidates, wanted, now_ms, rng)
        assert one is not None
        chosen[one.node.id] += 1
    return [chosen[one.node.id] / turns for one in candidates]


# What is made of one outcome.


def test_answers_and_faults_are_counted_and_the_newer_weigh_more() -> None:
    assert success(NOTHING) is None
    good = after(*[ANSWERED] * 3, FAULT)
    assert (good.answered, good.failed, success(good)) == (3, 1, 0.75)
    later = after(FAULT, evidence=good, now_ms=NOW + HALF_LIFE_MS)
    # Of the first four half is left: 1.5 of 3, beside one that is new.
    assert success(later) == 1.5 / 3
    long_after = success(after(ANSWERED, evidence=later, now_ms=NOW + 40 * HALF_LIFE_MS))
    assert long_after is not None and long_after > 0.999


def test_speed_and_first_token_follow_what_is_measured() -> None:
    evidence = after(ANSWERED)
    assert (evidence.first_token_ms, evidence.tokens_per_second) == (200.0, 20.0)
    slower = replace(ANSWERED, first_token_ms=400.0, tokens_per_second=10.0)
    evidence = after(slower, evidence=evidence)
    assert 200 < (evidence.first_token_ms or 0) < 400 and 10 < (evidence.tokens_per_second or 0) < 20
    evidence = after(*[slower] * 30, evidence=evidence)
    assert abs((evidence.tokens_per_second or 0) - 10) < 0.01
    same = after(Outcome("answered"), replace(ANSWERED, tokens_per_second=0.0), evidence=evidence)
    assert same.tokens_per_second == evidence.tokens_per_second
    # Whoever stopped an answer has seen how fast it was.
    assert after(Outcome("cancelled", first_token_ms=7.0)).first_token_ms == 7.0


def test_what_is_not_its_fault_does_not_count_against_a_driver() -> None:
    for outcome in (
        Outcome("failed", blame="own"),
        Outcome("failed", blame="relay"),
        Outcome("cancelled"),
        *(
            Outcome("refused", code=code)
            for code in ("busy", "leaving", "too_large", "not_allowed", "new one")
        ),
    ):
        evidence = after(outcome, evidence=KNOWN)
        assert (evidence.answered, evidence.failed, success(evidence)) == (NEW_ANSWERS, 0, 1.0), outcome
        assert cooling_ms(evidence, NOW) == 0
    broken = after(Outcome("refused", code="internal"), evidence=KNOWN)
    assert broken.failed == 1 and cooling_ms(broken, NOW) == COOL_MS


def test_a_cool_down_doubles_with_each_fault_and_ends_with_an_answer() -> None:
    evidence, now = KNOWN, NOW
    lengths = []
    for _ in range(9):
        evidence = observed(evidence, FAULT, now)
        lengths.append(cooling_ms(evidence, now))
        now += lengths[-1]
        assert cooling_ms(evidence, now - 1) == 1 and cooling_ms(evidence, now) == 0
    assert lengths == [8_000, 16_000, 32_000, 64_000, 128_000, 256_000, *[MAX_COOL_MS] * 3]
    evidence = after(FAULT, ANSWERED, evidence=evidence, now_ms=now)
    assert cooling_ms(evidence, now) == 0
    assert cooling_ms(observed(evidence, FAULT, now), now) == COOL_MS


def test_requests_that_fail_side_by_side_are_one_fault() -> None:
    evidence = after(FAULT, FAULT, FAULT, evidence=KNOWN)
    assert evidence.failed == 3 and cooling_ms(evidence, NOW) == COOL_MS


def test_a_provider_that_asks_to_wait_is_left_alone_so_long() -> None:
    asked = after(Outcome("refused", code="busy", retry_after_ms=7_000))
    assert waiting_ms(asked, NOW) == 7_000 and waiting_ms(asked, NOW + 7_000) == 0
    assert waiting_ms(after(Outcome("refused", code="busy")), NOW) > 0
    assert waiting_ms(after(Outcome("refused", code="busy", retry_after_ms=10**8)), NOW) == MAX_WAIT_MS
    # What was wrong with the order says nothing of the next one.
    for code in ("too_large", "bad_request", "cancelled"):
        assert waiting_ms(after(Outcome("refused", code=code)), NOW) == 0
    assert waiting_ms(after(ANSWERED, evidence=asked), NOW) == 0


def test_a_clock_that_goes_back_leaves_nobody_cooling_for_ever() -> None:
    evidence = after(FAULT, Outcome("refused", code="busy"), evidence=KNOWN)
    yesterday = NOW - 24 * 3600 * 1000
    assert cooling_ms(evidence, yesterday) == waiting_ms(evidence, yesterday) == 0
    assert after(FAULT, evidence=evidence, now_ms=yesterday).failed == 2


outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(["answered", "failed", "cancelled", "refused"]),
    blame=st.sampled_from(["own", "relay", "peer"]),
    code=st.sampled_from(["", "busy", "leaving", "internal", "too_large", "no such code"]),
    retry_after_ms=st.integers(0, 2**40),
    first_token_ms=st.none() | st.floats(0, 1e9),
    tokens_per_second=st.none() | st.floats(0, 1e9),
)
times = st.integers(0, 2**62)
histories = st.lists(st.tuples(outcomes, st.integers(-(10**9), 10**10)), max_size=30)


@settings(deadline=None, max_examples=300)
@given(history=histories, now=times)
def test_whatever_happens_the_evidence_stays_within_its_bounds(
    history: list[tuple[Outcome, int]], now: int
) -> None:
    evidence, at = NOTHING, NOW
    for outcome, step in history:
        at += step
        before = evidence
        evidence = observed(evidence, outcome, at)
        assert evidence.answered >= before.answered and evidence.failed >= before.failed
        share = success(evidence)
        assert (share is None) == (not evidence.answered and not evidence.failed) or at - NOW > 10**10
        assert share is None or 0 <= share <= 1
        if outcome.kind == "answered":
            assert cooling_ms(evidence, at) == waiting_ms(evidence, at) == 0
            assert share is not None and share >= (success(before) or 0)
        if outcome.kind == "failed" and outcome.blame == "peer":
            assert COOL_MS <= cooling_ms(evidence, at) <= MAX_COOL_MS
            assert share is not None and share <= (1 if success(before) is None else success(before) or 0)
    assert 0 <= cooling_ms(evidence, now) <= MAX_COOL_MS
    assert 0 <= waiting_ms(evidence, now) <= MAX_WAIT_MS
    expected = expected_ms(candidate(1, evidence), now)
    assert 0 < expected < float("inf")


# What an answer would take.


@settings(deadline=None, max_examples=200)
@given(
    first=st.floats(1, 1e5),
    speed=st.floats(0.1, 1e4),
    util=st.integers(0, 254),
    slots=st.integers(1, 64),
    broken=st.integers(0, 20),
)
def test_what_is_slower_fuller_or_fails_more_is_expected_later(
    first: float, speed: float, util: int, slots: int, broken: int
) -> None:
    def of(first: float, speed: float, util: int, broken: int) -> float:
        good = [replace(ANSWERED, first_token_ms=first, tokens_per_second=speed)] * 5
        return expected_ms(candidate(1, after(*good, *[FAULT] * broken), util=util, slots=slots), NOW)

    least = of(first, speed, util, broken)
    assert least > first
    assert of(first * 1.1, speed, util, broken) > least
    assert of(first, speed * 0.9, util, broken) > least
    assert of(first, speed, util + 1, broken) > least
    assert of(first, speed, util, broken + 1) > least


def test_what_a_node_says_of_itself_counts_until_it_was_measured() -> None:
    boaster = replace(OFFER, speed=10**9)
    unknown = Candidate(replace(SEEN, first_token_ms=50), boaster)
    honest = Candidate(replace(SEEN, first_token_ms=500), replace(OFFER, speed=30_000))
    assert expected_ms(unknown, NOW) < expected_ms(honest, NOW)
    # No promise makes it faster than this, and a slow line is seen.
    assert expected_ms(unknown, NOW) >= 256 / 200 * 1000
    far = replace(unknown, node=replace(unknown.node, rtt_ms=300.0))
    assert expected_ms(far, NOW) == expected_ms(unknown, NOW) + 300
    measured = replace(unknown, evidence=after(replace(ANSWERED, tokens_per_second=2.0)))
    assert expected_ms(measured, NOW) > expected_ms(honest, NOW)


# What it would cost.


def priced(number: int, price_out: int, evidence: Evidence = KNOWN, **of_node: object) -> Candidate:
    return replace(candidate(number, evidence, **of_node), price_in=price_out // 4, price_out=price_out)


opinions = st.floats(1, 5)


@settings(deadline=None, max_examples=300)
@given(
    price_in=st.integers(0, 2**24),
    price_out=st.integers(0, 2**24),
    n_prompt=st.integers(0, 10**6),
    n_out=st.integers(1, 10**5),
    speed=st.floats(0.1, 1e4),
    opinion=opinions,
)
def test_what_is_dearer_or_slower_or_thought_less_of_is_expected_to_cost_more(
    price_in: int, price_out: int, n_prompt: int, n_out: int, speed: float, opinion: float
) -> None:
    def of(price_in: int, price_out: int, speed: float, opinion: float, more: int = 0) -> float:
        one = candidate(1, after(*[replace(ANSWERED, tokens_per_second=speed)] * 5))
        one = replace(one, price_in=price_in, price_out=price_out, opinion=opinion)
        return expected_cost(one, Wanted(n_prompt=n_prompt + more, n_out=n_out + more), NOW)

    least = of(price_in, price_out, speed, opinion)
    assert 0 < least < float("inf")
    assert of(price_in, price_out + 1 + price_out // 100, speed, opinion) > least
    dearer = of(price_in + 1000 + price_in // 100, price_out, speed, opinion)
    assert dearer >= least and (dearer > least or n_prompt < 1000)
    assert of(price_in, price_out, speed * 0.9, opinion) > least
    assert of(price_in, price_out, speed, max(1.0, opinion * 0.9)) >= least
    assert of(price_in, price_out, speed, opinion, more=1) > least


def test_where_all_is_free_the_time_alone_decides() -> None:
    one = candidate(1)
    assert expected_cost(one, ANY, NOW) == expected_ms(one, NOW) / 1000 * VALUE_OF_TIME
    slow = candidate(2, after(*[replace(ANSWERED, tokens_per_second=2.0)] * NEW_ANSWERS))
    assert share([one, slow]) == [1, 0]


def test_twice_the_speed_may_cost_twice_the_default_price() -> None:
    def at(speed: float, price_out: int) -> float:
        one = replace(OFFER, speed=int(speed * 1000))
        return expected_cost(
            Candidate(replace(SEEN, first_token_ms=1), one, price_out=price_out), Wanted(n_prompt=0), NOW
        )

    assert abs(at(20.0, 2 * BASE_OUT) / at(10.0, BASE_OUT) - 1) < 0.01
    assert at(20.0, 3 * BASE_OUT) > at(10.0, BASE_OUT) > at(20.0, BASE_OUT)


def test_price_and_time_are_weighed_against_each_other() -> None:
    cheap_slow = priced(1, BASE_OUT // 10, after(*[replace(ANSWERED, tokens_per_second=8.0)] * NEW_ANSWERS))
    dear_quick = priced(2, BASE_OUT)
    far_too_dear = priced(3, 100 * BASE_OUT)
    assert share([cheap_slow, far_too_dear]) == [1, 0] == share([dear_quick, far_too_dear])
    very_slow = priced(4, 0, after(*[replace(ANSWERED, tokens_per_second=0.5)] * NEW_ANSWERS))
    assert share([very_slow, dear_quick]) == [0, 1]
    # A long answer is where the price counts, as the time does.
    assert share([priced(5, 0), dear_quick], Wanted(n_out=4096)) == [1, 0]


def test_the_price_cap_holds_for_prompt_and_answer_and_for_pinned_ones() -> None:
    wanted = Wanted(max_price=BASE_OUT)
    assert why_not(priced(1, BASE_OUT), wanted, NOW) is None
    for one in (
        priced(1, BASE_OUT + 1),
        replace(priced(1, 1), price_in=BASE_OUT + 1),
        replace(priced(1, BASE_OUT + 1), pinned=True),
    ):
        assert why_not(one, wanted, NOW) == "too_dear"
        assert choose([one], wanted, NOW, random.Random(1)) is None
        assert choose([one], ANY, NOW, random.Random(1)) is one
    assert why_not(candidate(1), Wanted(max_price=0), NOW) is None, "free is never too dear"
    # Whoever is too dear is not waited for.
    assert why_not(priced(1, BASE_OUT + 1, status="busy"), wanted, NOW) == "too_dear"


def test_what_others_think_moves_a_choice_only_between_those_that_are_near() -> None:
    liked, disliked = (
        replace(candidate(number), opinion=opinion) for number, opinion in ((1, 4.5), (2, 1.5))
    )
    assert share([liked, disliked, candidate(3)])[1] == 0
    slow = after(*[replace(ANSWERED, tokens_per_second=1.0)] * NEW_ANSWERS)
    assert share([replace(candidate(1, slow), opinion=5.0), disliked]) == [0, 1]
    assert candidate(1).opinion == PRIOR_STARS


def test_weights_fade() -> None:
    assert weights(after(*[ANSWERED] * 4, FAULT), NOW + HALF_LIFE_MS) == (2.0, 0.5)
    assert weights(NOTHING, NOW) == (0.0, 0.0)


# Who can be chosen.


def test_why_one_is_not_chosen() -> None:
    wanted = Wanted(MODEL, context=4096, max_price=1000)
    fits = candidate(1)
    assert why_not(fits, wanted, NOW) is None
    cooling = after(FAULT, evidence=KNOWN)
    asked = after(Outcome("refused", code="busy"), evidence=cooling)
    cases = {
        "blocked": replace(fits, blocked=True),
        "offline": candidate(1, status="offline"),
        "no_slots": candidate(1, slots=0),
        "caught": replace(fits, caught="It cheated.", model=replace(OFFER, model_id=OTHER)),
        "other_model": replace(fits, model=replace(OFFER, model_id=OTHER)),
        "too_small": replace(fits, model=replace(OFFER, context=4095)),
        "too_dear": replace(fits, price_out=1001),
        "busy": candidate(1, status="busy"),
        "asked_to_wait": candidate(1, asked),
        "cooling": candidate(1, cooling),
    }
    for reason, one in cases.items():
        assert why_not(one, wanted, NOW) == reason
        if reason != "cooling":
            assert choose([one], wanted, NOW, random.Random(1)) is None
    # A model is known by its weights, never by the name that it claims.
    named = replace(fits, model=replace(OFFER, name="other", model_id=OTHER))
    assert why_not(named, Wanted(OTHER), NOW) is None and why_not(named, Wanted(MODEL), NOW) == "other_model"


def test_whoever_was_asked_before_is_not_asked_again() -> None:
    both = [candidate(1), candidate(2)]
    for _ in range(20):
        chosen = choose(both, ANY, NOW, random.Random(), exclude={node_id(1)})
        assert chosen is both[1]
    assert choose(both, ANY, NOW, random.Random(1), exclude={node_id(1), node_id(2)}) is None
    assert choose([], ANY, NOW, random.Random(1)) is None


def test_a_cool_down_never_keeps_from_the_only_one() -> None:
    once, twice = after(FAULT, evidence=KNOWN), after(FAULT, evidence=KNOWN, now_ms=NOW - 60_000)
    twice = after(FAULT, evidence=twice)
    few = [candidate(1, twice), candidate(2, once), candidate(3)]
    assert share(few) == [0, 0, 1]
    assert share(few[:2]) == [0, 1]  # which is over sooner
    assert share(few[:1]) == [1]


def test_pinned_ones_go_before_all_others() -> None:
    slow = after(*[replace(ANSWERED, tokens_per_second=1.0)] * NEW_ANSWERS)
    pinned = replace(candidate(1, slow), pinned=True)
    new = replace(candidate(2, NOTHING), pinned=True)
    assert share([pinned, candidate(3), candidate(4)]) == [1, 0, 0]
    assert sum(share([pinned, new, candidate(3)])[:2]) == 1
    cooling = replace(pinned, evidence=after(FAULT, evidence=slow))
    assert share([cooling, candidate(3)]) == [0, 1]


def test_new_ones_get_their_share_and_no_more_however_many_they_are() -> None:
    boasting = replace(OFFER, speed=150_000)
    crowd = [replace(candidate(number, NOTHING), model=boasting) for number in range(10, 60)]
    shares = share([candidate(1), candidate(2), *crowd], turns=8000)
    assert abs(sum(shares[2:]) - NEW_SHARE) < 0.01
    nine = after(*[ANSWERED] * (NEW_ANSWERS - 1))
    assert share([candidate(1), candidate(2, nine)])[1] < 0.1 < share([candidate(1), candidate(2)])[1]
    # Where all are new, all can be chosen.
    assert all(share(crowd))


def test_a_card_full_of_models_is_no_more_likely() -> None:
    fast, slow = (after(*[replace(ANSWERED, tokens_per_second=speed)] * NEW_ANSWERS) for speed in (40.0, 5.0))
    greedy = [
        replace(candidate(1, slow), model=replace(OFFER, model_id=bytes([number]) * 32))
        for number in range(8)
    ]
    others = [candidate(number, fast) for number in (2, 3, 4)]
    assert share([*greedy, *others])[0] == 0
    best = replace(greedy[0], evidence=fast)
    chosen = {choose([best, *greedy[1:]], ANY, NOW, random.Random(seed)) for seed in range(20)}
    assert chosen == {best}


def test_a_fallback_is_taken_where_there_is_nothing_else() -> None:
    wanted = Wanted(fallback={OTHER})
    quick = after(*[replace(ANSWERED, tokens_per_second=500.0)] * NEW_ANSWERS)
    small = replace(candidate(1, quick), model=replace(OFFER, model_id=OTHER))
    assert share([small, candidate(2), candidate(3, NOTHING)], wanted)[0] == 0
    assert share([small, candidate(2, status="offline")], wanted) == [1, 0]
    assert share([replace(small, pinned=True), candidate(2)], wanted) == [1, 0]
    assert share([replace(small, pinned=True), replace(candidate(2), pinned=True)], wanted) == [0, 1]
    assert share([small, candidate(2)], Wanted(OTHER, fallback={OTHER})) == [1, 0]


candidates = st.builds(
    lambda number, evidence, status, util, blocked, pinned, slots, at: replace(
        candidate(number, after(*evidence, now_ms=NOW - at), status=status, util=util, slots=slots),
        blocked=blocked,
        pinned=pinned,
    ),
    number=st.integers(0, 9),
    evidence=st.lists(outcomes, max_size=4),
    status=st.sampled_from(["online", "online", "busy", "offline"]),
    util=st.integers(0, 255),
    blocked=st.booleans(),
    pinned=st.booleans(),
    slots=st.integers(0, 3),
    at=st.integers(0, 20_000),
)


@settings(deadline=None, max_examples=300)
@given(
    some=st.lists(candidates, max_size=8),
    seed=st.integers(0, 9),
    tried=st.sets(st.integers(0, 9), max_size=3),
)
def test_who_is_chosen_can_be_and_if_anybody_can_somebody_is(
    some: list[Candidate], seed: int, tried: set[int]
) -> None:
    exclude = {node_id(number) for number in tried}
    chosen = choose(some, ANY, NOW, random.Random(seed), exclude)
    left = [one for one in some if one.node.id not in exclude]
    reasons = [why_not(one, ANY, NOW) for one in left]
    if chosen is None:
        assert not {None, "cooling"} & set(reasons)
        return
    assert any(chosen is one for one in left)
    assert not chosen.blocked and chosen.node.status == "online" and chosen.node.slots
    if None in reasons:
        assert why_not(chosen, ANY, NOW) is None
        ready = [one for one, reason in zip(left, reasons, strict=True) if reason is None]
        assert chosen.pinned or not any(one.pinned for one in ready)


# How it comes out when many choose by it.


class Machine:
    """A driver with as many slots as it says, as fast as it is, that fails as often as it does."""

    def __init__(self, number: int, speed: float = 20.0, fails: float = 0.0) -> None:
        self.number, self.speed, self.fails = number, speed, fails
        self.ends: list[int] = []
        self.answered = 0

    def seen(self, now_ms: int) -> SeenNode:
        self.ends = [end for end in self.ends if end > now_ms]
        util = min(len(self.ends), 4) * 255 // 4
        status = "busy" if len(self.ends) >= 12 else "online"
        return replace(candidate(self.number).node, util=util, status=status)


def served(machines: list[Machine], users: int = 20, minutes: int = 120) -> list[float]:
    """Users who each see for themselves ask every 20 s; the share of the answers that each machine gave,
    after a time in which they came to know them."""
    rng = random.Random(11)
    seen: list[dict[int, Evidence]] = [{} for _ in range(users)]
    counted = [0] * len(machines)
    for turn in range(minutes * 60 // 20 * users):
        now_ms = NOW + turn * 20_000 // users
        evidence = seen[turn % users]
        known = [
            Candidate(one.seen(now_ms), OFFER, evidence=evidence.get(one.number, NOTHING)) for one in machines
        ]
        chosen = choose(known, ANY, now_ms, rng)
        if chosen is None:
            continue
        machine = next(one for one in machines if node_id(one.number) == chosen.node.id)
        if rng.random() < machine.fails:
            outcome = FAULT
        else:
            speed = machine.speed / (1 + len(machine.ends) / 4)
            machine.ends.append(now_ms + int(200 / speed * 1000))
            outcome = Outcome("answered", first_token_ms=100.0, tokens_per_second=speed)
            counted[machines.index(machine)] += turn > minutes * 60 // 20 * users // 2
        before = evidence.get(machine.number, NOTHING)
        evidence[machine.number] = observed(before, outcome, now_ms)
    return [count / sum(counted) for count in counted]


def test_load_spreads_over_those_that_are_alike() -> None:
    shares = served([Machine(number) for number in range(8)])
    assert all(0.75 / 8 < one < 1.3 / 8 for one in shares), shares


def test_one_that_is_slow_or_fails_gets_less() -> None:
    shares = served([*(Machine(number) for number in range(6)), Machine(6, speed=5), Machine(7, fails=0.3)])
    assert max(shares[6:]) < 0.5 * min(shares[:6]), shares


def test_whoever_cannot_be_dialled_is_not_chosen() -> None:
    near, far = candidate(1), candidate(2, dialable=False)
    assert why_not(far, Wanted(), NOW) == "no_way"
    assert choose([far], Wanted(), NOW, random.Random(1)) is None
    for seed in range(20):
        assert choose([far, near], Wanted(), NOW, random.Random(seed)) is near
