from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infraxa.net import addresses, reach
from infraxa.net.addresses import may_announce, parse
from infraxa.net.reach import Decision, DialBacks, Reach

HOME = "11.22.33.44"
HERE = f"ws://{HOME}:7741"
A, B, C, D = (bytes([number]) * 32 for number in range(1, 5))


def group(peer: bytes) -> str:
    return f"8.8.{peer[0]}.0/24"


def node(*peers: bytes, seen: str = HOME) -> Reach:
    """A node behind a router, with peers that see it at `seen`."""
    made = Reach(7741, 0.0)
    made.cards(("192.168.1.20",))
    for peer in peers:
        made.linked(peer, group(peer))
        made.observed(peer, seen)
    return made


def answered(made: Reach, now: float, reached: bool | None) -> Decision:
    """One question asked and answered."""
    decision = made.decide(now)
    assert decision.ask is not None
    peer, text = decision.ask
    made.asked(peer, text, now)
    assert made.decide(now).ask is None
    made.dialled_back(peer, text, reached, now)
    return made.decide(now)


def test_nobody_to_ask() -> None:
    made = node()
    decision = made.decide(1000.0)
    assert decision.reachability == "unknown"
    assert "none could be asked" in decision.reason
    assert decision.ask is None
    assert not decision.relay_wanted
    assert decision.announce == ()


def test_a_success_from_outside_makes_it_reachable() -> None:
    made = node(A, B)
    decision = answered(made, 1.0, True)
    assert decision.reachability == "reachable"
    assert decision.announce == (HERE,)
    assert not decision.relay_wanted
    # One word is checked by another.
    decision = answered(made, 2.0, True)
    assert decision.ask is None
    assert decision.next_s == reach.RECHECK_S


def test_one_peer_alone_does_not_say_where_this_node_is() -> None:
    made = node(A)
    decision = made.decide(1.0)
    assert decision.ask is None
    assert decision.announce == ()
    assert decision.reachability == "unknown"
    decision = made.decide(1.0 + reach.PATIENCE_S)
    assert decision.reachability == "unreachable"
    assert decision.relay_wanted


def test_two_peers_of_one_group_are_one() -> None:
    made = node(A)
    made.linked(B, group(A))
    made.observed(B, HOME)
    assert made.decide(1.0).ask is None


def test_two_failures_make_it_unreachable_and_a_relay_wanted() -> None:
    made = node(A, B)
    assert answered(made, 1.0, False).reachability == "unknown"
    decision = answered(made, 2.0, False)
    assert decision.reachability == "unreachable"
    assert decision.relay_wanted
    assert "port 7741" in decision.remedy
    assert "port_mapping" in decision.remedy
    made.relayed(1)
    decision = made.decide(3.0)
    assert decision.reachability == "relayed"
    assert decision.relay_wanted  # goes on being wanted, or it would be given up


def test_who_does_not_try_says_nothing() -> None:
    made = node(A, B)
    assert answered(made, 1.0, None).reachability == "unknown"
    assert answered(made, 2.0, None).reachability == "unknown"
    decision = made.decide(3.0)
    assert decision.ask is None  # everybody was asked
    assert made.decide(2.0 + reach.RECHECK_S / 3).ask is not None


def test_an_answer_that_does_not_come_is_waited_for_in_vain_only_so_long() -> None:
    made = node(A, B)
    first = made.decide(1.0).ask
    assert first is not None
    made.asked(*first, 1.0)
    assert made.decide(1.0 + reach.ASK_S - 1).ask is None
    second = made.decide(1.0 + reach.ASK_S).ask
    assert second is not None and second[0] != first[0]


def test_a_peer_that_goes_takes_its_question_along() -> None:
    made = node(A, B, C)
    first = made.decide(1.0).ask
    assert first is not None
    made.asked(*first, 1.0)
    made.unlinked(first[0])
    assert made.decide(1.0).ask is not None


def test_a_liar_is_outvoted() -> None:
    made = node(A, B, C, D)
    assert answered(made, 1.0, True).reachability == "reachable"
    assert answered(made, 2.0, False).reachability == "reachable"
    made.dialled_back(C, HERE, False, 3.0)
    assert made.decide(3.0).reachability == "unreachable"


def test_only_what_most_see_is_asked_about() -> None:
    made = node()
    made.linked(D, group(D))
    made.observed(D, "66.66.66.66")
    for peer in (A, B, C):
        made.linked(peer, group(peer))
        made.observed(peer, HOME)
    decision = made.decide(1.0)
    assert decision.ask is not None and decision.ask[1] == HERE
    # D, of whom as little is known, would dial only the host that it sees.
    assert decision.ask[0] != D


def test_the_local_network_says_nothing_of_outside() -> None:
    made = node()
    for peer in (A, B):
        made.linked(peer, "local")
        made.observed(peer, HOME)
    made.dialled_back(A, HERE, True, 1.0)
    made.came_in("local", 1.0)
    decision = made.decide(1000.0)
    assert decision.reachability == "unknown"
    assert decision.reason.startswith("Reached on the local network.")
    assert decision.ask is None


def test_who_is_linked_through_a_relay_is_no_witness() -> None:
    made = node()
    made.linked(A, "relay")
    made.came_in("relay", 1.0)
    assert made.decide(1000.0) == node().decide(1000.0)


def test_a_neighbour_is_not_outside() -> None:
    made = Reach(7741, 0.0)
    made.cards((HOME,))
    made.linked(A, "11.22.33.0/24")
    assert made.decide(1.0).ask is None
    made.came_in("11.22.33.0/24", 1.0)
    assert made.decide(1.0).reachability == "unknown"
    made.came_in("8.8.8.0/24", 1.0)
    assert made.decide(1.0).reachability == "reachable"


def test_who_came_in_shows_an_address_of_its_own_kind() -> None:
    made = Reach(7741, 0.0)
    made.cards((HOME, "2606:4700:1::20"))
    made.came_in("2a00:1450::/56", 1.0)
    decision = made.decide(1.0)
    assert decision.reachability == "reachable"
    assert decision.announce == ("ws://[2606:4700:1::20]:7741", HERE)
    made = Reach(7741, 0.0)
    made.cards((HOME, "11.22.33.45"))
    made.came_in("8.8.8.0/24", 1.0)
    assert made.decide(1.0).reachability == "unknown"


def test_an_own_global_address_is_told_until_it_is_refuted() -> None:
    made = Reach(7741, 0.0)
    made.cards(("2606:4700:1::20", "192.168.1.20"))
    six = "ws://[2606:4700:1::20]:7741"
    assert made.decide(0.0).announce == (six,)
    for number, peer in enumerate((A, B)):
        made.linked(peer, group(peer))
        made.observed(peer, "2606:4700:1::20")
        answered(made, float(number), False)
    assert made.decide(2.0).announce == ()


def test_an_address_that_only_peers_claim_is_not_told_unproven() -> None:
    made = node(A, B, seen="66.66.66.66")
    assert made.decide(1.0).announce == ()


@pytest.mark.parametrize("seen", ["10.0.0.1", "169.254.169.254", "127.0.0.1", "hello", "", "ws://1.2.3.4:1"])
def test_a_peer_cannot_have_this_node_look_for_itself_anywhere(seen: str) -> None:
    made = node(A, B, C, seen=seen)
    assert made.decide(1.0).ask is None


def test_a_mapping_is_tried_and_told() -> None:
    made = Reach(7741, 0.0)
    made.cards(("192.168.1.20",))
    made.mapped("ws://11.22.33.44:20001")
    for peer in (A, B):
        made.linked(peer, group(peer))
        made.observed(peer, "ws://11.22.33.44:55555")
    assert made.decide(0.0).announce == ("ws://11.22.33.44:20001",)
    asked = set()
    for number in range(4):
        decision = made.decide(float(number))
        assert decision.ask is not None
        asked.add(decision.ask[1])
        answered(made, float(number), decision.ask[1].endswith(":20001"))
    assert asked == {HERE, "ws://11.22.33.44:20001"}
    assert made.decide(9.0).announce == ("ws://11.22.33.44:20001",)
    made.mapped("")
    assert made.decide(9.0).reachability == "unreachable"


def test_new_addresses_void_what_was_known() -> None:
    made = node(A, B)
    answered(made, 1.0, True)
    made.cards(("192.168.7.7",))
    decision = made.decide(2.0)
    assert decision.reachability == "unknown"
    assert decision.announce == ()
    for peer in (A, B):
        made.observed(peer, HOME)
    assert made.decide(3.0).ask is not None


def test_what_is_known_grows_old() -> None:
    made = node(A, B)
    answered(made, 1.0, True)
    answered(made, 2.0, True)
    assert made.decide(3.0 + reach.RECHECK_S).ask is not None
    decision = made.decide(3.0 + reach.KNOWN_S)
    assert decision.reachability == "unknown"
    assert decision.announce == ()


@example([("link", 0, HOME, True, 452.15347051359305), ("link", 0, HOME, True, 60.0)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["link", "local", "unlink", "seen", "map", "in", "answer", "cards", "relay"]),
            st.integers(0, 7),
            st.sampled_from([HOME, "2606:4700::9", "66.6.6.6", "10.0.0.1", "x"]),
            st.sampled_from([True, False, None]),
            st.floats(0, 500),
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=200)
def test_whatever_happens_it_decides_within_bounds(
    events: list[tuple[str, int, str, bool | None, float]],
) -> None:
    made, now = Reach(7741, 0.0), 0.0
    for kind, number, place, word, passed in events:
        peer = bytes([number]) * 32
        now += passed
        match kind:
            case "link":
                made.linked(peer, group(peer))
            case "local":
                made.linked(peer, "local")
            case "unlink":
                made.unlinked(peer)
            case "seen":
                made.observed(peer, place)
            case "map":
                made.mapped(HERE if word else "")
            case "in":
                made.came_in(group(peer), now)
            case "cards":
                made.cards((HOME, "192.168.1.2") if word else ("192.168.1.2",))
            case "relay":
                made.relayed(number % 2)
            case _:
                made.dialled_back(peer, HERE, word, now)
        decision = made.decide(now)
        assert decision.next_s >= 1
        assert len(decision.announce) <= 4
        assert all(may_announce(parse(text)) for text in decision.announce)
        assert decision.reason.endswith(".")
        assert (decision.reachability == "unreachable") == bool(decision.remedy)
        assert not (decision.reachability == "reachable" and decision.relay_wanted)
        if decision.ask is not None:
            asked, text = decision.ask
            assert not parse(text).host.startswith("10.")
            made.asked(asked, text, now)


def backs() -> DialBacks:
    return DialBacks()


def test_who_asks_is_dialled_back() -> None:
    assert backs().admit("ws://8.8.8.8:7741", "8.8.8.8", 0.0) == parse("ws://8.8.8.8:7741")
    assert backs().admit("ws://8.8.8.8:7741", "::ffff:8.8.8.8", 0.0) == parse("ws://8.8.8.8:7741")
    assert backs().admit("ws://192.168.1.7:9000", "192.168.1.7", 0.0) == parse("ws://192.168.1.7:9000")


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("ws://8.8.4.4:7741", "8.8.8.8"),
        ("ws://127.0.0.1:7741", "8.8.8.8"),
        ("ws://8.8.8.8:22", "8.8.8.8"),
        ("ws://169.254.169.254:7741", "169.254.169.254"),
        ("relay:" + "0" * 52, "8.8.8.8"),
        ("relay:" + "0" * 52, "relay"),
        ("ws://8.8.8.8:7741", "relay"),
        ("ws://[2606::1]:7741", "2606::2"),
        ("", ""),
    ],
)
def test_nobody_else_is_dialled_for_anybody(text: str, remote: str) -> None:
    assert backs().admit(text, remote, 0.0) == "not_allowed"


@given(st.text(max_size=60), st.text(max_size=40))
@settings(deadline=None)
def test_no_text_has_another_host_dialled(text: str, remote: str) -> None:
    admitted = backs().admit(text, remote, 0.0)
    assert admitted == "not_allowed" or (
        isinstance(admitted, addresses.Address) and admitted.ip == addresses.read_ip(remote)
    )


def test_dialling_back_is_limited_by_group_and_in_all() -> None:
    serving = backs()

    def ask(ip: str, now: float) -> addresses.Address | Literal["not_allowed", "rate_limited"]:
        return serving.admit(f"ws://{ip}:7741", ip, now)

    assert ask("8.8.8.1", 0.0) != "rate_limited"
    assert ask("8.8.8.2", 0.0) != "rate_limited"
    assert ask("8.8.8.3", 0.0) == "rate_limited"
    assert ask("8.8.8.3", reach.DIAL_BACK_S) != "rate_limited"
    served = [ask(f"9.9.{number}.1", 1000.0) for number in range(100)]
    assert sum(answer != "rate_limited" for answer in served) == reach.BACK_PER_MINUTE


def test_on_the_local_network_each_host_has_its_own_limit() -> None:
    serving = backs()
    for number in range(1, 5):
        assert serving.admit(f"ws://10.0.0.{number}:7741", f"10.0.0.{number}", 0.0) != "rate_limited"


def test_a_node_without_a_global_address_wants_a_relay_soon() -> None:
    hidden, told = Reach(7741, 0.0), Reach(7741, 0.0)
    told.cards(("11.22.33.44",))
    for made in (hidden, told):
        made.linked(b"p" * 32, "55.66.77.0/24")
        first = made.decide(0.0)
        assert not first.relay_wanted
        assert made.decide(min(first.next_s, reach.HIDDEN_S)).relay_wanted is (made is hidden)
    assert told.decide(reach.PATIENCE_S).relay_wanted
