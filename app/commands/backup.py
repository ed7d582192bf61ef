"""Declares `infraxa backup`, `restore` and `wipe`; what they do is in memory.py, which each body imports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from infraxa.app.commands import options

app = typer.Typer()


@app.command(epilog="Example: infraxa backup ~/stick/node.backup --passphrase")
def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, for you alone.")],
    passphrase: Annotated[
        bool,
        typer.Option("--passphrase", help="Seal it with one: asked for, or from INFRAXA_PASSPHRASE."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    json: options.Json = False,
) -> None:
    """Write everything that this node remembers into one file: keys, chats, receipts, settings, themes.

    infraxa may be open meanwhile. Model files are not in it, only where they are.
    """
    from infraxa.app.commands import memory as work

    work.backup(ctx.obj, file, passphrase=passphrase, force=force, as_json=json)


@app.command(epilog="Example: infraxa restore ~/stick/node.backup")
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What infraxa backup wrote.")],
    force: Annotated[
        bool, typer.Option("--force", help="Take the place of what is there, which is moved aside.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Be the node that a backup was made of, with all that it remembered then.

    All of it is checked before anything here is changed, and it happens whole or not at all.
    """
    from infraxa.app.commands import memory as work

    work.restore(ctx.obj, file, force=force, as_json=json)


@app.command(epilog="Example: infraxa wipe --all")
def wipe(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also the settings and themes.")] = False,
) -> None:
    """Delete what this node remembers: keys, chats, receipts. It says what is lost, and asks."""
    from infraxa.app.commands import memory as work

    raise typer.Exit(work.wipe(ctx.obj, yes=yes, everything=everything))
