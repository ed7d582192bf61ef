"""Days as a person here counts them."""

from __future__ import annotations

import datetime
import time


def start_ms(day: datetime.date) -> int:
    """Milliseconds since the epoch at which `day` begins here. Raises OverflowError for one too far away."""
    return int(time.mktime(day.timetuple())) * 1000
