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
    audited = AuditHistory()
    assert audited.seen(DRIVER, MODEL) == AuditsSeen() and audited.caught(DRIVER, MODEL) == ""
    assert audited.rate(DRIVER, MODEL) == 1.0


def test_fewer_are_audited_with_each_that_passes_and_more_after_a_grey_one() -> None:
    audited, rates = AuditHistory(), []
    for number in range(300):
        rates.append(audited.rate(DRIVER, MODEL))
        audited.add(row(number, ratio=1.0))
    assert rates[:10] == [1.0] * 10 and rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.05 and audited.rate(OTHER, MODEL) == 1.0
    audited.add(row(300, ratio=1.8), grey=True)
    assert audited.rate(DRIVER, MODEL) == 0.5
    for number in range(301, 311):
        audited.add(row(number, ratio=1.0))
    assert audited.rate(DRIVER, MODEL) == 0.05


def test_they_are_counted_once_for_each_order() -> None:
    audited = AuditHistory()
    audited.open([row(1, "undetermined", why="no_calibration"), row(2)])
    audited.add(row(1))
    assert audited.seen(DRIVER, MODEL) == AuditsSeen(2, 0, 0, 2)


def test_a_failed_audit_is_of_its_model_and_a_proof_of_all() -> None:
    audited = AuditHistory()
    audited.add(row(1, "failed", why="other_model", ratio=4.0))
    assert "not those of the model" in audited.caught(DRIVER, MODEL)
    assert audited.caught(DRIVER, MODEL).startswith("It failed an audit: ") and not audited.proof(DRIVER)
    assert not audited.caught(DRIVER, OTHER_MODEL) and not audited.is_guilty(DRIVER)
    audited.add(row(2, "failed", why="wrong_token", proof="{}"))
    assert "proven" in audited.caught(DRIVER, OTHER_MODEL) and audited.is_guilty(DRIVER)
    assert audited.proof(DRIVER) == f"{2:032x}" and not audited.proof(OTHER)
    assert not audited.caught(OTHER, MODEL)


def test_what_others_prove_is_no_audit_of_this_node() -> None:
    audited = AuditHistory()
    audited.open([row(1, "failed", why="wrong_leaf", proof="{}", told=True)])
    assert audited.proof(DRIVER) == f"{1:032x}"
    assert audited.caught(DRIVER, MODEL) and audited.seen(DRIVER, MODEL) == AuditsSeen()


@pytest.mark.parametrize(("why", "caught"), [("other_prompt", True), ("other_text", True), ("silent", False)])
def test_who_always_names_other_hardware_is_not_chosen_any_more(why: str, caught: bool) -> None:
    audited = AuditHistory()
    for number in range(MOST_UNJUDGED - 1):
        audited.add(row(number, "undetermined", why=why))
    audited.add(row(0, "undetermined", why=why))
    assert not audited.caught(DRIVER, MODEL), "each order counts once"
    audited.add(row(MOST_UNJUDGED, "undetermined", why=why))
    assert bool(audited.caught(DRIVER, MODEL)) == caught
    assert not audited.caught(DRIVER, OTHER_MODEL) and not audited.caught(OTHER, MODEL)


def test_other_hardware_is_not_another_model() -> None:
    audited = AuditHistory()
    for number in range(20):
        audited.add(row(number, "undetermined", why="backend", ratio=3.0))
    assert not audited.caught(DRIVER, MODEL)


def test_no_more_is_remembered_than_is_kept_and_no_proof_but_those_to_tell() -> None:
    audited = AuditHistory()
    audited.add(row(0, "failed", why="other_model", ratio=4.0))
    for number in range(1, ROWS + 20):
        audited.add(row(number, ratio=1.0))
    assert audited.seen(DRIVER, MODEL).passed == ROWS - 1 and audited.seen(DRIVER, MODEL).failed == 1
    own = bytes(31) + b"!"
    audited.add(replace(row(1, "failed", why="wrong_token", proof="own"), peer=own))
    for number in range(TOLD_KEPT + 20):
        said = row(number, "failed", why="wrong_leaf", proof=f"{number}", by="")
        audited.add(replace(said, peer=number.to_bytes(32, "little"), told=True))
    guilty = [number for number in range(TOLD_KEPT + 20) if audited.is_guilty(number.to_bytes(32, "little"))]
    assert guilty == [*range(20, TOLD_KEPT + 20)] and audited.is_guilty(own)
    assert [*audited.told().values()] == [b"%d" % number for number in range(TOLD_KEPT - 236, TOLD_KEPT + 20)]


@pytest.mark.parametrize(("ratio", "caught"), [(1.3, False), (1.7, True)])
def test_many_that_are_too_far_off_are_too_many(ratio: float, caught: bool) -> None:
    audited = AuditHistory()
    for number in range(20):
        audited.add(row(number, ratio=ratio))
    assert bool(audited.caught(DRIVER, MODEL)) == caught


def test_what_fits_without_the_model_makes_such_audits_rarer_and_no_others() -> None:
    audited = AuditHistory()
    for number in range(40):
        audited.add(row(number, "signed", why="no_file"))
    assert audited.seen(DRIVER, MODEL) == AuditsSeen(fit=40)
    assert audited.rate(DRIVER, MODEL, compared=False) == 0.25 and audited.rate(DRIVER, MODEL) == 1.0
    again = AuditHistory()
    again.open([row(number, "signed", why="no_file") for number in range(40)])
    assert again.rate(DRIVER, MODEL, compared=False) == 0.25


@pytest.mark.parametrize("why", ["no_calibration", "no_noise", "no_referee", "backend"])
def test_what_this_machine_cannot_find_out_is_not_counted(why: str) -> None:
    audited = AuditHistory()
    audited.add(row(1, "undetermined", why=why))
    assert audited.seen(DRIVER, MODEL) == AuditsSeen()
    audited.add(row(2, "undetermined", why="silent"))
    assert audited.seen(DRIVER, MODEL) == AuditsSeen(undetermined=1, last_ms=2)


def test_who_loses_what_opens_its_answers_again_and_again_is_left() -> None:
    audited = AuditHistory()
    for number in range(MOST_GONE):
        audited.add(row(number, "passed"))
    for number in range(MOST_GONE, 2 * MOST_GONE):
        audited.add(row(number, "undetermined", why="gone"))
        assert not audited.caught(DRIVER, MODEL), "restarts happen"
    audited.add(row(2 * MOST_GONE, "undetermined", why="gone"))
    assert "lost" in audited.caught(DRIVER, MODEL)
