"""The tables of facts.toml, the calendar and the price formula, turned into questions and answers."""

import calendar
import re
from collections.abc import Iterator
from typing import NamedTuple

from infraxa.engine.guide.facts import FACTS

ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
DAYS = list(calendar.day_name)
MONTHS = list(calendar.month_name)[1:]
MONTH_LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
LOADS = [0, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100, 200, 300, 900]
CHARGES = [10, 20, 40, 50, 60, 80, 100, 200, 500, 1000]


class Entry(NamedTuple):
    kind: str
    patterns: list[str]
    """A pattern with "!" is a phrasing that is never trained on."""
    answer: str
    key: str
    """What a right answer contains."""


def bare(name: str) -> str:
    return re.sub(r"^(the|a|an) ", "", name)


def entries() -> Iterator[Entry]:
    yield from world()
    yield from animals()
    yield from units()
    yield from days()
    yield from months()
    yield from lists()
    yield from market()
    yield from poems()


def world() -> Iterator[Entry]:
    for country, city in FACTS.capitals.items():
        patterns = [
            f"what is the capital of {country}",
            f"what is the capital of {country}",
            f"capital of {country}",
            f"what is {country}'s capital",
            f"which city is the capital of {country}",
            f"name the capital of {country}",
            f"{bare(country)} capital",
            f"do you know the capital of {country}",
            f"!which town is the capital city of {country}",
        ]
        yield Entry("capital", patterns, f"The capital of {country} is {city}.", city)
    for thing, colour in FACTS.colours.items():
        verb = "are" if thing.endswith("s") and thing != "grass" else "is"
        patterns = [
            f"what (colour|color) {verb} {thing}",
            f"which (colour|color) does {thing} have",
            f"what is the (colour|color) of {thing}",
            f"!tell me what color {thing} has",
        ]
        yield Entry("colour", patterns, f"{thing[0].upper()}{thing[1:]} is {colour}.", colour)
    for pair, colour in FACTS.mixes.items():
        a, b = pair.split(" and ")
        patterns = [
            f"what (colour|color) do {a} and {b} make",
            f"what do you get when you mix {a} and {b}",
            f"mix {b} and {a}",
            f"{a} plus {b} makes what (colour|color)",
            f"!which color comes out of {a} mixed with {b}",
        ]
        yield Entry("mix", patterns, f"{a.capitalize()} and {b} make {colour}.", colour)


def animals() -> Iterator[Entry]:
    for animal, sound in FACTS.sounds.items():
        patterns = [
            f"what (sound|noise) does a {animal} make",
            f"what does a {animal} say",
            f"how does a {animal} sound",
            f"!which noise do you hear from a {animal}",
        ]
        yield Entry("sound", patterns, f"A {animal} {sound}.", sound)
    for animal, young in FACTS.young.items():
        patterns = [
            f"what is a (baby|young) {animal} called",
            f"what is the name of a (baby|young) {animal}",
            f"what do you call a (baby|young) {animal}",
            f"!which word means a baby {animal}",
        ]
        yield Entry("young", patterns, f"A young {animal} is called {young}.", young)
    for animal, legs in FACTS.legs.items():
        article = "an" if animal[0] in "aei" else "a"
        plural = "fish" if animal == "fish" else animal + "s"
        patterns = [
            f"how many legs does {article} {animal} have",
            f"how many legs do {plural} have",
            f"number of legs of {article} {animal}",
            f"!on how many legs does {article} {animal} stand",
        ]
        answer = f"{article.capitalize()} {animal} has {legs} legs."
        yield Entry("legs", patterns, answer, f"has {legs} legs")


def units() -> Iterator[Entry]:
    for phrase, n in FACTS.units.items():
        part, preposition, whole = re.split(r" (in|on) ", phrase, maxsplit=1)
        patterns = [
            f"how many {phrase}",
            f"how many {part} (are|are there) {preposition} {whole}",
            f"how many {part} does {whole} have",
            f"number of {phrase}",
            f"!can you say how many {part} there are {preposition} {whole}",
        ]
        yield Entry("unit", patterns, f"There are {n} {phrase}.", f"are {n} ")


def days() -> Iterator[Entry]:
    for i, day in enumerate(DAYS):
        before, after = DAYS[i - 1], DAYS[(i + 1) % 7]
        patterns = [
            f"what day (comes|is) after {day}",
            f"which day (comes after|follows) {day}",
            f"the day after {day}",
            f"!if today is {day}, what is tomorrow",
        ]
        yield Entry("day", patterns, f"{after} comes after {day}.", after)
        patterns = [
            f"what day (comes|is) before {day}",
            f"which day comes before {day}",
            f"the day before {day}",
            f"!if today is {day}, what was yesterday",
        ]
        yield Entry("day", patterns, f"{before} comes before {day}.", before)
        patterns = [
            f"what is the {ORDINALS[i]} day of the week",
            f"which day is the {ORDINALS[i]} of the week",
            f"!name day number {ORDINALS[i]} of the week",
        ]
        yield Entry("day", patterns, f"{day} is the {ORDINALS[i]} day of the week.", day)


def months() -> Iterator[Entry]:
    for i, month in enumerate(MONTHS):
        before, after = MONTHS[i - 1], MONTHS[(i + 1) % 12]
        patterns = [
            f"what month (comes|is) after {month}",
            f"which month (comes after|follows) {month}",
            f"the month after {month}",
            f"!which is the next month once {month} is over",
        ]
        yield Entry("month", patterns, f"{after} comes after {month}.", after)
        patterns = [
            f"what month (comes|is) before {month}",
            f"which month comes before {month}",
            f"the month before {month}",
            f"!which month just ended when {month} starts",
        ]
        yield Entry("month", patterns, f"{before} comes before {month}.", before)
        patterns = [
            f"what is the {ORDINALS[i]} month( of the year|)",
            f"which month is the {ORDINALS[i]}",
            f"which month is number {i + 1}",
            f"!name the {ORDINALS[i]} month",
        ]
        yield Entry("month", patterns, f"{month} is month {i + 1} of the year.", month)
        length = "28 days, or 29 in a leap year" if i == 1 else f"{MONTH_LENGTHS[i]} days"
        patterns = [
            f"how many days (has|are in|are there in|does) {month}( have|)",
            f"how long is {month}",
            f"!what is the number of days in {month}",
        ]
        yield Entry("month", patterns, f"{month} has {length}.", length)


def lists() -> Iterator[Entry]:
    yield Entry(
        "list",
        [
            "(list|name|what are|tell me|say) the days of the week",
            "days of the week",
            "which days are there",
            "!give me every day of the week",
        ],
        "The days are " + ", ".join(DAYS[:-1]) + " and Sunday.",
        "Monday, Tuesday, Wednesday",
    )
    yield Entry(
        "list",
        [
            "(list|name|what are|tell me|say) the months( of the year|)",
            "months of the year",
            "which months are there",
            "!give me every month of the year",
        ],
        "The months are " + ", ".join(MONTHS[:-1]) + " and December.",
        "January, February, March",
    )
    yield Entry(
        "list",
        [
            "(what|which) days are (on |)the weekend",
            "when is the weekend",
            "!which days of the week are free of work",
        ],
        "The weekend is Saturday and Sunday.",
        "Saturday and Sunday",
    )
    yield Entry(
        "list",
        ["(list|say|recite|what is) the alphabet", "the abc", "!all letters in order"],
        "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "a b c d e f g",
    )
    yield Entry(
        "list",
        [
            "(list|name|tell me|give me) (some |)(colours|colors)",
            "what (colours|colors) are there",
            "!do you know any colors",
        ],
        "Some colours are red, orange, yellow, green, blue, purple, pink, brown, black and white.",
        "red",
    )
    yield Entry(
        "list",
        [
            "(list|name|tell me|give me) (some |)animals",
            "what animals do you know",
            "!do you know any animals",
        ],
        "Some animals are dogs, cats, cows, horses, sheep, lions, elephants and whales.",
        "dogs",
    )


def market() -> Iterator[Entry]:
    """The price formula and the split of a pipeline's charge, worked out for a few values."""
    for load in LOADS:
        factor = f"{(100 + load) ** 2 / 10000:g}"
        u = f"{load / 100:g}"
        patterns = [
            f"what (is the price|does it cost|will i pay) at {load}% (utilization|utilisation|load)",
            f"how much (is it|do i pay) (at|with|if the provider is at) {load}% (utilization|load)",
            f"price at {load} percent (utilization|load)",
            f"what if utilization is {u}",
            f"!a provider is busy to {load}%, what is the price",
        ]
        answer = f"(1 + {u})^2 = {factor}, so the price is {factor} times the base price."
        yield Entry("factor", patterns, answer, f"{factor} times")
    for charge in CHARGES:
        end, middle = f"{charge * 15 / 100:g}", f"{charge * 70 / 100:g}"
        patterns = [
            f"how is (a price|a fee|a job|an amount) of {charge} (split|shared|divided)",
            f"who gets what of {charge}",
            f"split {charge}( between driver, workers and validator|)",
            f"(if|when) a job costs {charge}, (who gets what|how is it split)",
            f"!divide earnings of {charge} among driver, workers and validator",
        ]
        answer = (
            f"In a pipeline, of {charge} the driver gets {end}, the workers {middle} and the validator {end}."
        )
        yield Entry("shares", patterns, answer, f"workers {middle} and")


def poems() -> Iterator[Entry]:
    for topic, haiku in FACTS.haiku.items():
        patterns = [
            "(write|give me|make|tell me|can you write) a (haiku|short poem|poem|tiny poem) (about|on) "
            f"(the |a |){topic}",
            f"haiku about {topic}",
            f"poem about (the |){topic}",
            f"{topic} haiku",
            f"!i would love a little haiku on {topic}",
        ]
        yield Entry("haiku", patterns, haiku, haiku.split("\n")[0])
