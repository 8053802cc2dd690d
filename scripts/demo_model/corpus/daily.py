"""General conversations about daily life: how-to lists, small talk, summaries, stories, emails, short memory."""

from __future__ import annotations

import random

from .knowledge import FACTS
from .phrases import DAYS, NAMES, Conversation, capitalized, chat, numbered, pronoun, with_article

HOWTO = FACTS["howto"]
LISTS = FACTS["lists"]
SMALL_TALK = FACTS["small_talk"]

COUNT_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
# fmt: off
PLACES = ["market", "library", "park", "museum", "station", "bakery", "beach", "school", "garden", "shop"]
ITEMS = ["a blue umbrella", "a loaf of bread", "an old map", "a red scarf", "a small lamp", "a new notebook",
         "a bag of apples", "a wooden box", "a green hat", "a box of chocolates"]
WEATHER = ["sunny", "rainy", "windy", "cold", "warm", "cloudy"]
AFTERWARDS = ["met an old friend", "drank a cup of tea", "waited for the bus", "read a book", "took a long walk",
              "called a friend"]
BEASTS = ["fox", "mouse", "bear", "owl", "rabbit", "cat", "dog", "turtle", "duck", "frog"]
SPOTS = ["forest", "garden", "village", "valley", "castle", "mountain"]
# fmt: on

ASK_HOWTO = [
    "How do I {t}?",
    "How can I {t}?",
    "Tell me how to {t}.",
    "What are the steps to {t}?",
    "Give me a list of steps to {t}.",
    "Explain how to {t}.",
    "I want to {t}. What should I do?",
    "Can you tell me how to {t}?",
    "Please explain how to {t}.",
    "What is the best way to {t}?",
]

# adjective of the hero: (its habit, the turn of the story)
TALES = {
    "brave": (
        "was never afraid of the dark",
        "One night a storm came, and all the others hid. The {b} lit a lantern and led them home.",
    ),
    "curious": (
        "wanted to know how everything worked",
        "One day the {b} found a strange key under a stone. It opened a door to a room full of stars.",
    ),
    "lazy": (
        "liked to sleep until noon",
        "One day the river began to rise. The {b} woke up just in time and warned everyone.",
    ),
    "clever": (
        "could solve every riddle",
        "One day a traveler lost the way. The {b} drew a map in the sand and showed the path.",
    ),
    "shy": (
        "rarely spoke to anyone",
        "One day a lost child began to cry. The {b} sang a quiet song, and the child smiled.",
    ),
    "friendly": (
        "said hello to everyone",
        "One day a stranger came who trusted nobody. The {b} shared some bread, and they became friends.",
    ),
    "tiny": (
        "was smaller than all the others",
        "One day a ring fell into a narrow crack. Only the {b} could reach it and bring it back.",
    ),
    "hungry": (
        "was always looking for food",
        "One day the {b} found a tree full of apples. There were so many that everyone was invited.",
    ),
}

# what to write: the body of the email
EMAILS = {
    "invite {n} to dinner on {d}": ("I would like to invite you to dinner on {d}. Please let me know if you can come."),
    "thank {n} for the help on {d}": ("Thank you very much for your help on {d}. It made a big difference to me."),
    "ask {n} for a meeting on {d}": (
        "I would like to meet you on {d} to talk about our project. Please tell me what time suits you."
    ),
    "tell {n} that I am ill on {d}": (
        "I am sorry to tell you that I am ill and cannot come on {d}. I hope to be back soon."
    ),
    "remind {n} of the deadline on {d}": (
        "This is a friendly reminder that the deadline is on {d}. Please let me know if you need more time."
    ),
    "congratulate {n} on the new job": (
        "Congratulations on your new job! I am very happy for you and wish you a great start."
    ),
}


def gen_howto(rng: random.Random) -> Conversation:
    """Steps of a daily task, sometimes with a question about one of them."""
    task, steps = rng.choice(HOWTO)
    turns = [rng.choice(ASK_HOWTO).format(t=task), f"Here is how to {task}:\n\n{numbered(steps)}"]
    r = rng.random()
    if r < 0.12:
        turns += [
            rng.choice(["What is the first step again?", "What was the first step?"]),
            f"The first step is: {steps[0]}",
        ]
    elif r < 0.24:
        turns += [
            rng.choice(["What is the last step again?", "What was the last step?"]),
            f"The last step is: {steps[-1]}",
        ]
    elif r < 0.32:
        turns += [rng.choice(["Thanks!", "Thank you!"]), "You are welcome! I hope it goes well."]
    return chat(*turns)


def gen_list(rng: random.Random) -> Conversation:
    """Some things of a kind."""
    kind, items = rng.choice(LISTS)
    n = rng.randint(2, 5)
    ask = rng.choice(
        ["Name {n} {k}.", "Give me {n} {k}.", "List {n} {k}.", "Can you name {n} {k}?", "Tell me {n} {k}."]
    )
    # str.capitalize turns "the Nile" into "The nile"; the shipped model was trained on that text, so it stays
    rows = numbered(item.capitalize() if item[0].islower() else item for item in items[:n])
    return chat(ask.format(n=COUNT_WORDS[n], k=kind), f"Here are {COUNT_WORDS[n]} {kind}:\n\n{rows}")


def gen_small_talk(rng: random.Random) -> Conversation:
    """A greeting or a question about the model, sometimes two."""
    asks, answer = rng.choice(SMALL_TALK)
    turns = [rng.choice(asks), answer]
    if rng.random() < 0.35:
        asks, answer = rng.choice(SMALL_TALK)
        turns += [rng.choice(asks), answer]
    return chat(*turns)


def gen_summary(rng: random.Random) -> Conversation:
    """A short text to summarize, or a question about it."""
    name, place, item = rng.choice(NAMES), rng.choice(PLACES), rng.choice(ITEMS)
    weather, day, act = rng.choice(WEATHER), rng.choice(DAYS), rng.choice(AFTERWARDS)
    she = pronoun(name)
    text = rng.choice(
        [
            f"On {day}, {name} went to the {place}. It was a {weather} day. "
            f"{capitalized(she)} found {item} there. Then {she} {act}.",
            f"{name} went to the {place} on {day}. The weather was {weather}. "
            f"{capitalized(she)} found {item}, and later {she} {act}.",
        ]
    )
    if rng.random() < 0.5:
        ask = rng.choice(["Summarize this text: {t}", "Give me a short summary: {t}", "Summarize in one sentence: {t}"])
        return chat(ask.format(t=text), f"{name} went to the {place} on {day}, found {item} and {act}.")
    question, answer = rng.choice(
        [
            (f"What did {name} find?", f"{name} found {item}."),
            (f"Where did {name} go?", f"{name} went to the {place}."),
            ("What was the weather like?", f"It was {weather}."),
            (f"When did {name} go to the {place}?", f"{name} went to the {place} on {day}."),
        ]
    )
    return chat(f"{text} {question}", answer)


def gen_tale(rng: random.Random) -> Conversation:
    """A very short story."""
    adjective, beast, spot = rng.choice(list(TALES)), rng.choice(BEASTS), rng.choice(SPOTS)
    ask = rng.choice(
        [
            "Write a short story about {x} in a {s}.",
            "Tell me a story about {x} who lives in a {s}.",
            "Tell me a short story about {x} in a {s}.",
        ]
    )
    hero = with_article(f"{adjective} {beast}")
    habit, turn = TALES[adjective]
    return chat(
        ask.format(x=hero, s=spot),
        f"Once upon a time, {hero} lived in a {spot}. The {beast} {habit}. {turn.format(b=beast)} "
        f"From that day on, everyone in the {spot} told the story of the {adjective} {beast}.",
    )


def gen_email(rng: random.Random) -> Conversation:
    """A short email."""
    name = rng.choice(NAMES)
    rng.choice(NAMES)  # an unused draw; without it every later conversation would differ from the trained corpus
    day = rng.choice(DAYS)
    task, body = rng.choice(list(EMAILS.items()))
    ask = rng.choice(
        ["Write a short email to {k}.", "Help me write a short email to {k}.", "Write a polite message to {k}."]
    )
    return chat(ask.format(k=task.format(n=name, d=day)), f"Dear {name},\n\n{body.format(d=day)}\n\nBest wishes")


def gen_memory(rng: random.Random) -> Conversation:
    """The user says a name or a preference, and asks for it in the next turn."""
    name = rng.choice(NAMES)
    topic, value = rng.choice(
        [
            ("favorite color", rng.choice(["blue", "green", "red", "yellow", "purple", "orange"])),
            ("favorite food", rng.choice(["pizza", "soup", "rice", "pasta", "salad", "bread"])),
            ("favorite animal", rng.choice(BEASTS)),
            ("favorite season", rng.choice(["spring", "summer", "autumn", "winter"])),
        ]
    )
    r = rng.random()
    hello = rng.choice([f"Hi, my name is {name}.", f"Hello, I am {name}.", f"My name is {name}."])
    greeting = f"Hello {name}, nice to meet you! How can I help you today?"
    noted = f"Thank you for telling me. I will remember that your {topic} is {value}."
    if r < 0.4:
        ask = rng.choice(["What is my name?", "Do you remember my name?"])
        return chat(hello, greeting, ask, f"Your name is {name}.")
    if r < 0.7:
        tell = rng.choice([f"My {topic} is {value}.", f"I want you to know that my {topic} is {value}."])
        ask = rng.choice([f"What is my {topic}?", f"Do you remember my {topic}?"])
        return chat(tell, noted, ask, f"Your {topic} is {value}.")
    ask = rng.choice(["What do you know about me?", "Tell me what you know about me."])
    tell = f"My {topic} is {value}."
    return chat(hello, greeting, tell, noted, ask, f"Your name is {name}, and your {topic} is {value}.")
