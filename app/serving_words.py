"""Provider mode in words: what it does, why a request was refused, when the schedule opens.

Only texts are here; what is shown where is the business of the screens and commands.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import NamedTuple

from infraxa.app import pauses
from infraxa.app.config import Settings
from infraxa.app.network_words import span
from infraxa.app.serving import ProviderStatus, Served
from infraxa.net.credits import read_credits, shown
from infraxa.net.status import Waiting

REFUSED: Mapping[str, str] = {
    "busy": "no room",
    "model_gone": "another model",
    "too_large": "prompt too long",
    "not_allowed": "blocked users",
    "leaving": "while it was turned off",
    "rate_limited": "too often",
    "bad_request": "not understood",
    "expired": "too late",
    "internal": "fault of this node",
    "unsupported": "not offered here",
}
"""Why a request was refused, by the code on the wire."""


def refused(code: str) -> str:
    """What a code means; an unknown one, of a newer infraxa, is shown as it is."""
    return REFUSED.get(code) or code.replace("_", " ")


def answers(count: int) -> str:
    """`1 answer`, `2 answers`."""
    return f"{count:,} answer{'s' * (count != 1)}"


def model_name(name: str) -> str:
    """What a model is called in a few letters: a file that was not added is called by its own name."""
    return os.path.basename(name).removesuffix(".gguf") if os.sep in name else name


def capacity(settings: Settings) -> int:
    """How many answers for others are made at the same time, unless memory allows fewer."""
    return settings.capacity or max(1, settings.slots - 1)


class Role(NamedTuple):
    """The provider's role in a status bar; empty while provider mode is off."""

    words: str = ""
    short: str = ""
    style: str = ""
    wait: Waiting | None = None


def role(status: ProviderStatus, model: str) -> Role:
    """`serving guide 2/7`, `paused: on battery`, `finishing 2 answers`. `model`: what to call the model."""
    match status.mode:
        case "serving":
            load = f"{status.running}/{status.capacity}"
            return Role(f"serving {model} {load}", f"serving {load}", "$text-success")
        case "paused":
            reason = status.reason.rstrip(".")
            return Role(
                f"paused: {reason[:1].lower()}{reason[1:]}" if reason else "paused", "paused", "$text-warning"
            )
        case "draining":
            left = f"finishing {answers(status.running)}" if status.running else "turning off"
            return Role(left, left, "$text-warning", status.wait)
        case "starting":
            return Role("starting to serve", "starting", "$text-warning", status.wait)
        case "failed":
            return Role("cannot serve", "cannot serve", "$text-error")
        case _:
            return Role()


def asks(micro: int) -> str:
    """`for 0.20 cr/M`, or `free`: what is asked for answers, µcr per 1M tokens."""
    return f"for {shown(micro)} cr/M" if micro else "free"


def base_price(settings: Settings) -> int:
    """What is asked for 1M tokens of answers while nobody else is served, µcr."""
    return read_credits(f"{settings.base_price:.6f}")


def toggling(status: ProviderStatus, model: str, price: int) -> str:
    """What the key of provider mode would do now. `price`: what would be asked, µcr per 1M tokens."""
    match status.mode:
        case "off":
            return f"Serve {model} to others, {asks(price)}."
        case "draining":
            left = f"end the {answers(status.running)} that still run" if status.running else "stop waiting"
            return f"Turned off already: {left} now."
        case "serving" if status.running:
            return f"Turn it off: nobody new is served, {answers(status.running)} may finish."
        case _:
            return "Turn it off."


def state(served: Served) -> str:
    """What happens to a request, or how it ended, in a few words."""
    match served.state:
        case "waiting":
            return f"in line, {served.place:,} before" if served.place else "next in line"
        case "sending":
            return "its prompt comes"
        case "reading" if served.n_prompt:
            return f"reading {served.prompt_read}/{served.n_prompt}"
        case other:
            return other


def hours(setting: str | None, now: float) -> str:
    """The schedule, and when it opens or closes next; `now` in seconds since the epoch."""
    if setting is None:
        return "always"
    found = pauses.parse_hours(setting)
    if found.start == found.end:
        return f"{setting}, always"
    is_open = pauses.within(found, now)
    other = pauses.Hours(found.end, found.start) if is_open else found
    left = pauses.begin(other, now) - now
    return f"{setting}, {'closes' if is_open else 'opens'} in {span(left)}"


def opens(setting: str | None, now: float) -> str:
    """When the schedule opens next, if it is closed now: `22:00`; else nothing. `now` in seconds."""
    if setting is None:
        return ""
    found = pauses.parse_hours(setting)
    return "" if pauses.within(found, now) else f"{found.start:%H:%M}"


def time_of_day(milliseconds: int) -> str:
    """`14:02`, in the time of this machine; `milliseconds` since the epoch."""
    return time.strftime("%H:%M", time.localtime(milliseconds / 1000))


def since(milliseconds: int, now_ms: int) -> str:
    """`since 14:02`, or with the day, `since Sat 14:02`, when it was another one; both since the epoch."""
    then, now = time.localtime(milliseconds / 1000), time.localtime(now_ms / 1000)
    same_day = then[:3] == now[:3]
    return f"since {time.strftime('%H:%M' if same_day else '%a %H:%M', then)}"
