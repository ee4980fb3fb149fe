"""Which files of a folder are read, that the others are named, and where reading on would be a mistake."""

from __future__ import annotations

import bz2
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from real import real

from curate.config import Data
from curate.publish.kept import write_kept
from curate.read.examples import read_examples
from curate.read.file_names import split_of
from curate.read.files import open_source, read_records, source_sha256
from curate.types import CurateError

ROW = {"instruction": "a", "output": "b"}
LINE = json.dumps(ROW).encode() + b"\n"


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(content)
    return bytes(sink.getvalue())


def fill(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read(path: Path | str, **settings: Any) -> list[Any]:
    data = Data(path=str(path), **settings)
    return [record.fields for record in read_records(open_source(data), data)]


def skipped(path: Path, **settings: Any) -> dict[str, str]:
    """Names below the folder that are not read, with the reason."""
    source = open_source(Data(path=str(path), **settings))
    return {item.name.removeprefix(f"{path}/"): item.why for item in source.skipped}


# Packed files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.csv", "a.tsv"])
def test_a_packed_file_gives_the_records_of_the_unpacked_one(tmp_path: Path, pack: Any, name: str) -> None:
    rows = [{"instruction": f"é {i}", "output": "x" * i} for i in range(500)]
    text = "\n".join(["instruction,output", *(f"{row['instruction']},{row['output']}" for row in rows)])
    if name.endswith("v"):
        content = (text.replace(",", "\t") if name == "a.tsv" else text).encode("utf-8-sig")
    else:
        content = json.dumps(rows).encode() if name == "a.json" else "\n".join(map(json.dumps, rows)).encode()
    extension = ".gz" if pack is gzip.compress else ".zst"
    fill(tmp_path, {name: content, name + extension: pack(content), "misnamed.jsonl" + extension: LINE})
    records = list(read_records(open_source(Data(path=f"{tmp_path / name}")), Data()))
    packed = list(read_records(open_source(Data(path=f"{tmp_path / name}{extension}")), Data()))
    assert [(r.raw, r.fields, r.line) for r in packed] == [(r.raw, r.fields, r.line) for r in records]
    assert [r.fields for r in packed] == rows
    assert read(f"{tmp_path}/misnamed.jsonl{extension}") == [ROW], "a browser had unpacked it"


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_packed_file_may_have_several_parts_and_must_have_its_end(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "a.jsonl.packed"
    path.write_bytes(pack(LINE) + pack(LINE))
    assert read(path) == [ROW, ROW]
    whole = pack(LINE * 5000)
    for damaged in (whole[:-5], whole[: len(whole) // 2], whole + b"garbage", whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(CurateError, match=r"a\.jsonl\.packed"):
            read(path, on_error="skip")


def test_what_was_packed_leaves_unpacked_byte_for_byte(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "a.jsonl.gz": gzip.compress(b'{"a" :1}\n{"a":2}\n', mtime=0),
            "b.csv.zst": zstd(b"\xef\xbb\xbfx,y\r\n1,2\r\n3,4"),
        },
    )
    for name, expected in (("a.jsonl.gz", b'{"a":2}\n'), ("b.csv.zst", b"\xef\xbb\xbfx,y\r\n3,4\r\n")):
        data = Data(path=str(tmp_path / name))
        kept = write_kept(open_source(data), data, np.array([False, True]), tmp_path)
        assert kept.read_bytes() == expected


# Folders ------------------------------------------------------------------------------------------------------------


def test_packed_and_plain_files_of_a_folder_are_all_read(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {"a.jsonl.gz": gzip.compress(b'{"n": 0}', mtime=0), "b.jsonl": b'{"n": 1}', "c.json.zst": zstd(b'[{"n": 2}]')},
    )
    assert read(tmp_path) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert skipped(tmp_path) == {}


def test_what_is_not_read_is_named_with_the_reason(tmp_path: Path) -> None:
    names = ("README.md", "LICENSE", "dataset_info.json", "picture.png", ".gitattributes", "_SUCCESS", "run.py")
    fill(tmp_path, {"a.jsonl": LINE, **dict.fromkeys(names, b"{{ some words }}"), "cache-1.arrow": b"x"})
    fill(tmp_path, {"notes/n.txt": b"x", "old/deep/er.jsonl": LINE})
    assert read(tmp_path) == [ROW]
    assert skipped(tmp_path) == {
        "README.md": "not a file of records",
        "LICENSE": "not a file of records",
        "dataset_info.json": "it describes data",
        "picture.png": "not a file of records",
        ".gitattributes": "hidden",
        "_SUCCESS": "hidden",
        "run.py": "not a file of records",
        "cache-1.arrow": "a cache of datasets",
        "notes": "a subfolder without data",
        "old": "a subfolder with data of its own (old/deep/er.jsonl)",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.xlsx", b"PK\x03\x04"),
        ("b.json.bz2", bz2.compress(LINE)),
        ("b.jsonl.xz", b"\xfd7zXZ"),
        ("b.tar.gz", gzip.compress(b"x", mtime=0)),
        ("b.zip", b"PK\x03\x04"),
        ("b.pkl", b"\x80\x04"),
        ("b.XLS", b"\xd0\xcf\x11\xe0"),
        ("b.txt", LINE),
        ("b", b"[\n " + LINE + b"]"),
        ("b.jsonl.1", LINE),
        ("b.part", b"PAR1"),
        ("b.parquet.incomplete", b"PAR1"),
        ("part-0000.gz", gzip.compress(LINE, mtime=0)),
        ("b.jsonl.part", LINE[:9]),
        ("b.jsonl.snappy", b"x"),
        ("b.json5", b"[{'a': 1,},]"),
        ("b.pt", b"PK\x03\x04"),
    ],
)
def test_a_folder_is_not_read_by_half(tmp_path: Path, name: str, content: bytes) -> None:
    fill(tmp_path, {"a.jsonl": LINE, name: content})
    with pytest.raises(CurateError, match=r"looks like data and is not read \(read are \.json, .*move it out"):
        open_source(Data(path=str(tmp_path)))


@pytest.mark.parametrize("name", ["a.jsonl.sha256", "a.jsonl.md5", "a.parquet.crc", "a.jsonl.license", "a.json.md"])
def test_what_stands_beside_a_file_under_its_name_is_no_data(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"a.jsonl": LINE, name: b"0123"})
    assert len(read(tmp_path)) == 1


def test_a_pipe_that_is_called_like_data_is_not_left_out_without_a_word(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jsonl": LINE})
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(CurateError, match=r"b\.jsonl looks like data and is not read"):
        read(tmp_path)


def test_a_link_to_nothing_is_no_missing_shard(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jsonl": LINE})
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(CurateError, match=r"b\.jsonl is a link to a file that is not there"):
        read(tmp_path)


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    fill(tmp_path, {"README.md": b"x", "data/train.jsonl": LINE})
    with pytest.raises(CurateError, match=r"it holds folders with data: give one of them, e\.g\. data\.path=.*/data$"):
        read(tmp_path)
    (tmp_path / "data.json").mkdir()
    with pytest.raises(CurateError, match=r"no file to read in the folder .*data\.json; expected \.json"):
        read(tmp_path / "data.json")


@pytest.mark.parametrize(
    ("names", "way_on"),
    [
        (["train.jsonl", "test.jsonl"], "train.jsonl"),
        (["alpaca.jsonl", "alpaca_test.jsonl"], "alpaca.jsonl"),
        (["a.train.jsonl", "a.dev.jsonl", "a.valid.jsonl"], "a.train.jsonl"),
        (["validation-00000-of-00001.jsonl", "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], "train-*"),
    ],
)
def test_files_that_are_splits_by_their_names_are_not_mixed(tmp_path: Path, names: list[str], way_on: str) -> None:
    fill(tmp_path, {name: json.dumps({"n": name}).encode() for name in names})
    with pytest.raises(CurateError, match="different splits by their names") as caught:
        open_source(Data(path=str(tmp_path)))
    path = str(caught.value).partition("data.path=")[2].partition(" ")[0]
    assert path.startswith(f"{tmp_path}/{way_on}")
    expected = [name for name in sorted(names) if name.startswith(way_on.rstrip("*"))]
    assert read(path) == [{"n": name} for name in expected], "what the message says works"
    others = set(names) - set(expected)
    if "*" in path:
        left = open_source(Data(path=path)).skipped
        assert {(Path(item.name).name, item.why) for item in left} == {
            (name, "not named by data.path") for name in others
        }


@pytest.mark.parametrize(
    "names",
    [["train-1.jsonl", "train-2.jsonl"], ["a.jsonl", "train.jsonl"], ["test_a.jsonl"], ["contest.jsonl", "b.jsonl"]],
)
def test_files_of_one_split_are_read_together(tmp_path: Path, names: list[str]) -> None:
    assert len(read(fill(tmp_path, dict.fromkeys(names, LINE)))) == len(names)


def test_the_same_file_twice_and_missing_shards_are_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "twice", {"a.jsonl": LINE, "a.jsonl.gz": gzip.compress(LINE, mtime=0)})
    with pytest.raises(CurateError, match=r"a\.jsonl and a\.jsonl\.gz are the same data"):
        read(tmp_path / "twice")
    shards = {f"d-{i:05}-of-00003.jsonl": LINE for i in range(3)}
    assert len(read(fill(tmp_path / "whole", shards))) == 3
    assert len(read(fill(tmp_path / "from_one", {f"d-{i}-of-3.jsonl": LINE for i in (1, 2, 3)}))) == 3
    for gone in shards:
        folder = fill(tmp_path / gone, {name: LINE for name in shards if name != gone})
        with pytest.raises(CurateError, match=r"d-\*-of-00003\.jsonl: expected 3 shards by their names, got 2"):
            read(folder)
        with pytest.raises(CurateError, match="expected 3 shards"):
            read(folder / "d-*")


@pytest.mark.parametrize("form", ["d_{}_of_3.jsonl", "d.{}of3.jsonl", "d-{}-OF-3.jsonl", "{}of3.jsonl"])
def test_a_missing_shard_is_noticed_however_shards_are_called(tmp_path: Path, form: str) -> None:
    assert len(read(fill(tmp_path, {form.format(i): LINE for i in (1, 2, 3)}))) == 3
    (tmp_path / form.format(2)).unlink()
    with pytest.raises(CurateError, match="expected 3 shards by their names, got 2"):
        read(tmp_path)


@pytest.mark.parametrize("names", [("a.csv", "a.jsonl"), ("a.json", "a.jsonl.gz"), ("a.jsonl", "a.jsonl.zst")])
def test_one_name_in_two_formats_is_the_same_data_twice(tmp_path: Path, names: tuple[str, str]) -> None:
    fill(tmp_path, dict.fromkeys(names, LINE))
    with pytest.raises(CurateError, match=f"{names[0]} and {names[1]} are the same data: remove one, or name one"):
        read(tmp_path)


def test_a_file_under_two_names_is_the_same_data_twice(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jsonl": LINE})
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    with pytest.raises(CurateError, match=r"a\.jsonl and b\.jsonl are the same data"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "test") for name in ("heldout.json", "a_held-out.json", "my holdout.csv", "dataTest.json")),
        *((name, "test") for name in ("TestData.json", "testset.json", "tst.json", "evals.json", "benchmark.json")),
        *((name, "train") for name in ("trn.json", "trainset.json", "dataTrain.json", "TRAIN-00000-of-00001.parquet")),
        *((name, "validation") for name in ("valset.json", "a.dev.json", "devset.json")),
        *((name, None) for name in ("contest.json", "latest.json", "medieval.json", "withholding.json")),
    ],
)
def test_the_split_that_a_name_says(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_name_with_a_star_that_names_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {"a.jsonl": LINE})
    with pytest.raises(CurateError, match=r"no file to read is called .*/b\*"):
        read(tmp_path / "b*")


# Saved by `datasets` -------------------------------------------------------------------------------------------------


def save(folder: Path, shards: list[list[dict[str, Any]]], state: bytes | None = None) -> Path:
    """What save_to_disk writes, as far as it matters."""
    names = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
    files = {"state.json": state or json.dumps({"_data_files": [{"filename": name} for name in names]}).encode()}
    fill(folder, {**files, "dataset_info.json": b"{}", "cache-0.arrow": b"x"})
    for name, rows in zip(names, shards, strict=True):
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    return folder


def test_a_saved_data_set_is_its_files_in_the_order_it_says(tmp_path: Path) -> None:
    rows = [ROW | {"output": str(i)} for i in range(5)]
    folder = save(tmp_path / "saved", [rows[:2], rows[2:]])
    assert read(folder) == rows
    assert skipped(folder) == {"cache-0.arrow": "not named by state.json"}
    assert read(folder / "data-00001-of-00002.arrow") == rows[2:]
    data = Data(path=str(folder))
    kept = write_kept(open_source(data), data, np.array([True, False, False, False, True]), tmp_path)
    assert (kept.name, read(kept)) == ("kept.parquet", [rows[0], rows[4]])
    before = source_sha256(open_source(data))
    (folder / "state.json").write_bytes((folder / "state.json").read_bytes() + b" ")
    assert source_sha256(open_source(data)) == before, "the records are the same"


def test_of_a_saved_dict_one_split_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    fill(tmp_path, {"dataset_dict.json": b'{"splits": ["train", "test"]}'})
    save(tmp_path / "train", [[ROW]])
    save(tmp_path / "test", [[ROW, ROW]])
    assert len(read(tmp_path)) == 1
    assert len(read(tmp_path, split="test")) == 2
    assert skipped(tmp_path)["test"] == "another split"
    with pytest.raises(CurateError, match=r"with the splits train, test, got data\.split=dev"):
        read(tmp_path, split="dev")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"state.json": b"{"}, "state.json, which a saved data set is read by, is damaged"),
        ({"state.json": b"[]"}, "is damaged"),
        ({"state.json": b'{"_data_files": null}'}, "expected the names of its files"),
        ({"state.json": b'{"_data_files": [{"filename": "../../x.arrow"}]}'}, "expected the names of its files"),
        ({"state.json": b'{"_data_files": [{"filename": "other.arrow"}]}'}, "lacks its file other.arrow"),
        ({"data-00000-of-00001.arrow": b""}, "not a sound Arrow file"),
        ({"data-00000-of-00001.arrow": b"\xff\xff\xff\xff\x10\0\0\0garbage"}, "not a sound Arrow file"),
        ({"dataset_dict.json": b'{"splits": ["../x"]}'}, "expected a list of splits"),
        ({"dataset_dict.json": b'{"splits": ["train"]}'}, "a saved data set lacks .*train/state.json"),
    ],
)
def test_a_damaged_saved_data_set_is_refused_by_name(tmp_path: Path, damage: dict[str, bytes], message: str) -> None:
    with pytest.raises(CurateError, match=message):
        read(fill(save(tmp_path, [[ROW]]), damage))


def test_a_saved_file_that_was_cut_off_is_not_read_by_half(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.Table.from_pylist([ROW] * 100)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table, max_chunksize=10)
    whole = path.read_bytes()
    assert len(read(path)) == 100
    for end in range(8, len(whole), 8):  # messages end at multiples of eight
        path.write_bytes(whole[:end])
        with pytest.raises(CurateError, match="not a sound Arrow file"):
            read(path, on_error="skip")


def test_an_arrow_file_whose_objects_parquet_cannot_hold_leaves_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"a": pa.array([{}, {}], pa.struct([])), "b": ["x", "y"]})
    with pa.ipc.new_file(str(path), table.schema) as out:
        out.write_table(table)
    data = Data(path=str(path))
    kept = write_kept(open_source(data), data, np.array([False, True]), tmp_path)
    assert (kept.name, kept.read_bytes()) == ("kept.jsonl", b'{"a": {}, "b": "y"}\n')


def test_real_saved_data_sets() -> None:
    saved = real("field/01-save-to-disk")
    rows = read(saved / "saved")
    assert len(rows) == 40
    assert rows[0] == {"instruction": "Name a color number 0.", "input": "", "output": "Color 0 is a kind of blue."}
    assert read(saved / "saved" / "data-00000-of-00001.arrow") == rows == read(saved / "saved_dict")
    assert len(read(saved / "saved_dict", split="test")) == 5
    data = Data(path=str(saved / "saved"))
    assert sum(example.problem is None for example in read_examples(data, open_source(data))) == 40


def test_what_datasets_saves_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    call = {"name": "f", "arguments": {"x": 1}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": "a", "call": None},
                {"role": "tool", "content": "b", "call": [call]},
            ]
        },
        {"messages": [{"role": "user", "content": "c", "call": None}]},
    ]
    mixed = [{"a": 1, "b": ["x", 2]}, {"a": "one", "b": None}]
    for name, content in (("m", rows), ("x", mixed)):
        lines = fill(tmp_path, {f"{name}.jsonl": "\n".join(map(json.dumps, content)).encode()}) / f"{name}.jsonl"
        loaded = datasets.load_dataset("json", data_files=str(lines), split="train", cache_dir=str(tmp_path / "cache"))
        loaded.save_to_disk(tmp_path / name)
        loaded.to_parquet(tmp_path / f"{name}.parquet")
        assert read(tmp_path / name) == list(loaded) == read(tmp_path / f"{name}.parquet") == content
        data = Data(path=str(tmp_path / name))
        kept = write_kept(open_source(data), data, np.array([False, True]), tmp_path)
        assert read(kept) == content[1:]
        assert pq.read_schema(kept).metadata[b"huggingface"], "datasets finds the features again"
