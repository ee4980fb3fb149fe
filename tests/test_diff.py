"""Two selections side by side: counted by hand, the same from both sides, and hostile text shown as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_run import HOSTILE, Elements, texts, write_run

from curate.report.diff import SelectionDiff, diff, diff_html, diff_text
from curate.report.run_table import read_run
from curate.types import CurateError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("diff") / "run", groups=True)


@pytest.fixture(scope="module")
def result(folder: Path) -> SelectionDiff:
    return diff(folder, "main", "other", texts(60))


def test_overlap_is_counted(folder: Path, result: SelectionDiff) -> None:
    a, b = (set(np.flatnonzero(read_run(folder, name).kept).tolist()) for name in ("main", "other"))
    assert (result.records, result.kept_a, result.kept_b) == (60, len(a), len(b)) == (60, 4, 6)
    assert result.both == len(a & b)
    assert result.jaccard == pytest.approx(len(a & b) / len(a | b))
    assert result.by_chance == pytest.approx(4 * 6 / 60)
    assert {record.row for record in result.only_a} == a - b
    assert {record.row for record in result.only_b} <= b - a


def test_from_the_other_side_it_is_the_same(folder: Path, result: SelectionDiff) -> None:
    other = diff(folder, "other", "main", texts(60))
    assert (other.only_a, other.only_b) == (result.only_b, result.only_a)
    assert (other.both, other.jaccard) == (result.both, result.jaccard)
    assert [(c.name, c.b, c.a) for c in other.clusters] == [(c.name, c.a, c.b) for c in result.clusters]
    assert [(s.name, s.mean_b) for s in other.spreads] == [(s.name, s.mean_a) for s in result.spreads]


def test_clusters_groups_and_quantiles_are_of_what_each_keeps(folder: Path, result: SelectionDiff) -> None:
    a, b = read_run(folder, "main"), read_run(folder, "other")
    for rows in (result.clusters, result.groups):
        assert sum(row.a for row in rows) == 4
        assert sum(row.b for row in rows) == 6
        differences = [abs(row.a - row.b) for row in rows]
        assert differences == sorted(differences, reverse=True)
    lengths = next(row for row in result.spreads if row.name == "response tokens")
    assert lengths.mean_a == pytest.approx(a.response_tokens[a.kept].mean())
    assert lengths.quantiles_b[2] == pytest.approx(np.median(b.response_tokens[b.kept]))


def test_a_record_says_why_the_other_leaves_it(folder: Path, result: SelectionDiff) -> None:
    a = read_run(folder, "main")
    for record in result.only_b:
        assert record.other_reason == "outranked"
        assert not a.kept[record.row]
        assert record.turns == tuple((turn.role, turn.content) for turn in texts(60)[record.row].turns)
    assert [record.rank for record in result.only_b] == sorted(record.rank or 0 for record in result.only_b)


def test_so_many_texts_as_asked_for(folder: Path) -> None:
    found = diff(folder, "other", "main", texts(60), texts=1)
    assert (len(found.only_a), len(found.only_b)) == (1, min(1, found.kept_b - found.both))


def test_the_same_selection_twice_is_a_mistake(folder: Path) -> None:
    with pytest.raises(CurateError, match="expected two selections, got main twice"):
        diff(folder, "main", "main", texts(60))


def test_the_terminal_shows_numbers_and_texts(result: SelectionDiff) -> None:
    text = diff_text(result)
    assert text.startswith("main keeps 4, other keeps 6 of 60 records\nboth keep ")
    assert f"only other keeps {6 - result.both}; the first " in text
    for record in result.only_b:
        assert f"record {record.row}: rank {record.rank}, score " in text


def test_hostile_texts_and_names_are_text_on_terminal_and_page(result: SelectionDiff) -> None:
    evil = replace(
        result.only_b[0], turns=tuple(("user", text) for text in HOSTILE), cluster="<b>\x1b", other_reason="<i>"
    )
    changed = replace(result, name_a="<u>\x1b[31m", only_b=(evil,))
    assert "\x1b" not in diff_text(changed)
    elements = Elements(diff_html(changed))
    assert not {"script", "img", "b", "i", "u"} & {tag for tag, _ in elements.tags}
    assert HOSTILE[0] in elements.words


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_text_fits_a_terminal(result: SelectionDiff, width: int) -> None:
    long = replace(result.only_b[0], turns=(("user", "many words " * 50), ("assistant", "<b>" * 900)))
    clusters = tuple(replace(count, name="name of a group " * 9) for count in result.clusters)
    text = diff_text(replace(result, only_b=(long,), clusters=clusters), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "median" in text
    assert ("p25" in text) == (width >= 80), "a narrow terminal has room for fewer columns"


def test_small_expectations_and_no_difference_are_written_as_they_are(result: SelectionDiff) -> None:
    assert "by chance 0.4" in diff_text(result)
    assert "by chance 0.4" in diff_html(result)
    assert "+0" not in diff_text(result) + diff_html(result)
