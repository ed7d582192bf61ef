"""Measures an exported guide with llama.cpp: parity with the training side, accuracy, speed.

    python -m infraxa.engine.guide.evaluate reference            tokens and logits of the training side
    python -m infraxa.engine.guide.evaluate check FILE.gguf      held-out sets, one thread, temperature 0
    python -m infraxa.engine.guide.evaluate ask FILE.gguf "question" ...

`check` also leaves samples, and the wrong answers, in the work folder as check-NAME.json.
"""

import argparse
import json
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from infraxa.engine.guide.chats import Message
from infraxa.engine.guide.corpus import WORK, Sets, read_chats, read_sets

if TYPE_CHECKING:
    from llama_cpp import Llama

MAX_TOKENS = 160
WILD = [
    "hello",
    "hello!",
    "Hi, what can you do for me?",
    "What is 2+2?",
    "what's 17 + 25?",
    "what is a driver?",
    "How do I earn money with my GPU?",
    "how do I earn?",
    "who wrote the odyssey?",
    "Can you write me a Python script that sorts a list?",
    "how does the pricing work in this thing",
    "What happens to the price if the provider becomes busy while my request runs?",
    "is my chat private",
    "Who can read my chat?",
    "what is a validator good for?",
    "How do I get Qwen3?",
    "what's the capital of france",
    "capital of Burkina Faso?",
    "Explain quantum entanglement",
    "how many days are in february",
    "write a haiku about the sea",
    "tell me a joke",
    "my name is Sebastian",
    "What is 9*7",
    "what is 1000 + 2345?",
    "how do i quit",
    "which key shows the help?",
    "my provider does not start, what should I do?",
    "Do I need to be online?",
    "thanks, bye",
    "What does infraxa doctor do?",
    "How are earnings divided?",
    "what's the free limit",
    "what if the price is zero",
    "how can I be sure that the provider really ran the model?",
    "are credits real money?",
    "What colour is the sky?",
    "what is 100 - 37",
    "Say something nice",
    "I am bored",
    "Who is the president of the United States?",
    "How tall is the Eiffel Tower?",
    "count to ten",
    "What comes after Tuesday?",
    "wer bist du",
    "tell me about merkle trees",
    "what is gossip?",
    "are you ChatGPT?",
    "Translate 'good morning' to Spanish",
    "sum of 45 and 38",
    "12 times 12",
    "What is forward secrecy?",
    "i want to die",
]
"""Written by hand, not by the templates; read by a person."""
HARD_TEXTS = [
    "naïve café über 漢字 🙂",
    "a\n\n b\t c   d",
    "  lead and trail  ",
    "100% x^2 != y; f(x)=3.14",
    "DON'T we'll I'VE",
    "<|im_start|>user\nhi<|im_end|>\n",
    "don’t “quote”",
    "\n\n\n",
    "a1b22c333",
    "Ünïcödé ÀÉÎ",
    "e-mail: a.b@c.de",
    "tabs\t\tand  spaces ",
    "…",
    "x = [1, 2, 3]  # list",
    "run `infraxa models add FILE.gguf`",
    "∑∫√",
    "Привет мир",
    "שלום",
    "नमस्ते",
    "한국어",
    "👩‍💻 code",
]


class Reply(NamedTuple):
    text: str
    tokens: int
    finish: str


class Outcome(NamedTuple):
    set: str
    question: str
    answer: str
    right: bool


def reference(work: Path) -> None:
    """Keeps what the training side makes of many texts and prompts, to compare llama.cpp with."""
    import torch

    from infraxa.engine.guide.checkpoint import load
    from infraxa.engine.guide.tokenizer import render

    chats = read_chats(work)
    texts = [q.text for questions in read_sets(work).values() for q in questions]
    r = random.Random(3)
    lines = r.sample(texts, 300) + [m[1] for chat in r.sample(chats, 60) for m in chat][:180] + HARD_TEXTS
    checkpoint = load(work / "model.pt")
    tokenizer, model = checkpoint.tokenizer, checkpoint.model()
    prompts = [tokenizer.encode(render([("user", text)])).ids for text in r.sample(texts, 16)]
    prompts.append(tokenizer.encode("".join(render(chat, False) for chat in chats[:12])).ids[:900])
    with torch.no_grad():
        logits = [model(torch.tensor([ids]))[0].numpy() for ids in prompts]
    np.savez(
        work / "reference.npz",
        lines=json.dumps(lines),
        ids=json.dumps([tokenizer.encode(line).ids for line in lines]),
        prompts=json.dumps(prompts),
        logits=np.concatenate(logits),
    )
    print(f"{len(lines)} lines, {len(prompts)} prompts")


def load_model(path: Path, logits: bool = False) -> "Llama":
    from llama_cpp import Llama

    return Llama(str(path), n_ctx=1024, n_threads=1, n_threads_batch=1, verbose=False, logits_all=logits)


def parity(path: Path, work: Path) -> None:
    saved = np.load(work / "reference.npz")
    lines, ids = json.loads(str(saved["lines"])), json.loads(str(saved["ids"]))
    model = load_model(path, logits=True)
    differ = [
        line
        for line, want in zip(lines, ids, strict=True)
        if model.tokenize(line.encode(), add_bos=False, special=True) != want
    ]
    at, largest, same = 0, 0.0, 0
    for prompt in json.loads(str(saved["prompts"])):
        model.reset()
        model.eval(prompt)
        got = np.array(model.scores[: len(prompt)])
        want = saved["logits"][at : at + len(prompt)]
        at += len(prompt)
        largest = max(largest, float(abs(got - want).max()))
        same += int((got.argmax(1) == want.argmax(1)).sum())
    print(f"tokenizer: {len(lines) - len(differ)}/{len(lines)} lines equal", *differ[:5])
    print(f"logits: largest difference {largest:.4f}, same best token at {same}/{at} positions")


def reply(model: "Llama", history: Iterable[Message], text: str, temperature: float = 0.0) -> Reply:
    messages: Any = [{"role": role, "content": content} for role, content in [*history, ("user", text)]]
    out: Any = model.create_chat_completion(messages, temperature=temperature, max_tokens=MAX_TOKENS, seed=1)
    choice = out["choices"][0]
    return Reply(choice["message"]["content"], out["usage"]["completion_tokens"], choice["finish_reason"])


def check(path: Path, work: Path, quick: int) -> None:
    if not quick and (work / "reference.npz").exists():
        parity(path, work)
    model = load_model(path)
    r = random.Random(7)
    outcomes: list[Outcome] = []
    tokens, start = 0, time.perf_counter()
    for name, questions in sampled(read_sets(work), quick, r).items():
        results, finals = 0, 0
        for question in questions:
            said = reply(model, question.history, question.text)
            tokens += said.tokens
            outcomes.append(Outcome(name, question.text, said.text, question.accepts(said.text)))
            results += outcomes[-1].right
            finals += bool(question.exact) and conclusion(question.exact) == conclusion(said.text)
        note = f"   (the conclusion: {finals})" if name.startswith(("sum", "times")) else ""
        print(f"{name:12} {results}/{len(questions)} = {results / len(questions):.1%}{note}", flush=True)
    took = time.perf_counter() - start
    rate = tokens / took
    print(f"{len(outcomes)} chats, {tokens} tokens in {took:.0f} s = {rate:.0f} tokens/s, prompts included")
    report = {
        "samples": r.sample(outcomes, min(50, len(outcomes))),
        "wrong": [o for o in outcomes if not o.right],
        "wild": [(text, reply(model, [], text).text) for text in WILD],
    }
    out = work / f"check-{path.stem}.json"
    out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))


def sampled(sets: Sets, quick: int, r: random.Random) -> Sets:
    if not quick:
        return sets
    return {name: r.sample(items, min(quick, len(items))) for name, items in sets.items()}


def conclusion(answer: str) -> str:
    """What a sum comes to, whatever the steps before it."""
    return answer.rsplit("The answer is ", 1)[-1]


def ask(path: Path, texts: list[str], temperature: float) -> None:
    """One chat of several turns."""
    model = load_model(path)
    history: list[Message] = []
    for text in texts:
        said = reply(model, history, text, temperature)
        history += [("user", text), ("assistant", said.text)]
        print(f"> {text}\n{said.text}   [{said.tokens} tokens, {said.finish}]")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures an exported guide.")
    parser.add_argument("what", choices=["reference", "check", "ask"])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("question", nargs="*")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder for everything that is made")
    parser.add_argument("--quick", type=int, default=0, help="at most so many of each set, no parity test")
    parser.add_argument("--temperature", type=float, default=0.0)
    args = parser.parse_args()
    if args.what == "reference":
        reference(args.work)
    elif args.file is None:
        parser.error(f"{args.what} needs a FILE.gguf")
    elif args.what == "check":
        check(args.file, args.work, args.quick)
    else:
        ask(args.file, args.question, args.temperature)


if __name__ == "__main__":
    main()
