"""Conversations about Python code. Every quoted value comes from running the code."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from .phrases import Conversation, chat, load_table, third_person


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function the model learns to write; `{k}` in its texts stands for one of `constants`, NAME for its name."""

    names: list[str]
    params: list[str]
    returns: str
    tasks: list[str]
    docstring: str
    body: list[str]
    example: str
    explanation: str
    constants: list[int] | None = None
    imports: str = ""

    def with_constant(self, k: str) -> Function:
        """The same function with the constant filled in."""

        def fill(texts: list[str]) -> list[str]:
            return [text.replace("{k}", k) for text in texts]

        docstring, explanation = fill([self.docstring, self.explanation])
        return replace(
            self,
            names=fill(self.names),
            tasks=fill(self.tasks),
            docstring=docstring,
            body=fill(self.body),
            explanation=explanation,
        )

    def source(self, name: str, *, hints: bool, docstring: bool) -> str:
        """Python source under the given name, with or without type hints and docstring."""
        params = ", ".join(p if hints else p.partition(":")[0] for p in self.params)
        arrow = f" -> {self.returns}" if hints else ""
        lines = [f"def {name}({params}){arrow}:"]
        if docstring:
            lines.append(f'    """{self.docstring}"""')
        lines += ["    " + line.replace("NAME", name) for line in self.body]
        return (self.imports + "\n\n\n" if self.imports else "") + "\n".join(lines)


FUNCTIONS = [Function(**row) for row in load_table("functions.json")]
CLASSES = load_table("classes.json")
SNIPPETS = load_table("snippets.json")

ASK_FUNCTION = [
    "Write a Python function that {third}.",
    "Write a Python function to {base}.",
    "Please write a Python function that {third}.",
    "Can you write a Python function that {third}?",
    "Could you write a function in Python to {base}?",
    "How do I {base} in Python?",
    "I need a Python function that {third}.",
    "Show me how to {base} in Python.",
    "Give me a Python function to {base}.",
    "Python function to {base}",
]
ASK_NAMED = [
    "Write a Python function called {name} that {third}.",
    "Write a Python function named {name} to {base}.",
    "Create a Python function {name} that {third}.",
]
ASK_NO_DOCSTRING = [" Leave out the docstring.", " No docstring, please."]
ASK_NO_HINTS = [" Do not use type hints.", " No type hints, please."]
ASK_CLASS = [
    "Write a Python class for {subject}.",
    "Write a simple Python class that models {subject}.",
    "Show me a Python class for {subject}.",
    "Can you write a Python class for {subject}?",
    "Create a small Python class for {subject}.",
]
ASK_SNIPPET = [
    "How do I {task} in Python?",
    "Show me how to {task} in Python.",
    "Give me an example of how to {task} in Python.",
    "What is the Python code to {task}?",
    "Can you show me how to {task} in Python?",
    "I want to {task} in Python.",
    "Python example: {task}",
]

# fmt: off
VERBS = ["do", "run", "make", "get", "find", "handle", "process", "compute", "build", "check", "my", "solve", "apply",
         "try", "use", "help"]
NOUNS = ["it", "data", "items", "values", "task", "result", "function", "text", "numbers", "list", "input", "step",
         "job", "answer", "thing", "part"]
# fmt: on


def evaluate(setup: str, expression: str) -> str:
    """Run `setup` and return the repr of `expression`. Only texts of the tables are run."""
    scope: dict[str, Any] = {}
    exec(setup, scope)
    return repr(eval(expression, scope))


def free_name(rng: random.Random) -> str:
    """A name that says nothing about the task, so that it must be copied from the request."""
    name = f"{rng.choice(VERBS)}_{rng.choice(NOUNS)}"
    return name + rng.choice(["", "", "", "_two", "_now", "_fast", "_new"])


def function_answer(f: Function, name: str, *, hints: bool, docstring: bool, lead: str | None = None) -> str:
    """The assistant's answer: a lead sentence, the code, an example call with its value."""
    code = f.source(name, hints=hints, docstring=docstring)
    call = f"{name}({f.example})"
    lead = lead or f"Here is a Python function that {third_person(f.tasks[0])}:"
    return f"{lead}\n\n```python\n{code}\n```\n\nFor example, `{call}` returns `{evaluate(code, call)}`."


def function_follow_up(rng: random.Random, f: Function, name: str, *, hints: bool, docstring: bool) -> tuple[str, str]:
    """A second question about the function just written, and its answer."""
    r = rng.random()
    if r < 0.45:
        ask = rng.choice(["How does it work?", "Can you explain how it works?", "Please explain the code."])
        return ask, f.explanation
    if r < 0.65:
        other = rng.choice([n for n in f.names if n != name] or [name + "_new"])
        ask = rng.choice([f"Rename it to {other}.", f"Please call the function {other} instead."])
        lead = f"Here is the function with the name `{other}`:"
        return ask, function_answer(f, other, hints=hints, docstring=docstring, lead=lead)
    if r < 0.8 and hints:
        ask = rng.choice(["Now without type hints.", "Can you remove the type hints?"])
        lead = "Here is the function without type hints:"
        return ask, function_answer(f, name, hints=False, docstring=docstring, lead=lead)
    ask = rng.choice(["Thanks!", "Thank you!", "Great, thank you."])
    return ask, "You are welcome! Tell me if you need another function."


def gen_function(rng: random.Random) -> Conversation:
    """A request for a function, sometimes with a given name or a wish about its form, sometimes with a follow-up."""
    f = rng.choice(FUNCTIONS)
    if f.constants is not None:
        f = f.with_constant(str(rng.choice(f.constants)))
    base = rng.choice(f.tasks)
    name = f.names[0]
    if rng.random() < 0.35:
        name = rng.choice(f.names) if rng.random() < 0.6 else free_name(rng)
        ask = rng.choice(ASK_NAMED).format(name=name, base=base, third=third_person(base))
    else:
        ask = rng.choice(ASK_FUNCTION).format(base=base, third=third_person(base))
    hints = docstring = True
    if ask.endswith("."):
        r = rng.random()
        if r < 0.08:
            ask += rng.choice(ASK_NO_DOCSTRING)
            docstring = False
        elif r < 0.16:
            ask += rng.choice(ASK_NO_HINTS)
            hints = False
    turns = [ask, function_answer(f, name, hints=hints, docstring=docstring)]
    if rng.random() < 0.3:
        turns += function_follow_up(rng, f, name, hints=hints, docstring=docstring)
    return chat(*turns)


def gen_class(rng: random.Random) -> Conversation:
    """A request for a small class, answered with the class and a use of it."""
    row = rng.choice(CLASSES)
    subject, code, usage = row["subject"], "\n".join(row["code"]), row["usage"]
    ask = rng.choice(ASK_CLASS).format(subject=subject)
    value = evaluate("\n".join([code, *usage[:-1]]), usage[-1])
    use = "\n".join(usage)
    return chat(
        ask,
        f"Here is a Python class for {subject}:\n\n```python\n{code}\n```\n\n"
        f"You can use it like this:\n\n```python\n{use}\n```\n\nThe last line gives `{value}`.",
    )


def gen_snippet(rng: random.Random) -> Conversation:
    """A question about a language feature, answered with a few lines of code and a remark."""
    row = rng.choice(SNIPPETS)
    task, code = row["task"], "\n".join(row["code"])
    ask = rng.choice(ASK_SNIPPET).format(task=task)
    return chat(ask, f"This is how to {task} in Python:\n\n```python\n{code}\n```\n\n{row['note']}")
