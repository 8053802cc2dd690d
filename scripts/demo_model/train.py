"""Training on CPU: first the trunk, then the NextN head.

The trunk learns the next token of the assistant's words. The head then learns,
with the trunk frozen, on its own chain: four steps, each fed with the head's
previous output, against the trunk's token distribution, which is what a greedy
verifier will follow.

Both phases run for a wall-clock budget; the learning rate follows the elapsed
share of it, so a run always ends fully annealed.
"""
# mypy: disable-error-code="import-not-found"
# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import ctypes
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from . import corpus
from .config import Config
from .dataset import ROW, Rows, batches
from .layers import Packing, make_packing
from .model import Model
from .optimizer import Optimizer
from .prepare import prepare

Chain = Callable[[Tensor, Tensor, Packing, int], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long and how to train. A phase of 0 minutes is left out."""

    trunk_minutes: float = 68
    head_minutes: float = 20
    conversations: int = 120_000
    seed: int = 1  # of the conversations
    rows: int = 8  # in a batch
    threads: int = 2
    compile: bool = True
    lr_matrix: float = 0.02
    lr_other: float = 0.003
    hold: float = 0.35  # share of a phase before the learning rate falls
    chain: int = 4  # steps of the draft chain
    chain_decay: float = 0.85  # weight of a chain step relative to the one before
    hidden_weight: float = 0.5  # of the regression on the trunk's hidden state
    save_minutes: float = 5


class Batch(NamedTuple):
    """One batch on the training device."""

    tokens: Tensor  # [B, T]
    target: Tensor  # [B, T] the next token
    learn: Tensor  # [B, T] bool: is the next token to be learned
    packing: Packing


def batch_of(rows: Rows, cfg: Config) -> Batch:
    """Tensors of some rows."""
    tokens, learn, doc = (torch.from_numpy(a.astype(np.int64)) for a in rows)
    same = F.pad(doc, (0, 1), value=-9)[:, 1:] == doc
    return Batch(
        tokens=tokens,
        target=F.pad(tokens, (0, 1))[:, 1:],
        learn=(F.pad(learn, (0, 1))[:, 1:] > 0) & same,
        packing=make_packing(doc, cfg),
    )


def first_rows(rows: Rows, n: int) -> Rows:
    """The first n rows, filled up with empty ones: compiled layers want one shape."""
    missing = max(0, n - len(rows.tokens))
    fill = {"tokens": 0, "learn": 0, "doc": -1}
    return Rows(
        **{k: np.pad(a[:n], ((0, missing), (0, 0)), constant_values=fill[k]) for k, a in rows._asdict().items()}
    )


def schedule(progress: float, hold: float, warm: float = 0.02) -> float:
    """Learning-rate factor at progress 0..1: warm-up, plateau, linear to almost zero."""
    if progress < warm:
        return max(progress / warm, 0.02)
    if progress < hold:
        return 1.0
    return max(0.01, (1 - progress) / (1 - hold))


@torch.no_grad()
def evaluate(model: Model, sets: dict[str, Rows], rows: int, chain_steps: int) -> dict[str, dict[str, Any]]:
    """Per arm: loss and accuracy of the next token, and the chain steps' agreement with the trunk's first choice."""
    report: dict[str, dict[str, Any]] = {}
    for arm in corpus.ARMS:
        batch = batch_of(first_rows(sets[arm], rows), model.cfg)
        h = model.trunk(batch.tokens, batch.packing)
        logits, target = model.logits(h[batch.learn]), batch.target[batch.learn]
        top = logits.argmax(-1)
        report[arm] = {
            "loss": round(F.cross_entropy(logits, target).item(), 4),
            "acc": round((top == target).float().mean().item(), 4),
        }
        if chain_steps:
            chain = model.nextn_chain(batch.tokens, h, batch.packing, chain_steps)
            choices = [model.logits(o[batch.learn]).argmax(-1) for o in chain]
            report[arm]["agree"] = [round((c == top).float().mean().item(), 4) for c in choices]
    return report


def trunk_loss(model: Model, batch: Batch) -> tuple[Tensor, list[float]]:
    """Next-token loss."""
    logits = model.logits(model.trunk(batch.tokens, batch.packing)[batch.learn])
    loss = F.cross_entropy(logits, batch.target[batch.learn])
    return loss, [loss.item()]


def head_loss(model: Model, batch: Batch, chain_of: Chain, options: Options) -> tuple[Tensor, list[float]]:
    """Weighted loss over the chain steps, and each step's cross-entropy against the trunk's distribution."""
    with torch.no_grad():
        h = model.trunk(batch.tokens, batch.packing)
        wanted = h[batch.learn]
        probabilities = model.logits(wanted).softmax(-1)
        scale = wanted.pow(2).mean()
    loss, total, parts = torch.zeros(()), 0.0, []
    for j, rows in enumerate(chain_of(batch.tokens, h, batch.packing, options.chain)):
        got, weight = rows[batch.learn], options.chain_decay**j
        entropy = -(probabilities * model.logits(got).log_softmax(-1)).sum(-1).mean()
        loss = loss + weight * (entropy + options.hidden_weight * F.mse_loss(got, wanted) / scale)
        total += weight
        parts.append(entropy.item())
    return loss / total, parts


def warm_start_head(model: Model) -> None:
    """Begin as a copy of the last full-attention layer that reads mostly the hidden state."""
    source = next(layer for layer in reversed(model.layers) if layer.full)
    model.nextn.layer.load_state_dict(source.state_dict())
    c = model.cfg.n_embd
    with torch.no_grad():
        w = model.nextn.eh_proj.weight
        w.mul_(0.3)
        w[:, :c] += 0.5 * torch.eye(c)
        w[:, c:] += 1.0 * torch.eye(c)
        model.nextn.head_norm.weight.copy_(model.norm.weight)


@dataclass(kw_only=True)
class Trainer:
    """Runs phases over one model; writes checkpoints and log lines to the work folder."""

    model: Model
    sets: dict[str, Rows]
    options: Options
    work: Path

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    def log(self, **fields: Any) -> None:
        """Append one line to the log."""
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps({"t": round(time.monotonic() - self.begun, 1), **fields}) + "\n")

    def save(self, phase: str) -> None:
        """Write a checkpoint; an interruption leaves the previous one whole."""
        path = self.work / f"{phase}.pt"
        partial = path.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), "config": self.model.cfg.to_dict()}, partial)
        os.replace(partial, path)

    def train_trunk(self) -> None:
        """Phase 1."""
        params = [(n, p) for n, p in self.model.named_parameters() if not n.startswith("nextn")]
        self.run("trunk", self.options.trunk_minutes, params, 5, lambda batch: trunk_loss(self.model, batch))

    def train_head(self) -> None:
        """Phase 2; freezes the trunk."""
        warm_start_head(self.model)
        for name, p in self.model.named_parameters():
            p.requires_grad_(name.startswith("nextn"))
        params = [(n, p) for n, p in self.model.named_parameters() if n.startswith("nextn")]
        chain_of = torch.compile(self.model.nextn_chain) if self.options.compile else self.model.nextn_chain
        self.run(
            "head",
            self.options.head_minutes,
            params,
            6,
            lambda batch: head_loss(self.model, batch, chain_of, self.options),
        )

    def run(
        self,
        phase: str,
        minutes: float,
        params: list[tuple[str, nn.Parameter]],
        seed: int,
        loss_of: Callable[[Batch], tuple[Tensor, list[float]]],
    ) -> None:
        """Train `params` for the given time; the first step, which compiles, does not count."""
        o = self.options
        optimizer = Optimizer(params, lr_matrix=o.lr_matrix, lr_other=o.lr_other)
        rows = self.sets["train"]
        begun = saved = 0.0
        mean: list[float] = []
        for step, index in enumerate(batches(len(rows.tokens), o.rows, seed), start=1):
            loss, parts = loss_of(batch_of(rows.take(index), self.model.cfg))
            loss.backward()
            now = time.monotonic()
            if step == 1:
                begun = saved = now
            progress = (now - begun) / (minutes * 60)
            norm = nn.utils.clip_grad_norm_(optimizer.other, 1.0)
            if not (torch.isfinite(norm) and torch.isfinite(loss)):
                raise RuntimeError(f"{phase}, step {step}: loss {loss.item()}, gradient norm {norm.item()}")
            optimizer.step(schedule(progress, o.hold))
            optimizer.zero_grad()
            mean = [0.95 * a + 0.05 * b for a, b in zip(mean, parts, strict=True)] if mean else parts
            if step % 20 == 0:
                losses = [round(m, 4) for m in mean]
                self.log(phase=phase, step=step, tokens=step * o.rows * ROW, progress=round(progress, 4), loss=losses)
            if progress >= 1 or now - saved > o.save_minutes * 60:
                saved = now
                chain_steps = o.chain if phase == "head" else 0
                self.log(phase=phase, step=step, eval=evaluate(self.model, self.sets, o.rows, chain_steps))
                self.save(phase)
            if progress >= 1:
                return


def keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks: giving them back and zeroing them again took a large part of each step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def load_checkpoint(path: Path) -> tuple[Config, dict[str, Tensor]]:
    """Sizes and weights of a checkpoint."""
    data = torch.load(path, weights_only=True)
    return Config(**data["config"]), data["model"]


def train(work: Path, options: Options, init: Path | None = None) -> Path:
    """Train in a folder, which then holds the tokenizer, the packed rows, checkpoints and `log.jsonl`.

    Args:
        work: The folder; its tokenizer and rows are used again if it has them.
        options: How to train.
        init: Checkpoint to start from instead of random weights.

    Returns:
        The checkpoint of the last phase.
    """
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    work.mkdir(parents=True, exist_ok=True)
    model = Model(Config())
    if init:
        model.load_state_dict(load_checkpoint(init)[1])
    sets = prepare(work, model.cfg, options.conversations, options.seed)
    rows = sets["train"]
    print(f"{len(rows.tokens)} rows, {(rows.doc >= 0).sum()} tokens, {rows.learn.sum()} to learn", flush=True)
    if options.compile:
        import torch._inductor.config as inductor

        inductor.compile_threads = options.threads
        for layer in model.layers:
            layer.compile()
    trainer = Trainer(model=model, sets=sets, options=options, work=work)
    last = init
    for phase, minutes, run in (
        ("trunk", options.trunk_minutes, trainer.train_trunk),
        ("head", options.head_minutes, trainer.train_head),
    ):
        if minutes > 0:
            print(f"training the {phase} for {minutes:g} minutes", flush=True)
            run()
            last = work / f"{phase}.pt"
    if last is None:
        raise ValueError("trunk_minutes and head_minutes are both 0 and there is no checkpoint: nothing to do")
    return last
