"""Provider mode in words: how it is doing, how others reach it, what is offered, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
from textual.content import Content

from infraxa.app import config, self_test_words
from infraxa.app import serving_words as words
from infraxa.app.config import Settings
from infraxa.app.network_words import REACHABLE, peers_text, span
from infraxa.app.serving import ProviderStatus
from infraxa.app.sizes import size_text
from infraxa.app.tui.actions import BY_ID, key_label
from infraxa.app.tui.widgets.fact_list import NAME, Fact
from infraxa.app.tui.widgets.facts import short_time, speed
from infraxa.app.tui.widgets.figures import thousands
from infraxa.app.tui.widgets.network_rows import address_text
from infraxa.app.tui.widgets.status_bar import leads_to, passed_text, waiting_text
from infraxa.app.tui.widgets.text import one_line
from infraxa.app.tui.widgets.traffic import sparkline
from infraxa.net.addresses import parse
from infraxa.net.credits import read_credits, shown
from infraxa.net.errors import NetError
from infraxa.net.status import NetworkStatus

NO_PEERS = """No other node knows of the offer. On the same network they are found by themselves; elsewhere, \
invite somebody, with i in the Network view (alt+n)."""
QUARTER_MS = 900_000
ABOVE = "Above stands what keeps others away, and what helps."

_QUIET = "$foreground 60%"


class Seen(msgspec.Struct, frozen=True):
    """All that the view shows, besides its tables."""

    status: ProviderStatus = ProviderStatus()
    settings: Settings = Settings()
    network: NetworkStatus = NetworkStatus()
    model: str = ""
    """What to call the model that is served, or would be."""
    loading: float | None = None
    """How far the model is loaded, while it is."""

    earned: int | None = None
    """Of orders since it was turned on, µcr; None: not read."""

    @property
    def base(self) -> int:
        """What is asked for 1M tokens while nobody is served, µcr."""
        return words.base_price(self.settings)

    @property
    def capacity(self) -> int:
        """Answers at the same time, now or once it is turned on."""
        return self.status.capacity or words.capacity(self.settings)


def toggle_key(what: str) -> Content:
    """`F7 turns it off`, to be clicked."""
    action = BY_ID["provide.toggle"]
    key = (key_label(action.key), "bold $footer-key-foreground")
    return Content.assemble(key, f" {what}").stylize(leads_to(action.id))


def headline(seen: Seen, now_ms: int, width: int) -> Content:
    """What is going on, and what the key does about it: in one line of `width` cells, or in more."""
    status = seen.status
    at_once = f"{words.answers(seen.capacity)} at a time"
    match status.mode:
        case "off":
            sign, said, more = ("○", _QUIET), "Provider mode is off.", ""
            key = f"serves {seen.model} to others, {words.asks(seen.base)}, {at_once}."
        case "starting":
            sign, said, more = ("◌", "$text-warning"), "Provider mode is starting", _starting(seen, now_ms)
            key = "stops it."
        case "serving":
            price = words.asks(status.price_out)
            sign, said = ("●", "$text-success"), f"Serving {seen.model} to others, {price}."
            line = f", {status.waiting:,} in line" if status.waiting else ""
            more = f" {status.running:,} of {seen.capacity:,} at work{line}."
            key = "turns it off."
        case "paused":
            because = _because(status)
            more = f"{because[:2].lower()}{because[2:]}{_opens(seen, now_ms)}"
            sign, said = ("‖", "bold $text-warning"), "Paused:"
            key = "turns it off."
        case "draining":
            left = f"{words.answers(status.running)} may finish" if status.running else "it ends"
            wait = f", {passed_text(status.wait, now_ms)}" if status.wait is not None else ""
            sign, said, more = ("◌", "$text-warning"), f"Turned off: {left}", f"{wait}."
            key = "again ends them now." if status.running != 1 else "again ends it now."
        case _:
            sign, said, more = ("✕", "$text-error"), "Provider mode does not work:", _because(status)
            key = "turns it off; once more, and it is tried again."
    lines = Content.assemble((said, "bold"), more).wrap(width - 2)
    toggle = toggle_key(key)
    if len(lines) == 1 and lines[0].cell_length + 4 + toggle.cell_length <= width:
        lines = [Content.assemble(lines[0], "  ", toggle)]
    else:
        lines.append(toggle)
    return Content.assemble(sign, " ", Content("\n  ").join(lines))


def _starting(seen: Seen, now_ms: int) -> str:
    percent = f" {seen.loading:.0%}" if seen.loading is not None else ""
    if seen.status.wait is None:
        return f": {seen.model}{percent}."
    return f": {waiting_text(seen.status.wait, now_ms)}{percent}."


def _opens(seen: Seen, now_ms: int) -> str:
    """When others are let in again, as far as that is known."""
    opens = words.opens(seen.settings.provide_hours, now_ms / 1000)
    if opens:
        return f" It goes on at {opens}."
    return "" if seen.status.remedy else " It goes on by itself when that is over."


def _because(status: ProviderStatus) -> str:
    return f" {one_line(f'{status.reason} {status.remedy}', 300)}".rstrip()


def reach(seen: Seen) -> Content:
    """How others come to this node, and who knows of its offer, in one line."""
    text, is_good = _reach(seen)
    style = _QUIET if is_good else "$text-warning"
    return Content.styled(text, style).stylize(leads_to("app.network"))


def _reach(seen: Seen) -> tuple[str, bool]:
    network, settings = seen.network, seen.settings
    match network.activity:
        case "off":
            return "This node is offline: nobody can ask. Turn on the setting online (F9).", False
        case "starting" | "closing":
            return f"The network is {network.activity}: nobody can ask yet.", False
        case "blocked":
            return "The network cannot be used: nobody can ask. The Network view (alt+n) says why.", False
        case _:
            pass
    if not network.listening:
        return "This node does not listen: nobody can come in. The Network view (alt+n) says more.", False
    if not settings.announce:
        return "The setting announce is off: others do not learn of this node. F9 turns it on.", False
    if only_here(network.listening):
        place = "from this machine only"
    else:
        place = REACHABLE[network.reachability].label
    if network.reachability == "unknown" and place == REACHABLE["unknown"].label:
        place = "on this LAN; from outside: not known yet"
    linked = f"{peers_text(network.peers)}, {network.known:,} node{'s' * (network.known != 1)} known"
    told = linked if network.peers else "no other node is linked, so nobody knows of the offer"
    return f"Reached {place} · {told}", bool(network.peers)


def only_here(addresses: Sequence[str]) -> bool:
    """Whether all of these addresses are loopback."""
    return bool(addresses) and all(_is_loopback(address) for address in addresses)


def _is_loopback(address: str) -> bool:
    try:
        ip = parse(address).ip
    except NetError:
        return False
    return ip is not None and ip.is_loopback


def nobody(seen: Seen, now_ms: int) -> str:
    """What stands in place of requests when there are none."""
    status = seen.status
    key = key_label(BY_ID["provide.toggle"].key)
    match status.mode:
        case "off":
            return (
                f"Nobody is served.\n\n{key} turns provider mode on: other nodes then find this one in their "
                f"market and can ask {seen.model} here. Requests are listed here, without what they say."
            )
        case "starting":
            return "Nobody has asked yet: it is starting."
        case "failed":
            return "Nobody can be served; above stands why, and what helps."
        case "paused":
            return "Nobody is served while it is paused; above stands why."
        case _:
            return _nobody_came(seen, now_ms)


def _nobody_came(seen: Seen, now_ms: int) -> str:
    """Honest about what is known: who was told, and whether they can come in."""
    network = seen.network
    came = f"Serving {words.since(seen.status.since_ms, now_ms)}; nobody has asked yet."
    _, is_good = _reach(seen)
    if not is_good:
        return f"{came}\n\n{NO_PEERS if network.listening and not network.peers else ABOVE}"
    told = (
        f"{peers_text(network.peers)} {'has' if network.peers == 1 else 'have'} your offer and pass"
        f"{'es' * (network.peers == 1)} it on; {network.known:,} node{'s' * (network.known != 1)} "
        f"{'is' if network.known == 1 else 'are'} known here."
    )
    if only_here(network.listening):
        told = (
            "This node listens on this machine alone, by the setting listen_hosts: nobody else can come in."
        )
    elif network.reachability in ("relayed", "unreachable"):
        told += f"\n\n{REACHABLE[network.reachability].sentence}"
    return f"{came}\n\n{told}"


def facts(seen: Seen, speeds: Sequence[float], now_ms: int, width: int) -> list[Fact]:
    """What is offered, within which limits, and what came of it, in lines of `width` cells."""
    return [
        *_offer(seen, width),
        *_price(seen),
        *_limits(seen, now_ms),
        *_totals(seen, speeds, now_ms, width),
        *_way_in(seen, now_ms),
    ]


def _heading(text: str) -> Fact:
    return Fact("", text, _QUIET)


def _setting(name: str, value: str, setting: str) -> Fact:
    later = f"; it takes effect {config.LATER[setting]}" if setting in config.LATER else ""
    help_text = config.help_text(setting)
    sentence = f"{help_text[0].upper()}{help_text[1:]}."
    return Fact(name, value, setting=setting, help=sentence, change=f"Enter changes it{later}.")


def _offer(seen: Seen, width: int) -> list[Fact]:
    status, settings = seen.status, seen.settings
    model = " · ".join(part for part in (seen.model, one_line(status.quantization, 20)) if part)
    lines = [
        _setting("model", _with_auto(model, settings.provide_model), "provide_model"),
        _setting("capacity", _with_auto(f"{seen.capacity} at a time", settings.capacity), "capacity"),
    ]
    if status.context:
        lines.insert(
            1,
            Fact(
                "context",
                f"{thousands(status.context)} tokens",
                help="Of a request: prompt and answer together.",
            ),
        )
    if status.mode in ("serving", "draining", "paused"):
        full = round(min(1.0, status.running / seen.capacity) * width)
        style = "$text-warning" if status.running >= seen.capacity else "$text-primary"
        bar = Content.assemble(("━" * full, style), ("━" * (width - full), "$foreground 15%"))
        lines += [
            Fact(
                "at work", f"{status.running:,} of {seen.capacity:,}", help="Answers that are being made now."
            ),
            Fact("", bar),
            Fact(
                "in line",
                f"{status.waiting:,} of {status.room:,} places",
                help="Who comes when all are taken is refused.",
            ),
            Fact("users", f"{status.users:,}", help="Different keys among those that are served or wait."),
        ]
    return lines


def _price(seen: Seen) -> list[Fact]:
    status, settings = seen.status, seen.settings
    lines = [Fact(), _heading("PRICE, CREDITS PER 1M TOKENS")]
    if status.mode in ("serving", "draining"):
        times = f"  {status.price_out / seen.base:.2f} × base" if seen.base else ""
        help_text = (
            f"Of an answer; {shown(status.price_in)} of a prompt. It rises with the work that waits and runs."
        )
        now = shown(status.price_out) + times if status.price_out else "free"
        lines.append(Fact("price now", now, "bold", help=help_text))
    base = shown(seen.base) if seen.base else "0, free"
    floor = "base price (auto)" if settings.price_floor is None else _credits(settings.price_floor)
    ceiling = "no limit (auto)" if settings.price_ceiling is None else _credits(settings.price_ceiling)
    lines += [
        _setting("base price", base, "base_price"),
        _setting("lowest", floor, "price_floor"),
        _setting("highest", ceiling, "price_ceiling"),
        Fact(),
        _heading("CREDIT FOR STRANGERS"),
        _setting("each", f"may owe {_credits(settings.stranger_limit)}", "stranger_limit"),
        _setting("together", f"{_credits(settings.strangers_daily)} a day", "strangers_daily"),
        _setting(
            "for nothing",
            f"{settings.free_daily:,} request{'s' * (settings.free_daily != 1)} a day",
            "free_daily",
        ),
    ]
    return lines


def _credits(value: float) -> str:
    return shown(read_credits(f"{value:.6f}"))


def _with_auto(text: str, setting: object) -> str:
    return text if setting is not None else f"{text} ({config.AUTOMATIC})"


def _limits(seen: Seen, now_ms: int) -> list[Fact]:
    settings = seen.settings
    upload = f"{thousands(settings.upload_limit)} kB/s" if settings.upload_limit else "no limit"
    memory = f"{thousands(settings.memory_limit)} MB" if settings.memory_limit else "what is free"
    battery = "pauses on battery" if settings.pause_on_battery else "goes on, on battery too"
    busy = "pauses" if settings.pause_when_busy else "goes on"
    return [
        Fact(),
        _heading("LIMITS"),
        _setting("upload", upload, "upload_limit"),
        _setting("memory", memory, "memory_limit"),
        _setting("hours", words.hours(settings.provide_hours, now_ms / 1000), "provide_hours"),
        _setting("battery", battery, "pause_on_battery"),
        _setting("when busy", busy, "pause_when_busy"),
    ]


def _totals(seen: Seen, speeds: Sequence[float], now_ms: int, width: int) -> list[Fact]:
    status = seen.status
    if not status.since_ms:
        return []
    lasted = span((now_ms - status.since_ms) / 1000)
    refused = sum(status.refused.values())
    frequent = sorted(status.refused.items(), key=lambda pair: (-pair[1], pair[0]))
    first = short_time(status.first_token_ms) if status.first_token_ms else "–"
    lines = [
        Fact(),
        _heading(words.since(status.since_ms, now_ms).upper()),
        *_earned(seen),
        Fact("answered", thousands(status.answered), help=f"Whole answers, in {lasted}."),
        Fact(
            "failed", thousands(status.failed), "$text-warning" if status.failed else "",
            help="Answers that this node did not bring to their end.",
        ),
        Fact("cancelled", thousands(status.cancelled), help="By their users, or they went away."),
        Fact("refused", thousands(refused), help="Requests that were not taken; below, why."),
        *(
            Fact("", Content.styled(f"  {thousands(count)} {one_line(words.refused(code), 28)}", _QUIET))
            for code, count in frequent
            if count
        ),
        Fact("tokens", thousands(status.tokens), help="Of answers, sent to users."),
        Fact("sent", size_text(status.bytes_out), help="Bytes of answers."),
        Fact("first token", first, help="Median of the last answers, from the request to the first word."),
        Fact("speed", speed(now_speed(status)), help="All answers together, over the last 10 s."),
    ]  # fmt: skip
    if any(speeds):
        lines.append(Fact("", Content.styled(sparkline(speeds, width), "$text-primary")))
    return lines


def _earned(seen: Seen) -> list[Fact]:
    if seen.earned is None:
        return []
    begun = words.time_of_day(quarter(seen.status.since_ms))
    said = f"Countersigned by users, of orders since {begun}. The Earnings view (alt+e) has all of it."
    return [
        Fact("earned", f"{shown(seen.earned)} credits", "$text-success" if seen.earned else "", help=said)
    ]


def quarter(milliseconds: int) -> int:
    """The beginning of the quarter of an hour; both since the epoch. The books have no finer sums."""
    return milliseconds - milliseconds % QUARTER_MS


def now_speed(status: ProviderStatus) -> float:
    """Tokens per second now: what was told last is old when nothing runs."""
    return status.tokens_per_second if status.running else 0.0


def _way_in(seen: Seen, now_ms: int) -> list[Fact]:
    network = seen.network
    if network.activity not in ("alone", "online"):
        return []
    reached = REACHABLE[network.reachability]
    good = network.reachability in ("reachable", "relayed")
    why = one_line(network.reachability_reason, 200) or reached.sentence
    label = "from this machine" if only_here(network.listening) else reached.label
    return [
        Fact(),
        _heading("REACHED"),
        Fact("reachable", label, "$text-success" if good else "", help=f"{why[:1].upper()}{why[1:]}"),
        *(
            Fact("" if at else "at", f"{' ' * NAME if at else ''}{address_text(address)}")
            for at, address in enumerate(network.listening[:4])
        ),
        _self_test(seen, now_ms),
    ]


def _self_test(seen: Seen, now_ms: int) -> Fact:
    test = seen.status.self_test
    said = self_test_words.verdict(test, now_ms)
    line = _setting("self-test", self_test_words.brief(test, now_ms), "self_test")
    style = {"ok": "$text-success", "doubt": "$text-warning", "failed": "$text-error", "open": ""}[said.state]
    return replace(line, style=style, help=f"{said.text} {said.remedy}".rstrip())
