"""Draws whole chats for training: known questions, sums, follow-ups, names to remember, refusals."""

from random import Random
from typing import NamedTuple

from infraxa.engine.guide.facts import FACTS, UNKNOWN, Fact
from infraxa.engine.guide.memory import remembered
from infraxa.engine.guide.phrasing import held, noisy, split_held
from infraxa.engine.guide.refusals import unknown
from infraxa.engine.guide.sums import arithmetic, numbers, result, sum_answer, too_hard
from infraxa.engine.guide.tables import entries

Message = tuple[str, str]
"""(role, text)"""

TERM_FRAMES = [
    "what is {t}",
    "what's {t}",
    "whats {t}",
    "explain {t}",
    "tell me about {t}",
    "how does {t} work",
    "what does {t} mean",
    "define {t}",
    "{t}",
    "can you explain {t}",
    "what do you know about {t}",
    "what exactly is {t}",
    "describe {t}",
    "how about {t}",
    "what are {t}",
    "explain {t} to me",
    "what does {t} do",
    "i do not understand {t}",
    "what is {t} in infraxa",
    "what is the meaning of {t}",
    "what is meant by {t}",
    "can you tell me what {t} is",
    "i want to understand {t}",
    "what is {t} good for",
    "what is {t} for",
    "give me an explanation of {t}",
    "tell me what {t} is",
    "a question about {t}",
    "say something about {t}",
    "what can you say about {t}",
    "why is there {t}",
    "{t} explained",
    "!i have never heard of {t}, what is it",
    "!my friend asked me about {t}",
]
MORE = [
    "tell me more",
    "more",
    "go on",
    "more please",
    "can you say more",
    "more details",
    "continue",
    "and",
    "what else",
    "tell me more about that",
    "explain more",
]
NO_MORE = "That is all I know about that. Press F1 in the app for more."
AGAIN = [
    "say that again",
    "repeat that",
    "can you repeat that",
    "again please",
    "repeat please",
    "what did you say",
    "pardon",
]
SURE = ["are you sure", "really", "is that true", "is that right", "are you certain"]
NOT_SURE = "I think so, but I am tiny and can be wrong. Please check it."
SMALL_TALK = {"hello", "bye", "thanks", "yes", "no", "good"}

# How often each kind of turn, and each table of facts, is drawn.
MIX = {"memory": 12, "sum": 48, "hard": 3, "numbers": 2, "intent": 40, "table": 20, "unknown": 12}
TABLES = {
    "fact": 3.3,
    "capital": 5,
    "colour": 1.5,
    "mix": 0.4,
    "sound": 1,
    "young": 1,
    "legs": 1,
    "unit": 2.2,
    "day": 1.4,
    "month": 3,
    "list": 0.6,
    "factor": 0.9,
    "shares": 0.8,
    "haiku": 1.3,
}


class Known(NamedTuple):
    """An answer with the questions that it is trained for."""

    id: str
    asks: list[str]
    always: list[str]
    answers: list[str]
    more: str | None


class HeldOut(NamedTuple):
    id: str
    text: str
    key: list[str]


class Bank:
    """Every known question with its answer, split in training and held-out questions."""

    def __init__(self) -> None:
        self.groups: dict[str, list[Known]] = {}
        self.first: list[HeldOut] = []
        """The questions of `always`: trained on, and evaluated apart."""
        self.combinations: list[HeldOut] = []
        self.phrasings: list[HeldOut] = []
        self.facts: list[HeldOut] = []
        self.trained: set[str] = set()
        for fact in FACTS.intent:
            self._add("intent", fact, self.combinations, self.phrasings)
        for fact in FACTS.fact:
            self._add("fact", fact, self.facts, self.facts)
        for entry in entries():
            fact = Fact(id=entry.kind, asks=entry.patterns, answer=entry.answer, key=[entry.key])
            self._add(entry.kind, fact, self.facts, self.facts)
        for out in (self.combinations, self.phrasings, self.facts):
            out[:] = [e for e in out if e.text.lower() not in self.trained]

    def _add(self, group: str, fact: Fact, combinations: list[HeldOut], phrasings: list[HeldOut]) -> None:
        patterns = list(fact.asks)
        for term in fact.terms:
            patterns += [
                frame.replace("{t}", term)
                for frame in TERM_FRAMES
                if not frame.startswith("!") or term == fact.terms[0]
            ]
        split = split_held(patterns)
        # Of the plainest "what is X" questions, one in ten is held out as well.
        plain = {f.replace("{t}", term) for f in TERM_FRAMES[3:8] for term in fact.terms}
        apart = [q for q in split.train if q in plain and held(q, 10)]
        asks = [q for q in split.train if q not in apart and q not in fact.always]
        self.groups.setdefault(group, []).append(Known(fact.id, asks, fact.always, fact.said, fact.more))
        self.trained.update(q.lower() for q in [*asks, *fact.always])
        self.first += [HeldOut(fact.id, q, fact.marks) for q in fact.always]
        combinations += [HeldOut(fact.id, q, fact.marks) for q in split.combinations + apart]
        phrasings += [HeldOut(fact.id, q, fact.marks) for q in split.novel]

    def draw(self, r: Random, group: str) -> tuple[str, str, Known]:
        known = r.choice(self.groups[group])
        asks = known.always if known.always and r.random() < 0.4 else known.asks
        return noisy(r, r.choice(asks)), r.choice(known.answers), known


class Topic(NamedTuple):
    """What the turn before was about, so that a follow-up can be drawn."""

    kind: str
    more: str | None = None
    total: int = -1


def follow_up(r: Random, before: Topic) -> tuple[str, str, Topic | None]:
    if before.kind == "intent":
        return noisy(r, r.choice(MORE)), before.more or NO_MORE, None
    if before.kind == "sum" and 0 <= before.total <= 90:
        b = r.randint(1, 10)
        if before.total >= b and r.random() < 0.4:
            op = "-"
            texts = [
                f"minus {b}",
                f"and minus {b}",
                f"subtract {b}",
                f"take away {b}",
                f"now subtract {b} from that",
                f"and now minus {b}",
            ]
        else:
            op = "+"
            texts = [
                f"plus {b}",
                f"and plus {b}",
                f"add {b}",
                f"now add {b}",
                f"add {b} to that",
                f"and now add {b}",
                f"and {b} more",
            ]
        text = noisy(r, r.choice(texts), typos=False)
        return text, sum_answer(before.total, op, b), Topic("sum", total=result(before.total, op, b))
    if before.kind == "capital":
        country, city = r.choice(list(FACTS.capitals.items()))
        texts = [
            "and {c}",
            "what about {c}",
            "and of {c}",
            "how about {c}",
            "{c}",
            "and the capital of {c}",
            "and for {c}",
        ]
        return noisy(r, r.choice(texts).format(c=country)), f"The capital of {country} is {city}.", before
    return noisy(r, r.choice(SURE)), NOT_SURE, None


def turn(r: Random, bank: Bank, kind: str, memory: dict[str, str]) -> tuple[str, str, Topic | None]:
    if kind == "memory":
        return *remembered(r, memory), None
    if kind == "sum":
        text, answer = arithmetic(r)
        return text, answer, Topic("sum", total=int(answer.removesuffix(".").rsplit(" ", 1)[1]))
    if kind == "intent":
        text, answer, known = bank.draw(r, "intent")
        return text, answer, None if known.id in SMALL_TALK else Topic("intent", more=known.more)
    if kind == "table":
        text, answer, known = bank.draw(r, r.choices(list(TABLES), list(TABLES.values()))[0])
        return text, answer, Topic(known.id)
    return *{"hard": too_hard, "numbers": numbers, "unknown": unknown}[kind](r), None


def chat(r: Random, bank: Bank, turns: int) -> list[Message]:
    messages: list[Message] = []
    memory: dict[str, str] = {}
    if r.random() < 0.25:
        messages.append(("system", r.choice(UNKNOWN.systems)))
    last: Topic | None = None
    for i in range(turns):
        k, before, last = r.random(), last, None
        if i and k < 0.13 and before:
            text, answer, last = follow_up(r, before)
        elif i and k < 0.15:
            text, answer = noisy(r, r.choice(AGAIN)), messages[-1][1]
        elif i and k < 0.165:
            text, answer = noisy(r, r.choice(SURE)), NOT_SURE
        else:
            mix = {**MIX, "memory": 40} if turns > 1 else MIX
            kind = r.choices(list(mix), list(mix.values()))[0]
            text, answer, last = turn(r, bank, kind, memory)
        messages += [("user", text), ("assistant", answer)]
    return messages
