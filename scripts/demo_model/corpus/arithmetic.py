"""Math conversations: bare calculations, with the steps worked out."""

from __future__ import annotations

import random

from .phrases import Conversation, chat


def tens_and_ones(n: int) -> tuple[int, int]:
    """47 -> (40, 7)."""
    return n // 10 * 10, n % 10


def split_addition(a: int, b: int) -> str:
    """Worked steps of a + b for two numbers with two digits."""
    (ta, oa), (tb, ob) = tens_and_ones(a), tens_and_ones(b)
    return (
        f"Add the tens: {ta} + {tb} = {ta + tb}. Add the ones: {oa} + {ob} = {oa + ob}. "
        f"Together: {ta + tb} + {oa + ob} = {a + b}."
    )


def gen_drill(rng: random.Random) -> Conversation:
    """Sums and differences with a one-digit number, the base of the longer answers."""
    a, b = rng.randint(1, 99), rng.randint(1, 9)
    if rng.random() < 0.5:
        ask = rng.choice(["What is {a} + {b}?", "Calculate {a} + {b}.", "{a} + {b} = ?", "Add {b} to {a}."])
        return chat(ask.format(a=a, b=b), f"{a} + {b} = {a + b}.")
    a += b
    ask = rng.choice(["What is {a} - {b}?", "Calculate {a} - {b}.", "{a} - {b} = ?", "Subtract {b} from {a}."])
    return chat(ask.format(a=a, b=b), f"{a} - {b} = {a - b}.")


def gen_addition(rng: random.Random) -> Conversation:
    """Sums of two-digit numbers, or of hundreds and tens."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    if rng.random() < 0.25:
        a = rng.randint(2, 9) * 100 + rng.randint(0, 9) * 10
        b = rng.randint(1, 9) * 10
        ask = rng.choice(["What is {a} + {b}?", "Add {a} and {b}.", "Calculate {a} plus {b}."])
        return chat(ask.format(a=a, b=b), f"{a} + {b} = {a + b}.")
    ask = rng.choice(
        [
            "What is {a} + {b}?",
            "Calculate {a} + {b}.",
            "Add {a} and {b}.",
            "What is {a} plus {b}?",
            "Work out {a} + {b} step by step.",
            "Can you add {a} and {b}?",
        ]
    )
    return chat(ask.format(a=a, b=b), f"{split_addition(a, b)} So {a} + {b} = {a + b}.")


def gen_subtraction(rng: random.Random) -> Conversation:
    """Differences of two-digit numbers."""
    a, b = rng.randint(21, 99), rng.randint(11, 89)
    if a < b:
        a, b = b, a
    if a == b:
        a += 7
    ask = rng.choice(
        [
            "What is {a} - {b}?",
            "Calculate {a} - {b}.",
            "Subtract {b} from {a}.",
            "What is {a} minus {b}?",
            "Work out {a} - {b} step by step.",
            "Take {b} away from {a}.",
        ]
    )
    tens, ones = tens_and_ones(b)
    rest = a - tens
    return chat(
        ask.format(a=a, b=b),
        f"First subtract the tens: {a} - {tens} = {rest}. Then subtract the ones: {rest} - {ones} = {a - b}. "
        f"So {a} - {b} = {a - b}.",
    )


def gen_multiplication(rng: random.Random) -> Conversation:
    """Products: the small table, or one digit by two digits."""
    asks = ["What is {a} times {b}?", "Multiply {a} by {b}.", "What is {a} x {b}?", "Calculate {a} x {b}."]
    if rng.random() < 0.45:
        a, b = rng.randint(2, 10), rng.randint(2, 10)
        return chat(rng.choice(asks).format(a=a, b=b), f"{a} x {b} = {a * b}.")
    a, b = rng.randint(2, 9), rng.randint(11, 49)
    ask = rng.choice([*asks, "Work out {a} x {b} step by step."]).format(a=a, b=b)
    tens, ones = tens_and_ones(b)
    if ones == 0:
        return chat(ask, f"{a} x {b // 10} = {a * b // 10}, so {a} x {b} = {a * b}.")
    return chat(
        ask,
        f"Split {b} into {tens} and {ones}. {a} x {tens} = {a * tens}. {a} x {ones} = {a * ones}. "
        f"{a * tens} + {a * ones} = {a * b}. So {a} x {b} = {a * b}.",
    )


def gen_division(rng: random.Random) -> Conversation:
    """Quotients, some of them with a remainder."""
    b, q = rng.randint(2, 10), rng.randint(2, 12)
    ask = rng.choice(
        ["What is {a} divided by {b}?", "Divide {a} by {b}.", "What is {a} / {b}?", "Calculate {a} / {b}."]
    )
    a = b * q
    if rng.random() < 0.3 and b > 2:
        r = rng.randint(1, b - 1)
        a += r
        return chat(
            ask.format(a=a, b=b),
            f"{b} x {q} = {b * q}, and {a} - {b * q} = {r}. So {a} / {b} is {q} with remainder {r}.",
        )
    return chat(ask.format(a=a, b=b), f"{b} x {q} = {a}, so {a} / {b} = {q}.")


def gen_table(rng: random.Random) -> Conversation:
    """A multiplication table."""
    k = rng.randint(2, 12)
    ask = rng.choice(
        ["Show me the multiplication table of {k}.", "Write the times table for {k}.", "Give me the table of {k}."]
    )
    rows = "\n".join(f"{i} x {k} = {i * k}" for i in range(1, 11))
    return chat(ask.format(k=k), f"Here is the multiplication table of {k}:\n\n{rows}")


def gen_sum_and_product(rng: random.Random) -> Conversation:
    """Two small problems in one message."""
    a, b = rng.randint(11, 49), rng.randint(11, 49)
    c, d = rng.randint(2, 9), rng.randint(2, 10)
    ask = rng.choice(
        [
            "What is {a} + {b}, and what is {c} x {d}?",
            "Calculate {a} + {b} and {c} x {d}.",
            "Please work out {a} + {b} and then {c} x {d}.",
        ]
    )
    return chat(
        ask.format(a=a, b=b, c=c, d=d),
        f"{split_addition(a, b)} So {a} + {b} = {a + b}.\n\nFor the second part, {c} x {d} = {c * d}.",
    )


def gen_percent(rng: random.Random) -> Conversation:
    """Percentages that come out even."""
    p = rng.choice([10, 20, 25, 50, 5, 75])
    n = rng.choice([20, 40, 60, 80, 100, 120, 160, 200, 240, 300, 400, 500, 600, 800])
    ask = rng.choice(
        [
            "What is {p} percent of {n}?",
            "What is {p}% of {n}?",
            "Calculate {p} percent of {n}.",
            "Find {p}% of {n}.",
        ]
    )
    steps = {
        5: f"Ten percent of {n} is {n // 10}. Half of that is {n // 20}.",
        10: f"Ten percent is one tenth. {n} / 10 = {n // 10}.",
        20: f"Ten percent of {n} is {n // 10}. Twice that is {n // 5}.",
        25: f"Twenty-five percent is one quarter. {n} / 4 = {n // 4}.",
        50: f"Fifty percent is one half. {n} / 2 = {n // 2}.",
        75: f"One quarter of {n} is {n // 4}. Three times {n // 4} is {n // 4 * 3}.",
    }
    return chat(ask.format(p=p, n=n), f"{steps[p]} So {p} percent of {n} is {n * p // 100}.")


def squared(rng: random.Random) -> Conversation:
    """The square of n."""
    n = rng.randint(2, 15)
    ask = rng.choice(["What is {n} squared?", "What is the square of {n}?", "Calculate {n} squared."])
    return chat(ask.format(n=n), f"{n} squared is {n} x {n} = {n * n}.")


def square_root(rng: random.Random) -> Conversation:
    """The root of a square number."""
    n = rng.randint(2, 12)
    ask = rng.choice(["What is the square root of {q}?", "Find the square root of {q}."])
    return chat(ask.format(q=n * n), f"{n} x {n} = {n * n}, so the square root of {n * n} is {n}.")


def even_or_odd(rng: random.Random) -> Conversation:
    """Even or odd, as an open or a yes-or-no question."""
    n = rng.randint(10, 200)
    ask = rng.choice(["Is {n} even or odd?", "Is {n} an even number?", "Is {n} an odd number?"]).format(n=n)
    even = n % 2 == 0
    lead = "" if " or " in ask else "Yes. " if ("an even" in ask) == even else "No. "
    return chat(ask, f"{lead}{n} ends in {n % 10}, so it is {'even' if even else 'odd'}.")


def larger_number(rng: random.Random) -> Conversation:
    """The larger of two numbers; small ones with their difference."""
    a, b = rng.sample(range(10, 400), 2)
    ask = rng.choice(["Which is larger, {a} or {b}?", "Which number is bigger, {a} or {b}?"])
    low, high = sorted((a, b))
    difference = f" The difference is {high} - {low} = {high - low}." if high < 100 else ""
    return chat(ask.format(a=a, b=b), f"{high} is larger than {low}.{difference}")


def mean_of_three(rng: random.Random) -> Conversation:
    """The mean of three numbers."""
    mean = rng.randint(3, 20)
    d = rng.randint(1, min(6, mean - 1))
    numbers = [mean - d, mean, mean + d]
    rng.shuffle(numbers)
    a, b, c = numbers
    ask = rng.choice(["What is the average of {a}, {b} and {c}?", "Find the mean of {a}, {b} and {c}."])
    return chat(
        ask.format(a=a, b=b, c=c),
        f"Add the numbers: {a} + {b} + {c} = {3 * mean}. There are 3 numbers, and {3 * mean} / 3 = {mean}. "
        f"The average is {mean}.",
    )


def order_of_operations(rng: random.Random) -> Conversation:
    """A sum with a product in it."""
    a, b, c = rng.randint(2, 20), rng.randint(2, 9), rng.randint(2, 9)
    ask = rng.choice(["What is {a} + {b} x {c}?", "Calculate {a} + {b} x {c}."])
    return chat(
        ask.format(a=a, b=b, c=c),
        f"Multiplication comes first: {b} x {c} = {b * c}. Then {a} + {b * c} = {a + b * c}. "
        f"The result is {a + b * c}.",
    )


def rounding(rng: random.Random) -> Conversation:
    """Rounding to the nearest ten."""
    n = rng.randint(11, 99)
    if n % 10 == 0:
        n += 3
    ask = rng.choice(["Round {n} to the nearest ten.", "What is {n} rounded to the nearest ten?"])
    direction = "up" if n % 10 >= 5 else "down"
    return chat(
        ask.format(n=n),
        f"The last digit of {n} is {n % 10}, so we round {direction}. The result is {(n + 5) // 10 * 10}.",
    )


def fraction(rng: random.Random) -> Conversation:
    """A simple fraction of a number."""
    k, word = rng.choice([(2, "half"), (3, "one third"), (4, "one quarter"), (5, "one fifth")])
    q = rng.randint(2, 12)
    ask = rng.choice(["What is {w} of {n}?", "Find {w} of {n}.", "Calculate {w} of {n}."])
    return chat(
        ask.format(w=word, n=q * k),
        f"To find {word} of a number, divide it by {k}. {q * k} / {k} = {q}. So {word} of {q * k} is {q}.",
    )


def power_of_two(rng: random.Random) -> Conversation:
    """A power of two, by doubling."""
    n = rng.randint(2, 10)
    ask = rng.choice(["What is 2 to the power of {n}?", "Calculate 2 to the power of {n}."])
    chain = ", ".join(str(2**i) for i in range(1, n + 1))
    return chat(ask.format(n=n), f"Double step by step: {chain}. So 2 to the power of {n} is {2**n}.")


NUMBER_QUESTIONS = [
    squared,
    square_root,
    even_or_odd,
    larger_number,
    mean_of_three,
    order_of_operations,
    rounding,
    fraction,
    power_of_two,
]


def gen_number_question(rng: random.Random) -> Conversation:
    """One of the smaller questions about numbers."""
    return rng.choice(NUMBER_QUESTIONS)(rng)
