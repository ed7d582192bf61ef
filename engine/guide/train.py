"""Trains the guide on the CPU: one single-threaded process per core, weights and gradients in shared memory.

    python -m infraxa.engine.guide.train --minutes 31      on from the shipped weights, ended by the clock
    python -m infraxa.engine.guide.train --from-scratch --steps 8000

The learning rate decays to zero by the time (or the step) given, so a run always ends well. With --steps
the same seed, steps and --ranks give the same weights.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from infraxa.engine.guide import GUIDE_PATH
from infraxa.engine.guide.chats import Message
from infraxa.engine.guide.checkpoint import Checkpoint, load
from infraxa.engine.guide.corpus import WORK, read_chats
from infraxa.engine.guide.model import Config, Guide
from infraxa.engine.guide.tokenizer import encode_chat, train

WARM_UP_STEPS = 30
CUT_AFTER = 8
TOKENIZER_CHATS = 12_000


@dataclass(frozen=True)
class Plan:
    """How a training runs."""

    work: Path
    minutes: float
    steps: int
    tokens: int
    ranks: int
    muon_lr: float
    adam_lr: float
    decay: float
    seed: int

    def done(self, step: int, start: float) -> float:
        """The part that is behind us, from 0 to 1."""
        return step / self.steps if self.steps else (time.monotonic() - start) / (60 * self.minutes)


@dataclass(frozen=True)
class Doc:
    """One chat as tokens."""

    ids: NDArray[np.int64]
    answer: NDArray[np.bool_]
    """Which tokens are learnt: those of the answers."""


@dataclass(frozen=True)
class Shared:
    """What all ranks read and write."""

    checkpoint: Checkpoint
    model: Guide
    gradients: Tensor
    """One row per rank."""
    tallies: Tensor
    """Per rank: summed loss, answer tokens, tokens; and in row 0 the part that is done."""
    barrier: Barrier


def tokenize(tokenizer: Tokenizer, chats: list[list[Message]], context: int, cut: float) -> list[Doc]:
    """The rest of a memorised answer is easy, so a share `cut` of short chats stops after its first words."""
    docs, r = [], random.Random(0)
    for chat in chats:
        ids, answer = encode_chat(tokenizer, chat)
        if len(chat) == 2 and r.random() < cut and not any(c.isdigit() for c in chat[1][1]):
            n = answer.index(True) + CUT_AFTER
            ids, answer = ids[:n], answer[:n]
        docs.append(Doc(np.array(ids[:context], np.int64), np.array(answer[:context], bool)))
    return docs


def batches(docs: list[Doc], budget: int, seed: int) -> Iterator[list[Doc]]:
    """Endless batches of about `budget` tokens, in the corpus's order; like lengths go together nearby."""
    r = random.Random(seed)
    while True:
        for at in range(0, len(docs), 512):
            out: list[list[Doc]] = []
            batch: list[Doc] = []
            for doc in sorted(docs[at : at + 512], key=lambda d: len(d.ids)):
                if batch and (len(batch) + 1) * len(doc.ids) > budget:
                    out.append(batch)
                    batch = []
                batch.append(doc)
            out.append(batch)
            r.shuffle(out)
            yield from out


def collate(docs: list[Doc]) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, the flat positions whose next token is learnt, and those next tokens."""
    width = max(len(d.ids) for d in docs)
    ids = torch.zeros(len(docs), width, dtype=torch.long)
    answer = torch.zeros(len(docs), width, dtype=torch.bool)
    for row, doc in enumerate(docs):
        ids[row, : len(doc.ids)] = torch.from_numpy(doc.ids)
        answer[row, : len(doc.ids)] = torch.from_numpy(doc.answer)
    where = answer[:, 1:].flatten().nonzero()[:, 0]
    return ids[:, :-1], where, ids[:, 1:].flatten()[where]


def work(rank: int, plan: Plan, shared: Shared, docs: list[Doc]) -> None:
    """Computes the gradients of its own batches; updates its own share of the weights."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    model, tallies = shared.model, shared.tallies
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    others: dict[torch.nn.Parameter, list[Tensor]] = {}
    at = 0
    for name, p in model.named_parameters():
        rows = [shared.gradients[k, at : at + p.numel()].view_as(p) for k in range(plan.ranks)]
        p.grad = rows[rank]
        others[p] = rows[:rank] + rows[rank + 1 :]
        at += p.numel()
        (matrices if p.ndim == 2 and "embed" not in name else rest).append(p)
    mine = matrices[rank :: plan.ranks]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(mine, lr=plan.muon_lr, momentum=0.95, weight_decay=0.01, ns_steps=4)
    ]
    if rank == 0:
        optimizers.append(torch.optim.AdamW(rest, lr=plan.adam_lr, betas=(0.9, 0.95), weight_decay=0))
        mine = mine + rest
    rates = [o.param_groups[0]["lr"] for o in optimizers]
    stream = batches(docs[rank :: plan.ranks], plan.tokens // plan.ranks, plan.seed + rank)
    progress = Progress(plan, shared.checkpoint, model) if rank == 0 else None
    start = time.monotonic()
    done, step = 0.0, 0
    while done < 1:
        ids, where, target = collate(next(stream))
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(ids, where).float(), target, reduction="sum")
        loss.backward()
        tallies[rank, 0], tallies[rank, 1], tallies[rank, 2] = loss.item(), len(target), ids.numel()
        if rank == 0:
            tallies[0, 3] = plan.done(step, start)
        shared.barrier.wait()
        answers, done = tallies[:, 1].sum().item(), tallies[0, 3].item()
        for p in mine:
            assert p.grad is not None
            for other in others[p]:
                p.grad += other
            p.grad /= answers
        scale = min(1, (step + 1) / WARM_UP_STEPS, max(0, 1 - done) / plan.decay)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
            optimizer.step()
        mean, tokens = tallies[:, 0].sum().item() / answers, int(tallies[:, 2].sum().item())
        shared.barrier.wait()
        shared.gradients[rank].zero_()
        step += 1
        if progress:
            progress.note(step, mean, tokens, done)


class Progress:
    """Tells how the training goes and keeps its weights."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint, model: Guide) -> None:
        self.plan, self.checkpoint, self.model = plan, checkpoint, model
        self.losses: list[float] = []
        self.start = time.monotonic()

    def note(self, step: int, loss: float, tokens: int, done: float) -> None:
        self.losses = [*self.losses[-19:], loss]
        self.checkpoint.step, self.checkpoint.tokens = step, self.checkpoint.tokens + tokens
        if step % 20 == 0 or done >= 1:
            line = json.dumps(
                {
                    "step": step,
                    "loss": round(sum(self.losses) / len(self.losses), 4),
                    "tokens": self.checkpoint.tokens,
                    "minutes": round((time.monotonic() - self.start) / 60, 2),
                    "done": round(min(1, done), 4),
                }
            )
            print(line, flush=True)
            with (self.plan.work / "train.log").open("a") as log:
                log.write(line + "\n")
        if step % 100 == 0 or done >= 1:
            self.checkpoint.weights = self.model.state_dict()
            self.checkpoint.save(self.plan.work / "model.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the guide on the chats in the work folder.")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder for everything that is made")
    parser.add_argument("--init", type=Path, default=GUIDE_PATH, help="go on from this .gguf or .pt")
    parser.add_argument("--from-scratch", action="store_true", help="new weights and a new tokenizer")
    parser.add_argument("--minutes", type=float, default=31)
    parser.add_argument("--steps", type=int, default=0, help="end after so many steps, not by the clock")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step, all ranks together")
    parser.add_argument("--ranks", type=int, default=2, help="processes: one per core")
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=0.002)
    parser.add_argument("--decay", type=float, default=0.7, help="part of the run in which the rate falls")
    parser.add_argument(
        "--cut", type=float, default=0.4, help="share of short chats cut to their first words"
    )
    parser.add_argument("--seed", type=int, default=22)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    chats = read_chats(args.work)
    if args.from_scratch:
        config = Config()
        tokenizer = train((text for chat in chats[:TOKENIZER_CHATS] for _, text in chat), config.vocab)
        model = Guide(config)
        checkpoint = Checkpoint(config, model.state_dict(), tokenizer)
    else:
        checkpoint = load(args.init)
        model = checkpoint.model()
        checkpoint.step = checkpoint.tokens = 0
    docs = tokenize(checkpoint.tokenizer, chats, checkpoint.config.context, args.cut)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters, {len(docs)} chats, {sum(len(d.ids) for d in docs)} tokens", flush=True)
    plan = Plan(
        args.work,
        args.minutes,
        args.steps,
        args.tokens,
        args.ranks,
        args.muon_lr,
        args.adam_lr,
        args.decay,
        args.seed,
    )
    model.share_memory()
    # fork: the ranks read one copy of the corpus
    context = mp.get_context("fork")
    shared = Shared(
        checkpoint,
        model,
        torch.zeros(args.ranks, size).share_memory_(),
        torch.zeros(args.ranks, 4, dtype=torch.double).share_memory_(),
        context.Barrier(args.ranks),
    )
    ranks = [context.Process(target=work, args=(k, plan, shared, docs)) for k in range(args.ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise SystemExit("training failed")


if __name__ == "__main__":
    main()
