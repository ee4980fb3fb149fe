"""A table of a run is taken for its own only if it is: those of other records are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import WORDS, alpaca_records, write_json_array

from curate.config import load_recipe
from curate.pipeline import Verb, perform
from curate.tables.digests import digest_of_blocks, digest_of_ids, digest_of_values
from curate.types import CurateError

pytestmark = pytest.mark.usefixtures("workplace")

RUN = Path("run")


def do(verb: Verb, *words: str) -> None:
    perform(verb, load_recipe(None, [*WORDS, *words]))


@pytest.fixture
def other() -> Path:
    """A run on as many other records."""
    write_json_array(Path("other.json"), alpaca_records(seed=5))
    do("run", "data.path=other.json", "run.dir=other")
    return Path("other")


@pytest.mark.parametrize("work", ["kept", "removed"])
@pytest.mark.parametrize("names", [["scores.parquet"], ["embeddings.npy", "clusters.parquet"], ["clusters.parquet"]])
def test_the_table_of_another_run_is_refused_by_name(other: Path, names: list[str], work: str) -> None:
    for name in names:
        shutil.copy(other / name, RUN / name)
    if work == "removed":
        shutil.rmtree(RUN / "work")
    with pytest.raises(
        CurateError, match=rf"run/({'|'.join(names)}) is not the one that this run made.*curate \w+ makes"
    ):
        do("select", "select.name=second")
    assert not (RUN / "selections" / "second").exists()


def test_the_embeddings_of_another_run_are_refused_where_the_clusters_are_gone(other: Path) -> None:
    shutil.copy(other / "embeddings.npy", RUN)
    (RUN / "clusters.parquet").unlink()
    with pytest.raises(CurateError, match=r"run/embeddings\.npy is not the one that this run made"):
        do("select", "select.name=second")


def test_an_adapter_is_not_trained_on_the_selection_of_another_run(other: Path) -> None:
    shutil.copy(other / "selections/main/selection.parquet", RUN / "selections/main")
    with pytest.raises(CurateError, match=r"selection\.parquet is not the one that this run made.*curate select makes"):
        do("train", "train.learning_rate=1e-3")


@pytest.mark.parametrize("method", ["clusters", "top"])
def test_scores_without_a_record_of_what_was_scored_are_held_against_the_data(method: str) -> None:
    shutil.rmtree(RUN / "work")
    (RUN / "manifest.json").unlink()
    write_json_array(Path("fewer.json"), alpaca_records(60, seed=6))
    words = ("data.path=fewer.json", "select.name=second", f"select.method={method}")
    with pytest.raises(CurateError, match=r"holds no embeddings yet|scores\.parquet is not the one"):
        do("select", *words)


def test_a_table_that_was_removed_as_told_is_made_again(other: Path) -> None:
    shutil.copy(other / "clusters.parquet", RUN)
    (RUN / "clusters.parquet").unlink()
    do("select", "select.name=second")
    first, second = (RUN / "selections" / name / "kept.json" for name in ("main", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_scores_that_stand_about_lend_their_further_columns_to_their_own_records_only(other: Path) -> None:
    """A kill after scores.parquet is in place and before it is recorded leaves it to be published again."""
    expected = (RUN / "scores.parquet").read_bytes()
    ifd = pq.read_table(other / "scores.parquet").append_column("ifd", pa.array(np.arange(80.0)))
    pq.write_table(ifd, RUN / "scores.parquet")
    manifest = json.loads((RUN / "manifest.json").read_text())
    del manifest["stages"]["scores"]
    (RUN / "manifest.json").write_text(json.dumps(manifest))
    do("score")
    assert (RUN / "scores.parquet").read_bytes() == expected


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_scores_published_again_are_the_same_bytes_whatever_stood_there(content: bytes | None) -> None:
    path = RUN / "scores.parquet"
    expected = path.read_bytes()
    if content is not None:
        path.write_bytes(content)
    manifest = json.loads((RUN / "manifest.json").read_text())
    del manifest["stages"]["scores"]
    (RUN / "manifest.json").write_text(json.dumps(manifest))
    do("score")
    assert path.read_bytes() == expected
    assert list(RUN.glob(".scores*")) == []


@pytest.mark.parametrize("name", ["kept.json", "README.md", "dataset_info.json", "selection.parquet"])
def test_a_file_of_a_selection_that_is_gone_is_made_again_and_the_adapter_stays(name: str) -> None:
    folder = RUN / "selections" / "main"
    adapter = (folder / "adapter/adapter_model.safetensors").stat().st_mtime_ns
    (folder / name).unlink()
    do("select")
    assert (folder / name).is_file()
    do("train")
    assert (folder / "adapter/adapter_model.safetensors").stat().st_mtime_ns == adapter


def test_digests_tell_order_size_and_content(tmp_path: Path) -> None:
    ids = np.array([b"a" * 32, b"b" * 32, b"c" * 32])
    assert digest_of_ids(ids) == digest_of_ids(ids.astype("V32")) == digest_of_ids(ids.astype("S16"))
    assert digest_of_ids(ids) != digest_of_ids(ids[[0, 2, 1]])
    assert digest_of_values(np.arange(3)) != digest_of_values(np.arange(4))
    path = tmp_path / "x"
    seen = set()
    for content in (b"", b"x", bytes(9_000_000), bytes(8_999_999) + b"x", bytes(9_000_001)):
        path.write_bytes(content)
        seen.add(digest_of_blocks(path))
    assert len(seen) == 5
