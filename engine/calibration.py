"""The honest noise of one model file on this machine: by how much its logits differ when the same answers
are computed in other ways that are just as right.

Sixteen answers of the model's own are generated one token at a time, as a driver does. Then they are read at
once, as who audits does; with flash attention off; and from a copy of the weights in 16-bit numbers, where
there is room for one. The largest of the mean distances is mu0, the unit of verdicts.py. Prompts are longer
than 128 tokens, since short ones are often computed to the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from infraxa.engine.aside import Aside
from infraxa.engine.dequantised import Copy
from infraxa.engine.frames import Calibrate, Calibrating
from infraxa.engine.gumbel import UNIT, choose, draw_of
from infraxa.engine.llama import Context, Model
from infraxa.engine.scoring import Means, scored_row
from infraxa.engine.types import ChatMessage, EngineError, FlashAttention, Request
from infraxa.engine.verdicts import FLOOR

TOKENS: Final = 64
"""Of each answer."""
LEAST_PROMPT: Final = 128
GROUP: Final = 8
"""Answers that are generated together."""
WAIT: Final = 0.01
"""Seconds for which nothing else waits for the copy to be written."""
QUESTIONS: Final = (
    "What does this say about rivers?",
    "Write a short story that begins here.",
    "Explain it to a child of six.",
    "Which of these sentences is the most surprising, and why?",
    "Make a list of all things that are named.",
    "Translate the first sentence into French.",
    "What would a baker answer to this?",
    "Write a function in Python that counts the words.",
    "Continue with three more sentences.",
    "Is anything of this wrong?",
    "Say the same in one sentence.",
    "What is 17 times 23?",
    "Welche Farben kommen vor?",
    "¿Qué hora es en este texto?",
    "Write a poem of eight lines about the lighthouse.",
    "Give me the opposite of each sentence.",
)
SENTENCES: Final = (
    "The river bends twice before it reaches the old mill.",
    "A train left the northern station at seven minutes past nine.",
    "Nobody had painted the green door since the winter of the great storm.",
    "Bread needs flour, water, salt and a little patience.",
    "She counted 128 steps from the harbour to the lighthouse.",
    "If the valve is closed, the pressure rises by half a bar each minute.",
    "Two of the three letters were never opened.",
    "The teacher asked why shadows are longer in the evening.",
    "Copper carries heat better than iron does.",
    "On the table lay a map, a candle and a broken compass.",
    "The committee will vote on the second proposal next Thursday.",
    "Birds that fly at night find their way by the stars.",
    "His grandmother kept the seeds in a blue tin box.",
    "A list is sorted when no item is smaller than the one before.",
    "The museum is open every day but Monday.",
    "They sold the boat, and with the money they bought a piano.",
)
_DRAW: Final = draw_of(800_000, 0, 1_000_000, 0)


class _Answer:
    """One of the sixteen: its tokens, and what was computed of it first."""

    def __init__(self, number: int, prompt: list[int]) -> None:
        self.tokens = prompt
        self.n_prompt = len(prompt)
        self.ids: list[bytes] = []
        self.q: list[bytes] = []
        self._seed = hashlib.sha256(b"infraxa/calibration" + bytes([number])).digest()

    def add(self, model: Model, context: Context, row: int) -> None:
        """One more token, from that row."""
        made = scored_row(context, row, b"")
        ids, q = _numbers(made.ids, "<u4"), _numbers(made.q, "<i4")
        token = choose(ids, q, _DRAW, self._seed, len(self.ids))
        if model.piece(token) is None:
            # An answer of a few tokens would be none to measure: it goes on with the likeliest that does.
            token = next((one for one in ids if model.piece(one) is not None), token)
        self.ids.append(made.ids)
        self.q.append(made.q)
        self.tokens.append(token)


class _Way(NamedTuple):
    """To compute them again."""

    means: Means
    model: Model
    flash_attention: FlashAttention


def calibrate(aside: Aside[Any], means: Means, asked: Calibrate) -> Generator[float, None, Calibrating]:
    """The task of `aside`. Raises EngineError: `unsupported` when all ways give the same bits."""
    model = means.model
    answers = [_Answer(i, _prompt(means, i)) for i in range(len(QUESTIONS))]
    longest = max(answer.n_prompt for answer in answers) + TOKENS
    if model.n_ctx_train and longest > model.n_ctx_train:
        raise EngineError(
            "unsupported",
            f"This model was trained for {model.n_ctx_train} tokens; to measure its noise takes {longest}.",
            "Its answers cannot be audited.",
        )
    for at in range(0, len(answers), GROUP):
        yield from _generate(aside, means, answers[at : at + GROUP], longest, 0.4 * at / len(answers))
    other: FlashAttention = "auto" if means.flash_attention == "off" else "off"
    at_once = yield from _read(aside, _Way(means, model, means.flash_attention), answers, longest, 0.4)
    far = [_mean_distance([q for answer in answers for q in answer.q], at_once)]
    otherwise = yield from _read(aside, _Way(means, model, other), answers, longest, 0.6)
    far.append(_mean_distance(at_once, otherwise))
    if asked.scratch and Copy.fits(model, Path(asked.scratch), means.free()):
        copied = yield from _read_copy(aside, means, Path(asked.scratch), answers, longest)
        if copied is not None:
            far.append(_mean_distance(at_once, copied))
    if not any(far):
        raise EngineError(
            "unsupported",
            "All ways to compute this model's answers give the same bits here: its noise cannot be measured.",
            "Its answers cannot be audited on this machine.",
        )
    return Calibrating(asked.id, 1.0, max(FLOOR, *far))


def _prompt(means: Means, number: int) -> list[int]:
    """A conversation of at least `LEAST_PROMPT` tokens, another one for each number. Raises EngineError."""
    said: list[str] = []
    for i in range(4 * len(SENTENCES)):
        said.append(SENTENCES[(number + i) % len(SENTENCES)])
        tokens = means.read(Request((ChatMessage("user", " ".join([*said, QUESTIONS[number]])),)))
        if len(tokens) >= LEAST_PROMPT:
            return tokens
    raise EngineError(
        "unsupported", "This model's template leaves out what is said.", "Its answers cannot be audited."
    )


def _pause(aside: Aside[Any], done: float) -> Generator[float, None, None]:
    """What is measured here is computed in pieces that answers would notice: they go before it."""
    while aside.beside:
        yield done


def _generate(
    aside: Aside[Any], means: Means, answers: Sequence[_Answer], longest: int, done: float
) -> Generator[float, None, None]:
    """Reads the prompts, and then takes one token of each at a time."""
    with means.open(longest, slots=len(answers), piece=longest) as context:
        for slot, answer in enumerate(answers):
            yield from _pause(aside, done)
            rows = _fill(context, 0, slot, answer.tokens, len(answer.tokens) - 1)
            aside.decode(context, rows)
            answer.add(means.model, context, rows - 1)
        for _ in range(TOKENS - 1):
            yield from _pause(aside, done)
            for slot, answer in enumerate(answers):
                _fill(context, slot, slot, answer.tokens[-1:], 0, len(answer.tokens) - 1)
            aside.decode(context, len(answers))
            for slot, answer in enumerate(answers):
                answer.add(means.model, context, slot)
            done += 0.2 / TOKENS
            yield done


def _read(
    aside: Aside[Any], way: _Way, answers: Sequence[_Answer], longest: int, done: float
) -> Generator[float, None, list[bytes]]:
    """The logits of all steps, at the candidates of the first time."""
    made: list[bytes] = []
    means = way.means
    with means.open(
        longest, outputs=TOKENS, piece=longest, flash_attention=way.flash_attention, model=way.model
    ) as context:
        for answer in answers:
            yield from _pause(aside, done)
            first = answer.n_prompt - 1
            context.clear(0)
            aside.decode(context, _fill(context, 0, 0, answer.tokens[:-1], first))
            made += [scored_row(context, first + i, ids).at for i, ids in enumerate(answer.ids)]
            done += 0.2 / len(answers)
            yield done
    return made


def _read_copy(
    aside: Aside[Any], means: Means, folder: Path, answers: Sequence[_Answer], longest: int
) -> Generator[float, None, list[bytes] | None]:
    """As `_read`, from a copy of the weights; None when it cannot be made."""
    yield from _pause(aside, 0.8)
    copy = Copy(means.model, folder)
    try:
        while not copy.wait(0 if aside.beside else WAIT):
            yield 0.8
        if not copy.written:
            return None
        with Model.load(copy.path) as model:
            return (yield from _read(aside, _Way(means, model, means.flash_attention), answers, longest, 0.8))
    finally:
        copy.close()


def _fill(
    context: Context, row: int, seq: int, tokens: Sequence[int], first_output: int, start: int = 0
) -> int:
    """Rows from `row` on: tokens of one sequence, at the positions from `start` on. Returns how many."""
    for i, token in enumerate(tokens):
        context.token[row + i] = token
        context.pos[row + i] = start + i
        context.seq[row + i] = seq
        context.output[row + i] = i >= first_output
    return len(tokens)


def _numbers(data: bytes, kind: str) -> list[int]:
    import numpy as np

    numbers: list[int] = np.frombuffer(data, kind).tolist()
    return numbers


def _mean_distance(one: Sequence[bytes], other: Sequence[bytes]) -> float:
    """Of all logits, in logits."""
    import numpy as np

    a, b = (np.frombuffer(b"".join(part), "<i4").astype(np.int64) for part in (one, other))
    return float(np.abs(a - b).mean()) / UNIT
