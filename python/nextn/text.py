"""From token bytes to text that may be shown: whole UTF-8 characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["TextStream"]


class TextStream:
    """Turns the bytes of tokens, fed one token at a time, into text.

    The result does not depend on how tokens are grouped in rounds, because every token is looked at by itself. Bytes
    that cannot be UTF-8 become U+FFFD; a character that is still incomplete at the end is dropped.

    Args:
        stop: Strings that end the text; it is cut before the first of them.

    Attributes:
        stopped: Whether a stop string was completed; nothing may be fed then.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # decoded, but perhaps the beginning of a stop string

    def feed(self, piece: bytes) -> str:
        """Take the bytes of one token and give the text that is certain by now, perhaps none."""
        text = self._decoder.decode(piece)
        if not self._stop:
            return text
        self._held += text
        found = [at for at in (self._held.find(string) for string in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        return self._release(len(self._held) - self._n_undecided())

    def finish(self) -> str:
        """The text that was held back, when the end came without a stop string."""
        return self._release(len(self._held))

    def _release(self, n_chars: int) -> str:
        """Take the first n_chars characters out of what is held."""
        text, self._held = self._held[:n_chars], self._held[n_chars:]
        return text

    def _n_undecided(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        for n_chars in range(longest, 0, -1):
            if any(string.startswith(self._held[-n_chars:]) for string in self._stop):
                return n_chars
        return 0
