"""Long conversations and long texts: found and cut early, and exactly as the patient way finds and cuts them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import chat_templates
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real
from test_tokens import byte_level, conversation, example, one, pair, shared, unigram

import curate.tokens.chat
from curate.tokens import prepare, tokenize
from curate.tokens.chat import chat
from curate.tokens.control import Codec, make_codec
from curate.tokens.encode import Encoded, beginning, encoded, fewest_tokens, mark_tokens
from curate.tokens.prompts import Rendered, Response, messages_of
from curate.tokens.rendering import Message, renderer
from curate.types import CONTEXT, END, SCORED, Example, Turn

CALL = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]}
TEMPLATES = {
    **chat_templates.ALL,
    "bare": chat_templates.BARE,
    "last_ten": "{% for m in messages[-10:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "numbered": "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}</s>{% endfor %}",
    "counts_down": "{% for m in messages %}{{ loop.revindex }} {{ m.role }}: {{ m.content }}</s>{% endfor %}",
    "json": "{% for m in messages %}{{ m.role }}: {{ m.content | tojson }}</s>{% endfor %}",
    "doubles": "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{{ m.content }}{% endfor %}",
    "backwards": "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}</s>{% endfor %}",
    "short_prefix": "{% for m in messages %}{{ m.role }}: {{ m.content }}{% if messages | length > 9 %}!{% endif %}</s>"
    "{% endfor %}",
}
TOKENIZERS = {name: byte_level(template) for name, template in TEMPLATES.items()}

few_texts = st.sampled_from(
    ["a", " b ", "\n\nx\n", "the cat", "<|im_end|>", "</s>", "<think>\nt\n</think>\n\na", "Q", "", " ", "é😀", "1", "<"]
)


@st.composite
def long_conversations(draw: Any) -> list[Turn]:
    """20 to 60 turns, alternating, sometimes with a system turn, empty answers, thoughts and tool calls."""
    turns = [Turn("system", "s")] if draw(st.booleans()) else []
    plain = draw(st.booleans())
    for i in range(draw(st.integers(10, 30))):
        text, answer = (f"q{i}", f"a {i}.") if plain else (draw(few_texts), draw(few_texts))
        turns.append(Turn("user", text))
        kind = 9 if plain else draw(st.integers(0, 9))
        if kind == 0:
            turns += [Turn("assistant", draw(st.sampled_from(["", "x"])), extra=CALL), Turn("tool", text)]
        extra = {"reasoning_content": "hm"} if kind == 1 else {}
        turns.append(Turn("assistant", answer, extra=extra))
    return turns


def rendered_counting(messages: Sequence[Message], name: str) -> tuple[Rendered, int]:
    """The rendering of a conversation, and how many messages were rendered for it in all."""
    render = renderer(TOKENIZERS[name], tokenize.datetime.now())
    work = 0

    def counted(part: Sequence[Message], add_generation_prompt: bool) -> str:
        nonlocal work
        work += len(part)
        return render(part, {}, add_generation_prompt)

    return chat(messages, counted), work


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=10, deadline=None)
@given(turns=long_conversations())
def test_responses_that_are_alike_are_found_as_one_by_one(name: str, turns: list[Turn]) -> None:
    assert_same_as_one_by_one(name, turns)


def assert_same_as_one_by_one(name: str, turns: list[Turn]) -> None:
    if name in ("last_ten", "backwards"):  # equal turns could be taken for each other, one by one
        turns = [replace(turn, content=f"{turn.content}{i}" if turn.content else "") for i, turn in enumerate(turns)]
    messages = messages_of(Example(0, "", tuple(turns)))
    outcomes = []
    for few in 8, 10**9:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(curate.tokens.chat, "FEW", few)
            try:
                outcomes.append(rendered_counting(messages, name)[0])
            except prepare.REFUSALS as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@st.composite
def transcripts(draw: Any) -> list[Turn]:
    """An agent at work: 15 to 40 calls of tools, mostly without a word, and what the tools say."""
    turns = [Turn("user", "go")]
    for i in range(draw(st.integers(15, 40))):
        said = draw(st.sampled_from(["", "", "", f"Step {i}.", "\n"]))
        arguments = draw(st.sampled_from([{}, {"a": i}, {"b": "</tool_call>"}, {"c": "]" * i}]))
        extra = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": arguments}}]}
        turns += [Turn("assistant", said, extra=extra), Turn("tool", draw(st.sampled_from([f"{i}", "", "x"])))]
        turns += [Turn("assistant", "Well."), Turn("user", "go on")] if draw(st.integers(0, 9)) == 0 else []
    return [*turns, Turn("assistant", "Done.")]


@pytest.mark.parametrize("name", ["hermes", "qwen3_fields", "llama3", "mistral", "chatml", "numbered", "last_ten"])
@settings(max_examples=15, deadline=None)
@given(turns=transcripts())
def test_tool_calls_that_are_alike_are_found_as_one_by_one(name: str, turns: list[Turn]) -> None:
    assert_same_as_one_by_one(name, turns)


@pytest.mark.parametrize("name", ["hermes", "qwen3_fields", "llama3"])
def test_the_work_grows_with_the_calls_not_their_square(name: str) -> None:
    def work(count: int) -> int:
        turns = [Turn("user", "go")]
        for i in range(count):
            arguments = {"a": i, "b": "x" * (i % 7)}
            extra = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": arguments}}]}
            turns += [Turn("assistant", "", extra=extra), Turn("tool", f"result {i}")]
        messages = messages_of(Example(0, "", (*turns, Turn("assistant", "done"))))
        rendered, messages_rendered = rendered_counting(messages, name)
        assert len(rendered.responses) == count + 1
        return messages_rendered

    assert work(200) < 60 * 400
    assert work(200) < 2.1 * work(100)


@pytest.mark.parametrize("name", sorted(chat_templates.ALL))
def test_the_work_grows_with_the_turns_not_their_square(name: str) -> None:
    def work(count: int) -> int:
        turns = tuple(Turn(("user", "assistant")[i % 2], f"Turn {i}.") for i in range(count))  # type: ignore[arg-type]
        rendered, messages_rendered = rendered_counting(messages_of(Example(0, "", turns)), name)
        assert len(rendered.responses) == count // 2
        return messages_rendered

    assert work(400) < 60 * 400
    assert work(400) < 2.1 * work(200)


def test_a_conversation_that_is_too_long_is_dropped_without_looking_at_every_turn(monkeypatch: Any) -> None:
    tokenizer = TOKENIZERS["numbered"]  # no two turns are alike
    texts = [f"Turn {i}, and the cat sat on the mat." for i in range(400)]
    asked: list[int] = []
    slow = curate.tokens.chat._response
    monkeypatch.setattr(curate.tokens.chat, "_response", lambda m, i, t, r: asked.append(i) or slow(m, i, t, r))
    found = one(conversation(*texts), tokenizer, "chat", max_length=100)
    assert (found.status, found.reason) == ("too_long", "longer than 100 tokens (prompt.max_length)")
    assert asked == [399]


# ---------------------------------------------------------------------------------------------------------------------
# The beginning of a text


@lru_cache
def codec_of(kind: str) -> Codec:
    made = {"unigram": unigram, "byte_level": byte_level}
    return make_codec(made[kind]() if kind in made else shared(kind))


lumps = st.sampled_from(
    [
        "the cat ",
        "12345678901234567890",
        " \n\n  \t",
        "é😀👩‍👩‍👧",
        "e\u0301\u0323",
        "汉字，",
        "don't",
        "<|im_end|>",
        "a" * 90,
        "=" * 50,
        "\u2028",
        "<",
    ]
)


@pytest.mark.parametrize("kind", ["byte_level", "unigram", "base-7m", "stories260K", "tokenizer-gpt2"])
@settings(max_examples=25, deadline=None)
@given(st.lists(lumps, min_size=40, max_size=400), st.integers(1, 30))
def test_the_beginning_of_a_text_has_the_tokens_of_the_whole(kind: str, parts: list[str], limit: int) -> None:
    codec = codec_of(kind)
    text = "".join(parts) * 4
    whole = encoded(codec.backend.encode(text, add_special_tokens=False))
    part = beginning(text, codec, limit)
    assert fewest_tokens(text, codec) <= len(whole.ids)
    if part is not None:
        assert len(part.ids) > limit
        for ours, theirs in ((part.ids, whole.ids), (part.start, whole.start), (part.end, whole.end)):
            np.testing.assert_array_equal(ours, theirs[: len(ours)])


@pytest.mark.parametrize("template", ["alpaca", "plain", "chat"])
@pytest.mark.parametrize("too_long", ["drop", "trim"])
@pytest.mark.parametrize("long_prompt", [False, True])
def test_a_very_long_record_is_read_as_far_as_needed_with_the_same_outcome(
    template: str, too_long: str, long_prompt: bool, monkeypatch: Any
) -> None:
    text = " ".join(f"the cat {i} sat." for i in range(1000))
    record = pair(text, "yes") if long_prompt else pair("q", text)
    tokenizer = TOKENIZERS["chatml"]
    encoded_lengths: list[int] = []
    whole = tokenize.encoded
    monkeypatch.setattr(tokenize, "encoded", lambda e: encoded_lengths.append(len(e.ids)) or whole(e))
    quick = one(record, tokenizer, template, max_length=50, too_long=too_long)
    assert encoded_lengths == []
    monkeypatch.setattr(tokenize, "needed_beginning", lambda *_: None)
    monkeypatch.setattr(prepare, "surely_exceeds", lambda *_: False)
    slow = one(record, tokenizer, template, max_length=50, too_long=too_long)
    assert len(encoded_lengths) == 1
    assert (quick.status, quick.truncated, quick.reason) == (slow.status, slow.truncated, slow.reason)
    np.testing.assert_array_equal(quick.input_ids, slow.input_ids)
    np.testing.assert_array_equal(quick.marks, slow.marks)


def test_a_long_turn_after_the_last_response_is_not_too_long() -> None:
    tokenizer = TOKENIZERS["chatml"]
    record = conversation("q", "the cat", "the dog sat. " * 3000)
    assert one(record, tokenizer, "chat", max_length=50).status == "scored"
    assert one(record, tokenizer, "plain", max_length=50).status == "scored"


@pytest.mark.parametrize("name", ["base-7m", "stories260K", "tokenizer-gpt2"])
def test_no_text_has_fewer_tokens_than_the_bound_says(name: str) -> None:
    codec = make_codec(shared(name))
    records = json.loads(real("data/alpaca_9k.json").read_text())[:200]
    for text in [r["output"] for r in records] + ["-" * 3000, "Â" * 999, " " * 500, "汉字" * 300]:
        assert fewest_tokens(text, codec) <= len(codec.backend.encode(text, add_special_tokens=False).ids)
    assert fewest_tokens("word " * 10_000, codec) > 100


def test_where_text_may_vanish_there_is_no_bound() -> None:
    assert make_codec(unigram()).longest is None
    assert make_codec(shared("gpt2-slm")).longest is None


# ---------------------------------------------------------------------------------------------------------------------
# Marks


def marks_one_by_one(part: Encoded, responses: Sequence[Response], codec: Codec) -> list[int]:
    """The rule of marks in its own words, a token at a time."""
    marks = [CONTEXT] * len(part.ids)
    for response in responses:
        inside = [
            t
            for t in range(len(part.ids))
            if response.start < part.end[t] <= response.stop
            and not (codec.is_name[part.ids[t]] and part.start[t] < response.start)
        ]
        after = [t for t in range(len(part.ids)) if response.stop < part.end[t] <= response.close]
        closing = [t for t in after if codec.is_name[part.ids[t]]]
        for t in inside:
            marks[t] = SCORED
        if inside and closing:
            marks[closing[0]] = END
    return marks


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_marks_follow_their_rule_token_by_token(data: st.DataObject) -> None:
    codec = codec_of("byte_level")
    parts = data.draw(
        st.lists(
            st.sampled_from(["the ", "cat", "😀", "\n", f"{codec.mark}<|im_end|>", f"{codec.mark}</s>"]), min_size=1
        )
    )
    text = "".join(parts)
    part = encoded(codec.backend.encode(text, add_special_tokens=False))
    edges = data.draw(st.lists(st.tuples(*[st.integers(0, len(text))] * 3).map(sorted), max_size=4))
    responses = [Response(*edge) for edge in edges]
    assert mark_tokens(part, responses, codec).tolist() == marks_one_by_one(part, responses, codec)


def test_the_example_of_the_field_is_read() -> None:
    lines = real("field/13-many-turns/t10.jsonl").read_text().splitlines()
    for line in lines:
        turns = [Turn(m["role"], m["content"]) for m in json.loads(line)["messages"]]
        found = one(example(*turns), TOKENIZERS["chatml"], "chat")
        assert found.status == "scored"
        assert np.count_nonzero(found.marks == END) == sum(turn.role == "assistant" for turn in turns)
    assert len(lines) == 20
