"""`curate estimate`: counts that a run then says too, laws of the cost, and nothing written into the run folder.

No test looks at a clock: tests/benchmarks/bench_estimate.py holds estimates against runs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WORDS, alpaca_records, write_json_array
from hypothesis import given
from hypothesis import strategies as st

from curate.cli import main
from curate.cli.estimates import estimate_lines
from curate.config import Train, load_recipe
from curate.models.memory import memory_growth, process_memory, take_peak_memory
from curate.pipeline import perform
from curate.pipeline import probe_sample as sampling
from curate.pipeline.estimate import estimate
from curate.pipeline.probe_sample import count, count_records, take_sample
from curate.pipeline.probe_scores import batch_loads, full_plan
from curate.pipeline.probe_stages import clustering_seconds, training_batches
from curate.pipeline.stored_estimate import keep_estimate
from curate.probe.cost import BatchCost, fit_cost
from curate.probe.estimate import (
    PROCESSES,
    Compared,
    Counts,
    Estimate,
    MemoryEstimate,
    StageEstimate,
    as_object,
    compare_with_truth,
    seconds_by_processes,
)
from curate.probe.spread import spread
from curate.read.files import open_source
from curate.runs.folder import RunFolder
from curate.scoring.batches import plan_batches_of
from curate.types import CurateError, TokenStore

QUICK = (*WORDS, "run.dir=new", "train.batch_size=2", "train.gradient_accumulation=1")


def sample_store(folder: Path, *words: str) -> TokenStore:
    return take_sample(load_recipe(None, [*QUICK, *words]), folder).store


# The sample


@given(st.integers(0, 300), st.integers(2, 20))
def test_a_spread_is_even_begins_with_the_first_and_is_never_larger(length: int, most: int) -> None:
    found = spread(iter(range(length)), most)
    assert found.count == length
    assert len(found.items) <= most
    if length <= most:
        assert found.items == list(range(length))
    else:
        (step,) = set(np.diff(found.items)) or {0}
        assert found.items[0] == 0
        assert len(found.items) > most // 2
        assert length - found.items[-1] <= step


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("words", [[], ["prompt.max_length=60", "prompt.too_long=trim"], ["data.limit=30"]], ids=str)
def test_where_every_record_is_sampled_the_run_says_the_same_counts(tmp_path: Path, words: Sequence[str]) -> None:
    found = take_sample(load_recipe(None, [*QUICK, *words]), tmp_path / "probe")
    counts = count(found.store, found.records)
    perform("score", load_recipe(None, [*QUICK, *words]))
    stage = RunFolder(Path("new")).stage("tokens")
    assert stage is not None
    assert counts.exact
    assert (counts.records, counts.scored, counts.tokens) == (stage["in"], stage["out"], stage["tokens"])
    assert (counts.truncated, dict(counts.dropped)) == (stage["truncated"], stage["dropped"])
    assert counts.scored + sum(counts.dropped.values()) == counts.records
    if "prompt.too_long=trim" in words:
        assert counts.truncated > 0


@pytest.mark.usefixtures("workplace")
def test_counts_of_a_part_are_scaled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_SAMPLED", 40)
    found = take_sample(load_recipe(None, QUICK), tmp_path / "probe")
    counts = count(found.store, found.records)
    assert (counts.records, counts.sampled, counts.exact) == (80, 40, False)
    assert counts.tokens == 2 * len(found.store.input_ids)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_large_text_file_is_counted_by_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(sampling, "MOST_READ", 100)
    path, records = tmp_path / f"data.{suffix}", alpaca_records(1000)
    if suffix == "json":
        write_json_array(path, records)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    recipe = load_recipe(None, [f"data.path={path}"])
    assert count_records(recipe, open_source(recipe.data)) == pytest.approx(1000, rel=0.15)
    limited = load_recipe(None, [f"data.path={path}", "data.limit=300"])
    assert count_records(limited, open_source(limited.data)) == 300


def test_a_large_table_is_counted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(sampling, "MOST_READ", 100)
    pq.write_table(pa.Table.from_pylist(alpaca_records(321)), tmp_path / "data.parquet")
    recipe = load_recipe(None, [f"data.path={tmp_path / 'data.parquet'}"])
    assert count_records(recipe, open_source(recipe.data)) == 321


# The plan and its cost


@pytest.mark.usefixtures("workplace")
def test_of_a_whole_input_the_plan_is_that_of_the_run(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "probe")
    full, own = full_plan(store, 1.0, 256, reuse_prefixes=True), plan_batches_of(store, 256, reuse_prefixes=True)
    assert full.scale == 1.0
    assert full.plan.order.tolist() == own.order.tolist()
    assert full.plan.costs.tolist() == own.costs.tolist()


@pytest.mark.usefixtures("workplace")
def test_a_plan_of_more_records_holds_as_many_and_is_less_padded(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "probe")
    one, ten = (full_plan(store, factor, 256, reuse_prefixes=False).plan for factor in (1.0, 10.0))
    assert len(ten.order) == 10 * len(one.order)
    assert np.bincount(ten.order).max() == 10
    assert 9 * one.costs.sum() < ten.costs.sum() <= 10 * one.costs.sum()


@pytest.mark.usefixtures("workplace")
def test_the_loads_of_a_plan_are_counted_as_a_loop_counts_them(tmp_path: Path) -> None:
    store = sample_store(tmp_path / "probe")
    plan = plan_batches_of(store, 256, reuse_prefixes=True)

    class Scorer:
        layers = (1, 2)

        class parts:  # noqa: N801 - stands for an attribute
            num_layers = 4

    for batch, row in enumerate(batch_loads(plan, store, Scorer())):  # type: ignore[arg-type]  # only depth and exits count
        rows = plan.rows_of_batch(batch)
        prefix = len(plan.prefixes[plan.prefix_ids[batch]]) if plan.prefix_ids[batch] >= 0 else 0
        longest = int(store.rows["needed"][rows].max()) - prefix
        padded = longest * len(rows)
        expected = [1, padded / 2, 2 * int(store.rows["scored"][rows].sum()), padded * (longest + prefix) / 2]
        assert row.tolist() == expected


@given(st.tuples(*[st.floats(1e-6, 1e-2)] * 4), st.integers(0, 2**31))
def test_a_cost_that_follows_the_formula_is_found(weights: tuple[float, float, float, float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = np.array([1, 2_000, 5_000, 300_000])
    timed = np.column_stack([np.ones(12), rng.uniform(0.1, 1, (12, 3))]) * scale
    cost = fit_cost(timed, timed @ np.array(weights))
    assert cost.seconds(timed) == pytest.approx(float((timed @ np.array(weights)).sum()), rel=1e-6)


@given(st.integers(1, 12), st.integers(0, 2**31))
def test_more_work_never_costs_less(batches: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = fit_cost(np.column_stack([np.ones(batches), rng.uniform(1, 9, (batches, 3))]), rng.uniform(0, 9, batches))
    assert min(cost.fixed, cost.per_token, cost.per_answer, cost.per_pair) >= 0
    assert cost.seconds(np.ones((2, 4))) >= cost.seconds(np.ones((1, 4)))


def test_seconds_of_batches_are_added_up() -> None:
    cost = BatchCost(fixed=1, per_token=0.5, per_answer=0.25, per_pair=2)
    assert cost.seconds(np.array([[1.0, 4, 8, 0], [1, 0, 0, 3]])) == 1 + 2 + 2 + 1 + 6


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("words", [{}, {"gradient_accumulation": 3}, {"max_steps": 7}, {"epochs": 0.5}], ids=str)
def test_training_takes_the_steps_of_the_trainer(processes: int, words: dict[str, Any]) -> None:
    train = Train(batch_size=2, **words)
    steps, batches = training_batches(101, train, processes)
    accumulation = train.accumulation(processes)
    assert steps >= 1
    assert batches <= steps * accumulation
    if train.max_steps:
        assert steps == 7
    else:
        per_process = train.epochs * 101 / 2 / processes
        assert per_process <= batches <= per_process + 1 + train.epochs


@pytest.mark.usefixtures("workplace")
def test_a_run_of_its_own_takes_those_steps() -> None:
    words = [word for word in QUICK if not word.startswith("train.max_steps")]
    recipe = load_recipe(None, [*words, "train.epochs=3", "train.gradient_accumulation=2", "train.save_steps=1000"])
    perform("run", recipe)
    stage = RunFolder(Path("new")).stage("selections/main/adapter")
    assert stage is not None
    assert stage["steps"] == training_batches(stage["in"], recipe.train, 1)[0]


@given(kept=st.integers(1, 60), size=st.integers(1, 5), accumulation=st.integers(1, 5), steps=st.integers(1, 40))
def test_the_batches_of_max_steps_are_those_of_a_walk_through_the_epochs(
    kept: int, size: int, accumulation: int, steps: int
) -> None:
    """As the Trainer goes: a step takes `accumulation` batches, the last one of an epoch what is left."""
    walked, left = 0, 0
    for _ in range(steps):
        left = left or math.ceil(kept / size)
        walked += min(accumulation, left)
        left -= min(accumulation, left)
    train = Train(batch_size=size, gradient_accumulation=accumulation, max_steps=steps)
    assert training_batches(kept, train, 1) == (steps, walked)


def test_clustering_nothing_takes_no_time() -> None:
    assert clustering_seconds(0, 8, load_recipe(None, []).cluster) == 0.0


def test_processes_divide_what_they_share() -> None:
    seconds = seconds_by_processes(2, 12, {2: 1.5})
    assert len(seconds) == len(PROCESSES) == 8
    assert (seconds[0], seconds[1], seconds[2]) == (14, 2 + 6 * 1.5, 6)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux counts")
def test_memory_that_is_taken_and_given_back_is_seen() -> None:
    with memory_growth(torch.device("cpu")) as grown:
        block = np.ones(64_000_000, np.uint8)
        given_up = time.monotonic() + 60
        # Memory that is held for less than the time between two looks may be missed.
        while (grown() or 0) < 50_000_000 and time.monotonic() < given_up:
            time.sleep(0.01)
        del block
    seen = grown()
    assert seen is not None
    assert seen > 50_000_000


@pytest.mark.skipif(take_peak_memory() is None, reason="peaks of memory are not counted here")
def test_a_peak_is_that_since_the_last_time_it_was_taken() -> None:
    block = np.ones(200_000_000, np.uint8)
    before = process_memory(torch.device("cpu"))
    del block
    first, second = take_peak_memory(), take_peak_memory()
    assert before is not None
    assert first is not None
    assert second is not None
    assert first > 0.98 * before  # Linux counts pages in batches for each thread
    assert second < first - 150_000_000


# The whole


def stage_names(result: Estimate) -> list[str]:
    return [stage.name for stage in result.stages]


@pytest.mark.usefixtures("workplace")
def test_an_estimate_prices_every_stage_and_writes_nothing_into_the_run_folder() -> None:
    words = ["score.ifd=true", "score.masked=true", "score.dropout={rates: [.1, .2]}", "data.holdout=5"]
    result = estimate(load_recipe(None, [*QUICK, *words]))
    names = ["tokens", "complexity", "ifd", "masked", "dropout", "embed", "select", "train", "evaluate"]
    assert stage_names(result) == names
    assert not Path("new").exists()
    assert all(len(stage.seconds) == 8 and min(stage.seconds) > 0 for stage in result.stages)
    assert all(stage.seconds[7] <= stage.seconds[0] for stage in result.stages)
    passes = {stage.name: stage.forward_passes for stage in result.stages}
    assert passes["masked"] is not None
    assert passes["masked"] >= 2  # the subnet of sparsity 0 is the model, which complexity has scored
    assert passes["ifd"] is not None
    assert 0 < passes["ifd"] < 1.5  # the response alone
    assert passes["tokens"] is passes["train"] is None
    assert [peak.stage for peak in result.memory] == ["complexity", "ifd", "masked", "dropout", "embed", "train"]
    parameters = 2 * 512 * 32 + 4 * (3 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    assert result.memory[0].weights == 4 * parameters + 2 * 4 * 4  # and two buffers of the rotary embedding
    assert json.loads(json.dumps(as_object(result)))["processes"] == list(PROCESSES)


@pytest.mark.usefixtures("workplace")
def test_only_what_the_selection_needs_is_priced() -> None:
    result = estimate(load_recipe(None, [*QUICK, "select.method=random"]))
    assert stage_names(result) == ["tokens", "select", "train"]


@pytest.mark.usefixtures("workplace")
def test_a_small_model_and_another_to_train_are_probed_as_they_are() -> None:
    words = ["score.ifd={model: chat}", "select.method=top", "select.by=ifd", "train.model=chat", "data.holdout=5"]
    Path("set.json").write_text(json.dumps(alpaca_records(12)[-4:]), encoding="utf-8")
    result = estimate(load_recipe(None, [*QUICK, *words, "evaluate.sets=[{name: more, path: set.json}]"]))
    assert stage_names(result) == ["tokens", "ifd", "select", "train", "evaluate"]
    assert len({peak.weights for peak in result.memory}) == 1


@pytest.mark.usefixtures("workplace")
def test_what_cannot_be_run_cannot_be_estimated() -> None:
    with pytest.raises(CurateError, match=r"model\.name"):
        estimate(load_recipe(None, ["data.path=alpaca.json"]))
    write_json_array(Path("empty.json"), [{"instruction": "a", "output": " "}] * 3)
    with pytest.raises(CurateError, match=r"none of the 3 records .* can be scored"):
        estimate(load_recipe(None, [*QUICK, "data.path=empty.json"]))


def made_up(**changes: Any) -> Estimate:
    counts = Counts(10, True, 10, 9, 100, 50, 1, {"too_long": 1})
    stages = tuple(
        StageEstimate(name, seconds_by_processes(1, 8)) for name in ("tokens", "complexity", "ifd", "embed", "train")
    )
    memory = (MemoryEstimate("train", 500, 300, 200), MemoryEstimate("embed", 5, None, 1))
    return replace(Estimate(counts, stages, memory, "cpu", {"select.name": "main"}, ("so",), 1.0), **changes)


def test_a_truth_is_compared_stage_by_stage_at_its_own_number_of_processes() -> None:
    stages: dict[str, Any] = {
        "tokens": {"in": 10, "tokens": 80, "truncated": 0, "dropped": {"empty_response": 2}, "seconds": 9.0},
        "scores": {"seconds": 2.5, "processes": 2},
        "embeddings": {"seconds": 4.0, "peak_memory": 9},
        "clusters": {"seconds": 1.0},
        "selections/other/adapter": {"seconds": 1.0},
    }
    rows = {row.what: row for row in compare_with_truth(made_up(), {"stages": stages})}
    assert list(rows) == [
        "number of records",
        "number of tokens",
        "truncated",
        "dropped: empty_response",
        "dropped: too_long",
        "tokens",
        "complexity",
        "embed",
    ]
    assert rows["number of tokens"].ratio == 1.25
    assert (rows["dropped: too_long"].true, rows["dropped: too_long"].ratio) == (0, None)
    assert (rows["complexity"].estimated, rows["complexity"].ratio) == (5.0, 2.0)
    assert (rows["embed"].estimated, rows["embed"].true) == (5.0, 5.0)
    assert compare_with_truth(made_up(), {}) == []


def test_an_estimate_fits_a_terminal_and_says_what_is_not_known() -> None:
    passes = tuple(StageEstimate(name, (5e5,) * 8, 12.5) for name in ("complexity", "dropout"))
    counts = replace(made_up().counts, dropped={f"reason_{i}": 1_000_000 for i in range(8)})
    lines = list(estimate_lines(made_up(stages=passes, counts=counts, assumptions=("a word or two " * 9,)), 60))
    assert max(map(len, lines)) <= 76
    assert max(len(line) for line in lines if "reason" in line or "word" in line) <= 60
    table = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert table["train"] == ["0.0", "MB", "0.0", "MB", "0.0", "MB", "0.0", "MB"]
    assert table["embed"] == ["unknown", "0.0", "MB", "unknown", "0.0", "MB"]


def test_peaks_of_memory_are_compared_where_all_of_an_estimate_is_known() -> None:
    stages: dict[str, Any] = {
        "embeddings": {"seconds": 4.0, "peak_memory": 9},  # whose activations are not known
        "clusters": {"seconds": 1.0, "peak_memory": 10},
        "selections/main/adapter": {"seconds": 1.0, "peak_memory": 800},
    }
    found = [row for row in compare_with_truth(made_up(), {"stages": stages}) if row.unit == "bytes"]
    assert found == [Compared("memory of train", "bytes", 1000, 800, 1.25)]


@pytest.mark.usefixtures("workplace")
def test_a_finished_run_holds_the_estimate_beside_the_truth_and_keeps_it() -> None:
    folder, recipe = RunFolder(Path("run")), load_recipe(None, WORDS)
    before = folder.manifest()
    assert keep_estimate(made_up(), recipe, folder) == Path("run/manifest.json")
    manifest = folder.manifest()
    assert manifest["estimate"].items() >= as_object(made_up()).items()
    rows = {row["what"]: row for row in manifest["estimate"]["truth"]}
    assert rows["complexity"]["true"] == before["stages"]["scores"]["seconds"]
    assert {name: value for name, value in manifest.items() if name != "estimate"} == before
    folder.describe(seed=7)
    assert (folder.manifest()["estimate"], folder.manifest()["seed"]) == (manifest["estimate"], 7)
    Path("mine").mkdir()
    assert keep_estimate(made_up(), recipe, RunFolder(Path("mine"))) is None
    assert list(Path("mine").iterdir()) == []


@pytest.mark.usefixtures("workplace")
def test_an_estimate_made_before_the_run_waits_beside_its_folder_and_is_taken_over() -> None:
    words = [word for word in QUICK if not word.startswith("run.dir")]
    recipe, waiting = load_recipe(None, [*words, "run.dir=new"]), Path("new.estimate.json")
    assert keep_estimate(made_up(), recipe, RunFolder(Path("new"))) == waiting
    assert not Path("new").exists()
    other = perform("score", load_recipe(None, [*words, "run.dir=new", "score.exits=2"]))
    assert "estimate" not in other.manifest(), "the estimate is that of another recipe"
    assert waiting.exists()
    waiting.rename("third.estimate.json")
    manifest = perform("run", load_recipe(None, [*words, "run.dir=third"])).manifest()
    assert not Path("third.estimate.json").exists()
    rows = {row["what"]: row for row in manifest["estimate"]["truth"]}
    assert {"number of records", "tokens", "complexity", "embed", "train"} <= rows.keys()
    seconds = manifest["stages"]["selections/main/adapter"]["seconds"]
    assert (rows["train"]["true"], rows["train"]["estimated"]) == (seconds, 9.0)
    Path("fourth.estimate.json").write_text("{}")
    perform("score", load_recipe(None, [*words, "run.dir=fourth"]))
    assert Path("fourth.estimate.json").read_text() == "{}"


@pytest.mark.usefixtures("workplace")
def test_a_run_that_goes_on_is_not_disturbed(caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(Path("run"))
    with folder.lock():
        assert keep_estimate(made_up(), load_recipe(None, WORDS), folder) is None
    assert "estimate" not in folder.manifest()
    assert "the estimate was not stored" in caplog.text


@pytest.mark.usefixtures("workplace")
def test_the_command_line_prints_a_table_or_json_and_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", *WORDS]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "80 records: 78 can be scored, 0 of them truncated" in out
    assert "dropped: 1 empty_response, 1 too_long" in out
    assert "1 process 2 processes" in out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines() if line}
    assert lines["number of records"][-3:] == ["80", "80", "1.00"]
    assert lines["dropped: too_long"][-3:] == ["1", "1", "1.00"]
    assert {"complexity", "embed", "select", "train"} <= set(lines)
    assert main(["estimate", *QUICK, "select.method=random", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["dropped"] == {"empty_response": 1, "too_long": 1}
    assert [len(stage["seconds"]) for stage in told["stages"]] == [8, 8, 8]
    assert told["truth"] == []
