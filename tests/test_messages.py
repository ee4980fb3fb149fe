"""The same conversation is the same example, in whatever file and spelling it came; odd ones say what to write."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real

from curate.config import Data
from curate.publish.kept import write_kept
from curate.publish.records import describe_kept
from curate.read.examples import open_examples, read_examples, to_example
from curate.read.files import open_source, read_records
from curate.read.messages import without_nulls
from curate.types import CurateError, Example, Format, Record, Turn


def example(fields: dict[str, Any], format: Format = "messages", **options: Any) -> Example:
    return to_example(Record(0, "f.jsonl", 7, b"", fields), format, Data(**options))


def examples(path: Path, **options: Any) -> list[Example]:
    data = Data(path=str(path), **options)
    return list(read_examples(data, open_source(data)))


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def chat(*messages: dict[str, Any], **further: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, *messages], **further}


# Arrow's nulls ------------------------------------------------------------------------------------------------------


TOOLS = [
    {"type": "function", "function": {"name": "f", "parameters": {"properties": {"city": {"type": "string"}}}}},
    {"type": "function", "function": {"name": "g", "parameters": {"properties": {"day": {"enum": ["mon", None]}}}}},
]


def calling(name: str, **arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": name, "arguments": arguments}}]}


def test_parquet_and_lines_of_the_same_records_are_the_same_examples(tmp_path: Path) -> None:
    records = [
        chat(calling("f", city="Rome"), {"role": "tool", "content": "4", "tool_call_id": "1"}, tools=TOOLS[:1]),
        chat(
            calling("g", day="mon", n=2.5), {"role": "assistant", "content": "x", "reasoning_content": "r"}, tools=TOOLS
        ),
        chat({"role": "assistant", "content": "none"}),
    ]
    expected = examples(lines(tmp_path / "a.jsonl", records))
    assert [len(e.tools or ()) for e in expected] == [1, 2, 0]
    table = pa.Table.from_pylist(records)
    pq.write_table(table, tmp_path / "a.parquet")
    nulls = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert nulls[0]["tools"][0]["function"]["parameters"]["properties"]["day"] is None, "Arrow fills keys in"
    assert examples(tmp_path / "a.parquet") == expected
    assert expected[0].turns[1].extra["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert expected[1].tools is not None
    assert expected[1].tools[1]["function"]["parameters"] == {"properties": {"day": {"enum": ["mon", None]}}}
    assert examples(lines(tmp_path / "n.jsonl", nulls)) == expected, "nulls that are written are the same"


@pytest.mark.parametrize("writer", ["arrow", "pandas"])
def test_numbers_that_arrow_has_made_floats_are_the_numbers_of_the_lines(tmp_path: Path, writer: str) -> None:
    records = [
        chat(calling("pay", amount=100, n=[1, 2]), tools=[{"name": "pay", "parameters": {"minimum": 0}}]),
        chat(calling("pay", amount=12.5, n=[0.5]), tools=[{"name": "pay", "parameters": {"minimum": 0.5}}]),
        chat(calling("pay", amount=1.0, n=[-3.0, 2.0**60])),
    ]
    expected = examples(lines(tmp_path / "a.jsonl", records))
    if writer == "pandas":
        pytest.importorskip("pandas").DataFrame(records).to_parquet(tmp_path / "a.parquet")
    else:
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    assert examples(tmp_path / "a.parquet") == expected
    amounts = [e.turns[1].extra["tool_calls"][0]["function"]["arguments"]["amount"] for e in expected]
    assert json.dumps(amounts) == "[100, 12.5, 1]"


def test_answers_that_are_numbers_are_the_same_text_in_parquet_and_lines(tmp_path: Path) -> None:
    records = [{"prompt": "1", "completion": 2}, {"prompt": "3", "completion": 4.5}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    expected = examples(lines(tmp_path / "a.jsonl", records), numbers="text")
    assert examples(tmp_path / "a.parquet", numbers="text") == expected
    assert [e.turns[1].content for e in expected] == ["2", "4.5"]


def test_the_record_itself_keeps_its_nulls(tmp_path: Path) -> None:
    records = [chat({"role": "assistant", "content": "x", "name": None}, note=None)]
    path = lines(tmp_path / "a.jsonl", records)
    assert [record.fields for record in read_records(open_source(Data(path=str(path))), Data())] == records
    assert examples(path)[0].turns[1].extra == {}


text = st.text("ab é\n", max_size=4)
extra = st.dictionaries(st.sampled_from(["reasoning_content", "name", "note"]), text, max_size=3)
argument = st.dictionaries(st.sampled_from("xyz"), text, min_size=1, max_size=3)
call = st.builds(lambda n, a: {"function": {"name": n, "arguments": a}}, text, argument)
answer = st.builds(
    lambda content, more, calls: {
        "role": "assistant",
        "content": content,
        **more,
        **({"tool_calls": calls} if calls else {}),
    },
    text,
    extra,
    st.lists(call, max_size=2),
)
tool = st.builds(lambda n, p: {"name": n, "parameters": {"type": "object", "properties": p}}, text, argument)
record = st.builds(
    lambda turns, tools: chat(*turns, **({"tools": tools} if tools else {})),
    st.lists(answer, min_size=1, max_size=3),
    st.lists(tool, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(record, min_size=1, max_size=5))
def test_any_records_are_the_same_in_parquet_and_lines(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("same")
    expected = examples(lines(folder / "a.jsonl", records))
    columns = [{"messages": None, "tools": None, **r} for r in records]  # Arrow takes them from the first record
    pq.write_table(pa.Table.from_pylist(columns), folder / "a.parquet")
    assert examples(folder / "a.parquet") == expected
    spelled = [
        {"messages": json.dumps(r["messages"])} | ({"tools": json.dumps(r["tools"])} if "tools" in r else {})
        for r in records
    ]
    assert examples(lines(folder / "b.jsonl", spelled)) == expected


def test_tables_of_pandas_and_other_writers_are_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    records = [chat(calling("f", city="Rome"), tools=TOOLS), chat({"role": "assistant", "content": "x"}, tools=None)]
    expected = examples(lines(tmp_path / "a.jsonl", records))
    pandas.DataFrame(records).to_parquet(tmp_path / "a.parquet")
    assert examples(tmp_path / "a.parquet") == expected
    frame = pandas.DataFrame({"instruction": ["a", "b"], "input": [None, float("nan")], "output": ["yes", "no"]})
    frame["output"] = frame["output"].astype("category")
    frame.to_parquet(tmp_path / "b.parquet")
    assert [e.turns for e in examples(tmp_path / "b.parquet")] == [
        (Turn("user", "a"), Turn("assistant", "yes")),
        (Turn("user", "b"), Turn("assistant", "no")),
    ]


def test_maps_are_objects(tmp_path: Path) -> None:
    kind = pa.struct([("name", pa.string()), ("arguments", pa.map_(pa.string(), pa.string()))])
    message = pa.struct([("role", pa.large_string()), ("content", pa.string()), ("function_call", kind)])
    rows = [[("user", "q", None), ("assistant", None, ("f", [("city", "Rome")]))]]
    values = [[dict(zip(("role", "content", "function_call"), m, strict=True)) for m in row] for row in rows]
    values[0][1]["function_call"] = {"name": "f", "arguments": [("city", "Rome")]}
    table = pa.table({"messages": pa.array(values, pa.list_(message))})
    pq.write_table(table, tmp_path / "a.parquet")
    function = {"name": "f", "arguments": {"city": "Rome"}}
    assert examples(tmp_path / "a.parquet")[0].turns[1].extra == {
        "tool_calls": [{"type": "function", "function": function}]
    }


def test_a_column_for_each_key_of_the_messages_is_a_list_of_them(tmp_path: Path) -> None:
    columns = {"conversations": {"from": ["human", "gpt"], "value": ["a", "b"]}}
    assert examples(lines(tmp_path / "a.jsonl", [columns]))[0].turns == (Turn("user", "a"), Turn("assistant", "b"))


def test_dates_and_nans_beside_a_message_are_json(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 1, 2, 3, 4)
    records = [chat({"role": "assistant", "content": "x", "timestamp": when, "score": float("nan")})]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    assert examples(tmp_path / "a.parquet")[0].turns[1].extra == {"timestamp": "2024-01-02T03:04:00"}
    with pytest.raises(CurateError, match="not JSON"):
        example(chat({"role": "assistant", "content": "x", "blob": b"x"}))
    with pytest.raises(CurateError, match="not JSON"):
        example(chat({"role": "assistant", "content": "x", "score": float("inf")}))


@pytest.mark.parametrize(
    ("kind", "value", "as_in_jsonl"),
    [
        (pa.float32(), 0.1, 0.1),
        (pa.float32(), 3.0, 3),
        (pa.float16(), 0.3, 0.3),
        (pa.float64(), 0.1, 0.1),
        (pa.list_(pa.float32()), [0.1, None, 1e-7], [0.1, None, 1e-7]),
        (pa.timestamp("s"), datetime.datetime(2024, 1, 2), "2024-01-02"),  # what `datasets` makes of that text
        (pa.timestamp("ns"), datetime.datetime(2024, 1, 2, 10), "2024-01-02T10:00:00"),
        (pa.timestamp("us", "UTC"), datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC), "2024-01-02T00:00:00+00:00"),
        (pa.map_(pa.int64(), pa.string()), [(1, "one")], {"1": "one"}),
        (pa.map_(pa.string(), pa.float32()), [("a", 0.1)], {"a": 0.1}),
    ],
)
def test_values_of_narrow_or_rare_types_are_what_jsonl_would_hold(
    tmp_path: Path, kind: pa.DataType, value: Any, as_in_jsonl: Any
) -> None:
    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("extra", kind)])
    rows = [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "extra": value}]]
    pq.write_table(pa.table({"messages": pa.array(rows, pa.list_(message))}), tmp_path / "a.parquet")
    (record,) = examples(tmp_path / "a.parquet")
    assert record.turns[1].extra == {"extra": as_in_jsonl}
    assert record == example(chat({"role": "assistant", "content": "a", "extra": as_in_jsonl}))


def test_json_text_in_lists_of_fixed_size_is_parsed(tmp_path: Path) -> None:
    inner = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', "[2]"]))
    extras = pa.FixedSizeListArray.from_arrays(inner, 2)
    roles, contents = pa.array(["assistant"]), pa.array(["a"])
    message = pa.StructArray.from_arrays([roles, contents, extras], ["role", "content", "extra"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 1], message)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert examples(tmp_path / "a.arrow")[0].turns[0].extra == {"extra": [{"a": 1}, [2]]}


json_like = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)


@given(json_like)
def test_without_nulls_no_object_has_a_null_and_nothing_else_is_lost(value: Any) -> None:
    got = without_nulls(value)
    assert without_nulls(got) == got
    assert json.dumps(got).count("null") == sum(part.count(None) for part in _lists(value)) + (value is None), (
        "those in lists stay"
    )


def _lists(value: Any) -> list[list[Any]]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return ([value] if isinstance(value, list) else []) + [found for part in inner for found in _lists(part)]


# One spelling -------------------------------------------------------------------------------------------------------


def test_what_a_template_may_read_is_kept_and_told_apart() -> None:
    thinking = {"role": "assistant", "content": "x", "reasoning_content": "because", "thinking": {"effort": "low"}}
    got = example(chat(thinking))
    assert got.turns[1] == Turn("assistant", "x", extra={"reasoning_content": "because", "thinking": {"effort": "low"}})
    assert got.id != example(chat(thinking | {"reasoning_content": "why"})).id
    assert got.id != example(chat({"role": "assistant", "content": "x"})).id
    assert got.id == example(chat(dict(reversed(thinking.items())))).id, "the order of keys says nothing"
    shared = {
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x", "reasoning_content": "r"}]
    }
    assert example(shared, "sharegpt").turns[1].extra == {"reasoning_content": "r"}


ARGUMENTS = {"city": "Rome", "days": [1, 2], "deep": {"a": 1}}
FUNCTION = {"name": "f", "arguments": ARGUMENTS}


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"type": "function", "function": FUNCTION}]},
        {"tool_calls": [{"type": "function", "function": FUNCTION | {"arguments": json.dumps(ARGUMENTS)}}]},
        {"tool_calls": [{"type": "function", "function": FUNCTION | {"arguments": json.dumps(ARGUMENTS, indent=4)}}]},
        {"tool_calls": [{"type": "function", "function": FUNCTION | {"arguments": {**ARGUMENTS, "none": None}}}]},
        {
            "tool_calls": [
                {"type": "function", "function": FUNCTION | {"arguments": '{"n": null, ' + json.dumps(ARGUMENTS)[1:]}}
            ]
        },
        {"tool_calls": [{"function": FUNCTION | {"arguments": json.dumps(json.dumps(ARGUMENTS))}}]},
        {"tool_calls": [{"type": None, "function": FUNCTION | {"arguments": {**ARGUMENTS, "deep": {"a": 1.0}}}}]},
        {"tool_calls": json.dumps([{"type": "function", "function": FUNCTION}])},
        {"tool_calls": [FUNCTION]},
        {"function_call": FUNCTION},
        {"function_call": FUNCTION | {"arguments": json.dumps(ARGUMENTS)}},
    ],
)
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_a_call_is_the_same_call_however_it_is_spelled(message: dict[str, Any], content: dict[str, Any]) -> None:
    got = example(chat({"role": "assistant", **content, **message}))
    assert got.turns[1] == Turn("assistant", "", extra={"tool_calls": [{"type": "function", "function": FUNCTION}]})
    said = [{"from": "human", "value": "q"}, {"from": "function_call", "value": json.dumps(FUNCTION)}]
    assert example({"conversations": said}, "sharegpt") == got, "ShareGPT's form of it too"


@pytest.mark.parametrize("arguments", ["not JSON", "[1]", '"x"', "{", '{"a": 1, "a": 2}', '{"a": NaN}'])
def test_arguments_that_are_no_object_stay_as_they_are(arguments: str) -> None:
    got = example(chat({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}))
    assert got.turns[1].extra["tool_calls"][0]["function"]["arguments"] == arguments


def test_no_arguments_are_an_empty_object() -> None:
    for nothing in ("", " ", "{}", {}, None, {"a": None}, '{"a": null}', '"{}"', ...):
        function = {"name": "f"} if nothing is ... else {"name": "f", "arguments": nothing}
        got = example(chat({"role": "assistant", "tool_calls": [{"function": function}]}))
        assert got.turns[1].extra["tool_calls"][0]["function"]["arguments"] == {}


def test_tools_are_the_same_however_they_are_spelled() -> None:
    parameters = TOOLS[0]["function"]["parameters"]  # type: ignore[index]  # a function, above
    as_text = [TOOLS[0] | {"function": {"name": "f", "parameters": json.dumps(parameters)}}]
    spellings = [TOOLS[:1], json.dumps(TOOLS[:1]), [json.dumps(TOOLS[0])], as_text, [TOOLS[0] | {"strict": None}]]
    got = [example(chat({"role": "assistant", "content": "x"}, tools=tools)) for tools in spellings]
    assert got[0].tools == (TOOLS[0],)
    assert all(other == got[0] for other in got)


@pytest.mark.parametrize("value", ["plain", '{"name": "f"}', "[]", "{}", "1", '[{"name": "f", "arguments": {}}, 1]'])
def test_a_function_call_that_is_none_stays_text(value: str) -> None:
    said = [{"from": "human", "value": "q"}, {"from": "function_call", "value": value}]
    assert example({"conversations": said}, "sharegpt").turns[1] == Turn("assistant", value)


def test_real_calls_of_llama_factory() -> None:
    path = real("data/formats/glaive_toolcall_en_demo.json")
    raw = [m for r in json.loads(path.read_text("utf-8")) for m in r["conversations"] if m["from"] == "function_call"]
    calls = [c for e in examples(path) for turn in e.turns for c in turn.extra.get("tool_calls", ())]
    assert len(calls) == len(raw) == 211
    assert [call["function"] for call in calls] == [json.loads(message["value"]) for message in raw]


# Formats ------------------------------------------------------------------------------------------------------------

SHARED = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
OPENAI = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SAID = (Turn("user", "a"), Turn("assistant", "b"))


@pytest.mark.parametrize("key", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize(("messages", "format"), [(SHARED, "sharegpt"), (OPENAI, "messages")])
def test_the_first_message_says_which_format_it_is(
    tmp_path: Path, key: str, messages: list[dict[str, str]], format: Format
) -> None:
    path = lines(tmp_path / "a.jsonl", [{key: []}, {key: messages, "id": 1}])
    data = Data(path=str(path), on_error="skip")
    found, read = open_examples(data, open_source(data))
    turns = [e.turns for e in read]
    assert (found, turns) == (format, [(), SAID])
    told = Data(path=str(path), on_error="skip", format=format)
    assert [e.turns for e in open_examples(told, open_source(told))[1]] == turns
    for kept_key in (key, "dialog"):  # what is kept is ready for other programs, under any key
        renamed = lines(tmp_path / "b.jsonl", [{kept_key: messages}])
        data = Data(
            path=str(renamed), columns={} if kept_key == key else {"messages": "dialog", "conversations": "dialog"}
        )
        kept = write_kept(open_source(data), data, pa.array([True]).to_numpy(False), tmp_path)
        described = describe_kept(kept, open_source(data), data)
        assert [e.turns for e in described.examples()] == [SAID]
        assert described.words == (("from", "value") if format == "sharegpt" else ("role", "content"))
        usual = {"messages": "messages", "sharegpt": "conversations"}[format]
        assert (described.odd, described.usual) == (False, kept_key == usual)


def test_lists_of_messages_are_ready_for_other_programs(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [OPENAI, SHARED[:0] or OPENAI])
    assert [e.turns for e in examples(path)] == [SAID, SAID]
    data = Data(path=str(path))
    kept = write_kept(open_source(data), data, pa.array([True, False]).to_numpy(False), tmp_path)
    assert json.loads(kept.read_bytes()) == OPENAI
    described = describe_kept(kept, open_source(data), data)
    assert (described.odd, described.usual) == (True, False), "they are given a copy"
    assert [e.turns for e in described.examples()] == [SAID]


@pytest.mark.parametrize(
    ("record", "advice"),
    [
        ({"dialog": OPENAI}, "'dialog' holds messages: data.columns.messages=dialog"),
        ({"dialog": SHARED}, "'dialog' holds messages: data.columns.conversations=dialog"),
        ({"question": "a", "answer": "b"}, "data.columns.instruction=question data.columns.output=answer"),
        ({"query": "a", "target": "b"}, "data.columns.instruction=query data.columns.output=target"),
        ({"messages": [{"who": "user", "text": "a"}, {"who": "assistant", "text": "b"}]}, "data.columns.role=who"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "bing", "content": "b"}]},
            "data.roles.bing=assistant",
        ),
        ({"instruction": "a", "output": 1}, "data.numbers=text"),
    ],
)
def test_the_message_gives_the_setting_and_the_setting_works(
    tmp_path: Path, record: dict[str, Any], advice: str
) -> None:
    path = lines(tmp_path / "a.jsonl", [record])
    with pytest.raises(CurateError) as caught:
        examples(path)
    assert advice.replace("role=who", "role=..., data.columns.content=...") in str(caught.value)
    options: dict[str, Any] = {}
    for word in (advice.partition(": ")[2] or advice).split():
        name, _, value = word.removeprefix("data.").partition("=")
        section, _, key = name.partition(".")
        options[section] = {**options.get(section, {}), key: value} if key else value
    if "who" in advice:
        options["columns"]["content"] = "text"
    assert examples(path, **options)[0].turns == (SAID if "output" not in record else (SAID[0], Turn("assistant", "1")))


@pytest.mark.parametrize(
    ("value", "expected"), [(42, "42"), (True, "true"), (3.5, "3.5"), (-0.0, "-0.0"), (10**20, "1" + "0" * 20)]
)
def test_numbers_are_the_text_that_json_writes(value: Any, expected: str) -> None:
    fields = {"instruction": "a", "output": value}
    with pytest.raises(CurateError, match=rf"output: expected text, got .* \({expected}\); data\.numbers=text"):
        example(fields, "alpaca")
    assert example(fields, "alpaca", numbers="text").turns[1].content == expected


@pytest.mark.parametrize("value", [["cod"], {"a": 1}, None, float("nan")])
def test_lists_objects_and_nothing_are_no_text(value: Any) -> None:
    with pytest.raises(CurateError, match=r"output: expected text, got (a list; write|an object; write|null)"):
        example({"instruction": "a", "output": value}, "alpaca", numbers="text")


@pytest.mark.parametrize(
    ("name", "format", "count"),
    [
        ("conversation.jsonl", "messages", 10),
        ("fromvalue_messages.jsonl", "sharegpt", 10),
        ("rolecontent.jsonl", "messages", 10),
        ("lists.json", "sharegpt", 2),
        ("lists.jsonl", "messages", 2),
    ],
)
def test_real_conversations_need_no_setting(name: str, format: Format, count: int) -> None:
    data = Data(path=str(real(f"field/09-conversations-role-content/{name}")))
    found, read = open_examples(data, open_source(data))
    turns = [e.turns for e in read]
    assert (found, len(turns)) == (format, count)
    first = ("foo", "bar") if "lists" in name else ("Name thing 0.", "Thing 0 is a house.")
    assert turns[0] == (Turn("user", first[0]), Turn("assistant", first[1]))


def test_real_odd_roles_have_their_reasons() -> None:
    path = real("field/09-conversations-role-content/odd.json")
    with pytest.raises(
        CurateError, match=r"odd\.json:2: conversations\[1\]\.from: .*'bing'.*data\.roles\.bing=assistant"
    ):
        examples(path)
    skipped = examples(path, on_error="skip")
    reasons = [(e.problem or "").rpartition("odd.json:")[2][:40] for e in skipped]
    assert [bool(reason) for reason in reasons] == [True, False, True, True, False, False, True, False]
    assert reasons[2] == "28: expected at least one assistant turn"
    told = examples(path, on_error="skip", roles={"bing": "assistant"})
    assert told[0].turns == (Turn("user", "Name a bird."), Turn("assistant", "A crow."))


def test_real_answers_that_are_numbers() -> None:
    folder = real("field/10-numbers-as-text")
    columns = {"prompt": "question", "completion": "answer"}
    with pytest.raises(CurateError, match=r"got a number \(1\); data\.numbers=text"):
        examples(folder / "labels.parquet", columns=columns)
    answers = [e.turns[1].content for e in examples(folder / "labels.parquet", columns=columns, numbers="text")]
    assert (len(answers), set(answers)) == (12, {"0", "1"})
    assert {e.turns[1].content for e in examples(folder / "labels.csv", columns=columns)} == {"0", "1"}
    mixed = examples(folder / "mixed.json", numbers="text", on_error="skip")
    assert [e.turns[1].content if e.turns else None for e in mixed] == [
        "A crow.",
        "42",
        "true",
        None,
        None,
        None,
        "3.14",
    ]
