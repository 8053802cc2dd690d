"""A model of a few lines of NumPy behind the protocol of nextn.Model and nextn.Context.

Its next token depends on the whole history, so that any slip of the loop changes the text; its contexts insist on the
rules of the real ones: contiguous positions, bounded rollback used once, no decode while a view lives, sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from nextn.errors import ClosedError, ContextOverflowError, DecodeError, NoNextnLayerError
from nextn.sampling import argmax_rows

N_VOCAB = 96
N_EMBD = 16
EOG = 2
# "é" and the snowman come as single bytes, so that characters are split between tokens
SPLIT = {3: b"\xc3", 4: b"\xa9", 5: b"\xe2", 6: b"\x98", 7: b"\x83", 8: b"\xff"}


class FakeModel:
    def __init__(self, path="fake.gguf", *, n_gpu_layers=-1, rpc_servers=(), load_nextn=True, eog_bias=-1e3, seed=0):
        if "missing" in str(path):
            raise FileNotFoundError(path)
        rng = np.random.default_rng(seed)
        self.path = str(path)
        self.n_vocab, self.n_embd, self.n_ctx_train = N_VOCAB, N_EMBD, 700
        self.has_nextn_layer = load_nextn and "no-head" not in self.path
        self.eog_tokens = frozenset({EOG})
        self.bos_token = None
        self.closed = False
        self.embd = rng.normal(size=(N_VOCAB, N_EMBD))
        self.mix = rng.normal(size=(N_EMBD, N_EMBD)) * 2 / np.sqrt(N_EMBD)  # chaotic: no short cycles
        self.head = rng.normal(size=(N_EMBD, N_VOCAB))
        self.bias = np.zeros(N_VOCAB)
        self.bias[EOG] = eog_bias
        self.poisoned: set[int] = set()  # positions whose logits are NaN

    def step(self, hidden, token):
        return np.tanh(hidden @ self.mix + self.embd[token])

    def tokenize(self, text, *, add_special=True, parse_special=False):
        return [9 + ord(c) % (N_VOCAB - 9) for c in text]

    def token_to_piece(self, token, *, special=True):
        if token in SPLIT:
            return SPLIT[token]
        if token in self.eog_tokens:
            return b"<eog>" if special else b""
        return chr(ord("!") + token - 9).encode()

    def close(self):
        self.closed = True


class FakeContext:
    fail_at: int | None = None  # set on an instance: that decode (counted from then) raises DecodeError
    interrupt_at: int | None = None

    def __init__(self, model, *, n_ctx=0, n_batch=2048, n_ubatch=512, n_rs_seq=0, nextn_draft=False, **rest):
        if nextn_draft and not model.has_nextn_layer:
            raise NoNextnLayerError("no head")
        self.model, self.is_draft = model, nextn_draft
        self.n_ctx = -(-n_ctx // 256) * 256
        self.n_batch, self.n_ubatch, self.n_rs_seq = min(n_batch, self.n_ctx), n_ubatch, n_rs_seq
        self.closed, self.paired = False, None
        self.rows = []  # per position the hidden state after it
        self.n_last = 0  # tokens of the last batch that can be taken back
        self.log = []  # (kind, tokens)
        self._logits = self._hidden = None

    # what a decode does

    def decode(self, tokens, *, positions=None, seq_id=0, hidden=None, outputs="all"):
        self._check()
        tokens = [int(t) for t in tokens]
        # one reference for the attribute, one for the argument of getrefcount; a view's base would be a third
        assert self._logits is None or sys.getrefcount(self._logits) == 2, "a view of the logits is alive"
        assert self._hidden is None or sys.getrefcount(self._hidden) == 2, "a view of the hidden rows is alive"
        assert 0 < len(tokens) <= self.n_batch
        assert (hidden is not None) == self.is_draft
        assert all(0 <= t < self.model.n_vocab for t in tokens)
        if len(self.rows) + len(tokens) > self.n_ctx:
            raise ContextOverflowError("full", len(tokens), self.n_ctx - len(self.rows))
        self._fail()
        self.log.append((outputs, tokens))
        states, logits = [], []
        for i, token in enumerate(tokens):
            if self.is_draft:
                assert hidden.shape == (len(tokens), self.model.n_embd)
                assert hidden.dtype == np.float32
                # what the head remembers matters: a wrong row in its memory shows in later drafts
                memory = np.mean(self.rows, axis=0) if self.rows else 0.0
                state = self.model.step(hidden[i], token) + 0.25 * memory
            else:
                state = self.model.step(self.rows[-1] if self.rows else np.zeros(N_EMBD), token)
            self.rows.append(state)
            states.append(state)
            row = state @ self.model.head + self.model.bias
            logits.append(row * np.nan if len(self.rows) - 1 in self.model.poisoned else row)
        kept = {"all": logits, "last": logits[-1:], "none": []}[outputs]
        self._logits = np.array(kept, dtype=np.float32).reshape(len(kept), self.model.n_vocab).copy()
        self._hidden = np.array(states, dtype=np.float32)
        self.n_last = min(len(tokens), self.n_rs_seq + 1) - 1
        return len(kept)

    def _fail(self):
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                self.fail_at = None
                self.rows = []
                if self.paired:
                    self.paired.rows = []
                raise DecodeError("planned failure")
        if self.interrupt_at is not None:
            self.interrupt_at -= 1
            if self.interrupt_at < 0:
                self.interrupt_at = None
                raise KeyboardInterrupt

    def logits(self):
        return self.logits_view().copy()

    def logits_view(self):
        self._check()
        return self._logits[:]

    def set_argmax(self, value, *, keep_logits=False):
        self._check()

    def argmax(self):
        return argmax_rows(self.logits_view())

    def hidden(self):
        return self.hidden_view().copy()

    def hidden_view(self):
        self._check()
        return self._hidden[:]

    # memory

    def seq_rm(self, seq_id, p0, p1):
        self._check()
        assert p1 == -1
        assert self.is_draft or p0 <= 0, "the plain call is a hazard on a target"
        del self.rows[max(p0, 0) :]
        self.n_last = 0
        return True

    def nextn_seq_rm(self, seq_id, p0, p1):
        self._check()
        assert p1 == -1
        if p0 > 0 and len(self.rows) - p0 > self.n_last:
            return False
        del self.rows[max(p0, 0) :]
        self.n_last = 0
        if self.paired:
            del self.paired.rows[max(p0, 0) :]
        return True

    def save_state(self, seq_id=0):
        return self.rows[-1].tobytes()

    def restore_state(self, state, n_past, seq_id=0):
        self._check()
        if len(self.rows) < n_past:
            return False
        assert self.rows[n_past - 1].tobytes() == state, "the state of another place"
        del self.rows[n_past:]
        self.n_last = 0
        return True

    def halt(self, value):
        self._check()

    def seq_pos_max(self, seq_id=0):
        return len(self.rows) - 1

    def pair(self, other):
        self.paired = other

    def close(self):
        self.closed = True

    def _check(self):
        if self.closed:
            raise ClosedError("closed")


def plain(model, prompt, n_predict):
    """Greedy tokens by the shortest possible code, to compare with."""
    state = np.zeros(N_EMBD)
    for token in prompt:
        state = model.step(state, token)
    out = []
    while len(out) < n_predict:
        token = int(np.argmax((state @ model.head + model.bias).astype(np.float32)))
        out.append(token)
        if token in model.eog_tokens:
            break
        state = model.step(state, token)
    return out


DEMO = Path(__file__).resolve().parents[2] / "python" / "nextn" / "models" / "nextn-demo-q8_0.gguf"
