"""The Llama and LlamaGrammar of llama-cpp-python over a Speculator: code moves over by changing its import.

    from nextn.llama_cpp import Llama  # instead of: from llama_cpp import Llama

An argument that has no counterpart here is an error, unless it has the value that changes nothing. New code has no need
of this: Speculator has the same create_completion() and create_chat_completion().
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from nextn import _core
from nextn._openai import Json
from nextn.chat import Message
from nextn.context import TokenIds
from nextn.gguf.types import TENSOR_TYPES
from nextn.hub import download
from nextn.model import Model
from nextn.options import DraftParams, check_int, check_text
from nextn.speculator import Speculator

__all__ = ["Llama", "LlamaGrammar"]

# What llama-cpp-python does when nobody says otherwise, where that differs from a Speculator.
_COMPLETION = {"max_tokens": 16, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
_CHAT = {"temperature": 0.2, "top_k": 40, "top_p": 0.95, "min_p": 0.05}
# Arguments of theirs that nextn has no use for, with the value that asks for nothing.
_NOTHING_CALL = {
    "suffix": None, "best_of": 1, "tfs_z": 1.0, "mirostat_mode": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
    "stopping_criteria": None, "logits_processor": None, "functions": None, "function_call": None, "tools": None,
    "tool_choice": None, "user": None, "n": 1,
}  # fmt: skip
_NOTHING_INIT = {
    "split_mode": 1, "main_gpu": 0, "tensor_split": None, "vocab_only": False, "kv_overrides": None,
    "rope_scaling_type": -1, "pooling_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0, "yarn_ext_factor": -1.0,
    "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0, "yarn_beta_slow": 1.0, "yarn_orig_ctx": 0,
    "embedding": False, "no_perf": False, "last_n_tokens_size": 64, "lora_base": None, "lora_scale": 1.0,
    "lora_path": None, "numa": False, "chat_format": None, "chat_handler": None, "tokenizer": None, "spm_infill": False,
    "swa_full": None, "op_offload": None, "kv_unified": False,
}  # fmt: skip


class LlamaGrammar:
    """A grammar for the argument of that name.

    Args:
        text: The grammar in GBNF.
    """

    def __init__(self, text: str) -> None:
        self.text = check_text("grammar", text)

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """From GBNF."""
        return cls(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """From a file of GBNF."""
        return cls(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """From a JSON schema, given as JSON."""
        return cls(_core.json_schema_to_grammar(check_text("json_schema", json_schema)))


class Llama:
    """A model with its contexts; one that has no draft head is decoded plainly.

    Args:
        model_path: The GGUF file.
        n_gpu_layers: Layers on the GPU, -1 for all.
        n_ctx: Tokens that fit; 0 takes the model's own.
        n_batch: Most tokens of the prompt per decode.
        seed: Seed of requests that have none; None, or 0xFFFFFFFF, takes a new one each time.
        verbose: Has no effect: nextn's log goes to logging.getLogger("nextn").
        logits_all: Has no effect: log probabilities need nothing but to be asked for.
        use_mmap: As for Model.
        use_mlock: As for Model.
        type_k: Type of the K cache, by its name or by its number in GGML.
        type_v: Type of the V cache.
        **options: Those of Speculator(), "draft" among them, and of llama-cpp-python as far as they ask for nothing.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_gpu_layers: int = 0,
        n_ctx: int = 512,
        n_batch: int = 512,
        seed: int | None = 0xFFFFFFFF,
        verbose: bool = True,
        logits_all: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        **options: Any,
    ) -> None:
        options = _without("Llama", options, _NOTHING_INIT)
        seed = None if seed is None or seed == -1 else check_int("seed", seed, 0, 2**64 - 1)
        self._seed = None if seed == 0xFFFFFFFF else seed
        place = {"n_gpu_layers": n_gpu_layers, "rpc_servers": options.pop("rpc_servers", ())}
        with ExitStack() as opened:
            model = Model(model_path, use_mmap=use_mmap, use_mlock=use_mlock, **place)
            opened.callback(model.close)
            if isinstance(options.get("draft_model"), (str, os.PathLike)):
                options["draft_model"] = Model(options["draft_model"], **place)
                opened.callback(options["draft_model"].close)
            if model.has_nextn_layer or options.get("draft_model") is not None:
                options.setdefault("draft", DraftParams())
            self._speculator = Speculator(
                model, n_ctx=n_ctx, n_batch=n_batch, type_k=_cache_type("type_k", type_k),
                type_v=_cache_type("type_v", type_v), **{"draft": None, **options},
            )  # fmt: skip
            opened.callback(self._speculator.close)
            self._opened = opened.pop_all()

    @classmethod
    def from_pretrained(
        cls, repo_id: str, filename: str | None, *, cache_dir: str | os.PathLike[str] | None = None, **options: Any
    ) -> Llama:
        """Load a model from a hub; filename may be a glob."""
        return cls(download(repo_id, filename, cache_dir=cache_dir), **options)

    @property
    def speculator(self) -> Speculator:
        """What does the work."""
        return self._speculator

    @property
    def model_path(self) -> str:
        """The path of the file."""
        return self._speculator.model.path

    @property
    def metadata(self) -> dict[str, str]:
        """The keys of the file as text, without its arrays."""
        found = self._speculator.model.metadata
        return {name: str(value) for name, value in found.items() if not isinstance(value, list)}

    def __call__(self, prompt: str | TokenIds, **options: Any) -> Json | Iterator[Json]:
        """create_completion()."""
        return self.create_completion(prompt, **options)

    def create_completion(self, prompt: str | TokenIds, **options: Any) -> Json | Iterator[Json]:
        """Continue a text; Speculator.create_completion() with llama-cpp-python's defaults."""
        return self._speculator.create_completion(prompt, **self._read("create_completion", _COMPLETION, options))

    def create_chat_completion(self, messages: Sequence[Message], **options: Any) -> Json | Iterator[Json]:
        """Answer a conversation; Speculator.create_chat_completion() with llama-cpp-python's defaults."""
        read = self._read("create_chat_completion", _CHAT, options)
        return self._speculator.create_chat_completion(messages, **read)

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Split UTF-8 text into tokens."""
        return self._speculator.model.tokenize(text.decode(errors="ignore"), add_special=add_bos, parse_special=special)

    def detokenize(self, tokens: Sequence[int], prev_tokens: object = None, special: bool = False) -> bytes:
        """Join tokens into UTF-8 text."""
        return b"".join(self._speculator.model.token_to_piece(token, special=special) for token in tokens)

    def n_ctx(self) -> int:
        """Tokens that fit."""
        return self._speculator.n_ctx

    def n_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self._speculator.model.n_vocab

    def n_embd(self) -> int:
        """Width of a hidden row."""
        return self._speculator.model.n_embd

    def token_bos(self) -> int:
        """Begin-of-text token, -1 without one."""
        bos = self._speculator.model.bos_token
        return -1 if bos is None else bos

    def token_eos(self) -> int:
        """End-of-text token, -1 without one."""
        eos = self._speculator.model.eos_token
        return -1 if eos is None else eos

    def set_seed(self, seed: int) -> None:
        """Seed of later requests that have none."""
        self._seed = check_int("seed", seed, 0, 2**64 - 1)

    def reset(self) -> None:
        """Has no effect: what is kept of earlier prompts never shows."""

    def close(self) -> None:
        """Free everything. May be called twice."""
        self._opened.close()

    def __enter__(self) -> Llama:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _read(self, owner: str, defaults: Json, options: Json) -> Json:
        """Options of a call as those of a Speculator."""
        read = {**defaults, **_without(f"Llama.{owner}", options, _NOTHING_CALL)}
        if read.get("seed") is None:
            read["seed"] = self._seed
        if isinstance(read.get("top_k"), int) and read["top_k"] < 0:
            read["top_k"] = 0
        if isinstance(read.get("grammar"), LlamaGrammar):
            read["grammar"] = read["grammar"].text
        if read.get("logit_bias") is None:
            read.pop("logit_bias", None)
        return read


def _cache_type(name: str, value: int | str | None) -> str:
    """The name of a cache type that may be given by its number."""
    if value is None or isinstance(value, str):
        return "f16" if value is None else value
    kind = TENSOR_TYPES.get(check_int(name, value, 0, 2**31 - 1))
    if kind is None:
        raise ValueError(f"{name} must be the number or the name of a type, not {value}")
    return kind.name.lower()


def _without(owner: str, options: Json, nothing: Json) -> Json:
    """The options without those that ask for nothing; what asks for something that nextn lacks is an error."""
    for name, value in options.items():
        if name in nothing and value is not None and value != nothing[name]:
            raise TypeError(f"{owner}({name}={value!r}) has no counterpart in nextn: leave {name} out")
    return {name: value for name, value in options.items() if name not in nothing}
