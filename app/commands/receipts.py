"""`infraxa receipts`: what was bought and sold, and files that prove it, or a driver's lie, to anybody.

Such a file is checked by verify.py, which needs neither this node nor its store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from infraxa.app.commands.books import PAGE, WHOLE, find_order, moment, no_receipt, pages, peer_text, read
from infraxa.app.commands.given import folders_of, settings_of
from infraxa.app.commands.output import clean, is_terminal, note, print_json, print_pairs, print_table
from infraxa.app.errors import NodeError
from infraxa.app.facade import NodeFacade
from infraxa.app.folders import whole_path
from infraxa.app.trade import ReceiptSeen, Role
from infraxa.app.verdict_words import verdict_text
from infraxa.net.credits import shown

STANDARD: Final = "-"
"""In place of a file: standard output."""
_STATES: Final = {"due": "not countersigned"}
"""In words, where the word itself says too little."""


def list_receipts(data_dir: Path | None, *, role: Role | None, count: int, as_json: bool) -> None:
    folders = folders_of(data_dir)
    nothing: list[ReceiptSeen] = []

    async def listed(node: NodeFacade) -> list[ReceiptSeen]:
        return [one async for one in pages(node, role=role, count=count)]

    found = asyncio.run(read(folders, settings_of(folders, {}), listed, nothing))
    if as_json:
        print_json(found)
        return
    # Who only sold knows of no audits; a program that reads this counts on every column.
    audited = not is_terminal(sys.stdout) or any(one.verdict for one in found)
    rows = [
        (
            moment(one.at_ms),
            _way(one),
            peer_text(one.name, one.peer),
            one.model,
            str(one.n_prompt),
            str(one.n_out),
            shown(one.charge),
            shown(one.accepted) if one.state != "due" else "",
            _STATES.get(one.state, one.state),
            *((_verdict(one),) if audited else ()),
            one.order[:12] if is_terminal(sys.stdout) else one.order,
        )
        for one in found
    ]
    numbers = ("prompt", "answer", "charge", "agreed")
    known = ("state", "verdict") if audited else ("state",)
    print_table(("time", "", "peer", "model", *numbers, *known, "order"), rows, right=numbers)
    if not found:
        note("There are no receipts.")


def _way(one: ReceiptSeen) -> str:
    if one.role == "provider":
        return "sold to"
    if one.canary:
        return "judged by" if one.outcome == "scored" else "canary of"
    return "bought from"


def _verdict(one: ReceiptSeen) -> str:
    return verdict_text(one.verdict, one.why, proven=one.proven) if one.verdict else ""


def show_receipt(data_dir: Path | None, order: str, *, as_json: bool) -> None:
    """Raises NodeError `not_found`, StoreError."""
    folders = folders_of(data_dir)

    async def look(node: NodeFacade) -> tuple[ReceiptSeen, str]:
        one = await find_order(node, order)
        lines = [line for line in await node.export_receipts(one.order) if line.place == one.place]
        return one, lines[0].text

    found = asyncio.run(read(folders, settings_of(folders, {}), look, None))
    if found is None:
        raise no_receipt()
    one, line = found
    signatures = _signatures(line)
    if as_json:
        print_json(
            {**msgspec.structs.asdict(one), "signatures": signatures, "line": msgspec.Raw(line.encode())}
        )
        return
    print_pairs(
        (
            ("order", one.order),
            ("time", moment(one.at_ms)),
            (_way(one), peer_text(one.name, one.peer)),
            ("model", one.model),
            ("outcome", one.outcome),
            ("tokens", _tokens(one.n_prompt, one.n_cached, one.n_out)),
            ("as the user counts", "" if one.counted is None else _tokens(*one.counted)),
            ("prices per 1M", f"{shown(one.price_in)} prompt, {shown(one.price_out)} answer"),
            ("charge", shown(one.charge)),
            ("agreed", "" if one.state == "due" else shown(one.accepted)),
            ("disputed", shown(one.charge - one.accepted) if one.state == "disputed" else ""),
            ("state", _STATES.get(one.state, one.state)),
            ("verdict", _verdict(one)),
            ("signatures", signatures),
        )
    )


def export(data_dir: Path | None, file: str, *, order: str | None) -> None:
    """All receipts, or that of one order, as lines of JSON; a file that is there already stays.

    Raises NodeError `exists`, `not_found`, StoreError, OSError.
    """
    folders = folders_of(data_dir)
    settings = settings_of(folders, {})
    path = _new_file(file)

    async def write(node: NodeFacade) -> int:
        number = None if order is None else (await find_order(node, order)).order
        with _opened(path) as put:
            count = 0
            async for text in _lines(node, number):
                put(text)
                count += 1
        return count

    count = asyncio.run(read(folders, settings, write, 0))
    if not count and order is not None:
        raise NodeError(
            "not_found", "There is no receipt of this order.", "infraxa receipts list shows them."
        )
    if not count:
        note("There are no receipts.")
    elif path is not None:
        receipts = "receipt is" if count == 1 else "receipts are"
        print(clean(f"{count} {receipts} in {path}. Anybody can check them: infraxa verify {path.name}"))


def write_proof(data_dir: Path | None, order: str, file: str) -> None:
    """The proof that the driver of this order lied, one line; a file that is there already stays. A whole
    number may be that of somebody else's order, whose proof was told.

    Raises NodeError `exists`, `not_found`, `no_proof`, StoreError, OSError.
    """
    folders = folders_of(data_dir)
    path = _new_file(file)

    async def ask(node: NodeFacade) -> str:
        whole = order.strip().lower()
        return await node.proof_of(whole if len(whole) == WHOLE else (await find_order(node, order)).order)

    text = asyncio.run(read(folders, settings_of(folders, {}), ask, ""))
    if not text:
        raise no_receipt()
    with _opened(path) as put:
        put(text)
    if path is not None:
        print(clean(f"The proof is in {path}. Anybody can check it: infraxa verify {path.name}"))


def _new_file(file: str) -> Path | None:
    """Where to write; None: standard output. Raises NodeError `exists`."""
    path = None if file == STANDARD else whole_path(file)
    if path is not None and path.exists():
        raise NodeError("exists", f"The file {path} is there already.", "Choose another name, or remove it.")
    return path


async def _lines(node: NodeFacade, order: str | None) -> AsyncIterator[str]:
    """The newest first."""
    before: int | None = None
    while True:
        page = await node.export_receipts(order, before=before, count=PAGE)
        for line in page:
            yield line.text
        if order is not None or len(page) < PAGE:
            return
        before = page[-1].place


@contextlib.contextmanager
def _opened(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Writes lines to standard output, or to a new file, for this person alone, that is whole or not there:
    it tells who bought what of whom."""
    if path is None:
        yield print
        return
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(number, "w", encoding="utf-8", newline="\n") as opened:
            yield lambda text: opened.write(f"{text}\n")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _signatures(line: str) -> str:
    """What the exported line proves to somebody who has nothing but it."""
    from infraxa.app.commands.verify import proves
    from infraxa.net import receipt_file
    from infraxa.net.errors import NetError

    try:
        return proves(receipt_file.checked(line))
    except NetError as error:
        return error.message


def _tokens(n_prompt: int, n_cached: int, n_out: int) -> str:
    cached = f" ({n_cached} of them cached)" if n_cached else ""
    return f"prompt {n_prompt}{cached}, answer {n_out}"
