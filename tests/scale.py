"""One stage on many generated records, in a process of its own whose memory is watched; prints a line of JSON.

python tests/scale.py score 100000 FOLDER MODEL
python tests/scale.py select 1000000 FOLDER MODEL
"""

# ruff: noqa: T201 - the figures are for the person who runs it

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import Recipe, load_recipe
from curate.types import ROW, STATUSES, BatchScores, TokenStore

WIDTH = 32
EXITS = [1, 2]
_BLOCK = 65_536


def main(stage: str, count: int, folder: Path, model: str) -> None:
    """Prepare `count` records, then do the stage with its memory watched."""
    data = folder / "data.jsonl"
    write_data(data, count)
    words = [f"data.path={data}", f"model.name={model}", "prompt.template=plain", f"run.dir={folder / 'run'}"]
    recipe = load_recipe(None, words)
    if stage == "select":
        recipe = prepare_run(recipe, data, count)
    perform = load(stage)
    before, started = anonymous_memory(), time.monotonic()
    with Watch() as watch:
        perform(recipe)
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"rows": count, "before": before, "peak": watch.peak, "seconds": seconds}))


def load(stage: str) -> Any:
    """The stage's function, everything it needs imported: libraries are not what is measured."""
    import curate.pipeline.clusters
    import curate.pipeline.scores
    import curate.pipeline.selection  # noqa: F401
    from curate.pipeline import perform

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    return lambda recipe: perform("score" if stage == "score" else "select", recipe)


def write_data(path: Path, count: int) -> None:
    """Short records, every tenth like the one before."""
    with path.open("w", encoding="utf-8") as file:
        for row in range(count):
            number = row - (row % 10 == 9)
            record = {"instruction": f"count {number}", "input": "", "output": "red sum " * (1 + number % 4) + "river"}
            file.write(json.dumps(record) + "\n")


def prepare_run(recipe: Recipe, data: Path, count: int) -> Recipe:
    """A run folder as it stands after scoring and embedding, with random numbers in it."""
    from curate.pipeline.settle import token_settings
    from curate.read.files import open_source, source_sha256
    from curate.runs.folder import RunFolder
    from curate.tables.scores import write_scores

    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"format": "alpaca"}),
            "prompt": recipe.prompt.model_copy(update={"max_length": 128}),
        }
    )
    run = RunFolder(Path(recipe.run.dir))
    run.path.mkdir()
    table = TokenStore(np.zeros(0, np.int32), np.zeros(0, np.uint8), rows_of(count))
    write_scores(run.path / "scores.parquet", table, random_scores(count), layers=EXITS, num_layers=2)
    vectors = np.lib.format.open_memmap(run.path / "embeddings.npy", "w+", np.float32, (count, WIDTH))
    rng = np.random.default_rng(0)
    for start in range(0, count, _BLOCK):
        block = rng.standard_normal((min(_BLOCK, count - start), WIDTH), np.float32)
        vectors[start : start + _BLOCK] = block / np.linalg.norm(block, axis=1, keepdims=True)
    vectors.flush()
    key = {"data": source_sha256(open_source(recipe.data)), **token_settings(recipe)}
    counts = {"in": count, "out": count, "dropped": {}}
    run.record("scores", key, **counts)
    run.record("embeddings", key, **counts)
    return recipe


def rows_of(count: int) -> Any:
    """Rows of a token table; every tenth record has the id of the one before."""
    rows = np.zeros(count, ROW)
    rows["end"], rows["scored"], rows["needed"] = 9 * np.arange(1, count + 1), 4, 8
    ids = [hashlib.sha256(str(row - (row % 10 == 9)).encode()).digest() for row in range(count)]
    rows["id"] = np.array(ids, "V32")
    return rows


def random_scores(count: int) -> Iterator[BatchScores]:
    """Confidence and log-probability for every row."""
    rng = np.random.default_rng(1)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        confidence = rng.random((len(rows), len(EXITS)), np.float32)
        status = np.full(len(rows), STATUSES.index("scored"), np.uint8)
        yield BatchScores(rows, status, confidence, np.log(confidence))


def anonymous_memory() -> int:
    """Bytes of this process that are not pages of a file, which the system may drop."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no RssAnon in /proc/self/status")


class Watch:
    """Looks at the memory every few milliseconds while it is open."""

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, anonymous_memory())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
