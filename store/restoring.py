"""Puts the files of a data folder that were made ready aside of it in their places: all of them or none.

They are collected in a folder within it. From the moment in which READY is there the change is decided, and
whoever takes the folder's lock next finishes it; before, what was collected is thrown away. So a program that
is killed at any moment leaves the old state or the new one. What the files are is not decided here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

STAGE = "restore"
"""Within the data folder."""
DATA = "data"
"""Within STAGE: what goes into the data folder."""
CONFIG = "config"
"""Within STAGE: what goes into the folder of the settings."""
ASIDE = "aside"
"""Within STAGE: copies that go where the old files go."""
READY = "ready.json"


class Plan(msgspec.Struct, frozen=True):
    """What is decided."""

    config: str
    """The folder of the settings."""
    aside: str = ""
    """The folder that the old files go into."""
    old: tuple[str, ...] = ()
    """Names in the data folder."""


def begin(folder: Path) -> Path:
    """An empty STAGE in `folder`, whose lock is held. Raises OSError."""
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    for name in (DATA, CONFIG, ASIDE):
        (stage / name).mkdir(mode=0o700, parents=True)
    stage.chmod(0o700)
    return stage


def decide(folder: Path, plan: Plan) -> None:
    """From now on it happens: call `finish`. Raises OSError."""
    stage = folder / STAGE
    for path in stage.rglob("*"):
        _sync(path)
    new = stage / f"{READY}.new"
    with new.open("wb") as file:
        file.write(msgspec.json.encode(plan))
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, stage / READY)
    _sync(stage)
    _sync(folder)


def finish(folder: Path) -> None:
    """Do what was decided, or throw away what was not; nothing when nothing is there. May be repeated at any
    time by whoever holds the folder's lock. Raises OSError."""
    stage = folder / STAGE
    if not stage.is_dir():
        return
    try:
        plan = msgspec.json.decode((stage / READY).read_bytes(), type=Plan)
    except FileNotFoundError:
        shutil.rmtree(stage, ignore_errors=True)
        return
    if plan.aside:
        aside = Path(plan.aside)
        aside.mkdir(mode=0o700, exist_ok=True)
        for name in plan.old:
            # What is there was moved by a run that was killed later, and has its successor here.
            if not os.path.lexists(aside / name):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(folder / name, aside / name)
        _move(stage / ASIDE, aside)
        _sync(aside)
        _sync(aside.parent)
    _move(stage / DATA, folder)
    config = Path(plan.config)
    config.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in sorted((stage / CONFIG).rglob("*")):
        if path.is_file():
            _copy(path, config / path.relative_to(stage / CONFIG))
    _sync(config)
    _sync(folder)
    os.unlink(stage / READY)
    shutil.rmtree(stage, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """The files of a folder into another one of the same disk."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.replace(path, place)


def _copy(source: Path, target: Path) -> None:
    """As a whole, also onto another disk."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, new)
    _sync(new)
    os.replace(new, target)


def _sync(path: Path) -> None:
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
