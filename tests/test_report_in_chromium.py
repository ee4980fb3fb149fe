"""The report in a real browser: nothing complains, nothing is fetched, mouse and keyboard work, text stays text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import screenshots
from browser import CHROMIUM, Browser
from report_run import HOSTILE, texts, write_run

from curate.report.diff import diff, diff_html
from curate.report.preview import Preview, PreviewToken, preview_html
from curate.report.report import report
from curate.report.run_table import RunTable, read_run
from curate.report.visible import visible

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
DARK = [{"name": "prefers-color-scheme", "value": "dark"}]
READY = "document.documentElement.dataset.charts === 'ready' && document.documentElement.dataset.records === 'ready'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vl_convert", reason="needs the extra `report`")
    return write_run(tmp_path_factory.mktemp("browser") / "run", groups=True)


@pytest.fixture(scope="module")
def table(folder: Path) -> RunTable:
    return read_run(folder, "main")


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    page = folder / "report.html"
    page.write_text(report(folder, "main", texts(60)), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def tab(path: Path) -> Iterator[Browser]:
    with Browser() as browser:
        browser.open(path, until=READY)
        yield browser


@pytest.fixture
def browser(tab: Browser) -> Browser:
    """The tab with no filter set, no record open, and rows in their order."""
    tab.run("document.getElementById('record').close()")
    tab.run("document.querySelector('#records form').reset()")
    tab.wait("document.getElementById('count').textContent.startsWith('60 of 60')")
    while tab.run("document.querySelector('#records th[data-key=row]').getAttribute('aria-sort')") != "ascending":
        tab.run("document.querySelector('#records th[data-key=row] button').click()")
    return tab


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const e = document.getElementById('{name}'); e.value = {json.dumps(value)};"
        " e.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def shown_rows(browser: Browser) -> list[int]:
    texts_of = "[...document.querySelectorAll('#records tbody tr')].map(r => r.cells[0].textContent)"
    return [int(text) for text in browser.run(texts_of)]


def test_the_page_complains_of_nothing_and_asks_only_for_itself(browser: Browser, path: Path) -> None:
    assert browser.log == []
    assert browser.requests == [path.as_uri()]


def test_every_chart_is_drawn_with_labelled_axes(browser: Browser) -> None:
    titles = browser.run(
        "[...document.querySelectorAll('.chart')].map(c => [c.dataset.figure, c.getAttribute('role'),"
        " c.querySelectorAll('svg').length, c.querySelector('svg').textContent])"
    )
    assert {title[0] for title in titles} == {"histogram-complexity", "exits", "length", "map"}
    for figure, role, pictures, _ in titles:
        assert (role, pictures) == ("img", 1), figure
    words = {title[0]: title[3] for title in titles}
    assert "confidence" in words["exits"]
    assert "exit (layer)" in words["exits"]
    assert "response tokens (log scale)" in words["length"]
    assert "component 1" in words["map"]


def test_filters_leave_what_the_files_say(browser: Browser, table: RunTable) -> None:
    choose(browser, "f-kept", "1")
    assert shown_rows(browser) == np.flatnonzero(table.kept).tolist()
    choose(browser, "f-kept", "")
    choose(browser, "f-cluster", "2")
    assert shown_rows(browser) == np.flatnonzero(table.cluster == 2).tolist()
    choose(browser, "f-group", "1")
    assert shown_rows(browser) == np.flatnonzero((table.cluster == 2) & (table.group.codes == 1)).tolist()
    choose(browser, "f-cluster", "")
    choose(browser, "f-group", "")
    choose(browser, "f-score-high", "0.5")
    choose(browser, "f-length-low", "100")
    assert shown_rows(browser) == np.flatnonzero((table.score <= 0.5) & (table.response_tokens >= 100)).tolist()
    browser.click("#records form button[type=reset]")
    browser.wait("document.getElementById('count').textContent.startsWith('60 of 60')")


def test_text_is_searched_as_text(browser: Browser) -> None:
    choose(browser, "f-text", "<SCRIPT>window")
    assert shown_rows(browser) == [0, 1]


def test_a_header_sorts_and_says_so_and_what_has_no_value_comes_last(browser: Browser, table: RunTable) -> None:
    head = "#records th[data-key=score]"
    for clicks, sign in ((1, 1), (2, -1)):
        browser.click(f"{head} button")
        order = np.argsort(sign * table.score[:-1].round(4), kind="stable").tolist()
        assert shown_rows(browser) == order[:50], clicks
        wanted = "ascending" if sign > 0 else "descending"
        assert browser.run(f"document.querySelector('{head}').getAttribute('aria-sort')") == wanted
    browser.click("#next")
    assert shown_rows(browser)[-1] == 59
    browser.click("#records th[data-key=row] button")
    assert shown_rows(browser)[:3] == [0, 1, 2]


def test_a_record_opens_moves_and_closes_by_keyboard_alone(browser: Browser) -> None:
    browser.run("document.getElementById('f-text').focus()")
    for _ in range(60):
        browser.press("Tab", code=9)
        if browser.run("document.activeElement.dataset.place === '0'"):
            break
    else:
        pytest.fail("no row was reached with the tabulator key")
    outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    browser.press("Enter", code=13, text="\r")
    browser.wait("document.getElementById('record').open")
    assert browser.run("document.getElementById('record-title').textContent") == "Record 0"
    browser.press("ArrowRight", code=39)
    assert browser.run("document.getElementById('record-title').textContent") == "Record 1"
    browser.press("Escape", code=27)
    browser.wait("!document.getElementById('record').open")
    assert browser.run("document.activeElement.dataset.place") == "0"


def test_the_reason_is_told_in_words(browser: Browser, table: RunTable) -> None:
    for row in (int(np.flatnonzero(table.kept)[0]), int(np.flatnonzero(~table.kept)[0]), 59):
        browser.run("document.getElementById('record').close()")
        if row == 59:
            browser.click("#next")
        browser.run(
            f"[...document.querySelectorAll('#records tbody tr')].find(r => r.cells[0].textContent === '{row}').click()"
        )
        why = browser.run("document.querySelector('#record .why').textContent")
        if row == 59:
            assert why == "Not kept: it could not be read."
            continue
        number, quota = table.rank[row] + 1, int((table.kept & (table.cluster == table.cluster[row])).sum())
        eligible = int(((table.rank >= 0) & (table.cluster == table.cluster[row])).sum())
        assert why.startswith("Kept: " if table.kept[row] else "Not kept: other records came first.")
        assert f"number {number} of {eligible} eligible records in its cluster (" in why
        assert f"lowest complexity first; the quota there is {quota}." in why


def test_hostile_text_is_shown_as_text(browser: Browser) -> None:
    for row, text in enumerate(HOSTILE):
        browser.run("document.getElementById('record').close()")
        browser.run(f"document.querySelectorAll('#records tbody tr')[{row}].click()")
        assert browser.run("document.querySelector('#record .text').textContent") == visible(text)
        assert browser.run("document.querySelectorAll('#record .text *').length") == 0
    assert browser.run("window.hacked === undefined")
    assert browser.log == []


def test_a_ring_on_the_map_lists_its_cluster(browser: Browser, table: RunTable) -> None:
    ring = (
        "(() => {const p = [...document.querySelectorAll('[data-figure=map] .mark-symbol path')]"
        ".find(p => p.__data__?.datum?.cluster === 3); p.id = 'ring'; return true; })()"
    )
    assert browser.run(ring)
    browser.click("#ring")
    assert shown_rows(browser) == np.flatnonzero(table.cluster == 3).tolist()


def test_a_phone_in_the_dark_needs_no_sideways_scrolling(path: Path) -> None:
    with Browser(width=375, height=700, scheme="dark") as phone:
        phone.open(path, until=READY)
        assert phone.run("document.documentElement.scrollWidth") <= 375
        assert phone.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
        assert phone.log == []


def test_preview_and_diff_complain_of_nothing_and_show_text_as_text(folder: Path) -> None:
    tokens = tuple(PreviewToken(i, text, i % 2 == 0, False) for i, text in enumerate(HOSTILE))
    pages = {
        "preview.html": preview_html([Preview(0, "id", "scored", "plain", tokens)]),
        "diff.html": diff_html(diff(folder, "main", "other", texts(60))),
    }
    with Browser(width=375) as phone:
        for name, html in pages.items():
            (folder / name).write_text(html, encoding="utf-8")
            phone.open(folder / name)
            assert phone.run("document.documentElement.scrollWidth") <= 375, name
        assert phone.log == []
        assert phone.requests == [(folder / name).as_uri() for name in pages]
        phone.open(folder / "preview.html")
        assert phone.run("document.querySelector('.tokens').textContent") == visible("".join(HOSTILE))


def test_pictures_are_taken_in_light_dark_and_as_on_a_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "preview.html"
    page.write_text(preview_html([]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["screenshots.py", str(tmp_path / "pictures"), str(page)])
    screenshots.main()
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert set(pictures) == {"preview-light.png", "preview-dark.png", "preview-phone.png"}
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())
    assert pictures["preview-light.png"] != pictures["preview-dark.png"]


def test_a_difference_with_hostile_texts_fits_a_phone(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", groups=True)
    found = diff(run, "main", "other", texts(60))
    hostile = tuple(replace(found.only_b[0], turns=(("user", text), ("assistant", text))) for text in HOSTILE)
    page = tmp_path / "diff.html"
    page.write_text(diff_html(replace(found, only_b=hostile)), encoding="utf-8")
    with Browser(width=375) as browser:
        browser.open(page)
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") == 375, "nothing scrolls sideways"
        assert browser.run("window.hacked") is None
        assert (browser.log, browser.requests) == ([], [page.as_uri()])


def test_on_paper_nothing_is_cut_and_nothing_is_dark(path: Path) -> None:
    with Browser(width=700, scheme="dark") as browser:
        browser.open(path, until=READY)
        browser.send("Emulation.setEmulatedMedia", media="print", features=DARK)
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert browser.run(style.format("body", "backgroundColor")) == "rgb(253, 253, 252)"
        assert browser.run(style.format(".scroll", "overflowX")) == "visible"
        assert browser.run(style.format("#records .hide", "display")) == "none"
        assert browser.run(style.format(".filters", "display")) == "none"
