"""Three nodes whose links are cut and healed in any order: in the end everybody knows who is there."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.net.gossiping import World

PAIRS = st.sampled_from([(0, 1), (0, 2), (1, 2)])


class ThreeNodes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(3)

    @rule(pair=PAIRS)
    def link(self, pair: tuple[int, int]) -> None:
        if not self.world.down & set(pair):
            self.world.link(*pair)

    @rule(pair=PAIRS)
    def cut(self, pair: tuple[int, int]) -> None:
        self.world.cut(*pair)

    @rule(seconds=st.sampled_from([0.5, 3, 20, 120]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(number=st.integers(0, 2))
    def crash(self, number: int) -> None:
        for other in range(3):
            if other != number:
                self.world.cut(number, other)
        self.world.down.add(number)

    @rule(number=st.integers(0, 2))
    def wake(self, number: int) -> None:
        """It was suspended all the time."""
        self.world.down.discard(number)

    @rule(number=st.integers(0, 2), status=st.sampled_from(["online", "busy"]))
    def change(self, number: int, status: str) -> None:
        if number not in self.world.down:
            world = self.world
            said = world.nodes[number].say(status, world.now, world.now_ms)  # type: ignore[arg-type]
            world.apply(number, said)

    @invariant()
    def nobody_is_accused(self) -> None:
        assert not self.world.dropped
        assert set(self.world.refused) <= {"stale"}

    def teardown(self) -> None:
        world = self.world
        world.down.clear()
        for pair in ((0, 1), (0, 2), (1, 2)):
            world.link(*pair)
        world.run(60)
        assert [world.live(number) for number in range(3)] == [{0, 1, 2}] * 3
        roots = {gossip.table.digests.root for gossip in world.nodes}
        assert len(roots) == 1
        world.down.add(2)
        world.cut(0, 2)
        world.cut(1, 2)
        world.run(100)
        assert [world.live(number) for number in range(2)] == [{0, 1}] * 2


TestThreeNodes = ThreeNodes.TestCase
TestThreeNodes.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
