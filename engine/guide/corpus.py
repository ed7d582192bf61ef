"""Generates the chats that the guide is trained on, and the questions that it is evaluated on.

    python -m infraxa.engine.guide.corpus --chats 140000 --seed 22

Writes train.jsonl and eval.json into the work folder. The same seed gives the same files.
"""

import argparse
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from infraxa.engine.guide.chats import Bank, HeldOut, Message, chat
from infraxa.engine.guide.facts import FACTS, UNKNOWN, withheld
from infraxa.engine.guide.memory import MEMORIES
from infraxa.engine.guide.phrasing import noisy, pseudo, put, typo
from infraxa.engine.guide.refusals import FRAMES, unknown
from infraxa.engine.guide.sums import (
    LEADS,
    LEADS_HELD,
    arithmetic,
    draw_pair,
    numbers,
    sum_answer,
    sum_question,
    too_hard,
)

WORK = Path("build/guide")
TURNS, TURN_WEIGHTS = [1, 2, 3, 4, 6, 12], [82, 9, 5, 3, 0.9, 0.1]
"""Chats of one turn teach the facts much faster than long ones."""


class Question(msgspec.Struct, omit_defaults=True):
    id: str
    text: str
    key: list[str] = []
    """A right answer contains all of these, and of "a|b" one."""
    exact: str = ""
    """The one right answer, where there is only one."""
    history: list[Message] = []

    def accepts(self, answer: str) -> bool:
        if self.exact:
            return answer == self.exact
        return all(any(k in answer for k in key.split("|")) for key in self.key)


Sets = dict[str, list[Question]]


def questions(items: list[HeldOut]) -> list[Question]:
    return [Question(e.id, e.text, key=e.key) for e in items]


def as_typed(text: str) -> str:
    return text[0].upper() + text[1:] + ("?" if " " in text else "")


def eval_sets(bank: Bank, seed: int = 99) -> Sets:
    r = Random(seed)
    sets: Sets = {"first": [Question(e.id, as_typed(e.text), key=e.key) for e in bank.first]}
    sets["combination"] = questions(r.sample(bank.combinations, min(300, len(bank.combinations))))
    sets["phrasing"] = questions(bank.phrasings)
    sets["fact"] = questions(r.sample(bank.facts, min(300, len(bank.facts))))
    sets["noisy"] = [
        Question(e.id, noisy(r, typo(r, e.text)), key=e.key)
        for e in r.sample(bank.combinations, min(150, len(bank.combinations)))
    ]
    sets |= sum_sets(r)
    sets["unknown"] = [
        Question("unknown", text, key=["I do not know that|too much for me"]) for text in unknown_texts(r)
    ]
    sets["too_hard"] = [Question("too_hard", too_hard(r)[0], key=["too hard for me"]) for _ in range(60)]
    sets["memory"] = memory_set(r, bank)
    sets["follow_up"] = follow_up_set(r)
    return sets


def sum_sets(r: Random) -> Sets:
    sets: Sets = {}
    plan = (
        ("sum_unseen", "+-", True, 300),
        ("sum_seen", "+-", False, 150),
        ("times_table", "*/", False, 150),
    )
    for name, ops, unseen, n in plan:
        sets[name] = []
        for _ in range(n):
            op = r.choice(ops)
            a, b = draw_pair(r, op, unseen)
            text = sum_question(r, a, op, b, r.choice(LEADS_HELD + LEADS))
            sets[name].append(Question(op, text, exact=sum_answer(a, op, b)))
    sets["sum_small"] = [
        Question(op, f"What is {a}{op}{b}?", exact=sum_answer(a, op, b))
        for op in "+-*"
        for a in range(1, 10)
        for b in range(1, 10)
        if op != "-" or a >= b
    ]
    return sets


def unknown_texts(r: Random) -> list[str]:
    topics = withheld(UNKNOWN.topics)
    texts = [
        frame.format(t=t, u=r.choice(topics))
        for frame in withheld(UNKNOWN.frames) + withheld(UNKNOWN.tasks)
        for t in r.sample(topics, 8)
    ]
    texts += [r.choice(FRAMES[:12]).format(t=t, u="") for t in topics]
    texts += [f"what is the capital of {c}" for c in withheld(UNKNOWN.capitals)]
    return texts + withheld(UNKNOWN.gibberish)


def memory_set(r: Random, bank: Bank) -> list[Question]:
    """A name, some other turns, then the question for the name."""
    m, out = MEMORIES["name"], []
    for name in withheld(UNKNOWN.names) + [pseudo(r).capitalize() for _ in range(30)]:
        history: list[Message] = [
            ("user", put(r, r.choice(m.tell), name)),
            ("assistant", m.heard.replace("{v}", name)),
        ]
        for _ in range(r.randint(0, 4)):
            if r.random() < 0.6:
                text, answer = r.choice([arithmetic, unknown, numbers])(r)
            else:
                text, answer, _known = bank.draw(r, "intent")
            history += [("user", text), ("assistant", answer)]
        out.append(Question("name", r.choice(m.ask), key=[name], history=history))
    return out


def follow_up_set(r: Random) -> list[Question]:
    out = []
    for _ in range(60):
        a, b, c = r.randint(1, 40), r.randint(1, 40), r.randint(1, 9)
        history = [("user", f"what is {a} + {b}?"), ("assistant", sum_answer(a, "+", b))]
        out.append(Question("sum", f"and now add {c}", exact=sum_answer(a + b, "+", c), history=history))
    for country, city in r.sample(list(FACTS.capitals.items()), 30):
        history = [
            ("user", "What is the capital of France?"),
            ("assistant", "The capital of France is Paris."),
        ]
        out.append(Question("capital", f"What about {country}?", key=[city], history=history))
    return out


def generate(bank: Bank, chats: int, seed: int) -> list[list[Message]]:
    r = Random(seed)
    return [chat(r, bank, r.choices(TURNS, TURN_WEIGHTS)[0]) for _ in range(chats)]


def write_jsonl(path: Path, values: list[Any]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(v) + b"\n" for v in values))


def read_chats(work: Path) -> list[list[Message]]:
    lines = (work / "train.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=list[Message]) for line in lines]


def read_sets(work: Path) -> Sets:
    return msgspec.json.decode((work / "eval.json").read_bytes(), type=Sets)


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates the guide's training chats and evaluation sets.")
    parser.add_argument("--work", type=Path, default=WORK, help="the folder for everything that is made")
    parser.add_argument("--chats", type=int, default=140_000)
    parser.add_argument("--seed", type=int, default=22)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bank = Bank()
    chats = generate(bank, args.chats, args.seed)
    sets = eval_sets(bank)
    write_jsonl(args.work / "train.jsonl", chats)
    (args.work / "eval.json").write_bytes(msgspec.json.encode(sets))
    print(f"{len(chats)} chats, {len(bank.trained)} distinct known questions before noise")
    print("evaluated: " + ", ".join(f"{name} {len(items)}" for name, items in sets.items()))


if __name__ == "__main__":
    main()
