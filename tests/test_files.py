"""What is read, what is refused and on which line, and that memory does not grow with the input."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from real import real

from curate.config import Data
from curate.read import json_text
from curate.read.files import open_source, read_records, source_sha256
from curate.types import CurateError, Record

GOOD = b'{"instruction": "a", "output": "b"}'


def read(path: Path, **settings: object) -> list[Record]:
    data = Data(path=str(path), **settings)  # type: ignore[arg-type]
    return list(read_records(open_source(data), data))


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# One bad record: (its bytes, a part of the message). All of them keep the record's own boundaries.
BAD_RECORDS = {
    "trailing comma": (b'{"a": 1,}', "broken JSON"),
    "missing colon": (b'{"a" 1}', "broken JSON"),
    "leading zero": (b'{"a": 01}', "broken JSON"),
    "bare string": (b'"a"', "expected an object"),
    "number": (b"12", "expected an object"),
    "null": (b"null", "expected an object"),
    "array": (b"[1, 2]", "expected an object"),
    "duplicate key": (b'{"a": 1, "a": 2}', "'a' stands twice"),
    "duplicate key, deep": (b'{"x": [{"a": 1, "a": 2}]}', "'a' stands twice"),
    "duplicate key, escaped": (b'{"a": 1, "\\u0061": 2}', "'a' stands twice"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "Infinity": (b'{"a": -Infinity}', "-Infinity is not JSON"),
    "overflow": (b'{"a": 1e999}', "1e999 is too large"),
    "lone surrogate": (b'{"a": "\\ud83d"}', "surrogate"),
    "lone surrogate in a key": (b'{"\\udc00": 1}', "surrogate"),
    "swapped surrogates": (b'{"a": "\\udc00\\ud800"}', "surrogate"),
    "too deep": (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper"),
    "just too deep": (b'{"a": ' + b"[" * json_text.MAX_DEPTH + b"]" * json_text.MAX_DEPTH + b"}", "nested deeper"),
    "control character": (b'{"a": "x\x00y"}', "Invalid control character"),
    "terminal escape": (b'{"a": "\x1b]0;hi"}', "Invalid control character"),
    "invalid UTF-8": (b'{"a": "\xff"}', "invalid UTF-8 (byte 0xff)"),
    "surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', "invalid UTF-8"),
    "cut UTF-8": (b'{"a": "\xe2\x82"}', "invalid UTF-8"),
    "many digits": (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
    "too large": (b'{"a": "' + b"x" * 30_000 + b'"}', "more than 20,000 bytes"),
}


@pytest.mark.parametrize("case", BAD_RECORDS)
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_bad_record_is_refused_with_its_line_or_skipped_alone(tmp_path: Path, kind: str, case: str) -> None:
    bad, message = BAD_RECORDS[case]
    pieces = [GOOD, bad, GOOD]
    content = b"[\n" + b",\n".join(pieces) + b"\n]" if kind == "json" else b"\n".join(pieces) + b"\n"
    path = write(tmp_path, f"data.{kind}", content)
    line = 3 if kind == "json" else 2
    with pytest.raises(CurateError) as caught:
        read(path, max_record_bytes=20_000)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    records = read(path, max_record_bytes=20_000, on_error="skip")
    assert [record.fields is None for record in records] == [False, True, False]
    assert [record.problem is None for record in records] == [True, False, True]
    assert [record.line for record in records] == [line - 1, line, line + 1]
    assert str(caught.value) == records[1].problem
    assert records[1].raw == (None if case == "too large" else bad)


# An array whose records can no longer be told apart: (content, line, message). Refused under skip as well.
BROKEN_ARRAYS = {
    "truncated in a record": (b'[\n{"a": 1},\n{"a":\n', 4, "end of the file"),
    "truncated in a string": (b'[\n{"a": 1},\n{"a": "x', 3, "end of the file"),
    "truncated in a literal": (b'[{"a": tru', 1, "broken JSON array"),
    "truncated after a record": (b'[\n{"a": 1}\n', 3, "expected ',' or ']', got the end of the file"),
    "truncated after a comma": (b'[\n{"a": 1},\n', 3, "expected a record, got the end of the file"),
    "only the bracket": (b"[", 1, "expected a record, got the end of the file"),
    "text after": (b'[{"a": 1}]\n{"a": 2}', 2, "nothing after the end of the array"),
    "second array": (b'[{"a": 1}]\n\n[{"a": 2}]', 3, "nothing after the end of the array"),
    "missing comma": (b'[\n{"a": 1}\n{"a": 2}]', 3, "expected ',' or ']'"),
    "two commas": (b'[\n{"a": 1},,\n{"a": 2}]', 2, "expected a record"),
    "trailing comma": (b'[{"a": 1},\n]', 2, "expected a record after the comma"),
    "leading comma": (b'[,{"a": 1}]', 1, "expected a record"),
    "lost quote": (b'[{"a": "x},\n{"a": "y"},\n{"a": "z"}]', 2, "expected a key, a value or a bracket, got 'a\""),
    "two lost quotes": (b'[{"a": "x}, {"b: "y"},\n{"c": "z"}]', 1, "expected a key"),
    "lost bracket": (b'[{"a": [1},\n{"b": 2}]', 1, "expected a key"),
    "single quotes": (b"[\n{'a': 1}]", 2, "expected a key"),
    "Python words": (b'[{"a": True}]', 1, "expected a key"),
    "bare word": (b'[\n{"a": 1},\nhello]', 3, "expected a record"),
    "comment": (b'[{"a": 1}, // one\n]', 1, "expected a record"),
}


@pytest.mark.parametrize("case", BROKEN_ARRAYS)
@pytest.mark.parametrize("on_error", ["fail", "skip"])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_broken_array_is_always_refused(
    tmp_path: Path, case: str, on_error: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.read.json_array.CHUNK", chunk)
    content, line, message = BROKEN_ARRAYS[case]
    path = write(tmp_path, "data.json", content)
    with pytest.raises(CurateError) as caught:
        read(path, on_error=on_error)
    assert str(caught.value).startswith(f"{path}:{line}: broken JSON array: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 64])
def test_elements_are_found_wherever_the_chunks_end(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.read.json_array.CHUNK", chunk)
    texts = ["", '"', "\\", '\\"', "}{][,:", "a\nb", "\u2028\x85é😀", "true", "Infinity", "\\\\"]
    values: list[object] = [{"t": t, "n": [True, None, -1.5e-7, {"x": [t, {}]}]} for t in texts]
    for ascii_only in (True, False):
        for indent in (None, 1):
            content = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
            records = read(write(tmp_path, "data.json", content))
            assert [record.fields for record in records] == values
            assert all(content.count(record.raw or b"?") == 1 for record in records)


def test_the_line_of_a_fault_inside_a_record_of_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "d.json", b'\n[\n  {\n    "a": 1\n  },\n  {\n    "a": 1,\n    "b": 2,\n  }\n]')
    with pytest.raises(CurateError, match=r"d\.json:(8|9): broken JSON"):
        read(path)
    assert [record.line for record in read(path, on_error="skip")] == [3, 6]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_marks_line_ends_and_blank_lines_change_nothing(tmp_path: Path, bom: bytes, end: bytes) -> None:
    values = [{"a": "x\u2028y\x85z\x0c"}, {"a": "é"}]
    raw = [json.dumps(value, ensure_ascii=False).encode() for value in values]
    lines = write(tmp_path, "a.jsonl", bom + end + b"  " + end + raw[0] + b" " + end + end + raw[1])
    array = write(tmp_path, "a.json", bom + end + b"[" + raw[0] + end + b" ," + end + raw[1] + end + b"]" + end * 2)
    for path in (lines, array):
        records = read(path)
        assert [record.fields for record in records] == values
        assert [record.raw for record in records] == raw
    assert [record.line for record in read(lines)] == [3, 5]


def test_json_or_jsonl_is_decided_by_content_not_by_name(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl", "a.ndjson", "a.txt", "a"):
        assert open_source(Data(path=str(write(tmp_path, name, b"[" + GOOD + b"]")))).kind == "json"
        assert open_source(Data(path=str(write(tmp_path, name, b"\n" + GOOD)))).kind == "jsonl"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\n", "is empty"),
        (b"[]", "holds no records"),
        (b'{\n  "data": [\n    {"a": 1}\n  ]\n}', ":1: one JSON object over several lines; expected an array"),
        (b'{"data": [\n{"a": 1},\n{"a": 2}]}', ":1: one JSON object over several lines"),
        (b"instruction\nx", ":1: expected a JSON array"),
        (b"\n\n\xff\xfe[\x00", ":3: expected a JSON array"),
        (gzip.compress(b"x", mtime=0), ":1: expected a JSON array"),
    ],
)
def test_what_is_not_records_is_refused_with_a_hint(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CurateError) as caught:
        read(write(tmp_path, "data.json", content), on_error="skip")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_missing_file_is_named_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "alpaca.json", GOOD)
    with pytest.raises(CurateError, match=r"no such file or folder: .*/alpaka\.json; did you mean .*/alpaca\.json\?"):
        open_source(Data(path=str(tmp_path / "alpaka.json")))
    with pytest.raises(CurateError, match="nor is there a folder"):
        open_source(Data(path=str(tmp_path / "x" / "y.json")))
    with pytest.raises(CurateError, match=r"data\.path is not set"):
        open_source(Data())
    with pytest.raises(ValidationError, match="no file can hold"):
        Data(path="a\0b.json")
    for odd in ("x" * 5000 + ".json", "/dev/null"):
        with pytest.raises(CurateError):
            open_source(Data(path=odd))


def test_the_limit_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", GOOD + b"\n" + GOOD + b"\nbroken\n")
    assert len(read(path, limit=2)) == 2
    with pytest.raises(CurateError, match=r":3: broken JSON: Expecting value near 'broken'"):
        read(path, limit=3)


@pytest.mark.parametrize("size", [29, 30, 31, 32, 33, 34, 200])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path, size: int) -> None:
    raw = b'{"a": "' + b"x" * (size - 9) + b'"}'
    for end in (b"\n", b"\r\n", b""):
        records = read(write(tmp_path, "a.jsonl", raw + end), on_error="skip", max_record_bytes=32)
        assert [record.problem is None for record in records] == [size <= 32]
    after = read(write(tmp_path, "b.jsonl", raw + b"\n" + b'{"b":2}'), on_error="skip", max_record_bytes=32)
    assert after[1].fields == {"b": 2}
    assert after[1].line == 2
    blanks = read(
        write(tmp_path, "c.jsonl", b'{"b":1}\n' + b" " * 200 + b'{"b":2}'), on_error="skip", max_record_bytes=32
    )
    assert len(blanks) == 2, "what stands behind many blanks is not lost"


# CSV ----------------------------------------------------------------------------------------------------------------


def test_csv_rows_carry_their_exact_text_and_first_line(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfinstruction,output\r\n"a\r\nb","say ""hi"""\r\n\r\nplain,5" pipe\r\n,"x"'
    records = read(write(tmp_path, "a.csv", content))
    assert [record.line for record in records] == [2, 5, 6]
    assert [record.fields for record in records] == [
        {"instruction": "a\r\nb", "output": 'say "hi"'},
        {"instruction": "plain", "output": '5" pipe'},
        {"instruction": "", "output": "x"},
    ]
    assert [record.raw for record in records] == [b'"a\r\nb","say ""hi"""', b'plain,5" pipe', b',"x"']


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"1,2,3", "expected 2 cells as in the header, got 3"),
        (b"1", "expected 2 cells as in the header, got 1"),
        (b"1,\xff", "invalid UTF-8 (byte 0xff): if it was saved in Windows-1252 or Latin-1, save it as CSV UTF-8"),
    ],
)
def test_a_bad_csv_row_is_refused_with_its_line_or_skipped_alone(tmp_path: Path, row: bytes, message: str) -> None:
    path = write(tmp_path, "a.csv", b'a,b\n"x\ny",2\n' + row + b"\n3,4\n")
    with pytest.raises(CurateError) as caught:
        read(path)
    assert str(caught.value) == f"{path}:4: {message}"
    assert [record.problem for record in read(path, on_error="skip")] == [None, f"{path}:4: {message}", None]


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "expected a header"),
        (b"\n\na,b\n1,2\n", 1, "expected a header"),
        (b"a,a\n1,2\n", 1, "the column 'a' stands twice"),
        (b"a,,b\n1,2,3\n", 1, "the name of column 2 is empty"),
        (b"a,\xff\n1,2\n", 1, "expected a header"),
        (b'a,b\n1,2\n"open,3\n4,5\n', 3, "unexpected end of data"),
        (b'a,b\n1,2\n"x" y,3\n4,5\n', 3, "',' expected after '\"'"),
        (b"a,b\n1,2\n3\r4,5\n", 3, "new-line character"),
        (b'a,b\n1,2\n"' + b"x\n" * 300 + b'",4\n', 3, "a row of more than 500 bytes"),
    ],
)
def test_broken_csv_is_always_refused(tmp_path: Path, content: bytes, line: int, message: str) -> None:
    path = write(tmp_path, "a.csv", content)
    with pytest.raises(CurateError) as caught:
        read(path, on_error="skip", max_record_bytes=500)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)


def test_cells_larger_than_the_csv_modules_own_limit_are_read(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, "a.csv", b"a,b\n" + b"x" * 200_000 + b",y\n"))) == 1


# Parquet, folders, hub ----------------------------------------------------------------------------------------------


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_parquet_rows_are_records_without_lines(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"instruction": str(i), "output": "x" * i} for i in range(3000)]
    records = read(parquet(tmp_path / "a.parquet", rows))
    assert [record.fields for record in records] == rows
    assert {(record.line, record.raw) for record in records} == {(0, None)}
    small = read(tmp_path / "a.parquet", on_error="skip", max_record_bytes=1000)
    assert 0 < sum(record.problem is not None for record in small) < 3000
    with pytest.raises(CurateError, match=r"a\.parquet: row \d+: a record of more than 1,000 bytes"):
        read(tmp_path / "a.parquet", max_record_bytes=1000)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:4] + b"\xff" * 40 + b[44:]],
)
def test_a_damaged_parquet_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = parquet(tmp_path / "a.parquet", [{"instruction": "a" * 100, "output": "b" * 100}] * 5)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CurateError, match=r"a\.parquet"):
        read(path, on_error="skip")


def test_a_footer_on_which_the_parquet_reader_would_abort_the_process_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [])
    footer = path.read_bytes()
    rows_of_the_group = b"\x16\x00\x16\x00&"  # thrift: total_byte_size 0, num_rows 0
    assert footer.count(rows_of_the_group) == 1
    path.write_bytes(footer.replace(rows_of_the_group, b"\x16\x00\x16\x01&"))  # num_rows -1
    with pytest.raises(CurateError, match="do not add up to the 0 rows"):
        read(path)


def test_a_folder_is_its_files_in_order_of_name(tmp_path: Path) -> None:
    write(tmp_path, "b.jsonl", b'{"n": 1}\n{"n": 2}\n')
    write(tmp_path, "a.json", b'[{"n": 0}]')
    parquet(tmp_path / "c.parquet", [{"n": 3}])
    for name in (".hidden.json", "README.md", "dataset_info.json", "notes.txt"):
        write(tmp_path, name, b"not a record")
    (tmp_path / "deeper.json").mkdir()
    records = read(tmp_path)
    assert [record.fields for record in records] == [{"n": n} for n in range(4)]
    assert [record.row for record in records] == [0, 1, 2, 3]
    assert [Path(record.file).name for record in records] == ["a.json", "b.jsonl", "b.jsonl", "c.parquet"]
    assert len(read(tmp_path, limit=2)) == 2
    write(tmp_path, "bad.jsonl", b'{"n": 1}\n{"n"\n')
    with pytest.raises(CurateError, match=r"bad\.jsonl:2: broken JSON"):
        read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CurateError, match="no file to read in the folder"):
        read(tmp_path / "empty")


def test_escapes_in_a_file_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write(tmp_path, "a\x1b]0;x\x07.jsonl", b"{")
    with pytest.raises(CurateError) as caught:
        read(tmp_path)
    assert str(caught.value).isprintable()
    assert r"a\x1b]0;x\x07.jsonl:1: broken JSON" in str(caught.value)


def test_the_limit_of_a_record_may_be_any_number(tmp_path: Path) -> None:
    for name, content in (("a.json", b"[" + GOOD + b"]"), ("a.jsonl", GOOD), ("a.csv", b"a\nb\n")):
        assert len(read(write(tmp_path, name, content), max_record_bytes=2**63 - 1)) == 1


def test_a_name_without_a_file_is_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = open_source(Data(path="owner/name@v1", split="test"))
    assert (source.kind, source.split, source.revision, source.files) == ("hub", "test", "v1", ())


def test_an_unreachable_hub_data_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "nme", b"")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(CurateError, match=r"name is no file or folder; did you mean nme\?; .*Couldn't reach"):
        read(Path("name"))


def test_the_hash_is_that_of_the_content_in_order(tmp_path: Path) -> None:
    def sha(path: Path) -> str:
        return source_sha256(open_source(Data(path=str(path))))

    one, two = write(tmp_path, "one.jsonl", GOOD), write(tmp_path, "two.jsonl", GOOD)
    assert sha(one) == sha(two) == hashlib.sha256(GOOD).hexdigest()
    for folder, names in (("x", "ab"), ("y", "cd"), ("z", "dc")):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (GOOD, GOOD + b"\n"), strict=True):
            write(tmp_path / folder, f"{name}.jsonl", content)
    assert sha(tmp_path / "x") == sha(tmp_path / "y") != sha(tmp_path / "z")


# Size and real data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, kind: str) -> None:
    text = "word \\n " * 6000  # 48 kB a record, 50 MB in all
    row = {"json": f'{{"a": "{text}"}}', "jsonl": f'{{"a": "{text}"}}', "csv": f'"{text}"'}[kind]
    between, opening, closing = {"json": (",\n", "[", "]"), "jsonl": ("\n", "", ""), "csv": ("\n", "a\n", "")}[kind]
    path = write(tmp_path, f"a.{kind}", (opening + between.join([row] * 1040) + closing).encode())
    assert path.stat().st_size > 49e6
    data = Data(path=str(path))
    source = open_source(data)
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_records(source, data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1040
    assert peak < 10e6


def test_of_a_parquet_file_one_row_group_is_in_memory_at_a_time(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.parquet", random.Random(0)
    with pq.ParquetWriter(path, pa.schema([("a", pa.string())])) as writer:
        for _ in range(40):
            writer.write_table(pa.table({"a": [rng.randbytes(500).hex() for _ in range(1000)]}))
    data = Data(path=str(path))
    before, peak, count = pa.total_allocated_bytes(), 0, 0
    for _ in read_records(open_source(data), data):
        count += 1
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert count == 40_000
    assert peak < 8e6 < path.stat().st_size / 4


def test_an_endless_record_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    for name, start in (("a.json", b'[{"a": "'), ("a.jsonl", b'{"a": "'), ("a.csv", b'a\n"')):
        path = write(tmp_path, name, start + b"x" * 20_000_000)
        data = Data(path=str(path), max_record_bytes=1_000_000)
        source = open_source(data)
        tracemalloc.start()
        try:
            with pytest.raises(CurateError, match="more than 1,000,000 bytes"):
                list(read_records(source, data))
            assert tracemalloc.get_traced_memory()[1] < 6e6
        finally:
            tracemalloc.stop()


REAL = {
    "alpaca_9k.json": 9229,
    "alpaca_recovered.jsonl": 20271,
    "dolly_3k.json": 2996,
    "formats/alpaca_en_demo.json": 999,
    "formats/alpaca_zh_demo.json": 1000,
    "formats/glaive_toolcall_en_demo.json": 300,
    "formats/identity.json": 91,
    "formats/lima_1k_sharegpt.json": 1000,
    "formats/openai_cookbook_toy_chat_first4.jsonl": 4,
    "formats/v1_sft_demo.jsonl": 500,
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_as_the_json_module_reads_them(name: str) -> None:
    text = real(f"data/{name}").read_text(encoding="utf-8")
    expected = [json.loads(line) for line in text.split("\n") if line] if name.endswith("l") else json.loads(text)
    records = read(real(f"data/{name}"))
    assert [record.fields for record in records] == expected
    assert [json.loads(record.raw or b"") for record in records] == expected
    assert len(records) == REAL[name]
    lines = text.encode().split(b"\n")
    for record in records:
        assert record.raw is not None
        assert record.raw.split(b"\n")[0].strip() in lines[record.line - 1]
