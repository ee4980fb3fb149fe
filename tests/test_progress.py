"""Progress: one line of any width, speeds of this call only, a sign of life where there is no terminal."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import alpaca_records, write_json_array
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

from curate.cli import bars, terminal
from curate.cli.rates import Rates
from curate.config import Data
from curate.read.examples import expected_count
from curate.read.files import open_source


class Clock:
    """A clock that the test turns."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    turned = Clock()
    monkeypatch.setattr("curate.cli.rates.time.monotonic", turned)
    return turned


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(rates: Rates, stage: str, done: int, total: int | None, unit: str, *, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), legacy_windows=False)
    with console.capture() as picture:
        progress = Progress(bars._Line(console, rates), console=console)
        progress.add_task(stage, completed=done, unit=unit, of=total)
        console.print(progress.get_renderable())
    return picture.get().splitlines()


@pytest.mark.parametrize("stage", ["scores", "loss of random-10%-seed-1 on a set with a very long name"])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_the_bar_is_one_line_that_fits_and_always_says_how_long(clock: Clock, stage: str, width: int) -> None:
    rates = Rates()
    rates.update(stage, 0)
    clock.now += 50
    rates.update(stage, 250_000)
    (line,) = drawn(rates, stage, 250_000, 1_000_000, "tokens", width=width)
    assert line.rstrip().endswith("2 min left"), "150 s"
    assert cell_len(line.rstrip()) < width
    assert "25%" in line or width < 40
    assert ("5,000 tokens/s" in line) == (width >= 80 + 40 * (stage != "scores"))


def test_what_an_earlier_call_did_is_no_speed_of_this_one(clock: Clock) -> None:
    rates = Rates()
    rates.update("scores", 900)
    clock.now += 10
    rates.update("scores", 910)
    assert rates.line(1000, "records") == "scores: 91%, 910/1,000 records, 1.0 records/s, 90 s left"
    clock.now += 5  # nothing new is heard, but time goes on
    assert rates.line(1000, "records") == "scores: 91%, 910/1,000 records, 1.0 records/s, 85 s left"


def test_where_nothing_can_be_counted_the_time_so_far_is_said(clock: Clock) -> None:
    rates = Rates()
    rates.update("clustering", 0)
    clock.now += 400
    assert rates.line(None, "") == "clustering: 7 min"
    rates.update("tokens", 0)
    clock.now += 2
    rates.update("tokens", 30)
    assert rates.line(None, "records") == "tokens: 30 records, 15 records/s, 2 s"


def test_without_a_terminal_a_silent_stage_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_SECONDS_BETWEEN_LINES", 0.01)
    told, enough, before = list[str](), threading.Event(), threading.active_count()

    def say(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            enough.set()

    with bars.lines(say) as show:
        show("clustering", 0, None, "")
        assert enough.wait(20), told
    assert told[-1] == "clustering: 0 s"
    assert threading.active_count() == before, "the thread ends with the block"


def test_a_stage_without_a_total_does_not_show_that_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    with bars.bar() as show:
        show("scores", 7, 10, "records")
        screen.truncate(0)
        show("clustering", 0, None, "")
    assert "clustering" in screen.getvalue()
    assert "/10" not in screen.getvalue().partition("clustering")[2]


def test_lines_that_go_to_a_file_get_there_though_a_bar_is_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file = Screen(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr("sys.stdout", file)
    with terminal.progress() as show:
        show("scores", 5, 10, "records")
        terminal.say("scores: 10 in, 10 out")
    assert file.getvalue() == "scores: 10 in, 10 out\n"
    assert "10 in" not in screen.getvalue()
    assert "5/10 records" in screen.getvalue()


def test_about_how_many_records_come_is_known_beforehand(tmp_path: Path) -> None:
    records = alpaca_records(300)
    write_json_array(tmp_path / "a.json", records)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")

    def expected(name: str, **more: int) -> int | None:
        data = Data(path=str(tmp_path / name), **more)
        return expected_count(data, open_source(data))

    for name in ("a.json", "a.jsonl"):
        assert expected(name) == pytest.approx(300, rel=0.1)
    assert expected("a.parquet") == 300
    assert expected("a.parquet", limit=20) == expected("a.json", limit=20) == 20
    with pa.CompressedOutputStream(str(tmp_path / "b.jsonl.gz"), "gzip") as stream:
        stream.write((tmp_path / "a.jsonl").read_bytes())
    assert expected("b.jsonl.gz") is None, "it is packed"


def test_the_clock_of_a_bar_starts_with_the_bar() -> None:
    """Drawn before the first news of a stage, it showed how long the machine had been on."""
    assert Rates().facts(None, "") == ["0 s"]
