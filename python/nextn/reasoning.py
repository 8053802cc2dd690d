"""Telling the thinking of an answer from the answer, by the tags that the chat template writes around it."""

from __future__ import annotations

__all__ = ["ReasoningSplitter"]


class ReasoningSplitter:
    """Splits text, fed in pieces of any size, into reasoning and content.

    Reasoning stands between a start and an end tag at the beginning of the answer; when the prompt already ends inside
    it, there is no start tag. White space around both parts is dropped, as llama-server does. The sum of what comes out
    does not depend on how the text is cut into pieces.

    Args:
        start: The tag before the reasoning, for example "<think>".
        end: The tag after it.
        inside: Whether the prompt ends inside the reasoning.
    """

    def __init__(self, start: str, end: str, *, inside: bool) -> None:
        self._tag = {"before": start, "inside": end}
        self._where = "inside" if inside else "before"
        self._held = ""  # perhaps the beginning of a tag, or white space at an end
        self._started = False  # whether the part has shown anything: white space before that is dropped

    def feed(self, text: str) -> tuple[str, str]:
        """Take text, give the reasoning and the content that are certain by now."""
        self._held += text
        reasoning = content = ""
        if self._where == "before":
            self._find_start()
        if self._where == "inside":
            reasoning = self._read_inside()
        if self._where == "after":
            content = self._read_after()
        return reasoning, content

    def finish(self) -> tuple[str, str]:
        """What was held back when the text ended."""
        held, self._held = self._held, ""
        if self._where == "inside":
            return self._shown(held.rstrip()), ""
        return "", held if self._where == "before" else self._shown(held)

    def _find_start(self) -> None:
        """Leave the place before the reasoning as soon as it is clear whether there is any."""
        tag, begun = self._tag["before"], self._held.lstrip()
        if begun.startswith(tag):
            self._where, self._held = "inside", begun[len(tag) :]
        elif not tag.startswith(begun):
            self._where, self._started = "after", True  # no reasoning: the text is shown as it is

    def _read_inside(self) -> str:
        """The reasoning up to the end tag, or up to what may be its beginning."""
        tag = self._tag["inside"]
        at = self._held.find(tag)
        if at >= 0:
            shown = self._shown(self._held[:at].rstrip())
            self._where, self._held, self._started = "after", self._held[at + len(tag) :], False
            return shown
        n_sure = len(self._held) - _n_begun(self._held, tag)
        n_sure = len(self._held[:n_sure].rstrip())
        shown, self._held = self._shown(self._held[:n_sure]), self._held[n_sure:]
        return shown

    def _read_after(self) -> str:
        """The content, without white space before it."""
        shown, self._held = self._shown(self._held), ""
        return shown

    def _shown(self, text: str) -> str:
        """The text, without white space when nothing of its part was shown yet."""
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        return text


def _n_begun(text: str, tag: str) -> int:
    """Length of the longest end of the text with which the tag begins."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)
