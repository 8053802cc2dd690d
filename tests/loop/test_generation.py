"""Generation as users see it, on the bundled model: text, stops, sampling, chat, errors, closing."""

from __future__ import annotations

import inspect
import threading

import pytest
from engine import DEMO, SIZES, chat_prompt, heldout_prompts
from nextn.accept import GreedyRule, accept_greedy
from nextn.drafting import ScriptedDrafter
from nextn.errors import (
    ClosedError,
    ContextCreateError,
    ContextOverflowError,
    ModelFileError,
    NextnError,
    NoNextnLayerError,
)
from nextn.model import Model
from nextn.options import DraftParams, GenerateParams
from nextn.speculator import Speculator


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def spec(demo):
    with Speculator(demo, **SIZES) as spec:
        yield spec


@pytest.fixture(scope="module")
def plain_spec(demo):
    with Speculator(demo, draft=None, **SIZES) as spec:
        yield spec


def test_the_head_drafts_well_on_the_model_it_was_trained_with(demo, spec):
    drafted = accepted = 0
    for text in heldout_prompts()[::3]:
        stats = spec.generate(chat_prompt(demo, text), max_tokens=128).stats
        drafted, accepted = drafted + stats.draft_n, accepted + stats.draft_n_accepted
    assert accepted / drafted > 0.85  # 0.91 on all prompts at n_max=3, see the model card


def test_text_is_the_tokens_text_without_control_tokens(demo, spec):
    result = spec.generate(chat_prompt(demo, heldout_prompts()[0]), max_tokens=300)
    assert result.finish_reason == "stop"
    assert result.tokens[-1] in demo.eog_tokens
    assert result.text == demo.detokenize(list(result.tokens), unparse_special=False)
    assert "<|im_end|>" not in result.text
    assert len(result.text) > 20


def test_chat_is_the_template_over_generate(demo, spec):
    text = heldout_prompts()[0]
    messages = [{"role": "user", "content": text}]
    by_chat = spec.chat(messages, max_tokens=60)
    assert by_chat.tokens == spec.generate(chat_prompt(demo, text), max_tokens=60).tokens
    assert "".join(chunk.text for chunk in spec.stream_chat(messages, max_tokens=60)) == by_chat.text


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.5])
def test_same_seed_same_text_with_and_without_speculation(demo, spec, plain_spec, temperature):
    n_compared, different = 0, set()
    with Speculator(demo, draft=DraftParams(n_max=7, p_min=0.5), **SIZES) as long:
        for seed, text in enumerate(heldout_prompts()[::10]):
            options = {"max_tokens": 100, "temperature": temperature, "seed": seed, "accept": "match"}
            prompt = chat_prompt(demo, text)
            expected = plain_spec.generate(prompt, **options)
            for other in (plain_spec, spec, long):
                assert other.generate(prompt, **options).tokens == expected.tokens
            n_compared += len(expected.tokens)
            different.add(plain_spec.generate(prompt, **{**options, "seed": 100 + seed}).tokens == expected.tokens)
    assert n_compared > 150
    if temperature >= 0.7:
        assert False in different  # another seed can give another text


def test_stop_strings_do_not_depend_on_drafting(demo, spec, plain_spec):
    prompt = chat_prompt(demo, heldout_prompts()[1])
    whole = plain_spec.generate(prompt, max_tokens=100)
    pieces = [demo.token_to_piece(token, special=False).decode() for token in whole.tokens]
    text = "".join(pieces)
    for first in range(3, 20, 3):
        # from the middle of one token to the middle of a later one
        start = len("".join(pieces[:first])) + len(pieces[first]) // 2
        stop = text[start : start + 5]
        cut = text[: text.find(stop)]
        results = [plain_spec.generate(prompt, max_tokens=100, stop=stop)]
        for draft in (DraftParams(n_max=2), ScriptedDrafter(whole.tokens, n_max=8)):
            with Speculator(demo, draft=draft, **SIZES) as other:
                results.append(other.generate(prompt, max_tokens=100, stop=["\x00", stop]))
                shown = [chunk.text for chunk in other.stream(prompt, max_tokens=100, stop=stop)]
                assert "".join(shown) == cut
        assert {(r.text, r.tokens, r.finish_reason) for r in results} == {(cut, results[0].tokens, "stop")}
        assert whole.tokens[: len(results[0].tokens)] == results[0].tokens


def test_characters_of_several_tokens_arrive_whole(demo):
    text = "naïve ☃ 🙂 日本"
    script = demo.tokenize(text)
    pieces = [demo.token_to_piece(token) for token in script]
    assert any(not is_utf8(piece) for piece in pieces)  # the test would show nothing otherwise
    for n_max in (1, 2, 5):
        with Speculator(demo, draft=ScriptedDrafter(script, n_max=n_max), **SIZES) as other:
            force_script(other, script)
            chunks = list(other.stream([5, 6, 7], max_tokens=len(script)))
            force_script(other, script)
            cut = list(other.stream([5, 6, 7], max_tokens=len(script) - 1))
        assert "".join(chunk.text for chunk in chunks) == text
        assert "".join(chunk.text for chunk in cut) == text[:-1]  # not half of the last character
        assert not any("\ufffd" in chunk.text for chunk in chunks + cut)


def test_control_tokens_are_in_the_tokens_not_in_the_text(demo):
    script = demo.tokenize("ab<|im_start|>cd", parse_special=True)
    assert any(not demo.token_to_piece(token, special=False) for token in script)
    with Speculator(demo, draft=ScriptedDrafter(script, n_max=3), **SIZES) as other:
        force_script(other, script)
        result = other.generate([5, 6], max_tokens=len(script))
    assert result.tokens == tuple(script)
    assert result.text == "abcd"


def is_utf8(data):
    """Whether the bytes are whole characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def force_script(spec, script):
    """Make the accept rule of the next request want these tokens."""
    request = spec._request

    def with_script(*args, **options):
        state, done = request(*args, **options), [0]

        class Scripted(GreedyRule):
            def __call__(self, draft, ctx_tgt, q):
                accepted = accept_greedy(draft, (script + [0] * 9)[done[0] : done[0] + len(draft) + 1])
                done[0] += accepted.n_accepted + 1
                return accepted

        state.rule = Scripted()
        return state

    spec._request = with_script


def test_max_tokens_and_a_full_context(demo):
    with Speculator(demo, n_ctx=60, n_batch=32, n_ubatch=32, n_threads=1) as small:
        assert small.n_ctx == 60
        prompt = chat_prompt(demo, heldout_prompts()[0])
        assert 10 < len(prompt) < 55
        for max_tokens in (1, 2, 4):
            result = small.generate(prompt, max_tokens=max_tokens)
            assert (len(result.tokens), result.finish_reason) == (max_tokens, "length")
        free = 60 - len(prompt)
        whole = small.generate(prompt)
        assert (len(whole.tokens), whole.finish_reason) == (free, "length")
        with pytest.raises(ContextOverflowError, match=f"only {free} of n_ctx=60 are free") as e:
            small.generate(prompt, max_tokens=free + 1)
        assert (e.value.requested, e.value.available) == (free + 1, free)
        with pytest.raises(ContextOverflowError, match="the prompt has 60 tokens") as e:
            small.generate([5] * 60)
        assert (e.value.requested, e.value.available) == (60, 59)
        assert small.generate(prompt).tokens == whole.tokens


def test_context_length_by_default(demo):
    with Speculator(demo, draft=None) as spec:
        assert spec.n_ctx == min(demo.n_ctx_train, 8192)
    with Speculator(demo, draft=None, n_ctx=0) as spec:
        assert spec.n_ctx == demo.n_ctx_train


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"nctx": 5}, TypeError, "Speculator() got an unexpected keyword argument 'nctx'; did you mean 'n_ctx'?"),
        ({"drafts": None}, TypeError, "did you mean 'draft'?"),
        ({"n_thread": 2}, TypeError, "did you mean 'n_threads'?"),
        ({"draft": 3}, TypeError, "draft must be a DraftParams, a Drafter or None, not int"),
        ({"n_ctx": -1}, ValueError, "n_ctx must be an integer from 0 to 2147483647, not -1"),
        ({"n_ctx": True}, TypeError, "n_ctx must be an integer from 0 to 2147483647, not True"),
        ({"n_ctx": 512.0}, TypeError, "n_ctx must be"),
        ({"n_batch": 0}, ValueError, "n_batch must be an integer from 1"),
        ({"n_ubatch": 3}, ValueError, "n_ubatch must be at least n_max + 2 = 8 to verify a draft at once, not 3"),
        ({"n_batch": 3}, ValueError, "n_batch must be at least n_max + 2 = 8"),
        ({"n_gpu_layers": 3}, TypeError, "n_gpu_layers is for a model given as a path"),
        ({"draft_model": 7}, TypeError, "draft_model must be a Model or a path, not int"),
        ({"hidden_tap": "both"}, ValueError, "hidden_tap"),
        ({"type_k": "f17"}, ValueError, "type_k"),
        ({"flash_attn": "on"}, ValueError, "flash_attn"),
    ],
)
def test_wrong_arguments_of_the_constructor(demo, arguments, error, text):
    with pytest.raises(error) as e:
        Speculator(demo, **arguments)
    assert text in str(e.value)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: s.generate(3), TypeError, "prompt must be a string or a sequence of token ids from 0 to 3071"),
        (lambda s: s.generate(None), TypeError, "prompt must be"),
        (lambda s: s.generate(b"hi"), TypeError, "prompt must be"),
        (lambda s: s.generate([1.5]), TypeError, "prompt must be"),
        (lambda s: s.generate([True]), TypeError, "prompt must be"),
        (lambda s: s.generate(["a"]), TypeError, "prompt must be"),
        (lambda s: s.generate([[1], [2]]), TypeError, "prompt must be"),
        (lambda s: s.generate([[1], [2, 3]]), TypeError, "prompt must be"),
        (lambda s: s.generate([3072]), ValueError, "not one with 3072"),
        (lambda s: s.generate([-1]), ValueError, "not one with -1"),
        (lambda s: s.generate([10**30]), ValueError, "not one with 1000"),
        (lambda s: s.generate([]), ValueError, "prompt must have at least one token"),
        (lambda s: s.generate(""), ValueError, "prompt must have at least one token"),
        (lambda s: s.generate("a", max_tokens=0), ValueError, "max_tokens must be an integer >= 1, not 0"),
        (lambda s: s.stream("a", max_tokens=0), ValueError, "max_tokens must be"),
        (lambda s: s.generate("a", max_token=1), TypeError, "Speculator.generate() got an unexpected keyword"),
        (lambda s: s.stream("a", temprature=1), TypeError, "did you mean 'temperature'?"),
        (lambda s: s.chat([], sed=1), TypeError, "Speculator.chat() got an unexpected keyword argument 'sed'"),
        (lambda s: s.generate("a", temperature=float("nan")), ValueError, "temperature must be a finite number >= 0"),
        (lambda s: s.chat("hello"), TypeError, "messages must be a list of mappings"),
        (lambda s: s.chat([]), ValueError, "messages must hold at least one message"),
        (lambda s: s.chat(["hello"]), TypeError, "messages[0] must be a mapping with role and content, not str"),
        (lambda s: s.chat([{"role": "user"}]), ValueError, "messages[0] must have a content"),
        (lambda s: s.chat([{"content": "hi"}]), ValueError, "messages[0] must have a role"),
        (lambda s: s.stream_chat([{"role": "user", "content": 3}]), ValueError, "messages[0] must have a content"),
    ],
)
def test_wrong_arguments_of_a_call(spec, call, error, text):
    with pytest.raises(error) as e:
        call(spec)
    assert text in str(e.value)
    assert len(spec.generate("a", max_tokens=2).tokens) == 2  # and nothing is broken


def test_help_shows_the_options_of_every_call():
    for name in ("generate", "stream", "chat", "stream_chat"):
        parameters = inspect.signature(getattr(Speculator, name)).parameters
        for option in inspect.signature(GenerateParams).parameters:
            assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY


def test_models_that_cannot_speculate(tiny_model):
    with Model(tiny_model("dense", part="trunk")) as model:
        with pytest.raises(NoNextnLayerError, match="draft=None decodes plainly"):
            Speculator(model)
        with Speculator(model, draft=None, n_ctx=256, n_threads=1) as spec:
            assert len(spec.generate([1, 2], max_tokens=3).tokens) == 3
    with Model(DEMO, load_nextn=False) as model, pytest.raises(NoNextnLayerError, match="was loaded without it"):
        Speculator(model)
    with pytest.raises(ModelFileError):
        Speculator("nowhere.gguf")


def test_an_architecture_without_snapshots_decodes_plainly(tiny_model):
    with Model(tiny_model("next", type="q8_0", special_scale=0.0)) as model:
        with pytest.raises(ContextCreateError, match="no snapshots of the recurrent layers of qwen3next.*draft=None"):
            Speculator(model)
        with Speculator(model, draft=None, n_ctx=256, n_threads=1) as spec:
            assert len(spec.generate([1, 2], max_tokens=30).tokens) == 30


@pytest.mark.parametrize("part", ["head", "legacy-head"])
def test_a_second_file_can_hold_the_head(tiny_model, part):
    sizes = {"type": "q8_0", "tied": False, "agreement": 0.97, "special_scale": 0.0}
    options = {"n_ctx": 256, "n_threads": 1, "draft": DraftParams(adaptive=False, vocab="full")}
    with Speculator(tiny_model("dense", **sizes), **options) as whole:
        expected = whole.generate([5, 6, 7], max_tokens=60)
    trunk, head = tiny_model("dense", part="trunk", **sizes), tiny_model("dense", part=part, **sizes)
    with Speculator(trunk, draft_model=head, **options) as spec:
        result = spec.generate([5, 6, 7], max_tokens=60)
    assert result.tokens == expected.tokens
    assert result.stats.draft_n_accepted == expected.stats.draft_n_accepted > 0


def test_closing(demo):
    spec = Speculator(str(DEMO), n_ctx=256, n_threads=1)
    stream = spec.stream("a", max_tokens=50)
    next(stream)
    spec.close()
    spec.close()
    assert spec.closed
    assert spec.model.closed
    with pytest.raises(ClosedError):
        next(stream)
    with pytest.raises(ClosedError, match="this Speculator was closed"):
        spec.generate("a")
    with Speculator(demo, n_ctx=256, n_threads=1) as borrowed:
        assert not borrowed.closed
    assert not demo.closed


def test_an_unfinished_stream_is_an_error_not_a_deadlock(spec):
    expected = spec.generate("def", max_tokens=20).tokens
    stream = spec.stream("class", max_tokens=50)
    next(stream)
    with pytest.raises(NextnError, match="unfinished in this thread"):
        spec.generate("def", max_tokens=20)
    stream.close()
    assert spec.generate("def", max_tokens=20).tokens == expected


def test_threads_take_turns(demo, spec):
    prompts = [chat_prompt(demo, text) for text in heldout_prompts()[:6]]
    expected = [spec.generate(prompt, max_tokens=40).tokens for prompt in prompts]
    results = [None] * len(prompts)

    def work(i):
        results[i] = spec.generate(prompts[i], max_tokens=40).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert results == expected


def test_close_from_another_thread_ends_a_request(demo):
    spec = Speculator(demo, n_ctx=2000, n_threads=1)
    started, errors = threading.Event(), []

    def work():
        try:
            for _ in spec.stream([5], max_tokens=1900, temperature=2.0):
                started.set()
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    spec.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) <= 1  # none only if it was through already
