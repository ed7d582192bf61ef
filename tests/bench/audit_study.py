"""How sure audits are: of answers that are computed honestly, in many ways, how many are said to be false,
and of lies of each kind, how many are caught. And what an audit costs.

The bounds are those of engine/verdicts.py, fixed beforehand, on other questions than these; the unit, mu0, is
what engine/calibration.py measures, on texts that are not among those that are judged. Each rate comes with
its exact 95 % interval (Clopper and Pearson's). All steps are opened, or 16 first, and all where these do not
pass.

    python -m tests.bench.audit_study [quick|medium|long] [--only MODEL] [--share PART] [--seed NUMBER]
                                      [--kept FOLDER]

MODEL is the beginning of the name of one, like `guide`; PART is what part of the answers are made, like 0.1,
and those of another NUMBER are others: the counts of both can be added. What was found so far stays in
FOLDER: a study of hours can be stopped, and goes on when it is started again, unless what computes the
answers was changed. When it is through, FOLDER is removed.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec

from infraxa.engine import batching, gumbel, scoring, transcript
from infraxa.engine.llama import route_log, version
from infraxa.engine.types import KvType
from infraxa.engine.verdicts import LEAST_STEPS
from tests.bench import _study_sides
from tests.bench._study_models import GUIDE, MIDDLE, SMALL, Models, Shape
from tests.bench._study_sides import (
    LONG,
    Answer,
    Audited,
    Auditor,
    Change,
    Found,
    Opened,
    Provider,
    Way,
    colder,
    found,
    hidden_prompt,
    other_seed,
    requests,
    with_no_logits,
    with_true_logits,
)

SEED: Final = 20261122
"""Another one than when the bounds were fixed."""
TOKENS: Final = 80
"""Of an answer, where the model does not end it."""
LONG_ENOUGH: Final = 64
"""Steps of an audit that counts for detection. Shorter answers are judged together with the next ones."""
PROMPT: Final = range(112, 145)
"""Tokens of those whose cost is measured."""
ROUNDS: Final = 5
SHORT: Final = 3
"""Answers of the guide, which ends them itself, make one audit."""
PART: Final = 25
"""Answers that are asked for at once, and kept."""
FEW: Final = 16
"""Steps that are opened first, when not all are."""
DEQUANTISED: Final = "the same weights in F16"


class Profile(NamedTuple):
    honest: int
    """Answers of each claim, over all ways."""
    lies: int
    """Audits of each kind of lie and claim, each of 64 steps or more."""
    claims: tuple[tuple[Shape, str], ...]
    threads: bool = False
    """Two threads as well."""


CLAIMS: Final = ((GUIDE, "Q8_0"), (SMALL, "Q8_0"), (SMALL, "F16"))
PROFILES: Final = {
    "quick": Profile(40, 2, ((GUIDE, "Q8_0"),)),
    "medium": Profile(480, 40, CLAIMS),
    "long": Profile(3000, 300, (*CLAIMS, (MIDDLE, "Q8_0")), threads=True),
}
WAYS: Final = (
    Way("one at a time", slots=1),
    Way("3 at once", slots=3),
    Way("8 at once"),
    Way("prompts in pieces of 96", piece=96),
    Way("prompts in pieces of 72", slots=4, piece=72),
    Way("flash attention off", flash="off"),
    Way("one cache for all", unified=True),
    Way(DEQUANTISED, kind="dequantised"),
)
"""All honest."""
MORE_THREADS: Final = (
    Way("2 threads, one at a time", slots=1, threads=2),
    Way("2 threads, long prompts", threads=2, chars=LONG),
)
AUDITORS: Final = (Way("auditor"), Way("auditor without flash attention", flash="off"))
CHEAPER: Final = {"Q8_0": ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"), "F16": ("Q8_0", "Q6_K", "Q4_0")}


class Cell(NamedTuple):
    """All answers of one way or lie."""

    name: str
    answers: list[Audited]
    mu0: float
    target: bool = True
    """A lie that must be caught."""

    @property
    def single(self) -> list[Found]:
        """Each answer by itself."""
        return [found(one.steps, self.mu0) for one in self.answers]

    @property
    def audits(self) -> list[Found]:
        """Answers together that have enough steps."""
        return self._together(self.answers, LONG_ENOUGH)

    @property
    def pooled(self) -> list[Found]:
        """Those that are too short to be judged by themselves, together."""
        short = [one for one in self.answers if len(one.steps) < LEAST_STEPS]
        return self._together(short, LEAST_STEPS)

    def _together(self, answers: Sequence[Audited], least: int) -> list[Found]:
        made, steps = [], list[Opened]()
        for answer in answers:
            steps += answer.steps
            if len(steps) >= least:
                made.append(found(steps, self.mu0))
                steps = []
        return made

    def few(self, random: Random) -> list[Found]:
        """Of each answer some steps first, and all where these do not pass."""
        made = []
        for steps, _ in self.answers:
            first = found(random.sample(steps, min(FEW, len(steps))), self.mu0)
            clear = not first.drawn or first.judged.state == "passed"
            made.append(first if clear else found(steps, self.mu0))
        return made


Make = Callable[[Random, int], Sequence[Answer]]
"""So many answers."""


class Study:
    """Of one claim: a model and the file type it is said to be computed with."""

    def __init__(
        self, models: Models, kind: str, scratch: Path, kept: Path | None = None, seed: int = SEED
    ) -> None:
        self._seed = seed
        self._models = models
        self._kind = kind
        self._kept = kept
        path = models.of(kind)
        if kept is not None:
            self._kept = kept / _key(path, seed)
            self._kept.mkdir(parents=True, exist_ok=True)
        self.auditors = [Auditor(path, way) for way in AUDITORS]
        self.mu0 = self.auditors[0].calibrated(scratch)

    def honest(self, ways: Sequence[Way], n: int) -> Iterator[Cell]:
        for way in ways:
            yield self._cell(way.name, -(-n // len(ways)), self._answers(way))

    def lies(self, n: int) -> Iterator[Cell]:
        """Each kind; those that are no targets last."""
        plain = WAYS[2]
        honest = self._answers(plain)
        for kind in CHEAPER[self._kind]:
            yield self._cell(f"{kind} for {self._kind}", n, self._answers(plain._replace(kind=kind)))
        yield self._cell("another model", n, self._answers(plain._replace(kind="other")))
        yield self._cell("a layer left out", n, self._answers(plain._replace(kind="cut")))
        yield self._cell("cache in q4_0", n, self._answers(plain._replace(kv="q4_0")))
        yield self._cell("hidden prompt", n, self._answers(plain, hidden_prompt))
        yield self._cell("no logits at all", n, lambda random, n: with_no_logits(honest(random, n)))
        n_vocab = self.auditors[0].means.model.n_vocab

        def anything(random: Random, n: int) -> Sequence[Answer]:
            return with_true_logits(self.auditors[0], honest(random, n), lambda _: random.randrange(n_vocab))

        yield self._cell("random tokens, true logits", n, anything)
        for cheap in CHEAPER[self._kind][-1], CHEAPER[self._kind][0]:
            cheaply = self._answers(plain._replace(kind=cheap))

            def spoofed(random: Random, n: int, cheaply: Make = cheaply) -> Sequence[Answer]:
                return with_true_logits(self.auditors[0], cheaply(random, n), lambda leaf: leaf.token)

            yield self._cell(f"tokens of {cheap}, true logits", n, spoofed, target=False)
        yield self._cell("another seed", n, self._answers(plain, other_seed), target=False)
        yield self._cell("3/4 of the temperature", n, self._answers(plain, colder), target=False)

    def equals(self, n: int) -> Iterator[Cell]:
        """What is said to be no difference, or is not to be seen."""
        smaller = self._answers(WAYS[2]._replace(kv="q8_0"))
        yield self._cell("cache in q8_0, said", n, smaller, target=False, kv="q8_0")
        if self._kind == "Q8_0":
            yield self._cell("cache in q8_0, not said", n, smaller, target=False)
        if self._kind == "Q8_0" and self._models.shape.layers:
            yield self._cell("F16 for Q8_0", n, self._answers(WAYS[2]._replace(kind="F16")), target=False)

    def _answers(self, way: Way, change: Change = lambda request: request) -> Make:
        def make(random: Random, n: int) -> Sequence[Answer]:
            models = self._models
            dequantised = way.kind == "dequantised"
            path = models.dequantised(self._kind) if dequantised else models.of(way.kind or self._kind)
            provider = Provider(path, way)
            try:
                return provider.answer(requests(random, n, TOKENS, way.chars), change)
            finally:
                provider.close()

        return make

    def _cell(self, name: str, n: int, make: Make, target: bool = True, kv: KvType = "f16") -> Cell:
        audited: list[Audited] = []
        for first in range(0, n, PART):
            audited += self._part(f"{name} {first}", min(PART, n - first), make, kv)
        return Cell(name, audited, self.mu0, target)

    def _part(self, name: str, n: int, make: Make, kv: KvType) -> list[Audited]:
        """Audits of `n` answers, unless they were made before."""
        path = self._kept / f"{name.replace('/', ' of ')} {n}" if self._kept is not None else None
        if path is not None and path.exists():
            return msgspec.msgpack.decode(path.read_bytes(), type=list[Audited])
        made = [
            self.auditors[i % len(self.auditors)].audit(answer, kv)
            for i, answer in enumerate(make(Random(f"{self._seed} {name}"), n))
            if answer.leaves
        ]
        if path is not None:
            part = path.with_suffix(".part")
            part.write_bytes(msgspec.msgpack.encode(made))
            part.replace(path)
        return made


def _key(model: Path, seed: int) -> str:
    """Of all that answers and their audits follow from."""
    computing = [
        Path(module.__file__ or "") for module in (_study_sides, batching, gumbel, scoring, transcript)
    ]
    digest = hashlib.sha256(repr((seed, TOKENS, PART, version())).encode())
    for path in (model, *computing):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's, of 95 %."""
    if not n:
        return 0.0, 1.0
    low = 0.0 if not hits else _root(lambda p: 1 - _at_most(hits - 1, n, p) - 0.025)
    high = 1.0 if hits == n else _root(lambda p: 0.025 - _at_most(hits, n, p))
    return low, high


def _at_most(hits: int, n: int, p: float) -> float:
    """The chance of no more hits than that."""
    if p <= 0 or p >= 1:
        return float(p <= 0)
    logs = (
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log(1 - p)
        for k in range(hits + 1)
    )
    return sum(map(math.exp, logs))


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return low


def rate(hits: int, n: int) -> str:
    low, high = interval(hits, n)
    return f"{hits}/{n} = {hits / max(1, n):.3%} [{low:.2%}, {high:.2%}]"


def report_honest(cell: Cell) -> None:
    """One line: each answer is judged by itself."""
    all_, pooled = cell.single, cell.pooled
    enough = [one for one in all_ if one.steps >= LEAST_STEPS]
    ratios = [one.judged.ratio for one in enough] or [0.0]
    print(
        f"  {cell.name:<28} false alarms {rate(sum(one.caught for one in all_), len(all_)):<32} "
        f"of {LEAST_STEPS} steps or more {sum(one.caught for one in enough)}/{len(enough)}  "
        f"shorter ones together {sum(one.caught for one in pooled)}/{len(pooled)}  "
        f"{FEW} steps first {sum(one.caught for one in cell.few(Random(SEED)))}  "
        f"grey {sum(one.judged.state == 'grey' for one in all_)}  "
        f"text or end {sum(not one.true for one in cell.answers)}  "
        f"R {max(ratios):.2f} ({statistics.median(ratios):.2f})",
        flush=True,
    )


def report_lie(cell: Cell) -> None:
    """One line: answers are judged together until there are enough steps, and by themselves."""
    audits, single, few = cell.audits, cell.single, cell.few(Random(SEED))
    ratios = [one.judged.ratio for one in audits] or [0.0]
    print(
        f"  {cell.name:<28} caught {rate(sum(one.caught for one in audits), len(audits)):<36} "
        f"single answers {sum(one.caught for one in single) / len(single):7.2%}  "
        f"{FEW} steps first {sum(one.caught for one in few) / len(few):7.2%}  "
        f"R {min(ratios):.2f} ({statistics.median(ratios):.2f})",
        flush=True,
    )


def study(
    models: Models,
    kind: str,
    profile: Profile,
    ways: Sequence[Way],
    folder: Path,
    kept: Path | None = None,
    seed: int = SEED,
) -> list[Cell]:
    """Of one claim, printed as it goes. Returns honest cells first, then lies."""
    began = time.perf_counter()
    one = Study(models, kind, folder, kept, seed)
    print(f"== {models.shape.name} {kind}: mu0 {one.mu0:.4f} logits", flush=True)
    print(" honest; R: largest (median)")
    cells = []
    for cell in one.honest(ways, profile.honest):
        report_honest(cell)
        cells.append(cell)
    report_honest(Cell("all of these", [answer for cell in cells for answer in cell.answers], one.mu0))
    print(f" lies, of {LONG_ENOUGH} tokens or more; R: least (median)")
    for cell in one.lies(profile.lies * (1 if models.shape.layers else SHORT)):
        report_lie(cell)
        cells.append(cell)
    print(" what is said to be the same")
    for cell in one.equals(profile.lies):
        report_honest(cell)
        cells.append(cell)
    print(f" {time.perf_counter() - began:.0f} s", flush=True)
    return cells


def cost(path: Path, lengths: Sequence[int] = (16, 64, 256, 512)) -> None:
    """The time of an audit in parts of the time of generating, for one stream."""
    print(f"== {path.stem}: audit of all steps / generation, one stream, prompt of about 128 tokens")
    auditor = Auditor(path, AUDITORS[0])
    random = Random(SEED)
    for tokens in lengths:
        ratios: list[float] = []
        counts: list[int] = []
        while len(ratios) < ROUNDS:
            (asked,) = requests(random, 1, tokens)
            if len(auditor.means.read(asked)) not in PROMPT:
                continue
            provider = Provider(path, Way("one", slots=1))
            began = time.perf_counter()
            (answer,) = provider.answer([asked])
            generated = time.perf_counter() - began
            provider.close()
            began = time.perf_counter()
            auditor.audit(answer)
            counts.append(len(answer.leaves))
            ratios.append((time.perf_counter() - began) / generated)
        print(
            f"  {tokens:>4} tokens at most, {statistics.median(counts):.0f} in fact: "
            f"{statistics.median(ratios):.2f}",
            flush=True,
        )


def main(arguments: Sequence[str] = ("quick",)) -> None:
    route_log(lambda line: None)
    parser = argparse.ArgumentParser(prog="python -m tests.bench.audit_study")
    parser.add_argument("profile", nargs="?", choices=PROFILES, default="quick")
    parser.add_argument("--only", default="", metavar="MODEL")
    parser.add_argument("--share", type=float, default=1.0, metavar="PART")
    parser.add_argument("--seed", type=int, default=SEED, metavar="NUMBER")
    parser.add_argument("--kept", type=Path, metavar="FOLDER")
    asked = parser.parse_args(arguments)
    profile = PROFILES[asked.profile]
    made = profile._replace(
        honest=math.ceil(profile.honest * asked.share), lies=math.ceil(profile.lies * asked.share)
    )
    ways = (*WAYS, *MORE_THREADS) if profile.threads else WAYS
    with tempfile.TemporaryDirectory() as folder:
        for shape, kind in profile.claims:
            if f"{shape.name} {kind}".removeprefix("random ").startswith(asked.only):
                models = Models(shape, Path(folder))
                study(models, kind, made, ways, Path(folder), asked.kept, asked.seed)
                cost(models.of(kind))
    if asked.kept is not None:
        shutil.rmtree(asked.kept, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
