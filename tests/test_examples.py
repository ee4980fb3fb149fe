"""Which format records are in, what conversation each one is, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real import real

from curate.config import Data
from curate.read.examples import input_format, read_examples, to_example
from curate.read.files import open_source
from curate.read.formats import detect_format
from curate.types import CurateError, Example, Format, Record, Turn

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}
MESSAGES = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}
PROMPT = {"prompt": "1+1=", "completion": "2"}
RECORDS: dict[Format, dict[str, Any]] = {
    "alpaca": ALPACA,
    "messages": MESSAGES,
    "sharegpt": SHAREGPT,
    "prompt_completion": PROMPT,
}


def example(fields: Mapping[str, Any], format: Format = "alpaca", columns: Mapping[str, str] | None = None) -> Example:
    return to_example(Record(0, "f.jsonl", 7, b"", fields), format, Data(columns=dict(columns or {})))


def read(folder: Path, records: list[dict[str, Any]] | str, **settings: Any) -> list[Example]:
    path = folder / "f.jsonl"
    path.write_text(records if isinstance(records, str) else "\n".join(map(json.dumps, records)), encoding="utf-8")
    data = Data(path=str(path), **settings)
    return list(read_examples(data, open_source(data)))


@pytest.mark.parametrize("format", RECORDS)
def test_each_format_is_recognised_by_its_keys(format: Format) -> None:
    assert detect_format([RECORDS[format] | {"id": 1, "source": "x"}], {}) == format


def test_response_is_another_name_for_the_answer() -> None:
    assert detect_format([{"instruction": "a", "response": "b"}], {}) == "alpaca"
    assert detect_format([{"prompt": "a", "response": "b"}], {}) == "prompt_completion"
    assert example({"instruction": "a", "response": "b"}).turns == (Turn("user", "a"), Turn("assistant", "b"))
    assert example({"instruction": "a", "response": "b", "output": "c"}).turns[1].content == "c"


def test_columns_say_what_the_keys_are_called() -> None:
    dolly = {"instruction": "a", "context": "c", "response": "b", "category": "x"}
    columns = {"input": "context", "output": "response"}
    assert detect_format([dolly], columns) == "alpaca"
    assert example(dolly, columns=columns).turns == (Turn("user", "a", "c"), Turn("assistant", "b"))
    assert detect_format([{"conversations": MESSAGES["messages"]}], {"messages": "conversations"}) == "messages"
    swapped = {"instruction": "output", "output": "instruction"}
    assert example({"instruction": "a", "output": "b"}, columns=swapped).turns[0].content == "b"


@pytest.mark.parametrize(
    ("records", "columns", "message"),
    [
        (
            [{"question": "a", "answer": "b"}],
            {},
            "not recognised; keys seen: 'question', 'answer'; expected instruction+",
        ),
        ([ALPACA | MESSAGES], {}, r"fit several formats \(alpaca, messages\): say which: data.format=alpaca"),
        ([{"prompt": "a", "instruction": "a", "response": "b"}], {}, "fit several formats"),
        ([ALPACA, ALPACA, SHAREGPT], {}, r"mixed formats \(record 1 is alpaca, record 3 is sharegpt\)"),
        ([{"data": [ALPACA]}], {}, "if the records stand under 'data', write that list alone"),
        ([ALPACA], {"instructon": "x"}, r"unknown key data.columns.instructon .*did you mean instruction\?"),
        ([ALPACA], {"input": "context"}, "data.columns.input=context: none of the first records has that key"),
        ([{}], {}, "keys seen: none"),
    ],
)
def test_what_is_not_one_known_format_is_refused(
    records: list[dict[str, Any]], columns: dict[str, str], message: str
) -> None:
    with pytest.raises(CurateError, match=message):
        detect_format(records, columns)


def test_records_that_fit_nothing_do_not_make_an_input_mixed() -> None:
    assert detect_format([{"x": 1}, ALPACA, {"instruction": "no answer"}], {}) == "alpaca"


def test_alpaca_with_history_and_system() -> None:
    fields = ALPACA | {"system": "Be brief.", "history": [["q1", "a1"], ["q2", "a2"]]}
    assert example(fields).turns == (
        Turn("system", "Be brief."),
        Turn("user", "q1"),
        Turn("assistant", "a1"),
        Turn("user", "q2"),
        Turn("assistant", "a2"),
        Turn("user", "Add.", "1 2"),
        Turn("assistant", "3"),
    )


@pytest.mark.parametrize(
    "nothing", [{}, {"input": ""}, {"input": None}, {"history": [], "system": ""}, {"history": ""}]
)
def test_optional_keys_may_be_missing_null_or_empty(nothing: dict[str, Any]) -> None:
    plain = example({"instruction": "a", "output": "b"})
    other = example({"instruction": "a", "output": "b"} | nothing)
    assert (other.turns, other.id) == (plain.turns, plain.id)


def test_an_empty_answer_is_a_record_and_text_is_taken_as_it_stands() -> None:
    assert example({"instruction": " a\n", "output": ""}).turns == (Turn("user", " a\n"), Turn("assistant", ""))


def test_sharegpt_roles_tools_and_system() -> None:
    tool = {"name": "f", "parameters": {}}
    said = [
        ("human", "q"),
        ("function_call", '{"name": "f"}'),
        ("observation", "4"),
        ("gpt", "a"),
        ("user", "x"),
        ("tool", "5"),
    ]
    fields = {"conversations": [{"from": f, "value": v} for f, v in said], "system": "s", "tools": json.dumps([tool])}
    got = example(fields, "sharegpt")
    assert [(turn.role, turn.content) for turn in got.turns] == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", '{"name": "f"}'),
        ("tool", "4"),
        ("assistant", "a"),
        ("user", "x"),
        ("tool", "5"),
    ]
    assert got.tools == (tool,)
    assert example(fields | {"tools": [tool]}, "sharegpt") == got
    assert example(fields | {"tools": "[]"}, "sharegpt").tools is None
    assert example(fields | {"tools": ""}, "sharegpt").tools is None


def test_messages_parts_tool_calls_and_developer() -> None:
    call = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    fields = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "value": "b"}]},
            {"role": "user", "content": "q", "name": "Ann", "loss_weight": 0.0},
            {"role": "assistant", "content": None, "tool_calls": call},
            {"role": "tool", "content": "4", "tool_call_id": "1", "name": None},
            {"role": "assistant", "content": "four"},
        ]
    }
    assert example(fields, "messages").turns == (
        Turn("system", "ab"),
        Turn("user", "q", extra={"name": "Ann", "loss_weight": 0.0}),
        Turn("assistant", "", extra={"tool_calls": [{**call[0], "function": {"name": "f", "arguments": {}}}]}),
        Turn("tool", "4", extra={"tool_call_id": "1"}),
        Turn("assistant", "four"),
    )


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


@pytest.mark.parametrize(
    ("format", "fields", "message"),
    [
        ("alpaca", {"instruction": "a"}, "expected the key 'output' of the alpaca format, got the keys 'instruction'"),
        ("alpaca", {"instruction": 1, "output": "b"}, "instruction: expected text, got a number"),
        ("alpaca", {"instruction": "a", "output": None}, "output: expected text, got null"),
        ("alpaca", {"instruction": "a", "output": ["b"]}, "output: expected text, got a list"),
        ("alpaca", ALPACA | {"input": {}}, "input: expected text, got an object"),
        ("alpaca", ALPACA | {"system": True}, "system: expected text, got true or false"),
        ("alpaca", ALPACA | {"history": "x"}, r"history: expected a list of \[instruction, answer\] pairs, got text"),
        ("alpaca", ALPACA | {"history": [["a"]]}, "history: expected a list of"),
        ("alpaca", ALPACA | {"history": [["a", 1]]}, "history: expected text, got a number"),
        ("prompt_completion", {"prompt": "a", "completion": 1.5}, "completion: expected text, got a number"),
        ("messages", {"messages": "x"}, "messages: expected a list of messages, got text"),
        ("messages", {"messages": ["x"]}, r"messages\[0\]: expected a message"),
        ("messages", {"messages": []}, "at least one assistant turn"),
        ("messages", turns(("user", "a")), "at least one assistant turn"),
        ("messages", turns(("user", "a"), ("bot", "b")), r"messages\[1\].role: expected one of .*, got 'bot'"),
        ("messages", {"messages": SHAREGPT["conversations"]}, r"messages\[0\].role: .*got the keys 'from', 'value'"),
        ("messages", turns(("user", None), ("assistant", "b")), r"messages\[0\].content: expected text, got null"),
        ("messages", turns(("user", [{"type": "image_url"}]), ("assistant", "b")), "only text parts can be scored"),
        ("messages", turns(("user", ["x"]), ("assistant", "b")), "only text parts can be scored"),
        ("messages", turns(("user", [{"type": "text"}]), ("assistant", "b")), "expected text, got null"),
        (
            "messages",
            turns(("user", "a"), ("system", "s"), ("assistant", "b")),
            "at most one system message, as the first message",
        ),
        ("messages", MESSAGES | {"tools": "{"}, "tools: expected a list of tools or its JSON text"),
        ("messages", MESSAGES | {"tools": '[{"a": NaN}]'}, "tools: .*NaN is not JSON"),
        ("messages", MESSAGES | {"tools": ["f"]}, "tools: expected a list of objects"),
        ("messages", MESSAGES | {"tools": [{"f": b"bytes"}]}, "not JSON"),
        ("sharegpt", {"conversations": [{"from": "alien", "value": "a"}]}, r"conversations\[0\].from: .*'alien'"),
        ("sharegpt", {"conversations": [{"from": "gpt"}]}, r"conversations\[0\].value: expected text, got null"),
    ],
)
def test_a_record_that_does_not_fit_is_refused_with_place_and_key(
    format: Format, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(CurateError, match=rf"^f\.jsonl:7: .*{message}"):
        example(fields, format)


def test_the_id_is_the_hash_of_the_canonical_record() -> None:
    text = '{"tools":null,"turns":[{"content":"Add.","input":"1 2","role":"user"},{"content":"3","role":"assistant"}]}'
    assert example(ALPACA).id == hashlib.sha256(text.encode()).hexdigest()
    accented = example({"instruction": "é", "output": ""}).id
    text = '{"tools":null,"turns":[{"content":"\\u00e9","role":"user"},{"content":"","role":"assistant"}]}'
    assert accented == hashlib.sha256(text.encode()).hexdigest()


@given(st.text(), st.text(), st.text())
def test_the_id_depends_on_the_conversation_and_on_nothing_else(a: str, b: str, c: str) -> None:
    base = example({"instruction": a, "input": b, "output": c})
    assert example({"output": c, "note": 1, "input": b, "instruction": a}).id == base.id
    assert example({"instruction": a, "input": b, "output": c + "!"}).id != base.id
    assert example({"instruction": a, "input": b + "!", "output": c}).id != base.id
    with_turns = {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": c}]}
    assert (example(with_turns, "messages").id == base.id) == (b == "")


def test_every_further_record_must_have_the_detected_format(tmp_path: Path) -> None:
    records = [ALPACA] * 150 + [MESSAGES, ALPACA]
    with pytest.raises(CurateError, match=r"f\.jsonl:151: expected the key 'instruction' of the alpaca format"):
        read(tmp_path, records)
    examples = read(tmp_path, records, on_error="skip")
    assert [e.row for e in examples if e.problem] == [150]
    assert len(examples) == 152


def test_a_told_format_is_not_detected(tmp_path: Path) -> None:
    both = ALPACA | MESSAGES
    assert len(read(tmp_path, [both], format="alpaca")[0].turns) == 2
    assert read(tmp_path, [both], format="messages")[0].turns[0].content == "hi"
    with pytest.raises(CurateError, match="expected the key 'conversations'"):
        read(tmp_path, [ALPACA], format="sharegpt")
    with pytest.raises(
        CurateError, match=r"messages\[0\].from: .*messages of this shape are read with data.format=mess"
    ):
        read(tmp_path, [both], format="sharegpt")


def test_skipped_records_have_a_place_a_reason_and_a_stable_id(tmp_path: Path) -> None:
    broken = '{"instruction": "a", "output": }'
    text = "\n".join([json.dumps(ALPACA), broken, '{"instruction": "a"}', "x" * 300])
    examples = read(tmp_path, text, on_error="skip", max_record_bytes=200)
    assert [e.row for e in examples] == [0, 1, 2, 3]
    assert [bool(e.turns) for e in examples] == [True, False, False, False]
    assert examples[1].id == hashlib.sha256(broken.encode()).hexdigest()
    for line, e in enumerate(examples[1:], start=2):
        assert e.problem is not None
        assert f"f.jsonl:{line}: " in e.problem
    with pytest.raises(CurateError, match=r"none of the first 1 records can be read; the first: .*f\.jsonl:1"):
        read(tmp_path, broken, on_error="skip")


def test_csv_and_parquet_rows_are_the_same_examples(tmp_path: Path) -> None:
    expected = read(tmp_path, [ALPACA, ALPACA | {"input": ""}])
    (tmp_path / "a.csv").write_text("instruction,input,output\nAdd.,1 2,3\nAdd.,,3\n", encoding="utf-8")
    rows = [ALPACA, ALPACA | {"input": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        data = Data(path=str(tmp_path / name))
        assert list(read_examples(data, open_source(data))) == expected


def test_null_keys_that_parquet_fills_in_change_nothing(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    records = [
        MESSAGES,
        {"messages": [*MESSAGES["messages"], call, {"role": "tool", "content": "4", "tool_call_id": "1"}]},
    ]
    expected = read(tmp_path, records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    data = Data(path=str(tmp_path / "a.parquet"))
    assert [e.id for e in read_examples(data, open_source(data))] == [e.id for e in expected]


REAL: list[tuple[str, dict[str, str], Format, int]] = [
    ("alpaca_9k.json", {}, "alpaca", 9229),
    ("alpaca_recovered.jsonl", {}, "alpaca", 20271),
    ("dolly_3k.json", {}, "alpaca", 2996),
    ("eval/gsm8k_748.json", {"prompt": "question", "completion": "answer"}, "prompt_completion", 748),
    ("labels/expert_revised_pairs.json", {"instruction": "Raw Instruction", "output": "Raw Response"}, "alpaca", 2301),
    ("formats/alpaca_zh_demo.json", {}, "alpaca", 1000),
    ("formats/glaive_toolcall_en_demo.json", {}, "sharegpt", 300),
    ("formats/lima_1k_sharegpt.json", {}, "sharegpt", 1000),
    ("formats/openai_cookbook_toy_chat_first4.jsonl", {}, "messages", 4),
    ("formats/v1_sft_demo.jsonl", {}, "messages", 500),
]


@pytest.mark.parametrize(("name", "columns", "format", "count"), REAL)
def test_real_files_become_examples(name: str, columns: dict[str, str], format: Format, count: int) -> None:
    data = Data(path=str(real(f"data/{name}")), columns=columns)
    source = open_source(data)
    examples = list(read_examples(data, source))
    assert input_format(data, source) == format
    assert [e.row for e in examples] == list(range(count))
    assert all(e.problem is None and any(turn.role == "assistant" for turn in e.turns) for e in examples)
    assert all(len(e.id) == 64 for e in examples)


def test_glaive_tools_and_calls_are_kept() -> None:
    data = Data(path=str(real("data/formats/glaive_toolcall_en_demo.json")))
    examples = list(read_examples(data, open_source(data)))
    roles = [turn.role for e in examples for turn in e.turns]
    assert (roles.count("user"), roles.count("assistant"), roles.count("tool")) == (746, 746 + 211, 211)
    assert sum(e.tools is not None for e in examples) > 100
