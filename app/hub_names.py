"""Names on the hub: what a person writes, what a repository holds, which of its files is meant. Pure.

What the hub says is not trusted: a file whose name could lead out of a folder is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from infraxa.app.errors import NodeError
from infraxa.app.hub_values import HubFile

MAX_FILE_NAME = 200
LISTED = 12
"""Names of an error message."""
USUAL = "Q4_K_M"
"""What is taken where nothing was asked for: small, and close to the original."""
STEP_BYTES = 300_000_000
"""About what a model takes besides its weights and its cache: the buffers of one step, the process."""

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_HUB = re.compile(r"^(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)", re.IGNORECASE)
_FOLDERS = re.compile(r"(?:[\w+@=,()\[\] -][\w.+@=,()\[\] -]{0,199}/){0,8}")
_FILE = re.compile(r"[\w+@=,()\[\] -][\w.+@=,()\[\] -]*\.gguf", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:I?Q\d|TQ\d)(?:_(?:K|NL|XXS|XS|XL|S|M|L|\d))*|BF16|F16|FP16|F32|FP32|MXFP4)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")
_NO_MODEL = re.compile(r"(?:^|[-_./])(?:mmproj|imatrix)", re.IGNORECASE)
_LONG_FLOAT = re.compile(r"^FP(?=\d)")
_WHOLE_NUMBERS = re.compile(r"^B?F\d\d$")
"""Quantizations that are none: twice the size of Q8_0 and hardly better."""


class Variant(msgspec.Struct, frozen=True):
    """One model of a repository: a file, or all parts of a split one, in order."""

    quant: str
    stem: str
    """The name of the file without `.gguf` and the number of the part."""
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def label(self) -> str:
        """What a person writes to get this one."""
        return self.quant or base_name(self.files[0].path)


def parse(text: str) -> tuple[str, str]:
    """The repository and the quantization or file of `OWNER/NAME[:QUANT]`, also as a link of the hub.

    Raises NodeError `bad_repo`.
    """
    rest = _HUB.sub("", text.strip())
    repo, _, quant = rest.partition(":")
    repo, shown = _split_link(repo)
    quant = quant or shown
    repo = repo.removesuffix(".git").rstrip("/")
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise NodeError(
            "bad_repo",
            f"{text.strip()[:200]!r} is not the name of a repository on the hub.",
            "It is written OWNER/NAME or OWNER/NAME:QUANT: Qwen/Qwen3-4B-GGUF:Q4_K_M.",
        )
    return repo, quant.strip()


def _split_link(repo: str) -> tuple[str, str]:
    """Of a link to a page of a repository, the repository and the file that it shows."""
    parts = repo.split("/")
    if len(parts) >= 4 and parts[2] in ("blob", "resolve", "tree", "raw"):
        return "/".join(parts[:2]), "/".join(parts[4:]).partition("?")[0]
    return repo, ""


def base_name(path: str) -> str:
    return path.rpartition("/")[2]


def is_safe(path: str) -> bool:
    """Whether this path of a repository is one of a GGUF file that can be kept under its name."""
    folder, name = path[: len(path) - len(base_name(path))], base_name(path)
    if len(name) > MAX_FILE_NAME or ".." in path or not _FILE.fullmatch(name):
        return False
    return _FOLDERS.fullmatch(folder) is not None


def variants(files: Iterable[HubFile]) -> list[Variant]:
    """The models of a repository, smallest first; parts of an incomplete set and other files are left out."""
    single: list[Variant] = []
    split: dict[tuple[str, str, int], dict[int, HubFile]] = {}
    for file in files:
        if not is_safe(file.path) or _NO_MODEL.search(file.path) or file.size <= 0:
            continue
        stem = base_name(file.path)[: -len(".gguf")]
        if part := _PART.match(stem):
            folder = file.path[: len(file.path) - len(base_name(file.path))]
            key = (folder, part["stem"], int(part["count"]))
            split.setdefault(key, {})[int(part["number"])] = file
        else:
            single.append(Variant(quant_of(file.path), stem, (file,)))
    for (folder, stem, count), parts in split.items():
        if sorted(parts) == list(range(1, count + 1)):
            ordered = tuple(parts[number] for number in range(1, count + 1))
            single.append(Variant(quant_of(folder + stem + ".gguf"), stem, ordered))
    return sorted(single, key=lambda one: (one.size, one.files[0].path))


def quant_of(path: str) -> str:
    """The quantization that a file's name says, or that of its folder; in capitals, or empty."""
    found = _QUANT.findall(base_name(path)) or _QUANT.findall(path)
    return _plain(found[-1]) if found else ""


def _plain(quant: str) -> str:
    return _LONG_FLOAT.sub("F", quant.upper())


def choose(repo: str, found: Sequence[Variant], quant: str, free_memory: int) -> tuple[Variant, str]:
    """The model that is meant, and why this one when nobody said; `found` as `variants` gives it.

    Raises NodeError `no_gguf`, `no_quant` or `many_files`.
    """
    if not found:
        raise NodeError(
            "no_gguf",
            f"{repo} has no GGUF files, and llama.cpp runs nothing else.",
            "Look for a repository of the same model with GGUF in its name.",
        )
    if quant:
        return _named(repo, found, quant), ""
    usual = [one for one in found if one.quant == USUAL]
    if len(usual) == 1:
        return usual[0], f"{USUAL} is taken, as no quantization was named." if len(found) > 1 else ""
    if usual:
        raise _many(repo, USUAL, usual)
    if len(found) == 1:
        return found[0], ""
    quantized = [one for one in found if not _WHOLE_NUMBERS.match(one.quant)] or list(found)
    fitting = [one for one in quantized if memory_needed(one.size) <= free_memory]
    if fitting:
        return fitting[-1], f"There is no {USUAL}; {fitting[-1].label} is the best that fits in the memory."
    smallest = quantized[0]
    return smallest, f"There is no {USUAL}, and none fits in the memory; {smallest.label} is the smallest."


def _named(repo: str, found: Sequence[Variant], quant: str) -> Variant:
    if quant.lower().endswith(".gguf"):
        fits = [one for one in found if any(quant in (file.path, base_name(file.path)) for file in one.files)]
    else:
        wanted = _plain(quant)
        fits = [one for one in found if one.quant == wanted]
        fits = fits or [one for one in found if one.quant.removeprefix("UD-") == wanted]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise _many(repo, quant, fits)
    raise NodeError("no_quant", f"{repo} has no {quant[:100]}.", f"There are: {_listed(found)}.")


def _many(repo: str, quant: str, fits: Sequence[Variant]) -> NodeError:
    names = [one.files[0].path for one in fits]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return NodeError(
        "many_files",
        f"{len(fits)} files of {repo} are {quant}.",
        f"Name one, such as {repo}:{names[0]}; the others: {', '.join(names[1:LISTED])}{more}.",
    )


def _listed(found: Sequence[Variant]) -> str:
    names = list(dict.fromkeys(one.label for one in found))
    more = f" and {len(names) - LISTED * 2} more" if len(names) > LISTED * 2 else ""
    return ", ".join(names[: LISTED * 2]) + more


def memory_needed(size: int) -> int:
    """About how many bytes of memory a model of this size takes with a useful context; what its file says
    in full is known when it is here."""
    return size + size // 10 + min(STEP_BYTES, size)
