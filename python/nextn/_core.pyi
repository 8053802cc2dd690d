# Written by scripts/stubs.py from the built module: make stubs. Do not edit.
"""
Native part of nextn: pybind11 bindings over the patched llama.cpp. Use it through nextn.Model and nextn.Context.
"""

from __future__ import annotations
import collections.abc
import numpy
import numpy.typing
import typing

__all__: list[str] = [
    "ChatPrompt",
    "ChatTemplate",
    "Context",
    "DraftGroupLength",
    "DraftLength",
    "Drafter",
    "Grammar",
    "Imatrix",
    "Kalman",
    "Model",
    "build_stamp",
    "engine_info",
    "flush_log",
    "json_schema_to_grammar",
    "load_backends",
    "n_backends",
    "quantize",
    "quantized_types",
    "shared_types",
]

class Model:
    """
    A loaded GGUF model.
    """
    def __init__(
        self,
        path: bytes,
        *,
        n_gpu_layers: typing.SupportsInt | typing.SupportsIndex,
        use_mmap: bool,
        use_mlock: bool,
        check_tensors: bool,
        load_nextn: bool,
        rpc_servers: collections.abc.Sequence[str],
        progress: collections.abc.Callable[[float], typing.Any] | None,
    ) -> None: ...
    def close(self) -> None:
        """
        Let go of it; contexts over it keep it in memory.
        """
    def detokenize(
        self,
        tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]],
        *,
        remove_special: bool,
        unparse_special: bool,
    ) -> bytes:
        """
        Join tokens into UTF-8 text.
        """
    def eog_tokens(self) -> set[int]:
        """
        Every token that ends a generation.
        """
    def is_eog(self, token: int) -> bool:
        """
        Whether the token ends a generation.
        """
    def read_metadata(self) -> dict[str, typing.Any]:
        """
        Every key of the file with its real type, read from the file.
        """
    def token_to_piece(self, token: int, *, special: bool) -> bytes:
        """
        The bytes of a token.
        """
    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool) -> list[int]:
        """
        Split UTF-8 text into tokens.
        """
    @property
    def architecture(self) -> str: ...
    @property
    def bos_token(self) -> int | None: ...
    @property
    def chat_template(self) -> str | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def description(self) -> str: ...
    @property
    def eos_token(self) -> int | None: ...
    @property
    def has_nextn_layer(self) -> bool: ...
    @property
    def is_nextn_only(self) -> bool: ...
    @property
    def n_ctx_train(self) -> int: ...
    @property
    def n_embd(self) -> int: ...
    @property
    def n_layer(self) -> int: ...
    @property
    def n_layer_nextn(self) -> int: ...
    @property
    def n_params(self) -> int: ...
    @property
    def n_vocab(self) -> int: ...
    @property
    def size(self) -> int: ...

class Imatrix:
    """
    Sums of the squares of what each weight of a block is multiplied with.
    """
    def __init__(self) -> None: ...
    def entries(self) -> dict[str, tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.int64]]]:
        """
        By the weight's name: sums, float64 [n_matrix, n_col], and number of rows, int64 [n_matrix].
        """

class Context:
    """
    State of sequences over a model, and the decode call.
    """
    def __init__(
        self,
        model: Model,
        *,
        n_ctx: typing.SupportsInt | typing.SupportsIndex,
        n_batch: typing.SupportsInt | typing.SupportsIndex,
        n_ubatch: typing.SupportsInt | typing.SupportsIndex,
        n_seq_max: typing.SupportsInt | typing.SupportsIndex,
        n_threads: typing.SupportsInt | typing.SupportsIndex,
        n_threads_batch: typing.SupportsInt | typing.SupportsIndex,
        type_k: str,
        type_v: str,
        flash_attn: str,
        n_rs_seq: typing.SupportsInt | typing.SupportsIndex,
        nextn_draft: bool,
        hidden_tap: str,
        offload_kqv: bool,
        imatrix: Imatrix | None,
    ) -> None: ...
    def abort(self) -> None:
        """
        Make the decode that runs in another thread stop.
        """
    def argmax(self) -> list[int]:
        """
        Token ids [n_outputs]; of equal logits the lowest id.
        """
    def close(self) -> None:
        """
        Free it, after a running decode.
        """
    def decode(
        self,
        tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]],
        *,
        positions: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]] | None = None,
        seq_id: int = 0,
        hidden: numpy.typing.NDArray[numpy.float32] | None = None,
        outputs: str = "all",
    ) -> int:
        """
        Append tokens [n_tokens] to a sequence; hidden is float32 [n_tokens, n_embd]. Returns the number of rows of logits.
        """
    def embeddings_pre_norm(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Copy, float32 [n_tokens, n_embd].
        """
    def embeddings_pre_norm_view(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Read-only view, float32 [n_tokens, n_embd].
        """
    def halt(self, value: bool) -> None:
        """
        Make the running decode stop, and every later one too, until it is called with False.
        """
    def hidden(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Copy, float32 [n_tokens, n_embd].
        """
    def hidden_view(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Read-only view, float32 [n_tokens, n_embd].
        """
    def inexact(self, n_tokens: typing.SupportsInt | typing.SupportsIndex) -> str | None:
        """
        Why a batch of n_tokens may differ from one token at a time; None when it cannot.
        """
    def logits(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Copy, float32 [n_outputs, n_vocab].
        """
    def logits_view(self) -> numpy.typing.NDArray[numpy.float32]:
        """
        Read-only view, float32 [n_outputs, n_vocab].
        """
    def max_rollback(self, seq_id: int = 0) -> int:
        """
        Newest tokens that can be taken back.
        """
    def memory_usage(self) -> dict[str, int]:
        """
        Bytes by kind.
        """
    def nextn_seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """
        Remove [p0, p1) from the target and its draft context, or from neither.
        """
    def pair(self, draft_context: Context) -> None:
        """
        Pair with a draft context.
        """
    def restore_state(self, state: bytes, n_past: typing.SupportsInt | typing.SupportsIndex, seq_id: int = 0) -> bool:
        """
        Back to the n_past tokens after which it was saved. False, and nothing changed, when that is not possible.
        """
    def save_state(self, seq_id: int = 0) -> bytes:
        """
        State of the recurrent layers; empty without them.
        """
    def seq_pos_max(self, seq_id: int = 0) -> int:
        """
        Largest position, -1 when empty.
        """
    def seq_pos_min(self, seq_id: int = 0) -> int:
        """
        Smallest position, -1 when empty.
        """
    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """
        The engine's plain call.
        """
    def set_argmax(self, value: bool, keep_logits: bool = False) -> None:
        """
        Search the arg-max of each row of logits in the graph, from the next decode on.
        """
    def set_embeddings_pre_norm(self, value: bool) -> None:
        """
        Export the rows before the final norm, from the next decode on.
        """
    def set_hidden_tap(self, tap: str) -> None:
        """
        Choose the row that feeds the head.
        """
    def unpair(self) -> None:
        """
        End the pairing, if there is one.
        """
    @property
    def closed(self) -> bool: ...
    @property
    def hidden_tap(self) -> str: ...
    @property
    def is_draft(self) -> bool: ...
    @property
    def n_batch(self) -> int: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def n_ctx_seq(self) -> int: ...
    @property
    def n_graph_builds(self) -> int: ...
    @property
    def n_graph_reuses(self) -> int: ...
    @property
    def n_rs_seq(self) -> int: ...
    @property
    def n_seq_max(self) -> int: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def n_threads_batch(self) -> int: ...
    @property
    def n_ubatch(self) -> int: ...

class Drafter:
    """
    Drafts chains of tokens with the NextN block of a paired draft context.
    """
    def __init__(
        self,
        target: Context,
        draft: Context,
        *,
        n_max: typing.SupportsInt | typing.SupportsIndex,
        n_min: typing.SupportsInt | typing.SupportsIndex,
        p_min: typing.SupportsFloat | typing.SupportsIndex,
        adaptive: bool,
        n_vocab: typing.SupportsInt | typing.SupportsIndex,
        vocab_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> None: ...
    def accept(
        self,
        tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]],
        n_sent: typing.SupportsInt | typing.SupportsIndex,
        verify_us: typing.SupportsFloat | typing.SupportsIndex,
        seq_id: int = 0,
    ) -> int:
        """
        End a round in which n_sent drafted tokens were verified in verify_us microseconds, and feed what is kept of it: id_last and the accepted ones, tokens [1 + n_accepted]. Returns in how many of the coming rounds nothing is drafted: the tokens of those are only fed.
        """
    def begin(self, seq_id: int = 0) -> None:
        """
        Forget a sequence.
        """
    def carry(self, seq_id: int = 0) -> numpy.typing.NDArray[numpy.float32]:
        """
        Copy of the hidden row of the newest fed token, float32 [1, n_embd].
        """
    def close(self) -> None:
        """
        Free it.
        """
    def draft(self, id_last: int, n_room: typing.SupportsInt | typing.SupportsIndex, seq_id: int = 0) -> list[int]:
        """
        Draft at most n_room tokens after id_last; none: decode plainly.
        """
    def draw(
        self,
        *,
        temperature: typing.SupportsFloat | typing.SupportsIndex,
        top_k: typing.SupportsInt | typing.SupportsIndex,
        top_p: typing.SupportsFloat | typing.SupportsIndex,
        min_p: typing.SupportsFloat | typing.SupportsIndex,
        seed: typing.SupportsInt | typing.SupportsIndex,
        steady: bool,
        seq_id: int = 0,
    ) -> None:
        """
        From the next begin() on draw the drafted tokens; temperature 0: take the best ones again.
        """
    def feed(
        self, tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]], seq_id: int = 0
    ) -> None:
        """
        Tell of kept tokens [n_tokens], whose hidden rows are the first n_tokens of the target's last decode.
        """
    def flush(self, seq_id: int = 0) -> None:
        """
        Compute the rows of fed tokens that wait for a draft.
        """
    def q(self, seq_id: int = 0) -> list[tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32]]]:
        """
        Ids and probabilities that each token of the last draft was drawn from; empty when they were not drawn.
        """
    def resume(
        self,
        tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]],
        carry: numpy.typing.NDArray[numpy.float32],
        seq_id: int = 0,
    ) -> bool:
        """
        Go back behind tokens [n_tokens], the first of those fed; carry is what carry() gave there. False, and nothing changed, when the draft memory does not reach so far.
        """
    def row(self) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32]]:
        """
        Ids and logits that the newest token of the last draft was drawn from; empty when it was not drawn.
        """
    def saw_p(
        self,
        p: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
        seq_id: int = 0,
    ) -> None:
        """
        Before accept(): what the target gave to the ids of q(), for each token that it judged.
        """
    def stats(self, seq_id: int = 0) -> dict[str, typing.Any]:
        """
        Size of the shortlist, and the running estimates.
        """
    @property
    def closed(self) -> bool: ...

class Kalman:
    """
    Estimates of numbers that are observed in sums; their indices are not checked.
    """
    def __init__(
        self,
        guesses: collections.abc.Sequence[
            tuple[typing.SupportsFloat | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]
        ],
    ) -> None:
        """
        Mean and standard deviation of each number [n].
        """
    def drift(
        self, i: typing.SupportsInt | typing.SupportsIndex, variance: typing.SupportsFloat | typing.SupportsIndex
    ) -> None:
        """
        Number i has wandered.
        """
    def limit(
        self, i: typing.SupportsInt | typing.SupportsIndex, most: typing.SupportsFloat | typing.SupportsIndex
    ) -> None:
        """
        Number i cannot be more.
        """
    def mean(self, i: typing.SupportsInt | typing.SupportsIndex) -> float: ...
    def observe(
        self,
        terms: collections.abc.Sequence[
            tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]
        ],
        surprise: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        A sum, of numbers and factors, was so much more than estimated.
        """
    def revert(
        self, i: typing.SupportsInt | typing.SupportsIndex, keep: typing.SupportsFloat | typing.SupportsIndex
    ) -> None:
        """
        The numbers from i on have gone back towards their first guesses.
        """
    def variance(self, i: typing.SupportsInt | typing.SupportsIndex) -> float: ...
    @property
    def noise(self) -> float:
        """
        Variance of an observation.
        """

class DraftGroupLength:
    """
    As DraftLength, for sequences that share their rounds.
    """
    def __init__(self, n_max: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None: ...
    def drafted(
        self, i: typing.SupportsInt | typing.SupportsIndex, p: typing.SupportsFloat | typing.SupportsIndex
    ) -> None:
        """
        Sequence i drafted a token.
        """
    def first_draft_took(self, t: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    def go_on(self) -> list[bool]:
        """
        Who drafts one more.
        """
    def keep(self) -> list[int]:
        """
        How many drafted tokens of each to verify.
        """
    def next_draft_took(self, t: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    def plan(self) -> list[bool]:
        """
        Who drafts in the coming round. Once a round.
        """
    def saw(
        self, i: typing.SupportsInt | typing.SupportsIndex, n_accepted: typing.SupportsInt | typing.SupportsIndex
    ) -> None:
        """
        What became of the draft of sequence i.
        """
    def verify_took(self, t: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        The round that was kept.
        """

class DraftLength:
    """
    Chooses how many tokens to draft, from the numbers it is told.
    """
    def __init__(self, n_max: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def catching_up_took(self, t: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Before a draft, for rounds without one.
        """
    def cost_draft(self, n_draft: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        In the unit of what was told.
        """
    def cost_verify(self, n_tokens: typing.SupportsInt | typing.SupportsIndex) -> float:
        """
        In the unit of what was told.
        """
    def first_draft_took(
        self, t: typing.SupportsFloat | typing.SupportsIndex, n_caught_up: typing.SupportsInt | typing.SupportsIndex = 0
    ) -> None: ...
    def go_on(self, p: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> bool:
        """
        Whether one more draft step pays after these.
        """
    def keep(self, p: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]) -> int:
        """
        How many of these drafted tokens to verify.
        """
    def new_text(self) -> None:
        """
        Another text begins: what was learnt of the head counts as much as texts were alike.
        """
    def next_draft_took(self, t: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    def plan(self) -> int:
        """
        Bound on the coming draft; 0: decode plainly. Once a round.
        """
    def rest(self) -> int:
        """
        Rounds to come without a draft that the caller leaves out.
        """
    def saw(
        self,
        p: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        n_sent: typing.SupportsInt | typing.SupportsIndex,
        n_accepted: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        What became of a draft with these probabilities.
        """
    def verify_took(
        self, n_tokens: typing.SupportsInt | typing.SupportsIndex, t: typing.SupportsFloat | typing.SupportsIndex
    ) -> None: ...

class ChatPrompt:
    """
    What a chat template makes of messages.
    """
    @property
    def generation_prompt(self) -> str:
        """
        Its end: what the assistant's answer begins with.
        """
    @property
    def grammar(self) -> str: ...
    @property
    def grammar_lazy(self) -> bool: ...
    @property
    def preserved_tokens(self) -> list[str]: ...
    @property
    def prompt(self) -> str: ...
    @property
    def stops(self) -> list[str]: ...
    @property
    def thinking_end(self) -> list[str]: ...
    @property
    def thinking_start(self) -> str: ...

class ChatTemplate:
    """
    A chat template, the model's own or a given one, compiled.
    """
    def __init__(self, model: Model, source: str | None = None) -> None: ...
    def apply(
        self,
        messages: collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]],
        *,
        add_generation_prompt: bool = True,
        tools: collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]] | None = None,
        chat_template_kwargs: dict[str, typing.Any] | None = None,
        enable_thinking: bool = True,
    ) -> str:
        """
        The prompt of messages: mappings with role and content.
        """
    def render(
        self,
        messages: collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]],
        *,
        add_generation_prompt: bool = True,
        tools: collections.abc.Sequence[collections.abc.Mapping[str, typing.Any]] | None = None,
        chat_template_kwargs: dict[str, typing.Any] | None = None,
        enable_thinking: bool = True,
    ) -> ChatPrompt:
        """
        The prompt of messages with all that the template says about it.
        """
    @property
    def capabilities(self) -> dict[str, bool]: ...
    @property
    def source(self) -> str: ...
    @property
    def supports_thinking(self) -> bool: ...

class Grammar:
    """
    How far a text has come in a grammar.
    """
    def __init__(self, model: Model, text: str, root: str) -> None: ...
    def accept(self, token: int) -> None:
        """
        Go on by a token that is allowed here.
        """
    def allowed(
        self, tokens: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]]
    ) -> numpy.typing.NDArray[numpy.bool]:
        """
        Which of these tokens may come next, bool [n_tokens].
        """
    def clone(self) -> Grammar:
        """
        A second one in the same place.
        """

def build_stamp() -> str:
    """
    Stamp of the source tree that the engine was built from.
    """

def engine_info() -> dict[str, typing.Any]:
    """
    What the engine is and what it computes on, as a dict.
    """

def flush_log() -> None:
    """
    Hand the engine's kept log lines to logging.
    """

def json_schema_to_grammar(json: str) -> str:
    """
    The grammar of the JSON texts that fit a schema, which is given as JSON text itself.
    """

def load_backends(path: str) -> None:
    """
    Load the compute backends in a directory.
    """

def n_backends() -> int:
    """
    Number of compute backends that are loaded.
    """

def quantize(
    path_in: bytes,
    path_out: bytes,
    *,
    file_type: typing.SupportsInt | typing.SupportsIndex,
    n_threads: typing.SupportsInt | typing.SupportsIndex,
    overrides: collections.abc.Sequence[tuple[str, typing.SupportsInt | typing.SupportsIndex]],
    imatrix: collections.abc.Mapping[str, typing.Annotated[numpy.typing.ArrayLike, numpy.float32]],
    metadata: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex | str],
    allow_requantize: bool,
) -> None:
    """
    Write a quantized file.
    """

def quantized_types(
    *,
    architecture: str,
    sizes: collections.abc.Mapping[str, typing.SupportsInt | typing.SupportsIndex],
    file_type: typing.SupportsInt | typing.SupportsIndex,
    tensors: collections.abc.Sequence[
        tuple[
            str,
            collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
            typing.SupportsInt | typing.SupportsIndex,
        ]
    ],
    overrides: collections.abc.Sequence[tuple[str, typing.SupportsInt | typing.SupportsIndex]],
) -> list[int]:
    """
    The type that each tensor (name, shape, type) gets in a file of this type.
    """

def shared_types() -> list[str]:
    """
    Names of the weight types that the CPU reads once for all tokens of a verify batch.
    """
