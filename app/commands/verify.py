"""`infraxa verify`: checks receipts in a file, offline. No node, no store and no clock is asked.

Each line is read up to a bound and judged alone; what is written in it is believed only as far as its
signatures go.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from infraxa.app.commands.output import note, print_json, print_pairs
from infraxa.app.folders import whole_path
from infraxa.net import receipt_file
from infraxa.net.credits import shown
from infraxa.net.errors import NetError
from infraxa.net.identity import display
from infraxa.net.receipt_file import MAX_LINE, Checked

STANDARD: Final = "-"
"""In place of a file: standard input."""


def verify(file: str, *, as_json: bool) -> int:
    """Returns 0 when every line proves what it says, else 1. Raises NetError, OSError."""
    bad: list[dict[str, Any]] = []
    good: list[Checked] = []
    count = n_bad = charge = agreed = countersigned = 0
    for number, line in _lines(file):
        count += 1
        try:
            found = receipt_file.checked(line)
        except NetError as error:
            n_bad += 1
            if as_json:
                bad.append({"line": number, "reason": error.message})
            else:
                print(f"line {number}: {error.message}")
            continue
        charge += found.receipt.charge
        if found.countersign is not None:
            agreed += found.countersign.charge
            countersigned += 1
        if as_json or count == 1:
            good.append(found)
    if as_json:
        print_json(
            {
                "ok": bool(count) and not bad,
                "lines": count,
                "charge": charge,
                "agreed": agreed,
                "bad": bad,
                "receipts": [_facts(one) for one in good],
            }
        )
    elif count == 1 and good:
        _show(good[0])
    elif count > n_bad:
        print(
            f"{count - n_bad} {'receipt holds' if count - n_bad == 1 else 'receipts hold'}, "
            f"{countersigned} countersigned: "
            f"{shown(charge)} credits charged, {shown(agreed)} agreed."
        )
    if not count:
        note("infraxa: There is no receipt in this file. infraxa receipts export writes one.")
        return 1
    if n_bad:
        note(f"infraxa: {n_bad} of {count} lines {'proves' if n_bad == 1 else 'prove'} nothing.")
    return int(n_bad > 0)


def proves(found: Checked) -> str:
    """In one sentence."""
    by = "not countersigned"
    if found.countersign is not None:
        by = f"countersigned by account {display('', found.receipt.account)}"
    quoted = "keeps to its quote" if found.quoted else "without a quote"
    return f"signed by {display('', found.provider)}, {by}, {quoted}"


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, after their numbers; of one that is too long, its beginning."""
    number = 0
    with _opened(file) as opened:
        while data := opened.readline(MAX_LINE * 4 + 2):
            number += 1
            if not data.endswith(b"\n"):
                while (rest := opened.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
            # What is no text is no receipt, and stays recognizable as such.
            text = data.decode("utf-8", "surrogateescape").strip()
            if text:
                yield number, text


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    path: Path = whole_path(file)
    if path.is_dir():
        raise NetError("bad_file", f"{path} is a folder.", "Give the file that receipts export wrote.")
    with path.open("rb") as opened:
        yield opened


def _show(found: Checked) -> None:
    said, agreed = found.receipt, found.countersign
    print_pairs(
        (
            ("order", said.order.hex()),
            ("tokens", f"prompt {said.n_prompt} ({said.n_cached} cached), answer {said.n_out}"),
            ("prices per 1M", f"{shown(said.price_in)} prompt, {shown(said.price_out)} answer"),
            ("charge", shown(said.charge)),
            ("agreed", "" if agreed is None else shown(agreed.charge)),
            ("proof", proves(found)),
        )
    )


def _facts(found: Checked) -> dict[str, Any]:
    from infraxa.net.identity import id_text

    said, agreed = found.receipt, found.countersign
    return {
        "order": said.order.hex(),
        "provider": id_text(found.provider),
        "account": id_text(said.account),
        "n_prompt": said.n_prompt,
        "n_cached": said.n_cached,
        "n_out": said.n_out,
        "charge": said.charge,
        "agreed": None if agreed is None else agreed.charge,
        "quoted": found.quoted,
        "outcome": said.outcome,
        "started_ms": said.started,
        "ended_ms": said.ended,
    }
