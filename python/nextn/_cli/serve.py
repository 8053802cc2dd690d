"""nextn serve: a model behind OpenAI's API."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from types import FrameType

from nextn._cli.models import read_draft
from nextn._cli.parser import UsageError
from nextn._cli.talk import say
from nextn.options import DraftParams
from nextn.server import Server
from nextn.server.command import SpecType


def run(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM, then let running requests end."""
    if args.exact:
        raise UsageError("--exact does not go with nextn serve: the server does not check it; nextn generate does")
    draft = read_draft(args)
    spec_type: SpecType = "auto"
    if draft is not None and (args.model_draft is not None or draft != DraftParams()):
        spec_type = "nextn"  # asked for: a model without a head is an error then
    if args.model is None:
        say("no -m FILE: serving the small demo model that comes with nextn")

    previous = signal.signal(signal.SIGTERM, _end)
    server = Server(
        args.model,
        spec_type=spec_type,
        draft=draft,
        draft_model=args.model_draft,
        host=args.host,
        port=args.port,
        api_key=args.api_key or os.environ.get("LLAMA_API_KEY"),
        n_ctx=args.ctx_size,
        n_parallel=args.parallel,
        n_threads=args.threads,
        n_gpu_layers=None if args.n_gpu_layers < 0 else args.n_gpu_layers,
        rpc_servers=args.rpc or (),
        extra_args=[*_load_options(args), *args.extra],
    )
    try:
        server.wait_ready(args.timeout)
        _announce(server, args)
        while True:
            time.sleep(0.1)
            server.check()
    except (KeyboardInterrupt, _EndedError):
        say("stopping")
    finally:
        server.stop(grace=args.grace)
        signal.signal(signal.SIGTERM, previous)


class _EndedError(Exception):
    """SIGTERM came."""


def _end(_signal: int, _frame: FrameType | None) -> None:
    """Leave the wait."""
    raise _EndedError


def _load_options(args: argparse.Namespace) -> list[str]:
    """How the file is read, in llama-server's words."""
    modes = {(False, False): "auto", (False, True): "mmap+mlock", (True, False): "none", (True, True): "mlock"}
    return ["--load-mode", modes[args.no_mmap, args.mlock]]


def _announce(server: Server, args: argparse.Namespace) -> None:
    """Say where it listens."""
    if args.json:
        print(json.dumps({"base_url": server.base_url, "pid": server.pid, "spec_type": server.spec_type}), flush=True)
    say(f"serving at {server.base_url} (OpenAI's API: {server.base_url}/v1), drafting: {server.spec_type}")
