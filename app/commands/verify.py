"""`infraxa verify`: checks receipts, and proofs that a driver lied, in a file, offline. No node, no store and
no clock is asked.

Each line is read up to a bound and judged alone; what is written in it is believed only as far as its
signatures go.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from infraxa.app.commands.output import note, print_json, print_pairs
from infraxa.app.folders import whole_path
from infraxa.net import receipt_file
from infraxa.net.credits import shown
from infraxa.net.errors import NetError
from infraxa.net.identity import display, id_text
from infraxa.net.receipt_file import MAX_LINE, Checked

if TYPE_CHECKING:
    from infraxa.app.fraud import Fraud

STANDARD: Final = "-"
"""In place of a file: standard input."""
PROOF: Final = '{"infraxa_proof":'
"""How a proof of fraud begins, and no receipt."""


def verify(file: str, *, as_json: bool) -> int:
    """Returns 0 when every line proves what it says, else 1. Raises NetError, OSError."""
    bad: list[dict[str, Any]] = []
    good: list[Checked] = []
    lies: list[Fraud] = []
    count = n_bad = n_lies = charge = agreed = countersigned = 0
    lines = _lines(file)
    begin = list(islice(lines, 2))
    alone = len(begin) == 1 and not as_json
    for number, line in chain(begin, lines):
        count += 1
        try:
            found = _checked(line)
        except NetError as error:
            n_bad += 1
            if as_json:
                bad.append({"line": number, "reason": error.message})
            else:
                print(f"line {number}: {error.message}")
            continue
        if isinstance(found, Checked):
            charge += found.receipt.charge
            if found.countersign is not None:
                agreed += found.countersign.charge
                countersigned += 1
            if as_json:
                good.append(found)
            elif alone:
                _show(found)
        else:
            n_lies += 1
            if as_json:
                lies.append(found)
            elif alone:
                _show_lie(found)
            else:
                print(f"line {number}: {_lie(found)}")
    holding = count - n_bad - n_lies
    if as_json:
        print_json(
            {
                "ok": bool(count) and not bad,
                "lines": count,
                "charge": charge,
                "agreed": agreed,
                "bad": bad,
                "receipts": [_facts(one) for one in good],
                "frauds": [_lie_facts(one) for one in lies],
            }
        )
    elif holding and not alone:
        print(
            f"{holding} {'receipt holds' if holding == 1 else 'receipts hold'}, "
            f"{countersigned} countersigned: "
            f"{shown(charge)} credits charged, {shown(agreed)} agreed."
        )
    if not count:
        note("infraxa: There is no receipt in this file, and no proof. infraxa receipts export writes some.")
        return 1
    if n_bad:
        note(f"infraxa: {n_bad} of {count} lines {'proves' if n_bad == 1 else 'prove'} nothing.")
    return int(n_bad > 0)


def _checked(line: str) -> Checked | Fraud:
    """What a line proves: that a driver lied, or what was bought. Raises NetError."""
    if not line.startswith(PROOF):
        return receipt_file.checked(line)
    # Here, because receipts are checked without the sampler.
    from infraxa.app import fraud

    return fraud.checked(line)


def proves(found: Checked) -> str:
    """In one sentence."""
    by = "not countersigned"
    if found.countersign is not None:
        by = f"countersigned by account {display('', found.receipt.account)}"
    quoted = "keeps to its quote" if found.quoted else "without a quote"
    return f"signed by {display('', found.provider)}, {by}, {quoted}"


def committed(found: Checked) -> str:
    """By what its answer can be audited; empty: by nothing."""
    kept = found.receipt.transcript
    return "" if kept is None else f"{kept.steps} steps, {kept.mode}, computed by {kept.profile or 'unknown'}"


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
        raise NetError("bad_file", f"{path} is a folder.", "Give a file of receipts or proofs.")
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
            ("committed", committed(found)),
            ("signatures", proves(found)),
        )
    )


def _lie(lie: Fraud) -> str:
    """In one line: the whole id is what others can act on."""
    from infraxa.app import fraud

    return f"fraud of {id_text(lie.provider)}, order {lie.order.hex()}: {fraud.told(lie)}"


def _show_lie(lie: Fraud) -> None:
    from infraxa.app import fraud

    print_pairs(
        (
            ("fraud", fraud.told(lie)),
            ("driver", id_text(lie.provider)),
            ("order", lie.order.hex()),
            ("ended", f"{datetime.datetime.fromtimestamp(lie.ended_ms / 1000):%Y-%m-%d %H:%M}"),
            ("charged", shown(lie.charge)),
            ("proof", "it holds: the driver signed all of it, and no byte of it is another one"),
        )
    )


def _lie_facts(lie: Fraud) -> dict[str, Any]:
    return {
        "kind": lie.kind,
        "provider": id_text(lie.provider),
        "account": id_text(lie.account),
        "order": lie.order.hex(),
        "model": lie.model.hex(),
        "step": lie.step,
        "charge": lie.charge,
        "ended_ms": lie.ended_ms,
    }


def _facts(found: Checked) -> dict[str, Any]:
    said, agreed = found.receipt, found.countersign
    kept = said.transcript
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
        "committed": None
        if kept is None
        else {"mode": kept.mode, "steps": kept.steps, "root": kept.root.hex()},
        "outcome": said.outcome,
        "started_ms": said.started,
        "ended_ms": said.ended,
    }
