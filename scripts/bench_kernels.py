#!/usr/bin/env python3
"""Time narrow matrix products of one or two engine builds, interleaved.

One row per weight type: the milliseconds of one column, and the ratio to it of the product with more columns. With two
builds (say the pinned engine's and ours) every measurement alternates between them, so that a busy machine hits both.

    python scripts/bench_kernels.py BUILD/bin [OTHER_BUILD/bin] --types Q8_0,Q4_0 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ggml_ctypes import F32, I32, TYPES, Ggml, Graph

# name, type, repacked, row length, rows: a head of 0.8B shape shortened, large enough to leave every cache. In a case
# whose name ends in "experts" the rows are those of 128 experts, of which every token takes the same 8 (mul_mat_id); in
# one that ends in "choices" each token takes 8 of its own.
CASES = [
    ("Q8_0", "Q8_0", False, 1024, 131072),
    ("Q6_K", "Q6_K", False, 1024, 131072),
    ("Q5_K", "Q5_K", False, 1024, 131072),
    ("Q4_K", "Q4_K", False, 1024, 131072),
    ("Q4_K repacked", "Q4_K", True, 1024, 131072),
    ("Q3_K", "Q3_K", False, 1024, 131072),
    ("Q4_0", "Q4_0", False, 1024, 131072),
    ("Q4_0 repacked", "Q4_0", True, 1024, 131072),
    ("IQ4_NL", "IQ4_NL", False, 1024, 131072),
    ("IQ4_NL repacked", "IQ4_NL", True, 1024, 131072),
    ("Q8_0 experts", "Q8_0", False, 2048, 65536),
    ("Q4_0 experts", "Q4_0", True, 2048, 65536),
    ("Q4_K experts", "Q4_K", True, 2048, 65536),
    ("Q6_K experts", "Q6_K", False, 2048, 65536),
    ("Q4_0 choices", "Q4_0", True, 2048, 65536),
    ("Q4_K choices", "Q4_K", True, 2048, 65536),
    ("Q5_0", "Q5_0", False, 1024, 131072),
    ("Q5_1", "Q5_1", False, 1024, 131072),
    ("Q4_1", "Q4_1", False, 1024, 131072),
    ("Q2_K", "Q2_K", False, 1024, 131072),
    ("Q2_K repacked", "Q2_K", True, 1024, 131072),
    ("IQ4_XS", "IQ4_XS", False, 1024, 131072),
    ("F16", "F16", False, 1024, 65536),
    ("BF16", "BF16", False, 1024, 65536),
    ("F32", "F32", False, 1024, 32768),
]
N_EXPERT, N_USED = 128, 8
# Threads that wait spin for about a millisecond: longer than between two operations, but not while another build is
# measured, which starts after this many seconds.
SPIN = {"GOMP_SPINCOUNT": "20000"}
SETTLE = 0.003


def work(directory: Path, n_threads: int) -> None:
    """Answer requests on stdin: set a case up, then time one product of m columns."""
    ggml = Ggml(directory, n_threads)
    graphs: dict[int, Graph] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            for graph in graphs.values():
                graph.close()
            graphs = make_graphs(ggml, request["case"], request["columns"])
            answer = 0.0
        else:
            graph = graphs[request["m"]]
            time.sleep(SETTLE)
            graph.run()  # wakes the threads
            start = time.perf_counter()
            graph.run()
            answer = time.perf_counter() - start
        print(json.dumps(answer), flush=True)


def make_graphs(ggml: Ggml, case: list[Any], columns: list[int]) -> dict[int, Graph]:
    """One graph per number of columns over the same weights."""
    name, type_name, repacked, n, n_rows = case
    rng = np.random.default_rng(0)
    base = Graph(ggml)
    experts = name.endswith(("experts", "choices"))
    shape = (n, n_rows // N_EXPERT, N_EXPERT) if experts else (n, n_rows)
    weight = base.tensor(TYPES[type_name], *shape, weight=True)
    block = ggml.quantize(type_name, rng.standard_normal((256, n)))
    base.prepare([], {weight: np.tile(block, n_rows // 256)}, "CPU_REPACK" if repacked else "CPU")
    graphs = {0: base}
    for m in columns:
        graph = graphs[m] = Graph(ggml)
        x = graph.tensor(F32, n, 1, m) if experts else graph.tensor(F32, n, m)
        data = {x: rng.standard_normal((m, n)).astype(np.float32)}
        if experts:
            ids = graph.tensor(I32, N_USED, m)
            chosen = np.stack([rng.permutation(N_EXPERT)[:N_USED] for _ in range(m)])
            data[ids] = (chosen if name.endswith("choices") else chosen[:1].repeat(m, axis=0)).astype(np.int32)
            out = ggml.base.ggml_mul_mat_id(graph.context, weight, x, ids)
        else:
            out = ggml.base.ggml_mul_mat(graph.context, weight, x)
        graph.prepare([out], data)
    return graphs


class Build:
    """A worker process on one build's libraries."""

    def __init__(self, directory: Path, n_threads: int) -> None:
        command = [sys.executable, __file__, str(directory), "--worker", "--threads", str(n_threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | SPIN,
        )

    def ask(self, **request: object) -> float:
        """Send a request and wait for the seconds it took."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


def main() -> None:
    """Time every type on every build, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, nargs="+", help="directory of the ggml libraries of a build")
    parser.add_argument("--columns", default="1,2,3,4,6,8", help="numbers of columns, 1 first")
    parser.add_argument("--types", default=",".join(case[0] for case in CASES))
    parser.add_argument(
        "--rows", type=int, help="another number of rows; 1024 fit the cache and show the arithmetic alone"
    )
    parser.add_argument("--row-length", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--statistic", choices=["median", "min"], default="median")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.build[0], args.threads)
        return

    columns = [int(m) for m in args.columns.split(",")]
    summary = statistics.median if args.statistic == "median" else min
    builds = [Build(directory, args.threads) for directory in args.build]
    print(
        f"{'weight':<16} {'build':<6} {'ms (1)':>9}  "
        + " ".join(f"{m:>6}" for m in columns[1:])
        + "   against build 1, one column"
    )
    for case in (c for c in CASES if c[0] in args.types.split(",")):
        for build in builds:
            build.ask(case=[*case[:3], args.row_length, args.rows or case[4]], columns=columns)
        times: dict[tuple[int, int], list[float]] = {}
        for _ in range(args.repeats + 1):
            for m in columns:
                for i, build in enumerate(builds):
                    times.setdefault((i, m), []).append(build.ask(m=m))
        result = {key: summary(values[1:]) for key, values in times.items()}
        for i in range(len(builds)):
            ratios = " ".join(f"{result[i, m] / result[i, 1]:6.2f}" for m in columns[1:])
            print(
                f"{case[0]:<16} {i + 1:<6} {result[i, 1] * 1e3:9.4f}  {ratios}   {result[0, 1] / result[i, 1]:5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
