"""`infraxa verify`: a file of receipts is believed line by line, offline, and nothing in it does harm."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from infraxa.app.commands import verify as work
from infraxa.net import deals, receipt_file
from infraxa.net.receipt_file import MAX_LINE
from tests.app.command_line import Ran, infraxa, one_line
from tests.app.test_cli_imports import modules
from tests.attacks.bargains import ACCOUNT, PROVIDER, QUOTE, RECEIPT, countersign


def a_line(number: int, *, signed: bool = True) -> str:
    quote = deals.sign(QUOTE, PROVIDER)
    said = msgspec.structs.replace(RECEIPT, order=bytes([number]) * 16, quote=deals.quote_hash(quote))
    receipt = deals.sign(said, PROVIDER)
    agreed = deals.sign(countersign(receipt), ACCOUNT) if signed else None
    return receipt_file.written(receipt, agreed, quote)


LINES = [a_line(number) for number in range(3)]


def verify(text: str | bytes, folder: Path, *options: str) -> Ran:
    """Of a file, as both commands and in a pipe: they say the same."""
    file = folder / "receipts.jsonl"
    data = text.encode() if isinstance(text, str) else text
    file.write_bytes(data)
    ran = infraxa("verify", str(file), *options, data=folder / "data")
    assert infraxa("receipts", "verify", str(file), *options, data=folder / "data") == ran
    assert not (folder / "data").exists()
    assert "Traceback" not in ran.err
    return ran


def test_good_receipts(tmp_path: Path) -> None:
    ran = verify("\n".join([*LINES, a_line(9, signed=False)]) + "\n\n", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "4 receipts hold, 3 countersigned: 0.000028 credits charged, 0.000021 agreed.\n"
    one = verify(LINES[0], tmp_path)
    assert one.code == 0 and "keeps to its quote" in one.out and "countersigned by account" in one.out
    assert infraxa("verify", "-", data=tmp_path / "data", stdin=LINES[0]) == one


def test_as_json(tmp_path: Path) -> None:
    ran = verify("\n".join([LINES[0], "{}", LINES[1]]), tmp_path, "--json")
    found = json.loads(ran.out)
    assert ran.code == 1
    assert (found["ok"], found["lines"], found["charge"], found["agreed"]) == (False, 3, 14, 14)
    assert [bad["line"] for bad in found["bad"]] == [2]
    assert [one["order"] for one in found["receipts"]] == ["00" * 16, "01" * 16]
    assert json.loads(verify(LINES[0], tmp_path, "--json").out)["ok"] is True


def test_each_bad_line_is_told_by_its_number_and_the_rest_is_checked(tmp_path: Path) -> None:
    forged = json.loads(LINES[1]) | {"charge": 8}
    other = json.loads(LINES[2]) | {"countersign": json.loads(LINES[0])["countersign"]}
    bad = [
        json.dumps(forged),
        json.dumps(other),
        "garbage \x1b[2J",
        "x" * (MAX_LINE * 9),
        '{"a":' + "[" * 9000,
        json.dumps(json.loads(LINES[0]) | {"infraxa_receipt": 2}),
        LINES[0][:-40],
    ]
    ran = verify("\n".join([LINES[0], *bad, "", LINES[2]]), tmp_path)
    assert ran.code == 1
    *told, whole = ran.out.splitlines()
    assert [line.partition(":")[0] for line in told] == [f"line {number}" for number in range(2, 9)]
    for line, why in zip(
        told,
        ("figures", "another receipt", "no receipt", "too long", "no receipt", "newer", "no receipt"),
        strict=True,
    ):
        assert why in line
    assert whole.startswith("2 receipts hold, 2 countersigned: 0.000014")
    assert ran.err == "infraxa: 7 of 9 lines prove nothing.\n" and "\x1b" not in ran.out


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00", bytes(range(256)) * 40, b"\0" * 100_000, b"\xed\xa0\x80"],
    ids=["utf-16", "binary", "zeros", "surrogate"],
)
def test_what_is_no_text_proves_nothing(tmp_path: Path, data: bytes) -> None:
    ran = verify(data, tmp_path)
    assert ran.code == 1 and "proves nothing" in ran.out and "receipts hold" not in ran.out


def test_an_empty_file_proves_nothing(tmp_path: Path) -> None:
    for text in ("", "\n \n"):
        one_line(verify(text, tmp_path), "no receipt in this file")
    assert json.loads(verify("", tmp_path, "--json").out)["ok"] is False


def test_what_is_no_file(tmp_path: Path) -> None:
    one_line(infraxa("verify", str(tmp_path / "none"), data=tmp_path / "data"), "No such file")
    one_line(infraxa("verify", str(tmp_path), data=tmp_path / "data"), "is a folder")
    assert infraxa("verify", data=tmp_path / "data").code == 2


def test_a_long_file_is_read_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "receipts.jsonl"
    with file.open("w") as opened:
        for _ in range(300):
            opened.write(f"{LINES[0]}\n")
        opened.write("\n" * 1000)
        opened.write("bad\n")
    assert work.verify(str(file), as_json=False) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith("line 1301: ") and out.splitlines()[1].startswith("300 receipts")
    assert "1 of 301 lines proves" in err


def test_it_opens_no_store_and_no_network(tmp_path: Path) -> None:
    file = tmp_path / "receipts.jsonl"
    file.write_text(LINES[0])
    assert not modules(tmp_path / "data", "verify", str(file)) & {"sqlite3", "asyncio", "aiohttp", "rich"}
