"""`infraxa verify` on proofs that a driver lied, alone and among receipts, where nobody saw the chat."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest

from infraxa.net.identity import id_text
from infraxa.store import verdicts
from infraxa.store.db import Store
from infraxa.store.records import Verdict
from infraxa.store.verdicts import VerdictRow
from tests.app.command_line import Ran, infraxa, one_line
from tests.app.lies import DRIVER, ORDER
from tests.app.test_cli_imports import modules
from tests.app.test_cli_trade_verify import LINES
from tests.app.test_fraud import PROOFS, TWO_RECEIPTS, WRONG_LEAF, WRONG_TOKEN


def verify(text: str, folder: Path, *options: str) -> Ran:
    file = folder / "proofs.jsonl"
    file.write_text(text)
    ran = infraxa("verify", str(file), *options, data=folder / "data")
    assert "Traceback" not in ran.err and not (folder / "data").exists()
    return ran


def test_a_proof_alone_is_shown_in_full(tmp_path: Path) -> None:
    ran = verify(f"{WRONG_TOKEN}\n", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    for text in (id_text(DRIVER.id), ORDER.id.hex(), "Token 18 of an answer", "it holds"):
        assert text in ran.out
    assert infraxa("verify", "-", data=tmp_path / "data", stdin=WRONG_TOKEN) == ran


def test_the_help_says_what_the_exit_code_is_and_where_orders_are_named(tmp_path: Path) -> None:
    for command, text in (
        (("verify",), "Exit code 1 only when a line proves nothing; a proof that holds is 0."),
        (("verify",), "infraxa verify proof.jsonl"),
        (("receipts", "proof"), "infraxa providers --json names the orders"),
    ):
        out = infraxa(*command, "--help", data=tmp_path / "data").out
        assert text in " ".join(out.replace("│", " ").split())


def test_each_proof_has_a_line_and_receipts_are_summed_up_beside_them(tmp_path: Path) -> None:
    ran = verify("\n".join([WRONG_TOKEN, LINES[0], WRONG_LEAF, TWO_RECEIPTS]), tmp_path)
    assert (ran.code, ran.err) == (0, "")
    *told, whole = ran.out.splitlines()
    start = f"fraud of {id_text(DRIVER.id)}, order {ORDER.id.hex()}: "
    assert [line.partition(start)[0] for line in told] == ["line 1: ", "line 3: ", "line 4: "]
    assert "two different receipts" in told[2] and whole.startswith("1 receipt holds, 1 countersigned")


def test_what_does_not_hold_is_told_by_its_line_and_code(tmp_path: Path) -> None:
    damaged = WRONG_TOKEN.replace('"step":17', '"step":16')
    newer = WRONG_TOKEN.replace('{"infraxa_proof":1,', '{"infraxa_proof":2,')
    ran = verify("\n".join([damaged, newer, WRONG_TOKEN]), tmp_path)
    assert ran.code == 1 and ran.err == "infraxa: 2 of 3 lines prove nothing.\n"
    first, second, third = ran.out.splitlines()
    assert first.startswith("line 1: This proves no fraud: ") and "newer infraxa" in second
    assert third.startswith("line 3: fraud of ")
    alone = verify(damaged, tmp_path)
    assert alone.code == 1 and alone.out.startswith("line 1: This proves no fraud")


def test_as_json(tmp_path: Path) -> None:
    found = json.loads(verify("\n".join([*PROOFS, LINES[0]]), tmp_path, "--json").out)
    assert found["ok"] is True and found["lines"] == 5 and len(found["receipts"]) == 1
    kinds = ["wrong_token", "wrong_leaf", "wrong_end", "two_receipts"]
    assert [one["kind"] for one in found["frauds"]] == kinds
    assert {one["provider"] for one in found["frauds"]} == {id_text(DRIVER.id)}
    assert [one["step"] for one in found["frauds"]] == [17, 5, 11, None]
    bad = json.loads(verify(WRONG_TOKEN[:-2] + "}", tmp_path, "--json").out)
    assert bad["ok"] is False and [one["line"] for one in bad["bad"]] == [1]


def test_it_needs_no_model_no_store_and_no_network(tmp_path: Path) -> None:
    file = tmp_path / "proof.jsonl"
    file.write_text(WRONG_TOKEN)
    assert not modules(tmp_path / "data", "verify", str(file)) & {
        "sqlite3", "asyncio", "aiohttp", "rich", "numpy", "llama_cpp",
    }  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a proof that somebody else made."""
    folder = tmp_path_factory.mktemp("told")

    async def fill() -> None:
        async with await Store.open(folder / "data") as store:
            verdict = Verdict(ORDER.id.hex(), id_text(DRIVER.id), "failed", "wrong_token", proof=True)
            row = VerdictRow(DRIVER.id, ORDER.model, 1, verdict, WRONG_TOKEN)
            await store.run(verdicts.keep, row)

    asyncio.run(fill())
    return folder


def test_the_proof_is_written_and_checked_where_nobody_saw_the_chat(told: Path, tmp_path: Path) -> None:
    file = told / "proof.jsonl"
    ran = infraxa("receipts", "proof", ORDER.id.hex(), str(file), data=told / "data")
    assert (ran.code, ran.err) == (0, "") and "infraxa verify proof.jsonl" in ran.out
    assert file.read_text() == f"{WRONG_TOKEN}\n" and stat.S_IMODE(file.stat().st_mode) == 0o600
    checked = infraxa("verify", str(file), data=tmp_path / "elsewhere")
    assert checked.code == 0 and id_text(DRIVER.id) in checked.out
    piped = infraxa("receipts", "proof", ORDER.id.hex(), data=told / "data")
    assert piped.out == f"{WRONG_TOKEN}\n"
    again = infraxa("receipts", "proof", ORDER.id.hex(), str(file), data=told / "data")
    one_line(again, "is there already")


def test_what_there_is_no_proof_about(told: Path, tmp_path: Path) -> None:
    one_line(
        infraxa("receipts", "proof", "ab" * 16, data=told / "data"),
        "no proof about this order",
        "providers --json",
    )
    one_line(infraxa("receipts", "proof", "ab12cd", data=told / "data"), "no receipt of this order")
    one_line(infraxa("receipts", "proof", "ab12cd", data=tmp_path / "data"), "no receipt of this order")
    assert infraxa("receipts", "proof", data=tmp_path / "data").code == 2
