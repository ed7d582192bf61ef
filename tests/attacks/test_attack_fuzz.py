"""Whatever bytes come, a decoder takes them or refuses them; see fuzz.py, which has the figures."""

from __future__ import annotations

import pytest

from tests.attacks import report
from tests.attacks.fuzz import Decoder, decoders, run


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: decoder.name)
def test_it_raises_nothing_else(decoder: Decoder) -> None:
    outcome = run(decoder, report.scale(250, 2000), seed=1)
    assert outcome.accepted + outcome.refused == outcome.cases
    assert outcome.accepted and outcome.refused  # its samples are valid, and not everything is
