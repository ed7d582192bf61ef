"""Text as it goes into the store."""

from __future__ import annotations


def storable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (half surrogates, from file names or a pipe) made U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def one_line(text: str, length: int) -> str:
    """`text` with each run of white space made one space, cut to `length` characters with an ellipsis."""
    line = storable(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"
