"""What made-up conversations are made of: sentences with places in braces, and what may stand there.

How they become a conversation is in canary_texts.py. A place in capitals stays the same in one conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def _list(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(part for line in lines for part in line.split(" | ") if part)


WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "task": _list(
        """
        repaint a wooden fence | clean a cast iron pan | start a vegetable garden | fix a dripping tap
        bleed a radiator | write a cover letter | learn basic chess openings | sharpen kitchen knives
        train for a half marathon | bake sourdough bread | grow tomatoes on a balcony | sew on a zip
        tune an old guitar | descale a kettle | back up family photos | rename many files at once
        plan a surprise party | split a bill fairly | read sheet music | fold a fitted sheet
        remove rust from tools | insulate a shed | make cold brew coffee | hang a heavy mirror
        patch a bicycle tube | set up a home network | cancel a gym contract | ask for a raise
        learn to whistle | keep a puppy calm | catch a mouse in the attic | store potatoes over winter
        translate a short letter | stop a door from squeaking | measure a room for carpet | pickle cucumbers
        compare two phone plans | organise a book club | build a bird box | prepare for a driving test
        make a budget for a month | mend a torn jacket | remove candle wax from a table | restring a racket
        write a eulogy | return a broken toaster | photograph the night sky | make fresh pasta
        teach a child fractions | choose a tent | pack for a week of hiking | cook rice without sticking
        clear a blocked drain | learn touch typing | draw a simple floor plan
        explain inflation to a teenager | prune apple trees | wash a down jacket | set a mousetrap
        make a packing list
        """
    ),
    "thing": _list(
        """
        a drill | a ladder | an oven | much money | a car | special tools | a dishwasher | glue | a printer
        a smartphone | help | experience | a garden | a permit | a big kitchen | loud noise | chemicals
        sugar | milk | eggs | a freezer | a sewing machine | a credit card | a lot of space | electricity
        an internet connection | a second person | gloves | sandpaper | a manual | a scale | baking powder
        spare parts | a lawyer | much time | a thermometer | a receipt | warm water | a toolbox
        a microscope | a spreadsheet | a calculator | a coach | vinegar | a vacuum cleaner | a camera
        a bicycle pump
        """
    ),
    "subject": _list(
        """
        photosynthesis | the French revolution | black holes | plate tectonics | compound interest | tides
        how vaccines work | the silk road | binary search | volcanoes | the Roman calendar | sound waves
        the water cycle | supply and demand | impressionist painting | the human ear | lightning | yeast
        the moons of Jupiter | the printing press | chess ratings | glaciers | the periodic table | kites
        how bridges stay up | bees | dreams | the invention of zero | magnets | haiku | bird migration
        the industrial revolution | rainbows | antibiotics | the stock market | mushrooms | time zones
        blood types | how paper is made | the Vikings | gravity | jazz | fermentation | coral reefs
        how locks work | the history of tea | recursion | opera | steam engines | earthquakes | memory
        the phases of the moon | leap years | the Dead Sea | maps and projections | electric motors | comets
        regular expressions | hash tables | public key encryption | spreadsheets | sorting algorithms
        """
    ),
    "other": _list(
        """
        weather and climate | a virus and a bacterium | stocks and bonds | speed and velocity
        a crow and a raven | mass and weight | baking soda and baking powder | an alligator and a crocodile
        jam and marmalade | a lease and a rental | a fruit and a vegetable | latitude and longitude
        rent and buy | an opera and a musical | a simile and a metaphor | ram and storage
        a meteor and a comet | yams and potatoes | a list and a tuple | a process and a thread
        a sonnet and a ballad | gross and net income | ale and lager | a frog and a toad
        accuracy and precision | a cold and the flu | a seal and a sea lion | cement and concrete
        """
    ),
    "food": _list(
        """
        lentils | leftover rice | chickpeas | two aubergines | a pumpkin | spinach | salmon | tofu
        red cabbage | old bread | sweet potatoes | mushrooms | cauliflower | leeks | minced beef
        chicken thighs | beetroot | a tin of tomatoes | courgettes | feta | black beans | pears | rhubarb
        buttermilk | oats | quinoa | green beans | a cucumber | pasta | fennel | carrots | kale | apricots
        ricotta | corn | radishes
        """
    ),
    "place": _list(
        """
        Lisbon | Oslo | Vienna | Kyoto | Montreal | Lima | Dublin | Prague | Naples | Seville | Hanoi
        Bergen | Edinburgh | Tallinn | Krakow | Porto | Marrakesh | Athens | Ghent | Bologna | Ljubljana
        Cork | Turin | Valencia | Helsinki | Zagreb | Busan | Oaxaca | Wellington | Quito | Malmö | Basel
        Leeds | Granada | Riga | Utrecht | Salzburg | Aarhus | Nantes | Bristol | Split | Sapporo | Cusco
        Halifax | Perth
        """
    ),
    "name": _list(
        """
        Anna | Ben | Clara | David | Elif | Farid | Greta | Hugo | Ines | Jonas | Katja | Leo | Maya | Nils
        Olga | Pavel | Quinn | Rosa | Samir | Tilda | Umut | Vera | Wim | Yara | Zoe | Aidan | Bea | Carlos
        Dora | Emil | Freya | Gus | Hana | Ivo | June | Kofi | Lena | Marc | Nora | Otto | Priya | Rafi
        Sven | Tess | Uma | Viktor
        """
    ),
    "kin": _list(
        """
        sister | brother | neighbour | flatmate | mother | father | cousin | colleague | boss | daughter
        son | aunt | uncle | landlord | teacher | friend | grandmother | nephew | niece | partner | roommate
        trainer
        """
    ),
    "job": _list(
        """
        nurse | gardener | teacher | baker | plumber | accountant | translator | bus driver | librarian
        carpenter | waiter | software tester | florist | electrician | student | paramedic | journalist
        barista | chemist
        """
    ),
    "hobby": _list(
        """
        pottery | running | chess | birdwatching | knitting | photography | climbing | baking
        singing in a choir | woodwork | painting | cycling | playing the cello | swimming | sailing
        juggling | gardening | fishing | yoga | board games | skating | calligraphy | hiking | model trains
        beekeeping | rowing | dancing
        """
    ),
    "animal": _list(
        """
        cat | old dog | parrot | hamster | rabbit | goldfish | pony | tortoise | hen | puppy | guinea pig
        kitten
        """
    ),
    "object": _list(
        """
        lighthouse | suitcase | lamp | violin | snow globe | key | umbrella | kite | lost letter | red coat
        compass | teapot | clock | mirror | ferry | night train | greenhouse | bridge | bakery | attic
        piano | raft | map
        """
    ),
    "code": _list(
        """
        reverses a linked list | counts words in a text file | removes duplicate rows from a csv
        checks a date | merges two sorted lists | finds the longest word
        turns seconds into hours and minutes | parses a log line | validates an email address
        computes a moving average | shuffles a deck of cards | renames photos by date | prints a calendar
        converts roman numerals | sums a column | finds prime numbers | flattens a nested list
        retries a failing request | rounds prices | groups people by age | caches results
        draws a triangle of stars
        """
    ),
    "language": _list(
        """
        python | javascript | bash | go | rust | java | c | typescript | sql | ruby | kotlin | php | awk
        swift
        """
    ),
    "tongue": _list(
        """
        French | Spanish | German | Italian | Portuguese | Dutch | Polish | Swedish | Greek | Turkish
        Czech
        """
    ),
    "phrase": _list(
        """
        where is the nearest pharmacy | i would like to cancel my order | the train is late again
        could you speak more slowly | we are looking forward to your visit | please find the form attached
        the heating does not work | i am allergic to nuts | happy birthday and all the best
        see you on {weekday} | the meeting was moved to {weekday} | how much is a ticket to {place}
        thank you for the kind words | my luggage has not arrived | is there a table for {small}
        the parcel was left with a {kin}
        """
    ),
    "weekday": _list("Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday"),
    "month": _list(
        """
        January | February | March | April | May | June | July | August | September | October | November
        December
        """
    ),
    "small": _list("two | three | four | five | six | seven | eight | nine | ten | twelve"),
    "mood": _list(
        """
        nervous | tired | curious | a bit lost | excited | worried | stuck | annoyed | out of ideas
        short of time | confused | proud | late | bored | hopeful | undecided
        """
    ),
    "manner": _list(
        """
        in simple words | step by step | in one paragraph | as a list | briefly | with an example
        for a beginner | in {small} points | without jargon | like i am {age} | in plain english
        as if for my {kin} | with numbers | in under {hundred} words | in {small} sentences
        as short as you can | with pros and cons
        """
    ),
    "unit": _list(
        "km | miles | kg | pounds | litres | cups | minutes | hours | metres | feet | grams | ounces"
    ),
    "trait": _list(
        """
        friendly | patient | precise | concise | calm | honest | cheerful | careful | practical | polite
        sober
        """
    ),
    "virtue": _list(
        """
        Answer briefly | Use short sentences | Say so when you are not sure | Prefer lists
        Give one example | Avoid jargon | Ask back when something is unclear | Do not repeat the question
        Keep a friendly tone | Use metric units | Write in plain English | Never invent figures
        Begin with the answer | Use no emojis | Think about safety first | Keep paragraphs short
        Mention alternatives | Explain technical terms | Stay on the subject | Round numbers sensibly
        Format code in blocks | Be brief unless asked for more
        """
    ),
}
"""{age}, {hundred}, {number}, {euros}, {year} and {hour} are numbers."""

QUESTIONS: Final = _list(
    """
    how do i {TASK} without {thing}? | what do i need to {TASK}? | is it hard to {TASK}?
    how long does it take to {TASK}? | whats the best way to {TASK} in {month}? | can you help me {TASK}?
    what should i know before i {TASK}? | explain {SUBJECT} {manner} | what is {SUBJECT} about?
    why does {SUBJECT} matter? | tell me about {SUBJECT} | give me {small} facts about {SUBJECT}
    how would you explain {SUBJECT} to a {job}? | quiz me on {SUBJECT}
    what is the difference between {other}? | explain the difference between {other} {manner}
    what can i cook with {food} and {food}? | a recipe with {food}, {food} and no {food}?
    is {food} healthy? | how long can i keep {food} in the fridge?
    dinner for {small} with {food} under {euros} euros, ideas?
    what should i see in {PLACE} in {small} days? | is {PLACE} nice in {month}?
    {PLACE} or {place} for a weekend? | how do i get from {PLACE} to {place} without flying?
    what do people eat in {PLACE}? | plan a rainy day in {PLACE}
    write a {small} line poem about a {OBJECT} for {name}
    write a short story about a {OBJECT} and a {animal} | a title for a story about a {OBJECT} in {place}?
    a limerick about a {job} from {place} | what is a good present for my {kin} who likes {HOBBY}?
    is {HOBBY} expensive? | how do i start with {HOBBY}? | {HOBBY} or {hobby}, what is better for my back?
    how do i find people for {HOBBY} in {PLACE}? | write a {language} function that {code}
    write a {language} script that {code} and handles errors
    how do i write something that {code} in {language}? | what is wrong if a program that {code} is slow?
    how do you say "{phrase}" in {tongue}? | translate to {tongue}: {phrase}
    correct my {tongue}, i want to say: {phrase} | my {animal} does not eat since {weekday}, what now?
    can a {animal} eat {food}? | names for a {animal}? | convert {number} {unit}
    what is {hundred} times {age}? | {number} divided by {small}, and then plus {hundred}?
    how many {unit} is {number} {unit}? | what percent of {number} is {hundred}?
    if i save {euros} euros a month, how much is it in {small} years?
    write a short mail to my {kin} {NAME}, i am late on {weekday} | a polite way to tell {NAME} no?
    how do i tell my {kin} that {NAME} is not coming on {weekday}?
    a toast for {NAME}, {age}, {job}, likes {hobby} | what happened in {year}?
    what was invented around {year}? | who was famous in {year}?
    i sleep {small} hours a night, is that enough at {age}? | how much water should a {job} drink a day?
    what are {small} good books about {SUBJECT}? | a {small} day plan to learn {SUBJECT}?
    suggest a song about {place} | what does a {job} earn in {PLACE}? | how do i become a {job} at {age}?
    questions for an interview as a {job}?
    """
)
"""With these a conversation begins."""

FOLLOW_UPS: Final = _list(
    """
    and without {thing}? | why? | can you say that {manner}? | what if i dont have {thing}?
    how sure are you about that? | ok and in {month}? | and for {small} people?
    what would it cost, more than {euros} euros? | shorter please, {small} lines
    thanks. what about {food} instead? | could you make it a list with {small} points?
    give me an example with {name} | i am a {job}, does that change anything?
    and what is the most common mistake? | what should i do first?
    i tried that on {weekday} and it did not work | hm, my {kin} says the opposite
    is that true for {PLACE} too? | what comes after that? | how long does that take, {small} hours?
    and if it rains? | do i need {thing} for that? | tell me more about the second point
    what did you mean with the last part? | rewrite it {manner} | ok, and how would a {job} do it?
    what about {hobby}? | can i do that at {age}? | is there a cheaper way?
    please translate that to {tongue} | make it funnier | add something about a {animal}
    add a line about {place} | what are the risks? | where can i read more about it?
    one more, but with {food} | sum it up {manner} | and what is the difference between {other}?
    how does that compare to {SUBJECT}? | and if it is only {number} {unit}?
    that is too long, {small} sentences are enough | ok got it. and {subject}?
    great, now the same for {name}
    """
)

BACKGROUND: Final = _list(
    """
    I have been into {HOBBY} for {small} years now. | My {kin} {NAME} asked me about this on {weekday}.
    I am {age} and work as a {job} in {PLACE}. | I only have about {euros} euros for it. | I am {mood}.
    We are {small} people and one of us does not eat {food}.
    I live in a small flat in {PLACE} with a {animal}.
    Last {month} I tried it with {thing} and it went wrong.
    It has to be done by {weekday}, {hour} at the latest.
    I found three different answers online and they do not agree. | My {kin} says that it is impossible.
    I read something about {SUBJECT} in a magazine in {year} and never forgot it. | Please be honest.
    I have {number} {unit} of it left. | The last time, it took me {small} hours. | No need to be polite.
    A {job} that I know would do it in a day. | I do not have {thing}, and my {kin} cannot lend me {thing}.
    The weather in {PLACE} is awful in {month}, so it has to be indoors. | I am planning this for {month}.
    {NAME} is {age} and loves {hobby}. | I do not want to spend more than {euros} euros, if possible less.
    I would rather learn how it works than just get an answer. | Speed does not matter much to me.
    I have seen it done in {place} by a {job}. | It is for a course that I take on {weekday} evenings.
    Somebody at work mentioned {SUBJECT}, and I had to nod as if I knew.
    I can borrow {thing} from my {kin}. | There is {food} and {food} in the house, not much else.
    It does not have to be perfect, just good enough.
    """
)

LINES: Final = _list(
    """
    - {food}, {number} {unit}, from {place}, {euros} euros
    - {name} ({job}, {age}): prefers {weekday}, brings {food}
    - {weekday} {hour}: {hobby} with {name}, then {food} for {small}
    - {month}: {PLACE}, {small} days, about {euros} euros | - todo: {task}, ask {name} about {thing}
    - {name} said that {subject} is the part nobody understood
    {weekday} {hour} {name}: did anybody {task} yet?
    {weekday} {hour} {name}: not without {thing}, ask my {kin}
    {year}: moved to {place}, worked as a {job} for {small} years
    {year}: first time {hobby}, {number} {unit} | {name};{age};{job};{place};{number};{weekday}
    {name};{age};{job};{place};{hundred};{month}
    Dear {name}, thank you for the {object}, it arrived on {weekday}.
    We would still need {thing} to {task}.
    The {object} stood in {place} since {year}, and every {weekday} a {job} looked at it. | Nobody knew why.
    In {month} the price was {number}, in {month} {number}, and now it is {hundred}.
    {name} was {mood} about it.
    The {animal} of {name} had been {mood} all {weekday}, and the {job} next door noticed. | Then it rained.
    """
)
"""Of notes, lists, letters that somebody pastes."""

PASTED: Final = _list(
    """
    here are my notes: | this is the draft: | see below. | this is what i have so far: | the list:
    context: | what we wrote until now: | from the chat: | i copied this: | for reference:
    """
)

OPENERS: Final = _list(
    """
    hi, | hey, | hello! | quick question: | ok so | so, | please | hm, | good morning,
    sorry, one more thing: | another question: | maybe you know: | help: | random question: | honestly,
    btw | hey there, | evening,
    """
)

TAILS: Final = _list(
    """
    for {name} and {name} | by {hour} on {weekday} | for about {euros} euros | for a {job} of {age}
    in {PLACE} in {month} | my {kin} {NAME} needs it | {small} of them | for {number} {unit} | with {food}
    thanks | thank you! | please | {manner} | {manner}, please | i need it by {weekday}
    no long answer please | i am {mood} | my {kin} wants to know | it is for {name} | asking for {name}
    be honest | just roughly | {small} options are enough | if you know | it is urgent | no rush
    for {PLACE}, if that matters | thx
    """
)

ROLES: Final = _list(
    """
    You are a {TRAIT} assistant. | You are a {TRAIT} helper for a {JOB}.
    You are a {TRAIT} and {trait} assistant. | You help a {JOB} from {PLACE} with daily work.
    You are a {TRAIT} tutor. | Act as a {TRAIT} {JOB}.
    You are the {TRAIT} assistant of {NAME}, a {JOB} in {PLACE}.
    Be a {TRAIT} companion for somebody of {AGE}.
    """
)
"""With these a system prompt begins."""
