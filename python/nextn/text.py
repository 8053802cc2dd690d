"""From token bytes to text that may be shown: whole UTF-8 characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["TextStream"]


class TextStream:
    """Turns the bytes of tokens, fed as they come, into text.

    The result does not depend on how tokens are grouped in rounds: stop strings are looked for token by token. Bytes
    that cannot be UTF-8 become U+FFFD; a character that is still incomplete at the end is dropped.

    Args:
        stop: Strings that end the text; it is cut before the first of them.

    Attributes:
        stopped: Whether a stop string was completed; nothing may be fed then.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stop = tuple(stop)
        self._undecoded = b""  # the beginning of a character
        self._held = ""  # decoded, but perhaps the beginning of a stop string

    def feed(self, pieces: Sequence[bytes]) -> tuple[str, int]:
        """Take the bytes of tokens, up to the one that completes a stop string.

        Returns:
            The text that is certain by now, perhaps none; and how many tokens were taken.
        """
        if not self._stop:
            return self._decode(b"".join(pieces)), len(pieces)
        text, n_fed = "", 0
        for piece in pieces:
            text += self._feed_one(piece)
            n_fed += 1
            if self.stopped:
                break
        return text, n_fed

    def _feed_one(self, piece: bytes) -> str:
        """Take the bytes of one token."""
        self._held += self._decode(piece)
        found = [at for at in (self._held.find(string) for string in self._stop) if at >= 0]
        if found:
            self.stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        return self._release(len(self._held) - self._n_undecided())

    def finish(self) -> str:
        """The text that was held back, when the end came without a stop string."""
        return self._release(len(self._held))

    def _decode(self, data: bytes) -> str:
        """The whole characters; an incremental decoder of the library would be three calls, each round."""
        data = self._undecoded + data
        text, n_decoded = codecs.utf_8_decode(data, "replace", False)
        self._undecoded = data[n_decoded:]
        return text

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
