"""Math conversations: word problems, units, sequences, equations and geometry."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .arithmetic import split_addition, tens_and_ones
from .phrases import NAMES, Conversation, chat, join_words, pronoun

# fmt: off
THINGS = ["apples", "books", "pens", "coins", "cards", "stamps", "marbles", "cookies", "eggs", "flowers", "oranges",
          "stickers"]
UNITS = [("kilometers", "meters", 1000), ("meters", "centimeters", 100), ("kilograms", "grams", 1000),
         ("liters", "milliliters", 1000), ("hours", "minutes", 60), ("minutes", "seconds", 60),
         ("days", "hours", 24), ("weeks", "days", 7), ("years", "months", 12), ("feet", "inches", 12),
         ("centimeters", "millimeters", 10), ("dollars", "cents", 100), ("dozens", "units", 12), ("yards", "feet", 3)]
# fmt: on


def add_steps(a: int, b: int) -> str:
    """The sum in words: tens and ones apart when both numbers have two digits and none is round."""
    if min(a, b) < 10 or max(a, b) > 99 or a % 10 == 0 or b % 10 == 0:
        return f"{a} + {b} = {a + b}."
    return split_addition(a, b)


def subtract_steps(a: int, b: int) -> str:
    """The difference in words: tens and ones apart when b has two digits and is not round."""
    if b < 10 or b % 10 == 0 or a > 99:
        return f"{a} - {b} = {a - b}."
    tens, ones = tens_and_ones(b)
    return f"Subtract the tens: {a} - {tens} = {a - tens}. Subtract the ones: {a - tens} - {ones} = {a - b}."


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who and what a word problem is about."""

    name: str
    other: str
    things: str

    @property
    def she(self) -> str:
        """The pronoun of `name`."""
        return pronoun(self.name)


def getting(rng: random.Random, cast: Cast) -> Conversation:
    """Somebody gets more of something."""
    n, m, t = cast.name, cast.other, cast.things
    a, b = rng.randint(5, 40), rng.randint(3, 30)
    ask = rng.choice(
        [
            f"{n} has {a} {t} and buys {b} more. How many {t} does {cast.she} have now?",
            f"{n} has {a} {t}. {m} gives {n} {b} more. How many {t} does {n} have now?",
        ]
    )
    return chat(ask, f"{n} starts with {a} {t} and gets {b} more. {add_steps(a, b)} {n} now has {a + b} {t}.")


def giving(rng: random.Random, cast: Cast) -> Conversation:
    """Somebody gives something away or loses it."""
    n, t = cast.name, cast.things
    a, b = rng.randint(15, 50), rng.randint(3, 14)
    ask, verb = rng.choice(
        [
            (f"{n} has {a} {t} and gives {b} to {cast.other}. How many {t} are left?", "gives away"),
            (f"{n} had {a} {t} and lost {b} of them. How many {t} are left?", "loses"),
        ]
    )
    return chat(ask, f"{n} starts with {a} {t} and {verb} {b}. {subtract_steps(a, b)} {a - b} {t} are left.")


def price(rng: random.Random, cast: Cast) -> Conversation:
    """Several things at one price each."""
    t = cast.things
    k, p = rng.randint(2, 9), rng.randint(2, 12)
    one = t[:-1]
    ask = rng.choice(
        [
            f"One {one} costs {p} dollars. How much do {k} {t} cost?",
            f"{cast.name} buys {k} {t} for {p} dollars each. How much does {cast.she} pay?",
        ]
    )
    return chat(
        ask,
        f"Each {one} costs {p} dollars, and there are {k} of them. {k} x {p} = {k * p}. The total is {k * p} dollars.",
    )


def sharing(rng: random.Random, cast: Cast) -> Conversation:
    """Things shared equally among friends or boxes."""
    t = cast.things
    k, q = rng.randint(2, 9), rng.randint(2, 10)
    ask, who, each = rng.choice(
        [
            (
                f"{cast.name} shares {k * q} {t} equally among {k} friends. How many {t} does each friend get?",
                "friends",
                "Each friend gets",
            ),
            (
                f"{k * q} {t} are packed into {k} equal boxes. How many {t} are in each box?",
                "boxes",
                "Each box holds",
            ),
        ]
    )
    return chat(ask, f"Divide the {t} by the number of {who}: {k * q} / {k} = {q}. {each} {q} {t}.")


def driving(rng: random.Random, cast: Cast) -> Conversation:
    """Distance from speed and time."""
    v, h = rng.choice([20, 30, 40, 50, 60, 70, 80, 90]), rng.randint(2, 6)
    what = rng.choice(["A car", "A train", "A bus", "A truck"])
    return chat(
        f"{what} drives at {v} kilometers per hour for {h} hours. How far does it go?",
        f"Distance is speed times time. {v} x {h} = {v * h}. It goes {v * h} kilometers.",
    )


def change(rng: random.Random, cast: Cast) -> Conversation:
    """Change from a bill."""
    n = cast.name
    p = rng.randint(3, 18)
    bill = rng.choice([20, 50])
    return chat(
        f"{n} pays for a lunch of {p} dollars with a {bill} dollar bill. How much change does {cast.she} get?",
        f"The change is {bill} - {p}. {subtract_steps(bill, p)} {n} gets {bill - p} dollars back.",
    )


def ages(rng: random.Random, cast: Cast) -> Conversation:
    """One person is some years older than another."""
    n, m = cast.name, cast.other
    a, d = rng.randint(6, 40), rng.randint(2, 12)
    return chat(
        f"{n} is {a} years old. {m} is {d} years older. How old is {m}?",
        f"{m} is {d} years older than {n}. {add_steps(a, d)} {m} is {a + d} years old.",
    )


STORIES = [getting, giving, price, sharing, driving, change, ages]


def gen_story(rng: random.Random) -> Conversation:
    """A word problem."""
    name, other = rng.sample(NAMES, 2)
    cast = Cast(name=name, other=other, things=rng.choice(THINGS))
    return rng.choice(STORIES)(rng, cast)


def gen_units(rng: random.Random) -> Conversation:
    """Conversions between two units, in both directions."""
    big, small, k = rng.choice(UNITS)
    n = rng.randint(2, 12)
    one = f"One {'foot' if big == 'feet' else big[:-1]} is {k} {small}."
    if rng.random() < 0.65:
        ask = rng.choice(
            [
                "How many {s} are in {n} {b}?",
                "Convert {n} {b} to {s}.",
                "What is {n} {b} in {s}?",
                "Change {n} {b} into {s}.",
            ]
        )
        return chat(ask.format(n=n, b=big, s=small), f"{one} {n} x {k} = {n * k}. So {n} {big} are {n * k} {small}.")
    ask = rng.choice(["How many {b} are {n} {s}?", "Convert {n} {s} to {b}.", "What is {n} {s} in {b}?"])
    return chat(ask.format(n=n * k, b=big, s=small), f"{one} {n * k} / {k} = {n}. So {n * k} {small} are {n} {big}.")


ASK_NEXT = [
    "What comes next: {t}?",
    "What is the next number in the sequence {t}?",
    "Continue the sequence {t}.",
]


def arithmetic_sequence(rng: random.Random, *, may_fall: bool) -> Conversation:
    """A sequence with a constant difference; falling ones stay below 100."""
    first, d = rng.randint(1, 30), rng.randint(2, 10)
    terms = [first + i * d for i in range(4)]
    if may_fall and first + 4 * d < 100:
        terms = [first + i * d for i in range(5, 1, -1)]
        d = -d
    ask = rng.choice(ASK_NEXT).format(t=", ".join(map(str, terms)))
    word = f"grows by {d}" if d > 0 else f"falls by {-d}"
    sign = f"+ {d}" if d > 0 else f"- {-d}"
    last = terms[-1]
    return chat(ask, f"The sequence {word} each time. {last} {sign} = {last + d}. The next number is {last + d}.")


def growing_sequence(rng: random.Random) -> Conversation:
    """A sequence with a constant difference that grows."""
    return arithmetic_sequence(rng, may_fall=False)


def any_sequence(rng: random.Random) -> Conversation:
    """A sequence with a constant difference that falls if it stays small."""
    return arithmetic_sequence(rng, may_fall=True)


def geometric_sequence(rng: random.Random) -> Conversation:
    """A sequence with a constant factor of two or three."""
    first = rng.randint(1, 9)
    k = rng.choice([2, 2, 3]) if first < 5 else 2
    terms = [first * k**i for i in range(5)]
    ask = rng.choice(ASK_NEXT).format(t=", ".join(map(str, terms[:4])))
    return chat(
        ask,
        f"Each number is {k} times the one before. {terms[3]} x {k} = {terms[4]}. The next number is {terms[4]}.",
    )


def multiples(rng: random.Random) -> Conversation:
    """The first multiples of a number."""
    n, k = rng.randint(3, 7), rng.randint(2, 12)
    ask = rng.choice(["List the first {n} multiples of {k}.", "What are the first {n} multiples of {k}?"])
    listed = join_words(str(k * i) for i in range(1, n + 1))
    return chat(ask.format(n=n, k=k), f"The first {n} multiples of {k} are {listed}.")


SEQUENCES = [growing_sequence, any_sequence, geometric_sequence, multiples]


def gen_sequence(rng: random.Random) -> Conversation:
    """A sequence to continue or to list."""
    return rng.choice(SEQUENCES)(rng)


def gen_equation(rng: random.Random) -> Conversation:
    """A linear equation with a small whole solution."""
    x = rng.randint(2, 12)
    kind = rng.choice(["sum", "product", "both"])
    v = rng.choice("xxny")
    if kind == "sum":
        b = rng.randint(2, 20)
        equation, steps = f"{v} + {b} = {x + b}", f"Subtract {b} from both sides: {v} = {x + b} - {b}."
    elif kind == "product":
        a = rng.randint(2, 9)
        equation, steps = f"{a}{v} = {a * x}", f"Divide both sides by {a}: {v} = {a * x} / {a}."
    else:
        a, b = rng.randint(2, 9), rng.randint(1, 15)
        equation = f"{a}{v} + {b} = {a * x + b}"
        steps = f"Subtract {b} from both sides: {a}{v} = {a * x}. Divide both sides by {a}: {v} = {a * x} / {a}."
    ask = rng.choice(
        ["Solve {e}.", "Solve the equation {e}.", "Solve {e} for {v}.", "What is {v} if {e}?", "Find {v}: {e}"]
    )
    return chat(ask.format(e=equation, v=v), f"{steps} So {v} = {x}.")


def rectangle_area(w: int, h: int) -> tuple[list[str], str]:
    """Ways to ask for the area of a rectangle, and the answer."""
    asks = [
        f"What is the area of a rectangle with sides {w} and {h}?",
        f"Find the area of a rectangle that is {w} wide and {h} high.",
    ]
    return asks, f"The area of a rectangle is width times height. {w} x {h} = {w * h}. The area is {w * h}."


def rectangle_perimeter(w: int, h: int) -> tuple[list[str], str]:
    """Ways to ask for the perimeter of a rectangle, and the answer."""
    asks = [
        f"What is the perimeter of a rectangle with sides {w} and {h}?",
        f"Find the perimeter of a rectangle that is {w} wide and {h} high.",
    ]
    steps = f"{w} + {h} = {w + h}, and 2 x {w + h} = {2 * (w + h)}."
    return asks, f"The perimeter is twice the sum of the sides. {steps} The perimeter is {2 * (w + h)}."


def square_area(w: int, _: int) -> tuple[list[str], str]:
    """Ways to ask for the area of a square, and the answer."""
    asks = [f"What is the area of a square with side {w}?", f"Find the area of a square whose side is {w}."]
    return asks, f"The area of a square is side times side. {w} x {w} = {w * w}. The area is {w * w}."


def square_perimeter(w: int, _: int) -> tuple[list[str], str]:
    """Ways to ask for the perimeter of a square, and the answer."""
    asks = [f"What is the perimeter of a square with side {w}?", f"Find the perimeter of a square whose side is {w}."]
    return asks, f"A square has four equal sides. 4 x {w} = {4 * w}. The perimeter is {4 * w}."


def triangle_area(w: int, h: int) -> tuple[list[str], str]:
    """Ways to ask for the area of a triangle with an even height, and the answer."""
    h -= h % 2
    asks = [
        f"What is the area of a triangle with base {w} and height {h}?",
        f"Find the area of a triangle with base {w} and height {h}.",
    ]
    steps = f"{w} x {h} = {w * h}, and {w * h} / 2 = {w * h // 2}."
    return asks, f"The area of a triangle is half of base times height. {steps} The area is {w * h // 2}."


SHAPES = [rectangle_area, rectangle_perimeter, square_area, square_perimeter, triangle_area]


def gen_geometry(rng: random.Random) -> Conversation:
    """Area or perimeter of a rectangle, a square or a triangle."""
    shape = rng.choice(SHAPES)
    asks, answer = shape(rng.randint(2, 12), rng.randint(2, 12))
    return chat(rng.choice(asks), answer)
