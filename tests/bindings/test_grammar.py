"""Grammars: what is allowed against the language written a second time, and every wrong grammar is one error."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest
from nextn import GrammarError, _core
from nextn.sampling import Grammar

LIST = 'root ::= [a-z]{2,4} ("," [0-9]+)* "é"?'


def could_start(text):
    """Whether bytes can be continued to a text of LIST."""
    return any(
        re.fullmatch(pattern, text)
        for pattern in (rb"[a-z]{0,4}", rb"[a-z]{2,4}(,[0-9]+)*(,|\xc3|\xc3\xa9)?")  # "," and half a letter may follow
    )


def test_allowed_tokens_are_those_that_keep_the_text_within_the_language(demo):
    pieces = [demo.token_to_piece(i, special=False) for i in range(demo.n_vocab)]
    rng = np.random.default_rng(0)
    n_complete = n_long = 0
    for _ in range(30):
        grammar, text = Grammar(demo, LIST), b""
        while len(text) < 20:
            is_complete = re.fullmatch(rb"[a-z]{2,4}(,[0-9]+)*(\xc3\xa9)?", text) is not None
            expected = [
                is_complete if demo.is_eog(i) else bool(piece) and could_start(text + piece)
                for i, piece in enumerate(pieces)
            ]
            allowed = grammar.allowed(np.arange(demo.n_vocab))
            np.testing.assert_array_equal(allowed, expected)
            choices = [i for i in np.flatnonzero(allowed) if not demo.is_eog(int(i))]
            n_complete += is_complete
            if not choices:
                break
            token = int(rng.choice(choices))
            assert grammar.allows(token)
            grammar.accept(token)
            text += pieces[token]
        n_long += len(text) > 8
    assert n_complete > 20 and n_long > 5


def test_a_clone_goes_its_own_way(demo):
    a, b, comma = (demo.tokenize(text, add_special=False)[0] for text in ("a", "b", ","))
    grammar = Grammar(demo, 'root ::= "a" "b" ","')
    grammar.accept(a)
    twin = grammar.clone()
    twin.accept(b)
    assert twin.allows(comma) and not grammar.allows(comma)
    assert grammar.allows(b) and not twin.allows(b)


def test_what_the_grammar_does_not_allow_is_not_accepted(demo):
    grammar = Grammar(demo, 'root ::= "a"')
    b, end = demo.tokenize("b", add_special=False)[0], next(iter(demo.eog_tokens))
    for token in (b, end):
        with pytest.raises(ValueError, match=f"token is {token}, which the grammar does not allow here"):
            grammar.accept(token)
    grammar.accept(demo.tokenize("a", add_special=False)[0])
    grammar.accept(end)
    grammar.accept(end)  # nothing comes after it, and nothing breaks
    for wrong in (-1, demo.n_vocab, 2**40):
        with pytest.raises(ValueError, match=r"token"):
            grammar.allows(wrong)


def test_control_tokens_are_no_text_unless_the_grammar_names_them(demo):
    start = demo.tokenize("<|im_start|>", parse_special=True)[-1]
    assert not Grammar(demo, "root ::= .*").allows(start)
    assert Grammar(demo, 'root ::= <|im_start|> "a"').allows(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the grammar has no rule root"),
        ("# nothing\n", "the grammar has no rule root"),
        ('x ::= "a"', "the grammar has no rule root"),
        ('root = "a"', "line 1, column 6: expecting ::=, but there is = "),
        ('root ::= "a" (', r"line 1, column 15: expecting '\)', where the text ends"),
        ('root ::= "a"\nb ::= [0-9', "line 2, column 11: unexpected end of input"),
        ('root ::= "\\q"', "line 1, column 11: unknown escape"),
        ('root ::= "\\xZZ"', "line 1, column 13: expecting 2 hex chars"),
        ('root ::= "a"\n\n  b ::= "c" | d', "line 3, column 15: the rule d is used and nowhere defined"),
        ('root ::= *', r"line 1, column 11: expecting preceding item to \*/"),
        ('root ::= "a"{x}', "line 1, column 14: expecting an int"),
        ('root ::= "a"{5', "line 1, column 15: expecting ','"),
        ('root ::= "a"{99999}', "line 1, column 1: number of repetitions exceeds sane defaults"),
        ('root ::= "a"{99999999999999999999999}', "line 1, column 1"),
        ('root ::= "a" )', "line 1, column 14: expecting newline or end"),
        ('root ::= root "a"', "left recursion"),
        ('root ::= <[99999999999999]>', "line 1, column 12: parsed token id is too big"),
        ('root ::= <nonsense token>', "line 1, column 1: invalid token"),
        ("root ::= " + "(" * 300 + '"a"' + ")" * 300, "column 210: at most 200 brackets may be open"),
        ("root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(9000)), "more than 8192 rules"),
        ('root ::= "a\0"', "character 12: it holds a zero byte"),
        ('root ::= "\ud800"', "character 11: it is no valid text"),
    ],
)  # fmt: skip
def test_a_wrong_grammar_says_where_it_is_wrong(demo, capfd, text, message):
    with pytest.raises(GrammarError, match=message):
        Grammar(demo, text)
    assert capfd.readouterr() == ("", "")


def test_the_deepest_grammars_there_are_work_in_any_thread(demo):
    chain = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(8000)) + 'r8000 ::= "a"'
    brackets = "root ::= " + "(" * 200 + '"a"' + ")" * 200
    a = demo.tokenize("a", add_special=False)[0]
    done = []

    def use():
        done.extend(Grammar(demo, text).clone().allows(a) for text in (chain, brackets))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert done == [True, True]


def test_random_texts_are_errors_or_grammars(demo):
    rng = np.random.default_rng(0)
    parts = ['"a"', "[a-z]", "(", ")", "|", "*", "+", "?", "{2,3}", "\n", "root", "::=", "x", " ", "#", "<", ">", ".",
             "é", "\\", '"', "[", "]", "^", "-", "!", "<[5]>", "\r\n", "\t", "::= "]  # fmt: skip
    n_right = 0
    for _ in range(3000):
        text = "".join(rng.choice(parts, rng.integers(1, 12)))
        try:
            Grammar(demo, f"root ::= {text}").allowed(np.arange(50))
            n_right += 1
        except GrammarError:
            pass
    assert 100 < n_right < 2900


def matches(demo, schema, value):
    """Whether the text of a JSON value is in the grammar of a schema."""
    grammar = Grammar.of_schema(demo, schema)
    for token in demo.tokenize(json.dumps(value), add_special=False):
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return grammar.allows(next(iter(demo.eog_tokens)))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer"}, [0, -17], [1.5, "1", None]),
        ({"type": "boolean"}, [True, False], [0, "true"]),
        ({"enum": ["red", 5, None]}, ["red", 5, None], ["blue", 6]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [[], [1], [1, 2]], [[1, 2, 3], ["a"]]),
        ({"type": "string", "maxLength": 3}, ["", "abc"], ["abcd", 3]),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            [{"a": 1}],
            [{}, {"a": "x"}, {"b": 1}],
        ),
        ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "integer"}}}, [None, 3], ["x"]),
    ],
)
def test_a_schema_allows_what_it_means(demo, schema, right, wrong):
    assert [matches(demo, schema, value) for value in right] == [True] * len(right)
    assert [matches(demo, schema, value) for value in wrong] == [False] * len(wrong)


def test_schemas_that_cannot_be_used(demo):
    deep: dict[str, object] = {"type": "integer"}
    for _ in range(100_000):
        deep = {"type": "array", "items": deep}
    for schema in ({"$ref": "#/nowhere"}, {"type": "nonsense"}, {"a": {1, 2}}, {"minimum": float("nan")}, deep):
        with pytest.raises(GrammarError, match="the JSON schema cannot be"):
            Grammar.of_schema(demo, schema)


def test_a_grammar_outlives_its_model(demo_path):
    import nextn

    with nextn.Model(demo_path) as model:
        grammar = Grammar(model, 'root ::= "a"')
    assert grammar.allowed(np.arange(20)).dtype == bool
    with pytest.raises(nextn.ClosedError):
        Grammar(model, 'root ::= "a"')
    with pytest.raises(TypeError):
        _core.Grammar(None, "", "root")  # type: ignore[arg-type]
