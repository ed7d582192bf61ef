"""`infraxa verify` on proofs that a driver lied, alone and among receipts, where nobody saw the chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infraxa.app.commands import receipts as work
from infraxa.app.errors import NodeError
from infraxa.net.identity import id_text
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
    assert found["ok"] is True and found["lines"] == 4 and len(found["receipts"]) == 1
    assert [one["kind"] for one in found["frauds"]] == ["wrong_token", "wrong_leaf", "two_receipts"]
    assert {one["provider"] for one in found["frauds"]} == {id_text(DRIVER.id)}
    assert [one["step"] for one in found["frauds"]] == [17, 5, None]
    bad = json.loads(verify(WRONG_TOKEN[:-2] + "}", tmp_path, "--json").out)
    assert bad["ok"] is False and [one["line"] for one in bad["bad"]] == [1]


def test_it_needs_no_model_no_store_and_no_network(tmp_path: Path) -> None:
    file = tmp_path / "proof.jsonl"
    file.write_text(WRONG_TOKEN)
    assert not modules(tmp_path / "data", "verify", str(file)) & {
        "sqlite3", "asyncio", "aiohttp", "rich", "numpy", "llama_cpp",
    }  # fmt: skip


def test_there_is_no_proof_about_an_order_that_nobody_made(tmp_path: Path) -> None:
    one_line(infraxa("receipts", "proof", "ab12cd", data=tmp_path / "data"), "no receipt of this order")
    assert infraxa("receipts", "proof", data=tmp_path / "data").code == 2
    file = tmp_path / "proof.jsonl"
    file.write_text("mine")
    with pytest.raises(NodeError, match="is there already"):
        work.write_proof(tmp_path / "data", "ab12cd", str(file))
    assert file.read_text() == "mine"
