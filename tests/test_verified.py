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
from safetensors import safe_open
from safetensors.torch import save_file

import curate
from curate.config import load_recipe
from curate.pipeline import Verb, perform
from curate.pipeline.opening import open_job
from curate.pipeline.pages import write_report
from curate.runs.digests import digest_of_blocks
from curate.tables.digests import digest_of_ids, digest_of_values
from curate.types import CurateError

pytestmark = pytest.mark.usefixtures("workplace")

RUN = Path("run")


def do(verb: Verb, *words: str, training: bool = True) -> None:
    perform(verb, load_recipe(None, [*WORDS, *words]), training=training)


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


@pytest.fixture
def same_records(workplace: Path) -> Path:
    """A run on the same records, scored and trained with another model."""
    shutil.copytree("llama", "other-llama")
    with safe_open("llama/model.safetensors", "pt") as weights:
        changed = {name: weights.get_tensor(name) * 1.5 for name in weights.keys()}  # noqa: SIM118
    save_file(changed, "other-llama/model.safetensors", {"format": "pt"})
    do("run", "model.name=other-llama", "run.dir=other")
    return Path("other")


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("select", ["select.name=second"]),
        ("select", ["select.name=second", "select.method=random"]),
        ("score", []),
        ("score", ["score.ifd=true"]),
        ("run", ["select.name=second"]),
    ],
)
def test_scores_of_the_same_records_by_another_model_are_refused(
    same_records: Path, verb: Verb, words: list[str]
) -> None:
    shutil.copy(same_records / "scores.parquet", RUN)
    before = (RUN / "scores.parquet").read_bytes()
    with pytest.raises(CurateError, match=r"scores\.parquet is not the one that this run made, it has other scores"):
        do(verb, *words)
    assert (RUN / "scores.parquet").read_bytes() == before
    (RUN / "scores.parquet").unlink()
    do("score")
    do("select", "select.name=third")
    assert (RUN / "selections/third/kept.json").read_bytes() == (RUN / "selections/main/kept.json").read_bytes()


def test_lengths_by_another_tokenizer_are_refused_where_nothing_was_scored() -> None:
    for name, words in {"one": [], "two": ["prompt.template=plain", "prompt.max_length=30"]}.items():
        do("run", f"run.dir={name}", "select.method=random", *words, training=False)
    shutil.copy("two/scores.parquet", "one")
    with pytest.raises(CurateError, match=r"one/scores\.parquet is not the one that this run made"):
        do("select", "run.dir=one", "select.method=longest", "select.name=second")


def test_exits_in_the_metadata_that_were_not_scored_are_refused() -> None:
    path = RUN / "scores.parquet"
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"curate"])
    swapped = json.dumps(about | {"exits": about["exits"][::-1]})
    pq.write_table(table.replace_schema_metadata({b"curate": swapped}), path)
    with pytest.raises(CurateError, match=r"scores\.parquet is not the one that this run made, it has other exits"):
        do("select", "select.name=second", f"select.exits=[{about['exits'][0]}]")


def test_a_table_written_again_without_scores_is_scored_again() -> None:
    path = RUN / "scores.parquet"
    expected = pq.read_table(path)
    path.unlink()
    do("select", "select.name=second", "select.method=random")
    assert "complexity" not in pq.read_schema(path).names
    do("score")
    assert pq.read_table(path).equals(expected)


def test_the_adapter_of_another_run_is_neither_evaluated_nor_taken_for_trained(same_records: Path) -> None:
    weights = Path("selections/main/adapter/adapter_model.safetensors")
    shutil.copy(same_records / weights, RUN / weights)
    for verb, words in (("train", []), ("train", ["train.merge=true"]), ("evaluate", ["data.holdout=9"])):
        with pytest.raises(
            CurateError, match=r"adapter_model\.safetensors is not the one .*remove it, and curate train"
        ):
            do(verb, *words)
    (RUN / weights).unlink()
    do("train")
    assert (RUN / weights).read_bytes() != (same_records / weights).read_bytes()


def test_a_model_that_changed_since_it_scored_is_not_trained(same_records: Path) -> None:
    shutil.copy("other-llama/model.safetensors", "llama")
    weights = (RUN / "selections/main/adapter/adapter_model.safetensors").read_bytes()
    for verb in ("train", "evaluate"):
        with pytest.raises(CurateError, match=r"run holds scores made with other settings or inputs; changed: model "):
            do(verb, "data.holdout=9", "train.rank=3")
    assert (RUN / "selections/main/adapter/adapter_model.safetensors").read_bytes() == weights
    (RUN / "selections/main/adapter/adapter_model.safetensors").unlink()
    with pytest.raises(CurateError, match="changed: model "):
        do("train")


def test_an_adapter_is_not_evaluated_on_another_model(same_records: Path) -> None:
    do("run", "data.holdout=9", "select.name=evaluated")
    for word, name in {"train.model=other-llama": "train.model", "model.dtype=bfloat16": "model.dtype"}.items():
        with pytest.raises(
            CurateError, match=rf"holds selections/evaluated/adapter made with other .*changed: {name} "
        ):
            do("evaluate", "data.holdout=9", "select.name=evaluated", word)


def test_kept_records_of_another_run_are_not_handed_over(other: Path) -> None:
    shutil.copy(other / "selections/main/kept.json", RUN / "selections/main")
    for verb, words in (("select", []), ("run", ["train.rank=3"])):
        with pytest.raises(CurateError, match=r"kept\.json is not the one that this run made.*curate select makes"):
            do(verb, *words)
    with pytest.raises(CurateError, match=r"kept\.json is not the one"):
        curate.open("run").kept()


def test_pages_show_no_file_of_another_run(same_records: Path) -> None:
    do("run", "data.holdout=9", "select.name=evaluated")
    do("run", "data.holdout=9", "select.name=evaluated", "run.dir=other", "model.name=other-llama")
    for name, verb in {
        "scores.parquet": "score",
        "selections/evaluated/selection.parquet": "select",
        "selections/evaluated/evaluation.json": "evaluate",
    }.items():
        own = (RUN / name).read_bytes()
        shutil.copy(same_records / name, RUN / name)
        with (
            pytest.raises(CurateError, match=rf"{name} is not the one that this run made.*curate {verb} makes"),
            open_job("report", load_recipe(None, [*WORDS, "select.name=evaluated"]), begin=False) as job,
        ):
            write_report(job)
        (RUN / name).write_bytes(own)


def test_a_page_of_a_selection_without_reasons_names_the_damaged_file() -> None:
    path = RUN / "selections/main/selection.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["reason"]), path)
    with (
        pytest.raises(CurateError, match=r"selection\.parquet is damaged .*curate select makes it again"),
        open_job("report", load_recipe(None, WORDS), begin=False) as job,
    ):
        write_report(job)


def test_python_gives_tables_in_order_of_row_whatever_sorted_them(workplace: Path) -> None:
    pytest.importorskip("pandas")
    for name, read in {
        "scores.parquet": curate.Run.scores,
        "selections/main/selection.parquet": curate.Run.selection,
    }.items():
        expected = read(curate.open("run"))
        table = pq.read_table(RUN / name)
        pq.write_table(table.sort_by([("id", "ascending")]), RUN / name)
        assert read(curate.open("run")).equals(expected)


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
