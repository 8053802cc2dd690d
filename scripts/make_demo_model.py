#!/usr/bin/env python3
"""Make the bundled demo model, or one like it: check, train, export, measure.

    python scripts/make_demo_model.py all --work WORK              # about 95 minutes on two cores
    python scripts/make_demo_model.py all --work WORK --smoke      # the same steps in three minutes; the model is poor
    python scripts/make_demo_model.py measure python/nextn/models/nextn-demo-q8_0.gguf
    python scripts/make_demo_model.py corpus --show 5

scripts/demo_model/README.md explains the steps and what they need.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from demo_model import corpus, heldout

NAME = "nextn-demo"
SMOKE = {"conversations": 3000, "trunk_minutes": 0.6, "head_minutes": 0.4, "compile": False}


def run_check() -> None:
    """Check the PyTorch model."""
    from demo_model.check import check  # here and below: PyTorch and nextn only where they are needed

    check()


def run_train(args: argparse.Namespace) -> Path:
    """Train; returns the last checkpoint."""
    from demo_model.train import Options, train

    given = {
        "trunk_minutes": args.trunk_minutes,
        "head_minutes": args.head_minutes,
        "conversations": args.conversations,
        "threads": args.threads,
    }
    chosen = (SMOKE if args.smoke else {}) | {k: v for k, v in given.items() if v is not None}
    return train(args.work, Options(**chosen), args.init)


def run_export(work: Path, checkpoint: Path, weight_type: str) -> Path:
    """Write a GGUF file into the work folder."""
    from demo_model.export_gguf import export
    from demo_model.prepare import TOKENIZER
    from demo_model.train import load_checkpoint

    cfg, state = load_checkpoint(checkpoint)
    out = work / f"{NAME}-{weight_type}.gguf"
    export(out, cfg, {k: v.float().numpy() for k, v in state.items()}, work / TOKENIZER, weight_type=weight_type)
    print(f"{out}: {sum(v.numel() for v in state.values())} parameters")
    return out


def run_measure(model: Path, *, draft_lengths: list[int], max_tokens: int, threads: int | None) -> None:
    """Print acceptance on the held-out prompts; fails when speculation changes a token."""
    from demo_model.measure import measure

    exact = measure(model, heldout.read(), draft_lengths=draft_lengths, max_tokens=max_tokens, threads=threads)
    if not exact:
        raise SystemExit("speculation changed the tokens of at least one prompt")


def run_all(args: argparse.Namespace) -> None:
    """All steps; measuring needs nextn beside PyTorch and is left out without it."""
    run_check()
    checkpoint = run_train(args)
    files = [run_export(args.work, checkpoint, weight_type) for weight_type in ("f16", "q8_0")]
    if importlib.util.find_spec("nextn") is None:
        print(f"nextn is not installed here; where it is: python scripts/make_demo_model.py measure {files[-1]}")
        return
    run_measure(files[-1], draft_lengths=args.draft_lengths, max_tokens=args.max_tokens, threads=args.threads)


def run_corpus(args: argparse.Namespace) -> None:
    """Print conversations and counts, or write the held-out files."""
    data = corpus.training_set(args.n, args.seed)
    for arm, conversation in data[: args.show]:
        print(f"--- {arm}\n{corpus.render(conversation)}")
    for arm in corpus.ARMS:
        part = [c for a, c in data if a == arm]
        characters = sum(len(corpus.render(c)) for c in part)
        prompts = {c[-2]["content"] for c in part}
        print(f"{arm}: {len(part)} conversations, {characters} characters, {len(prompts)} different last prompts")
    if args.heldout:
        heldout.write(heldout.heldout_set(), args.heldout)
        print(f"wrote {heldout.PROMPTS} and {heldout.REFERENCES} to {args.heldout}")


def add_training_options(ap: argparse.ArgumentParser) -> None:
    """Options of `train` and `all`."""
    ap.add_argument("--work", type=Path, required=True, help="folder for data, checkpoints, logs and GGUF files")
    ap.add_argument("--smoke", action="store_true", help="tiny sizes that only show that every step works")
    ap.add_argument("--trunk-minutes", type=float, help="0 leaves the phase out (default: 68)")
    ap.add_argument("--head-minutes", type=float, help="0 leaves the phase out (default: 20)")
    ap.add_argument("--conversations", type=int, help="default: 120000")
    ap.add_argument("--init", type=Path, help="checkpoint to start from")


def add_measuring_options(ap: argparse.ArgumentParser) -> None:
    """Options of `measure` and `all`."""
    ap.add_argument("--draft-lengths", type=int, nargs="+", default=[1, 2, 3, 4, 6], metavar="K")
    ap.add_argument("--max-tokens", type=int, default=128)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Command line."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    steps = ap.add_subparsers(dest="step", required=True)
    everything = steps.add_parser("all", help="check, train, export, measure")
    steps.add_parser("check", help="check the PyTorch model")
    training = steps.add_parser("train", help="train in a folder")
    exporting = steps.add_parser("export", help="write a checkpoint as GGUF")
    measuring = steps.add_parser("measure", help="acceptance on the held-out prompts")
    showing = steps.add_parser("corpus", help="look at the training text")
    for step in (everything, training):
        add_training_options(step)
    for step in (everything, measuring):
        add_measuring_options(step)
    for step in (everything, training, measuring):
        step.add_argument("--threads", type=int, help="default: 2 for training, nextn's own for measuring")
    exporting.add_argument("--work", type=Path, required=True, help="folder with the tokenizer")
    exporting.add_argument("--checkpoint", type=Path, required=True)
    exporting.add_argument("--type", default="q8_0", help="f32, f16 or q8_0 (default: %(default)s)")
    measuring.add_argument("model", type=Path)
    showing.add_argument("--show", type=int, default=0, metavar="N", help="print the first N conversations")
    showing.add_argument("--n", type=int, default=20000, help="conversations to count (default: %(default)s)")
    showing.add_argument("--seed", type=int, default=1)
    showing.add_argument("--heldout", type=Path, metavar="DIR", help="write the held-out files to this folder")
    return ap.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the step that the command line names."""
    args = parse(argv)
    if args.step == "all":
        run_all(args)
    elif args.step == "check":
        run_check()
    elif args.step == "train":
        print(run_train(args))
    elif args.step == "export":
        run_export(args.work, args.checkpoint, args.type)
    elif args.step == "measure":
        run_measure(args.model, draft_lengths=args.draft_lengths, max_tokens=args.max_tokens, threads=args.threads)
    else:
        run_corpus(args)


if __name__ == "__main__":
    main()
