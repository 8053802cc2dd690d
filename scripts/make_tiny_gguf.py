#!/usr/bin/env python3
"""Write a random GGUF model with a NextN draft head from a seed.

    python scripts/make_tiny_gguf.py OUT.gguf --preset tiny-dense
    python scripts/make_tiny_gguf.py OUT.gguf --preset tiny-moe --type q8_0 --seed 7 --untied
    python scripts/make_tiny_gguf.py OUT.gguf --preset shape-0.8b --type q4_0 --output-type q8_0

Tests use the tiny presets, measurements the `shape-*` ones, which have the sizes of published models. The same
arguments give the same bytes. A tensor's values depend on the seed, its name and its shape alone, so a head-only file
fits the full file of the same seed, and a quantized file is its F32 file quantized.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from tiny_gguf.shapes import ARCHITECTURES, HEAD_TENSORS, PRESETS, Shape
from tiny_gguf.writer import TYPES, make


def main(argv: list[str] | None = None) -> None:
    """Command line: each size of `Shape` is an option that overrides the preset's."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    ap.add_argument("out", type=Path)
    ap.add_argument("--preset", choices=PRESETS, default="tiny-dense")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--type", choices=TYPES, default="f32", help="matrices of the body")
    ap.add_argument("--output-type", choices=TYPES, help="LM head; default: --type")
    ap.add_argument("--embd-type", choices=TYPES, help="untied token embedding; default: --type")
    ap.add_argument("--special-scale", type=float, default=0.2, help="size of the control tokens' LM head rows")
    which = ap.add_mutually_exclusive_group()
    for option, part in (("--no-nextn", "trunk"), ("--head-only", "head"), ("--legacy-head", "legacy-head")):
        which.add_argument(option, dest="part", action="store_const", const=part, default="full")
    tie = ap.add_mutually_exclusive_group()
    tie.add_argument("--tied", dest="tied", action="store_true", default=None)
    tie.add_argument("--untied", dest="tied", action="store_false")
    ap.add_argument("--head-tensors", nargs="*", choices=HEAD_TENSORS, help="optional tensors of the NextN block")
    ap.add_argument("--arch", choices=ARCHITECTURES)
    sizes = {f.name: {"int": int, "float": float}[str(f.type)] for f in dataclasses.fields(Shape)
             if f.type in ("int", "float")}  # fmt: skip
    for name, number in sizes.items():
        ap.add_argument("--" + name.replace("_", "-"), type=number)
    args = ap.parse_args(argv)
    given = {name: getattr(args, name) for name in (*sizes, "arch", "tied") if getattr(args, name) is not None}
    if args.head_tensors is not None:
        given["head_tensors"] = tuple(args.head_tensors)
    try:
        shape = dataclasses.replace(PRESETS[args.preset], **given)
    except ValueError as e:
        ap.error(str(e))
    make(args.out, shape, seed=args.seed, weight_type=args.type, output_type=args.output_type,
         embd_type=args.embd_type, part=args.part, special_scale=args.special_scale)  # fmt: skip
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
