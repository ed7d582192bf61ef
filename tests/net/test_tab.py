"""No sequence of operations lets strangers use more than a day's."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from infraxa.net import addresses, tab
from infraxa.net.tab import DAY_MS, Daily, Pool, Quota

few = settings(deadline=None, max_examples=60, stateful_step_count=40)
fewest = settings(deadline=None, max_examples=12)


def test_a_day_is_one_of_utc() -> None:
    assert tab.day_of(DAY_MS - 1) == 0
    assert tab.day_of(DAY_MS) == 1


accounts = st.integers(0, 9).map(lambda number: bytes([number]) * 32)
groups = st.sampled_from(["8.8.4.0/24", "8.8.8.0/24", "1.1.1.0/24", "2a01:4f8::/56", "local", None])


def wide(group: str | None) -> str | None:
    return "8.8.0.0/16" if group in ("8.8.4.0/24", "8.8.8.0/24") else group


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

    def lefts(self, account: bytes, group: str | None) -> dict[str, int]:
        """By what bounds it."""
        total, of_wide = self.total(), sum(one[2] for one in self.used if wide(one[1]) == wide(group))
        of_group = self.total(group=group)
        part = 30 if group is None else 40
        return {
            "all": 100 - total,
            "account": 20 - self.total(account),
            "group": -(-part * (100 - total + of_group) // 100) - of_group,
            "wide": -(-40 * (100 - total + of_wide) // 100) - of_wide,
        }

    @rule(account=accounts, group=groups, amount=st.integers(0, 30))
    def take(self, account: bytes, group: str | None, amount: int) -> None:
        left, bounds = self.daily.left(account, group, self.day), self.lefts(account, group)
        assert left == max(0, min(bounds.values()))
        reason = self.daily.take(account, group, amount, self.day)
        assert (reason is None) == (amount <= left)
        if reason is None:
            self.used.append((account, group, amount))
        else:
            assert amount > bounds[reason]

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
    assert sum(got) <= 1000 and min(got[: min(networks, 300)]) >= 1


@fewest
@given(
    seed=st.integers(0, 2**32),
    networks=st.integers(1, 12),
    of_each=st.integers(1, 300),
    appetite=st.integers(1, 5000),
)
def test_a_few_networks_do_not_use_up_the_day_for_all_others(
    seed: int, networks: int, of_each: int, appetite: int
) -> None:
    """Somebody with whole /32 of IPv6 and as many keys as it likes, who holds, gives back and takes again."""
    rng, pool = random.Random(seed), Pool()
    mine = [
        addresses.group(f"2a{one:02x}:4f8:{number:x}::1")
        for one in range(networks)
        for number in range(of_each)
    ]
    for _ in range(3000):
        account, group = rng.randbytes(32), rng.choice(mine)
        if pool.take(account, group, rng.randint(1, appetite), 1) is None and not rng.randrange(4):
            pool.count(account, group, -1, 1)
    by_network, by_group = 50_000 * 0.6**networks - networks, 50_000 * 0.8 ** len(mine) - len(mine)
    assert pool.left(b"n" * 32, "8.8.8.0/24", 1) >= min(5_000, int(max(by_network, by_group, 0) / 5))


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
