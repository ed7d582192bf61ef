"""Declares `infraxa gateway` and `infraxa gateway key`: options only, the work is in gateway_run.py."""

from __future__ import annotations

from typing import Annotated

import typer

from infraxa.app.commands import options

app = typer.Typer(
    help="An OpenAI-compatible API on this machine, answered by it or by the market.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    epilog="Example: infraxa gateway --port 8790, then: export OPENAI_BASE_URL=http://127.0.0.1:8790/v1 "
    'OPENAI_API_KEY="$(infraxa gateway key)"',
)

Port = Annotated[
    str | None, typer.Option("--port", metavar="PORT", help="Where it listens; 0 = any free port.")
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Listen here instead of 127.0.0.1. Nothing is encrypted: on another address than those of this "
        "machine alone, others can read the key, the prompts and the answers.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="The key that programs must send, instead of the one that infraxa keeps. Other users of this "
        "machine may see it; INFRAXA_API_KEY is not seen.",
    ),
]


@app.callback()
def gateway(
    ctx: typer.Context,
    port: Port = None,
    host: Host = None,
    api_key: ApiKey = None,
    model: options.Model = None,
    driver: options.Driver = None,
    max_price: options.MaxPrice = None,
    cap_request: options.CapRequest = None,
    cap_day: options.CapDay = None,
    cap_api: options.CapApi = None,
    gateway_origins: options.GatewayOrigins = None,
    threads: options.Threads = None,
    context: options.Context = None,
    slots: options.Slots = None,
    gpu_layers: options.GpuLayers = None,
    online: options.Online = None,
    name: options.NodeName = None,
    network: options.Network = None,
    listen_port: options.ListenPort = None,
    listen_hosts: options.ListenHosts = None,
    mdns: options.Mdns = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """An OpenAI-compatible API on this machine, answered by it or by the market, until Ctrl-C.

    Where infraxa is open already, the gateway is opened there for as long as this command runs.
    """
    given = {name: value for name, value in ctx.params.items() if value is not None}
    if ctx.invoked_subcommand is not None:
        if given:
            raise typer.BadParameter(f"--{min(given).replace('_', '-')} before a command does nothing.")
        return
    from infraxa.app.commands.gateway_run import run

    given.pop("api_key", None)
    given.pop("host", None)
    if (chosen := given.pop("port", None)) is not None:
        given["gateway_port"] = chosen
    raise typer.Exit(run(ctx.obj, given, host=host, api_key=api_key))


@app.command(epilog='Example: export OPENAI_API_KEY="$(infraxa gateway key)"')
def key(ctx: typer.Context) -> None:
    """Print the gateway's key, which is made when there is none. Whoever has it can spend your credits."""
    from infraxa.app.commands.gateway_run import print_key

    print_key(ctx.obj)
