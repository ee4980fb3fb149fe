"""The table of a comparison: planted truths are told, noise is not, and no row depends on how cells came."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.compare.cells import ALL, LOSS_OVER_RECORDS, LOSS_OVER_TOKENS, RANDOM, UNTUNED, Cell, Cost, Measurement
from curate.compare.comparison import Comparison
from curate.compare.labels import Label, agreement, kept_shares
from curate.compare.statistics import length_statistics, overlaps, rank_correlations
from curate.compare.table import Row, table_rows
from curate.compare.text_table import difference_tables, summary_tables
from curate.config.proof import SELECTORS
from curate.evaluation.summary import ByRecord, Losses, summarize
from curate.tables.comparison import read_comparison, write_comparison
from curate.tables.evaluation import SetLosses, evaluation_json, read_evaluation, write_evaluation
from curate.tables.json_values import as_json
from curate.types import CurateError, FloatArray

TOKENS = np.random.default_rng(0).integers(1, 60, 120).astype(np.int32)
HARDNESS = np.random.default_rng(1).gamma(2, 1, 120)
COST = Cost(34, 1700, 9000, 63, 12.0, 3.0, 100.0, 20.0)
PLANTED = {"random": 0.0, "noise": 0.0, "truth": -0.2, "worst": 0.3}


def cells(keeps: tuple[str, ...] = ("10%",), seeds: int = 3, *, luck: int = 1) -> list[Measurement]:
    """Cells whose true differences to random are PLANTED, on two sets and one task, and two baselines."""
    rng = np.random.default_rng(luck)
    measured: list[Measurement] = []
    wanted = [(Cell(s, keep, seed), PLANTED[s]) for s in PLANTED for keep in keeps for seed in range(seeds)]
    wanted += [(Cell(UNTUNED, "", 0), 0.8), *((Cell(ALL, "", seed), -0.5) for seed in range(seeds))]
    for cell, shift in wanted:
        cost = Cost() if cell.selector == UNTUNED else COST
        for name in ("held", "other"):
            noise = 0.02 * rng.normal() + 0.1 * rng.normal(size=len(HARDNESS))
            found = Losses(TOKENS, HARDNESS + shift + noise)
            means = summarize(found)
            for metric, value, weights in (
                (LOSS_OVER_RECORDS, means.mean_over_records, np.ones(len(TOKENS))),
                (LOSS_OVER_TOKENS, means.mean_over_tokens, TOKENS.astype(float)),
            ):
                records = ByRecord(found.loss, weights)
                measured.append(Measurement(cell, name, metric, value, means.records, cost=cost, by_record=records))
        accuracy = 0.5 - shift + 0.01 * float(rng.normal())
        measured.append(Measurement(cell, "choice", "acc", accuracy, 200, 0.03, higher_is_better=True, cost=cost))
    return measured


def by_name(rows: list[Row]) -> dict[tuple[str, str, str, str], Row]:
    named = {(row.keep, row.selector, row.set, row.metric): row for row in rows}
    assert len(named) == len(rows)
    return named


def test_a_planted_truth_is_better_a_planted_fault_worse_and_noise_neither() -> None:
    expected = {RANDOM: "reference", "truth": "better", "worst": "worse", UNTUNED: "worse", ALL: "better"}
    taken_for_true = []
    for luck in range(20):
        for row in table_rows(cells(luck=luck), replicates=400):
            if row.selector == "noise":
                taken_for_true.append(row.verdict != "no difference seen")
            else:
                assert row.verdict == expected[row.selector]
    assert len(taken_for_true) == 20 * 5
    assert np.mean(taken_for_true) <= 0.1


def test_a_planted_difference_is_told_with_what_its_interval_covers() -> None:
    rows = by_name(table_rows(cells()))
    assert len(rows) == 6 * 5
    truth = rows["10%", "truth", "other", LOSS_OVER_TOKENS]
    assert truth.difference is not None
    assert truth.difference.value == pytest.approx(-0.2, abs=0.06)
    assert truth.difference.covers == "seeds and records"
    task = rows["10%", "truth", "choice", "acc"].difference
    assert task is not None
    assert (task.covers, task.value) == ("seeds", pytest.approx(0.2, abs=0.03))


def test_a_difference_is_that_of_the_means_in_the_row() -> None:
    rows = by_name(table_rows(cells()))
    for (keep, _, name, metric), row in rows.items():
        if row.difference is not None:
            assert row.difference.value == pytest.approx(row.mean - rows[keep, RANDOM, name, metric].mean)
            assert row.lowest <= row.mean <= row.highest


def test_no_row_depends_on_the_order_of_cells_or_on_other_cells() -> None:
    measured = cells(("10%", "20%"))
    rows = by_name(table_rows(measured, replicates=300))
    shuffled = measured.copy()
    random.Random(0).shuffle(shuffled)
    assert by_name(table_rows(shuffled, replicates=300)) == rows
    few = [m for m in measured if m.cell.selector in (RANDOM, "truth") and m.cell.keep == "20%"]
    assert by_name(table_rows(few, replicates=300)) == {
        name: row for name, row in rows.items() if name[0] == "20%" and name[1] in (RANDOM, "truth")
    }


def test_baselines_stand_beside_every_keep_and_cost_what_they_cost() -> None:
    rows = by_name(table_rows(cells(("10%", "20%"))))
    for keep in ("10%", "20%"):
        untuned = rows[keep, UNTUNED, "held", LOSS_OVER_RECORDS]
        assert (untuned.seeds, untuned.kept_tokens, untuned.steps, untuned.seconds) == (1, None, None, None)
        assert untuned.difference is not None
        assert untuned.difference.covers == "seeds and records"  # it has no seed, and random has three
        assert rows[keep, "truth", "held", LOSS_OVER_RECORDS].seconds == 115.0
        assert rows[keep, "truth", "held", LOSS_OVER_RECORDS].kept_tokens == 1700


def test_without_random_nothing_is_compared() -> None:
    measured = cells()
    rows = table_rows([m for m in measured if m.cell.selector != RANDOM])
    assert {row.verdict for row in rows} == {"not compared"}
    assert {row.difference for row in rows} == {None}
    assert "+" not in "".join(note for table in summary_tables(rows) for note in table.notes)


@pytest.mark.parametrize("reference", ["truth", ALL, UNTUNED])
def test_any_selector_or_baseline_may_be_the_reference(reference: str) -> None:
    measured = cells(("10%", "20%"))
    to_random = by_name(table_rows(measured))
    rows = by_name(table_rows(measured, reference=reference))
    for (keep, selector, name, metric), row in rows.items():
        other = rows[keep, reference, name, metric]
        if selector == reference:
            assert (row.difference, row.verdict) == (None, "reference")
            continue
        assert row.difference is not None
        assert row.difference.value == pytest.approx(row.mean - other.mean)
        assert row.difference.covers == ("seeds" if name == "choice" else "seeds and records")
        if selector == RANDOM:
            back = to_random[keep, reference, name, metric]
            assert back.difference is not None
            assert row.difference.value == pytest.approx(-back.difference.value)
            swapped = {"better": "worse", "worse": "better", "no difference seen": "no difference seen"}
            assert row.verdict == swapped[back.verdict]
    tables = difference_tables(list(rows.values()))
    assert {table.header[2] for table in tables} == {f"to {reference}"}
    assert all(len(table.rows) == 5 for table in tables)
    notes = [note for table in summary_tables(list(rows.values())) for note in table.notes if note.startswith("to ")]
    assert {note.split(",")[0] for note in notes} == {f"to {reference}{' of the same size' * (reference == 'truth')}"}


def test_one_seed_is_said_to_cover_the_records_only_and_a_task_goes_by_its_standard_errors() -> None:
    measured = cells(seeds=1)
    rows = by_name(table_rows(measured))
    truth = rows["10%", "truth", "held", LOSS_OVER_RECORDS]
    assert truth.difference is not None
    assert (truth.verdict, truth.difference.covers) == ("better", "records")
    task, random = rows["10%", "truth", "choice", "acc"], rows["10%", RANDOM, "choice", "acc"]
    assert task.difference is not None
    half = 1.959964 * (0.03**2 + 0.03**2) ** 0.5
    ends = (task.mean - random.mean - half, task.mean - random.mean + half)
    assert (task.difference.low, task.difference.high) == pytest.approx(ends)
    assert (task.verdict, task.difference.covers, task.difference.records) == ("better", "records", 200)
    without = [replace(m, stderr=None) if m.cell.selector == RANDOM else m for m in measured]
    assert by_name(table_rows(without))["10%", "truth", "choice", "acc"].verdict == "not compared"
    notes = [note for table in summary_tables(list(rows.values())) for note in table.notes]
    assert notes[-1] == "where a selector or random has one seed, its interval covers the records only, not the draw"


def answers(selector: str, seed: int, values: FloatArray, weights: FloatArray) -> Measurement:
    value = float(np.average(values, weights=weights))
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    found = ByRecord(values, weights)
    return Measurement(Cell(selector, "10%", seed), "quiz", "acc", value, len(values), error, True, COST, found)


@pytest.mark.parametrize("seeds", [1, 2])
def test_answers_of_a_task_are_compared_example_by_example(seeds: int) -> None:
    """The same 400 questions, of which the truth answers 20 more: paired it shows, by standard errors it does not."""
    draw, ones = np.random.default_rng(0), np.ones(400)
    known = draw.random(400) < 0.5
    more = known.copy()
    more[np.flatnonzero(~known)[:20]] = True
    measured = []
    for seed in range(seeds):
        measured += [answers(RANDOM, seed, known * 1.0, ones), answers("truth", seed, more * 1.0, ones)]
    found = by_name(table_rows(measured))["10%", "truth", "quiz", "acc"]
    assert found.difference is not None
    assert (found.difference.value, found.difference.records) == (pytest.approx(20 / 400), 400)
    assert (found.verdict, found.difference.covers) == ("better", "seeds and records" if seeds > 1 else "records")
    half = 1.96 * (0.05 * 0.95 / 400) ** 0.5  # of the mean of differences that are 1 with probability .05, else 0
    assert found.difference.low == pytest.approx(0.05 - half, abs=0.004)
    assert found.difference.high == pytest.approx(0.05 + half, abs=0.004)
    if seeds == 1:
        unpaired = by_name(table_rows([replace(m, by_record=None) for m in measured]))["10%", "truth", "quiz", "acc"]
        assert unpaired.verdict == "no difference seen"


def test_an_interval_of_right_and_wrong_answers_ends_at_whole_numbers_of_answers() -> None:
    """So that one that ends at zero holds zero, whatever the order of a sum."""
    ends = []
    for luck in range(20):
        right = np.random.default_rng(luck).random((2, 540)) < [[0.15], [0.18]]
        measured = [
            answers(name, 0, own * 1.0, np.ones(540)) for name, own in zip((RANDOM, "truth"), right, strict=True)
        ]
        difference = by_name(table_rows(measured))["10%", "truth", "quiz", "acc"].difference
        assert difference is not None
        ends += [difference.low, difference.high]
    whole = [(end, round(end * 540) / 540) for end in ends if end is not None]
    near = [(end, exact) for end, exact in whole if abs(end - exact) < 1e-9]  # others lie between two of them
    assert len(near) > 30
    assert all(end == exact for end, exact in near)


def test_an_example_counts_by_its_parts_and_another_number_of_examples_is_compared_by_standard_errors() -> None:
    """IFEval's instructions: a prompt with three of them counts three times."""
    weights = np.array([1.0, 3.0, 2.0, 2.0] * 30)
    low, high = np.array([0.0, 1 / 3, 0.5, 1.0] * 30), np.array([1.0, 2 / 3, 0.5, 1.0] * 30)
    measured = [answers(RANDOM, 0, low, weights), answers("truth", 0, high, weights)]
    found = by_name(table_rows(measured))["10%", "truth", "quiz", "acc"]
    assert found.difference is not None
    assert found.difference.value == pytest.approx((1 * 1 + 3 / 3) / 8)
    fewer = [measured[0], answers("truth", 0, high[:80], weights[:80])]
    changed = by_name(table_rows(fewer))["10%", "truth", "quiz", "acc"].difference
    assert changed is not None
    errors = [m.stderr for m in fewer if m.stderr is not None]
    assert changed.high == pytest.approx(changed.value + 1.959964 * float(np.hypot(*errors)))


def test_the_summary_has_a_line_per_selector_and_a_mark_behind_each_mean() -> None:
    rows = table_rows(cells(("10%", "20%")))
    tables = summary_tables(rows)
    what = ("loss over records", "loss over tokens", "tasks", "cost")
    assert [table.title for table in tables] == [f"kept: {keep}, {name}" for keep in ("10%", "20%") for name in what]
    headers = [("held", "other")] * 2 + [("choice acc",), ("tokens kept", "steps", "tokens seen", "seconds")]
    assert [table.header for table in tables[:4]] == [("selector", *header) for header in headers]
    over_records, over_tokens, tasks, cost = ({line[0]: line[1:] for line in table.rows} for table in tables[:4])
    means = by_name(rows)
    for found, metric in ((over_records, LOSS_OVER_RECORDS), (over_tokens, LOSS_OVER_TOKENS)):
        assert set(found) == {*PLANTED, UNTUNED, ALL}
        assert found["truth"][0] == f"{means['10%', 'truth', 'held', metric].mean:.4f} +"
        assert found["noise"][0].endswith(" =")
        assert found["worst"][0].endswith(" -")
        assert found[RANDOM][0].endswith("  ")
    assert tasks["truth"][0].startswith(f"{means['10%', 'truth', 'choice', 'acc'].mean:.4f} ")
    assert cost["truth"] == ("1,700", "63", "9,000", "115")
    assert cost[UNTUNED] == ("", "", "", "")
    assert all(len(line) == len(table.header) for table in tables for line in table.rows)
    assert tables[2].notes[2] == "of 25 comparisons, 1.3 differ by chance alone"
    width = max(len(cell) for line in tables[0].rows for cell in line[1:])
    assert max(map(len, SELECTORS)) + 6 * (2 + width) <= 80, "as printed, for every built-in selector and six sets"


def test_the_long_table_tells_every_difference_with_its_interval() -> None:
    rows = table_rows(cells())
    tables = difference_tables(rows)
    assert sum(len(table.rows) for table in tables) == 5 * 5
    table = next(table for table in tables if table.title == "kept: 10%, held, over records")
    line = next(line for line in table.rows if line[0] == "worst")
    assert line[1] == "3"
    assert line[2].startswith("+0.")
    assert line[4] == "worse"
    assert table.notes == ("intervals cover seeds and records",)
    columns = zip(*(cells for table in tables for cells in (table.header, *table.rows)), strict=True)
    _, *others = (max(map(len, column)) for column in columns)
    assert max(map(len, SELECTORS)) + sum(2 + width for width in others) <= 80, (
        "as printed, for every built-in selector"
    )


def test_comparison_parquet_gives_back_every_measurement(tmp_path: Path) -> None:
    measured = cells()
    write_comparison(tmp_path / "comparison.parquet", measured)
    assert read_comparison(tmp_path / "comparison.parquet") == measured
    table = pq.read_table(tmp_path / "comparison.parquet")
    assert table.num_rows == len(measured)
    untuned = table.to_pylist()[[m.cell.selector for m in measured].index(UNTUNED)]
    assert (untuned["training_seconds"], untuned["stderr"]) == (None, None)


def test_a_comparison_is_json_without_numbers_that_json_lacks() -> None:
    measured = cells()
    kept = {"random": np.arange(40) < 10, "truth": np.arange(40) % 3 == 0, "none": np.zeros(40, bool)}
    label = Label("good", "binary", np.arange(40.0) % 2)
    comparison = Comparison(
        tuple(table_rows(measured, replicates=100)),
        {"10%": overlaps(kept)},
        {"10%": {name: length_statistics(np.arange(40), some) for name, some in kept.items()}},
        rank_correlations({"a": np.arange(5.0), "flat": np.ones(5)}),
        {"a": (agreement(label, np.arange(40.0), np.arange(40), order="lowest"),)},
        {"random": {"good": tuple(kept_shares(label, kept["random"]))}},
        {"level": 0.95},
    )
    text = json.dumps(as_json(comparison), allow_nan=False)
    found = json.loads(text)
    assert found["overlaps"]["10%"]["count"] == overlaps(kept).count.tolist()
    assert found["lengths"]["10%"]["none"]["mean"] is None
    assert found["rank_correlations"]["rho"][0] == [pytest.approx(1), None]
    assert found["rows"][0]["difference"] is None
    assert {row["verdict"] for row in found["rows"]} == {"better", "worse", "reference", "no difference seen"}


def test_evaluation_parquet_gives_back_every_loss_and_its_json_both_means(tmp_path: Path) -> None:
    losses = Losses(np.array([2, 0, 6], np.int32), np.array([1.0, np.nan, 3.0]))
    results = [
        SetLosses("untuned", "held", losses),
        SetLosses("untuned", "a/ä", Losses(TOKENS, HARDNESS)),
        SetLosses("adapter", "held", replace(losses, loss=losses.loss - 0.5)),
    ]
    write_evaluation(tmp_path / "evaluation.parquet", results)
    back = read_evaluation(tmp_path / "evaluation.parquet")
    assert [(found.model, found.set) for found in back] == [(result.model, result.set) for result in results]
    for found, result in zip(back, results, strict=True):
        np.testing.assert_array_equal(found.losses.loss, result.losses.loss)
        np.testing.assert_array_equal(found.losses.tokens, result.losses.tokens)
    table = pq.read_table(tmp_path / "evaluation.parquet")
    assert table.column_names == ["model", "set", "row", "tokens", "loss"]
    assert table["loss"].null_count == 2
    written = json.loads(json.dumps(evaluation_json(results, about={"seconds": 1.5}), allow_nan=False))
    assert written["sets"]["held"]["adapter"] == {
        "records": 2,
        "dropped": 1,
        "tokens": 8,
        "mean_over_records": 1.5,
        "mean_over_tokens": 2.0,
    }
    assert (written["seconds"], written["tasks"], written["judge"]) == (1.5, [], None)


def test_a_set_without_losses_has_no_json() -> None:
    nothing = SetLosses("untuned", "held", Losses(np.zeros(2, np.int32), np.full(2, np.nan)))
    with pytest.raises(CurateError, match="got none in 2 records"):
        evaluation_json([nothing])
