"""What a relay gives away: no sequence of circuits and frames gets more out of it than its limits."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from infraxa.net.circuits import DAY_S, Circuit, Circuits, RelayLimits, dialer
from infraxa.net.wire import MAX_FRAME, Failure

SMALL = RelayLimits(
    circuits=6,
    circuits_to=4,
    circuits_from=3,
    opens_per_second=0.5,
    opens_burst=5,
    bytes_per_second=100_000,
    bytes_per_day=1_000_000,
    accounts=16,
)
A, B = b"a" * 32, b"b" * 32


def opened(circuits: Circuits, target: bytes = A, remote: str = "9.9.9.9", now: float = 0) -> Circuit:
    circuit = circuits.open(target, remote, now)
    assert isinstance(circuit, Circuit)
    return circuit


def refused(circuits: Circuits, target: bytes = A, remote: str = "9.9.9.9", now: float = 0) -> Failure:
    failure = circuits.open(target, remote, now)
    assert isinstance(failure, Failure) and failure.retry_after_ms > 0
    return failure


def use_up(circuit: Circuit) -> tuple[Failure, float]:
    """Hand on until the day's bytes are used up: how that is said, and when that is."""
    now = 0.0
    for _ in range(1000):
        wait = circuit.hand_on(50_000, now)
        if isinstance(wait, Failure):
            return wait, now
        now += wait
    raise AssertionError("there is no end")


def test_the_limits_as_shipped() -> None:
    limits = RelayLimits()
    assert (limits.circuits, limits.bytes_per_second, limits.bytes_per_day) == (64, 256_000, 128 << 20)
    circuits = Circuits()
    for number in range(64):
        opened(circuits, number.to_bytes(32, "big"), f"9.9.{number}.1")
    assert len(circuits) == 64
    assert refused(circuits, B, "8.8.8.8").code == "busy"


def test_places_are_counted_by_node_and_by_address_group() -> None:
    circuits = Circuits(SMALL)
    held = [opened(circuits, A, f"9.9.9.{number}") for number in range(3)]
    assert refused(circuits, B, "9.9.9.77").code == "busy"  # the same /24
    opened(circuits, A, "9.9.8.1")
    assert refused(circuits, A, "9.9.7.1").code == "busy"  # the same node
    circuits.close(held[0])
    circuits.close(held[0])
    opened(circuits, A, "9.9.9.1", 10)
    assert refused(circuits, A, "9.9.7.1", 10).code == "busy"
    assert len(circuits) == 4


def test_machines_of_one_local_network_have_an_account_each() -> None:
    assert dialer("192.168.1.7") != dialer("192.168.1.8")
    assert dialer("9.9.9.7") == dialer("9.9.9.8") == "9.9.9.0/24"
    assert dialer("2001:4860:1:2::7") == dialer("2001:4860:1:2:3::8")


def test_opening_has_a_rate() -> None:
    circuits = Circuits(SMALL)
    for _ in range(5):
        circuits.close(opened(circuits))
    failure = refused(circuits)
    assert failure.code == "rate_limited" and failure.retry_after_ms == 2001
    assert refused(circuits, B).code == "rate_limited"  # the dialer's account
    circuits.close(opened(circuits, A, "8.8.8.8"))  # whom this one does not keep from the node
    circuits.close(opened(circuits, A, "9.9.9.9", 2.1))


def test_the_bytes_of_a_day_end_a_circuit_and_come_back() -> None:
    circuits = Circuits(SMALL)
    circuit = opened(circuits)
    failure, now = use_up(circuit)
    assert failure.code == "rate_limited" and 0 < failure.retry_after_ms <= 86_400_000
    assert circuit.bytes == SMALL.bytes_per_day
    circuits.close(circuit)
    assert refused(circuits, A, "8.8.8.8", now).code == "rate_limited"  # the node's account
    assert refused(circuits, B, "9.9.9.9", now).code == "rate_limited"  # the dialer's
    later = now + failure.retry_after_ms / 1000
    assert refused(circuits, now=later).retry_after_ms < failure.retry_after_ms  # until it is worth it
    later += DAY_S / 2
    assert opened(circuits, A, "9.9.9.9", later).hand_on(MAX_FRAME, later) == 0


def test_what_one_account_refuses_the_other_does_not_pay_for() -> None:
    circuits = Circuits(SMALL)
    first, second = opened(circuits, A, "9.9.9.9"), opened(circuits, B, "9.9.9.9")
    use_up(first)
    for _ in range(100):
        assert isinstance(second.hand_on(50_000, 0), Failure)
    assert second.bytes == 0
    third = opened(circuits, B, "8.8.8.8")
    assert [third.hand_on(50_000, 0) for _ in range(3)] == [0, 0, 0.5]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.integers(1, MAX_FRAME), st.sampled_from((0, 1))),
        min_size=1,
        max_size=60,
    )
)
def test_no_pattern_of_frames_is_faster_than_the_limit(frames: list[tuple[float, int, int]]) -> None:
    circuits = Circuits(SMALL)
    pair = (opened(circuits, A, "9.9.9.9"), opened(circuits, A, "8.8.8.8"))  # they share the node's account
    now, total, last_turn = 0.0, 0, 0.0
    for pause, size, which in frames:
        now += pause
        wait = pair[which].hand_on(size, now)
        if isinstance(wait, Failure):
            assert total + size > SMALL.bytes_per_day
            continue
        total += size
        turn = now + wait
        assert total <= SMALL.bytes_per_second * (1 + turn) + 1  # all that went up to then
        assert total <= SMALL.bytes_per_day * (1 + now / DAY_S) + 1
        assert wait == 0 or turn >= last_turn - 1e-6  # who asked first goes first
        last_turn = max(last_turn, turn)
        # No later than it has to be.
        assert wait <= total / SMALL.bytes_per_second


class Relay(RuleBasedStateMachine):
    """Whatever is opened, used and closed: places, accounts and memory stay within the limits."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.circuits = Circuits(SMALL)
        self.open_now: list[tuple[Circuit, bytes, str]] = []
        self.now = 0.0

    @rule(
        target=held,
        node=st.integers(0, 30).map(lambda number: bytes(31) + bytes((number,))),
        remote=st.builds("9.{}.1.{}".format, st.integers(0, 30), st.integers(0, 3)),
    )
    def open(self, node: bytes, remote: str) -> Circuit | None:
        circuit = self.circuits.open(node, remote, self.now)
        if isinstance(circuit, Failure):
            return None
        self.open_now.append((circuit, node, dialer(remote)))
        return circuit

    @rule(circuit=held, size=st.integers(1, MAX_FRAME))
    def use(self, circuit: Circuit | None, size: int) -> None:
        if circuit is not None:
            before = circuit.bytes
            taken = not isinstance(circuit.hand_on(size, self.now), Failure)
            assert circuit.bytes == before + size * taken

    @rule(circuit=consumes(held))
    def close(self, circuit: Circuit | None) -> None:
        if circuit is not None:
            self.circuits.close(circuit)
            self.open_now = [entry for entry in self.open_now if entry[0] is not circuit]

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def within_limits(self) -> None:
        assert len(self.circuits) == len(self.open_now) <= SMALL.circuits
        assert self.circuits.accounts <= SMALL.accounts
        nodes = [node for _, node, _ in self.open_now]
        groups = [where for _, _, where in self.open_now]
        assert all(nodes.count(node) <= SMALL.circuits_to for node in nodes)
        assert all(groups.count(where) <= SMALL.circuits_from for where in groups)


TestRelay = pytest.mark.filterwarnings("error")(Relay.TestCase)
TestRelay.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
