"""What a file is, whatever it is called, and what people are told about files that are not read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from real import real

from curate.config import Data, load_recipe
from curate.publish.kept import write_kept
from curate.publish.records import describe_kept
from curate.read.files import open_source, read_records
from curate.types import CurateError

ROW = {"instruction": "a", "output": "b"}
CSV = 'instruction,output\nName a café.,"Le Procope, in Paris."\n'


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **settings: Any) -> list[Any]:
    data = Data(path=str(path), **settings)
    return [record.fields for record in read_records(open_source(data), data)]


FOREIGN = [
    (b"PK\x03\x04" + bytes(60), "an Excel workbook or another zip archive: save the sheet as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0" + bytes(60), "an old Excel workbook: save the sheet as CSV UTF-8"),
    (bz2.compress(b"x"), "packed with bzip2 .*: unpack it"),
    (lzma.compress(b"x"), "packed with xz .*: unpack it"),
    (pickle.dumps([ROW]), "a Python pickle: loading it may run code"),
    (CSV.encode("utf-16"), "UTF-16 text: save it as UTF-8 .in Excel: CSV UTF-8"),
    (CSV.encode("utf-16-be"), "UTF-16 text"),
    (CSV.encode("utf-16-le"), "UTF-16 text"),
    (b"\xff\xfe\x00\x00" + CSV.encode("utf-32-le"), "UTF-32 text"),
    (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
    (gzip.compress(b"x" * 257 + b"ustar", mtime=0), "a tar archive"),
    (gzip.compress(b"PAR1....", mtime=0), "a packed parquet file: unpack it"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer, .* git lfs pull"),
    (b"<!DOCTYPE html><html>", "a web page, not the data: download the file itself"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x93NUMPY\x01\0", "a NumPy array"),
]


@pytest.mark.parametrize(("content", "message"), FOREIGN)
@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.bin"])
def test_what_is_not_read_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(CurateError, match=rf"{name} is {message}") as caught:
        read(write(tmp_path, name, content), on_error="skip")
    assert str(caught.value).isprintable()


def test_tables_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ROW])
    pq.write_table(table, tmp_path / "a.bin")
    with pa.ipc.new_stream(str(tmp_path / "b.bin"), table.schema) as out:
        out.write_table(table)
    with pa.ipc.new_file(str(tmp_path / "c.feather"), table.schema) as out:
        out.write_table(table)
    assert [open_source(Data(path=str(tmp_path / n))).kind for n in ("a.bin", "b.bin", "c.feather")] == [
        "parquet",
        "arrow",
        "arrow",
    ]
    assert read(tmp_path / "a.bin") == read(tmp_path / "b.bin") == read(tmp_path / "c.feather") == [ROW]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_lists_of_messages_are_records_in_lines_and_in_an_array(tmp_path: Path, name: str) -> None:
    one = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    two = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    lines = "\n".join(map(json.dumps, [one, one, two]))
    for text in (lines, json.dumps([one, one, two]), json.dumps([one, one, two], indent=1)):
        path = write(tmp_path, name, text)
        assert read(path) == [{"messages": one}, {"messages": one}, {"messages": two}]
    records = list(read_records(open_source(Data(path=str(write(tmp_path, name, lines)))), Data()))
    assert [record.raw for record in records] == lines.encode().split(b"\n")
    assert [record.line for record in records] == [1, 2, 3]
    long = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 3_000_000}]
    assert read(write(tmp_path, name, json.dumps(long) + "\n" + json.dumps(one)))[1] == {"messages": one}


def test_an_array_of_records_that_are_no_messages_stays_an_array(tmp_path: Path) -> None:
    for text in (
        '[{"role": "x", "note": "y"}]',
        '[{"a": 1}]\n',
        "[\n" + json.dumps({"role": "a", "content": "b"}) + "\n]",
    ):
        assert open_source(Data(path=str(write(tmp_path, "a.jsonl", text)))).kind == "json"


# CSV as Excel writes it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
@pytest.mark.parametrize("quoted", [False, True])
def test_another_delimiter_is_named_and_then_read(tmp_path: Path, mark: str, word: str, quoted: bool) -> None:
    quote = '"' if quoted else ""
    text = f'\ufeff{quote}instruction{quote}{mark}{quote}output{quote}\r\na{mark}"x, {mark} y"\r\n'
    path = write(tmp_path, "a.csv", text)
    with pytest.raises(CurateError, match=rf"a\.csv:1: no comma in the header .* say data\.delimiter={word}$"):
        read(path, on_error="skip")
    expected = [{"instruction": "a", "output": f"x, {mark} y"}]
    for setting in (word, mark):
        assert read(path, delimiter=setting) == expected
        assert load_recipe(None, [f"data.delimiter={word}"]).data.delimiter == word
    data = Data(path=str(path), delimiter=word)  # type: ignore[arg-type]  # a word of the Literal
    kept = write_kept(open_source(data), data, np.array([True]), tmp_path)
    assert (kept.name, read(kept)) == ("kept.csv", expected), "with commas, as other programs read it"
    described = describe_kept(kept, open_source(data), data)
    assert [e.turns[1].content for e in described.examples()] == [f"x, {mark} y"]


def test_a_tsv_file_has_tabs_unless_told(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.tsv", "a\tb\n1,2\t3\n")) == [{"a": "1,2", "b": "3"}]
    path = write(tmp_path, "b.tsv", "a,b\n1,2\n")
    with pytest.raises(CurateError, match=r"no tab in the header 'a,b.*data\.delimiter=comma"):
        read(path)
    assert read(path, delimiter="comma") == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(("line", "hint"), [("sep=,", "$"), ("sep=;", "say data.delimiter=semicolon$")])
def test_excels_own_first_line_is_no_header(tmp_path: Path, line: str, hint: str) -> None:
    with pytest.raises(CurateError, match=rf"expected a header, got Excel's line '{line}': delete it.*{hint}"):
        read(write(tmp_path, "a.csv", f"{line}\r\na{line[-1]}b\r\n1{line[-1]}2\r\n"))


def test_windows_1252_is_named_and_its_rows_alone_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", CSV.encode("cp1252") + b"plain,row\n")
    with pytest.raises(CurateError, match=r":2: invalid UTF-8 \(byte 0xe9\): if it was saved in Windows-1252"):
        read(path)
    assert read(path, on_error="skip") == [None, {"instruction": "plain", "output": "row"}]


def test_the_layout_of_a_record_is_not_the_kind_of_a_file() -> None:
    for kind in ("csv", "json", "parquet"):
        with pytest.raises(
            CurateError, match=rf"data\.format: what kind of file it is \({kind}\) is told from the file"
        ):
            load_recipe(None, [f"data.format={kind}"])


REAL = {
    "bom.csv": None,
    "tabs.tsv": None,
    "cp1252.csv": r"cp1252\.csv:2: invalid UTF-8",
    "semicolon.csv": "data.delimiter=semicolon",
    "sep.csv": "Excel's line 'sep=,': delete it",
    "utf16.csv": "UTF-16 text",
    "utf16.json": "UTF-16 text",
    "xlsx.xlsx": "an Excel workbook",
}


@pytest.mark.parametrize("name", REAL)
def test_real_tables_of_excel(name: str) -> None:
    path, message = real(f"field/16-excel-csv/{name}"), REAL[name]
    if message is None:
        rows = read(path)
        assert len(rows) == 12
        assert rows[0] == {"instruction": "Name a café.", "output": "Le Procope, in Paris."}
        assert read(real("field/16-excel-csv/semicolon.csv"), delimiter=";") == rows
    else:
        with pytest.raises(CurateError, match=message):
            read(path)
