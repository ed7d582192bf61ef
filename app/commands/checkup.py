"""The checks of `infraxa doctor`: each looks at one thing and says what it found.

A check that only asks the operating system runs in a thread of its own, so that nothing, not even a disk that
does not answer, can keep the others from being made. Those of the network are in network_checks.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

from infraxa import __version__
from infraxa.app import choices, config
from infraxa.app.commands.models import read_records_async
from infraxa.app.config import BadSettings, Settings
from infraxa.app.folders import Folders
from infraxa.app.sizes import size_text
from infraxa.engine.types import ChatMessage, LoadOptions, Request, Sampling
from infraxa.net.threads import in_daemon_thread

LITTLE_SPACE = 1 << 30
NO_SPACE = 16 << 20
"""Bytes free on the disk of the data folder."""
LEAST_SIZE = (80, 24)
"""Columns and lines for which the app is made."""
CHECK_CONTEXT = 512


class Finding(NamedTuple):
    state: Literal["ok", "warn", "fail"]
    reason: str
    remedy: str = ""


class Check(NamedTuple):
    name: str
    run: Callable[[Folders], Awaitable[Finding]]
    limit: float
    """Seconds it may take."""
    when_slow: str
    """The remedy when it takes longer."""


async def _program(folders: Folders) -> Finding:
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("ok", f"infraxa {__version__}, {python}")


async def _llama_cpp(folders: Folders) -> Finding:
    """Imported in a process of its own: what is broken here may end the whole process."""
    from infraxa.engine.process import worker_environment

    code = (
        "from importlib.metadata import version; from infraxa.engine import llama; "
        "print(version('llama-cpp-python'), llama.supports_gpu(), llama.system_info(), sep='\\n')"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", code),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=worker_environment(),
    )
    try:
        out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    lines = out.decode("utf-8", "replace").splitlines()
    if process.returncode != 0 or len(lines) < 3:
        last = err.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return Finding(
            "fail",
            f"llama.cpp cannot be loaded: {last or f'its process ended with {process.returncode}'}",
            "Install llama-cpp-python again: pip install --force-reinstall --no-cache-dir llama-cpp-python",
        )
    gpu = "with" if lines[1] == "True" else "without"
    return Finding("ok", f"llama-cpp-python {lines[0]}, built {gpu} GPU support; {lines[2]}")


async def _guide(folders: Folders) -> Finding:
    from infraxa.engine.guide import GUIDE_PATH
    from infraxa.engine.host import Engine

    engine = Engine()
    try:
        loaded = await engine.load(GUIDE_PATH, LoadOptions(n_ctx=CHECK_CONTEXT, slots=1))
        question = ChatMessage("user", "What is 2+2?")
        text, end = await engine.generate(
            Request((question,), Sampling(temperature=0, max_tokens=64))
        ).collect()
    finally:
        await engine.close()
    if end.error is not None:
        return Finding("fail", end.error.message, end.error.remedy)
    first = f", first token after {end.usage.first_token_ms:.0f} ms" if end.usage.first_token_ms else ""
    rate = end.usage.tokens_per_second
    speed = f", {rate:.0f} tokens/s" if rate else ""
    times = f"loaded in {loaded.load_ms} ms{first}{speed}, {loaded.threads} threads"
    if "4" not in text:
        return Finding("warn", f"It answers 2+2 wrongly ({times}).", "Install infraxa again.")
    return Finding("ok", f"It answers: {times}.")


async def _model(folders: Folders) -> Finding:
    """The default model: its file, and the memory it takes."""
    from infraxa.engine.models import memory_estimate
    from infraxa.engine.sizing import free_memory

    settings = settings_or_defaults(folders)
    entry = choices.find_model(settings.model, choices.model_entries(await read_records_async(folders)))
    if entry.problem:
        return Finding("fail", f"{entry.name}: {entry.problem}", "See: infraxa models list")
    context = settings.context or min(entry.context_length or 4096, 4096)
    needed, free = memory_estimate(entry.info, context, 1), free_memory()
    found = (
        f"{entry.name} takes about {size_text(needed)} with {context} tokens of context; "
        f"{size_text(free)} are free."
    )
    if needed > free:
        return Finding("warn", found, "Close other programs, or choose a smaller model: infraxa models list")
    return Finding("ok", found)


async def _processor(folders: Folders) -> Finding:
    from infraxa.engine.sizing import free_cores

    free = await in_daemon_thread(free_cores)
    threads = settings_or_defaults(folders).threads
    found = f"{os.cpu_count()} logical cores, {free} physical ones free."
    if threads is not None and threads > free:
        return Finding(
            "warn",
            f"{found} The setting threads is {threads}.",
            "More threads than free cores make answers many times slower: infraxa config set threads auto",
        )
    return Finding("ok", found)


async def _settings(folders: Folders) -> Finding:
    try:
        layers = await in_daemon_thread(lambda: config.read(folders))
    except BadSettings as error:
        return Finding(
            "fail", error.message, 'Correct it there; "infraxa config path" says where the file is.'
        )
    changed = [name for name, source in layers.sources.items() if source != "default"]
    if layers.warnings:
        return Finding("warn", " ".join(layers.warnings), "The names are: infraxa config show")
    return Finding("ok", f"{folders.config_file}: {', '.join(changed) or 'all defaults'}.")


def settings_or_defaults(folders: Folders) -> Settings:
    """What is wrong with the settings is said by their own check, once."""
    try:
        return config.load(folders)
    except BadSettings:
        return Settings()


async def _data_folder(folders: Folders) -> Finding:
    def look() -> tuple[bool, int]:
        folder = folders.data
        exists = folder.is_dir()
        place = folder if exists else next(parent for parent in folder.parents if parent.exists())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"infraxa")
        return exists, shutil.disk_usage(place).free

    try:
        exists, free = await in_daemon_thread(look)
    except OSError as error:
        return Finding(
            "fail",
            f"{folders.data} cannot be written: {error.strerror or error}.",
            "Make it writable for your user, or choose another folder with --data-dir.",
        )
    found = f"{folders.data} {'is writable' if exists else 'will be made'}; {size_text(free)} are free."
    if free < NO_SPACE:
        return Finding("fail", found, "Free some space on that disk.")
    return Finding("warn" if free < LITTLE_SPACE else "ok", found)


async def _store(folders: Folders) -> Finding:
    from infraxa.store import health
    from infraxa.store.db import Store
    from infraxa.store.folder import DATABASE_NAME

    if not (folders.data / DATABASE_NAME).exists():
        return Finding("ok", "Nothing is saved yet.")
    async with await Store.open(folders.data) as store:
        found = await store.run(health.check)
    if found.damage:
        return Finding(
            "fail",
            f"The database is damaged: {found.damage}",
            "Put back a copy of the data folder that was good.",
        )
    return Finding(
        "ok",
        f"Sound: schema {found.schema}; {found.chats} chats, {found.messages} messages, "
        f"{found.models} models.",
    )


async def _running(folders: Folders) -> Finding:
    """The infraxa that has the folder, and whether other commands can talk to it."""
    from infraxa.app.control.client import AttachedNode
    from infraxa.app.control.opening import attach

    began = time.monotonic()
    node = await attach(folders.data, lambda: AttachedNode(settings_or_defaults(folders), folders))
    if node is None:
        return Finding("ok", "No infraxa is open; commands work by themselves.")
    try:
        chats = len(await node.list_chats())
        ms = (time.monotonic() - began) * 1000
        engine = node.engine
        found = f"infraxa (pid {node.pid}) is open; it answered within {ms:.0f} ms and has {chats} chats"
        if engine.error is not None:
            return Finding("warn", f"{found}. {engine.error.message}", engine.error.remedy)
        return Finding("ok", f"{found}; {node.current_model()} is {engine.state}.")
    finally:
        await node.close()


async def _themes(folders: Folders) -> Finding:
    theme = settings_or_defaults(folders).theme

    def look() -> tuple[bool, int, list[str]]:
        from textual.theme import BUILTIN_THEMES

        from infraxa.app.tui.themes import Library

        variables = BUILTIN_THEMES["textual-dark"].to_color_system().generate()
        library = Library(folders.themes, variables)
        own, problems = library.load_own()
        return library.find(theme) is not None, len(own), problems

    there, own, problems = await in_daemon_thread(look)
    if problems:
        return Finding("warn", " ".join(problems), "The other themes still work.")
    if not there:
        return Finding(
            "warn",
            f"There is no theme {theme!r}.",
            "Choose one: infraxa config set theme",
        )
    return Finding(
        "ok", f"{own} of your own in {folders.themes}." if own else "The ones that come with infraxa."
    )


async def _terminal(folders: Folders) -> Finding:
    term, encoding = os.environ.get("TERM", ""), (sys.stdout.encoding or "").lower()
    colors = os.environ.get("COLORTERM") or (
        "none (NO_COLOR)" if os.environ.get("NO_COLOR") else "as TERM says"
    )
    if not sys.stdout.isatty():
        return Finding("ok", f"The output is not a terminal; TERM={term or '-'}, {encoding}.")
    size = shutil.get_terminal_size()
    found = f"TERM={term or '-'}, colours: {colors}, {size.columns}×{size.lines}, {encoding}"
    if term in ("", "dumb"):
        return Finding("warn", found, "The app cannot draw here; infraxa ask works.")
    if encoding not in ("utf-8", "utf8"):
        return Finding("warn", found, "Set a UTF-8 locale, such as LANG=C.UTF-8.")
    if size.columns < LEAST_SIZE[0] or size.lines < LEAST_SIZE[1]:
        return Finding("warn", found, f"The app is made for {LEAST_SIZE[0]}×{LEAST_SIZE[1]} and more.")
    return Finding("ok", found)


CHECKS = (
    Check("program", _program, 5, ""),
    Check("llama.cpp", _llama_cpp, 30, "The disk may be slow; try again."),
    Check("guide", _guide, 60, "The machine may be busy; try again."),
    Check("settings", _settings, 10, "The disk does not answer."),
    Check("data folder", _data_folder, 10, "The disk does not answer."),
    Check("running node", _running, 10, "It may be busy or stopped; quit it, or end its process."),
    Check("store", _store, 30, "The disk is slow, or the database is very big."),
    Check("model", _model, 15, "The disk does not answer."),
    Check("processor", _processor, 10, ""),
    Check("themes", _themes, 20, "The disk does not answer."),
    Check("terminal", _terminal, 5, ""),
)
