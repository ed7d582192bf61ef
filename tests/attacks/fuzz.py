"""Every decoder of what others wrote, fed with what was mutated: `python -m tests.attacks.fuzz [cases]`.

A decoder takes its input or refuses it by the errors that its callers know; anything else is a defect. Valid
inputs are mutated, and where a check stands before the decoder (a seal, a mac, a checksum, a signature) it is
made good again afterwards, so that what is behind it is reached.
"""

from __future__ import annotations

import copy
import inspect
import os
import random
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace
from zeroconf import ServiceInfo

from infraxa.app import fraud
from infraxa.app.control import messages
from infraxa.engine.frames import FrameError
from infraxa.net import (
    addresses,
    audits,
    codec,
    deals,
    hello,
    identity,
    invites,
    keyfile,
    link,
    orders,
    prompts,
    ratings,
    receipt_file,
    records,
    relay,
    scores,
    vectors,
    wire,
)
from infraxa.net.connect import verify_card
from infraxa.net.discovery import SERVICE, read_label, read_places
from infraxa.net.door import Admitted, Door, DoorLimits
from infraxa.net.errors import NetError, ProtocolError
from infraxa.net.hello import CardRequest, Dialing, Moment, Prekeys, Reject
from infraxa.net.mux import Mux
from infraxa.net.records import Card, ModelOffer, PriceNow, Record, Revoke, State, Successor
from infraxa.net.session import Session, SessionRecord
from tests.app import lies
from tests.attacks import bargains, report
from tests.attacks.attacker import NETWORK
from tests.attacks.target import unlimited
from tests.net.pairs import session_pair

NOW_MS: Final = 1_800_000_000_000
FULL_CASES: Final = 50_000
ODD: Final = bytes.fromhex("00017f80ffc0c1c4c5c6cacbcccfd3d9dbdcdddedf90919b80")
"""Bytes at which msgpack and lengths change their meaning."""

Decode = Callable[[bytes], bool]
"""Whether it was taken. Raises the errors of its decoder."""


class Decoder(NamedTuple):
    name: str
    seeds: list[bytes]
    decode: Decode
    errors: tuple[type[Exception], ...]


class Outcome(NamedTuple):
    name: str
    cases: int
    accepted: int
    refused: int
    seconds: float


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    body = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(9):
            case 0 if body:
                body[at % len(body)] ^= 1 << rng.randrange(8)
            case 1 if body:
                body[at % len(body)] = rng.choice(ODD)
            case 2:
                body[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                del body[at : at + rng.randint(1, 16)]
            case 4:
                body = body[:at]
            case 5:
                body[at:at] = body[at : at + rng.randint(1, 64)]
            case 6:
                other = rng.choice(others)
                body = body[:at] + other[rng.randrange(len(other) + 1) :]
            case 7:
                body[at:at] = bytes((rng.choice(ODD),)) * rng.choice((1, 4, 64, 5000))
            case 8 if body:
                start = at % len(body)
                size = rng.choice((2, 4, 8))
                body[start : start + size] = rng.choice(
                    (0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1))
                ).to_bytes(size)
    return bytes(body)


def run(decoder: Decoder, cases: int, seed: int) -> Outcome:
    """Raises AssertionError, with the input, for an error that its callers do not know."""
    rng = random.Random(f"{decoder.name} {seed}")
    accepted = refused = 0
    begun = time.perf_counter()
    for number in range(cases):
        data = rng.choice(decoder.seeds)
        if number >= len(decoder.seeds):
            data = (
                mutated(data, decoder.seeds, rng)
                if rng.random() < 0.97
                else rng.randbytes(rng.randrange(2000))
            )
        try:
            taken = decoder.decode(data)
        except decoder.errors:
            taken = False
        except Exception as error:
            raise AssertionError(f"{decoder.name}: {type(error).__name__} for {data[:4000].hex()}") from error
        accepted, refused = accepted + taken, refused + (not taken)
    return Outcome(decoder.name, cases, accepted, refused, time.perf_counter() - begun)


TURN: Final = prompts.Turn("user", "What is a maple?")
ANSWER: Final[tuple[orders.Frame, ...]] = (
    orders.Placed(3),
    orders.Claimed(4096, 100),
    orders.Piece((1, 2), "A tree: Érable."),
    orders.Done("stop", 5, 2, 2, 1, 2, 3),
)
LIKELY: Final = orders.Logprob(b" tree", -70_000, ((7, b" tree", -70_000), (9, b" bush", -3_000_000)))
NAMED: Final[tuple[orders.Frame, ...]] = (
    orders.Claimed(4096, 100),
    orders.Piece((7,), "A tree", (LIKELY,)),
    orders.Done("stop", 5, 2, 1),
)
EMBEDDED: Final[tuple[orders.Frame, ...]] = (
    orders.Claimed(4096, 1),
    vectors.Part(bytes(8)),
    vectors.Part(bytes(8), 5),
    vectors.Part(bytes(16), 2),
    orders.Done("stop", 7, 0, 0),
)
SCORED: Final[tuple[orders.Frame, ...]] = (
    orders.Claimed(4096, 1),
    scores.Scoring("0.3.36/cpu/f16/auto", 77_600),
    vectors.Part(struct.pack("<3I3i", 7, 9, 4, 60, 60, -5), 12),
    vectors.Part(struct.pack("<3I3i", 1, 2, 3, 2**31 - 1, 0, -(2**31)), 0),
    orders.Done("stop", 12, 0, 0),
)
SALTED: Final = prompts.Prompt((TURN,), salt=bytes(32), draw=bytes(32))
CHECKED: Final = wire.Order(
    bytes(16), bytes(32), len(prompts.encode_prompt(SALTED)), 100, mode="fraud_proof",
    prompt_hash=codec.digest("prompt", prompts.encode_prompt(SALTED)), audit=codec.digest("audit", bytes(32)),
)  # fmt: skip
PROVEN: Final[tuple[orders.Frame, ...]] = (
    orders.Claimed(4096, 100, codec.digest("draw", bytes(32))),
    orders.Piece((7,) * 60, "A tree", (), bytes(32)),
    orders.checkpoint(CHECKED, 64, bytes(32), bargains.PROVIDER),
    orders.Piece((7,) * 10, "."),
    orders.Done("stop", 5, 2, 70, steps=71),
)
OPENINGS: Final = (
    audits.Opening(bytes(4 * 3), (b"leaf",) * 3),
    audits.Opening(bytes(4 * 70), (b"leaf",) * 16, (bytes(64),) * 16, (bytes(96),), bytes(32)),
)
TOOL: Final = prompts.Tool("look", "Looks.", '{"type":"object"}')
CALLED: Final = prompts.ToolCall("call_1", "look", '{"at":1}')
FORMAT: Final = prompts.Format("json_schema", '{"type":"object"}')
PROMPTS: Final = (
    prompts.Prompt((TURN,)),
    prompts.Prompt((TURN,) * 5, ("a", "\n")),
    prompts.Prompt(raw="Once upon", format=FORMAT),
    prompts.Prompt(
        (TURN, prompts.Turn("assistant", "", (CALLED,)), prompts.Turn("tool", "x", (), "call_1")),
        tools=(TOOL,),
        tool_choice="look",
    ),
    prompts.Prompt(texts=("a", "b")),
    SALTED,
    prompts.Prompt((TURN,), answer=bytes(40), steps=(0, 3, 9), kv_type="q8_0"),
)


def samples() -> list[msgspec.Struct]:
    """One message of every type that crosses the network."""
    key, _ = keyfile.make()
    signer = key.identity()
    id_, state = signer.id, State(1, bytes(8), "online", 3, (PriceNow(0, 1, 2),), 5)
    offer = ModelOffer("name", "llama", "Q4_K_M", id_, 4096, 1024, 1, 2, 3, "cpu", 5)
    card = Card(
        1, 7, "name", NETWORK, ("ws://192.0.2.1:7741", f"relay:{identity.id_text(id_)}"), (id_,), id_,
        NOW_MS, bytes(32), 2, 3, 4, 1, (offer,), bytes(32),
    )  # fmt: skip
    signed = signer.sign("card", codec.encode(card))
    record = Record("card", signed)
    return [
        signed, record, card, offer, state, PriceNow(1, 2, 3), Successor(id_, id_, 1), Revoke(id_, 1),
        Reject("prekey", NOW_MS, bytes(16), 18, codec.encode(record)), Moment(NOW_MS),
        wire.Auth("node", id_, bytes(64)), wire.Authenticated("192.0.2.1", NOW_MS),
        wire.BucketsPlease(bytes(16)), wire.DigestsPlease(bytes(16), bytes(range(9))),
        wire.RecordsPlease(bytes(16), bytes(80)), wire.PeersPlease(5), wire.DialBack("ws://192.0.2.1:7741"),
        wire.DialedBack(False, "timeout"), wire.RelayReserve(), wire.RelayReserved(1, 2, 3),
        wire.RelayDial(id_), wire.RelayDialed(), wire.RelayIncoming(), wire.Probe(), wire.CardPlease(),
        wire.TryPlease(id_), wire.Tried("busy", "relay", 5, 70, True, id_),
        wire.Push((record, record)), wire.Root(bytes(8), 3), wire.Failure("busy", 1000, 5, "field"),
        wire.Order(bytes(16), id_, 100, 50, seed=7), TURN, prompts.Prompt((TURN, TURN), ("stop",)), *ANSWER,
        LIKELY, TOOL, CALLED, FORMAT, *PROMPTS, EMBEDDED[1], SCORED[1], CHECKED, *PROVEN, *OPENINGS,
        wire.Proof(b"{}"), *bargains.messages(), *bargains.values(),
    ]  # fmt: skip


def message_types() -> Iterator[type[msgspec.Struct]]:
    """Of the modules whose structs cross the network."""
    modules: tuple[ModuleType, ...] = (wire, records, orders, prompts, vectors, scores, deals, audits)
    for module in modules:
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, msgspec.Struct) and kind.__module__ == module.__name__:
                yield kind


def _codec_decoders() -> Iterator[Decoder]:
    made = samples()
    seeds = [codec.encode(message) for message in made]
    missing = set(message_types()) - {type(message) for message in made}
    assert not missing, f"no sample of {missing}"
    for message, seed in zip(made, seeds, strict=True):
        kind = type(message)

        def decode(data: bytes, kind: type[msgspec.Struct] = kind) -> bool:
            found = codec.decode(data, kind)
            codec.encode(found)
            return True

        yield Decoder(f"codec {kind.__name__}", [*[seed] * len(seeds), *seeds], decode, (ProtocolError,))
    for name, union in (("request", wire.Request), ("message", wire.Tell), ("answer", wire.Answer)):

        def read(data: bytes, union: object = union) -> bool:
            return link._decode(data, union) is not None

        yield Decoder(f"link, a {name}", seeds, read, (ProtocolError,))


def _card_decoder() -> Decoder:
    key, _ = keyfile.make()
    signer = key.identity()
    bodies = [codec.encode(message) for message in samples() if isinstance(message, Card | State)]

    def decode(data: bytes) -> bool:
        record = codec.encode(Record("card", signer.sign("card", data[: codec.MAX_MESSAGE])))
        verify_card(record, node=signer.id, network=NETWORK, now_ms=0)
        return True

    return Decoder("card, signed", bodies, decode, (ProtocolError,))


def _door_decoders() -> Iterator[Decoder]:
    node = os.urandom(32)
    prekeys = Prekeys((), os.urandom)
    prekeys.rotate(NOW_MS)
    kx = prekeys.current(NOW_MS).public
    door = Door(
        node=node,
        network=NETWORK,
        prekeys=prekeys,
        card=lambda: bytes(500),
        randbytes=os.urandom,
        limits=DoorLimits(burst=1e12, free_per_second=1e12, remembered=10**7),
    )

    def dialing() -> Dialing:
        return Dialing(node=node, kx=kx, network=NETWORK, randbytes=os.urandom)

    def knock(frame: bytes) -> bool:
        if len(frame) > 36 and frame[-1] % 4:
            frame = frame[:20] + hello._mac(NETWORK, frame) + frame[36:]
        answer = door.receive(frame, source="somewhere", now_ms=NOW_MS, now=1.0)
        assert isinstance(answer, Admitted) or answer.reply is None or len(answer.reply) <= wire.MAX_REJECT
        return isinstance(answer, Admitted)

    hellos = [dialing().hello(NOW_MS) for _ in range(20)]
    hellos.append(CardRequest(network=NETWORK, randbytes=os.urandom).hello())
    yield Decoder("door, a hello", hellos, knock, ())

    card = next(codec.encode(message) for message in samples() if isinstance(message, Record))
    rejects = [
        hello.reject(reason, NOW_MS, challenge=bytes(16), difficulty=17, card=card)
        for reason in ("prekey", "clock", "proof_of_work", "full", "rate", "version")
    ]

    def told(frame: bytes) -> bool:
        CardRequest(network=NETWORK, randbytes=os.urandom).receive(frame)
        return True

    yield Decoder("hello, a reject", rejects, told, (ProtocolError,))

    began = dialing()
    welcome = door.receive(began.hello(NOW_MS), source="somewhere", now_ms=NOW_MS, now=1.0)
    assert isinstance(welcome, Admitted)

    def answered(frame: bytes) -> bool:
        copy.deepcopy(began).receive(frame, NOW_MS, 1.0)
        return True

    yield Decoder("hello, an answer", [welcome.reply, *rejects], answered, (ProtocolError,))


def _session_decoders() -> Iterator[Decoder]:
    sender, receiver = session_pair()
    begun = [sender.send(26, 0, bytes(50), 0.0)[0], sender.send(16, 0, bytes(8), 0.0)[0]]
    sender, receiver = session_pair()

    def fresh() -> tuple[Session, Session]:
        here, there = copy.copy(receiver), copy.copy(sender)
        here._rx, there._tx = copy.copy(receiver._rx), copy.copy(sender._tx)
        here._tx = copy.copy(receiver._tx)
        return here, there

    def opened(frame: bytes) -> bool:
        here, _ = fresh()
        here.receive(frame, 0.0)
        return True

    yield Decoder("session, a frame", begun, opened, (ProtocolError,))

    def sealed(plain: bytes) -> bool:
        here, there = fresh()
        assert there._tx is not None
        here.receive(there._tx.seal(plain.ljust(256, b"\0")[:256]), 0.0)
        return True

    plain = [
        bytes((kind,)) + (5).to_bytes(4) + (32).to_bytes(2) + bytes(range(32))
        for kind in (*range(5), 16, 26, 255)
    ]
    yield Decoder("session, sealed", plain, sealed, (ProtocolError,))


def _mux_decoder() -> Decoder:
    def talked(data: bytes) -> bool:
        mux = Mux(initiator=False, in_flight=4)
        unlimited(mux)
        mine = mux.open(b"\x91\x0e", 0.0)
        assert mine is not None
        mux.ping(bytes(8), 0.0)
        now = 0.0
        while len(data) >= 3:
            kind, stream, size = data[0], data[1], data[2]
            mux.receive(SessionRecord(kind, stream, data[3 : 3 + size]), now)
            data, now = data[3 + size :], now + 0.01
            while mux.next() is not None:
                pass
        return True

    def said(*parts: tuple[int, int, bytes]) -> bytes:
        return b"".join(bytes((kind, stream, len(body))) + body for kind, stream, body in parts)

    failure = codec.encode(wire.Failure("busy"))
    seeds = [
        said((18, 1, b"\x91\x0e"), (19, 1, b"chunk"), (20, 1, b"part"), (19, 1, b"rest"), (21, 1, b"")),
        said((18, 1, b"\x91\x0d"), (24, 1, bytes((0, 1, 0, 0))), (23, 1, b"")),
        said((19, 2, b"answer"), (25, 2, bytes(16)), (21, 2, b"")),
        said((19, 2, b"answer"), (22, 2, failure)),
        said((16, 0, bytes(8)), (17, 0, bytes(8)), (26, 0, b"\x91\x15"), (200, 9, b"new")),
        said(*((18, number, b"\x91\x0e") for number in range(1, 20, 2))),
    ]
    return Decoder("mux, records", seeds, talked, (ProtocolError,))


def _order_decoders() -> Iterator[Decoder]:
    def prompt(data: bytes) -> bool:
        found = prompts.decode_prompt(data)
        assert prompts.decode_prompt(prompts.encode_prompt(found)) == found
        return True

    yield Decoder("order, a prompt", list(map(prompts.encode_prompt, PROMPTS)), prompt, (ProtocolError,))

    placed, claimed, piece, done = map(orders.encode_frame, ANSWER)
    answers = [placed * 3 + claimed + piece + done, claimed + piece, placed + claimed]
    order = wire.Order(bytes(16), bytes(32), 100, 8)

    def answered(data: bytes) -> bool:
        reader = orders.FrameReader(order)
        step = 1 + len(data) % 50
        frames = [one for at in range(0, len(data), step) for one in reader.feed(data[at : at + step])]
        tokens = [token for one in frames if isinstance(one, orders.Piece) for token in one.ids]
        assert len(tokens) == reader.course.n_out <= 8
        return bool(frames)

    yield Decoder("order, an answer", answers, answered, (ProtocolError,))

    for what, said, asked in (
        ("logprobs", NAMED, replace(order, logprobs=2)),
        ("vectors", EMBEDDED, replace(order, texts=2)),
        ("scores", SCORED, replace(order, scores=2)),
        ("to be checked", PROVEN, CHECKED),
    ):
        data = b"".join(map(orders.encode_frame, said))

        def read(data: bytes, asked: wire.Order = asked) -> bool:
            return bool(orders.FrameReader(asked).feed(data))

        yield Decoder(f"order, {what}", [data], read, (ProtocolError,))

    def opened(data: bytes) -> bool:
        found = audits.decode(data)
        assert audits.decode(audits.encode(found)) == found
        return True

    yield Decoder("order, an opening", list(map(codec.encode, OPENINGS)), opened, (ProtocolError,))


def _deal_decoders() -> Iterator[Decoder]:
    provider, account = bargains.PROVIDER, bargains.ACCOUNT
    for value in bargains.values():
        kind = type(value)
        tag = deals._TAGS[kind]

        def opened(data: bytes, kind: Any = kind, tag: codec.Tag = tag) -> bool:
            deals._opened(provider.sign(tag, data), provider.id, kind)
            return True

        yield Decoder(f"{tag}, signed", [codec.encode(value)], opened, (ProtocolError,))

    day = 20_000
    blank = ratings.blank(provider, account.id, day, 7, bargains.ORDER)
    given = [ratings.filled(account, blank, 5).body]

    def rated(data: bytes) -> bool:
        ratings.check(account.sign("rating", data), day)
        return True

    yield Decoder("rating, signed", given, rated, (ProtocolError,))

    def line(data: bytes) -> bool:
        receipt_file.checked(data.decode("utf-8", "surrogateescape"))
        return True

    def accused(data: bytes) -> bool:
        return fraud.guilty(data) == lies.DRIVER.id

    proofs = [
        fraud.made(lies.LIAR.receipt, order=lies.LIAR.order, opened=lies.LIAR.opened(17)),
        fraud.made(lies.FORGER.receipt, opened=lies.FORGER.opened(5)),
        fraud.made(lies.LIAR.receipt, other=lies.SECOND),
    ]
    nested = b'{"x":' + b"[" * 9000
    yield Decoder("proof, told", [*map(str.encode, proofs), nested], accused, (ProtocolError,))
    yield Decoder("receipt, its line", [*map(str.encode, bargains.lines()), nested], line, (NetError,))


def _text_decoders() -> Iterator[Decoder]:
    node = bytes(range(32))
    relay_text = f"relay:{identity.id_text(node)}"
    made = [
        invites.Invite(node, ("ws://192.0.2.1:7741",), NOW_MS),
        invites.Invite(node, ("ws://[2001:db8::1]:9000", relay_text), NOW_MS, "home", bytes(32)),
    ]
    lines = [invites.encode(invite).encode() for invite in made]

    def text(data: bytes) -> str:
        return data.decode("utf-8", "surrogateescape") if len(data) % 2 else data.decode("latin-1")

    def invited(data: bytes) -> bool:
        invites.decode(text(data), 0)
        return True

    yield Decoder("invite, its text", lines, invited, (NetError,))

    bodies = [identity.from_base32(line.decode()[6:])[:-4] for line in lines]

    def unpacked(data: bytes) -> bool:
        body = data[:500] + zlib.crc32(data[:500]).to_bytes(4, "little")
        invites.decode("ix1" + invites._header(len(body)) + identity.base32(body), 0)
        return True

    yield Decoder("invite, its bytes", bodies, unpacked, (NetError,))

    places = [b"ws://192.0.2.1:7741", b"ws://[2001:db8::1]:443", relay_text.encode()]

    def addressed(data: bytes) -> bool:
        found = addresses.parse(text(data))
        assert addresses.format(found) == text(data)
        for source in ("gossip", "mdns", "person"):
            addresses.may_dial(found, source)
        addresses.may_announce(found, local=True)
        addresses.group(found.host)
        return True

    yield Decoder("address", places, addressed, (NetError,))

    def through(data: bytes) -> bool:
        relay._parse(text(data))
        return True

    yield Decoder("address of a circuit", [relay.circuit_address(node, node).encode()], through, (NetError,))

    key, recovery = keyfile.make()
    files = [keyfile.to_text(one).encode() for one in (key, recovery)]

    def unlocked(data: bytes) -> bool:
        lines = text(data)
        if len(data) % 3:
            body = "".join(
                f"{line}\n" for line in map(str.strip, lines.splitlines()) if line and line[0] != "#"
            )
            head = body.rpartition("check ")[0]
            lines = f"{head}check {keyfile._check(head)}\n"
        keyfile.from_text(lines, "this file")
        return True

    yield Decoder("key file", files, unlocked, (NetError,))


def _lan_decoder() -> Decoder:
    node = bytes(range(32))
    labels = [identity.base32(node).encode() + b"\0" + b"\x03v=1" + b"\x12n=" + NETWORK[:8].hex().encode()]

    def heard(data: bytes) -> bool:
        label, _, txt = data.partition(b"\0")
        read = read_label(label.decode("latin-1"))
        packed = [data[at : at + size] for at, size in ((1, 4), (3, 16)) if len(data) >= at + size]
        info = ServiceInfo(SERVICE, f"x.{SERVICE}", len(data) * 700 % 65536, properties=txt, addresses=packed)
        found = read_places(info.port, info.properties, _ips(info), NETWORK, loopback=True)
        return bool(read) and all(addresses.parse(place) for place in found)

    return Decoder("mDNS, a service", labels, heard, (ProtocolError,))


def _ips(info: ServiceInfo) -> list[addresses.Ip]:
    from zeroconf import IPVersion

    return list(info.ip_addresses_by_version(IPVersion.All))


def _control_decoders() -> Iterator[Decoder]:
    raw = messages.encode(["text", 3, {"a": [1.5, None]}])
    to_node = [
        messages.pack(one)
        for one in (
            messages.Hello("1.0", "token"), messages.Call(3, "send", raw), messages.Stop(1),
            messages.Cancel(2), messages.More(3, 4),
        )
    ]  # fmt: skip
    to_front_end = [
        messages.pack(one)
        for one in (
            messages.Welcome("1.0", 7), messages.Refused("why"), messages.Present(()),
            messages.Result(1, raw), messages.Item(2, raw), messages.End(3),
            messages.Failed(4, "NodeError", "busy", "message", "remedy"), messages.Progressed(5, 6, 7),
        )
    ]  # fmt: skip

    def reader(unpack: Callable[[bytes], object], limit: int) -> Decode:
        def read(data: bytes) -> bool:
            frames = messages.FrameReader(limit)
            bodies = [body for at in range(0, len(data), 37) for body in frames.feed(data[at : at + 37])]
            return bool([unpack(body) for body in bodies])

        return read

    def arguments(data: bytes) -> bool:
        messages.decode(msgspec.Raw(data), tuple[str, int, dict[str, list[float | None]]])
        return True

    yield Decoder(
        "control, to the node", to_node, reader(messages.unpack_to_node, messages.MAX_HELLO), (FrameError,)
    )
    yield Decoder(
        "control, to a front end",
        to_front_end,
        reader(messages.unpack_to_front_end, messages.MAX_FRAME),
        (FrameError,),
    )
    yield Decoder("control, arguments", [bytes(raw)], arguments, (FrameError,))


def decoders() -> list[Decoder]:
    return [
        *_codec_decoders(),
        _card_decoder(),
        *_door_decoders(),
        *_session_decoders(),
        _mux_decoder(),
        *_order_decoders(),
        *_deal_decoders(),
        *_text_decoders(),
        _lan_decoder(),
        *_control_decoders(),
    ]


def line(done: Outcome) -> str:
    return f"{done.name:<28}{done.cases:>9}{done.accepted:>9}{done.refused:>9}{done.seconds:>9.1f}"


def main(cases: int) -> None:
    print(f"{'decoder':<28}{'cases':>9}{'taken':>9}{'refused':>9}{'seconds':>9}")
    total: list[Any] = [0, 0, 0, 0.0]
    for decoder in decoders():
        done = run(decoder, cases, random.SystemRandom().randrange(2**32))
        print(
            f"{done.name:<28}{done.cases:>9}{done.accepted:>9}{done.refused:>9}{done.seconds:>9.1f}",
            flush=True,
        )
        total = [one + other for one, other in zip(total, done[1:], strict=True)]
    print(f"{'all':<28}{total[0]:>9}{total[1]:>9}{total[2]:>9}{total[3]:>9.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else report.scale(500, FULL_CASES))
