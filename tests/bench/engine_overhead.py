"""What streaming through worker and host costs, next to a bare loop over llama.cpp's low-level API.

Both answer the same prompts with the same model, one thread and greedy choice, and must give the same tokens.
The bare loop does what anybody's would: template, tokens, prompt in one batch, then one batch per token for
all streams, and the text of each token. Runs alternate; each line is the median of the ratios.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.host import Engine
from infraxa.engine.types import ChatMessage, LoadOptions, Request, Sampling
from tests.random_model import write_random_model

STREAMS = 8
QUESTIONS = (
    "how do I become a provider?",
    "what is infraxa?",
    "who made you?",
    "what is a driver?",
    "what is a receipt?",
    "how do I choose a provider?",
    "what is a language model?",
    "can providers read my prompt?",
)


class BareLoop:
    """The program without the project: one process, no abstraction."""

    def __init__(self, path: Path, n_ctx: int) -> None:
        api: Any = importlib.import_module("llama_cpp.llama_cpp")
        self.api = api
        self._quiet = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self._quiet, None)
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(str(path).encode(), params)
        self.vocab = api.llama_model_get_vocab(self.model)
        context = api.llama_context_default_params()
        context.n_ctx = n_ctx * STREAMS
        context.n_seq_max = STREAMS
        context.n_batch = context.n_ubatch = 512
        context.n_threads = context.n_threads_batch = 1
        self.context = api.llama_init_from_model(self.model, context)
        self.batch = api.llama_batch_init(512, 0, 1)
        self.sampler = api.llama_sampler_init_greedy()
        self.buffer = ctypes.create_string_buffer(256)
        import jinja2

        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self.template = environment.from_string(api.llama_model_chat_template(self.model, None).decode())

    def tokenize(self, question: str) -> list[int]:
        messages = [{"role": "user", "content": question}]
        data = self.template.render(messages=messages, add_generation_prompt=True).encode()
        tokens = (ctypes.c_int32 * len(data))()
        n = self.api.llama_tokenize(self.vocab, data, len(data), tokens, len(data), False, True)
        return list(tokens[:n])

    def answer(self, questions: Sequence[str], max_tokens: int) -> list[list[int]]:
        """All at once, one sequence each."""
        api, batch, context = self.api, self.batch, self.context
        token, pos, n_seq, seq, logits = batch.token, batch.pos, batch.n_seq_id, batch.seq_id, batch.logits
        api.llama_memory_clear(api.llama_get_memory(context), True)
        positions: list[int] = []
        last: list[int] = []
        answers: list[list[int]] = []
        row = 0
        for s, question in enumerate(questions):
            prompt = self.tokenize(question)
            for i, t in enumerate(prompt):
                token[row], pos[row], n_seq[row], seq[row][0], logits[row] = t, i, 1, s, i == len(prompt) - 1
                row += 1
            positions.append(len(prompt))
            last.append(row - 1)
            answers.append([])
        running = list(range(len(questions)))
        while running:
            batch.n_tokens = row
            assert api.llama_decode(context, batch) == 0
            row = 0
            still = []
            for s in running:
                t = api.llama_sampler_sample(self.sampler, context, last[s])
                if api.llama_vocab_is_eog(self.vocab, t):
                    continue
                n = api.llama_token_to_piece(self.vocab, t, self.buffer, 256, 0, False)
                self.buffer.raw[:n].decode("utf-8", "replace")
                answers[s].append(t)
                if len(answers[s]) == max_tokens:
                    continue
                token[row], pos[row], n_seq[row], seq[row][0], logits[row] = t, positions[s], 1, s, True
                positions[s] += 1
                last[s] = row
                row += 1
                still.append(s)
            running = still
        return answers

    def close(self) -> None:
        self.api.llama_sampler_free(self.sampler)
        self.api.llama_batch_free(self.batch)
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


async def through_engine(engine: Engine, questions: Sequence[str], max_tokens: int) -> list[list[int]]:
    """All at once, as the app would."""
    sampling = Sampling(temperature=0, max_tokens=max_tokens)

    async def one(question: str) -> list[int]:
        ids: list[int] = []
        async for event in engine.generate(Request((ChatMessage("user", question),), sampling)):
            ids += getattr(event, "token_ids", ())
        return ids

    return list(await asyncio.gather(*(one(q) for q in questions)))


async def compare(name: str, path: Path, *, max_tokens: int, rounds: int, singles: int = STREAMS) -> None:
    """`singles`: how many answers, one after the other, make a round of the test with one stream."""
    bare = BareLoop(path, 1024)
    engine = Engine()
    await engine.load(path, LoadOptions(n_ctx=1024, slots=STREAMS, threads=1))
    unique = 0
    for streams in (1, STREAMS):
        ratios, bare_rates, engine_rates = [], [], []
        for _ in range(rounds):
            # A number in front keeps the engine from remembering prompts, which the bare loop does not.
            groups = []
            for start in range(0, STREAMS if streams > 1 else singles, streams):
                unique += 1
                groups.append([f"{unique}. {q}" for q in QUESTIONS[start : start + streams]])
            started = time.perf_counter()
            expected = [ids for group in groups for ids in bare.answer(group, max_tokens)]
            bare_seconds = time.perf_counter() - started
            started = time.perf_counter()
            got = [ids for group in groups for ids in await through_engine(engine, group, max_tokens)]
            seconds = time.perf_counter() - started
            if got != expected:
                print(f"  {name}: the answers differ (rounding of other batch shapes)")
            ratios.append((sum(map(len, got)) / seconds) / (sum(map(len, expected)) / bare_seconds))
            bare_rates.append(sum(map(len, expected)) / bare_seconds)
            engine_rates.append(sum(map(len, got)) / seconds)
        print(
            f"engine overhead, {name}, {streams} at once: {statistics.median(ratios):.3f} of the bare loop "
            f"({statistics.median(engine_rates):.0f} of {statistics.median(bare_rates):.0f} tokens/s)",
            flush=True,
        )
    await engine.close()
    bare.close()


async def _all() -> None:
    with tempfile.TemporaryDirectory() as folder:
        await compare("built-in guide, whole answers", GUIDE_PATH, max_tokens=200, rounds=21)
        tiny = Path(folder) / "tiny.gguf"
        write_random_model(tiny, GUIDE_PATH, layers=8, dim=256)
        await compare("random 8x256 (5M), 200 tokens", tiny, max_tokens=200, rounds=9, singles=3)
        small = Path(folder) / "small.gguf"
        write_random_model(small, GUIDE_PATH, layers=12, dim=1024)
        await compare("random 12x1024 (130M), 32 tokens", small, max_tokens=32, rounds=7, singles=3)


def main() -> None:
    asyncio.run(_all())


if __name__ == "__main__":
    main()
