"""The study of audits, small: no honest answer of the guide is called false, and lies about it are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bench import audit_study
from tests.bench._study_models import GUIDE, Models
from tests.bench._study_sides import Audited, Provider
from tests.bench.audit_study import PROFILES, WAYS, Study, interval, study


def test_honest_answers_pass_and_lies_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = study(Models(GUIDE, tmp_path), "Q8_0", PROFILES["quick"], WAYS, tmp_path)
    honest, lies = cells[: len(WAYS)], cells[len(WAYS) :]
    for cell in honest:
        assert cell.answers and not any(one.caught for one in cell.single), cell.name
        assert not any(one.caught for one in cell.pooled) and all(one.true for one in cell.answers), cell.name
    for cell in lies:
        if cell.target:
            assert cell.audits and all(one.caught for one in cell.audits), cell.name
    assert "all of these" in capsys.readouterr().out


def test_a_study_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_study, "PART", 2)
    kept = tmp_path / "kept"

    def some(n: int) -> list[Audited]:
        one = Study(Models(GUIDE, tmp_path), "Q8_0", tmp_path, kept)
        return next(one.honest(WAYS[2:3], n)).answers

    first = some(4)
    made: list[int] = []
    answer = Provider.answer

    def counted(self: Provider, asked: Any, change: Any) -> Any:
        made.append(len(asked))
        return answer(self, asked, change)

    monkeypatch.setattr(Provider, "answer", counted)
    assert some(4) == first and not made
    assert some(6)[:4] == first and made == [2]
    # What differs from what was asked is no other part's.
    assert len({str(one) for one in some(6)}) == 6


def test_intervals_are_exact() -> None:
    for (hits, n), (low, high) in {
        (0, 3000): (0, 0.001229),
        (300, 300): (0.98778, 1),
        (5, 10): (0.18709, 0.81291),
        (0, 0): (0, 1),
    }.items():
        assert list(interval(hits, n)) == pytest.approx([low, high], abs=1e-5)
    assert audit_study.rate(1, 4).startswith("1/4 = 25.000%")
