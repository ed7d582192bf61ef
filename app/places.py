"""An engine and the model that it is for, and what the settings say of how that is loaded.

Which of them there are, and which go for another one, is decided in pool.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from infraxa.app.choices import ModelEntry
from infraxa.app.config import Settings
from infraxa.app.errors import NodeError
from infraxa.app.files import FileMark
from infraxa.engine.host import Engine
from infraxa.engine.models import memory_estimate
from infraxa.engine.types import LoadOptions

MOST: Final = 8
"""Models at once, when the settings leave it to memory."""


class Place:
    """An engine and the model that it is for."""

    def __init__(self, engine: Engine, entry: ModelEntry, mark: FileMark) -> None:
        self.engine = engine
        self.entry = entry
        self.mark = mark
        """What its file was like when it was wanted."""
        self.options: LoadOptions | None = None
        """As it was loaded last, or is being loaded."""
        self.loading: asyncio.Task[None] | None = None
        self.holders = 0
        """Answers that have it in hand."""
        self.guests = 0
        """How many of them are guests'."""
        self.persons = False
        """The person wanted it, and not guests alone."""
        self.used = time.monotonic()
        self.reserved = 0
        """Bytes that it may take while it is being loaded."""

    @property
    def failed(self) -> bool:
        return self.loading is None and self.engine.status.state in ("off", "failed")

    @property
    def pid(self) -> int | None:
        loaded = self.engine.status.loaded
        return None if loaded is None else loaded.pid

    @property
    def takes(self) -> int:
        """Bytes, by the estimate that limits are compared with."""
        loaded = self.engine.status.loaded
        if loaded is None:
            return 0 if self.failed else self.reserved
        estimate = memory_estimate(self.entry.info, loaded.n_ctx, loaded.slots, loaded.kv_type)
        return estimate + loaded.park_bytes


def options_of(settings: Settings, limit: int | None = None, kept_free: int = 0) -> LoadOptions:
    """How a model is loaded. `limit`: what it may take of `Settings.memory_limit`, in bytes."""
    return LoadOptions(
        n_ctx=settings.context,
        slots=settings.slots,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        memory_limit=limit,
        kv_type=settings.kv_type,
        flash_attention=settings.flash_attention,
        unified_kv=settings.unified_kv,
        kept_free=kept_free,
    )


def limit_beside(settings: Settings, stay: Iterable[Place]) -> int | None:
    """Bytes that one more model may take beside these."""
    if settings.memory_limit is None:
        return None
    return max(1, settings.memory_limit * 1_000_000 - sum(place.takes for place in stay))


def no_room(settings: Settings) -> NodeError:
    """What is in hand leaves no room for one more."""
    why = f"there is no memory for one more, or no more than {settings.models_loaded or MOST} may be loaded"
    return NodeError(
        "busy",
        f"Another model is answering in another chat, and {why}.",
        "Wait for the end of that answer or stop it, then try again.",
    )
