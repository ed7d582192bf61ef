"""ULIDs: 26 characters that sort by the time they were made (github.com/ulid/spec).

The clock and the randomness are passed in. Nothing here reads the store.
"""

from __future__ import annotations

from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80


class UlidSource:
    """Makes ULIDs, each greater than the one before, also within a millisecond and when the clock goes back.

    `clock` gives milliseconds since the epoch; `randbytes(n)` gives n random bytes.
    """

    def __init__(self, clock: Callable[[], int], randbytes: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._randbytes = randbytes
        self._last = -1

    def continue_after(self, ulid: str) -> None:
        """Make only ULIDs greater than `ulid`, which an earlier run made."""
        self._last = max(self._last, decode(ulid))

    def new(self) -> str:
        """The next ULID."""
        now = self._clock()
        if now > self._last >> _RANDOM_BITS:
            self._last = now << _RANDOM_BITS | int.from_bytes(self._randbytes(_RANDOM_BITS // 8), "big")
        else:
            self._last += 1
        return encode(self._last)


def encode(value: int) -> str:
    """128 bits as 26 characters of Crockford's base 32."""
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def decode(ulid: str) -> int:
    """The 128 bits of a ULID. Raises ValueError when a character is not of its alphabet."""
    value = 0
    for character in ulid:
        value = value << 5 | _ALPHABET.index(character)
    return value
