"""Damaged input of every format is counted right or refused with its place: never a traceback, never a wrong count.

CURATE_FUZZ_EXAMPLES sets how many inputs are tried per format (200 unless told); `pytest -s` prints the figures.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.config import Data
from curate.publish.kept import write_kept
from curate.read.examples import read_examples
from curate.read.files import open_source, read_records
from curate.types import CurateError, Record

EXAMPLES = int(os.environ.get("CURATE_FUZZ_EXAMPLES", "200"))
VARIANTS = 5  # damaged copies of each generated file
LIMIT = 2000  # data.max_record_bytes, so that too large records come up as well
FIELDS = ("instruction", "input", "output")
PIECES = [
    *(bytes([byte]) for byte in b"{}[],:\"\\ \n\r\t0-.eEtnNI'/"),
    *(b"\x00", b"\x1b]0;x\x07", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u2028😀".encode()),
    *(b"\\ud800", b"\\udc00", b"\\u0000", b"\\x", b"NaN", b"-Infinity", b"1e999", b"9" * 4400, b"null", b"true"),
    *(b'""', b"{}", b"[]", b"[" * 150, b"]" * 150, b'{"a":' * 150, b'{"a":1,"a":2}', b'"output":', b'","', b"\r\n\r\n"),
    *(b"x" * 2500, b"PAR1", b"},{", b"}\n{", b"]\n["),
]

mutation = st.tuples(
    st.sampled_from(["insert", "replace", "delete", "cut", "double", "flip"]),
    st.floats(0, 1),
    st.integers(0, 40),
    st.sampled_from(PIECES),
)
text = st.text(max_size=12) | st.sampled_from(["", "a\nb", 'say "x"', "a,b", "=1+1", "\\", "</s>", "é\u2028\x85"])
alpaca = st.fixed_dictionaries({"instruction": text, "input": text, "output": text})
said = st.lists(st.tuples(st.sampled_from(["human", "gpt"]), text), min_size=1, max_size=3)
sharegpt = said.map(lambda turns: {"conversations": [{"from": who, "value": what} for who, what in turns]})
openai = said.map(lambda turns: {"messages": [{"role": who, "content": what} for who, what in turns]})
prompt = st.fixed_dictionaries({"prompt": text, "completion": text})
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
records = st.one_of(*(st.lists(kind, max_size=4) for kind in (alpaca, sharegpt, openai, prompt, anything)))


def damage(content: bytes, mutations: list[tuple[str, float, int, bytes]]) -> bytes:
    for how, where, size, piece in mutations:
        at = int(where * len(content))
        before, after = content[:at], content[at:]
        if how == "insert":
            content = before + piece + after
        elif how == "replace":
            content = before + piece + after[len(piece) :]
        elif how == "delete":
            content = before + after[size:]
        elif how == "cut":
            content = before
        elif how == "double":
            content = before + after[:size] + after
        elif after:
            content = before + bytes([after[0] ^ (1 << size % 8)]) + after[1:]
    return content


def is_plain(rows: list[Any]) -> bool:
    """Whether these are conversations, which every strict reader reads."""
    return all(
        isinstance(row, dict) and {"output", "completion", "messages", "conversations"} & row.keys() for row in rows
    )


def as_json(rows: list[Any], style: int) -> bytes:
    return json.dumps(rows, ensure_ascii=bool(style & 1), indent=(style >> 1) or None).encode("utf-8", "surrogatepass")


def as_jsonl(rows: list[Any], style: int) -> bytes:
    end = "\r\n" if style & 2 else "\n"
    return end.join(json.dumps(row, ensure_ascii=bool(style & 1)) for row in rows).encode("utf-8", "surrogatepass")


def as_csv(rows: list[Any], style: int) -> bytes:
    out = io.StringIO()
    writer = csv.writer(
        out, lineterminator="\r\n" if style & 2 else "\n", quoting=csv.QUOTE_ALL if style & 1 else csv.QUOTE_MINIMAL
    )
    writer.writerow(FIELDS)
    writer.writerows(
        [json.dumps(value) for value in list(row.values())[:3]] if isinstance(row, dict) else [row] for row in rows
    )
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(rows: list[Any], style: int) -> bytes:
    kept = [row for row in rows if isinstance(row, dict)]
    for candidate in (kept, [{"instruction": "a", "output": "b"}] * 2):
        sink = io.BytesIO()
        with contextlib.suppress(pa.ArrowException, UnicodeEncodeError, OverflowError):  # Arrow holds not all of JSON
            how = ["none", "snappy", "zstd", "gzip"][style]
            pq.write_table(pa.Table.from_pylist(candidate), sink, compression=how, write_page_checksum=bool(style & 1))
            return sink.getvalue()
    raise AssertionError


def as_arrow(rows: list[Any], style: int) -> bytes:
    table = pq.read_table(io.BytesIO(as_parquet(rows, 0)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) if style & 1 else pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue())


def as_packed(rows: list[Any], style: int) -> bytes:
    return gzip.compress(as_jsonl(rows, style), mtime=0)


def whole_json(content: bytes) -> int | None:
    """How many records a valid JSON array of objects has, by the standard library; None if it is anything else."""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return len(value) if isinstance(value, list) else None


def lines_of(content: bytes) -> int:
    """How many records a JSONL file has: a record is a line that is not blank, broken or not."""
    return sum(1 for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r"))


def rows_of_csv(content: bytes) -> int | None:
    decoded = io.StringIO(content.decode("utf-8-sig", "replace"), newline="")
    try:
        return sum(1 for row in csv.reader(decoded, strict=True) if row) - 1
    except csv.Error:
        return None


def rows_of_arrow(content: bytes) -> int | None:
    try:
        opened = pa.ipc.open_file(content) if content.startswith(b"ARROW1") else pa.ipc.open_stream(content)
        table = opened.read_all()
        table.validate(full=True)
        return int(table.num_rows)
    except (pa.ArrowException, OSError, ValueError):
        return None


def unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def rows_of_packed(content: bytes) -> int | None:
    # without gzip's first bytes it is plain text, whatever its name: broken lines, or records by themselves
    inside = unpacked(content) if content.startswith(b"\x1f") else content
    if inside is None:
        return None
    return whole_json(inside) if inside.lstrip(b" \t\r\n").startswith(b"[") else lines_of(inside)


def rows_of_parquet(content: bytes) -> int | None:
    try:
        return int(pq.read_table(io.BytesIO(content)).num_rows)
    except (pa.ArrowException, OSError, ValueError):
        return None


def attempt(path: Path, on_error: str) -> list[Record] | str:
    """All records, or the message of the refusal; anything else that is raised is a failure of the test."""
    data = Data(path=str(path), on_error=on_error, max_record_bytes=LIMIT)  # type: ignore[arg-type]
    try:
        return list(read_records(open_source(data), data))
    except CurateError as error:
        message, content = str(error), path.read_bytes()
        assert message.isprintable(), "no control character reaches a terminal"
        assert str(path) in message, "every refusal names the file"
        line = re.search(re.escape(str(path)) + r":(\d+): ", message)
        whole = r" is empty| holds no records|: row \d+: |Parquet file|Arrow file|stands twice|cannot read|is UTF-16"
        assert line or re.search(whole, message)
        assert not line or 1 <= int(line[1]) <= (unpacked(content) or content).count(b"\n") + 1
        return message


def check(path: Path, content: bytes, count: int | None, seen: Counter[str]) -> None:
    """`count`: how many records there are, if an independent reader can tell; None if it cannot read them at all."""
    path.write_bytes(content)
    strict, lenient = attempt(path, "fail"), attempt(path, "skip")
    assert count is not None or isinstance(strict, str) or path.suffix == ".parquet", "what is broken is never read"
    if isinstance(strict, list):
        assert isinstance(lenient, list)
        assert repr(lenient) == repr(strict)
    if isinstance(lenient, list):
        assert [record.row for record in lenient] == list(range(len(lenient)))
        assert count is None or len(lenient) == count
        assert any(record.problem for record in lenient) == isinstance(strict, str)
        assert all((record.fields is None) == (record.problem is not None) for record in lenient)
        check_what_follows(path, lenient)
    seen["tried"] += 1
    seen["read" if isinstance(strict, list) else "skipped" if isinstance(lenient, list) else "refused"] += 1


def check_what_follows(path: Path, found: list[Record]) -> None:
    """Examples are as many as records, or refused; kept records leave and come back unchanged."""
    data = Data(path=str(path), on_error="skip", max_record_bytes=LIMIT)
    source = open_source(data)
    with contextlib.suppress(CurateError):  # no format, or several
        examples = list(read_examples(data, source))
        assert [example.row for example in examples] == [record.row for record in found]
        assert all((example.problem is None) == bool(example.turns) for example in examples)
    good = np.array([record.problem is None for record in found])
    if good.any():
        kept = Data(path=str(write_kept(source, data, good, path.parent)))
        again = [(record.raw, repr(record.fields)) for record in read_records(open_source(kept), kept)]
        assert again == [(record.raw, repr(record.fields)) for record in found if record.problem is None]


FORMATS: dict[str, tuple[Callable[[list[Any], int], bytes], Callable[[bytes], int | None]]] = {
    "json": (as_json, whole_json),
    "jsonl": (as_jsonl, lines_of),
    "csv": (as_csv, rows_of_csv),
    "parquet": (as_parquet, rows_of_parquet),
    "arrow": (as_arrow, rows_of_arrow),
    "packed": (as_packed, rows_of_packed),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_counted_right_or_refused(
    kind: str, tmp_path_factory: pytest.TempPathFactory, record_property: Callable[[str, object], None]
) -> None:
    write = FORMATS[kind][0]
    path = tmp_path_factory.mktemp(kind) / f"in.{kind}"
    seen: Counter[str] = Counter()
    damages = st.lists(st.lists(mutation, max_size=3), min_size=VARIANTS, max_size=VARIANTS)

    @settings(
        max_examples=-(-EXAMPLES // VARIANTS), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(records, st.integers(0, 3), damages)
    def run(rows: list[Any], style: int, variants: list[list[tuple[str, float, int, bytes]]]) -> None:
        sound = write(rows, style)
        for mutations in variants:
            content = damage(sound, mutations)
            as_what = kind
            if kind in ("json", "jsonl"):  # the first character decides, whatever the file is called
                array = content.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").startswith(b"[")
                as_what = "json" if array else "jsonl"
            check(path, content, FORMATS[as_what][1](content), seen)
        if rows and is_plain(rows) and kind in ("json", "jsonl"):
            path.write_bytes(sound)
            assert isinstance(attempt(path, "fail"), list), "what is sound is never refused"

    run()
    assert seen["tried"] >= EXAMPLES * 0.9
    assert seen["read"] > 0
    assert seen["refused"] > 0
    record_property("inputs", dict(seen))
    print(f"\n{kind}: {dict(seen)}")  # noqa: T201 - the figures are a result
