"""Conversations to prompts, through the chat template that the model file carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nextn import _core
from nextn.model import Model
from nextn.reasoning import ReasoningSplitter

__all__ = ["ChatPrompt", "ChatPrompter", "Message"]

Message = Mapping[str, object]
"""One message: "role", "content" (a string, or a list of parts), and whatever else the template knows."""


class ChatPrompt(NamedTuple):
    """What is read before the answer, and how the answer is to be read."""

    tokens: list[int]
    reasoning: ReasoningSplitter | None = None
    stops: tuple[str, ...] = ()  # the template's own, beside end-of-turn tokens


class ChatPrompter:
    """Writes conversations as prompts with the model's own template.

    Args:
        model: The model; a file without a template is a ChatTemplateError at the first use.
        source: A template (Jinja) to use instead of the file's.
    """

    def __init__(self, model: Model, source: str | None = None) -> None:
        if source is not None and not isinstance(source, str):
            raise TypeError(f"chat_template must be a string (Jinja) or None, not {type(source).__name__}")
        self._model = model
        self._source = source
        self._template: _core.ChatTemplate | None = None

    def prompt(self, messages: Sequence[Message], template_kwargs: Mapping[str, object] | None = None) -> ChatPrompt:
        """A conversation, up to where the assistant's answer begins.

        Args:
            messages: The conversation.
            template_kwargs: Variables for the template; enable_thinking is one that many know.

        Raises:
            ChatTemplateError: The file has no template, or the template refuses the messages.
            TypeError, ValueError: The messages are no list of mappings with a role and a content.
        """
        checked = [dict(message) for message in check_messages(messages)]
        if self._template is None:
            self._template = _core.ChatTemplate(self._model._core, self._source)
        kwargs = dict(template_kwargs or {})
        thinking = kwargs.pop("enable_thinking", True)
        rendered = self._template.render(
            checked, add_generation_prompt=True, chat_template_kwargs=kwargs, enable_thinking=bool(thinking)
        )
        text = rendered.prompt
        tokens = self._model.tokenize(text, add_special=not self._begins_with_bos(text), parse_special=True)
        return ChatPrompt(tokens, _reasoning_of(rendered), tuple(rendered.stops))

    def _begins_with_bos(self, text: str) -> bool:
        """Whether the template has written begin-of-text itself, so that tokenizing must not add a second one."""
        bos = self._model.bos_token
        return bos is not None and text.encode().startswith(self._model.token_to_piece(bos))


def _reasoning_of(rendered: _core.ChatPrompt) -> ReasoningSplitter | None:
    """What splits the thinking from the answer, when the template marks it and the prompt leaves room for it."""
    begun_prompt = rendered.generation_prompt
    start, ends = rendered.thinking_start.strip(), [end.strip() for end in rendered.thinking_end if end.strip()]
    if not start and "<think>" in begun_prompt:  # a template that always thinks: the engine sees no difference
        start, ends = "<think>", ["</think>"]
    if not start or not ends:
        return None
    return ReasoningSplitter(start, ends[0], inside=begun_prompt.rfind(start) > begun_prompt.rfind(ends[0]))


def check_messages(messages: object) -> Sequence[Message]:
    """The messages, when each is a mapping with a string "role" and a string "content"."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of mappings with role and content, not {type(messages).__name__}")
    if not messages:
        raise ValueError("messages must hold at least one message, not none")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"messages[{i}] must be a mapping with role and content, not {type(message).__name__}")
        _check_message(f"messages[{i}]", message)
    return messages


def _check_message(name: str, message: Message) -> None:
    """Refuse what no template can read; what a template makes of the rest is its own affair."""
    if not isinstance(message.get("role"), str):
        raise ValueError(f"{name} must have a role, which is a string, not {message.get('role')!r}")
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return
    if not isinstance(content, (str, list)):
        raise ValueError(f"{name} must have a content, which is a string or a list of parts, not {content!r}")
