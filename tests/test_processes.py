"""Many processes on one run: every chunk once, whoever comes late or never, and the same bytes at any number."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import alpaca_records, write_json_array
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import accelerate, on_cpus, start

from curate.config import load_recipe
from curate.pipeline import perform
from curate.runs.atomic import write_text
from curate.runs.folder import RunFolder
from curate.runs.launch import Launch
from curate.runs.processes import Heartbeat, Processes, heartbeat_path, wait_for

LAUNCH = "launch"
QUICK = 0.3  # seconds


def launch_of(folder: Path, rank: int = 0, count: int = 1, hang_timeout: float = QUICK) -> Launch:
    processes = Processes(rank, count, LAUNCH)
    run = RunFolder(folder)
    return Launch("score", run, processes, Heartbeat(run.work, processes), lambda *_: None, hang_timeout)


@dataclass(frozen=True)
class Plan:
    layers: list[int]
    name: str


# ---------------------------------------------------------------- heartbeats and waiting


def test_a_process_alone_leaves_no_heartbeat(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path, Processes())
    heartbeat.beat()
    with heartbeat.kept_up():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_heartbeat_is_a_file_per_process_and_launch_touched_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = Processes(1, 2, LAUNCH)
    heartbeat, path = Heartbeat(tmp_path, processes), heartbeat_path(tmp_path, processes, 1)
    assert path != heartbeat_path(tmp_path, Processes(1, 2, "another"), 1)
    heartbeat.beat()
    first = path.stat().st_mtime_ns
    heartbeat.beat()
    assert path.stat().st_mtime_ns == first, "not for every record"
    monkeypatch.setattr("curate.runs.processes._BEAT_SECONDS", 0.01)
    with heartbeat.kept_up():
        eventually(lambda: path.stat().st_mtime_ns > first)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Touch a file every few hundredths of a second."""
    over = threading.Event()

    def keep_up() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        while not over.wait(0.03):
            path.touch()

    thread = threading.Thread(target=keep_up)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_at_most(tmp_path: Path, ready: Callable[[], bool]) -> None:
    processes = Processes(0, 3, LAUNCH)
    heartbeat = Heartbeat(tmp_path, processes)
    wait_for(
        ready, folder=tmp_path, processes=processes, rank=1, what="the rest", hang_timeout=0.25, heartbeat=heartbeat
    )


def test_a_process_that_makes_progress_is_waited_for_however_long_it_takes(tmp_path: Path) -> None:
    until = time.monotonic() + 0.7
    with beating(heartbeat_path(tmp_path, Processes(0, 3, LAUNCH), 1)):
        wait_at_most(tmp_path, lambda: time.monotonic() > until)
    assert heartbeat_path(tmp_path, Processes(0, 3, LAUNCH), 0).exists(), "who waits is alive, too"


@pytest.mark.parametrize("sign", [None, 0, 2])
def test_a_silent_process_is_given_up_although_others_make_progress(tmp_path: Path, sign: int | None) -> None:
    """Process 2 may itself be waiting for us: its life says nothing of process 1."""
    heartbeat_path(tmp_path, Processes(0, 3, LAUNCH), 1).parent.mkdir()
    heartbeat_path(tmp_path, Processes(0, 3, LAUNCH), 1).touch()
    path = tmp_path / "nobody" if sign is None else heartbeat_path(tmp_path, Processes(0, 3, LAUNCH), sign)
    started = time.monotonic()
    with beating(path), pytest.raises(TimeoutError) as silence:
        wait_at_most(tmp_path, lambda: False)
    assert 0.25 <= time.monotonic() - started < 5
    assert "for the rest without a sign of life from process 1" in str(silence.value)
    assert "run.hang_timeout" in str(silence.value)


def test_nobody_waits_for_what_is_there(tmp_path: Path) -> None:
    wait_at_most(tmp_path, lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_what_the_main_process_prepares_reaches_the_others_as_it_is(tmp_path: Path) -> None:
    prepared = Plan([1, 2], "é")
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(launch_of(tmp_path, rank, 3).from_main, "scores", pytest.fail, Plan) for rank in (1, 2)]
        assert launch_of(tmp_path, 0, 3).from_main("scores", lambda: prepared, Plan) == prepared
        assert [other.result(10) for other in others] == [prepared, prepared]


def test_a_process_alone_hands_over_nothing(tmp_path: Path) -> None:
    assert launch_of(tmp_path).from_main("scores", lambda: 3, int) == 3
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- chunks


def compute_all(
    folder: Path, num_chunks: int, count: int, *, late: int | None = None, computed: list[tuple[int, int]] | None = None
) -> list[Path]:
    """Let `count` processes (threads here) compute all chunks; returns the files."""
    log = computed if computed is not None else []
    chunks = folder / "work" / "scores"
    finished = launch_of(folder).finished_chunks(chunks, read_number)

    def work(rank: int) -> list[Path]:
        def compute(chunk: int) -> int:
            log.append((rank, chunk))
            return chunk * chunk

        if rank == late:
            time.sleep(0.15)
        launch = launch_of(folder, rank, count, 20)
        return launch.compute_chunks(chunks, num_chunks, compute, write_number, finished=finished)

    with ThreadPoolExecutor(count) as pool:
        results = [pool.submit(work, rank) for rank in range(count)]
        paths = results[0].result(30)
        assert all(path.exists() for path in paths), "the main process goes on only when all is there"
        assert [result.result(30) for result in results] == [paths] * count
    return paths


def write_number(path: Path, number: int) -> None:
    path.write_text(str(number))


def read_number(path: Path) -> int:
    return int(path.read_text())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(1, 6))
def test_every_chunk_is_computed_once_by_any_number_of_processes(
    tmp_path_factory: pytest.TempPathFactory, num_chunks: int, count: int
) -> None:
    computed: list[tuple[int, int]] = []
    paths = compute_all(tmp_path_factory.mktemp("run"), num_chunks, count, computed=computed)
    assert sorted(chunk for _, chunk in computed) == list(range(num_chunks))
    assert all(rank == chunk % count for rank, chunk in computed)
    assert [int(path.read_text()) for path in paths] == [chunk**2 for chunk in range(num_chunks)]


@pytest.mark.parametrize("late", [0, 1])
def test_a_process_that_starts_late_finds_its_own_chunks_to_do(tmp_path: Path, late: int) -> None:
    computed: list[tuple[int, int]] = []
    compute_all(tmp_path, 5, 2, late=late, computed=computed)
    assert sorted(computed) == [(0, 0), (0, 2), (0, 4), (1, 1), (1, 3)]


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.sets(st.integers(0, 8)), st.integers(1, 4), st.integers(1, 4))
def test_finished_chunks_are_never_written_again_whoever_goes_on(
    tmp_path_factory: pytest.TempPathFactory, num_chunks: int, lost: set[int], before: int, after: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    paths = compute_all(folder, num_chunks, before)
    lost = {chunk for chunk in lost if chunk < num_chunks}
    for chunk in lost:
        paths[chunk].unlink()
    kept = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths if p.exists()}
    computed: list[tuple[int, int]] = []
    assert compute_all(folder, num_chunks, after, computed=computed) == paths
    assert {chunk for _, chunk in computed} == lost
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in kept} == kept


def test_a_chunk_that_fails_is_not_there_and_those_before_it_are(tmp_path: Path) -> None:
    def compute(chunk: int) -> int:
        if chunk == 2:
            raise KeyboardInterrupt
        return chunk

    with pytest.raises(KeyboardInterrupt):
        launch_of(tmp_path).compute_chunks(tmp_path / "c", 4, compute, write_number)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["000000.chunk", "000001.chunk"]


def test_the_main_process_names_the_chunk_and_the_process_that_it_gives_up(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0 s for chunk 1 of c without a sign of life from process 1"):
        launch_of(tmp_path, 0, 3).compute_chunks(tmp_path / "c", 6, lambda chunk: chunk, write_number)


def test_a_damaged_chunk_is_removed_so_that_it_is_computed_again(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    paths = launch_of(tmp_path).compute_chunks(folder, 3, lambda chunk: chunk, write_number)
    write_text(paths[1], "torn")
    assert launch_of(tmp_path).finished_chunks(folder, read_number) == [0, 2]
    assert [path.exists() for path in paths] == [True, False, True]


def test_a_process_that_comes_when_all_is_finished_and_gone_does_nothing(tmp_path: Path) -> None:
    """The main process needs none of its chunks any more, and has removed them."""
    paths = launch_of(tmp_path, 1, 2).compute_chunks(
        tmp_path / "c", 4, pytest.fail, write_number, finished={0, 1, 2, 3}
    )
    assert len(paths) == 4
    assert not (tmp_path / "c").exists()


# ---------------------------------------------------------------- signals


class SignalledWhenGone:
    """Sends this process a signal from its destructor, where Python drops what the signal raises."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_heard_even_if_python_drops_it(
    tmp_path: Path, words: list[str], number: signal.Signals
) -> None:
    seen: list[int] = []

    def progress(stage: str, done: int, total: int | None, unit: str) -> None:
        seen.append(done)
        if len(seen) == 3:
            SignalledWhenGone(number)  # and gone

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        perform("score", load_recipe(None, [*words, f"run.dir={tmp_path}"]), progress=progress)
    assert len(seen) == 3
    assert signal.getsignal(number) == before
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)


# ---------------------------------------------------------------- whole launches


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> list[str]:
    """A small scoring job of many chunks."""
    data = write_json_array(tmp_path_factory.mktemp("data") / "alpaca.json", alpaca_records(60))
    return [f"data.path={data}", f"model.name={llama}", "score.tokens_per_batch=300", "run.hang_timeout=60"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> bytes:
    """scores.parquet of one process."""
    folder = tmp_path_factory.mktemp("alone")
    perform("score", load_recipe(None, [*words, f"run.dir={folder}"]))
    scores = pq.read_table(folder / "scores.parquet")
    assert scores["row"].to_pylist() == list(range(60))
    assert scores["status"].to_pylist().count("scored") == 58
    return (folder / "scores.parquet").read_bytes()


def test_two_processes_of_accelerate_score_the_same_bytes_as_one(
    tmp_path: Path, words: list[str], alone: bytes
) -> None:
    log = tmp_path / "log"
    launch = accelerate(["score", *words, f"run.dir={tmp_path / 'run'}"], log, *on_cpus(2))
    assert launch.wait(180) == 0, log.read_text()
    assert (tmp_path / "run" / "scores.parquet").read_bytes() == alone
    stage = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]["scores"]
    assert stage["processes"] == 2
    assert 1 <= stage["imbalance"] < 1.5
    assert log.read_text().count("scores: 60 in, 58 out") == 1, "only the main process reports"


@pytest.mark.slow
@pytest.mark.parametrize("tokens_per_batch", [300, 100_000])
def test_three_processes_score_the_same_bytes_also_where_two_have_nothing_to_do(
    tmp_path: Path, words: list[str], tokens_per_batch: int
) -> None:
    words = ["score", *words, f"score.tokens_per_batch={tokens_per_batch}"]
    for count in (1, 3):
        launch = start([*words, f"run.dir={tmp_path / str(count)}"], tmp_path / "log", count=count)
        assert launch.wait(180) == [0] * count, launch.log.read_text()
    one, three = ((tmp_path / count / "scores.parquet").read_bytes() for count in "13")
    assert one == three


def test_asking_accelerate_for_two_processes_on_cpus_in_the_way_that_starts_one_is_refused(
    tmp_path: Path, words: list[str]
) -> None:
    log = tmp_path / "log"
    run = tmp_path / "run"
    flags = ("--cpu", "--num-processes=2", "--mixed_precision", "no", "--dynamo_backend", "no")
    assert accelerate(["score", *words, f"run.dir={run}"], log, "--num_machines=1", *flags).wait(120) != 0
    text = log.read_text()
    assert "accelerate was asked for 2 processes and started one" in text
    assert "accelerate launch --multi_gpu --num_processes N" in text
    assert json.loads((run / "status.json").read_text())["exit_code"] == 2
    assert not (run / "scores.parquet").exists()


_LATE_RANK_1 = """
import os, time, pathlib, curate.runs.launch as launch
lead = launch.Launch.from_main
def late(self, stage, prepare, kind):
    prepared = lead(self, stage, prepare, kind)
    if stage == {stage!r} and not self.processes.is_main:
        published, work = self.folder.path / {file!r}, self.folder.work / {stage!r}
        while work.exists() or not published.exists():
            time.sleep(0.01)
    return prepared
launch.Launch.from_main = late
"""
_STOP_BEFORE_PUBLISHING = "import sys, curate.pipeline.{stage} as stage\nstage._publish = lambda *_: sys.exit(7)"


@pytest.mark.parametrize(("stage", "file"), [("scores", "scores.parquet"), ("embeddings", "embeddings.npy")])
def test_a_process_that_comes_when_its_chunks_are_published_and_gone_goes_on(
    tmp_path: Path, words: list[str], embedder: Path, alone: bytes, stage: str, file: str
) -> None:
    """All chunks were there when the launch began, so the main process waits for nobody."""
    run, log = tmp_path / "run", tmp_path / "log"
    words = [*words, f"embed.model={embedder}", f"run.dir={run}"]
    verbs = {"scores": "score", "embeddings": "embed"}
    if stage == "embeddings":
        assert start(["score", *words], log).wait(120) == [0], log.read_text()
    stopped = start([verbs[stage], *words], log, patch=_STOP_BEFORE_PUBLISHING.format(stage=stage))
    assert stopped.wait(120) == [7], log.read_text()
    assert any((run / "work" / stage).glob("*.chunk"))
    launch = start([verbs[stage], *words], log, count=2, patch=_LATE_RANK_1.format(stage=stage, file=file))
    assert launch.wait(120) == [0, 0], log.read_text()
    assert (run / "scores.parquet").read_bytes() == alone
    assert not (run / "work" / stage).exists(), "nothing was computed again"


def test_chunks_of_another_plan_are_computed_again(tmp_path: Path, words: list[str], alone: bytes) -> None:
    """As an older version may have left them: sound files that hold other records than they should."""
    run, log = tmp_path / "run", tmp_path / "log"
    words = ["score", *words, f"run.dir={run}"]
    assert start(words, log, patch=_STOP_BEFORE_PUBLISHING.format(stage="scores")).wait(120) == [7], log.read_text()
    first, second, *_, last = sorted((run / "work" / "scores").glob("*.chunk"))
    contents = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(contents)
    last.rename(last.with_name("000999.chunk"))
    assert start(words, log).wait(120) == [0], log.read_text()
    assert log.read_text().count("is damaged and computed again") == 3
    assert (run / "scores.parquet").read_bytes() == alone
