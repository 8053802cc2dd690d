"""From options to a Speculator."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from nextn._cli.interrupt import abort_on_interrupt
from nextn._cli.parser import UsageError
from nextn._cli.talk import Progress, say
from nextn.bundled import bundled_model
from nextn.hub import download, parse_hf
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator

_DRAFT_OPTIONS = {
    "draft_max": "n_max",
    "draft_min": "n_min",
    "draft_p_min": "p_min",
    "draft_vocab": "vocab",
    "no_adaptive": "adaptive",
}


@contextmanager
def open_models(args: argparse.Namespace) -> Iterator[tuple[Model, Model | None]]:
    """Load the model and, when it comes from another file, the one with the draft head."""
    path = find_model(args)
    with ExitStack() as opened:
        model = opened.enter_context(_load(path, args))
        head = opened.enter_context(_load(args.model_draft, args)) if args.model_draft is not None else None
        yield model, head


def find_model(args: argparse.Namespace) -> str:
    """Path of the model: a file, one from a hub, or the bundled one."""
    if args.hf_repo is not None:
        if args.model is not None:
            raise UsageError("give the model with -m FILE or with -hf USER/REPO, not both")
        repo_id, quant = parse_hf(args.hf_repo)
        if args.hf_file is not None and quant is not None:
            raise UsageError("-hff names the file; leave the quantization out of -hf")
        bar = sys.stderr is not None and sys.stderr.isatty()
        return str(download(repo_id, args.hf_file, quant=quant, progress_bar=bar))
    if args.hf_file is not None:
        raise UsageError("-hff needs -hf USER/REPO")
    if args.model is None:
        say("no -m FILE: using the small demo model that comes with nextn")
        return str(bundled_model())
    return str(args.model)


def load_model(path: str, **options: Any) -> Model:
    """Load one file; the engine's calls to the bar also give Python a chance to see Ctrl-C meanwhile."""
    with Progress("loading the model", delay=1.0) as progress:
        return Model(path, progress=progress, **options)


def _load(path: str, args: argparse.Namespace) -> Model:
    """Load one file as the options say."""
    workers = getattr(args, "rpc", None) or ()  # not every command that loads a model has the option
    return load_model(
        path, n_gpu_layers=args.n_gpu_layers, rpc_servers=workers, use_mmap=not args.no_mmap, use_mlock=args.mlock
    )


@contextmanager
def open_speculator(
    model: Model, head: Model | None, draft: DraftParams | None, args: argparse.Namespace
) -> Iterator[Speculator]:
    """Make a Speculator whose running decode ends at Ctrl-C."""
    head = head if draft is not None else None
    options = speculator_options(args)
    with Speculator(model, draft=draft, draft_model=head, exact=args.exact, **options) as speculator:
        contexts = [context for context in (speculator.ctx_tgt, speculator.ctx_dft) if context is not None]
        with abort_on_interrupt(contexts):
            yield speculator


def _read_template(args: argparse.Namespace) -> str | None:
    """The chat template from a file, when one is given."""
    path = getattr(args, "chat_template_file", None)
    if path is None:
        return None
    with open(path, "rb") as file:
        return _decode(file.read(), path)


def speculator_options(args: argparse.Namespace) -> dict[str, Any]:
    """The Speculator's options about contexts."""
    return {
        "n_ctx": args.ctx_size,
        "n_batch": args.batch_size,
        "n_ubatch": args.ubatch_size,
        "n_threads": args.threads,
        "n_threads_batch": args.threads_batch,
        "type_k": args.cache_type_k,
        "type_v": args.cache_type_v,
        "flash_attn": {"on": True, "off": False}.get(args.flash_attn, "auto"),
        "chat_template": _read_template(args),
    }


def read_draft(args: argparse.Namespace) -> DraftParams | None:
    """How to draft, None for plain decoding."""
    given = {name: getattr(args, option) for option, name in _DRAFT_OPTIONS.items()}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    if getattr(args, "no_draft", False):
        if given or args.model_draft is not None:
            raise UsageError("--no-draft does not go with the other options about drafting")
        return None
    if "n_min" in given and "adaptive" not in given:
        raise UsageError("--draft-min needs --no-adaptive: an adaptive draft is as long as it pays")
    if "adaptive" in given:
        given["adaptive"] = False
    if given.get("vocab", "").isdecimal():
        given["vocab"] = int(given["vocab"])
    return DraftParams(**given)


def draft_if_possible(draft: DraftParams | None, model: Model, head: Model | None) -> DraftParams | None:
    """Plain decoding for a model without a head, unless options about drafting were given: then that is an error."""
    if draft == DraftParams() and head is None and not model.has_nextn_layer:
        say("the model has no draft head that can run: decoding plainly (nextn inspect FILE says what is in it)")
        return None
    return draft


def read_prompt(args: argparse.Namespace) -> str:
    """The prompt; an empty one is no prompt."""
    prompt = _find_prompt(args)
    if not prompt:
        raise UsageError("the prompt is empty")
    return prompt


def _find_prompt(args: argparse.Namespace) -> str:
    """The prompt from the argument, from a file, or from standard input; the latter two lose one final newline."""
    if args.file is not None:
        if args.prompt is not None:
            raise UsageError("give the prompt as an argument or with -f FILE, not both")
        with open(args.file, "rb") as file:
            return _decode(file.read(), f"the prompt from {args.file}")
    if args.prompt is not None and args.prompt != "-":
        return str(args.prompt)
    if sys.stdin is None or (args.prompt is None and sys.stdin.isatty()):
        raise UsageError("no prompt: give one as an argument, with -f FILE, or on standard input")
    return _decode(sys.stdin.buffer.read(), "the prompt from standard input")


def _decode(data: bytes, source: str) -> str:
    """Text from bytes."""
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 text (byte {error.start})") from None


def messages_for(prompt: str, system: str | None) -> list[dict[str, Any]]:
    """A conversation of one message, with a system message before it when there is one."""
    start = [{"role": "system", "content": system}] if system is not None else []
    return [*start, {"role": "user", "content": prompt}]
