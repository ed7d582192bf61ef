"""Key files: kept for one person, whole or not at all, never overwritten because they were not understood."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.pwhash import argon2id

from infraxa.net import keyfile
from infraxa.net.errors import NetError
from infraxa.net.identity import Signer, base32, short_id
from infraxa.net.keyfile import (
    IDENTITY_NAME,
    RECOVERY_NAME,
    KeyFile,
    exposed,
    from_text,
    keep_copy,
    load_or_make,
    make,
    read,
    seal,
    to_text,
    unseal,
    write,
)

SEEDS = iter((bytes(range(32)), bytes(range(32, 64))))
NODE, RECOVERY = make(lambda _: next(SEEDS))
NODE_TEXT = to_text(NODE)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases that take no time."""
    monkeypatch.setattr(keyfile, "_OPSLIMIT", argon2id.OPSLIMIT_MIN)
    monkeypatch.setattr(keyfile, "_MEMLIMIT", argon2id.MEMLIMIT_MIN)


def code_of(error: pytest.ExceptionInfo[NetError]) -> str:
    assert error.value.message.endswith(".") and error.value.remedy.endswith(".")
    return error.value.code


def test_the_first_run_makes_a_node_and_its_recovery_key(tmp_path: Path) -> None:
    me = load_or_make(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {IDENTITY_NAME, RECOVERY_NAME}
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    recovery = read(tmp_path / RECOVERY_NAME)
    assert recovery.kind == "recovery" and recovery.secret[32:] == me.id
    assert me.recovery == hashlib.sha256(recovery.id).digest()
    assert "Move this file" in (tmp_path / RECOVERY_NAME).read_text()

    (tmp_path / RECOVERY_NAME).unlink()  # its person keeps it elsewhere
    again = load_or_make(tmp_path)
    assert (again.id, again.recovery) == (me.id, me.recovery)
    assert not (tmp_path / RECOVERY_NAME).exists()


def test_every_node_is_another_one(tmp_path: Path) -> None:
    made = []
    for name in "abc":
        (tmp_path / name).mkdir()
        made.append(load_or_make(tmp_path / name))
    assert len({identity.id for identity in made} | {identity.recovery for identity in made}) == 6


def test_a_lost_identity_does_not_take_its_recovery_key_with_it(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    lost = read(tmp_path / RECOVERY_NAME)
    (tmp_path / IDENTITY_NAME).unlink()
    load_or_make(tmp_path)
    assert read(tmp_path / f"recovery-{short_id(lost.id)}.key") == lost
    assert read(tmp_path / RECOVERY_NAME) != lost


def test_the_text_of_version_1_stays_readable() -> None:
    """Written once; a later version has to read it."""
    text = """# a comment

infraxa-key 1
kind node
id 0eggffzksr8bw7bgvmceejy0k5ky9nhgkejgtqrxvj3684jn66w0
secret 000g40r40m30e209185gr38e1w8124gk2gahc5rr34d1p70x3rfj9xqddb5zw409r0rdfjjpfgswmj1gj4a9g8vbangtdj1aqv2xwa0
check qpcbqmv3pck4ev39
"""
    assert from_text(text, "it") == NODE
    assert from_text(text.replace("\n", "\r\n").replace("kind", "  kind"), "it") == NODE
    assert from_text(NODE_TEXT, "it") == NODE
    assert NODE.identity().id == Signer(bytes(range(32))).id


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_key_that_was_changed_or_cut_is_never_another_key(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([NODE_TEXT, to_text(RECOVERY)]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    broken = text[:start] + data.draw(st.text(max_size=3) | st.just("")) + text[end:]
    try:
        key = from_text(broken, "The file")
    except NetError as error:
        assert error.code == "bad_key" and error.remedy
        assert not set(error.message.split()) & set(text.split()[-8:])  # nothing of a secret
    else:
        assert key == from_text(text, "it")  # only comments and blanks were touched, or look-alikes


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: b"infraxa-key 1\n" + text.encode()))
def test_any_other_file_is_one_clear_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / IDENTITY_NAME
    path.write_bytes(data)
    with pytest.raises(NetError) as caught:
        load_or_make(path.parent)
    assert code_of(caught) == "bad_key"
    assert path.read_bytes() == data
    assert not (path.parent / RECOVERY_NAME).exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "damaged"),
        (NODE_TEXT[: NODE_TEXT.index("secret") + 30], "damaged"),
        (NODE_TEXT.replace("kind node", "kind recovery"), "damaged"),
        (NODE_TEXT.replace("infraxa-key 1", "infraxa-key 2"), "newer infraxa"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "not a key of infraxa"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, words: str) -> None:
    with pytest.raises(NetError, match=words) as caught:
        from_text(text, "The file x")
    assert code_of(caught) == "bad_key" and caught.value.message.startswith("The file x")


def checked(lines: str) -> str:
    return f"{lines}check {base32(hashlib.sha256(lines.encode()).digest()[:10])}\n"


@pytest.mark.parametrize(
    "lines",
    [
        "kind node\nid {other}\nsecret {secret}\n",
        "kind friend\nid {id}\nsecret {secret}\n",
        "kind node\nid {id}\nsecret {secret}\nsealed {secret}\n",
        "kind node\nid {id}\n",
        "kind node\nid {id}\nsecret {secret}00\n",
        "kind node\nid {id}\nsealed {secret}\n",
        "kind node\nkind node\nid {id}\nsecret {secret}\n",
        "kind node\nid {id}\nsecret {secret}\nshell /bin/sh\n",
    ],
)
def test_a_file_made_by_hand_does_not_pass_either(lines: str) -> None:
    values = {"id": base32(NODE.id), "secret": base32(NODE.secret), "other": base32(RECOVERY.id)}
    good = checked("infraxa-key 1\nkind node\nid {id}\nsecret {secret}\n".format(**values))
    assert from_text(good, "it") == NODE
    with pytest.raises(NetError) as caught:
        from_text(checked("infraxa-key 1\n" + lines.format(**values)), "it")
    assert code_of(caught) == "bad_key"


def test_a_passphrase_as_shipped(tmp_path: Path) -> None:
    sealed = seal(NODE, "gr\u00fcn")
    write(tmp_path / IDENTITY_NAME, sealed)
    text = (tmp_path / IDENTITY_NAME).read_text()
    assert base32(NODE.secret)[:16] not in text and base32(NODE.id) in text
    assert load_or_make(tmp_path, "gru\u0308n").id == NODE.id  # as a Mac would type it
    with pytest.raises(NetError, match="wrong") as caught:
        load_or_make(tmp_path, "grun")
    assert code_of(caught) == "locked_key"
    with pytest.raises(NetError, match="has a passphrase") as caught:
        load_or_make(tmp_path)
    assert code_of(caught) == "locked_key"
    assert (tmp_path / IDENTITY_NAME).read_text() == text


@pytest.mark.usefixtures("cheap")
def test_a_sealed_key_is_bound_to_its_id_and_to_its_recovery_key() -> None:
    sealed = seal(NODE, "p")
    assert sealed.locked and sealed.secret == b"" and unseal(sealed, "p") == NODE
    assert unseal(NODE, None) is NODE
    assert seal(NODE, "p").sealed != sealed.sealed
    with pytest.raises(NetError) as caught:
        unseal(replace(sealed, id=RECOVERY.id), "p")
    assert code_of(caught) == "bad_key"
    for position in range(0, len(sealed.sealed), 7):
        changed = bytearray(sealed.sealed)
        changed[position] ^= 1
        with pytest.raises(NetError) as caught:
            unseal(replace(sealed, sealed=bytes(changed)), "p")
        assert code_of(caught) == "locked_key"


def test_no_memory_for_a_passphrase_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(argon2id, "kdf", no_memory)
    with pytest.raises(NetError, match="256 MiB") as caught:
        seal(NODE, "p")
    assert code_of(caught) == "locked_key"


def test_a_key_is_shown_without_its_secret() -> None:
    for key in (NODE, KeyFile("node", NODE.id, sealed=b"sealed")):
        assert "secret" not in repr(key) and "sealed" not in repr(key)


def test_a_recovery_key_is_no_identity(tmp_path: Path) -> None:
    write(tmp_path / IDENTITY_NAME, RECOVERY)
    with pytest.raises(NetError, match="recovery key") as caught:
        load_or_make(tmp_path)
    assert code_of(caught) == "bad_key"


def test_a_copy_never_takes_the_place_of_another_file(tmp_path: Path) -> None:
    path = tmp_path / IDENTITY_NAME
    assert keep_copy(path) is None
    write(path, NODE)
    for name in (f"identity-{short_id(NODE.id)}.key", f"identity-{short_id(NODE.id)}-2.key"):
        copy = keep_copy(path)
        assert copy == tmp_path / name and read(copy) == read(path) == NODE
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    path.write_bytes(b"my only \xff copy")
    copy = keep_copy(path)
    assert copy == tmp_path / "identity-damaged.key" and copy.read_bytes() == b"my only \xff copy"
    path.unlink()
    path.mkdir()
    with pytest.raises(NetError) as caught:
        keep_copy(path)
    assert code_of(caught) == "not_written"


def test_a_file_that_others_can_read_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "k"
    assert exposed(path) is None
    write(path, NODE)
    assert exposed(path) is None
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        notice = exposed(path)
        assert notice is not None and "chmod 600" in notice.remedy


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        write(tmp_path / "missing" / "k", NODE)
    assert code_of(caught) == "not_written"
    (tmp_path / IDENTITY_NAME).mkdir()
    with pytest.raises(NetError) as caught:
        load_or_make(tmp_path)
    assert code_of(caught) == "bad_key"
    with pytest.raises(NetError) as caught:
        write(tmp_path / IDENTITY_NAME, NODE)
    assert code_of(caught) == "not_written"
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_NAME]  # nothing half written stays


KILLED = """
import os, signal, sys
from pathlib import Path
from infraxa.net import keyfile

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(os, sys.argv[2], killed)
keyfile.write(Path(sys.argv[1]), keyfile.make()[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_writing_the_old_key_is_whole(tmp_path: Path, moment: str) -> None:
    path = tmp_path / IDENTITY_NAME
    write(path, NODE)
    child = subprocess.run([sys.executable, "-P", "-c", KILLED, str(path), moment], timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    assert read(path) == NODE
    assert all(stat.S_IMODE(left.stat().st_mode) == 0o600 for left in tmp_path.iterdir())
    write(path, RECOVERY)  # what the killed one left does not hinder
    assert read(path) == RECOVERY and os.listdir(tmp_path) == [IDENTITY_NAME]
