"""Evaluating and comparing: cells done once, the same table after any interruption, planted truths found."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import WORDS, alpaca_records, write_json_array

from curate.cli import main
from curate.compare.selectors import BUILT_IN, LENGTHS_OF, settings_of
from curate.config import load_recipe
from curate.config.proof import SELECTORS
from curate.pipeline import perform
from curate.pipeline.adapter import WEIGHTS
from curate.pipeline.plan_cells import planned_cells
from curate.types import CurateError

RUN = Path("run")
COMPARE = (
    "data.holdout=12",
    "compare.selectors=[random, clusters, longest]",
    "compare.seeds=2",
    "compare.keep=[8]",
    "run.dir=compared",
)
pytestmark = pytest.mark.usefixtures("workplace")


def compare(*words: str) -> dict[str, Any]:
    recipe = load_recipe(None, [*WORDS, *COMPARE, *words])
    perform("compare", recipe)
    return json.loads(Path(recipe.run.dir, "comparison.json").read_text())  # type: ignore[no-any-return]


def cell_times() -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("compared/comparison").glob("*/cell.json")}


def without_seconds(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in comparison["rows"]]


def test_every_named_selector_is_built_in_and_stands_for_settings_that_are_valid() -> None:
    assert set(SELECTORS) == {*BUILT_IN, "last_exit"}
    assert set(LENGTHS_OF) <= set(BUILT_IN)
    assert settings_of("last_exit", num_layers=4)["exits"] == (4,)
    recipe = load_recipe(None, [f"compare.selectors=[{', '.join(SELECTORS)}]", "compare.seeds=[5, 7]"])
    cells = planned_cells(recipe, num_layers=4)
    assert len({cell.name for cell in cells}) == len(cells) == 2 * (len(SELECTORS) + 1)
    assert [cell.cell.seed for cell in cells] == sorted(cell.cell.seed for cell in cells)


def test_a_selector_with_a_bad_setting_is_named() -> None:
    with pytest.raises(CurateError, match=r"compare\.selectors: mine: select\.method"):
        compare("compare.selectors=[{name: mine, select: {method: best}}]")


@pytest.mark.parametrize(
    ("selectors", "message"),
    [
        ("random_same_lengths", "random_same_lengths keeps the lengths of clusters: expected clusters beside it"),
        (
            "clusters, random_same_lengths, {name: mine, select: {method: random}, lengths_of: random_same_lengths}",
            "mine keeps the lengths of random_same_lengths, and that those of clusters: expected clusters",
        ),
        (
            "clusters, {name: mine, select: {method: random, groups: {field: source}}, lengths_of: clusters}",
            r"mine: expected lengths_of or select\.groups, got both",
        ),
    ],
)
def test_a_selector_that_follows_the_lengths_of_nobody_is_refused(selectors: str, message: str) -> None:
    recipe = load_recipe(None, [f"compare.selectors=[{selectors}]"])
    with pytest.raises(CurateError, match=message):
        planned_cells(recipe, num_layers=4)


def test_records_drawn_with_the_lengths_of_another_selector_are_as_long_and_are_others() -> None:
    chosen = "compare.selectors=[random_same_lengths, longest, clusters, {name: as_long, lengths_of: longest, select: "
    table = compare(chosen + "{method: random}}]", "compare.seeds=1", "compare.baselines=[]", "train.max_steps=1")
    lengths = table["lengths"]["8"]
    assert lengths["random_same_lengths"] == lengths["clusters"] != lengths["longest"] == lengths["as_long"]
    overlaps = table["overlaps"]["8"]
    place = {name: i for i, name in enumerate(overlaps["names"])}
    assert overlaps["count"][place["random_same_lengths"]][place["clusters"]] < 8


def test_a_comparison_has_a_row_for_every_selector_set_and_mean_and_is_done_once() -> None:
    table = compare()
    found = {(row["selector"], row["set"], row["metric"]) for row in table["rows"]}
    selectors, metrics = ("random", "clusters", "longest", "untuned", "all"), ("loss_over_records", "loss_over_tokens")
    assert found == {(s, "holdout", m) for s in selectors for m in metrics}
    assert table["overlaps"]["8"]["count"][0][0] == 8
    assert [r["steps"] for r in pq.read_table("compared/comparison.parquet").to_pylist()][:2] == [2, 2]
    times = cell_times()
    assert len(times) == 2 * 4
    again = compare()
    assert cell_times() == times
    assert without_seconds(again) == without_seconds(table)


def test_from_the_second_cell_on_it_is_told_how_long_the_others_will_take(caplog: pytest.LogCaptureFixture) -> None:
    selectors = ("random", "longest", "hard")

    def told(*words: str) -> list[bool]:
        """Of every cell of a call, whether a time was told."""
        caplog.clear()
        with caplog.at_level("INFO"):
            compare(*words, "compare.seeds=1", "compare.baselines=[]")
        lines = [message for message in caplog.messages if message.startswith("cell ")]
        names = [line.partition(": ")[2].partition(",")[0] for line in lines]
        assert names == [f"{selector}-8-seed0" for selector in selectors[: len(lines)]]
        time_left = re.compile(r", (about [\d.]+ (min|h)|less than a minute) left$")
        return [time_left.search(line) is not None for line in lines]

    assert told("compare.selectors=[random, longest]", "train.max_steps=1") == [False, True]
    some = f"compare.selectors=[{', '.join(selectors)}]"
    assert told(some, "train.max_steps=1") == [False] * 3, "two are finished, and the third is the first of this call"
    assert told(some, "train.max_steps=2") == [False, True, True], "cells of other settings are not finished"


def test_another_reference_needs_no_new_training() -> None:
    rows = compare("train.max_steps=1")["rows"]
    times = cell_times()
    to_all = compare("train.max_steps=1", "compare.reference=all")["rows"]
    assert cell_times() == times
    assert {row["selector"] for row in to_all if row["verdict"] == "reference"} == {"all"}
    for row in to_all:
        if row["selector"] == "random":
            (back,) = (r["difference"] for r in rows if (r["selector"], r["metric"]) == ("all", row["metric"]))
            assert row["difference"]["value"] == pytest.approx(-back["value"])


def test_cells_are_added_later_without_doing_others_again() -> None:
    compare("compare.seeds=1", "compare.selectors=[random]", "compare.baselines=[]")
    times = cell_times()
    compare("compare.seeds=2", "compare.selectors=[random, hard]", "compare.baselines=[]")
    after = cell_times()
    assert len(after) == 4
    assert {name: after[name] for name in times} == times


@pytest.mark.parametrize("damage", ["{", "[]", '{"key": 1}', {"key": "x"}, {"cost": {"steps": []}}, {"tasks": [{}]}])
def test_a_cell_that_was_lost_is_done_again_to_the_same_numbers(damage: str | dict[str, Any]) -> None:
    first = compare("compare.baselines=[]")
    cell = Path("compared/comparison/clusters-8-seed1")
    before = pq.read_table(cell / "evaluation.parquet")
    about = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(damage if isinstance(damage, str) else json.dumps(about | damage))
    assert without_seconds(compare("compare.baselines=[]")) == without_seconds(first)
    assert pq.read_table(cell / "evaluation.parquet").equals(before)


def test_losses_of_the_untuned_model_that_were_lost_are_computed_again() -> None:
    words = ("compare.selectors=[random]", "compare.seeds=1", "compare.baselines=[untuned]", "train.max_steps=1")
    first = compare(*words)
    (path,) = Path("compared/work/untuned").glob("*.npz")
    whole = path.read_bytes()
    array, fewer = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.savez(fewer, tokens=np.ones(3, np.int32), loss=np.ones(3))
    for damaged in (b"", b"PK", whole[:-200], whole[:99] + b"?" + whole[100:], array.getvalue(), fewer.getvalue()):
        path.write_bytes(damaged)
        assert without_seconds(compare(*words)) == without_seconds(first)
        assert path.read_bytes() != damaged


@pytest.mark.parametrize("damaged", [False, True])
def test_a_set_that_is_added_later_is_evaluated_with_the_kept_adapters(
    damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """To the numbers of a comparison that had it from the beginning; an adapter that was changed is trained again."""
    words = ("compare.baselines=[]", "compare.selectors=[random]", "compare.seeds=1", "compare.keep_adapters=true")
    write_json_array(Path("more.json"), alpaca_records(20, seed=1)[:9])
    more = "evaluate.sets=[{name: more, path: more.json, split: test}]"
    cell = Path("compared/comparison/random-8-seed0")
    compare(*words)
    about, weights = json.loads((cell / "cell.json").read_text()), cell / "adapter" / WEIGHTS
    trained = weights.read_bytes()
    about["cost"]["training_seconds"] = 12_345.6  # stays as long as the cell is not trained again
    (cell / "cell.json").write_text(json.dumps(about))
    if damaged:
        weights.write_bytes(trained[:-4] + bytes(4))
    with_more = compare(*words, more)
    assert caplog.messages.count("split=test is not used: all of more.json is read") == 1
    cost = json.loads((cell / "cell.json").read_text())["cost"]
    assert (cost["training_seconds"] == 12_345.6) is not damaged
    assert weights.read_bytes() == trained
    assert {row["set"] for row in with_more["rows"]} == {"holdout", "more"}
    assert without_seconds(compare(*words, more, "run.dir=from_the_beginning")) == without_seconds(with_more)


@pytest.mark.parametrize("verb", ["run", "compare"])
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluate.sets=[{name: mine, path: nowhere.json}]", r"nowhere\.json"),
        ("evaluate.sets=[{name: mine, path: broken.jsonl}]", r"broken\.jsonl"),
        ("evaluate.tasks=[no_such_task]", r"evaluate\.tasks"),
        ("evaluate.judge={base_url: nowhere, model: m}", r"judge\.base_url"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_scored(verb: Any, word: str, message: str) -> None:
    Path("broken.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n{"instruction": \n')
    with pytest.raises(CurateError, match=message):
        perform(verb, load_recipe(None, [*WORDS, *COMPARE, word, "run.dir=new"]))
    assert not Path("new/scores.parquet").exists()


@pytest.mark.parametrize("left", ["", '{"seed": 1', "[]", '{"seed": 7}'])
def test_the_unfinished_work_of_another_cell_or_of_none_is_begun_anew(left: str) -> None:
    words = ("compare.baselines=[]", "compare.selectors=[random]", "compare.seeds=1")
    first = compare(*words)
    (cell,) = Path("compared/comparison").glob("*/cell.json")
    cell.unlink()
    work = Path("compared/work") / f"cell-{cell.parent.name}"
    (work / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (work / "key.json").write_text(left)
    assert without_seconds(compare(*words)) == without_seconds(first)
    assert not work.exists()


def test_a_comparison_in_a_finished_run_leaves_the_run_s_own_recipe() -> None:
    """What it holds out would make `curate run RUN/recipe.yaml` select and train anew."""
    recipe, adapter = RUN / "recipe.yaml", RUN / "selections/main/adapter/adapter_model.safetensors"
    before = recipe.read_bytes(), adapter.stat().st_mtime_ns
    words = (
        "data.holdout=12",
        "compare.selectors=[random]",
        "compare.keep=[8]",
        "compare.seeds=1",
        "train.max_steps=1",
    )
    assert main(["compare", "run/recipe.yaml", *words, "compare.baselines=[]"]) == 0
    table = json.loads((RUN / "comparison.json").read_text())
    assert main(["run", "run/recipe.yaml"]) == 0
    assert (recipe.read_bytes(), adapter.stat().st_mtime_ns) == before
    own = load_recipe(RUN / "comparison.yaml")
    assert (own.data.holdout, own.run.dir, own.compare.keep) == (12, "run", (8,))
    assert main(["compare", "run.dir=run"]) == 0, "the comparison's recipe, and all its cells are done"
    assert without_seconds(json.loads((RUN / "comparison.json").read_text())) == without_seconds(table)


@pytest.mark.parametrize("budget", ["steps", "epochs", "tokens"])
def test_a_budget_is_the_same_for_every_cell(budget: str) -> None:
    compare(f"compare.budget={budget}", "compare.seeds=1", "train.max_steps=6", "train.epochs=1")
    rows = pq.read_table("compared/comparison.parquet").to_pylist()
    cells = {row["selector"]: row for row in rows if row["selector"] != "untuned"}
    steps = {name: row["steps"] for name, row in cells.items()}
    if budget == "steps":
        assert set(steps.values()) == {6}
    elif budget == "epochs":
        assert steps["random"] == 1
        assert steps["all"] > steps["random"]
    else:
        assert steps["longest"] < steps["random"]
        seen = [row["seen_tokens"] for row in cells.values()]
        assert max(seen) - min(seen) <= 16 * 16  # a step is 16 records of at most so many tokens


def test_labels_are_held_against_every_score_with_length_beside() -> None:
    records = [{**record, "good": len(record["output"]) > 30} for record in alpaca_records()]
    write_json_array(Path("alpaca.json"), records)
    table = compare("compare.labels=[good]", "compare.seeds=1", "compare.baselines=[]")
    (agreement,) = table["agreements"]["response_tokens"]
    assert agreement["auc"] < 0.2  # long answers are good here, and the shortest come first
    assert agreement["length_auc"] == pytest.approx(1 - agreement["auc"], abs=0.05)


def test_an_adapter_is_evaluated_beside_the_untuned_model() -> None:
    words = [
        *WORDS,
        "data.holdout=10",
        "run.dir=evaluated",
        "evaluate.sets=[{name: same, path: alpaca.json, limit: 9}]",
    ]
    perform("run", load_recipe(None, words))
    told = json.loads(Path("evaluated/selections/main/evaluation.json").read_text())
    assert {name: set(of) for name, of in told["sets"].items()} == {
        "holdout": {"untuned", "adapter"},
        "same": {"untuned", "adapter"},
    }
    table = pq.read_table("evaluated/selections/main/evaluation.parquet").to_pandas()
    scores = pq.read_table("evaluated/scores.parquet").to_pandas()
    same = table[(table["set"] == "same") & (table["model"] == "untuned")].set_index("row")
    for row in range(9):  # the loss of the untuned model is the last exit's log-probability, as it was scored
        if scores["status"][row] == "scored":
            assert -same["loss"][row] == pytest.approx(scores["log_prob"][row][-1], rel=1e-5)
    written = Path("evaluated/selections/main/evaluation.json").stat().st_mtime_ns
    perform("run", load_recipe(None, words))
    assert Path("evaluated/selections/main/evaluation.json").stat().st_mtime_ns == written


def test_nothing_to_evaluate_on_is_refused_with_what_to_set() -> None:
    with pytest.raises(CurateError, match=r"set data\.holdout, or evaluate\.sets"):
        perform("evaluate", load_recipe(None, [*WORDS]))
    with pytest.raises(CurateError, match="holds no adapter of 'other' yet"):
        perform("evaluate", load_recipe(None, [*WORDS, "select.name=other", "data.holdout=5"]))


def test_a_planted_truth_wins_and_noise_ranks_with_random() -> None:
    """Half of the records answer in words that the references use; a score that knows that teaches more."""
    rng = np.random.default_rng(0)
    records = alpaca_records(240)
    useful = rng.random(240) < 0.5
    for record, good in zip(records, useful, strict=True):
        record["output"] = "red red red red red red" if good else "why why seven seven of of"
    write_json_array(Path("alpaca.json"), records)
    write_json_array(Path("refs.json"), [{**record, "output": "red red red red"} for record in alpaca_records(20, 9)])
    noise = rng.permutation(240)
    lines = [f"{row},{int(useful[row])},{noise[row]}" for row in range(240)]
    Path("own.csv").write_text("row,truth,noise\n" + "\n".join(lines) + "\n")
    selectors = "{name: %s, select: {method: top, by: %s, order: highest}}"
    table = compare(
        "data.holdout=0",
        "evaluate.sets=[{name: refs, path: refs.json}]",
        "score.columns=own.csv",
        f"compare.selectors=[random, {selectors % ('truth', 'truth')}, {selectors % ('noise', 'noise')}]",
        "compare.keep=[48]",
        "compare.seeds=3",
        "compare.baselines=[]",
        "select.duplicates=keep",
        "train.max_steps=12",
        "train.rank=8",
        "train.learning_rate=3e-3",
    )
    rows = {row["selector"]: row for row in table["rows"] if row["metric"] == "loss_over_records"}
    assert rows["truth"]["verdict"] == "better"
    # Noise is one draw: how many useful records it happens to keep is its own, small, difference.
    assert abs(rows["noise"]["difference"]["value"]) < 0.3 * abs(rows["truth"]["difference"]["value"])
