"""Benchmarking servers: llama-server's own addresses, and the timings it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nextn.bench.machine import file_facts
from nextn.bench.plan import Arm
from nextn.bench.runner import Measured, Request, hash_text, hash_tokens, pad
from nextn.bench.suite import Message
from nextn.errors import ModelFileError, ServerError

__all__ = ["ServerRunner"]

_TIMEOUT_SECONDS = 3600.0  # one answer of a large model may take long; a dead server is noticed at once


class ServerRunner:
    """Asks servers, one request at a time.

    An arm with a url is asked there, as that server was started. The others share one server: their requests turn
    drafting off (plain) or bound it; a server that does not obey is an error, for its figures would lie.

    Args:
        arms: The arms.
        url: The server of the arms that have none of their own.

    Raises:
        ServerError: A server does not answer.
    """

    def __init__(self, arms: Sequence[Arm], url: str | None = None) -> None:
        import httpx

        self._urls = {arm.name: _clean(arm.url or url or "") for arm in arms}
        self._client = httpx.Client(timeout=httpx.Timeout(_TIMEOUT_SECONDS, connect=10.0))
        self._props = {url: self._ask(url, "/props", None) for url in dict.fromkeys(self._urls.values())}
        self._first = next(iter(self._props))

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens of a conversation as a prompt."""
        prompt = self._ask(self._first, "/apply-template", {"messages": messages})["prompt"]
        return len(self._ask(self._first, "/tokenize", {"content": prompt, "parse_special": True})["tokens"])

    def run(self, arm: Arm, request: Request) -> Measured:
        """Generate once."""
        body: dict[str, Any] = {
            "max_tokens": request.max_tokens,
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed % 2**32,
            "cache_prompt": False,
            "return_tokens": True,
            "ignore_eos": request.ignore_eos,
            **_drafting(arm),
        }
        if request.temperature > 0:  # what nextn draws from: the distribution itself
            body |= {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
        url = self._urls[arm.name]
        if request.messages is not None:
            answer = self._ask(url, "/v1/chat/completions", {**body, "messages": request.messages})
            choice = answer["choices"][0]
            message = choice["message"]
            text = (message.get("reasoning_content") or "") + (message.get("content") or "")
            reason = choice["finish_reason"]
        else:
            answer = self._ask(url, "/completion", {**body, "prompt": request.text})
            text = answer["content"]
            reason = "length" if answer.get("stop_type") == "limit" else "stop"
        return self._measured(arm, answer, text, reason)

    def describe(self) -> dict[str, Any]:
        """What the servers say about themselves; the model's hash when its file is on this machine."""
        servers = []
        for url, props in self._props.items():
            settings = props.get("default_generation_settings") or {}
            servers.append(
                {
                    "arms": [name for name, its in self._urls.items() if its == url],
                    "build_info": props.get("build_info"),
                    "model": Path(props["model_path"]).name if props.get("model_path") else None,
                    "n_ctx": settings.get("n_ctx"),
                    "total_slots": props.get("total_slots"),
                }
            )
        model = _facts(self._props[self._first].get("model_path"))
        return {"model": model, "draft_model": None, "engine": None, "server": servers, "context": {}}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> ServerRunner:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _measured(self, arm: Arm, answer: dict[str, Any], text: str, reason: str) -> Measured:
        """A row from llama-server's answer."""
        timings = answer.get("timings")
        if not timings:
            raise ServerError(f"{self._urls[arm.name]} answers without timings: nextn bench needs a llama-server")
        n_drafted, n_accepted = int(timings.get("draft_n", 0)), int(timings.get("draft_n_accepted", 0))
        if arm.kind == "plain" and n_drafted:
            raise ServerError(
                f"{self._urls[arm.name]} drafts although the request turns drafting off: it is not the patched server."
                " Start one server for each arm and name them: --server plain=URL --server drafting=URL"
            )
        tokens = answer.get("tokens")
        n_predicted = int(timings["predicted_n"])
        drafted, accepted = timings.get("drafted_per_position"), timings.get("accepted_per_position")
        if drafted is None or accepted is None:
            drafted = accepted = None
        # Only the patched server tells the rounds; each adds one token to those accepted.
        n_rounds = int(timings.get("n_rounds", max(0, n_predicted - 1 - n_accepted)))
        return Measured(
            prompt_tokens=int(timings["prompt_n"]),
            completion_tokens=n_predicted,
            prompt_ms=float(timings["prompt_ms"]),
            predicted_ms=float(timings["predicted_ms"]),
            draft_ms=_number(timings.get("draft_ms")),
            verify_ms=_number(timings.get("verify_ms")),
            draft_n=n_drafted,
            draft_n_accepted=n_accepted,
            n_rounds=n_rounds,
            drafted_per_position=drafted,
            accepted_per_position=None if drafted is None else pad(accepted, len(drafted)),
            finish_reason="length" if reason == "length" else "stop",
            tokens_sha256=hash_tokens(tokens) if tokens else None,
            text_sha256=hash_text(text),
        )

    def _ask(self, url: str, path: str, body: dict[str, Any] | None) -> Any:
        """One request; whatever goes wrong is a ServerError."""
        import httpx

        try:
            answer = self._client.get(url + path) if body is None else self._client.post(url + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(
                f"{url} does not answer ({error or type(error).__name__}): is the server running?"
            ) from None
        if answer.status_code != 200:
            raise ServerError(f"{url}{path} answers {answer.status_code}: {answer.text[:300]}")
        try:
            return answer.json()
        except ValueError:
            raise ServerError(f"{url}{path} answers with something that is no JSON: is it a llama-server?") from None


def _drafting(arm: Arm) -> dict[str, Any]:
    """What a request says about drafting; nothing for an arm that is the server as it was started."""
    if arm.kind == "server" and arm.n_max == 0:
        return {}
    return {"speculative": {"n_max": arm.n_max}}


def _facts(path: str | None) -> dict[str, Any] | None:
    """Facts of the server's model, when that is a file of this machine: another one may lie at the same path."""
    if path and Path(path).is_file():
        with suppress(ModelFileError):
            return file_facts(path)
    return None


def _number(value: Any) -> float | None:
    """A number where there is one."""
    return float(value) if isinstance(value, int | float) else None


def _clean(url: str) -> str:
    """The server's root."""
    return url.rstrip("/").removesuffix("/v1")
