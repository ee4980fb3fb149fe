"""Real kills, full disks and hanging processes; afterwards the same command, and the same bytes as if nothing had been.

`make test-faults` runs these and prints what was tried.
"""

# ruff: noqa: T201 - the figures are for the person who runs it

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import alpaca_records, write_json_array
from processes import Launch, accelerate, on_cpus, start

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

RECORDS = 240
TIMEOUT = 240.0
_SMALL_CHUNKS = "import curate.pipeline.embeddings as e; e._CHUNK_ROWS = 32"
_SLOW = f"""
{_SMALL_CHUNKS}
import sys, time
import curate.pipeline.compute as compute, curate.training.callbacks as callbacks
quick, log = compute.score_batch, callbacks.Journal.on_log
compute.score_batch = lambda *words: (time.sleep(0.05), quick(*words))[1]
callbacks.Journal.on_log = lambda *words, **more: (time.sleep(0.5), log(*words, **more))[1]
"""
# Files under their temporary names last long enough to be seen.
_SEEN = f"""
{_SMALL_CHUNKS}
import time, curate.runs.atomic as runs
flush = runs._flush
runs._flush = lambda path: (time.sleep(0.02), flush(path))[1]
"""
Files = dict[str, bytes]
tally: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def _figures() -> Iterator[None]:
    yield
    kinds = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()) if not what.startswith("_"))
    tried = sum(count for what, count in tally.items() if not what.startswith("_"))
    print(f"\nfaults tried: {tried} ({kinds}); survived: {tally['_survived']}; rows lost: {tally['_lost']}")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, llama: Path, embedder: Path) -> list[str]:
    """A street of a few seconds with some 120 chunks of scores, 8 of embeddings and 3 checkpoints."""
    data = write_json_array(tmp_path_factory.mktemp("data") / "alpaca.json", alpaca_records(RECORDS))
    settings = "score.tokens_per_batch=60 cluster.count=8 run.hang_timeout=60 train.max_steps=6 train.save_steps=2"
    return [
        f"data.path={data}",
        f"model.name={llama}",
        f"embed.model={embedder}",
        *settings.split(),
        *("train.rank=4", "train.batch_size=4", "train.gradient_accumulation=1"),
    ]


class Street:
    """The same command on the same folder, as often as need be."""

    def __init__(self, folder: Path, words: Sequence[str], count: int = 1) -> None:
        self.folder, self.count, self.log = folder / "run", count, folder / "log"
        self.words = ["run", *words, f"run.dir={self.folder}"]

    def start(self, *more: str, patch: str = _SMALL_CHUNKS, file_size_limit: int | None = None) -> Launch:
        """Begin; the log is that of this call only."""
        self.log.write_text("")
        limit = file_size_limit
        return start([*self.words, *more], self.log, count=self.count, patch=patch, file_size_limit=limit)

    def finish(self, *more: str, expected: int = 0) -> str:
        """Begin and see it end with this exit code; returns the output."""
        codes = self.start(*more).wait(TIMEOUT)
        assert set(codes) == {expected}, self.log.read_text()
        return self.log.read_text()

    def published(self) -> Files:
        """Everything that others read, but for what holds times (manifest, status, training log) or this path."""
        paths = [self.folder / name for name in ("scores.parquet", "embeddings.npy", "clusters.parquet")]
        paths += [path for path in self.folder.glob("selections/**/*") if path.is_file()]
        files = {str(p.relative_to(self.folder)): p.read_bytes() for p in paths if p.name != "train_log.jsonl"}
        # how many folders up the model lies differs from place to place
        return {name: re.sub(rb"(\.\./)+", b"../", b) if name.endswith(".yaml") else b for name, b in files.items()}

    def status(self) -> dict[str, object]:
        value: dict[str, object] = json.loads((self.folder / "status.json").read_text())
        return value


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Callable[[int], tuple[Files, float]]:
    """What an undisturbed run on so many processes publishes, and how long it takes."""
    known: dict[int, tuple[Files, float]] = {}

    def reference(count: int) -> tuple[Files, float]:
        if count not in known:
            street = Street(tmp_path_factory.mktemp("reference"), words, count)
            street.start().wait(TIMEOUT)  # the first call also starts the server that the others are forked from
            shutil.rmtree(street.folder)
            started = time.monotonic()
            street.finish()
            known[count] = street.published(), time.monotonic() - started
            assert len(known[count][0]) >= 10
            assert not (street.folder / "work" / "scores").exists()
        return known[count]

    return reference


def assert_unharmed(street: Street, expected: Files, *, faults: int) -> None:
    """The folder publishes the expected bytes, and every row has its place in every stage."""
    lost = RECORDS - pq.read_metadata(street.folder / "scores.parquet").num_rows
    tally["_lost"] += lost
    assert lost == 0
    stages = json.loads((street.folder / "manifest.json").read_text())["stages"]
    assert set(stages) == {
        *("tokens", "scores", "embeddings", "clusters"),
        *("selections/main", "selections/main/trainers", "selections/main/adapter"),
    }
    for name, stage in stages.items():
        assert stage["in"] == stage["out"] + sum(stage["dropped"].values()), name
    got = street.published()
    assert sorted(got) == sorted(expected)
    assert [name for name in expected if got[name] != expected[name]] == []
    leftovers = [p for p in street.folder.rglob("*") if "curate-" in p.name]
    assert leftovers == []
    tally["_survived"] += faults


def wait_for_path(launch: Launch, folder: Path, pattern: str) -> bool:
    """Whether something of that name appeared while the launch was alive."""
    deadline = time.monotonic() + TIMEOUT
    while launch.alive():
        assert time.monotonic() < deadline
        if any(folder.glob(pattern)):
            return True
        time.sleep(0.001)
    return False


# ---------------------------------------------------------------- kill -9


@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_random_moments(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], count: int
) -> None:
    expected, seconds = references(count)
    rng, kills, folders = random.Random(count), 0, 0
    while kills < 20:
        folders += 1
        street, here = Street(tmp_path / str(folders), words, count), 0
        street.log.parent.mkdir()
        while True:
            launch = street.start()
            end = time.monotonic() + rng.uniform(0, seconds)
            while launch.alive() and time.monotonic() < end:
                time.sleep(0.005)
            if not launch.kill():
                break
            here += 1
            if rng.random() < 0.2:
                street.finish()
                break
        assert_unharmed(street, expected, faults=here)
        kills += here
    tally[f"kills at random moments on {count} process(es)"] += kills
    print(f"\n{kills} kills on {count} process(es) in {folders} runs of {seconds:.1f} s")


MOMENTS = (
    "work/.tokens.*",
    "work/texts",
    "work/tokens",
    "work/scores/key.json",
    "work/scores/.000001.chunk.*",
    "work/scores/000040.chunk",
    "work/scores/000080.chunk",
    ".scores.parquet.*",
    ".scores.*/log_prob",
    "scores.parquet",
    "work/.embeddings.*",
    "work/embeddings/000001.chunk",
    "work/embeddings/000005.chunk",
    ".embeddings.npy.*",
    "embeddings.npy",
    ".clusters.parquet.*",
    "clusters.parquet",
    "selections/.main.*",
    "selections/.main.*/kept.json",
    "selections/main/selection.parquet",
    "work/.train-main.*",
    "work/train-main/features.npz",
    "work/train-main/checkpoints/checkpoint-2",
    "work/train-main/checkpoints/checkpoint-2/complete.json",
    "work/train-main/checkpoints/checkpoint-4/optimizer.pt",
    "work/train-main/checkpoints/checkpoint-6/complete.json.tmp",
    "work/train-main/adapter/adapter_model.safetensors",
    "selections/main/.adapter.*",
    "selections/main/adapter",
)


@pytest.mark.parametrize("count", [1, 2])
def test_killed_when_a_file_appears(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], count: int
) -> None:
    expected, _ = references(count)
    street, kills, missed = Street(tmp_path, words, count), 0, []
    for moment in MOMENTS:
        launch = street.start(patch=_SEEN)
        if wait_for_path(launch, street.folder, moment) and launch.kill():
            kills += 1
            continue
        missed.append(moment)  # so the run has ended
        assert_unharmed(street, expected, faults=0)
        shutil.rmtree(street.folder)
    street.finish()
    assert_unharmed(street, expected, faults=kills)
    print(f"\n{kills} kills on {count} process(es); missed {missed}")
    assert kills >= 20
    tally[f"kills at chosen moments on {count} process(es)"] += kills


def test_killed_while_a_selection_is_replaced_by_another(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    """The folder then holds the one or the other: neither passes for the one it is not."""
    expected, _ = references(1)
    street = Street(tmp_path, words)
    street.finish()
    for moment in (".main.*.curate-tmp/dataset_info.json", ".main.*.curate-old", "main/selection.parquet"):
        launch = street.start("select.keep=20%")
        before = (street.folder / "selections/main/selection.parquet").stat().st_ino
        while launch.alive():
            there = any(street.folder.glob(f"selections/{moment}"))
            if there and (moment[0] == "." or _inode(street.folder / "selections" / moment) not in (None, before)):
                break
        killed = launch.kill()
        street.finish()
        assert_unharmed(street, expected, faults=killed)
        tally["kills while a selection was replaced"] += killed


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def test_started_with_one_number_of_processes_and_ended_with_others(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    expected, _ = references(1)
    inodes: dict[Path, int] = {}
    for count, chunk in ((2, 20), (3, 50), (1, 70)):
        street = Street(tmp_path, words, count)
        launch = street.start()
        assert wait_for_path(launch, street.folder, f"work/scores/{chunk:06d}.chunk")
        assert launch.kill()
        chunks = {path: path.stat().st_ino for path in street.folder.glob("work/scores/*.chunk")}
        assert inodes.items() <= chunks.items(), "a finished chunk was written again"
        inodes = chunks
    street.finish()
    assert_unharmed(street, expected, faults=3)
    tally["kills with another number of processes afterwards"] += 3


# ---------------------------------------------------------------- a full disk


def test_a_limit_on_the_size_of_files(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    expected, _ = references(1)
    street, ended = Street(tmp_path, words), []
    for limit in (2_000, 5_000, 9_000, 16_000, 24_000, 48_000, 90_000, 200_000):
        done = {path: path.stat().st_ino for path in street.folder.glob("work/scores/*.chunk")}
        codes = street.start(file_size_limit=limit).wait(TIMEOUT)
        if codes == [0]:
            break
        text = street.log.read_text()
        assert codes == [2], f"{limit}: {codes} {text}"
        assert re.search("curate: (a file may not grow|the disk is full)", text), text  # torch.save tells not which
        assert "the same command continues" in text
        assert "Traceback" not in text
        assert street.status()["exit_code"] == 2
        left = {path: path.stat().st_ino for path in street.folder.glob("work/scores/*.chunk")}
        assert done.items() <= left.items() or not left, "finished chunks stay"
        ended.append(limit)
    street.finish()
    assert_unharmed(street, expected, faults=len(ended))
    assert len(ended) >= 5
    tally["file size limits"] += len(ended)
    print(f"\nended by file size limits of {ended} bytes")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(
    tmp_path: Path, small_disk: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    """Space is given out in small steps; every time what there is is used up."""
    expected, _ = references(1)
    (tmp_path / "street").mkdir()
    street, ended = Street(tmp_path / "street", words), []
    (small_disk / "run").mkdir()
    street.folder.symlink_to(small_disk / "run")
    ballast = small_disk / "ballast"
    for free in (4, 40, 120, 250, 500, 560, 620, 700, 800, 1_000, 1_400):
        _fill(ballast, small_disk, free)
        codes = street.start().wait(TIMEOUT)
        if codes == [0]:
            break
        text = street.log.read_text()
        assert codes == [2], f"{free}: {codes} {text}"
        assert "curate: the disk is full" in text, text
        assert "Traceback" not in text
        ended.append(free)
    ballast.unlink()
    street.finish()
    assert_unharmed(street, expected, faults=len(ended))
    assert len(ended) >= 4
    tally["full disks"] += len(ended)
    print(f"\nended by a disk with {ended} KB left")


def _fill(ballast: Path, disk: Path, free_kilobytes: int) -> None:
    ballast.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free - 1024 * free_kilobytes
    ballast.write_bytes(bytes(max(0, free)))


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["work/scores/000010.chunk", "work/train-main/checkpoints/checkpoint-2"])
def test_an_interrupted_run_says_how_to_go_on(
    tmp_path: Path,
    words: list[str],
    references: Callable[[int], tuple[Files, float]],
    number: signal.Signals,
    moment: str,
) -> None:
    expected, _ = references(1)
    street = Street(tmp_path, words)
    launch = street.start(patch=_SLOW)
    assert wait_for_path(launch, street.folder, moment)
    launch.signal(number)
    assert launch.wait(30) == [130], street.log.read_text()
    text = street.log.read_text()
    assert "Traceback" not in text
    status = street.status()
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)
    command = shlex.split(text.partition("Continue with:\n")[2].splitlines()[0])
    assert command == ["curate", *street.words]
    street.finish()
    assert_unharmed(street, expected, faults=1)
    tally["signals"] += 1


@pytest.mark.parametrize("to", ["the launcher", "the whole group"])
def test_an_interrupted_launch_says_how_to_go_on(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], to: str
) -> None:
    expected, _ = references(2)
    street, script = Street(tmp_path, words, 2), slow_script(tmp_path)
    launch = accelerate(street.words, street.log, *on_cpus(2), program=[str(script)])
    eventually(lambda: any(street.folder.glob("work/scores/000010.chunk")), launch)
    started = time.monotonic()
    if to == "the launcher":
        launch.terminate()
    else:
        os.killpg(launch.pid, signal.SIGINT)
    assert launch.wait(60) != 0
    seconds = time.monotonic() - started
    status = street.status()
    assert (status["state"], status["exit_code"]) == ("interrupted", 130), street.log.read_text()
    assert "the same accelerate launch" in street.log.read_text()
    street.finish()
    assert_unharmed(street, expected, faults=1)
    tally["signals"] += 1
    print(f"\na signal to {to} ended the launch after {seconds:.1f} s")


# ---------------------------------------------------------------- one process of two dies or hangs


def slow_script(folder: Path, patch: str = _SLOW) -> Path:
    """A program that is curate, with time between batches in which to disturb it."""
    path = folder / "slow.py"
    path.write_text(f"{patch}\nimport sys\nfrom curate.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    return path


def eventually(condition: Callable[[], bool], launch: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert launch.poll() is None, "the launch ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def worker(launch: subprocess.Popen[bytes], rank: int) -> psutil.Process:
    """The process of that rank, a child of the launcher."""
    for child in psutil.Process(launch.pid).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child
    raise AssertionError(f"no process has rank {rank}")


@pytest.mark.parametrize(
    ("rank", "number", "moment"),
    [
        (0, signal.SIGKILL, "work/scores/000010.chunk"),
        (1, signal.SIGKILL, "work/scores/000010.chunk"),
        (0, signal.SIGSTOP, "work/scores/000010.chunk"),
        (1, signal.SIGSTOP, "work/scores/000010.chunk"),
        (1, signal.SIGKILL, "work/train-main/checkpoints/checkpoint-2"),
        (1, signal.SIGSTOP, "work/train-main/checkpoints/checkpoint-2"),
        (0, signal.SIGSTOP, "work/train-main/checkpoints/checkpoint-2"),
    ],
)
def test_a_process_that_dies_or_hangs_ends_the_launch(
    tmp_path: Path,
    words: list[str],
    references: Callable[[int], tuple[Files, float]],
    rank: int,
    number: signal.Signals,
    moment: str,
) -> None:
    """Killed: at once. Hanging: after run.hang_timeout, and 30 s more until the launcher kills what does not end."""
    expected, _ = references(2)
    hang_timeout = 12
    street = Street(tmp_path, words, 2)
    command = [*street.words, f"run.hang_timeout={hang_timeout}"]
    launch = accelerate(command, street.log, *on_cpus(2), program=[str(slow_script(tmp_path))])
    eventually(lambda: any(street.folder.glob(moment)), launch)
    started = time.monotonic()
    victim = worker(launch, rank)
    victim.send_signal(number)
    try:
        assert launch.wait(hang_timeout + 30 + 60) != 0
    finally:
        if launch.poll() is None:
            os.killpg(launch.pid, signal.SIGKILL)
    seconds = time.monotonic() - started
    status, text = street.status(), street.log.read_text()
    what = f"{number.name} to process {rank} at {moment}: {seconds:.1f} s, {status}"
    print(f"\n{what}")
    killed = number == signal.SIGKILL
    assert seconds < (45 if killed else hang_timeout + 30 + 30), what
    if not (killed and rank == 0):  # of a main process that was killed nobody can tell more than the launcher does
        assert status["state"] in ("failed", "interrupted"), what
        assert status["message"], what
    assert killed or ("curate" in text and "run.hang_timeout" in text), text
    street.finish()
    assert_unharmed(street, expected, faults=1)
    tally["processes killed" if killed else "processes stopped"] += 1


def test_a_process_that_never_comes_ends_the_launch(tmp_path: Path, words: list[str]) -> None:
    street = Street(tmp_path, [*words, "run.hang_timeout=5"], 2)
    patch = "import os, time\nif os.environ['RANK'] == '1': time.sleep(600)"
    launch = street.start(patch=patch)
    launch.processes[0].join(60)
    assert launch.processes[0].exitcode == 2, street.log.read_text()
    launch.kill()
    assert "did not all meet within 5 s" in street.log.read_text()
    assert (street.status()["state"], street.status()["exit_code"]) == ("failed", 2)
    tally["processes that never came"] += 1
    tally["_survived"] += 1


def test_a_process_that_comes_late_does_its_share(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    expected, _ = references(2)
    street = Street(tmp_path, words, 2)
    patch = f"import os, time\nif os.environ['RANK'] == '1': time.sleep(6)\n{_SMALL_CHUNKS}"
    assert street.start(patch=patch).wait(TIMEOUT) == [0, 0]
    assert_unharmed(street, expected, faults=1)
    tally["processes that came late"] += 1


# ---------------------------------------------------------------- people


@pytest.mark.parametrize("count", [1, 2])
def test_a_second_run_on_the_folder_is_refused_and_the_first_unharmed(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], count: int
) -> None:
    expected, _ = references(1)
    first = Street(tmp_path, words)
    launch = first.start(patch=_SLOW)
    assert wait_for_path(launch, first.folder, "work/scores/000005.chunk")
    second = Street(tmp_path, words, count)
    second.log = tmp_path / "second"
    intruder = second.start()
    intruder.processes[0].join(60)
    assert intruder.processes[0].exitcode == 2
    intruder.kill()
    assert f"curate: another run works in {first.folder}" in second.log.read_text()
    assert first.status()["state"] == "running"
    assert launch.wait(TIMEOUT) == [0]
    assert_unharmed(first, expected, faults=1)
    tally["second runs on a folder"] += 1


def test_what_changed_is_refused_by_name_and_the_unchanged_goes_on(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], llama: Path
) -> None:
    expected, _ = references(1)
    street = Street(tmp_path, words)
    for moment in ("work/scores/000020.chunk", "work/embeddings/000002.chunk", None):
        if moment is None:
            street.finish()
        else:
            launch = street.start()
            assert wait_for_path(launch, street.folder, moment)
            launch.kill()
        changes = _changes(tmp_path, street.words, llama)
        for name, word in changes.items():
            text = street.finish(word, expected=2)
            assert re.search(rf"changed: [^\n]*\b{re.escape(name)} \(", text), f"{moment}: {name}\n{text}"
            assert "another run.dir" in text
        tally["changes refused"] += len(changes)
        tally["_survived"] += len(changes)
    street.finish()
    assert_unharmed(street, expected, faults=0)


def _changes(folder: Path, words: Sequence[str], llama: Path) -> dict[str, str]:
    """By the name that must be told: what to add to the command."""
    data = Path(next(word for word in words if word.startswith("data.path=")).partition("=")[2])
    other_data, other_model = folder / "other.json", folder / "other_model"
    other_data.write_bytes(data.read_bytes().replace(b"red", b"rad", 1))
    if not other_model.exists():
        shutil.copytree(llama, other_model)
        weights = bytearray((other_model / "model.safetensors").read_bytes())
        weights[-1000] ^= 1
        (other_model / "model.safetensors").write_bytes(weights)
    return {
        "data": f"data.path={other_data}",
        "data.limit": "data.limit=200",
        "prompt.template": "prompt.template=plain",
        "prompt.max_length": "prompt.max_length=100",
        "model": f"model.name={other_model}",
        "model.dtype": "model.dtype=bfloat16",
        "score.exits": "score.exits=[1,4]",
        "score.tokens_per_batch": "score.tokens_per_batch=70",
    }


# ---------------------------------------------------------------- damaged leftovers and memory

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zeroed": lambda content: bytes(len(content)),
    "garbage": lambda content: b"garbage",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_leftovers_are_made_anew(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]], how: str
) -> None:
    expected, _ = references(1)
    street, damaged = Street(tmp_path, words), 0
    victims = {
        "work/scores/000020.chunk": ["work/scores/000003.chunk", "work/tokens/rows.bin"],
        "work/scores/000060.chunk": ["work/scores/000040.chunk", "work/scores/key.json"],
        "work/scores/000070.chunk": ["work/tokens/input_ids.i4", "work/tokens/key.json", "status.json"],
        "work/embeddings/000002.chunk": ["work/texts/texts.utf8", "work/embeddings/rows.npy"],
        "work/embeddings/000004.chunk": ["work/embeddings/000001.chunk"],
        "work/embeddings/000006.chunk": ["work/texts/ends.i8"],
        "work/train-main/checkpoints/checkpoint-2/complete.json": ["work/train-main/features.npz"],
        "work/train-main/checkpoints/checkpoint-4/complete.json": [
            "work/train-main/checkpoints/checkpoint-4/adapter_model.safetensors"
        ],
    }
    for moment, names in victims.items():
        launch = street.start()
        assert wait_for_path(launch, street.folder, moment), street.log.read_text()
        launch.kill()
        for name in names:
            path = street.folder / name
            path.write_bytes(DAMAGE[how](path.read_bytes()))
            damaged += 1
    street.finish()
    assert_unharmed(street, expected, faults=damaged)
    tally["damaged leftovers"] += damaged


_NO_MEMORY = """
import torch, curate.scoring.score as score
plain = score.exit_hidden
def exit_hidden(parts, input_ids_BT, *more):
    if {condition}:
        raise torch.OutOfMemoryError("simulated")
    return plain(parts, input_ids_BT, *more)
score.exit_hidden = exit_hidden
"""


def test_out_of_memory_halves_batches_and_moves_scores_by_rounding_only(
    tmp_path: Path, words: list[str], references: Callable[[int], tuple[Files, float]]
) -> None:
    bigger = [*words, "score.tokens_per_batch=300"]
    plain, starved = Street(tmp_path / "plain", bigger), Street(tmp_path / "starved", bigger)
    for street, patch in ((plain, ""), (starved, _NO_MEMORY.format(condition="len(input_ids_BT) > 5"))):
        street.folder.parent.mkdir()
        street.words[0] = "score"
        assert street.start(patch=patch).wait(TIMEOUT) == [0], street.log.read_text()
    split = json.loads((starved.folder / "manifest.json").read_text())["stages"]["scores"][
        "chunks_split_by_out_of_memory"
    ]
    assert len(split) > 10
    assert "out of memory" in starved.log.read_text()
    expected, got = (pq.read_table(street.folder / "scores.parquet") for street in (plain, starved))
    for column in ("row", "id", "status"):
        assert got[column] == expected[column]
    for column in ("confidence", "log_prob"):
        a, b = (np.array([v or [np.nan] * 4 for v in t[column].to_pylist()]) for t in (expected, got))
        np.testing.assert_allclose(b, a, atol=1e-5, rtol=1e-5)
    tally["batches halved for memory"] += len(split)
    tally["_survived"] += len(split)


def test_a_record_too_large_for_the_memory_gets_a_status_and_the_others_their_scores(
    tmp_path: Path, words: list[str]
) -> None:
    street = Street(tmp_path, words)
    street.words[0] = "score"
    patch = _NO_MEMORY.format(condition="input_ids_BT.shape[1] > 40")
    assert street.start(patch=patch).wait(TIMEOUT) == [0], street.log.read_text()
    scores = pq.read_table(street.folder / "scores.parquet")
    status, complexity = scores["status"].to_pylist(), scores["complexity"].to_pylist()
    assert 0 < status.count("out_of_memory") < RECORDS / 2
    assert all((value is None) == (state != "scored") for state, value in zip(status, complexity, strict=True))
    tally["records too large for the memory"] += status.count("out_of_memory")
    tally["_survived"] += status.count("out_of_memory")


def test_after_too_many_scores_that_are_not_finite_the_folder_takes_another_dtype(
    tmp_path: Path, words: list[str]
) -> None:
    """On two processes, of which the one that finds out need not be the main one."""
    street = Street(tmp_path, words, 2)
    street.words[0] = "score"
    patch = (
        "import os, curate.scoring.score as score\nplain = score.exit_log_probs\n"
        "if os.environ['RANK'] == '1': score.exit_log_probs = lambda *words: plain(*words) * float('nan')"
    )
    launch = street.start("model.dtype=bfloat16", patch=patch)
    launch.processes[1].join(60)
    assert launch.processes[1].exitcode == 2, street.log.read_text()
    launch.signal(signal.SIGTERM)  # as the launcher does
    launch.processes[0].join(30)
    launch.kill()
    assert "are not finite" in street.log.read_text()
    street.finish("model.dtype=float32")
    plain = Street(tmp_path / "plain", words)
    plain.folder.parent.mkdir()
    plain.words[0] = "score"
    plain.finish()
    assert (street.folder / "scores.parquet").read_bytes() == (plain.folder / "scores.parquet").read_bytes()
    tally["runs in a dtype that overflows"] += 1
    tally["_survived"] += 1
