"""nextn bench: run a benchmark and write its receipt; make reports of receipts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextn._cli.interrupt import abort_on_interrupt
from nextn._cli.models import open_models, speculator_options
from nextn._cli.parser import UsageError
from nextn._cli.talk import say
from nextn.options import DraftParams

if TYPE_CHECKING:
    from nextn.bench.plan import Arm, BenchOptions, Block
    from nextn.bench.receipt import Receipt
    from nextn.bench.run import Progress
    from nextn.bench.runner import Runner
    from nextn.model import Model

_SECONDS_BETWEEN_LINES = 20.0


def run(args: argparse.Namespace) -> None:
    """Run a benchmark and print its report."""
    from nextn.bench import BenchOptions, load_suite, run_bench

    suite = load_suite(args.suite).part(args.prompts, args.topic)
    options = BenchOptions(
        max_tokens=args.n_predict,
        temperature=args.temp,
        seeds=tuple(args.seeds),
        repeats=args.repeats,
        raw=args.raw,
        contexts=tuple(args.contexts),
        n_sweep_prompts=args.sweep_prompts,
    )
    arms = _choose_arms(args)
    output = Path(args.output)
    if output.exists() and not args.resume:
        raise UsageError(f"{output} is there already: --resume continues it, -o names another file")
    with ExitStack() as opened:
        runner = opened.enter_context(_open_runner(args, arms, suite, options))
        try:
            with _progress() as progress:
                receipt = run_bench(runner, suite, arms, options, output, resume=args.resume, progress=progress)
        except BaseException:
            if output.exists():
                say(f"what was measured is in {output}; the same command with --resume goes on")
            raise
    say(f"{len(receipt['rows'])} runs are in {output}; nextn bench report {output} --html report.html shows plots")
    _print([receipt], [str(output)], as_json=args.json)


def report(args: argparse.Namespace) -> None:
    """Make a report of receipts."""
    from nextn.bench import load_receipt
    from nextn.bench.compare import make_document
    from nextn.bench.document import to_html, to_markdown, write_figures

    receipts = [load_receipt(path) for path in args.receipts]
    names = [Path(path).name.removesuffix(".gz").removesuffix(".json") for path in args.receipts]
    if args.html is None and args.markdown is None:
        _print(receipts, names, as_json=args.json)
        return
    document = make_document(receipts, names)
    if args.html is not None:
        Path(args.html).write_text(to_html(document), encoding="utf-8")
        say(f"wrote {args.html}")
    if args.markdown is not None:
        page = Path(args.markdown)
        write_figures(document, page.with_suffix(""))
        page.write_text(to_markdown(document, page.stem), encoding="utf-8")
        say(f"wrote {page} and {len(document.figures)} plots in {page.with_suffix('')}")


def lengths(given: str) -> list[int]:
    """Type of --k: numbers and ranges, such as 1-4,6; "none" is no number."""
    if given == "none":
        return []
    return _numbers(given, 1, 16)


def numbers(given: str) -> list[int]:
    """Type of options that take several whole numbers."""
    return _numbers(given, 0, 2**31 - 1)


def _numbers(given: str, low: int, high: int) -> list[int]:
    """Whole numbers and ranges of them, separated by commas."""
    found: list[int] = []
    try:
        for part in given.split(","):
            first, _, last = part.partition("-")
            start, end = int(first), int(last or first)
            if not low <= start <= end <= high or end - start > 1000:
                raise ValueError
            found += range(start, end + 1)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be numbers from {low} to {high} such as 1,2,4 or 1-4, not {given!a}"
        ) from None
    return list(dict.fromkeys(found))


def _choose_arms(args: argparse.Namespace) -> tuple[Arm, ...]:
    """The arms: of this process or of one server, or one for each of several servers."""
    from nextn.bench import Arm, make_arms, make_server_arms

    named = [server for server in args.server if "=" in server.split("://")[0]]
    if not named:
        if len(args.server) > 1:
            raise UsageError("several servers need names: --server plain=URL --server drafting=URL")
        if args.server:
            return make_server_arms(args.k or [], control=args.control)
        adaptive = args.draft_max if args.draft_max is not None else DraftParams().n_max
        return make_arms(
            [4] if args.k is None else args.k, adaptive=adaptive if args.adaptive else None, control=args.control
        )
    if len(named) < len(args.server):
        raise UsageError("either one --server URL, or all of them with names: --server plain=URL --server drafting=URL")
    pairs = [server.split("=", 1) for server in named]
    if len({name for name, _ in pairs}) < len(pairs):
        raise UsageError("two servers have the same name")
    if "plain" not in dict(pairs):
        say("no server is called plain: there is nothing to compare the others with")
    return tuple(Arm(name=name, kind="server", url=url) for name, url in pairs)


@contextmanager
def _open_runner(args: argparse.Namespace, arms: Sequence[Arm], suite: Any, options: BenchOptions) -> Iterator[Runner]:
    """What generates: servers, or the model in this process, whose decodes end at Ctrl-C."""
    from nextn.bench import LocalRunner, make_blocks
    from nextn.bench.remote import ServerRunner

    if args.server:
        if args.model is not None or args.model_draft is not None:
            raise UsageError("-m and -md are for a model in this process; a server has loaded its own")
        with ServerRunner(arms, None if arms[0].url else args.server[0]) as remote:
            yield remote
        return
    with open_models(args) as (model, head):
        blocks = make_blocks(suite, arms, options)
        n_ctx = args.ctx_size or _needed_n_ctx(model, blocks, options)
        others = speculator_options(args)
        others.pop("n_ctx")
        vocab = args.draft_vocab if args.draft_vocab is not None else "auto"
        with (
            LocalRunner(
                model,
                arms,
                n_ctx=n_ctx,
                draft_model=head,
                p_min=args.draft_p_min or 0.0,
                vocab=int(vocab) if vocab.isdecimal() else vocab,
                **others,
            ) as local,
            abort_on_interrupt(local.contexts),
        ):
            yield local


def _needed_n_ctx(model: Model, blocks: Sequence[Block], options: BenchOptions) -> int:
    """The context that the longest prompt and answer need: a larger one for each arm would only take memory."""
    from nextn.bench.run import make_messages
    from nextn.chat import ChatPrompter

    chat = ChatPrompter(model)
    n_prompt = max(options.contexts, default=0)
    for prompt_id in {block.prompt.id for block in blocks}:
        block = next(b for b in blocks if b.prompt.id == prompt_id and b.n_context is None)
        n_prompt = max(n_prompt, len(chat.prompt(make_messages(block, lambda messages: 0)).tokens))
    return -(-(n_prompt + options.max_tokens) // 256) * 256


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar with the time that is left, on a terminal; otherwise a line now and then."""
    from time import monotonic

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        start, n_before, last = monotonic(), -1, monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal n_before, last
            if n_before < 0:
                n_before = done - 1
            if monotonic() - last > _SECONDS_BETWEEN_LINES and done < total:
                last = monotonic()
                left = (last - start) / (done - n_before) * (total - done)
                say(f"{done} of {total} runs, about {left:.0f} s left")

        yield tell
        return
    columns = (TextColumn("running"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(receipts: Sequence[Receipt], names: Sequence[str], *, as_json: bool) -> None:
    """The report on standard output, without plots."""
    from nextn.bench import summarise
    from nextn.bench.compare import make_document
    from nextn.bench.document import to_markdown

    if as_json:
        found = [{"receipt": name, **summarise(receipt)} for name, receipt in zip(names, receipts, strict=True)]
        print(json.dumps({"receipts": found}, ensure_ascii=False))
    else:
        print(to_markdown(make_document(receipts, names)), end="")
