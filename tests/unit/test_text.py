"""Text from token bytes: whole characters, stop strings cut in time."""

from __future__ import annotations

import random

import pytest
from nextn.text import TextStream


def run(pieces, stop=()):
    """Everything shown for these pieces, and whether a stop string ended it."""
    stream, shown = TextStream(stop), []
    for piece in pieces:
        text, n_fed = stream.feed([piece])
        assert n_fed == 1
        shown.append(text)
        if stream.stopped:
            return shown, True
    return [*shown, stream.finish()], False


def test_characters_arrive_whole():
    shown, _ = run([b"a\xe2", b"\x98", b"\x83b", b"\xf0\x9f", b"\x99\x82"])
    assert shown == ["a", "", "☃b", "", "🙂", ""]


def test_an_incomplete_character_at_the_end_is_dropped():
    assert run([b"ab\xe2\x98"])[0] == ["ab", ""]
    assert run([b"ab\xe2\x98"], ["zz"])[0] == ["ab", ""]


def test_bytes_that_cannot_be_text_become_one_replacement():
    assert "".join(run([b"a\xff", b"b\xe2\x98", b"c"])[0]) == "a\ufffdb\ufffdc"


def test_a_possible_stop_string_is_held_back_and_released():
    shown, stopped = run([b"one<", b"|en", b"d|", b"x two"], ["<|end|>"])
    assert shown == ["one", "", "", "<|end|x two", ""]
    assert not stopped


def test_held_text_is_released_at_the_end():
    assert run([b"one <|en"], ["<|end|>"])[0] == ["one ", "<|en"]


def test_text_is_cut_before_a_stop_string():
    shown, stopped = run([b"one<", b"|en", b"d|>", b"never"], ["<|end|>"])
    assert (shown, stopped) == (["one", "", ""], True)


def test_a_stop_string_inside_one_piece():
    assert run([b"abSTOPcd"], ["STOP"]) == (["ab"], True)
    assert run([b"STOP"], ["STOP"]) == ([""], True)


def test_the_first_of_several_stop_strings_cuts():
    assert run([b"a b c"], ["c", "b"]) == (["a "], True)
    assert run([b"xabc"], ["bc", "abc"]) == (["x"], True)


def test_the_stop_string_completed_first_cuts_at_that_token():
    # after the second token "bc" is complete, "abcd" is not
    assert run([b"xab", b"c", b"d"], ["abcd", "bc"]) == (["x", "a"], True)


def test_overlapping_beginnings():
    assert "".join(run([bytes([c]) for c in b"aabaabaac!"], ["aabaac"])[0]) == "aab"
    assert run([bytes([c]) for c in b"aabaabaac!"], ["aabaac"])[1]


def test_a_stop_string_of_split_characters():
    assert "".join(run([b"a\xe2", b"\x98", b"\x83\xc3", b"\xa9b"], ["☃é"])[0]) == "a"


@pytest.mark.parametrize("seed", range(20))
def test_splitting_into_pieces_changes_nothing_but_the_pace(seed):
    rng = random.Random(seed)
    text = "".join(rng.choices("ab☃é", k=60))
    data = text.encode()
    stop = ["".join(rng.choices("ab☃é", k=rng.randint(2, 5))) for _ in range(3)]
    pieces = [data[i : i + 1] for i in range(len(data))]
    shown, stopped = run(pieces, stop)
    # byte by byte, the stop string that ends first wins
    ends = {text.find(s) + len(s): text.find(s) for s in stop if s in text}
    starts = [text.find(s) for s in stop if s in text and text.find(s) + len(s) == min(ends)] if ends else []
    expected = text[: min(starts)] if starts else text
    assert "".join(shown) == expected
    assert stopped == bool(ends)
    for i in range(len(shown)):  # at no time more than the final text
        assert expected.startswith("".join(shown[:i]))
