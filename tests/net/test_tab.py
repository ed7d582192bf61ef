"""No sequence of operations lets strangers use more than a day's."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infraxa.net import tab
from infraxa.net.tab import DAY_MS, Daily, Pool, Quota

few = settings(deadline=None, max_examples=60, stateful_step_count=40)
fewest = settings(deadline=None, max_examples=12)


def test_a_day_is_one_of_utc() -> None:
    assert tab.day_of(DAY_MS - 1) == 0
    assert tab.day_of(DAY_MS) == 1


accounts = st.integers(0, 9).map(lambda number: bytes([number]) * 32)
groups = st.sampled_from(["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/56", "local", None])


class Days(RuleBasedStateMachine):
    """What strangers use, beside the list of all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.daily = Daily(in_all=100, per_account=20, per_group=40, per_relayed=30)
        self.day = 100
        self.used: list[tuple[bytes, str | None, int]] = []

    def total(self, account: bytes | None = None, group: str | None = "any") -> int:
        return sum(
            amount for who, where, amount in self.used if account in (None, who) and group in ("any", where)
        )

    @rule(account=accounts, group=groups, amount=st.integers(0, 30))
    def take(self, account: bytes, group: str | None, amount: int) -> None:
        left = self.daily.left(account, group, self.day)
        of_group = (30 if group is None else 40) - self.total(group=group)
        assert left == max(0, min(100 - self.total(), 20 - self.total(account), of_group))
        reason = self.daily.take(account, group, amount, self.day)
        assert (reason is None) == (amount <= left)
        if reason is None:
            self.used.append((account, group, amount))
        else:
            bound = {"all": 100 - self.total(), "account": 20 - self.total(account), "group": of_group}
            assert amount > bound[reason]

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.used) - 1))
        account, group, amount = self.used[number]
        back = data.draw(st.integers(0, amount))
        self.used[number] = account, group, amount - back
        self.daily.count(account, group, -back, self.day)

    @rule(days=st.integers(1, 3))
    def tomorrow(self, days: int) -> None:
        yesterdays, self.used = self.used, []
        self.day += days
        for account, group, _ in yesterdays:
            self.daily.count(account, group, -20, self.day - days)
            assert self.daily.left(account, group, self.day) == 20

    @rule(account=accounts, group=groups, amount=st.integers(1, 30))
    def take_while_the_clock_is_set_back(self, account: bytes, group: str | None, amount: int) -> None:
        left = self.daily.left(account, group, self.day)
        assert self.daily.left(account, group, self.day - 1) == left
        if self.daily.take(account, group, amount, self.day - 1) is None:
            assert amount <= left
            self.used.append((account, group, amount))

    @invariant()
    def within_the_bounds(self) -> None:
        assert self.total() <= 100
        for account, group, _ in self.used:
            assert self.total(account) <= 20
            assert self.total(group=group) <= (30 if group is None else 40)


Days.TestCase.settings = few
TestDays = Days.TestCase


@fewest
@given(seed=st.integers(0, 2**32), networks=st.integers(1, 300), appetite=st.integers(1, 20_000))
def test_no_number_of_fresh_identities_gets_more_than_the_pool(
    seed: int, networks: int, appetite: int
) -> None:
    rng = random.Random(seed)
    pool, got = Pool(), {group: 0 for group in [None, *map(str, range(networks))]}
    for _ in range(1000):
        group = rng.choice([None, *map(str, range(networks))])
        amount = rng.randint(1, appetite)
        if pool.take(rng.randbytes(32), group, amount, 1) is None:
            assert amount <= 5_000
            got[group] += amount
    assert sum(got.values()) <= 50_000
    assert max(got.values()) <= 10_000


@fewest
@given(seed=st.integers(0, 2**32), networks=st.integers(1, 2000))
def test_no_number_of_fresh_identities_gets_more_than_the_free_requests(seed: int, networks: int) -> None:
    rng = random.Random(seed)
    quota, got = Quota(), [0] * networks
    for number in range(3000):
        network = number % networks
        got[network] += quota.take(rng.randbytes(32), str(network), 1, 1) is None
        assert quota.take(rng.randbytes(32), None, 1, 1) in ("group", "all")
    assert max(got) <= 3
    assert sum(got) == min(3 * networks, 1000, 3000)


def test_one_account_has_its_free_requests_wherever_it_comes_from() -> None:
    quota = Quota()
    account = b"a" * 32
    assert [quota.take(account, str(number), 1, 1) for number in range(4)] == [None, None, None, "account"]
    assert quota.left(account, "elsewhere", 1) == 0
    assert quota.left(account, "elsewhere", 2) == 3
    assert quota.left(b"b" * 32, None, 2) == 0


def test_what_was_used_before_a_restart_is_used() -> None:
    pool = Pool()
    pool.count(b"a" * 32, "x", 6_000, 5)
    assert pool.take(b"a" * 32, "y", 1, 5) == "account"
    assert pool.take(b"b" * 32, "x", 5_000, 5) == "group"
    assert pool.left(b"b" * 32, "x", 5) == 4_000
