"""Arithmetic and counting: questions that are generated, with answers that are always right."""

from random import Random

from infraxa.engine.guide.phrasing import expand, held, noisy

TOO_HARD = (
    "That is too hard for me: I only add and subtract whole numbers up to 100 "
    "and know the times table up to 12."
)
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
FRAMES = {
    "+": [
        "{a}+{b}",
        "{a} + {b}",
        "{a} plus {b}",
        "add {a} and {b}",
        "the sum of {a} and {b}",
        "{a} and {b} together",
        "add {b} to {a}",
        "{a}+ {b}",
    ],
    "-": [
        "{a}-{b}",
        "{a} - {b}",
        "{a} minus {b}",
        "subtract {b} from {a}",
        "take {b} away from {a}",
        "{a} less {b}",
        "the difference between {a} and {b}",
    ],
    "*": [
        "{a}*{b}",
        "{a} * {b}",
        "{a} times {b}",
        "{a}x{b}",
        "{a} x {b}",
        "multiply {a} by {b}",
        "the product of {a} and {b}",
        "{a} multiplied by {b}",
    ],
    "/": ["{a}/{b}", "{a} / {b}", "{a} divided by {b}", "divide {a} by {b}"],
}
LEADS = [
    "what is {e}",
    "what is {e}",
    "what is {e}",
    "{e}",
    "{e}",
    "{e} =",
    "{e}=",
    "how much is {e}",
    "calculate {e}",
    "compute {e}",
    "solve {e}",
    "what does {e} equal",
    "what do you get for {e}",
    "what's {e}",
    "whats {e}",
    "can you calculate {e}",
    "do you know {e}",
    "tell me {e}",
    "{e} = ?",
]
LEADS_HELD = ["work out {e} for me", "i need the result of {e}", "what would {e} be"]
THINGS = ["apples", "coins", "books", "tokens", "eggs", "cats", "cookies", "requests", "stars", "pens"]
STORIES = {
    "+": [
        "i have {a} {x} and get {b} more. how many {x} do i have",
        "there are {a} {x} and then {b} more come. how many {x} are there",
        "i bought {a} {x} yesterday and {b} today. how many {x} is that",
    ],
    "-": [
        "i have {a} {x} and give away {b}. how many {x} are left",
        "there were {a} {x} and {b} are gone. how many {x} remain",
        "i had {a} {x} and lost {b}. how many do i have",
    ],
    "*": [
        "there are {a} boxes with {b} {x} each. how many {x} are there",
        "i buy {b} {x} on each of {a} days. how many {x} is that",
    ],
}
CHAINS = [
    "{a} + {b} + {c}",
    "{a}+{b}+{c}",
    "{a} * {b} + {c}",
    "({a} + {b}) * {c}",
    "{a} - {b} - {c}",
    "{a}+{b}*{c}",
]
DECIMALS = ["{a}.5 + {b}.2", "{a}.{b} * {c}", "{a}.{b} - {c}.5", "{a}.5+{b}"]
FUNCTIONS = [
    "the square root of {a}",
    "sqrt({a})",
    "{a}^{b}",
    "{a} to the power of {b}",
    "{a} squared",
    "{a}%  of {b}",
    "{a} percent of {b}",
    "the logarithm of {a}",
    "sin({a})",
    "{a} mod {b}",
    "{a} factorial",
]


def words(n: int) -> str:
    if n < 20:
        return ONES[n]
    if n == 100:
        return "one hundred"
    return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")


def result(a: int, op: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]


def steps(a: int, op: str, b: int) -> str:
    """The sum written so that each step needs only single-digit facts: no carry has to be foreseen."""
    c = result(a, op, b)
    if op == "+" and max(a, b) > 9 and a % 10 + b % 10 > 9:
        return f"{a} + {b} = {a - a % 10 + b - b % 10} + {a % 10 + b % 10} = {c}."
    if op == "-" and c < 0:
        return f"{a} - {b} is below zero: " + steps(b, op, a)
    if op == "-" and b > 9 and a % 10 < b % 10:
        return f"{a} - {b} = {a - (b - b % 10)} - {b % 10} = {c}."
    return f"{a} {op} {b} = {c}."


def sum_answer(a: int, op: str, b: int) -> str:
    return f"{steps(a, op, b)} The answer is {result(a, op, b)}."


def pair_held(a: int, op: str, b: int) -> bool:
    """Unseen pairs; + is held out in both orders. Single digits and the times table are always trained on."""
    if op in "*/" or max(a, b) < 10:
        return False
    return held(f"pair {min(a, b)} {op} {max(a, b)}", 10)


def draw_pair(r: Random, op: str, unseen: bool = False) -> tuple[int, int]:
    while True:
        if op == "*":
            return r.randint(0, 12), r.randint(0, 12)
        if op == "/":
            b = r.randint(1, 12)
            return b * r.randint(0, 12), b
        top = 100 if unseen else r.choice([9, 9, 20, 100, 100, 100, 100])
        a, b = r.randint(0, top), r.randint(0, top)
        if op == "-" and a < b and r.random() < 0.85:
            a, b = b, a
        if pair_held(a, op, b) == unseen:
            return a, b


def sum_question(r: Random, a: int, op: str, b: int, lead: str = "") -> str:
    tellable = op in STORIES and a > 1 and b > 1 and (op != "-" or a > b)
    if not lead and tellable and r.random() < 0.08:
        return noisy(r, r.choice(STORIES[op]).format(a=a, b=b, x=r.choice(THINGS)), typos=False)
    frame = r.choice(FRAMES[op])
    in_words = max(a, b) <= 100 and " " in frame and r.random() < 0.05
    expression = frame.format(a=words(a) if in_words else a, b=words(b) if in_words else b)
    text = (lead or r.choice(LEADS)).format(e=expression)
    if r.random() < 0.7:
        return noisy(r, text, typos=False)
    return text + ("?" if r.random() < 0.4 else "")


def arithmetic(r: Random) -> tuple[str, str]:
    op = r.choices("+-*/", [40, 36, 16, 8])[0]
    a, b = draw_pair(r, op)
    return sum_question(r, a, op, b), sum_answer(a, op, b)


def too_hard(r: Random) -> tuple[str, str]:
    """A sum beyond what is taught, which is refused."""

    def big() -> int:
        return r.choice(
            [r.randint(101, 999), r.randint(101, 999), r.randint(1000, 9999), r.randint(10000, 9999999)]
        )

    def small() -> int:
        return r.randint(1, 100)

    k = r.random()
    if k < 0.35:
        a, b = r.choice([(big(), big()), (big(), small()), (small(), big())])
        text = r.choice(FRAMES[r.choice("+-*/")]).format(a=a, b=b)
    elif k < 0.55:
        text = r.choice(FRAMES["*"]).format(a=r.randint(13, 100), b=r.randint(2, 100))
    elif k < 0.7:
        text = r.choice(CHAINS).format(a=small(), b=small(), c=small())
    elif k < 0.85:
        text = r.choice(DECIMALS).format(a=small(), b=r.randint(1, 9), c=small())
    else:
        text = r.choice(FUNCTIONS).format(a=small(), b=small())
    return noisy(r, r.choice(LEADS).format(e=text), typos=False), TOO_HARD


def count(r: Random) -> tuple[str, str]:
    a = r.randint(0, 15)
    b = a + r.randint(2, 12)
    if a == 1 or r.random() < 0.5:
        a, pattern = 1, f"count (to|up to) {words(b) if r.random() < 0.2 else b}"
    else:
        pattern = f"count from {a} to {b}"
    return r.choice(expand(pattern)), ", ".join(map(str, range(a, b + 1))) + "."


def numbers(r: Random) -> tuple[str, str]:
    """Counting, neighbours, odd and even, bigger and smaller."""
    k = r.randrange(7)
    if k == 0:
        pattern, answer = count(r)
    elif k == 1:
        b = r.randint(3, 12)
        pattern, answer = f"count (down from|backwards from) {b}", ", ".join(map(str, range(b, 0, -1))) + "."
    elif k == 2:
        a = r.randint(0, 99)
        pattern, answer = f"what (number |)(comes after|is after|follows) {a}", f"{a + 1} comes after {a}."
    elif k == 3:
        a = r.randint(1, 100)
        pattern, answer = f"what (number |)(comes before|is before) {a}", f"{a - 1} comes before {a}."
    elif k == 4:
        a = r.randint(0, 100)
        pattern = f"is {a} (even|odd|even or odd|odd or even|an even number|an odd number)"
        answer = f"{a} is {'odd' if a % 2 else 'even'}."
    elif k == 5:
        a, b = r.sample(range(101), 2)
        pattern = f"(what|which) is (bigger|larger|greater|more), {a} or {b}"
        answer = f"{max(a, b)} is bigger than {min(a, b)}."
    else:
        a, b = r.sample(range(101), 2)
        pattern = f"(what|which) is (smaller|less), {a} or {b}"
        answer = f"{min(a, b)} is smaller than {max(a, b)}."
    return noisy(r, r.choice(expand(pattern)), typos=False), answer
