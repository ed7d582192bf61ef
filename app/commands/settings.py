"""`infraxa config`: where the settings are, what they are, and setting one."""

from __future__ import annotations

import os
from pathlib import Path

from infraxa.app import config
from infraxa.app.commands.failures import UsageError
from infraxa.app.commands.given import folders_of
from infraxa.app.commands.output import clean, note, print_json, print_table
from infraxa.app.errors import NodeError
from infraxa.app.folders import Folders


def show_path(data_dir: Path | None, *, as_json: bool) -> None:
    folders = folders_of(data_dir)
    if as_json:
        print_json({"config": str(folders.config_file), "data": str(folders.data), "log": str(folders.log)})
    else:
        print(clean(str(folders.config_file)))


def show_settings(data_dir: Path | None, *, as_json: bool) -> None:
    layers = config.read(folders_of(data_dir), None, os.environ)
    for line in layers.warnings:
        note(f"infraxa: {line}")
    values = {name: getattr(layers.settings, name) for name in config.names()}
    if as_json:
        print_json(
            {
                name: {"value": value, "from": layers.sources[name], "help": config.help_text(name)}
                for name, value in values.items()
            }
        )
        return
    rows = [
        (name, config.text_of(value), layers.sources[name], config.help_text(name))
        for name, value in values.items()
    ]
    print_table(("setting", "value", "from", "what it is for"), rows)


def set_setting(data_dir: Path | None, name: str, value: str) -> None:
    """Raises UsageError for a name or a value that is not allowed, as for the option of the same name."""
    folders = folders_of(data_dir)
    try:
        parsed = config.parse(name, value, "config set")
    except NodeError as error:
        raise UsageError(f"{error.message} {error.remedy}".strip()) from None
    if name == "model":
        _check_model(folders, value)
    _set(folders, name, value)
    later = f" ({config.LATER[name]})" if name in config.LATER else ""
    print(clean(f"{name} = {config.text_of(parsed)}{later}"))
    if config.variable(name) in os.environ:
        note(f"infraxa: {config.variable(name)} is set and goes before config.toml.")


def _set(folders: Folders, name: str, value: str) -> None:
    """By the infraxa that is open, so that it comes into force there; else by this command."""
    from infraxa.app.commands.front import is_open

    if not is_open(folders):
        config.set(folders, name, value)
        return
    import asyncio

    from infraxa.app.commands.front import attached_node

    async def set_there() -> None:
        async with attached_node(folders, config.Settings()) as node:
            if node is None:
                config.set(folders, name, value)
            else:
                await node.change_setting(name, value)

    asyncio.run(set_there())


def _check_model(folders: Folders, name: str) -> None:
    """Raises NodeError `no_model`, or EngineError for a file that is no model."""
    if name == config.GUIDE:
        return
    from infraxa.app import choices
    from infraxa.app.commands.models import read_records

    choices.find_model(name, choices.model_entries(read_records(folders)))
