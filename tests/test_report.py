"""The report: one file that fetches nothing, holds what it says it holds, and shows text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_run import EXITS, HOSTILE, LAYERS, Elements, texts, write_run

from curate.pipeline.pages import write_report
from curate.report import chart_data, figures, pages, records, summary
from curate.report import report as report_module
from curate.report.names import cluster_names
from curate.report.projection import project
from curate.report.report import MAX_BYTES, report
from curate.report.run_table import Labels, RunTable, read_run
from curate.report.vega import vega_script
from curate.report.visible import visible
from curate.runs.folder import RunFolder
from curate.types import CurateError, Example


def unpacked(data: str) -> str:
    return zlib.decompress(base64.b64decode(data)).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run", groups=True)


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    pytest.importorskip("vl_convert", reason="needs the extra `report`")
    return report(folder, "main", texts(60))


@pytest.fixture(scope="module")
def table(folder: Path) -> RunTable:
    return read_run(folder, "main")


def test_nothing_in_the_page_can_fetch(page: str) -> None:
    elements = Elements(page)
    loading = {"src", "srcset", "href", "data", "action", "formaction", "poster", "background", "xlink:href", "ping"}
    checked = 0
    for tag, attributes in elements.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img", "video", "audio", "source", "frame"}
        for name, value in attributes.items():
            checked += 1
            assert not name.startswith("on"), (tag, name)
            assert name not in loading or (value or "").startswith("#"), (tag, name, value)
            assert "url(" not in (value or "")
    styles = "".join(data for tag, _, data in elements.inside if tag == "style")
    assert "url(" not in styles
    assert "@import" not in styles
    assert len(styles) > 3_000
    assert checked > 100


def test_the_policy_allows_the_page_s_own_scripts_and_no_others(page: str) -> None:
    elements = Elements(page)
    policy = next(a["content"] for tag, a in elements.tags if tag == "meta" and "Content-Security" in str(a))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    scripts = [data for tag, attributes, data in elements.inside if tag == "script" and not attributes.get("type")]
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts}
    assert len(hashes) == 2
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert re.search(r"script-src ([^;]+)", policy)[1].count("'") == 4  # type: ignore[index]


def test_no_record_text_becomes_an_element(page: str, tmp_path: Path) -> None:
    """The page has the same elements as one whose texts are harmless."""
    harmless = [Example(e.row, e.id, e.turns[1:], problem="bad" if e.problem else None) for e in texts(60)]
    run = write_run(tmp_path / "run", groups=True)
    tags = [Counter(tag for tag, _ in Elements(html).tags) for html in (page, report(run, "main", harmless))]
    assert tags[0] == tags[1]
    assert tags[0]["script"] == 6


def test_texts_come_out_of_the_page_as_they_went_in(page: str) -> None:
    lines = [json.loads(line) for line in unpacked(Elements(page).script("texts")).splitlines()]
    found = dict(lines)
    assert len(found) == 60
    for example in texts(60)[:-1]:
        assert found[example.row] == [[turn.role, turn.content] for turn in example.turns]
    assert found[59] == [["problem", "data.json:9: not JSON: <b>"]]
    assert found[1][0][1] == HOSTILE[1]


def test_columns_come_out_of_the_page_as_they_stand_in_the_files(page: str, folder: Path) -> None:
    columns = json.loads(unpacked(Elements(page).script("columns")))
    about = json.loads(Elements(page).script("about"))
    chosen = pq.read_table(folder / "selections/main/selection.parquet").to_pydict()
    scores = pq.read_table(folder / "scores.parquet").to_pydict()
    assert columns["row"] == scores["row"]
    assert [bool(k) for k in columns["kept"]] == chosen["kept"]
    assert [about["reasons"][code]["name"] for code in columns["reason"]] == chosen["reason"]
    assert [about["groups"][code] for code in columns["group"]] == chosen["group"]
    assert [None if r < 0 else r for r in columns["rank"]] == chosen["rank"]
    assert columns["score"][:-1] == pytest.approx(scores["complexity"][:-1], abs=5e-5)
    assert columns["score"][-1] is None


def test_the_page_names_no_folder_of_this_machine(page: str, folder: Path) -> None:
    assert str(folder) not in page
    assert "the-model" in page
    assert "data.json" in page


def test_settings_are_those_of_the_selection_shown(page: str) -> None:
    """The recipe's own section may be that of a later selection."""
    words = Elements(page).words
    assert words[words.index("select.name") + 1] == "main"
    assert words[words.index("select.method") + 1] == "clusters"
    assert "select.keep" not in words


def test_headline_cost_and_reasons_are_the_run_s(page: str, table: RunTable) -> None:
    words = " ".join(" ".join(Elements(page).words).split())
    assert "4 of 60 records kept" in words
    assert "12,345" in words
    assert "2 s" in words  # 1.5 of the tokens and 0.5 of this selection; the other's are not its cost
    assert "selections/main" in words
    assert "selections/other" not in words
    assert dict(summary.dropped(table)) == {"outranked": 55, "bad_record": 1}
    assert "it could not be read" in words
    assert "All full texts are in this file." in words


def test_a_second_call_makes_the_same_bytes(page: str, folder: Path) -> None:
    assert report(folder, "main", texts(60)) == page


def test_a_small_page_says_how_many_texts_it_holds(folder: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room = len(page.encode()) + 3_000
    monkeypatch.setattr(report_module, "MAX_BYTES", room)
    monkeypatch.setattr(records, "_BLOCK", 4)
    small = report(folder, "main", texts(60, length=50))
    rows = [json.loads(line)[0] for line in unpacked(Elements(small).script("texts")).splitlines()]
    kept = np.flatnonzero(read_run(folder, "main").kept).tolist()
    assert len(small.encode()) <= room
    assert set(kept) <= set(rows)
    assert 4 < len(rows) < 60
    words = " ".join(" ".join(Elements(small).words).split())
    assert f"Full texts of {len(rows)} of 60 records are in this file (4 of the 4 kept ones" in words


def write_comparison(run: Path) -> None:
    shared = {"keep": "10%", "set": "holdout", "metric": "loss_over_tokens", "higher_is_better": False, "seeds": 2}
    shared |= {"lowest": 1.0, "highest": 2.0, "kept_records": 6.0, "kept_tokens": 70.0, "seconds": 5.0}
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "covers": "seeds and records", "level": 0.95}
    rows = [
        {**shared, "selector": "random", "mean": 1.5, "difference": None, "verdict": "reference"},
        {**shared, "selector": "untuned", "mean": 3.0, "difference": None, "verdict": "not compared"},
        {
            **shared,
            "selector": "<i>x",
            "mean": 2.0,
            "difference": interval | {"records": 9, "dropped": 0},
            "verdict": "worse",
        },
    ]
    overlaps = {"10%": {"names": ["random", "<i>x"], "count": [[6, 2], [2, 6]], "by_chance": [[0.6, 0.6], [0.6, 0.6]]}}
    (run / "comparison.json").write_text(json.dumps({"rows": rows, "overlaps": overlaps}))


def test_a_comparison_is_shown_where_there_is_one(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run")
    write_comparison(run)
    elements = Elements(report(run, "main", texts(60)))
    assert {"Comparison", "selector", "holdout", "<i>x", "+0.5000", "worse", "2 (1)"} <= set(elements.words)
    assert "kept: 10%, loss over tokens" in elements.words
    spec = json.loads(elements.script("figures"))["comparison"]
    (point,) = spec["data"]["values"]
    assert (point["who"], point["low"], point["value"], point["high"]) == ("<i>x", 0.25, 0.5, 0.75)


def test_a_run_that_only_compared_has_a_report_of_that(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run")
    job: Any = SimpleNamespace(
        folder=RunFolder(run),
        recipe=SimpleNamespace(select=SimpleNamespace(name="third")),
    )
    write_comparison(run)
    with pytest.raises(CurateError, match="no selection 'third' yet"):  # others are there
        write_report(job)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"] = {"tokens": manifest["stages"]["tokens"]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    elements = Elements(write_report(job).read_text(encoding="utf-8"))
    assert {"2 selectors compared", "<i>x", "+0.5000", "curate select"} <= set(elements.words)
    assert "comparison" in json.loads(elements.script("figures"))
    (run / "comparison.json").unlink()
    with pytest.raises(CurateError, match="run curate select"):
        write_report(job)


@pytest.mark.parametrize(("bins", "words"), [(None, "groups by skill"), (4, "groups by 4 ranges of skill")])
def test_the_headline_says_what_the_groups_are(tmp_path: Path, bins: int | None, words: str) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run", groups=True)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["selections/main"]["key"]["select.groups"] = {"field": "skill", "bins": bins}
    (run / "manifest.json").write_text(json.dumps(manifest))
    shown = " ".join(Elements(report(run, "main", texts(60))).words)
    assert f", {words};" in " ".join(shown.split())
    assert f"{words.capitalize()}." in shown


def test_an_evaluation_is_shown_if_it_is_of_the_adapter_that_is_there(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run")
    losses = {"records": 5, "dropped": 0, "tokens": 70, "mean_over_records": 2.5, "mean_over_tokens": 2.25}
    after = losses | {"mean_over_records": 2.0}
    found = {"sets": {"holdout": {"untuned": losses, "adapter": after}}, "tasks": [], "judge": None}
    (run / "selections/main/evaluation.json").write_text(json.dumps(found))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["selections/main/adapter"] = {"fingerprint": "a"}
    for adapter, shown in (("a", True), ("b", False)):
        manifest["stages"]["selections/main/evaluation"] = {"key": {"adapter": adapter}}
        (run / "manifest.json").write_text(json.dumps(manifest))
        words = set(Elements(report(run, "main", texts(60))).words)
        assert ({"Evaluation", "2.5000", "-0.5000"} <= words) == shown, adapter


def test_a_score_with_a_few_huge_values_is_shown_on_a_log_scale() -> None:
    score = np.array([*np.linspace(0.5, 1.5, 99), 100.0])
    rows = chart_data.histogram(score, np.arange(100) < 50)
    edges = [row["from"] for row in rows[:40]]
    assert np.diff(np.log(edges)) == pytest.approx(np.log(200) / 40)
    assert sum(row["records"] for row in rows) == 100
    assert sum(row["records"] > 0 for row in rows[40:]) > 3
    assert figures.histogram_figure(rows, "ifd")["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"
    linear = chart_data.histogram(np.linspace(0.2, 1, 50), np.ones(50, bool))
    assert "scale" not in figures.histogram_figure(linear, "complexity")["layer"][0]["encoding"]["x"]


def test_a_run_without_complexity_or_embeddings_has_a_report(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run")
    scores = pq.read_table(run / "scores.parquet").drop_columns(["complexity", "confidence", "log_prob", "perplexity"])
    pq.write_table(scores.replace_schema_metadata({}), run / "scores.parquet")
    (run / "embeddings.npy").unlink()
    (run / "recipe.yaml").unlink()
    assert read_run(run, "other").by == "response_tokens"
    elements = Elements(report(run, "other", texts(60)))
    assert set(json.loads(elements.script("figures"))) == {"histogram-response_tokens"}


@pytest.mark.slow
def test_fifty_thousand_records_stay_below_five_megabytes(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    run = write_run(tmp_path / "run", 50_000, groups=True)
    html = report(run, "main", texts(50_000, length=70))
    assert MAX_BYTES * 0.9 < len(html.encode()) <= MAX_BYTES
    rows = {json.loads(line)[0] for line in unpacked(Elements(html).script("texts")).splitlines()}
    assert set(np.flatnonzero(read_run(run, "main").kept).tolist()) <= rows
    assert len(json.loads(unpacked(Elements(html).script("columns")))["row"]) == 50_000


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(CurateError, match=r'pip install "lc-curate\[report\]"'):
        vega_script.__wrapped__()


def test_a_selection_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(CurateError, match="no selection nothing; it has main, other"):
        read_run(folder, "nothing")


def test_a_selection_from_other_records_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "selections/main/selection.parquet"
    pq.write_table(pq.read_table(path).slice(0, 50), path)
    with pytest.raises(CurateError, match=r"has 50 rows, scores\.parquet 60: run curate select again"):
        read_run(run, "main")


def test_files_are_joined_by_row_and_not_by_position(folder: Path, table: RunTable, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", groups=True)
    for name in ("scores.parquet", "selections/main/selection.parquet"):
        shuffled = pq.read_table(run / name)
        pq.write_table(shuffled.take(np.random.default_rng(1).permutation(60)), run / name)
    other = read_run(run, "main")
    assert (other.kept == table.kept).all()
    assert (other.rank == table.rank).all()
    np.testing.assert_array_equal(other.score, table.score)
    np.testing.assert_array_equal(other.confidence, table.confidence)
    names = [other.group.names[code] for code in other.group.codes]
    assert names == [table.group.names[code] for code in table.group.codes]
    assert (table.exits, table.num_layers) == (EXITS, LAYERS)


def test_a_score_recomputed_from_some_exits_is_the_one_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["selections/main"]["key"]["select.exits"] = [1, 4]
    (run / "manifest.json").write_text(json.dumps(manifest))
    table = read_run(run, "main")
    assert table.by == "complexity of exits 1, 4"
    np.testing.assert_allclose(table.score, 1 - table.confidence[:, [0, 2]].mean(axis=1), rtol=1e-6)


# --- records that are listed, texts that are packed


def small_table(kept: list[bool], **changes: Any) -> RunTable:
    rows = len(kept)
    values: dict[str, Any] = {
        "selection": "main",
        "settings": {"method": "clusters"},
        "by": "complexity",
        "scores": {"complexity": np.linspace(0, 1, rows)},
        "confidence": np.zeros((rows, 0), np.float32),
        "exits": (),
        "num_layers": 0,
        "prompt_tokens": np.ones(rows, np.int32),
        "response_tokens": np.ones(rows, np.int32),
        "kept": np.array(kept, bool),
        "reason": Labels(np.array([0 if k else 1 for k in kept], np.int32), ("kept", "outranked")),
        "cluster": np.zeros(rows, np.int32),
        "rank": np.arange(rows, dtype=np.int32),
        "group": Labels(np.full(rows, -1, np.int32), ()),
    }
    return RunTable(**{**values, **changes})


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 70))
def test_the_kept_are_listed_first_and_the_rest_is_drawn(kept: list[bool], limit: int) -> None:
    table = small_table(kept)
    rows = records.listed_rows(table, limit)
    assert len(rows) == len(set(rows.tolist())) == min(limit, len(kept))
    assert sorted(rows.tolist()) == rows.tolist()
    assert table.kept[rows].sum() == min(limit, sum(kept))


def test_a_sample_of_the_others_is_even() -> None:
    table = small_table([False] * 4_000)
    shares = np.histogram(records.listed_rows(table, 1_000), bins=4, range=(0, 4_000))[0] / 1_000
    assert shares == pytest.approx([0.25] * 4, abs=0.04)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.integers(0, 30), st.text(st.characters(exclude_categories=()), max_size=200), max_size=30),
    st.permutations(range(31)),
    st.integers(30, 3_000),
)
def test_packed_texts_keep_to_their_room_and_come_out_whole(
    given_texts: dict[int, str], order: list[int], room: int
) -> None:
    turns = {row: [("user", text)] for row, text in given_texts.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_BLOCK", 3)
        packed = records.pack_texts(turns, np.array(order), room=room)
    assert len(packed.data) <= room
    assert list(packed.rows) == [row for row in order if row in turns][: len(packed.rows)]
    lines = [json.loads(line) for line in unpacked(packed.data).split("\n") if line]
    assert [(row, inside) for row, inside in lines] == [(row, [["user", given_texts[row]]]) for row in packed.rows]


def test_texts_are_packed_until_the_room_is_used() -> None:
    turns = {row: [("user", f"{row} {'x' * 50}")] for row in range(2_000)}
    everything = records.pack_texts(turns, np.arange(2_000), room=1_000_000)
    assert len(everything.rows) == 2_000
    half = records.pack_texts(turns, np.arange(2_000), room=len(everything.data) // 2)
    assert 500 < len(half.rows) < 1_500


def test_a_long_turn_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MAX_CHARACTERS", 5)
    example = texts(20)[12]
    (_, first), _ = records.turns(example)
    text = example.turns[0].content
    assert first == f"{text[:5]}\n[{len(text) - 5} more characters are not in this file]"


def test_a_stratum_counts_its_eligible_and_its_kept(table: RunTable) -> None:
    codes, counts = records.strata(table)
    for code, (eligible, kept) in enumerate(counts):
        inside = codes == code
        assert eligible == (inside & (table.rank >= 0)).sum()
        assert kept == (inside & table.kept).sum()
        assert len(set(table.cluster[inside].tolist())) == 1
    assert sum(kept for _, kept in counts) == table.kept.sum()


def test_every_reason_of_a_selection_has_its_words() -> None:
    from curate.selection import REASONS

    assert set(REASONS) - {"kept"} <= set(records.REASON_WORDS)


# --- tables and charts


def test_parts_add_up_and_agree_with_masks(table: RunTable) -> None:
    parts = summary.parts(table, table.cluster, {0: "bread"}, has_quota=True)
    assert [part.name for part in parts] == ["bread", "1", "2", "3"]
    assert sum(part.kept for part in parts) == table.kept.sum()
    for part in parts:
        inside = table.cluster == part.number
        assert part.records == inside.sum()
        assert part.eligible == (inside & (table.rank >= 0)).sum()
        assert part.quota == part.kept == (inside & table.kept).sum()
        assert part.score == pytest.approx(np.nanmedian(table.score[inside]))


def test_quotas_are_shown_of_what_they_were_divided_by() -> None:
    assert summary.strata_of({"method": "clusters", "groups": {"field": "task"}}) == ("cluster", "group")
    assert summary.strata_of({"method": "top", "groups": {"field": "task"}}) == ("group",)


def test_histogram_counts_every_scored_record_once() -> None:
    score = np.array([0.0, 0.0, 1.0, 0.5, np.nan])
    rows = chart_data.histogram(score, np.array([True, False, True, False, True]))
    kept, others = ([row for row in rows if row["set"] == name] for name in (chart_data.KEPT, chart_data.OTHERS))
    assert [row["records"] for row in kept if row["records"]] == [1, 1]
    assert sum(row["records"] for row in others) == 2
    assert sum(row["percent"] for row in kept) == pytest.approx(100)
    assert (rows[0]["from"], kept[-1]["to"]) == (0.0, 1.0)
    assert chart_data.histogram(np.full(3, 0.5), np.ones(3, bool)) == []


def test_confidence_by_exit_is_of_thirds_by_complexity() -> None:
    confidence = np.repeat(np.arange(6, dtype=np.float32)[::-1, None] / 10, 2, axis=1)
    table = small_table([True] * 6, confidence=confidence, exits=(1, 2), num_layers=2)
    rows = chart_data.exit_levels(table)
    assert [(row["level"], row["exit"], row["median"]) for row in rows] == [
        ("easy", 1, 0.45),
        ("easy", 2, 0.45),
        ("middle", 1, 0.25),
        ("middle", 2, 0.25),
        ("hard", 1, 0.05),
        ("hard", 2, 0.05),
    ]


def test_labels_of_a_map_leave_each_other_room() -> None:
    centres = {c: (float(c % 5), float(c // 5), 100 - c) for c in range(25)} | {99: (0.0, 0.01, 1_000)}
    rows = chart_data.map_labels(centres, {c: f"name {c}" for c in centres})
    labelled = [row for row in rows if row["label"]]
    assert rows[0]["label"] == "name 99"
    assert "name 0" not in {row["label"] for row in labelled}
    assert 3 < len(labelled) < 15
    assert len([row for row in rows if row["narrow"]]) < len(labelled)


def test_a_projection_is_the_plane_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(200, 6)) * [5, 3, 1, 1, 1, 1]).astype(np.float32)
    vectors[7] = np.nan
    found = project(vectors, np.arange(200))
    assert found is not None
    assert 7 not in found.rows
    there = vectors[found.rows].astype(float)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(there.T)))[::-1]
    assert found.explained == pytest.approx(eigenvalues[:2].sum() / eigenvalues.sum())
    assert found.points.var(axis=0, ddof=1) == pytest.approx(eigenvalues[:2])
    for i, j in ((0, 1), (3, 90), (50, 150)):  # the page says so: apart on the map is apart
        assert np.linalg.norm(found.points[i] - found.points[j]) <= np.linalg.norm(there[i] - there[j]) + 1e-9


def test_two_records_or_equal_ones_have_no_map() -> None:
    assert project(np.ones((2, 4), np.float32), np.arange(2)) is None
    assert project(np.ones((9, 4), np.float32), np.arange(9)) is None


def test_a_word_in_every_text_names_no_cluster() -> None:
    named = cluster_names([(0, "the bread"), (0, "the oven bread"), (1, "the sum"), (1, "the sum"), (-1, "none")])
    assert {cluster: name.split(", ")[0] for cluster, name in named.items()} == {0: "bread", 1: "sum"}
    assert cluster_names([(3, "12 + 3")]) == {}


@given(st.text(st.characters(exclude_categories=())))
def test_visible_leaves_no_control_and_changes_nothing_else(text: str) -> None:
    shown = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert visible(shown) == shown
    shown.encode()
    if text.isprintable():
        assert shown == text


@settings(max_examples=40)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_script_ends_no_element(value: Any) -> None:
    text = pages.script_json(value)
    assert "<" not in text
    assert json.loads(text) == value
