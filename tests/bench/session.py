"""What a session costs: a handshake, a frame, a refusal, its memory. Ratios are to the bare operations of
libsodium that cannot be avoided, measured in the same run.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)

from infraxa.net.door import Admitted, Door, DoorLimits
from infraxa.net.guard import MIN_BITS, Puzzle, Seen, solve
from infraxa.net.hello import CLOCK_MS, HELLO_SIZE, Dialing, Prekeys
from infraxa.net.session import Session

NOW_MS = 1_800_000_000_000
NODE, NETWORK = os.urandom(32), os.urandom(32)
UNLIMITED = DoorLimits(per_second=1e9, burst=1e9, free_per_second=1e9, remembered=10**6)
ROUNDS = 7


def timed(call: Callable[[], object], times: int) -> float:
    """CPU seconds of one call: the median of some rounds."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            call()
        rounds.append((time.process_time() - start) / times)
    return statistics.median(rounds)


def report(name: str, ours: float, bare: float, what: str) -> None:
    print(f"{name}, ratio to {what}: {ours / bare:.2f}  ({ours * 1e6:.1f} µs / {bare * 1e6:.1f} µs)")


class House:
    def __init__(self) -> None:
        self.prekeys = Prekeys((), os.urandom)
        self.prekeys.rotate(NOW_MS)
        self.door = Door(
            node=NODE,
            network=NETWORK,
            prekeys=self.prekeys,
            card=lambda: bytes(600),
            randbytes=os.urandom,
            limits=UNLIMITED,
        )

    def dialing(self) -> Dialing:
        kx = self.prekeys.stored[-1].public
        return Dialing(node=NODE, kx=kx, network=NETWORK, randbytes=os.urandom)

    def answer(self, frame: bytes) -> Admitted:
        answer = self.door.receive(frame, source="a", now_ms=NOW_MS, now=0.0)
        assert isinstance(answer, Admitted), answer
        return answer

    def pair(self) -> tuple[Session, Session]:
        dialing = self.dialing()
        admitted = self.answer(dialing.hello(NOW_MS))
        session = dialing.receive(admitted.reply, NOW_MS, 0.0)
        assert isinstance(session, Session)
        return session, admitted.session


def handshakes(house: House) -> None:
    secret, public = os.urandom(32), crypto_scalarmult_base(os.urandom(32))
    multiply = timed(lambda: crypto_scalarmult(secret, public), 200)
    make = timed(lambda: crypto_scalarmult_base(secret), 200)

    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(300):
        start = time.process_time()
        dialing = house.dialing()
        hello = dialing.hello(NOW_MS)
        dialled = time.process_time()
        admitted = house.answer(hello)
        answered = time.process_time()
        dialing.receive(admitted.reply, NOW_MS, 0.0)
        rounds[0].append(dialled - start + time.process_time() - answered)
        rounds[1].append(answered - dialled)
    initiator, responder = (statistics.median(side) for side in rounds)
    report("handshake, initiator", initiator, 4 * multiply + 2 * make, "its six multiplications")
    report("handshake, responder", responder, 4 * multiply + make, "its five multiplications")

    hello = house.dialing().hello(NOW_MS)
    stranger = hello[:-1] + bytes((hello[-1] ^ 1,))
    refusal = timed(lambda: house.door.receive(stranger, source="b", now_ms=NOW_MS, now=0.0), 5000)
    report("refusing a wrong mac", refusal, responder, "answering a hello")
    scan = timed(lambda: house.door.receive(bytes(HELLO_SIZE), source="b", now_ms=NOW_MS, now=0.0), 5000)
    report("refusing what is no hello", scan, responder, "answering a hello")


def frames(house: House) -> None:
    key, nonce = os.urandom(32), bytes(12)
    for size in (32, 1000, 59_000):
        body = os.urandom(size)
        sender, receiver = house.pair()
        under_way: list[bytes] = []

        def there(
            body: bytes = body,
            sender: Session = sender,
            receiver: Session = receiver,
            under_way: list[bytes] = under_way,
        ) -> None:
            under_way += sender.send(32, 1, body, 0.0)
            while under_way:
                _, answers = receiver.receive(under_way.pop(0), 0.0)
                for answer in answers:
                    under_way += sender.receive(answer, 0.0)[1]

        frame = sender.send(32, 1, body, 0.0)[0]
        receiver.receive(frame, 0.0)
        padded = bytes(len(frame) - 16)

        def bare(padded: bytes = padded) -> None:
            sealed = crypto_aead_chacha20poly1305_ietf_encrypt(padded, b"", nonce, key)
            crypto_aead_chacha20poly1305_ietf_decrypt(sealed, b"", nonce, key)

        times = 3000 if size < 2000 else 300
        report(f"seal and open {size} B", timed(there, times), timed(bare, times), "libsodium's AEAD")


def work() -> None:
    tries = 2**14

    def try_in_vain() -> None:
        asked = iter([False] * (tries // 4096) + [True])
        solve(Puzzle(os.urandom(48), 60), lambda: next(asked))

    spent = timed(try_in_vain, 4) / tries
    bare = timed(lambda: hashlib.blake2b(bytes(56), digest_size=8).digest(), 20_000)
    report("one try at a proof of work", spent, bare, "the hash")
    print(f"a proof of work of {MIN_BITS} bits takes {spent * 2**MIN_BITS * 1e3:.0f} ms on average")


def memory(house: House) -> None:
    entries = DoorLimits().remembered
    tracemalloc.start()
    pairs = [house.pair() for _ in range(100)]
    used, _ = tracemalloc.get_traced_memory()
    print(f"memory of a session: {used / 200 / 1024:.1f} KiB, with its entry among the seen hellos")
    tracemalloc.stop()
    del pairs
    tracemalloc.start()
    seen = Seen(entries, 2 * CLOCK_MS / 1000)
    for number in range(entries):
        seen.add(os.urandom(32), number / 500)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"memory of {entries} seen hellos, the most that are kept: {used / 2**20:.1f} MiB")


def main() -> None:
    house = House()
    handshakes(house)
    frames(house)
    work()
    memory(house)


if __name__ == "__main__":
    main()
