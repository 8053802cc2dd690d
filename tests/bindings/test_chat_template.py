"""The engine's chat templates: prompts as the file's own template writes them."""

from __future__ import annotations

import re

import nextn
import pytest
from nextn import _core

USER = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def template(demo):
    return _core.ChatTemplate(demo._core)


def test_prompt(template, demo):
    messages = [{"role": "system", "content": "Be brief."}, USER]
    prompt = template.apply(messages)
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert template.apply(messages, add_generation_prompt=False) == prompt.removesuffix("<|im_start|>assistant\n")
    assert template.source == demo.chat_template
    assert template.capabilities["supports_system_role"] is True


def test_render(template):
    rendered = template.render([USER])
    assert rendered.prompt == template.apply([USER])
    assert rendered.prompt.endswith(rendered.generation_prompt)
    assert isinstance(rendered.stops, list)


def test_a_given_template_with_its_variables(demo):
    source = (
        "{%- for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if tools %}{{ tools[0].function.name }}{% endif %}"
        "{% if enable_thinking is defined %}<{{ enable_thinking }}>{% endif %}"
        "{% if style is defined %}({{ style.tone }}){% endif %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    template = _core.ChatTemplate(demo._core, source)
    assert template.apply([USER]) == "[user]Hi<True>[assistant]"
    assert template.apply([USER], enable_thinking=False) == "[user]Hi<False>[assistant]"
    kwargs = {"style": {"tone": "dry"}}
    assert "(dry)" in template.apply([USER], chat_template_kwargs=kwargs)
    tool = {"type": "function", "function": {"name": "add", "description": "", "parameters": {"type": "object"}}}
    assert "add" in template.apply([USER], tools=[tool])


def test_a_model_without_a_template(tiny_model, tmp_path):
    import gguf

    path = tmp_path / "none.gguf"
    reader = gguf.GGUFReader(tiny_model("dense"))
    writer = gguf.GGUFWriter(path, "qwen35")
    for field in reader.fields.values():
        if not re.match(r"GGUF\.|general\.architecture|tokenizer\.chat_template", field.name):
            writer.add_key_value(
                field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with nextn.Model(path) as model:
        assert model.chat_template is None
        with pytest.raises(nextn.ChatTemplateError) as info:
            _core.ChatTemplate(model._core)
        assert str(info.value) == f"{path}: has no chat template; pass a prompt as text instead of messages"


def test_a_template_that_does_not_compile(demo):
    with pytest.raises(nextn.ChatTemplateError, match=r"the chat template cannot be compiled: .{10,}"):
        _core.ChatTemplate(demo._core, "{% if %}")


def test_a_template_that_refuses(demo):
    template = _core.ChatTemplate(demo._core, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(nextn.ChatTemplateError, match=r"(?s)refuses the messages: .*roles must alternate"):
        template.apply([USER])


@pytest.mark.parametrize(
    ("messages", "options", "error", "text"),
    [
        ([{"content": "Hi"}], {}, nextn.ChatTemplateError, "role"),
        ("Hi", {}, nextn.ChatTemplateError, "refuses the messages"),
        ([{"role": "user", "content": object()}], {}, TypeError, "messages cannot be written as JSON"),
        ([USER], {"tools": [{1, 2}]}, TypeError, "tools cannot be written as JSON"),
        ([USER], {"chat_template_kwargs": [1]}, TypeError, "chat_template_kwargs must be a dict"),
        ([USER], {"chat_template_kwargs": {"x": {1}}}, TypeError, r'chat_template_kwargs\["x"\] cannot be written'),
    ],
)
def test_wrong_messages(template, messages, options, error, text):
    with pytest.raises(error, match=text):
        template.apply(messages, **options)


def test_closed_model(demo_path):
    model = nextn.Model(demo_path)
    template = _core.ChatTemplate(model._core)
    model.close()
    assert template.apply([USER])  # it keeps the vocabulary
    with pytest.raises(nextn.ClosedError):
        _core.ChatTemplate(model._core)
