"""A pull in words, for commands and screens."""

from __future__ import annotations

from infraxa.app.hub_values import PullChecked, PullMoved, PullPlan, PullWaits
from infraxa.app.sizes import size_text


def plan_lines(plan: PullPlan) -> list[str]:
    """What would be downloaded, why this, and what speaks against it: a sentence each."""
    many = f" in {len(plan.files)} files" if len(plan.files) > 1 else ""
    here = f", of which {size_text(plan.size - plan.missing)} are here" if plan.missing < plan.size else ""
    facts = [
        f"{plan.files[0].path}{many}: {size_text(plan.size)}{here}",
        f"about {size_text(plan.memory)} of memory ({size_text(plan.free_memory)} are free)",
        f"license {plan.license}" if plan.license else "no license is named",
    ]
    return [line for line in (" · ".join(facts), plan.note, plan.warning) if line]


def progress(event: PullMoved | PullChecked) -> str:
    """`1.2 GB of 4.4 GB · 12.0 MB/s · 4 min left`."""
    parts = [f"{size_text(event.done)} of {size_text(event.total)}"]
    if isinstance(event, PullMoved) and event.rate is not None:
        parts.append(f"{size_text(int(event.rate))}/s")
        if event.left_s is not None and event.done < event.total:
            parts.append(f"{time_text(event.left_s)} left")
    return " · ".join(parts)


def waits(event: PullWaits) -> str:
    """Why nothing comes, and when it is tried again."""
    return f"{event.reason} Attempt {event.attempt} of {event.attempts} in {event.seconds:.0f} s."


def kept(moved: PullMoved | None) -> str:
    """What a download that was stopped leaves."""
    if moved is None:
        return "Stopped; nothing was downloaded."
    so_far = f"{size_text(moved.done)} of {size_text(moved.total)}"
    return f"Stopped; {so_far} is kept, and the next pull goes on from there."


def time_text(seconds: float) -> str:
    """`40 s`, `4 min`, `2 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"
