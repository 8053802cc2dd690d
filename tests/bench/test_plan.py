"""Which runs there are and in which order."""

from __future__ import annotations

from collections import Counter

import pytest
from nextn.bench import BenchOptions, make_arms, make_blocks

from .synthetic import make_suite

OPTIONS = BenchOptions(seeds=(1, 2), repeats=2, raw=True, contexts=(64,), n_sweep_prompts=3)


def test_arms():
    arms = make_arms([4, 2, 4], adaptive=6)
    assert [arm.name for arm in arms] == ["plain", "plain again", "k=2", "k=4", "adaptive"]
    assert [arm.n_max for arm in arms] == [0, 0, 2, 4, 6]
    assert [arm.name for arm in make_arms([], adaptive=None, control=False)] == ["plain"]
    with pytest.raises(ValueError, match="k must be an integer from 1 to 16, not 17"):
        make_arms([17], adaptive=None)


def test_every_block_has_all_arms_and_every_prompt_its_turn():
    suite, arms = make_suite(12), make_arms([2], adaptive=4)
    blocks = make_blocks(suite, arms, OPTIONS)
    names = {arm.name for arm in arms}
    for block in blocks:
        is_suite = (block.mode, block.n_context) == ("chat", None)
        assert {arm.name for arm in block.arms} == (names if is_suite else names - {"plain again"})
    kinds = Counter((block.mode, block.n_context) for block in blocks)
    assert kinds == {("chat", None): 12 * 4, ("raw", None): 3 * 4, ("chat", 64): 3 * 4}
    assert len({block.key for block in blocks}) == len(blocks)


def test_the_order_is_random_but_the_same_each_time():
    suite, arms = make_suite(12), make_arms([2], adaptive=4)
    blocks = make_blocks(suite, arms, OPTIONS)
    assert blocks == make_blocks(suite, arms, OPTIONS)
    first, second = ([b.prompt.id for b in blocks if (b.seed, b.repeat, b.mode) == (s, 0, "raw")] for s in (1, 2))
    assert sorted(first) == sorted(second)
    # each arm comes first about equally often, so that none is always the one that warms the caches
    firsts = Counter(block.arms[0].name for block in blocks)
    assert set(firsts) == {arm.name for arm in arms}
    assert max(firsts.values()) < 0.5 * len(blocks)


def test_sweeps_take_three_of_many_lengths():
    blocks = make_blocks(make_suite(3), make_arms(range(1, 9), adaptive=6), BenchOptions(raw=True))
    raw = {arm.name for block in blocks if block.mode == "raw" for arm in block.arms}
    assert raw == {"plain", "k=1", "k=4", "k=8", "adaptive"}


def test_the_sweeps_come_after_the_suite():
    """What an adaptive arm learns of long conversations must not reach the figures of the suite."""
    blocks = make_blocks(make_suite(12), make_arms([], adaptive=4), OPTIONS)
    kinds = [(block.mode, block.n_context) for block in blocks]
    assert list(dict.fromkeys(kinds)) == [("chat", None), ("raw", None), ("chat", 64)]
    assert kinds == sorted(kinds, key=list(dict.fromkeys(kinds)).index)


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": ()}, {"seeds": (1, 1)}, {"repeats": 0}, {"max_tokens": 1}, {"contexts": (0,)}, {"temperature": -1}],
)
def test_wrong_options(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).rstrip("s")):
        BenchOptions(**wrong)
