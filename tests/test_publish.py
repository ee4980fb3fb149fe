"""Kept records leave exactly as they came in, and what stands beside them is ready to use."""

from __future__ import annotations

import datetime
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from real import real

from curate.config import Data
from curate.publish.card import write_card
from curate.publish.kept import write_kept
from curate.publish.licence import licence_of
from curate.publish.records import describe_kept
from curate.read.files import open_source, read_records
from curate.types import CurateError

ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}


def write(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    return path


def keep(path: Path, rows: list[bool], out: Path, **settings: Any) -> Path:
    data = Data(path=str(path), **settings)
    out.mkdir(exist_ok=True)
    return write_kept(open_source(data), data, np.array(rows, bool), out)


def fields(path: Path) -> list[Any]:
    data = Data(path=str(path))
    return [record.fields for record in read_records(open_source(data), data)]


def test_json_jsonl_and_csv_records_leave_byte_for_byte(tmp_path: Path) -> None:
    a, b, c = b'{"a" : 1.0,\n "\\u0061b":"\xe2\x80\xa8"}', b"{ }", b'{"a":1e2}'
    path = write(tmp_path, "x.json", b"\xef\xbb\xbf [" + a + b" , " + b + b"\r\n,\n" + c + b"]")
    kept = keep(path, [True, False, True], tmp_path / "out")
    assert kept.name == "kept.json"
    assert kept.read_bytes() == b"[\n" + a + b",\n" + c + b"\n]\n"
    lines = [a.replace(b"\n", b""), b, c]
    path = write(tmp_path, "x.jsonl", b"\r\n".join(lines) + b"\r\n\r\n")
    kept = keep(path, [True, False, True], tmp_path / "out")
    assert (kept.name, kept.read_bytes()) == ("kept.jsonl", lines[0] + b"\n" + lines[2] + b"\n")
    for bom, end in ((b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")):
        header = bom + b'"first, name",b' + end
        path = write(tmp_path, "x.csv", header + b'"1\n2",""' + end + b"3,4" + end + end + b" 5,'6")
        kept = keep(path, [True, False, True], tmp_path / "out")
        assert (kept.name, kept.read_bytes()) == ("kept.csv", header + b'"1\n2",""' + end + b" 5,'6" + end)


@pytest.mark.parametrize("name", ["alpaca_9k.json", "formats/v1_sft_demo.jsonl", "formats/lima_1k_sharegpt.json"])
def test_real_records_leave_byte_for_byte(tmp_path: Path, name: str) -> None:
    data = Data(path=str(real(f"data/{name}")))
    records = list(read_records(open_source(data), data))
    rows = np.random.default_rng(0).random(len(records)) < 0.1
    kept = keep(real(f"data/{name}"), list(rows), tmp_path)
    again = Data(path=str(kept))
    expected = [record.raw for record, chosen in zip(records, rows, strict=True) if chosen]
    assert [record.raw for record in read_records(open_source(again), again)] == expected
    everything = keep(real(f"data/{name}"), [True] * len(records), tmp_path)
    assert fields(everything) == [record.fields for record in records]


def test_parquet_keeps_schema_metadata_and_rows(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("t", pa.large_string()),
            ("n", pa.int8()),
            ("w", pa.timestamp("ms")),
            ("l", pa.list_(pa.struct([("x", pa.string())]))),
        ],
        metadata={"maker": "someone"},
    )
    now = datetime.datetime(2024, 1, 2)
    rows = [{"t": str(i), "n": i % 100, "w": now, "l": [{"x": None}, {"x": "y"}][: i % 3]} for i in range(5000)]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "x.parquet")
    chosen = [i % 7 == 0 for i in range(5000)]
    kept = keep(tmp_path / "x.parquet", chosen, tmp_path / "out")
    table = pq.read_table(kept)
    assert kept.name == "kept.parquet"
    assert pq.read_schema(kept).equals(pq.read_schema(tmp_path / "x.parquet"), check_metadata=True)
    assert table.to_pylist() == [row for row, c in zip(rows, chosen, strict=True) if c]
    limited = keep(tmp_path / "x.parquet", [True] * 1500, tmp_path / "out", limit=1500)
    assert pq.read_table(limited).to_pylist() == rows[:1500]


def test_a_folder_of_parquet_files_keeps_their_schema(tmp_path: Path) -> None:
    schema = pa.schema([("t", pa.string()), ("n", pa.int16())], metadata={"maker": "someone"})
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        pq.write_table(
            pa.Table.from_pylist([{"t": f"{i}{j}", "n": j} for j in range(4)], schema=schema), folder / f"{i}.parquet"
        )
    kept = keep(folder, [i in (3, 4, 11) for i in range(12)], tmp_path / "out")
    assert [row["t"] for row in pq.read_table(kept).to_pylist()] == ["03", "10", "23"]
    assert pq.read_table(kept).schema.equals(schema, check_metadata=True)


def test_a_folder_of_text_files_becomes_parquet_if_that_is_exact(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder, "a.json", json.dumps([ALPACA, ALPACA | {"output": "é"}], indent=1).encode())
    write(folder, "b.csv", b"instruction,input,output\nx,y,z\n")
    kept = keep(folder, [True, True, True], tmp_path / "out")
    assert kept.name == "kept.parquet"
    assert pq.read_table(kept).to_pylist() == fields(folder)


@pytest.mark.parametrize(
    "second",
    [
        b'{"instruction": "a",\n "output": "b"}',  # a key is absent
        b'{"instruction": "a", "input": "", "output": 1}',  # another type
        b'{"output": "a", "input": "", "instruction": "b"}',  # another order
        b'{"instruction": "a", "input": "", "output": "b", "more": [1, 2.0]}',
        b'{"instruction": "a", "input": "", "output": 123456789012345678901234567890}',
    ],
)
def test_a_folder_that_arrow_cannot_hold_exactly_becomes_jsonl(tmp_path: Path, second: bytes) -> None:
    folder = tmp_path / "in"
    first = json.dumps(ALPACA).encode()
    write(folder, "a.json", b"[" + first + b",\n" + second + b"]")
    write(folder, "b.csv", b"instruction,input,output\nx,y,z\n")
    kept = keep(folder, [True, True, True], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept.jsonl"]
    last = b'{"instruction": "x", "input": "y", "output": "z"}'
    assert kept.read_bytes() == b"\n".join([first, second.replace(b"\n", b" "), last]) + b"\n"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_folder_of_objects_leaves_unchanged(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    value = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
    keys = data.draw(st.lists(st.text(), min_size=1, max_size=3, unique=True))
    record = st.fixed_dictionaries(dict.fromkeys(keys, value)) | st.dictionaries(st.text(), value, max_size=3)
    records = data.draw(st.lists(record, min_size=1, max_size=5))
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    kept = keep(folder, [True] * len(records), folder / "out")
    assert json.dumps(fields(kept)) == json.dumps(records)


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    text = write(tmp_path, "x.jsonl", b'{"a": 1}\n{"a": 2}\n')
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "x.parquet")
    for path in (text, tmp_path / "x.parquet"):
        for rows in ([True], [True, False, True]):
            with pytest.raises(CurateError, match=rf"has changed: {len(rows)} records were read before, now 2"):
                keep(path, rows, tmp_path / "out")


def test_bad_records_are_passed_over_in_place(tmp_path: Path) -> None:
    path = write(tmp_path, "x.jsonl", b'{"a": 1}\nbroken\n{"a": 2}\n')
    kept = keep(path, [False, False, True], tmp_path / "out", on_error="skip")
    assert kept.read_bytes() == b'{"a": 2}\n'


def test_a_hub_data_set_becomes_parquet_with_its_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    rows = [{"instruction": str(i), "output": None if i % 2 else "x", "n": i} for i in range(2500)]
    dataset = datasets.Dataset.from_list(rows)
    dataset.info.license = "mit"
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: dataset)
    data = Data(path="owner/name", format="alpaca")
    source = open_source(data)
    assert [record.fields for record in read_records(source, data)] == rows
    chosen = np.arange(2500) % 100 == 0
    kept = write_kept(source, data, chosen, tmp_path)
    assert pq.read_table(kept).to_pylist() == rows[::100]
    assert pq.read_schema(kept).equals(dataset.features.arrow_schema, check_metadata=True)
    write_card(describe_kept(kept, source, data), source, name="main", template="plain")
    assert "license: mit" in (tmp_path / "README.md").read_text(encoding="utf-8")


# The data card ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["json", "jsonl", "csv", "parquet"])
def test_load_dataset_gives_the_kept_records(tmp_path: Path, extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()
    rows = [ALPACA | {"instruction": f"say {i}\n{i}"} for i in range(20)]
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / f"x.{extension}"
    if extension == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif extension == "csv":
        cells = "".join(f'"{row["instruction"]}",{row["input"]},x{row["output"]}\n' for row in rows)
        path.write_text("instruction,input,output\n" + cells, encoding="utf-8")
        rows = [row | {"output": "x3"} for row in rows]
    else:
        path.write_text(json.dumps(rows) if extension == "json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = Data(path=str(path))
    out = tmp_path / "out"
    kept = keep(path, [i % 2 == 0 for i in range(20)], out)
    source = open_source(data)
    write_card(describe_kept(kept, source, data), source, name="main", template="chat")
    pq.write_table(pa.table({"row": [0, 1]}), out / "selection.parquet")  # what else stands in a selection's folder
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].to_list() == rows[::2]


def stated(folder: Path, readme: str | bytes | None) -> dict[str, Any]:
    """The front matter of the card that is written for a source folder with this README.md."""
    write(folder / "in", "x.jsonl", json.dumps(ALPACA).encode())
    if readme is not None:
        write(folder / "in", "README.md", readme if isinstance(readme, bytes) else readme.encode())
    data = Data(path=str(folder / "in"))
    kept, source = keep(folder / "in", [True], folder / "out"), open_source(data)
    write_card(describe_kept(kept, source, data), source, name="main", template="alpaca", about="By hand.")
    text = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert "By hand." in text
    head = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(head, dict)
    assert head["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": kept.name}]}]
    return head


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: cc-by-4.0\n---\nText\n", {"license": "cc-by-4.0"}),
        ("\ufeff---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("---\nlicense: [mit, apache-2.0]\n---\n", {"license": ["mit", "apache-2.0"]}),
        (
            "---\nlicense: other\nlicense_name: my-own\nlicense_link: LICENSE\n---\n",
            {"license": "other", "license_name": "my-own", "license_link": "LICENSE"},
        ),
        ("---\nwhen: 2024-02-30\nlicense: mit\n---\n", {"license": "mit"}),  # no such day
        ("---\nlicense: 2024-02-30\n---\n", {"license": "2024-02-30"}),
        ("---\nlicense: &mine mit\nother: *mine\n---\n", {"license": "mit"}),
        ("---\nlicense: !!python/object/apply:os.system [ls]\n---\n", {"license": ["ls"]}),  # a list of one word
        ("---\ntags: [x]\n---\n", {"license": "unknown"}),
        ("---\nlicense:\n---\n", {"license": "unknown"}),
        ("---\nlicense: {a: b}\n---\n", {"license": "unknown"}),
        ("license: mit\n", {"license": "unknown"}),
        ("---\n- license\n---\n", {"license": "unknown"}),
        (None, {"license": "unknown"}),
    ],
)
def test_the_licence_of_a_source_folder_is_inherited(
    tmp_path: Path, readme: str | None, licence: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    head = stated(tmp_path, readme)
    assert {key: value for key, value in head.items() if key.startswith("license")} == licence
    assert not caplog.records


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("readme", "reason"),
    [
        ("---\n{broken\n---\n", "flow mapping"),
        (b"---\nlicense: mit\n\xff\n---\n", "utf-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "utf-8"),
        ("---\nlicense: mit\nbell: \x07\n---\n", "unacceptable character"),
        ("---\n" + "[" * 5000 + "\n---\n", "recursion"),
        ("---\n" + "- x\n" * 10_000 + "---\n", "more than 20,000 characters"),
        ("---\nlicense: *nobody\n---\n", "undefined alias"),
    ],
)
def test_a_source_card_that_cannot_be_read_is_passed_over_with_a_warning(
    tmp_path: Path, readme: str | bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert stated(tmp_path, readme)["license"] == "unknown"
    [warning] = caplog.records
    assert "README.md names no licence that can be read" in warning.getMessage()
    assert reason in warning.getMessage()


def test_a_card_with_a_billion_references_is_read_in_no_time(tmp_path: Path) -> None:
    started = time.process_time()
    head = stated(tmp_path, f"---\n{BOMB}license: *i\n---\n")
    assert head["license"] == "unknown"
    assert stated(tmp_path, f"---\n{BOMB}license: mit\n---\n")["license"] == "mit"
    assert time.process_time() - started < 5


def test_only_the_beginning_of_a_source_card_is_read(tmp_path: Path) -> None:
    write(tmp_path, "x.jsonl", json.dumps(ALPACA).encode())
    with (tmp_path / "README.md").open("wb") as card:
        card.write(b"---\nlicense: mit\n---\n")
        card.truncate(10**10)  # a file with a hole: takes no space
    assert licence_of(open_source(Data(path=str(tmp_path)))) == {"license": "mit"}
