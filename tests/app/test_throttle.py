"""What goes out in parts is the whole, and nothing of an answer goes out before what commits to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infraxa.app.throttle import parts
from infraxa.engine.types import Delta

deltas = st.builds(
    Delta,
    st.text(max_size=300),
    st.lists(st.integers(0, 200_000), max_size=80).map(tuple),
    st.just(()),
    st.lists(st.binary(min_size=3, max_size=3), max_size=80).map(tuple),
    st.sampled_from([b"", b"beginning"]),
)


@given(deltas, st.integers(64, 1024))
def test_the_parts_are_the_whole(delta: Delta, size: int) -> None:
    cut = [part for part, _ in parts(delta, size)]
    assert "".join(part.text for part in cut) == delta.text
    assert tuple(token for part in cut for token in part.token_ids) == delta.token_ids
    assert (cut[0].leaves, cut[0].ctx0) == (delta.leaves, delta.ctx0)
    assert not any(part.leaves or part.ctx0 for part in cut[1:])
