"""Tables of a run that another program has rewritten: read by kind and row, or told by name, never with a traceback."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS

import curate
from curate.config import load_recipe
from curate.pipeline import Verb, perform
from curate.report.run_table import read_run
from curate.runs.folder import RunFolder
from curate.tables.clusters import read_clusters
from curate.tables.evaluation import SCHEMA, read_evaluation
from curate.tables.score_columns import METADATA, read_about, read_column, read_exit, read_rows
from curate.tables.selection import read_kept
from curate.types import CurateError

RUN = Path("run")
CHOSEN = RUN / "selections" / "main" / "selection.parquet"


def values(rows: int) -> Iterator[pa.Array]:
    """Columns of kinds that no column of ours has, or with values that it cannot have."""
    yield pa.array(["x"] * rows).dictionary_encode()
    yield pa.array([b"\xff"] * rows)
    yield pa.array([2**62] * rows)
    yield pa.array([float("nan")] * rows)
    yield pa.array([0] * rows, pa.timestamp("s"))
    yield pa.array([[1.0] * (i % 5) for i in range(rows)])
    yield pa.array([{"a": 1}] * rows)


def damaged(table: pa.Table) -> Iterator[pa.Table]:
    """The table with each column gone, of each other kind, and with nulls; with rows less, twice and none."""
    for place, name in enumerate(table.column_names):
        yield table.drop_columns([name])
        yield table.set_column(place, name, pa.nulls(len(table), table.schema[place].type))
        for other in values(len(table)):
            yield table.set_column(place, name, other)
    yield table.slice(0, 0)
    yield table.slice(1)
    yield pa.concat_tables([table, table])
    yield pa.Table.from_arrays([*table.columns, table[0]], [*table.column_names, table.column_names[0]])


def reads(path: Path) -> None:
    """Read all that anything reads of scores.parquet and selection.parquet."""
    for read in (
        lambda: read_rows(path / "scores.parquet"),
        lambda: read_column(path / "scores.parquet", "complexity"),
        lambda: read_column(path / "scores.parquet", "complexity", exits=[1]),
        lambda: read_exit(path / "scores.parquet", "log_prob", 1),
        lambda: read_kept(path / "selections/main/selection.parquet"),
        lambda: read_run(path, "main"),
        lambda: curate.open(path).scores(),
        lambda: curate.open(path).selection(),
    ):
        with suppress(CurateError):
            read()


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("path", [RUN / "scores.parquet", CHOSEN], ids=["scores", "selection"])
def test_a_table_of_other_kinds_is_read_or_told_by_name(path: Path) -> None:
    whole = pq.read_table(path)
    for count, table in enumerate(damaged(whole), 1):  # noqa: B007 - how many is asserted
        pq.write_table(table, path)
        reads(RUN)
    assert count == 9 * whole.num_columns + 4


@pytest.mark.usefixtures("workplace")
def test_clusters_and_losses_of_other_kinds_are_read_or_told_by_name(tmp_path: Path) -> None:
    losses = pa.table([["adapter"] * 3, ["a"] * 3, [0, 1, 2], [1, 2, 3], [0.5, 1.0, None]], schema=SCHEMA)
    for whole, read in ((pq.read_table(RUN / "clusters.parquet"), read_clusters), (losses, read_evaluation)):
        for table in damaged(whole):
            pq.write_table(table, tmp_path / "table.parquet")
            with suppress(CurateError):
                read(tmp_path / "table.parquet")


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "metadata",
    [b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b"NaN", b"[" * 100_000, b'{"exits": 1}', b'{"exits": ["a"]}',
     b'{"exits": [1]}', b'{"exits": [1, 2], "num_layers": "x"}', b'{"complexity": []}'],
)  # fmt: skip
def test_damaged_metadata_of_the_scores_are_told_by_name(metadata: bytes) -> None:
    path = RUN / "scores.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({METADATA: metadata}), path)
    with pytest.raises(CurateError, match=r"run/scores\.parquet is damaged \(.*curate score makes it again"):
        read_run(RUN, "main")
    reads(RUN)


@pytest.mark.usefixtures("workplace")
def test_wider_types_of_other_programs_are_the_same_scores() -> None:
    path = RUN / "scores.parquet"
    before, layers = read_run(RUN, "main"), read_about(path).exits
    table = pq.read_table(path)
    wide = {pa.string(): pa.large_string(), pa.int32(): pa.int64(), pa.list_(pa.float32()): pa.large_list(pa.float64())}
    fields = [pa.field(field.name, wide.get(field.type, field.type)) for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields, metadata=table.schema.metadata)), path)
    after = read_run(RUN, "main")
    assert len(layers) == after.confidence.shape[1]
    np.testing.assert_array_equal(after.scores["complexity"], before.scores["complexity"])
    assert (after.response_tokens == before.response_tokens).all()
    perform("select", load_recipe(None, [*WORDS, "select.name=second"]))  # the digest of the ids is the same


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    ("name", "verb"),
    [
        ("scores.parquet", "score"),
        ("embeddings.npy", "embed"),
        ("clusters.parquet", "embed"),
        ("selections/main/selection.parquet", "select"),
    ],
)
def test_no_stage_is_called_finished_whose_table_is_damaged(name: str, verb: Verb) -> None:
    path, recipe = RUN / name, load_recipe(None, WORDS)
    good = path.read_bytes()
    bad = [good[:-20], b"row,id\n0,a\n"]
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        for worse in (table.drop_columns([table.column_names[2]]), table.slice(1)):
            pq.write_table(worse, path)
            bad.append(path.read_bytes())
    for content in bad:
        path.write_bytes(content)
        with pytest.raises(CurateError, match=rf"{path} is damaged \(.*: remove it, and .* makes it again"):
            perform(verb, recipe)
    path.unlink()
    perform(verb, recipe)
    assert path.read_bytes() == good


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("name", ["kept.json", "README.md", "dataset_info.json"])
def test_a_file_of_a_selection_that_is_empty_is_made_again(name: str) -> None:
    path = RUN / "selections" / "main" / name
    good = path.read_bytes()
    path.write_bytes(b"")
    perform("select", load_recipe(None, WORDS))
    assert path.read_bytes() == good


@pytest.mark.usefixtures("workplace")
def test_a_merged_model_that_lost_a_file_is_merged_again() -> None:
    recipe = load_recipe(None, [*WORDS, "train.merge=true"])
    perform("train", recipe)
    merged = RUN / "selections" / "main" / "merged"
    files = sorted(path.name for path in merged.iterdir())
    assert {"config.json", "model.safetensors"} <= set(files)
    for name in files:
        (merged / name).unlink()
        perform("train", recipe)
        assert sorted(path.name for path in merged.iterdir()) == files
    shutil.rmtree(merged)
    perform("train", recipe)
    stages = RunFolder(RUN).stages()
    assert stages["selections/main/merged"]["key"]["adapter"] == stages["selections/main/adapter"]["fingerprint"]
