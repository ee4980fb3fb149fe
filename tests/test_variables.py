"""What records give a chat template beside messages and tools: documents, and variables of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import save_llama
from test_tokens import byte_level, decode, example, one
from test_trainers import CHAT, MARKED, handed_over

from curate.config import Data
from curate.read.examples import read_examples
from curate.read.files import open_source
from curate.tokens.variables import variables_read
from curate.types import SCORED, CurateError, Example, Turn

# In the shapes of SmolLM3 (thinking, a system text of the record's own) and of Granite (documents).
TEMPLATE = (
    "{% if not effort is defined %}{% set effort = 'high' %}{% endif %}{% if enable_thinking is not defined %}"
    "{% set enable_thinking = true %}{% endif %}{{ '/think' if enable_thinking else '/no_think' }} {{ effort }}"
    "{% for d in documents or [] %}[{{ d.title }}: {{ d.text }}]{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
DOCUMENTS = [{"title": "T", "text": "one"}, {"title": "U", "text": "two"}]


def lines(tmp_path: Path, *records: dict[str, Any]) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({"messages": MESSAGES} | record) + "\n" for record in records))
    return path


def examples(path: Path, **data: Any) -> list[Example]:
    settings = Data(path=str(path), **data)
    return list(read_examples(settings, open_source(settings)))


def text_of(record: Example) -> str:
    tokenizer = byte_level(TEMPLATE)
    tokens = one(record, tokenizer, "chat")
    assert decode(tokenizer, tokens, SCORED) == "a"
    return str(tokenizer.decode(tokens.input_ids)).partition("<|im_start|>")[0]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "/think high"),
        ({"enable_thinking": False}, "/no_think high"),
        ({"enable_thinking": "false"}, "/no_think high"),  # as CSV has it
        ({"chat_template_kwargs": {"enable_thinking": False, "effort": "low"}}, "/no_think low"),
        ({"chat_template_kwargs": '{"effort": "low"}'}, "/think low"),
        ({"chat_template_kwargs": {"effort": None}}, "/think high"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, "/think high"),
        ({"documents": DOCUMENTS}, "/think high[T: one][U: two]"),
        ({"documents": json.dumps(DOCUMENTS)}, "/think high[T: one][U: two]"),
        ({"documents": {"title": ["T"], "text": ["one"]}}, "/think high[T: one]"),  # as `datasets` had lists
        ({"chat_template_kwargs": {"documents": DOCUMENTS[:1]}, "documents": DOCUMENTS}, "/think high[T: one]"),
        ({"chat_template_kwargs": {"tools": [{"name": "f"}]}}, '/think high[{"name": "f"}]'),
    ],
)
def test_a_template_is_given_the_variables_of_each_record(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    assert text_of(examples(lines(tmp_path, fields))[0]) == text


def test_records_of_every_format_have_them(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    record = {"instruction": "q", "output": "a", "context": DOCUMENTS}
    path.write_text(json.dumps(record))
    (found,) = examples(path, columns={"documents": "context"})
    assert text_of(found) == "/think high[T: one][U: two]"


def test_parquet_and_lines_of_the_same_records_are_the_same_examples(tmp_path: Path) -> None:
    """Arrow gives each record the variables of all others, as null."""
    records = [
        {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": True}},
        {"messages": MESSAGES, "chat_template_kwargs": {"effort": "low", "budget": 2}},
        {"messages": MESSAGES, "documents": [{"title": "T", "text": "one"}, {"text": "two", "score": 1.5}]},
        {"messages": MESSAGES, "enable_thinking": False},
        {"messages": MESSAGES},
    ]
    names = {name for record in records for name in record}
    rows = [{name: record.get(name) for name in names} for record in records]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = examples(lines(tmp_path, *records))
    found = examples(tmp_path / "a.parquet")
    assert found == expected
    assert [record.unread for record in found] == [record.unread for record in expected] == [frozenset()] * 5
    assert len({record.id for record in expected}) == 5  # none of them is another's duplicate


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"chat_template": "{{ 1 }}"},
            "chat_template_kwargs: expected variables of a chat template, got chat_template",
        ),
        ({"tokenize": True}, "got tokenize; leave it out"),
        ([1], "chat_template_kwargs: expected an object"),
        ("x", "chat_template_kwargs: expected an object"),
    ],
)
def test_a_record_can_set_nothing_but_variables(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(CurateError, match=rf"records.jsonl:1: .*{message}"):
        examples(lines(tmp_path, {"chat_template_kwargs": value}))


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"effort": "low"}, "reads effort, and the field effort of the record is not given to it: put it into chat_te"),
        ({"documents": "a text of somebody's"}, "reads documents, and the field documents"),
        ({"documents": []}, None),
        ({"effort": None, "source": "web", "role": "x", "m": 1}, None),
        ({"chat_template_kwargs": {"custom": "Be brief."}}, "the template does not read custom: the model does not se"),
        ({"chat_template_kwargs": {"custom": "", "python_tools": []}}, None),
    ],
)
def test_what_does_not_reach_the_template_is_noted_by_name(
    tmp_path: Path, fields: dict[str, Any], note: str | None
) -> None:
    notes = one(examples(lines(tmp_path, fields))[0], byte_level(TEMPLATE), "chat").notes
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_a_wording_without_a_place_for_documents_says_so(tmp_path: Path) -> None:
    record = examples(lines(tmp_path, {"documents": DOCUMENTS, "enable_thinking": False}))[0]
    notes = one(record, byte_level(None), "alpaca").notes
    assert notes == ("the template does not read documents: the model does not see them",)


def test_control_tokens_in_documents_are_ordinary_text() -> None:
    record = example(Turn("user", "q"), Turn("assistant", "a"))
    armed = Example(0, "", record.turns, variables={"documents": [{"title": "T", "text": "<|im_end|>"}]})
    tokenizer = byte_level(TEMPLATE)
    tokens = one(armed, tokenizer, "chat")
    assert tokens.control_hits == 1
    assert tokens.input_ids.tolist().count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_variables_are_found_by_parsing() -> None:
    assert variables_read(byte_level(TEMPLATE)) == {"documents", "effort", "enable_thinking", "tools"}
    assert variables_read(byte_level("{% broken")) == frozenset()


def test_trainers_are_handed_the_tokens_of_such_records(tmp_path: Path) -> None:
    template = "{{ '/no_think' if enable_thinking is false else '' }}" + MARKED
    model = save_llama(tmp_path / "model", hidden=16, layers=1, chat_template=template)
    record = {"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}}
    files = handed_over(tmp_path, [record], model, "prompt.template=chat", "prompt.system=s")
    assert files["trl.yaml"]["datasets"][0]["data_files"] == "train.tokens/data-00000-of-00001.arrow"
    assert files["train.messages.jsonl"][0]["chat_template_kwargs"] == {"enable_thinking": False}
