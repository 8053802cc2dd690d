"""nextn doctor: what was built, what this machine is, what a model file holds, and what would make it faster."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nextn import _core
from nextn._binary import server_binary
from nextn._cli.models import find_model
from nextn._cli.version import version_text
from nextn._threads import default_n_threads
from nextn.errors import NextnError
from nextn.gguf import Inspection, inspect

_EXTRAS = {"hf": "huggingface_hub", "server": "httpx", "bench": "scipy"}
_HEAD_ADVICE = {
    "none": "it has no draft head: look for a GGUF of it with its MTP (NextN) layers, or name a head with -md",
    "missing": "its draft head was lost in a conversion: look for another file, or name a head with -md",
    "incomplete": "its draft head lacks tensors: fetch the file again, or name a head with -md",
    "undeclared": "the metadata does not declare its draft head, so the engine ignores it: look for another file",
    "unsupported": "its draft head is of a kind that nextn does not run",
}


def run(args: argparse.Namespace) -> None:
    """Print the report."""
    found: dict[str, Any] = {"version": version_text(), "engine": _core.engine_info(), "machine": _machine()}
    model = inspect(find_model(args))
    found["model"] = asdict(model)
    found["exact_kernels"] = _kernels(model)
    found["advice"] = _advice(found, model)
    print(json.dumps(found, ensure_ascii=False) if args.json else "\n".join(_report(found, model)))


def _machine() -> dict[str, Any]:
    """What the engine runs on."""
    try:
        server = str(server_binary())
    except NextnError:
        server = None
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": default_n_threads(),
        "cpus": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "gpu_seen": any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/kfd")),
        "llama_server": server,
        "extras": {extra: importlib.util.find_spec(module) is not None for extra, module in _EXTRAS.items()},
    }


def _kernels(model: Inspection) -> dict[str, bool]:
    """The types of the file's weights, and whether the engine reads each once for all tokens of a draft."""
    sizes: dict[str, int] = {}
    for part in model.parts:
        if part.name != "embedding":  # rows are looked up, not multiplied
            for name, size in part.types.items():
                sizes[name] = sizes.get(name, 0) + size
    shared = set(_core.shared_types())
    return {name: name in shared for name in sorted(sizes, key=lambda name: -sizes[name])}


def _advice(found: dict[str, Any], model: Inspection) -> list[str]:
    """What would make it faster."""
    machine, engine = found["machine"], found["engine"]
    features = {name for backend in engine["backends"] for name in backend["features"]}
    advice = []
    if model.head.state != "complete":
        advice.append(_HEAD_ADVICE[model.head.state])
    slow = [name for name, has_kernel in found["exact_kernels"].items() if not has_kernel]
    fast = _core.shared_types()
    if slow and fast:
        advice.append(f"weights of type {', '.join(slow)} are verified one token at a time: a file of "
                      f"{', '.join(fast)} verifies drafts faster")  # fmt: skip
    if platform.machine() in ("x86_64", "AMD64") and "AVX2" not in features:
        advice.append("this CPU, or this build, has no AVX2: there are no fast kernels to verify drafts with")
    if machine["gpu_seen"] and not engine["supports_gpu_offload"]:
        advice.append('there is a GPU, but no backend for it: CMAKE_ARGS="-DGGML_CUDA=ON" pip install . builds one')
    if model.size > machine["memory"]:
        advice.append("the file is larger than the memory, so every token reads from the disk: take a smaller one")
    if machine["governor"] in ("powersave", "conservative"):
        advice.append(f"the CPU's clock is governed by {machine['governor']}: performance is faster")
    if machine["threads"] == 1 and (machine["cpus"] or 1) > 1:
        advice.append("this process may use one core only (CPU affinity or the container's quota)")
    return advice


def _report(found: dict[str, Any], model: Inspection) -> list[str]:
    """The report for people."""
    engine, machine = found["engine"], found["machine"]
    lines = [found["version"], f"  compiler   {engine['compiler']}"]
    for backend in engine["backends"]:
        features = " ".join(name for name, value in backend["features"].items() if value != "0")
        lines.append(f"  backend    {backend['name']}: {features}")
    lines += [
        f"  device     {device['name']}: {device['description']} ({device['memory_total'] / 1e9:.1f} GB)"
        for device in engine["devices"]
    ]
    lines.append(f"  threads    {machine['threads']} of {machine['cpus']} logical CPUs")
    lines.append(f"  server     {machine['llama_server'] or 'not built'}")
    extras = (f"{extra} {'yes' if there else 'no'}" for extra, there in machine["extras"].items())
    lines.append(f"  extras     {', '.join(extras)}")
    lines += [
        "",
        f"{model.files[0]}",
        f"  model      {model.architecture}, {model.file_type}, {model.size / 1e6:,.0f} MB",
    ]
    lines.append(f"  draft head {model.head.state}" + (f": {model.head.problem}" if model.head.problem else ""))
    kernels = (f"{name} {'yes' if there else 'one token at a time'}" for name, there in found["exact_kernels"].items())
    lines.append(f"  exact kernels for drafts: {', '.join(kernels)}")
    gpus = [device["name"] for device in engine["devices"] if device["type"] == "gpu"]
    if gpus:
        lines.append(f"  exact text: on the CPU (-ngl 0), not with layers on {', '.join(gpus)}; --exact checks")
    lines.append("")
    lines += [f"faster: {line}" for line in found["advice"]] or ["nothing was found that would make it faster"]
    return lines


def _read(path: Path) -> str | None:
    """A small file of the system, None without it."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
