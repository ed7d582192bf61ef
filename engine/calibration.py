"""The honest noise of one model file on this machine: by how much its logits differ when the same answers
are computed in other ways that are just as right.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from infraxa.engine.aside import Aside
from infraxa.engine.frames import Calibrate, Calibrating
from infraxa.engine.scoring import Means
from infraxa.engine.types import EngineError


def calibrate(aside: Aside[Any], means: Means, asked: Calibrate) -> Generator[float, None, Calibrating]:
    """The task of `aside`. Raises EngineError."""
    yield 0.0
    raise EngineError("unsupported", "This model cannot be calibrated yet.", "Update infraxa.")
