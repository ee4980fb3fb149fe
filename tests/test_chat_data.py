"""What records hold beside plain turns, and what templates do with it: fields, calls, thoughts, dates, errors."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import chat_templates
import numpy as np
import pytest
from real import real
from test_tokens import byte_level, conversation, decode, example, one, pair

from curate.tokens.control import disarm, make_codec, write_names
from curate.tokens.remarks import MAX_KINDS, Remark, count_remarks
from curate.tokens.rendering import renderer, writes_date
from curate.tokens.tokenize import tokenize
from curate.types import END, SCORED, CurateError, Example, Tokens, Turn

NOON = datetime(2024, 3, 9, 12, 0, 0)


def call(arguments: Any, name: str = "add") -> dict[str, Any]:
    return {"tool_calls": [{"type": "function", "function": {"name": name, "arguments": arguments}}]}


def with_call(arguments: Any) -> Example:
    return example(
        Turn("user", "1+1?"),
        Turn("assistant", "", extra=call(arguments)),
        Turn("tool", "2"),
        Turn("assistant", "It is 2."),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Fields that a template reads


def test_reasoning_in_a_field_of_its_own_is_written_and_scored() -> None:
    record = example(Turn("user", "q"), Turn("assistant", "a", extra={"reasoning_content": "because"}))
    tokenizer = byte_level(chat_templates.QWEN3_FIELDS)
    assert decode(tokenizer, one(record, tokenizer, "chat"), SCORED) == "<think>\nbecause\n</think>\n\na"
    assert one(record, tokenizer, "chat").control_hits == 0


def test_control_tokens_in_any_field_of_a_message_are_ordinary_text() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.reasoning_content or '' }}"
        "{{ (m.meta or '') | tojson }}{% for k, v in (m.flat or {}).items() %}{{ k }}={{ v }};{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = byte_level(template)
    extra = {
        "reasoning_content": "r<|im_end|>",
        "meta": {"<|im_start|>": [{"role": None, "deep": "</s>"}, 1, None, True]},
        "flat": {"k<|eot_id|>": "v<tool_call>"},
    }
    tokens = one(example(Turn("user", "q"), Turn("assistant", "a", extra=extra)), tokenizer, "chat")
    harmless = one(pair("q", "a"), tokenizer, "chat")
    added = np.array(sorted(tokenizer.added_tokens_decoder))
    ours, theirs = (t.input_ids[np.isin(t.input_ids, added)].tolist() for t in (tokens, harmless))
    assert ours == theirs
    assert tokens.control_hits == 5
    meta = json.dumps(extra["meta"], ensure_ascii=False)
    assert decode(tokenizer, tokens, SCORED) == f"ar<|im_end|>{meta}k<|eot_id|>=v<tool_call>;"


def test_a_template_that_writes_json_in_ascii_gives_the_datas_own_text() -> None:
    codec = make_codec(byte_level(chat_templates.CHATML))
    data, originals, hits = disarm({"messages": [{"role": "user", "content": "é <|im_end|>"}], "tools": None}, codec)
    content = data["messages"][0]["content"]
    assert "<" not in content
    assert write_names(json.dumps(content), codec, originals) == '"\\u00e9 <|im_end|>"'
    assert write_names(json.dumps(content, ensure_ascii=False), codec, originals) == '"é <|im_end|>"'
    assert hits == 1


# ---------------------------------------------------------------------------------------------------------------------
# Arguments of tool calls

ARGUMENTS = {"a": 1, "b": ["x", None], "c": "é"}


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (chat_templates.QWEN3_FIELDS, '{"name": "add", "arguments": {"a": 1, "b": ["x", null], "c": "é"}}'),
        (chat_templates.HERMES, '{"name": "add", "arguments": {"a": 1, "b": ["x", null], "c": "é"}}'),
        (chat_templates.DEEPSEEK, 'add\n{"a": 1, "b": ["x", null], "c": "é"}'),
        (chat_templates.PRINTS_ARGUMENTS, 'add\n{"a": 1, "b": ["x", null], "c": "é"}'),
        (chat_templates.WALKS_ARGUMENTS, "add\na=1\nb=['x', None]\nc=é"),
    ],
)
def test_arguments_are_written_as_the_template_wants_them(template: str, written: str) -> None:
    tokenizer = byte_level(template)
    tokens = one(with_call(ARGUMENTS), tokenizer, "chat")
    assert tokens.status == "scored"
    assert written in tokenizer.decode(tokens.input_ids)
    assert "It is 2." in decode(tokenizer, tokens, SCORED)


def test_a_message_that_shows_a_python_object_does_not_change_how_arguments_are_written() -> None:
    record = example(Turn("user", "What is {'a': 1}?"), Turn("assistant", "It is {'a': 1}.", extra=call({"a": 1})))
    tokenizer = byte_level(chat_templates.HERMES)
    assert '"arguments": {"a": 1}' in decode(tokenizer, one(record, tokenizer, "chat"), SCORED)


def test_control_tokens_in_arguments_stay_text_in_both_forms() -> None:
    for template in chat_templates.HERMES, chat_templates.DEEPSEEK, chat_templates.PRINTS_ARGUMENTS:
        tokenizer = byte_level(template)
        tokens, harmless = (one(with_call({"a": text}), tokenizer, "chat") for text in ("x</s>", "x"))
        assert '{"a": "x</s>"}' in decode(tokenizer, tokens, SCORED)
        eos = tokenizer.eos_token_id
        assert tokens.input_ids.tolist().count(eos) == harmless.input_ids.tolist().count(eos)


def test_a_template_that_refuses_both_forms_says_its_own_reason() -> None:
    tokenizer = byte_level(
        "{{ raise_exception('no calls ' ~ (messages[1].tool_calls[0].function.arguments is string)) }}"
    )
    assert one(with_call({"a": 1}), tokenizer, "chat").reason == "the chat template refuses it: no calls False"


# ---------------------------------------------------------------------------------------------------------------------
# Thoughts in the content

LOST = "it is neither scored nor trained on"
THOUGHT = "<think>\nbecause\n</think>\n\na"
NOTE = (
    "answers hold </think>, <think> as ordinary text, not as control tokens; to let them act, give "
    '\'model.allow_tokens=["</think>", "<think>"]\''
)


@pytest.mark.parametrize("name", ["qwen3", "qwen3_fields", "deepseek", "chatml"])
def test_thoughts_in_answers_are_told_with_the_setting_that_lets_them_act(name: str) -> None:
    tokenizer = byte_level(chat_templates.ALL[name])
    assert one(pair("q", THOUGHT), tokenizer, "chat").notes == (NOTE,)
    allowed = one(pair("q", THOUGHT), tokenizer, "chat", allow_tokens=["</think>", "<think>"])
    assert allowed.notes == (
        (f"the template leaves out <think> in the last answer: {LOST}",) if name == "deepseek" else ()
    )
    if name.startswith("qwen3"):
        assert decode(tokenizer, allowed, SCORED) == THOUGHT
        assert allowed.input_ids.tolist().count(tokenizer.convert_tokens_to_ids("<think>")) == 1


PAIRS = [("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<seed:think>", "</seed:think>")]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_thoughts_between_special_tokens_are_told_too(opening: str, closing: str) -> None:
    tokenizer, names = byte_level(chat_templates.CHATML), sorted([opening, closing])
    tokenizer.add_special_tokens({"additional_special_tokens": [opening, closing]})
    (note,) = one(pair("q", f"{opening}because{closing}a"), tokenizer, "chat").notes
    assert note.startswith(f"answers hold {', '.join(names)} as ordinary text, not as control tokens")
    assert note.endswith(f"give 'model.allow_tokens={json.dumps(names, ensure_ascii=False)}'")


OWN_BLOCK = chat_templates.CHATML.replace(
    "{{ m.content }}", "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
)
DROPS = chat_templates.CHATML.replace("m.content", "m.content.split('</think>')[-1]")


@pytest.mark.parametrize(
    ("template", "message", "note"),
    [
        (OWN_BLOCK, {"content": THOUGHT}, "the template writes a <think> of its own before the answer's"),
        (DROPS, {"content": THOUGHT}, f"the template leaves out <think> in the last answer: {LOST}"),
        (chat_templates.CHATML, {"reasoning_content": "because"}, f"does not write reasoning_content of .*: {LOST}"),
        (chat_templates.CHATML, {"content": THOUGHT}, None),
        (chat_templates.QWEN3, {"content": THOUGHT}, None),
        (chat_templates.QWEN3_FIELDS, {"reasoning_content": "because"}, None),
        (OWN_BLOCK, {"content": "a <think> that never ends"}, None),
        (None, {"reasoning_content": "because"}, f"does not write reasoning_content of the last answer: {LOST}"),
    ],
)
def test_thoughts_that_are_not_written_as_they_are_are_told(
    template: str | None, message: dict[str, Any], note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_templates, "ORDINARY", ())  # <think> is no token of this tokenizer
    extra = {key: value for key, value in message.items() if key != "content"}
    record = example(Turn("user", "q"), Turn("assistant", message.get("content", "a"), extra=extra))
    notes = one(record, byte_level(template), "chat" if template else "alpaca").notes
    assert len(notes) == (note is not None)
    assert note is None or re.search(note, notes[0])


def test_earlier_thoughts_may_be_dropped_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_templates, "ORDINARY", ())
    tokens = one(conversation("q", THOUGHT, "q", THOUGHT), byte_level(chat_templates.QWEN3), "chat")
    assert tokens.notes == ()


def test_control_tokens_elsewhere_are_counted_and_not_noted() -> None:
    tokenizer = byte_level(chat_templates.CHATML)
    for record in pair("<think>", "a"), pair("q", "a <|im_end|>"):
        tokens = one(record, tokenizer, "chat")
        assert (tokens.control_hits, tokens.notes) == (1, ())


def test_the_setting_of_a_note_is_read_by_the_command_line() -> None:
    from curate.config.words import parse_word

    word = NOTE.split("'")[1].partition("=")[2]
    assert parse_word(word, tuple[str, ...], "model.allow_tokens") == ["</think>", "<think>"]


# ---------------------------------------------------------------------------------------------------------------------
# What a template does not write

TOOL = {"type": "function", "function": {"name": "add", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("template", "omitted"),
    [
        (chat_templates.CHATML, ["tools that a record offers", "tool calls"]),
        (chat_templates.HERMES, []),
        (chat_templates.HERMES.replace("{{ m.content }}", "{{ m.content | upper }}"), []),
        (
            "{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% else %}{% for part in m.content %}"
            "{{ part.text }}{% endfor %}{% endif %}\n{% endfor %}",
            ["messages of users", "tools that a record offers", "tool calls"],
        ),
        (
            "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}\n{% endfor %}",
            ["system messages", "tools that a record offers", "tool calls", "messages of the role tool"],
        ),
    ],
)
def test_a_record_is_noted_that_holds_what_the_template_does_not_write(template: str, omitted: list[str]) -> None:
    turns = Turn("system", "s"), *with_call({"a": 1}).turns
    notes = one(Example(0, "0" * 64, turns, tools=(TOOL,)), byte_level(template), "chat").notes
    expected = [f"the template does not write {kind}: it is scored and trained on without them" for kind in omitted]
    assert list(notes) == expected
    assert one(pair("q", "a"), byte_level(template), "chat").notes == ()


def test_a_system_text_of_the_settings_is_noted_where_the_template_does_not_write_it() -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    (note,) = one(pair("q", "a"), byte_level(template), "chat", system="Be short.").notes
    assert "system messages" in note


# ---------------------------------------------------------------------------------------------------------------------
# The same text at every rendering


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("['a', 'b'] | random", "draws at random"),
        ("[['a', 'b'], ['c', 'd']] | map('random') | join", "draws at random"),
        ("lipsum(1, False)", "draws at random"),
        ("messages[0].items", "address in memory"),
        ("messages[0].get", "address in memory"),
        ("raise_exception", "address in memory"),
        ("cycler('a', 'b')", "address in memory"),
    ],
)
def test_a_template_that_writes_another_text_each_time_makes_no_scores(expression: str, reason: str) -> None:
    import random

    random.seed(7)
    expected = random.random()
    random.seed(7)
    tokens = one(pair("q", "a"), byte_level(f"{{{{ {expression} }}}}{chat_templates.CHATML}"), "chat")
    assert tokens.status == "unscorable"
    assert reason in tokens.reason
    assert random.random() == expected  # nothing else draws other numbers because a template did


@pytest.mark.parametrize("words", ["at random", "lipsum", "<function f at 0x7f00aa>"])
def test_such_words_in_a_record_or_a_template_are_ordinary_text(words: str) -> None:
    tokenizer = byte_level(f"random lipsum\n{chat_templates.CHATML}")
    assert decode(tokenizer, one(pair(words, words), tokenizer, "chat"), SCORED) == words


# ---------------------------------------------------------------------------------------------------------------------
# The clock


def test_the_date_is_that_of_the_run() -> None:
    tokenizer = byte_level(chat_templates.LLAMA3_DATE)
    then, again, later = (
        one(pair("q", "a"), tokenizer, "chat", now=now) for now in (NOON, NOON.replace(hour=1), datetime(2025, 1, 1))
    )
    assert "Today Date: 09 Mar 2024" in tokenizer.decode(then.input_ids)
    assert then.input_ids.tolist() == again.input_ids.tolist()
    assert "Today Date: 01 Jan 2025" in tokenizer.decode(later.input_ids)


def test_the_time_of_day_does_not_move_the_mask() -> None:
    clock = "{% for m in messages %}{{ strftime_now('%H:%M:%S.%f') }} {{ m.role }}:{{ m.content }}</s>{% endfor %}"
    tokenizer = byte_level(clock)
    tokens = one(conversation(*["q", "the cat"] * 12), tokenizer, "chat", now=NOON)
    assert decode(tokenizer, tokens, SCORED) == "the cat" * 12
    assert tokenizer.decode(tokens.input_ids).count("12:00:00.000000 assistant") == 12


@pytest.mark.parametrize("start", ["\n  x", "  {% if true %}x{% endif %}\n", "{%- if true %}\nx{% endif %}", "x\n\n"])
def test_a_template_with_a_clock_writes_what_it_writes_without_ours(start: str) -> None:
    template = start + "{{ strftime_now(format='%Y') }}{% for m in messages %}\n{{ m.content }}{% endfor %}\n"
    tokenizer = byte_level(template)
    messages = [{"role": "user", "content": "a"}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert renderer(tokenizer, datetime.now())(messages, {}, False) == expected
    assert "x" in expected


@pytest.mark.parametrize(
    ("template", "writes"),
    [
        *((template, name == "llama3_date") for name, template in chat_templates.ALL.items()),
        ("{{ messages[0].content }}{% if tools %}{{ strftime_now('%A') }}{% endif %}", True),
        ("{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{{ strftime_now('%S') }}", True),
        ("{% set today = strftime_now('%Y') %}{{ messages[0].content }}", False),
        ("{{ date_string if date_string is defined else '26 Jul 2024' }}", False),
        (None, False),
    ],
)
def test_it_is_seen_whether_a_template_writes_the_date(template: str | None, writes: bool) -> None:
    assert writes_date(byte_level(template)) is writes


# ---------------------------------------------------------------------------------------------------------------------
# Reasons


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("{{ 1 // 0 }}", "ZeroDivisionError: integer division or modulo by zero"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{{ messages[0].nothing.more }}", "'dict object' has no attribute 'nothing'"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ 'a'.encode('ascii').decode('utf-16') }}", "UnicodeDecodeError"),
        ("{{ ''.__class__ }}{{ ''.__class__.mro() }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ 2.0 ** 10000 }}", "OverflowError"),
        ("{{ {}['a'].b }}", "'dict object' has no attribute 'a'"),
        ("{{ messages.pop(7) }}", "unsafe"),
        ("{{ raise_exception('two\n  lines ' + 'x' * 300) }}", "two lines xxx"),
    ],
)
def test_a_record_on_which_the_template_fails_is_unscorable_and_others_go_on(expression: str, reason: str) -> None:
    template = "{% if messages[0].content == 'bad' %}" + expression + "{% endif %}" + chat_templates.CHATML
    records = [pair("fine", "a", row=0), pair("bad", "a", row=1), pair("fine", "a", row=2)]
    found = list(tokenize(records, byte_level(template), template="chat", max_length=99))
    assert [tokens.status for tokens in found] == ["scored", "unscorable", "scored"]
    assert found[1].reason.startswith("the chat template refuses it: ")
    assert reason in found[1].reason
    assert len(found[1].reason) < 200
    assert "\n" not in found[1].reason
    assert found[0].reason == found[2].reason == ""


@pytest.mark.parametrize(
    ("stop", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (MemoryError, CurateError)], ids=["Ctrl-C", "memory"]
)
def test_what_ends_a_program_ends_it(
    stop: type[BaseException], told: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_level(chat_templates.CHATML)

    def interrupted(*_: object, **__: object) -> str:
        raise stop

    monkeypatch.setattr(tokenizer, "apply_chat_template", interrupted)
    with pytest.raises(told):
        one(pair("q", "a"), tokenizer, "chat")


def test_a_template_that_is_no_jinja_is_refused_once() -> None:
    with pytest.raises(CurateError, match=r"is no valid Jinja: .*; mend it, or give prompt\.template=alpaca"):
        one(pair("q", "a"), byte_level("{% for m in %}"), "chat")


@pytest.mark.parametrize(
    ("record", "template", "too_long", "reason"),
    [
        (example(problem="x.json:3: broken"), "chat", "drop", "x.json:3: broken"),
        (pair("q", " "), "chat", "drop", "no assistant turn says anything"),
        (with_call({}), "alpaca", "drop", "tools are used, and only a chat template has a place for them"),
        (pair("q", "a " * 90), "chat", "drop", "longer than 40 tokens (prompt.max_length)"),
        (pair("q " * 90, "a"), "plain", "trim", "the prompt alone fills prompt.max_length (40)"),
        (pair("", "q"), "plain", "drop", "no token of a response is left to score"),
    ],
)
def test_every_unscored_record_has_a_reason(record: Example, template: str, too_long: str, reason: str) -> None:
    tokenizer = byte_level(chat_templates.CHATML)
    assert one(record, tokenizer, template, max_length=40, too_long=too_long).reason == reason


def test_no_line_is_logged_for_a_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    lines = real("field/04-strict-template/many.jsonl").read_text().splitlines()
    records = [
        Example(row, "", tuple(Turn(m["role"], m["content"]) for m in json.loads(line)["messages"]))
        for row, line in enumerate(lines)
    ]
    tokenizer = byte_level(real("field/templates/strict.jinja").read_text())
    remarks: dict[str, Remark] = {}
    found = list(count_remarks(tokenize(records, tokenizer, template="chat", max_length=999), remarks))
    refused = [tokens for tokens in found if tokens.status == "unscorable"]
    assert sum(remark.count for remark in remarks.values()) == len(refused) > 0
    assert len(remarks) <= 3
    for text, remark in remarks.items():
        assert (remark.status, found[remark.row].reason) == ("unscorable", text)
        assert not any(tokens.reason == text for tokens in found[: remark.row])
    assert caplog.records == []


def test_notes_are_counted_beside_reasons_and_kinds_are_bounded() -> None:
    empty = np.empty(0, np.int32), np.empty(0, np.uint8)
    noted = [Tokens(row, "", "scored", False, *empty, notes=("n",)) for row in (0, 1)]
    refused = [Tokens(row, "", "unscorable", False, *empty, reason=f"reason {row}") for row in range(2, 102)]
    remarks: dict[str, Remark] = {}
    assert list(count_remarks([*noted, *refused], remarks)) == [*noted, *refused]
    assert remarks["n"] == Remark("scored", 2, 0)
    assert remarks["reason 2"] == Remark("unscorable", 1, 2)
    assert remarks["further reasons (unscorable)"] == Remark("unscorable", 102 - 1 - MAX_KINDS, 1 + MAX_KINDS)


# ---------------------------------------------------------------------------------------------------------------------
# Empty turns


@pytest.mark.parametrize("template", ["chat", "alpaca", "plain"])
def test_nothing_of_an_empty_turn_is_scored_or_trained_on(template: str) -> None:
    tokenizer = byte_level(chat_templates.CHATML)
    lines = real("field/18-empty-turn/e.jsonl").read_text().splitlines()
    roles = {"human": "user", "gpt": "assistant"}
    for line in lines:
        said = json.loads(line)["conversations"]
        turns = [Turn(roles[m["from"]], m["value"]) for m in said]  # type: ignore[arg-type]
        tokens = one(example(*turns), tokenizer, template)
        answers = [m["value"] for m in said if m["from"] == "gpt" and m["value"]]
        assert decode(tokenizer, tokens, SCORED) == "".join(answers)
        assert np.count_nonzero(tokens.marks == END) == (len(answers) if template == "chat" else 0)
        assert bool(tokens.notes) == (len(answers) < 2)
    assert len(lines) == 6
