"""What is run, and in which order.

A block is one prompt under one seed and repeat: all arms answer it one after the other, in an order drawn for the
block. Arms are compared within blocks, so that a machine that slows down over the hours slows all arms down alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal, TypeVar

from nextn.bench.suite import Prompt, Suite
from nextn.options import check_int, check_number

__all__ = ["CONTROL", "PLAIN", "Arm", "BenchOptions", "Block", "make_arms", "make_blocks", "make_server_arms"]

T = TypeVar("T")
Mode = Literal["chat", "raw"]

PLAIN = "plain"
CONTROL = "plain again"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of decoding.

    Attributes:
        name: As in the tables.
        kind: What decides the length of a draft: nothing is drafted (plain), a number (fixed), measured costs
            (adaptive), or whatever a server was started with (server).
        n_max: Longest draft; 0 for plain, and for a server's own bound.
        url: The server that runs this arm alone.
    """

    name: str
    kind: Literal["plain", "fixed", "adaptive", "server"]
    n_max: int = 0
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Which rows a run makes.

    Attributes:
        max_tokens: Longest answer.
        temperature: 0 decodes greedily.
        seeds: Seeds of the draws and of the order; with temperature 0 of the order only.
        repeats: How often each prompt is run under each seed.
        raw: Also run the prompts without the chat template, as texts to continue.
        contexts: Also run them at the end of conversations of so many tokens.
        n_sweep_prompts: How many prompts the runs of raw and contexts take.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    seeds: tuple[int, ...] = (1,)
    repeats: int = 1
    raw: bool = False
    contexts: tuple[int, ...] = ()
    n_sweep_prompts: int = 12

    def __post_init__(self) -> None:
        """Check ranges."""
        check_int("max_tokens", self.max_tokens, 2)
        check_number("temperature", self.temperature, 0.0)
        check_int("repeats", self.repeats, 1)
        check_int("n_sweep_prompts", self.n_sweep_prompts, 1)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, not {self.seeds}")
        for seed in self.seeds:
            check_int("seeds", seed, 0, 2**64 - 1)
        for n_context in self.contexts:
            check_int("contexts", n_context, 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "seeds": list(self.seeds), "contexts": list(self.contexts)}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One prompt, one seed, one repeat, and the arms in the order in which they answer."""

    prompt: Prompt
    seed: int
    repeat: int
    mode: Mode
    n_context: int | None
    arms: tuple[Arm, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Names the block among those of a run; rows carry the same five fields."""
        return (self.prompt.id, self.seed, self.repeat, self.mode, self.n_context)


def make_arms(lengths: Sequence[int], *, adaptive: int | None, control: bool = True) -> tuple[Arm, ...]:
    """Plain decoding, the fixed draft lengths, the adaptive one.

    Args:
        lengths: Fixed lengths, 1 to 16.
        adaptive: Bound of the adaptive arm; None leaves it out.
        control: Add plain decoding a second time: its ratio to the first must cover 1.0.
    """
    arms = [Arm(name=PLAIN, kind="plain")]
    if control:
        arms.append(Arm(name=CONTROL, kind="plain"))
    arms += [Arm(name=f"k={k}", kind="fixed", n_max=check_int("k", k, 1, 16)) for k in sorted(set(lengths))]
    if adaptive is not None:
        arms.append(Arm(name="adaptive", kind="adaptive", n_max=check_int("n_max", adaptive, 1, 16)))
    return tuple(arms)


def make_server_arms(bounds: Sequence[int], *, control: bool = True) -> tuple[Arm, ...]:
    """The arms of one server whose drafting requests can bound and turn off: plain, as it was started, with bounds."""
    arms = [*make_arms([], adaptive=None, control=control), Arm(name="as started", kind="server")]
    return (
        *arms,
        *(Arm(name=f"n_max={k}", kind="server", n_max=check_int("k", k, 1, 16)) for k in sorted(set(bounds))),
    )


def make_blocks(suite: Suite, arms: Sequence[Arm], options: BenchOptions) -> list[Block]:
    """All blocks in the order in which they are run; the same arguments give the same order.

    First the suite as chats, each seed's prompts in an order of its own, then the sweeps one by one: what an adaptive
    arm learns of long conversations must not reach the figures of the suite.
    """
    few = suite.part(options.n_sweep_prompts).prompts
    some = _some_arms(arms)
    kinds: list[tuple[Mode, int | None, Sequence[Prompt], Sequence[Arm]]] = [("chat", None, suite.prompts, arms)]
    kinds += [("raw", None, few, some)] if options.raw else []
    kinds += [("chat", n_context, few, some) for n_context in sorted(set(options.contexts))]
    blocks: list[Block] = []
    for mode, n_context, prompts, its_arms in kinds:
        for repeat, seed in product(range(options.repeats), options.seeds):
            chance = random.Random(f"{seed} {repeat} {mode} {n_context}")
            blocks += (
                Block(
                    prompt=p, seed=seed, repeat=repeat, mode=mode, n_context=n_context, arms=_shuffled(its_arms, chance)
                )
                for p in _shuffled(prompts, chance)
            )
    return blocks


def _some_arms(arms: Sequence[Arm]) -> list[Arm]:
    """The arms of the sweeps: without the control, and of many fixed lengths the shortest, the middle, the longest."""
    fixed = [arm for arm in arms if arm.kind == "fixed"]
    kept = fixed if len(fixed) <= 3 else [fixed[0], fixed[(len(fixed) - 1) // 2], fixed[-1]]
    return [arm for arm in arms if arm.name != CONTROL and (arm.kind != "fixed" or arm in kept)]


def _shuffled(items: Sequence[T], chance: random.Random) -> tuple[T, ...]:
    """The items in a random order."""
    return tuple(chance.sample(list(items), len(items)))
