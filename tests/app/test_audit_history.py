"""What audits say of drivers: how often the next one is made, and who is not chosen any more."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from infraxa.app.audit_history import MOST_GONE, MOST_UNJUDGED, ROWS, AuditHistory
from infraxa.app.audit_values import AuditsSeen
from infraxa.store.records import Verdict
from infraxa.store.verdicts import TOLD_KEPT, VerdictRow

DRIVER, OTHER, MODEL, OTHER_MODEL = (bytes([n]) * 32 for n in range(1, 5))


def row(
    number: int, state: Any = "passed", *, proof: str = "", told: bool = False, **more: Any
) -> VerdictRow:
    verdict = Verdict(f"{number:032x}", "driver", state, proof=bool(proof), **more)
    return VerdictRow(DRIVER, MODEL, number, verdict, proof, told)


def test_of_whom_nothing_is_known_all_is_audited() -> None:
    history = AuditHistory()
    assert history.seen(DRIVER, MODEL) == AuditsSeen() and history.caught(DRIVER, MODEL) == ""
    assert history.rate(DRIVER, MODEL) == 1.0


def test_fewer_are_audited_with_each_that_passes_and_more_after_a_grey_one() -> None:
    history, rates = AuditHistory(), []
    for number in range(300):
        rates.append(history.rate(DRIVER, MODEL))
        history.add(row(number, ratio=1.0))
    assert rates[:10] == [1.0] * 10 and rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.05 and history.rate(OTHER, MODEL) == 1.0
    history.add(row(300, ratio=1.8), grey=True)
    assert history.rate(DRIVER, MODEL) == 0.5
    for number in range(301, 311):
        history.add(row(number, ratio=1.0))
    assert history.rate(DRIVER, MODEL) == 0.05


def test_they_are_counted_once_for_each_order() -> None:
    history = AuditHistory()
    history.open([row(1, "undetermined", why="no_calibration"), row(2)])
    history.add(row(1))
    assert history.seen(DRIVER, MODEL) == AuditsSeen(2, 0, 0, 2)


def test_a_failed_audit_is_of_its_model_and_a_proof_of_all() -> None:
    history = AuditHistory()
    history.add(row(1, "failed", why="other_model", ratio=4.0))
    assert "not those of the model" in history.caught(DRIVER, MODEL)
    assert history.caught(DRIVER, MODEL).startswith("It failed an audit: ") and not history.proof(DRIVER)
    assert not history.caught(DRIVER, OTHER_MODEL) and not history.is_guilty(DRIVER)
    history.add(row(2, "failed", why="wrong_token", proof="{}"))
    assert "proven" in history.caught(DRIVER, OTHER_MODEL) and history.is_guilty(DRIVER)
    assert history.proof(DRIVER) == f"{2:032x}" and not history.proof(OTHER)
    assert not history.caught(OTHER, MODEL)


def test_what_others_prove_is_no_audit_of_this_node() -> None:
    history = AuditHistory()
    history.open([row(1, "failed", why="wrong_leaf", proof="{}", told=True)])
    assert history.proof(DRIVER) == f"{1:032x}"
    assert history.caught(DRIVER, MODEL) and history.seen(DRIVER, MODEL) == AuditsSeen()


@pytest.mark.parametrize(("why", "caught"), [("other_prompt", True), ("other_text", True), ("silent", False)])
def test_who_always_names_other_hardware_is_not_chosen_any_more(why: str, caught: bool) -> None:
    history = AuditHistory()
    for number in range(MOST_UNJUDGED - 1):
        history.add(row(number, "undetermined", why=why))
    history.add(row(0, "undetermined", why=why))
    assert not history.caught(DRIVER, MODEL), "each order counts once"
    history.add(row(MOST_UNJUDGED, "undetermined", why=why))
    assert bool(history.caught(DRIVER, MODEL)) == caught
    assert not history.caught(DRIVER, OTHER_MODEL) and not history.caught(OTHER, MODEL)


def test_other_hardware_is_an_excuse_until_three_in_a_row_did_not_pass() -> None:
    history = AuditHistory()
    for number in range(30):
        # Of five that pass, two are too far off.
        state, ratio = ("undetermined", 1.9) if number % 7 in (1, 2) else ("passed", 1.2)
        history.add(row(number, state, why="backend" if ratio == 1.9 else "", ratio=ratio))
        assert not history.caught(DRIVER, MODEL)
    assert history.seen(DRIVER, MODEL).apart == (1.9,)
    for number in (30, 31):
        history.add(row(number, "undetermined", why="backend", ratio=2.5))
    history.add(row(32, "undetermined", why="few"))
    assert "other hardware" in history.caught(DRIVER, MODEL)
    assert history.seen(DRIVER, MODEL).apart == (1.9, 2.5, 2.5)
    assert not history.caught(DRIVER, OTHER_MODEL) and not history.caught(OTHER, MODEL)
    again = AuditHistory()
    again.open([row(number, "undetermined", why="backend", ratio=2.5) for number in range(3)])
    assert "other hardware" in again.caught(DRIVER, MODEL), "after a start, too"
    # The person may choose it all the same, and see that it is honest.
    again.add(row(3, ratio=1.2))
    assert not again.caught(DRIVER, MODEL) and again.seen(DRIVER, MODEL).apart == ()


def test_who_mixes_true_answers_in_is_found_by_all_of_its_ratios() -> None:
    history = AuditHistory()
    for number in range(12):
        bad = number % 3 != 2
        state, why = ("undetermined", "backend") if bad else ("passed", "")
        history.add(row(number, state, why=why, ratio=4.0 if bad else 1.0))
    assert "many audits together" in history.caught(DRIVER, MODEL)


def test_no_more_is_remembered_than_is_kept_and_no_proof_but_those_to_tell() -> None:
    history = AuditHistory()
    history.add(row(0, "failed", why="other_model", ratio=4.0))
    for number in range(1, ROWS + 20):
        history.add(row(number, ratio=1.0))
    assert history.seen(DRIVER, MODEL).passed == ROWS - 1 and history.seen(DRIVER, MODEL).failed == 1
    own = bytes(31) + b"!"
    history.add(replace(row(1, "failed", why="wrong_token", proof="own"), peer=own))
    for number in range(TOLD_KEPT + 20):
        said = row(number, "failed", why="wrong_leaf", proof=f"{number}", by="")
        history.add(replace(said, peer=number.to_bytes(32, "little"), told=True))
    guilty = [number for number in range(TOLD_KEPT + 20) if history.is_guilty(number.to_bytes(32, "little"))]
    assert guilty == [*range(20, TOLD_KEPT + 20)] and history.is_guilty(own)
    assert [*history.told().values()] == [b"%d" % number for number in range(TOLD_KEPT - 236, TOLD_KEPT + 20)]


@pytest.mark.parametrize(("ratio", "caught"), [(1.3, False), (1.7, True)])
def test_many_that_are_too_far_off_are_too_many(ratio: float, caught: bool) -> None:
    history = AuditHistory()
    for number in range(20):
        history.add(row(number, ratio=ratio))
    assert bool(history.caught(DRIVER, MODEL)) == caught


def test_what_fits_without_the_model_makes_such_audits_rarer_and_no_others() -> None:
    history = AuditHistory()
    for number in range(40):
        history.add(row(number, "signed", why="no_file"))
    assert history.seen(DRIVER, MODEL) == AuditsSeen(fit=40)
    assert history.rate(DRIVER, MODEL, compared=False) == 0.25 and history.rate(DRIVER, MODEL) == 1.0
    again = AuditHistory()
    again.open([row(number, "signed", why="no_file") for number in range(40)])
    assert again.rate(DRIVER, MODEL, compared=False) == 0.25


@pytest.mark.parametrize("why", ["no_calibration", "no_noise", "no_referee", "varying"])
def test_what_this_machine_cannot_find_out_is_not_counted(why: str) -> None:
    history = AuditHistory()
    history.add(row(1, "undetermined", why=why))
    assert history.seen(DRIVER, MODEL) == AuditsSeen()
    history.add(row(2, "undetermined", why="silent"))
    assert history.seen(DRIVER, MODEL) == AuditsSeen(undetermined=1, last_ms=2)


def test_who_loses_what_opens_its_answers_again_and_again_is_left() -> None:
    history = AuditHistory()
    for number in range(MOST_GONE):
        history.add(row(number, "passed"))
    for number in range(MOST_GONE, 2 * MOST_GONE):
        history.add(row(number, "undetermined", why="gone"))
        assert not history.caught(DRIVER, MODEL), "restarts happen"
    history.add(row(2 * MOST_GONE, "undetermined", why="gone"))
    assert "lost" in history.caught(DRIVER, MODEL)
