"""Declares every command with its options, and nothing else: each body imports the module that does the work.

So `--help` loads no more than typer.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from infraxa.app.commands import backup, gateway, options

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(TyperGroup):
    """The one place where a failure of any command becomes a line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _reported():  # the help is printed here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _reported():
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        from infraxa.app.commands.failures import report

        if (code := report(error)) is None:
            raise
        raise typer.Exit(code) from None


def _typer(text: str, **extra: Any) -> typer.Typer:
    return typer.Typer(
        help=text,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_HELP,
        **extra,
    )


app = _typer("An open market for AI inference, in one terminal.", cls=_Commands, invoke_without_command=True)
models_app = _typer("The models on this machine.", no_args_is_help=True)
identity_app = _typer("The node's key: whoever has it is this node.", no_args_is_help=True)
config_app = _typer("The settings: config.toml, INFRAXA_* variables, flags.", no_args_is_help=True)
tabs_app = _typer(
    "What this node and others owe each other. A credit is a promise between two nodes, not money.",
    no_args_is_help=True,
)
receipts_app = _typer("What was bought and sold, signed by both sides.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(identity_app, name="identity")
app.add_typer(tabs_app, name="tabs")
app.add_typer(receipts_app, name="receipts")
app.add_typer(gateway.app, name="gateway")
app.registered_commands.extend(backup.app.registered_commands)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        app(list(arguments), prog_name="infraxa")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@app.callback(epilog='Without a command, the terminal app opens. Example: infraxa ask "What is 2+2?"')
def root(
    ctx: typer.Context,
    data_dir: options.DataDir = None,
    version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False,
    model: options.Model = None,
    threads: options.Threads = None,
    context: options.Context = None,
    slots: options.Slots = None,
    gpu_layers: options.GpuLayers = None,
    models_loaded: options.ModelsLoaded = None,
    kv_type: options.KvType = None,
    flash_attention: options.FlashAttention = None,
    unified_kv: options.UnifiedKv = None,
    temperature: options.Temperature = None,
    theme: options.Theme = None,
    send_key: options.SendKey = None,
    mouse: options.Mouse = None,
    reduced_motion: options.ReducedMotion = None,
    confirm_links: options.ConfirmLinks = None,
    online: options.Online = None,
    announce: options.Announce = None,
    name: options.NodeName = None,
    network: options.Network = None,
    listen_port: options.ListenPort = None,
    bootstrap: options.Bootstrap = None,
    port_mapping: options.PortMapping = None,
    relay: options.Relay = None,
    listen_hosts: options.ListenHosts = None,
    mdns: options.Mdns = None,
    driver: options.Driver = None,
    failover: options.Failover = None,
    provide: options.Provide = None,
    provide_model: options.ProvideModel = None,
    capacity: options.Capacity = None,
    provide_hours: options.ProvideHours = None,
    pause_on_battery: options.PauseOnBattery = None,
    upload_limit: options.UploadLimit = None,
    memory_limit: options.MemoryLimit = None,
    cap_request: options.CapRequest = None,
    cap_chat: options.CapChat = None,
    cap_day: options.CapDay = None,
    cap_api: options.CapApi = None,
    max_price: options.MaxPrice = None,
    base_price: options.BasePrice = None,
    price_floor: options.PriceFloor = None,
    price_ceiling: options.PriceCeiling = None,
    stranger_limit: options.StrangerLimit = None,
    strangers_daily: options.StrangersDaily = None,
    free_daily: options.FreeDaily = None,
    pause_when_busy: options.PauseWhenBusy = None,
    self_test: options.SelfTest = None,
    test_others: options.TestOthers = None,
    verify: options.Verify = None,
    audit: options.Audit = None,
    canaries: options.Canaries = None,
    gateway: options.Gateway = None,
    gateway_port: options.GatewayPort = None,
    gateway_host: options.GatewayHost = None,
    gateway_origins: options.GatewayOrigins = None,
) -> None:
    """An open market for AI inference, in one terminal."""
    ctx.obj = data_dir
    if version:
        from infraxa import __version__

        print(f"infraxa {__version__}")
        raise typer.Exit
    flags = {name: value for name, value in ctx.params.items() if name not in ("data_dir", "version")}
    if ctx.invoked_subcommand is not None:
        given = sorted(name for name, value in flags.items() if value is not None)
        if given:
            option = "--" + given[0].replace("_", "-")
            raise typer.BadParameter(f"{option} before a command does nothing; ask takes some after it.")
        return
    from infraxa.app.commands.open_app import open_app

    raise typer.Exit(open_app(data_dir, flags))


@app.command(epilog='Example: git diff | infraxa ask "What does this change?" --max-tokens 200')
def ask(
    ctx: typer.Context,
    question: Annotated[
        str | None, typer.Argument(help="The question; text on standard input follows it.")
    ] = None,
    model: options.Model = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before the question.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End the answer after so many tokens.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, metavar="N", help="Fix the draw: the same answer again."),
    ] = None,
    temperature: options.Temperature = None,
    threads: options.Threads = None,
    context: options.Context = None,
    gpu_layers: options.GpuLayers = None,
    driver: options.Driver = None,
    max_price: options.MaxPrice = None,
    local: Annotated[bool, typer.Option("--local", help="This machine answers, as --driver local.")] = False,
    failover: options.Failover = None,
    json: options.Json = False,
) -> None:
    """One answer on standard output, as it comes; notes go to standard error.

    While infraxa is open, its model answers, and nothing is loaded twice; with --threads, --context or
    --gpu-layers a model of its own is loaded that way. With --driver the question goes to another node,
    which reads it; what it can cost at most is said before the answer, and the charge after it.
    """
    from infraxa.app.commands import ask as work

    if local and driver not in (None, "local"):
        raise typer.BadParameter("--local and --driver contradict each other.")
    flags = {
        "model": model,
        "driver": "local" if local else driver,
        "failover": failover,
        "max_price": max_price,
        "temperature": temperature,
        "threads": threads,
        "context": context,
        "gpu_layers": gpu_layers,
    }
    code = work.ask(ctx.obj, flags, question, system=system, max_tokens=max_tokens, seed=seed, as_json=json)
    raise typer.Exit(code)


@models_app.command("list", epilog="Example: infraxa models list --json")
def models_list(ctx: typer.Context, json: options.Json = False) -> None:
    """All models; * marks the one that answers new chats.

    Piped: one line per model, the columns separated by tabs.
    """
    from infraxa.app.commands import models as work

    work.list_models(ctx.obj, as_json=json)


@models_app.command(
    "add", epilog="Example: infraxa models add ~/models/qwen2.5-7b-instruct-q4_k_m.gguf --name qwen"
)
def models_add(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A GGUF file; of a split model, its first part.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it; the file's name otherwise.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Add it although it is larger than the free memory.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Check a model file and remember it. The file stays where it is."""
    from infraxa.app.commands import models as work

    work.add_model(ctx.obj, path, name, force=force, as_json=json)


@models_app.command("show", epilog="Example: infraxa models show guide")
def models_show(ctx: typer.Context, name: options.ModelName, json: options.Json = False) -> None:
    """Everything that is known of a model."""
    from infraxa.app.commands import models as work

    work.show_model(ctx.obj, name, as_json=json)


@models_app.command("pull", epilog="Example: infraxa models pull Qwen/Qwen3-4B-GGUF:Q4_K_M")
def models_pull(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="OWNER/NAME[:QUANT]", help="The repository, and the quantization or file of it."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call it; the file's name otherwise.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Pull it although it is larger than this machine's memory.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Download a model from the Hugging Face hub and add it; without a name, list good ones.

    A download that was cut or stopped goes on where it was. HF_ENDPOINT names a mirror, HF_TOKEN opens
    what is private or gated. With --json each event is a line.
    """
    from infraxa.app.commands import pull as work

    if model is None:
        work.list_curated(as_json=json)
        return
    raise typer.Exit(work.pull(ctx.obj, model, name, yes=yes, force=force, as_json=json))


@models_app.command("remove", epilog="Example: infraxa models remove qwen")
def models_remove(
    ctx: typer.Context,
    name: options.ModelName,
    delete: Annotated[
        bool | None,
        typer.Option(
            "--delete/--keep", help="Delete the file of a pulled model, too; otherwise it is asked."
        ),
    ] = None,
) -> None:
    """Forget a model. Its file stays, unless it was pulled and is to be deleted."""
    from infraxa.app.commands import models as work

    work.remove_model(ctx.obj, name, delete=delete)


@app.command(epilog="Example: infraxa doctor --json")
def doctor(
    ctx: typer.Context,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Have a peer buy a tiny answer now, while this node serves.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Check every step, with a reason and a remedy each. The output is safe to paste."""
    from infraxa.app.commands import doctor as work

    raise typer.Exit(work.doctor(ctx.obj, self_test=self_test, as_json=json))


@config_app.command("path", epilog='Example: $EDITOR "$(infraxa config path)"')
def config_path(ctx: typer.Context, json: options.Json = False) -> None:
    """Where the settings file is."""
    from infraxa.app.commands import settings as work

    work.show_path(ctx.obj, as_json=json)


@config_app.command("show", epilog="Example: infraxa config show")
def config_show(ctx: typer.Context, json: options.Json = False) -> None:
    """Every setting, its value and where that comes from."""
    from infraxa.app.commands import settings as work

    work.show_settings(ctx.obj, as_json=json)


@config_app.command("set", epilog="Example: infraxa config set theme infraxa-light")
def config_set(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The setting.", autocompletion=options.complete_settings)],
    value: Annotated[str, typer.Argument(help="Its value.")],
) -> None:
    """Write one setting into config.toml; the rest of the file stays as it is."""
    from infraxa.app.commands import settings as work

    work.set_setting(ctx.obj, name, value)


@app.command(epilog="Example: infraxa serve --base-price 0.3 --capacity 4 --provide-hours 22:00-07:00")
def serve(
    ctx: typer.Context,
    model: options.ProvideModel = None,
    base_price: options.BasePrice = None,
    capacity: options.Capacity = None,
    provide_hours: options.ProvideHours = None,
    pause_on_battery: options.PauseOnBattery = None,
    upload_limit: options.UploadLimit = None,
    memory_limit: options.MemoryLimit = None,
    price_floor: options.PriceFloor = None,
    price_ceiling: options.PriceCeiling = None,
    stranger_limit: options.StrangerLimit = None,
    strangers_daily: options.StrangersDaily = None,
    free_daily: options.FreeDaily = None,
    pause_when_busy: options.PauseWhenBusy = None,
    self_test: options.SelfTest = None,
    test_others: options.TestOthers = None,
    api: Annotated[
        bool, typer.Option("--api", help="Open the gateway too: an OpenAI-compatible API on this machine.")
    ] = False,
    gateway_port: options.GatewayPort = None,
    gateway_origins: options.GatewayOrigins = None,
    cap_api: options.CapApi = None,
    threads: options.Threads = None,
    context: options.Context = None,
    slots: options.Slots = None,
    gpu_layers: options.GpuLayers = None,
    announce: options.Announce = None,
    name: options.NodeName = None,
    network: options.Network = None,
    listen_port: options.ListenPort = None,
    listen_hosts: options.ListenHosts = None,
    mdns: options.Mdns = None,
    bootstrap: options.Bootstrap = None,
    port_mapping: options.PortMapping = None,
    relay: options.Relay = None,
    json_events: Annotated[
        bool, typer.Option("--json-events", help="A JSON object per line instead of a log for people.")
    ] = False,
    until_eof: Annotated[
        bool,
        typer.Option("--until-eof", help="End when standard input ends: with the program that started this."),
    ] = False,
) -> None:
    """Serve this machine's model to other nodes, without a screen.

    SIGTERM and Ctrl-C finish the running answers and say goodbye; a second one ends now. SIGHUP reads
    config.toml again. Exit codes: 0 ended as asked, 1 failed with one line why, 2 wrong usage.
    """
    from infraxa.app.commands.serve import serve as work

    own = ("json_events", "until_eof", "api")
    flags = {name: value for name, value in ctx.params.items() if name not in own}
    flags["provide_model"] = flags.pop("model")
    raise typer.Exit(work(ctx.obj, flags, json_events=json_events, until_eof=until_eof, api=api))


@app.command(epilog="Example: infraxa demo --headless")
def demo(
    headless: Annotated[
        bool, typer.Option("--headless", help="Print one full exchange with its timings, then end.")
    ] = False,
) -> None:
    """A whole market on this machine: two providers and a user, thrown away afterwards."""
    from infraxa.app.commands.demo import demo as work

    raise typer.Exit(work(headless=headless))


@app.command(epilog="Example: infraxa providers --watch")
def providers(
    ctx: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C, and show what changes.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only offers of models with this in their name.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Sort by a column, such as tok/s or slots; otherwise the best first."
        ),
    ] = None,
    max_price: options.MaxPrice = None,
    everybody: Annotated[bool, typer.Option("--all", help="Also those that offer nothing.")] = False,
    wait: Annotated[
        float, typer.Option(min=0, max=60, metavar="SECONDS", help="How long to look for nodes at most.")
    ] = 3.0,
    json: options.Json = False,
) -> None:
    """The market: what each node offers, and how it did for this one.

    Asks the infraxa that is open; otherwise joins the network for a moment. Piped: one line per row, the
    columns separated by tabs; with --watch a line for each change, and with --json each line is JSON.
    """
    from infraxa.app.commands import providers as work

    look = work.Look(
        everybody=everybody, model=model, max_price=work.most(max_price), sort=sort, as_json=json
    )
    work.providers(ctx.obj, look, watch=watch, wait=wait)


@app.command(epilog="Example: infraxa earnings --since 7d --by model")
def earnings(
    ctx: typer.Context,
    since: Annotated[
        str | None,
        typer.Option(metavar="DAY", help="From this day on, as 2026-11-01, or 7d; otherwise everything."),
    ] = None,
    by: Annotated[options.By, typer.Option(help="What is summed up in a row.")] = options.By.day,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    why: Annotated[bool, typer.Option("--why", help="Why nothing, or little, is earned.")] = False,
    json: options.Json = False,
) -> None:
    """What came in and went out, in credits; with --json in millionths of them.

    Piped: one line per row, the columns separated by tabs.
    """
    from infraxa.app.commands import earnings as work

    if why:
        if csv or since is not None:
            raise typer.BadParameter("--why goes with --json alone.")
        work.why(ctx.obj, as_json=json)
        return
    if csv and json:
        raise typer.BadParameter("--csv and --json contradict each other.")
    work.earnings(ctx.obj, since=since, by=by.value, as_csv=csv, as_json=json)


@tabs_app.command("list", epilog="Example: infraxa tabs list --json")
def tabs_list(ctx: typer.Context, json: options.Json = False) -> None:
    """All tabs, the one with the most credits first.

    Piped: one line per tab, the columns separated by tabs.
    """
    from infraxa.app.commands import tabs as work

    work.list_tabs(ctx.obj, as_json=json)


@tabs_app.command("show", epilog="Example: infraxa tabs show 7g3k")
def tabs_show(ctx: typer.Context, peer: options.Peer, json: options.Json = False) -> None:
    """Everything of one tab."""
    from infraxa.app.commands import tabs as work

    work.show_tab(ctx.obj, peer, as_json=json)


@tabs_app.command("limit", epilog="Example: infraxa tabs limit 7g3k 0.5")
def tabs_limit(
    ctx: typer.Context,
    peer: options.Peer,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Credits; auto = as any stranger.")],
    json: options.Json = False,
) -> None:
    """How much one user of this provider may owe it."""
    from infraxa.app.commands import tabs as work

    work.set_limit(ctx.obj, peer, amount, as_json=json)


@tabs_app.command("settle", epilog='Example: infraxa tabs settle 7g3k 0.02 --note "lunch"')
def tabs_settle(
    ctx: typer.Context,
    peer: options.Peer,
    amount: Annotated[
        str | None, typer.Argument(metavar="[AMOUNT]", help="Credits; otherwise all that is owed.")
    ] = None,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="What you agreed with the other person; it is told.")
    ] = "",
    decline: Annotated[
        bool, typer.Option("--decline", help="Do not agree to what this user proposed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Reduce what is owed other than by serving order by order.

    To a driver: what it owes this node is set off first, the rest is proposed to its person. Of a user:
    agrees to what it proposed, or declines it.
    """
    from infraxa.app.commands import tabs as work

    work.settle(ctx.obj, peer, amount, text=note, decline=decline, as_json=json)


@receipts_app.command("list", epilog="Example: infraxa receipts list --role provider --count 50")
def receipts_list(
    ctx: typer.Context,
    role: Annotated[
        options.Role | None, typer.Option(help="user = what was bought, provider = what was sold.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="So many at most.")] = 20,
    json: options.Json = False,
) -> None:
    """The newest receipts, the newest first.

    Piped: one line per receipt, the columns separated by tabs.
    """
    from infraxa.app.commands import receipts as work

    work.list_receipts(ctx.obj, role=role and role.value, count=count, as_json=json)


@receipts_app.command("show", epilog="Example: infraxa receipts show 8f3a2c")
def receipts_show(ctx: typer.Context, order: options.Order, json: options.Json = False) -> None:
    """Everything of one receipt, and what it proves."""
    from infraxa.app.commands import receipts as work

    work.show_receipt(ctx.obj, order, as_json=json)


@receipts_app.command("export", epilog="Example: infraxa receipts export receipts.jsonl")
def receipts_export(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A new file; standard output otherwise.")
    ] = "-",
    order: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER", help="That of one order alone.", autocompletion=options.complete_orders
        ),
    ] = None,
) -> None:
    """Write receipts as lines of JSON that prove themselves, the newest first."""
    from infraxa.app.commands import receipts as work

    work.export(ctx.obj, file, order=order)


@receipts_app.command("proof", epilog="Example: infraxa receipts proof 8f3a2c proof.jsonl")
def receipts_proof(
    ctx: typer.Context,
    order: options.Order,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A new file; standard output otherwise.")
    ] = "-",
) -> None:
    """Write the proof that the driver of an order lied, when one was found.

    It holds no message. Anybody checks it with infraxa verify. infraxa providers --json names the orders of
    lies to others, too, as far as they were told: "proof".
    """
    from infraxa.app.commands import receipts as work

    work.write_proof(ctx.obj, order, file)


@receipts_app.command("verify", epilog="Example: infraxa receipts verify receipts.jsonl")
def receipts_verify(file: options.Proof, json: options.Json = False) -> None:
    """Check a file of receipts or proofs, offline; as infraxa verify."""
    from infraxa.app.commands import verify as work

    raise typer.Exit(work.verify(file, as_json=json))


@app.command(epilog="Example: infraxa verify receipts.jsonl, or: infraxa verify proof.jsonl")
def verify(file: options.Proof, json: options.Json = False) -> None:
    """Check a file of receipts, or of proofs that a driver lied, offline: signatures, sums, draws, and that
    all of it belongs together.

    A line for each proof that holds, and for each line that proves nothing. Exit code 1 only when a line
    proves nothing; a proof that holds is 0.
    """
    from infraxa.app.commands import verify as work

    raise typer.Exit(work.verify(file, as_json=json))


@app.command(epilog="Example: infraxa invite --hours 24")
def invite(
    ctx: typer.Context,
    hours: Annotated[int, typer.Option(min=1, max=8760, help="How long it is good for.")] = 168,
    json: options.Json = False,
) -> None:
    """Print an invite: a text with which another node joins this one's network."""
    from infraxa.app.commands import connect as work

    work.invite(ctx.obj, hours=hours, as_json=json)


@app.command(epilog="Example: infraxa join ix1…")
def join(
    ctx: typer.Context,
    invite: Annotated[str, typer.Argument(help="What infraxa invite printed; - for standard input.")],
    json: options.Json = False,
) -> None:
    """Join the network of an invite, and link with the node that made it."""
    from infraxa.app.commands import connect as work

    work.join(ctx.obj, invite, as_json=json)


@identity_app.command("show", epilog="Example: infraxa identity show --json")
def identity_show(ctx: typer.Context, json: options.Json = False) -> None:
    """How others see this node, and where its keys are."""
    from infraxa.app.commands import identity as work

    work.show(ctx.obj, as_json=json)


@identity_app.command("export", epilog="Example: infraxa identity export ~/stick/node.key --passphrase")
def identity_export(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="A new file, for you alone; standard output otherwise.")
    ] = "-",
    passphrase: Annotated[
        bool | None,
        typer.Option(
            "--passphrase/--no-passphrase",
            help="Put a new passphrase on the copy, or leave it off; otherwise it is as the key here. "
            "Asked for, or from INFRAXA_PASSPHRASE.",
        ),
    ] = None,
) -> None:
    """Copy the secret key. With it, another machine can be this node."""
    from infraxa.app.commands import identity as work

    work.export(ctx.obj, file, passphrase=passphrase)


@identity_app.command("import", epilog="Example: infraxa identity import ~/stick/node.key")
def identity_import(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What export wrote; - for standard input.")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace the identity here; its key is kept in a file beside it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Be the node whose key this is. Its passphrase stays on it.

    A passphrase is put on the key here by exporting it with one and importing that.
    """
    from infraxa.app.commands import identity as work

    work.import_(ctx.obj, file, force=force, as_json=json)
