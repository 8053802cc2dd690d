"""General conversations about facts: countries, elements, planets, animals, concepts, devices, words, the calendar."""

from __future__ import annotations

import random

from .phrases import DAYS, Conversation, capitalized, chat, join_words, load_table, with_article

FACTS = load_table("facts.json")
COUNTRIES = FACTS["countries"]
ELEMENTS = FACTS["elements"]
PLANETS = FACTS["planets"]
ANIMALS = FACTS["animals"]
CONCEPTS = FACTS["concepts"]
DEVICES = FACTS["devices"]

ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
# fmt: off
MONTHS = [("January", 31), ("February", 28), ("March", 31), ("April", 30), ("May", 31), ("June", 30), ("July", 31),
          ("August", 31), ("September", 30), ("October", 31), ("November", 30), ("December", 31)]
# fmt: on


def describe_capital(country: str, capital: str, continent: str, language: str) -> str:
    """What the model says about a country when asked for its capital."""
    return (
        f"The capital of {country} is {capital}. "
        f"{capitalized(country)} is in {continent}, and its main language is {language}."
    )


def describe_continent(country: str, capital: str, continent: str, language: str) -> str:
    """What the model says about a country when asked where it is."""
    return f"{capitalized(country)} is in {continent}. Its capital is {capital}."


def describe_language(country: str, capital: str, continent: str, language: str) -> str:
    """What the model says about a country when asked for its language."""
    return f"The main language in {country} is {language}."


def gen_country(rng: random.Random) -> Conversation:
    """A question about a country, sometimes followed by the same question about another one."""
    row = rng.choice(COUNTRIES)
    country, capital, continent, _ = row
    r = rng.random()
    describe = describe_capital if r < 0.75 else describe_continent if r < 0.9 else describe_language
    answer = describe(*row)
    if r < 0.55:
        asks = [
            "What is the capital of {c}?",
            "Which city is the capital of {c}?",
            "Name the capital of {c}.",
            "Tell me the capital of {c}.",
            "Do you know the capital of {c}?",
            "capital of {c}",
            "What city is the capital of {c}?",
        ]
    elif r < 0.75:
        asks = [
            "Which country has the capital {k}?",
            "{k} is the capital of which country?",
            "In which country is {k}?",
        ]
        answer = f"{capital} is the capital of {country}, a country in {continent}."
    elif r < 0.9:
        asks = ["On which continent is {c}?", "Where is {c}?", "Which continent is {c} in?"]
    else:
        asks = ["What language do people speak in {c}?", "Which language is spoken in {c}?"]
    turns = [rng.choice(asks).format(c=country, k=capital), answer]
    if rng.random() < 0.25:
        other = rng.choice(COUNTRIES)
        turns += [rng.choice([f"And {other[0]}?", f"And what about {other[0]}?"]), describe(*other)]
    return chat(*turns)


def gen_element(rng: random.Random) -> Conversation:
    """A question about a chemical element."""
    name, symbol, number, kind = rng.choice(ELEMENTS)
    about = f"{name.capitalize()} is {kind} with the atomic number {number}."
    r = rng.random()
    if r < 0.5:
        ask = rng.choice(
            [
                "What is the chemical symbol for {n}?",
                "What is the symbol of {n}?",
                "Tell me the chemical symbol of {n}.",
                "Which symbol stands for {n}?",
                "How is {n} written in chemistry?",
            ]
        )
        return chat(ask.format(n=name), f"The chemical symbol for {name} is {symbol}. {about}")
    if r < 0.75:
        ask = rng.choice(
            [
                "Which element has the symbol {s}?",
                "What does the chemical symbol {s} stand for?",
                "What is {s} in chemistry?",
            ]
        )
        return chat(ask.format(s=symbol), f"The symbol {symbol} stands for {name}. {about}")
    ask = rng.choice(["What is the atomic number of {n}?", "Which atomic number does {n} have?"])
    return chat(ask.format(n=name), f"The atomic number of {name} is {number}. Its chemical symbol is {symbol}.")


def gen_planet(rng: random.Random) -> Conversation:
    """A question about one planet or about all of them."""
    i = rng.randrange(len(PLANETS))
    (name, fact), place = PLANETS[i], ORDINALS[i]
    r = rng.random()
    if r < 0.5:
        ask = rng.choice(
            [
                "Tell me about {n}.",
                "What do you know about the planet {n}?",
                "Describe the planet {n}.",
                "What is {n} like?",
                "Give me some facts about {n}.",
                "Tell me something about the planet {n}.",
            ]
        )
        return chat(ask.format(n=name), f"{name} is the {place} planet from the Sun. {fact}")
    if r < 0.8:
        ask = rng.choice(
            [
                "Which planet is the {o} from the Sun?",
                "What is the {o} planet from the Sun?",
                "Name the {o} planet from the Sun.",
            ]
        )
        return chat(ask.format(o=place), f"The {place} planet from the Sun is {name}. {fact}")
    ask = rng.choice(
        [
            "Name the planets of the solar system.",
            "List all planets in order.",
            "What are the eight planets?",
            "Which planets orbit the Sun?",
        ]
    )
    return chat(ask, "The eight planets, in order from the Sun, are " + join_words(p[0] for p in PLANETS) + ".")


def describe_animal(name: str, group: str, food: str, home: str, fact: str) -> str:
    """What the model says about an animal."""
    return f"{capitalized(with_article(name))} is {group} that eats {food} and lives {home}. {fact}"


def gen_animal(rng: random.Random) -> Conversation:
    """A question about an animal, its food or its home."""
    row = rng.choice(ANIMALS)
    name, _, food, home, fact = row
    an = with_article(name)
    r = rng.random()
    if r < 0.6:
        ask = rng.choice(
            [
                "Tell me about the {n}.",
                "What is {an}?",
                "Describe {an}.",
                "Give me some facts about the {n}.",
                "What can you tell me about {an}?",
                "Tell me something about the {n}.",
            ]
        )
        return chat(ask.format(n=name, an=an), describe_animal(*row))
    if r < 0.8:
        ask = rng.choice(["What does {an} eat?", "What food does {an} eat?"])
        return chat(ask.format(an=an), f"{capitalized(an)} eats {food}. {fact}")
    ask = rng.choice(["Where does {an} live?", "Where can I find {an} in nature?"])
    return chat(ask.format(an=an), f"{capitalized(an)} lives {home}. {fact}")


def gen_two_animals(rng: random.Random) -> Conversation:
    """A question about two animals."""
    one, two = rng.sample(ANIMALS, 2)
    ask = rng.choice(
        [
            "Tell me about the {x} and the {y}.",
            "Describe the {x} and the {y}.",
            "Give me some facts about the {x} and the {y}.",
            "Compare the {x} and the {y}.",
        ]
    )
    return chat(ask.format(x=one[0], y=two[0]), f"{describe_animal(*one)}\n\n{describe_animal(*two)}")


ASK_CONCEPT = [
    "What is {c}?",
    "Explain {c}.",
    "Can you explain {c}?",
    "What does {c} mean?",
    "Tell me about {c}.",
    "Explain {c} in simple words.",
    "I do not understand {c}. Can you help?",
    "Give me a short explanation of {c}.",
    "Describe {c} briefly.",
    "Please explain {c} to me.",
]


def gen_concept(rng: random.Random) -> Conversation:
    """A short explanation, sometimes followed by thanks."""
    concept, text = rng.choice(CONCEPTS)
    turns = [rng.choice(ASK_CONCEPT).format(c=concept), text]
    if rng.random() < 0.15:
        turns += [
            rng.choice(["Thanks!", "Thank you.", "That helps, thank you."]),
            "You are welcome! Feel free to ask me anything else.",
        ]
    return chat(*turns)


def gen_two_concepts(rng: random.Random) -> Conversation:
    """Two short explanations."""
    (one, about_one), (two, about_two) = rng.sample(CONCEPTS, 2)
    ask = rng.choice(
        [
            "Explain {c} and {d}.",
            "What is {c}, and what is {d}?",
            "Please explain {c} and {d} to me.",
            "What is the difference between {c} and {d}?",
        ]
    )
    return chat(ask.format(c=one, d=two), f"{about_one}\n\n{about_two}")


def gen_device(rng: random.Random) -> Conversation:
    """What a device is for and how it works."""
    device, use, how = rng.choice(DEVICES)
    an = with_article(device)
    if rng.random() < 0.5:
        ask = rng.choice(
            [
                "What is {an} used for?",
                "What is {an}?",
                "What do people use {an} for?",
                "Why do people use {an}?",
            ]
        )
        return chat(ask.format(an=an), f"{capitalized(an)} is used {use}. {how}")
    ask = rng.choice(["How does {an} work?", "Explain how {an} works.", "Can you explain how {an} works?"])
    return chat(ask.format(an=an), f"{how} It is used {use}.")


def gen_word(rng: random.Random) -> Conversation:
    """Opposites, synonyms, plurals and past tenses."""
    r = rng.random()
    if r < 0.4:
        pair = list(rng.choice(FACTS["opposites"]))
        if rng.random() < 0.5:
            pair.reverse()
        what, asks = (
            "The opposite of",
            [
                "What is the opposite of {w}?",
                'What is the opposite of "{w}"?',
                "Give me the opposite of {w}.",
                "Which word means the opposite of {w}?",
            ],
        )
    elif r < 0.6:
        pair = rng.choice(FACTS["synonyms"])
        what, asks = (
            "Another word for",
            [
                "What is another word for {w}?",
                "Give me a synonym for {w}.",
                "Which word means the same as {w}?",
            ],
        )
    else:
        form, table = ("plural", "plurals") if r < 0.8 else ("past tense", "past_tenses")
        pair = rng.choice(FACTS[table])
        what, asks = (
            f"The {form} of",
            [
                f"What is the {form} of {{w}}?",
                f'What is the {form} of "{{w}}"?',
                f"Give me the {form} of {{w}}.",
            ],
        )
    return chat(rng.choice(asks).format(w=pair[0]), f'{what} "{pair[0]}" is "{pair[1]}".')


def gen_calendar(rng: random.Random) -> Conversation:
    """The order of days and months, and the length of months."""
    r = rng.random()
    if r < 0.4:
        i = rng.randrange(7)
        if rng.random() < 0.5:
            ask = rng.choice(["What day comes after {d}?", "Which day follows {d}?", "What is the day after {d}?"])
            return chat(ask.format(d=DAYS[i]), f"The day after {DAYS[i]} is {DAYS[(i + 1) % 7]}.")
        ask = rng.choice(["What day comes before {d}?", "What is the day before {d}?"])
        return chat(ask.format(d=DAYS[i]), f"The day before {DAYS[i]} is {DAYS[i - 1]}.")
    i = rng.randrange(12)
    month, days = MONTHS[i]
    if r < 0.7:
        ask = rng.choice(["How many days does {m} have?", "How many days are in {m}?"])
        leap = " In a leap year it has 29." if month == "February" else ""
        return chat(ask.format(m=month), f"{month} has {days} days.{leap}")
    ask = rng.choice(["Which month comes after {m}?", "What is the month after {m}?"])
    return chat(ask.format(m=month), f"The month after {month} is {MONTHS[(i + 1) % 12][0]}.")
