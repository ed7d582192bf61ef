"""What is said of a model that is pulled from the hub: what was asked for, what was chosen, how it goes.

Values only, which travel between processes; who speaks with the hub is in hub.py.
"""

from __future__ import annotations

import msgspec

from infraxa.app.choices import ModelEntry


class Access(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the hub is reached: by the environment of whoever asks, not of the process that downloads."""

    endpoint: str = "https://huggingface.co"
    token: str = ""

    def __repr__(self) -> str:
        return f"Access({self.endpoint!r})"  # the token belongs in no log


class PullAsked(msgspec.Struct, frozen=True):
    """What a person wants to have."""

    repo: str
    """OWNER/NAME."""
    quant: str = ""
    """A quantization, or the path of a file in the repository; empty: infraxa chooses."""
    name: str | None = None
    """What to call the model here."""
    force: bool = False
    """Also when it is larger than all memory of this machine."""
    access: Access = Access()


class HubFile(msgspec.Struct, frozen=True):
    """A file of a repository."""

    path: str
    size: int
    sha256: str = ""
    """As hexadecimal; empty when the hub does not say."""


class PullPlan(msgspec.Struct, frozen=True):
    """What would be downloaded."""

    repo: str
    commit: str
    quant: str
    """Empty when the name of the file does not say."""
    files: tuple[HubFile, ...]
    size: int
    """Bytes, all files together."""
    missing: int
    """Bytes that are not here yet from an earlier attempt."""
    name: str
    """What the model will be called."""
    license: str
    memory: int
    """About how many bytes of memory it takes."""
    free_memory: int
    note: str = ""
    """Why this file, when nobody named it; one sentence."""
    warning: str = ""
    """What speaks against it; one sentence."""


class PullChosen(msgspec.Struct, frozen=True, tag="chosen"):
    """The first: nothing was downloaded yet."""

    plan: PullPlan


class PullMoved(msgspec.Struct, frozen=True, tag="moved"):
    """So much is here, a few times a second."""

    done: int
    """Bytes of all files, with those of an earlier attempt."""
    total: int
    rate: float | None = None
    """Bytes per second of the last seconds; None until there is something to divide."""
    left_s: float | None = None


class PullWaits(msgspec.Struct, frozen=True, tag="waits"):
    """Nothing comes because of this; it is tried again."""

    reason: str
    seconds: float
    attempt: int
    attempts: int


class PullChecked(msgspec.Struct, frozen=True, tag="checked"):
    """What is here is read again: `done` of `total` bytes."""

    done: int
    total: int


class PullAdded(msgspec.Struct, frozen=True, tag="added"):
    """The last: it can be used."""

    model: ModelEntry
    is_default: bool
    """It answers new chats from now on."""


PullEvent = PullChosen | PullMoved | PullWaits | PullChecked | PullAdded
