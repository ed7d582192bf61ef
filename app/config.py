"""The settings: their names, defaults and limits, where they are read from and how one is written.

Defaults < config.toml < INFRAXA_* < flags. Nothing here knows what a setting does.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from infraxa.app.errors import NodeError
from infraxa.app.folders import DATA_DIR_VARIABLE, Folders

Source = Literal["default", "config.toml", "environment", "flag"]
Value = str | int | float | bool | None

PREFIX = "INFRAXA_"
PASSPHRASE_VARIABLE = "INFRAXA_PASSPHRASE"
"""The passphrase of the node's key: no setting, because a secret has no place in config.toml."""
API_KEY_VARIABLE = "INFRAXA_API_KEY"
"""The key of the gateway, likewise."""
_NO_SETTINGS = (DATA_DIR_VARIABLE, PASSPHRASE_VARIABLE, API_KEY_VARIABLE)
GUIDE = "guide"
"""The name of the built-in model."""
LOCAL = "local"
"""The driver that is this machine."""
ANY = "auto"
"""The driver that infraxa chooses."""
AUTOMATIC = "auto"
"""What a person writes for None: let infraxa choose."""

_NAME = r"^[^\x00-\x1f\x7f]+$"

# The limits of each setting, and the help that commands and screens show for it.
_Model = Annotated[
    str, Meta(pattern=_NAME, max_length=4096, description="the model that answers: its name, or a GGUF file")
]
_Threads = Annotated[
    int, Meta(ge=1, le=1024, description="processor threads of the model; auto = the free physical cores")
]
_Context = Annotated[
    int, Meta(ge=64, le=2**24, description="tokens of context per chat; auto = the model's, as memory allows")
]
_Slots = Annotated[int, Meta(ge=1, le=64, description="how many answers are generated at the same time")]
_GpuLayers = Annotated[
    int, Meta(ge=0, le=10_000, description="layers of the model on the GPU; auto = as many as fit")
]
_KvType = Annotated[
    Literal["f16", "q8_0", "q4_0"],
    Meta(description="how chats are kept in memory: q8_0 takes half of f16, q4_0 a quarter and loses some"),
]
_FlashAttention = Annotated[
    Literal["auto", "on", "off"],
    Meta(description="the fused kernel of attention, which takes less memory; auto = where it is quicker"),
]
_UnifiedKv = Annotated[
    bool,
    Meta(description="one memory for all chats: saves some when they begin alike, slower when they do not"),
]
_Temperature = Annotated[
    float, Meta(ge=0, le=5, description="randomness of answers, 0 = none; auto = the model's own")
]
_Theme = Annotated[str, Meta(pattern=_NAME, max_length=100, description="colours of the app")]
_SendKey = Annotated[
    Literal["enter", "ctrl+enter"],
    Meta(description="the key that sends; ctrl+j and alt+enter always insert a new line"),
]
_Mouse = Annotated[bool, Meta(description="use the mouse in the app")]
_ReducedMotion = Annotated[bool, Meta(description="no animations in the app")]
_ConfirmLinks = Annotated[bool, Meta(description="ask before a link of an answer is opened")]
_Online = Annotated[bool, Meta(description="find other nodes and talk to them; false = this machine alone")]
_Announce = Annotated[
    bool, Meta(description="let other nodes learn this one's name and addresses, on the LAN and by gossip")
]
_NodeName = Annotated[
    str,
    Meta(pattern=_NAME, max_length=32, description="what others call this node; auto = made from its key"),
]
_Network = Annotated[
    str, Meta(pattern=_NAME, max_length=64, description="the network it is part of; an invite may change it")
]
_ListenPort = Annotated[
    int, Meta(ge=0, le=65535, description="the TCP port where other nodes reach this one; 0 = any free one")
]
_Bootstrap = Annotated[
    str,
    Meta(
        pattern=_NAME,
        max_length=1024,
        description="addresses of nodes to ask first, with commas: host:port; auto = none",
    ),
]
_PortMapping = Annotated[bool, Meta(description="ask the router to let other nodes in (NAT-PMP, UPnP)")]
_Relay = Annotated[
    bool, Meta(description="hand sealed traffic on for nodes that cannot be reached; uses this node's line")
]
_ListenHosts = Annotated[
    str,
    Meta(
        pattern=_NAME,
        max_length=256,
        description="addresses of this machine where other nodes reach it, with commas; auto = all",
    ),
]
_Mdns = Annotated[bool, Meta(description="find other nodes on the local network, and be found there")]
_Driver = Annotated[
    str,
    Meta(
        # An id in its alphabet, or the beginning of one, with a name before it or none; see Drivers.find.
        pattern=r"^(local|auto|([^\x00-\x1f\x7f]*·)?[0-9A-TV-Za-tv-z]{4,52})$",
        max_length=96,
        description="who answers new chats: local = this machine, auto = infraxa chooses, or a node's id",
    ),
]
_Failover = Annotated[
    Literal["ask", "auto", "off"],
    Meta(description="when a driver fails: auto = another goes on; ask = only where infraxa chose; off = no"),
]
_Provide = Annotated[bool, Meta(description="serve this machine's model to other nodes")]
_ProvideModel = Annotated[
    str,
    Meta(pattern=_NAME, max_length=4096, description="the model that is served; auto = that of the chats"),
]
_Capacity = Annotated[
    int, Meta(ge=1, le=64, description="answers for others at the same time; auto = one slot is kept for you")
]
_ProvideHours = Annotated[
    str,
    Meta(
        pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$",
        max_length=11,
        description="serve only at these hours, local time: 22:00-07:00; auto = always",
    ),
]
_PauseOnBattery = Annotated[bool, Meta(description="serve nobody while this machine runs on its battery")]
_UploadLimit = Annotated[
    int, Meta(ge=1, le=10_000_000, description="kB per second of answers for others; auto = no limit")
]
_MemoryLimit = Annotated[
    int, Meta(ge=64, le=2**24, description="MB that models and their contexts may take; auto = what is free")
]
_ModelsLoaded = Annotated[
    int, Meta(ge=1, le=16, description="models loaded side by side at most; auto = by memory, up to 8")
]
_MOST = 1_000_000.0
"""Credits."""
_CapRequest = Annotated[float, Meta(ge=0, le=_MOST, description="credits that one message may cost at most")]
_CapChat = Annotated[float, Meta(ge=0, le=_MOST, description="credits that one chat may cost")]
_CapDay = Annotated[float, Meta(ge=0, le=_MOST, description="credits that may be spent in a day")]
_CapApi = Annotated[
    float, Meta(ge=0, le=_MOST, description="credits that programs may spend in a day through the gateway")
]
_MaxPrice = Annotated[
    float,
    Meta(ge=0, le=_MOST, description="credits per 1M tokens of answer that infraxa may choose; auto = any"),
]
_BasePrice = Annotated[
    float,
    Meta(ge=0, le=_MOST, description="credits per 1M tokens of answer at no load; 0 = free"),
]
_PriceFloor = Annotated[
    float, Meta(ge=0, le=_MOST, description="never ask for less per 1M tokens; auto = the base price")
]
_PriceCeiling = Annotated[
    float, Meta(ge=0, le=_MOST, description="never ask for more per 1M tokens; auto = no limit")
]
_StrangerLimit = Annotated[
    float, Meta(ge=0, le=_MOST, description="credits that a user without a limit of its own may owe")
]
_StrangersDaily = Annotated[
    float, Meta(ge=0, le=_MOST, description="credits a day that all such users together may run up")
]
_FreeDaily = Annotated[
    int, Meta(ge=0, le=10_000, description="free requests a day per user and address, when there is room")
]
_PauseWhenBusy = Annotated[
    bool, Meta(description="serve nobody while other programs keep this machine's processors busy")
]
_SelfTest = Annotated[
    bool, Meta(description="have a peer buy a tiny answer here each hour, to see that strangers are served")
]
_TestOthers = Annotated[
    bool,
    Meta(description="buy a tiny answer from peers that ask for it, at no cost, and tell them how it went"),
]
_Gateway = Annotated[
    bool, Meta(description="an OpenAI-compatible API for programs on this machine that have its key")
]
_GatewayPort = Annotated[
    int, Meta(ge=0, le=65535, description="the TCP port of the gateway on this machine; 0 = any free one")
]
_Verify = Annotated[
    Literal["fraud_proof", "merkle", "none"],
    Meta(
        description="drivers sign what they compute: fraud_proof (a proven lie is told to others), merkle "
        "(it stays here), none (nothing can be audited)"
    ),
]
_Audit = Annotated[
    Literal["auto", "off"],
    Meta(description="audit answers: auto (now and then, and canaries), off (only when you ask)"),
]
_Canaries = Annotated[
    bool,
    Meta(
        description="made-up questions to drivers whose model is not here, judged by other providers: at "
        "most 3 % of cap_day; only with audit = auto"
    ),
]
_GatewayHost = Annotated[
    str,
    Meta(
        pattern=_NAME,
        max_length=253,
        description="where the gateway listens: 127.0.0.1 or ::1; others by infraxa gateway --host",
    ),
]
_GatewayOrigins = Annotated[
    str,
    Meta(
        pattern=_NAME,
        max_length=2048,
        description="web pages that may use the gateway, with commas: http://localhost:3000; auto = none",
    ),
]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting; None = automatic."""

    model: _Model = GUIDE
    threads: _Threads | None = None
    context: _Context | None = None
    slots: _Slots = 8
    gpu_layers: _GpuLayers | None = None
    kv_type: _KvType = "f16"
    flash_attention: _FlashAttention = "auto"
    unified_kv: _UnifiedKv = False
    temperature: _Temperature | None = None
    theme: _Theme = "infraxa-dark"
    send_key: _SendKey = "enter"
    mouse: _Mouse = True
    reduced_motion: _ReducedMotion = False
    confirm_links: _ConfirmLinks = True
    online: _Online = True
    announce: _Announce = True
    name: _NodeName | None = None
    network: _Network = "public"
    listen_port: _ListenPort = 7741
    bootstrap: _Bootstrap | None = None
    port_mapping: _PortMapping = False
    relay: _Relay = False
    listen_hosts: _ListenHosts | None = None
    mdns: _Mdns = True
    driver: _Driver = LOCAL
    failover: _Failover = "ask"
    provide: _Provide = False
    provide_model: _ProvideModel | None = None
    capacity: _Capacity | None = None
    provide_hours: _ProvideHours | None = None
    pause_on_battery: _PauseOnBattery = True
    upload_limit: _UploadLimit | None = None
    memory_limit: _MemoryLimit | None = None
    models_loaded: _ModelsLoaded | None = None
    cap_request: _CapRequest = 0.01
    cap_chat: _CapChat = 0.05
    cap_day: _CapDay = 0.05
    cap_api: _CapApi = 0.02
    max_price: _MaxPrice | None = None
    base_price: _BasePrice = 0.2
    price_floor: _PriceFloor | None = None
    price_ceiling: _PriceCeiling | None = None
    stranger_limit: _StrangerLimit = 0.005
    strangers_daily: _StrangersDaily = 0.05
    free_daily: _FreeDaily = 3
    pause_when_busy: _PauseWhenBusy = False
    self_test: _SelfTest = True
    test_others: _TestOthers = True
    verify: _Verify = "fraud_proof"
    audit: _Audit = "auto"
    canaries: _Canaries = True
    gateway: _Gateway = False
    gateway_port: _GatewayPort = 8790
    gateway_host: _GatewayHost = "127.0.0.1"
    gateway_origins: _GatewayOrigins | None = None


NETWORK_SETTINGS = frozenset(
    {
        "online", "announce", "name", "network", "listen_port", "bootstrap", "port_mapping", "relay",
        "listen_hosts", "mdns",
    }
)  # fmt: skip
"""With one of these changed, the node leaves the network and joins it again."""

PROVIDER_SETTINGS = frozenset(
    {
        "provide",
        "provide_model",
        "capacity",
        "provide_hours",
        "pause_on_battery",
        "upload_limit",
        "base_price",
        "price_floor",
        "price_ceiling",
        "stranger_limit",
        "strangers_daily",
        "free_daily",
        "pause_when_busy",
    }
)
"""With one of these changed, what is offered to others is looked at again."""

GATEWAY_SETTINGS = frozenset({"gateway", "gateway_port", "gateway_host", "gateway_origins"})
"""With one of these changed, the gateway is opened, closed, or opened elsewhere."""

FRONT_END_SETTINGS = frozenset({"theme", "send_key", "mouse", "reduced_motion", "confirm_links"})
"""Those of one terminal: two that show the same node may differ in them."""

LATER: Mapping[str, str] = {
    "threads": "when a model is loaded",
    "context": "when a model is loaded",
    "slots": "when a model is loaded",
    "gpu_layers": "when a model is loaded",
    "kv_type": "when a model is loaded",
    "flash_attention": "when a model is loaded",
    "unified_kv": "when a model is loaded",
    "memory_limit": "when a model is loaded",
    "models_loaded": "when a model is loaded",
    "mouse": "from the next start",
}
"""When a setting takes effect, if not at once."""


class Layers(msgspec.Struct, frozen=True):
    """The settings, and for each where its value comes from."""

    settings: Settings
    sources: dict[str, Source]
    warnings: tuple[str, ...]
    """One line each: names that are no settings."""


class BadSettings(NodeError):
    """One or more values that are not allowed: one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("bad_setting", "\n".join(problems))
        self.problems = tuple(problems)


def split(value: str | None) -> tuple[str, ...]:
    """The parts of a setting that holds several, with commas between them."""
    return tuple(part.strip() for part in (value or "").split(",") if part.strip())


def names() -> tuple[str, ...]:
    return Settings.__struct_fields__


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def help_text(name: str) -> str:
    """What the setting is for, in a few words."""
    return _field(name).meta.description or ""


def allowed(name: str) -> str:
    """What may be written for it, as part of a sentence: `a whole number from 1 to 64`."""
    field = _field(name)
    if typing.get_origin(field.type) is Literal:
        text = " or ".join(f'"{choice}"' for choice in typing.get_args(field.type))
    elif field.type is bool:
        text = "true or false"
    elif name == "provide_hours":
        text = "two times of day such as 22:00-07:00"
    elif name == "driver":
        text = (
            '"local" or "auto", or the id of a node (what stands behind its name in `infraxa providers`), '
            "of which the first 4 characters are enough"
        )
    elif field.type is str:
        text = f"a line of 1 to {field.meta.max_length} characters"
    else:
        kind = "a whole number" if field.type is int else "a number"
        text = f"{kind} from {field.meta.ge} to {field.meta.le}"
    return f'{text}, or "{AUTOMATIC}"' if field.optional else text


def text_of(value: Value) -> str:
    """A value as a person writes it."""
    if value is None:
        return AUTOMATIC
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse(name: str, value: object, where: str) -> Value:
    """The value of the setting `name` from a text (a variable, a flag) or a TOML value.

    `where` names its place for the sentence of the `BadSettings` raised when it is not allowed. Raises
    NodeError `bad_setting` when there is no such setting.
    """
    if name not in names():
        raise NodeError(
            "bad_setting", f"There is no setting {name!r}.", f"The settings are: {', '.join(names())}."
        )
    field = _field(name)
    found = value
    if isinstance(value, str) and (field.optional or field.type is not str):
        found = _from_text(field, value.strip())
    if found is None and field.optional:
        return None
    try:
        if found != found:  # NaN passes every comparison
            raise msgspec.ValidationError
        return typing.cast(Value, msgspec.convert(found, Annotated[field.type, field.meta]))
    except msgspec.ValidationError:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        raise BadSettings([f"{where}: {name} is {shown}; it must be {allowed(name)}."]) from None


def load(
    folders: Folders,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Settings:
    """The settings in force. A flag that is None was not given.

    Raises `BadSettings`; `warn` gets each warning, one line.
    """
    layers = read(folders, flags, environ)
    if warn is not None:
        for line in layers.warnings:
            warn(line)
    return layers.settings


def read(
    folders: Folders,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Layers:
    """Like `load`, with the source of each value."""
    environ = os.environ if environ is None else environ
    values: dict[str, Value] = {}
    sources: dict[str, Source] = dict.fromkeys(names(), "default")
    problems: list[str] = []
    warnings: list[str] = []

    def take(name: str, value: object, where: str, source: Source) -> None:
        try:
            values[name] = parse(name, value, where)
            sources[name] = source
        except BadSettings as error:
            problems.extend(error.problems)

    path = folders.config_file
    for name, value in _read_toml(path).items():
        if name in sources:
            take(name, value, str(path), "config.toml")
        else:
            warnings.append(f"{path}: {name!r} is not a setting; it is ignored.")
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key in _NO_SETTINGS:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name in sources:
            take(name, environ[key], key, "environment")
        else:
            warnings.append(f"{key} is not the variable of a setting; it is ignored.")
    for name, value in (flags or {}).items():
        if value is not None:
            take(name, value, "--" + name.replace("_", "-"), "flag")
    if problems:
        raise BadSettings(problems)
    return Layers(msgspec.convert(values, Settings), sources, tuple(warnings))


def set(folders: Folders, name: str, value: object) -> Value:  # noqa: A001 - the command's own word
    """Write one setting into config.toml, the rest of the file as it is; returns the value as understood.

    Raises `NodeError`: `bad_setting`, `bad_folder` or `not_written`.
    """
    parsed = parse(name, value, "config set")
    path = folders.config_file.resolve()  # a link to a file kept elsewhere stays a link
    _read_toml(path)  # says what is wrong with a broken file, as every reader of it does
    import tomlkit

    document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    document[name] = AUTOMATIC if parsed is None else parsed
    folders.make()
    try:
        _replace(path, tomlkit.dumps(document))
    except OSError as error:
        raise NodeError(
            "not_written",
            f"{path} cannot be written: {error.strerror or error}.",
            "Make room and make it writable, or choose another folder with --data-dir.",
        ) from error
    return parsed


class _Field(msgspec.Struct, frozen=True):
    type: Any
    meta: Meta
    optional: bool


@cache
def _field(name: str) -> _Field:
    annotation = typing.get_type_hints(Settings, include_extras=True)[name]
    optional = typing.get_origin(annotation) is not Annotated
    if optional:
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    kind, meta = typing.get_args(annotation)
    return _Field(kind, meta, optional)


def _from_text(field: _Field, text: str) -> object:
    if field.optional and text.lower() in (AUTOMATIC, ""):
        return None
    if field.type is bool:
        return {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }.get(text.lower(), text)
    if field.type in (int, float):
        try:
            return field.type(text)
        except ValueError:
            return text
    return text


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings([f"{path} is not valid TOML: {error}."]) from error
    except OSError as error:
        raise BadSettings([f"{path} cannot be read: {error.strerror or error}."]) from error


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: a crash or a full disk leaves the old file."""
    import tempfile

    descriptor, temporary = tempfile.mkstemp(prefix=".config-", suffix=".toml", dir=path.parent)  # made 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
