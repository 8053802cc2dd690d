"""A drafter that the draft engine is compared with, and that runs over contexts without an engine."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from nextn.context import Context, FloatArray
from nextn.drafting import IntArray
from nextn.options import DraftParams

_NOTHING: IntArray = np.empty(0, dtype=np.int32)
_SEQ_ID = 0


class ReferenceDrafter:
    """What the draft engine does, one decode at a time in Python; lengths by n_max, n_min and p_min alone.

    The head reads token x_p next to h_(p-1), the target's hidden row of the position before (zeros at position 0), and
    proposes x_(p+1). Further down a chain there is no target row yet; the head's own hidden row stands in for it.

    Tokens that the target has and the head has not read with their true rows are pending. After a round these are the
    accepted ones; they and the new id_last are read in one decode, which is also the first step of the next draft. So a
    row is computed once, and what the head remembers consists of true rows only.

    Args:
        ctx_tgt: The target; its hidden rows are read after each of its decodes.
        ctx_dft: The draft context.
        params: Length of the drafts.
        eog_tokens: Tokens after which nothing comes: a draft ends with the first of them.
    """

    def __init__(
        self, ctx_tgt: Context, ctx_dft: Context, params: DraftParams, *, eog_tokens: Collection[int] | None = None
    ) -> None:
        self.n_max = params.n_max
        self._params = params
        self._ctx_tgt = ctx_tgt
        self._ctx_dft = ctx_dft
        self._eog_tokens = frozenset(ctx_tgt.model.eog_tokens if eog_tokens is None else eog_tokens)
        self._pending: list[int] = []  # tokens the head has not read
        self._hidden: FloatArray = self._row_before_all()  # a row for each, and between rounds one more for id_last
        self._drafted: list[int] = []

    def begin(self, prompt: IntArray) -> None:
        """Forget the previous request: its rows, and the hidden row that was kept for its next token."""
        self._ctx_dft.seq_rm(_SEQ_ID, -1, -1)
        self._pending = []
        self._hidden = self._row_before_all()
        self._drafted = []

    def prefill(self, tokens: IntArray) -> None:
        """Read a chunk of the prompt; the row of its last token is kept for the token that follows."""
        self._pending.extend(tokens.tolist())
        self._hidden = np.concatenate((self._hidden, self._ctx_tgt.hidden_view()))
        self._read_pending(outputs="none")

    def draft(self, id_last: int, n_past: int, n_room: int) -> IntArray:
        """Let the head read what is pending and id_last, then run the chain."""
        self._drafted = []
        n_kept = n_past - len(self._pending)  # rows of the last chain behind this were read without true hidden rows
        self._pending.append(id_last)
        n_draft = min(self.n_max, n_room)
        if n_draft < 1:
            return _NOTHING
        self._ctx_dft.seq_rm(_SEQ_ID, n_kept, -1)
        self._read_pending(outputs="last")
        self._run_chain(n_draft)
        if len(self._drafted) < self._params.n_min:
            self._drafted = []
        return np.array(self._drafted, dtype=np.int32)

    def accept(self, n_accepted: int) -> None:
        """Keep the target's rows of id_last and the accepted tokens; those tokens are pending now."""
        self._pending.extend(self._drafted[:n_accepted])
        self._hidden = np.concatenate((self._hidden, self._ctx_tgt.hidden_view()[: n_accepted + 1]))

    def _run_chain(self, n_draft: int) -> None:
        """Draft token by token from the head's last output, until the draft is full, ends the text or is unlikely."""
        while True:
            token, probability = self._first_choice()
            if probability < self._params.p_min:
                return
            self._drafted.append(token)
            if len(self._drafted) == n_draft or token in self._eog_tokens:
                return
            self._ctx_dft.decode([token], hidden=self._ctx_dft.hidden()[-1:], outputs="last")

    def _first_choice(self) -> tuple[int, float]:
        """The head's most probable token and its probability, which is worked out only when p_min asks for it."""
        logits = self._ctx_dft.logits_view()[-1]
        token = int(logits.argmax())
        if self._params.p_min == 0.0:
            return token, 1.0
        return token, 1.0 / float(np.exp(logits - logits[token]).sum())

    def _read_pending(self, *, outputs: str) -> None:
        """Decode the pending tokens next to their hidden rows."""
        n_pending = len(self._pending)
        self._ctx_dft.decode(self._pending, hidden=self._hidden[:n_pending], outputs=outputs)  # type: ignore[arg-type]
        self._pending = []
        self._hidden = self._hidden[n_pending:].copy()

    def close(self) -> None:
        """Nothing to free."""

    def _row_before_all(self) -> FloatArray:
        """The hidden row next to the first token of a text."""
        return np.zeros((1, self._ctx_tgt.model.n_embd), dtype=np.float32)
