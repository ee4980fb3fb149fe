"""A comparison killed at random moments and repeated gives the same cells and the same table."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import alpaca_records, write_json_array
from processes import start

pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
KILLS, TIMEOUT = 12, 240.0


def table_of(run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the table and the losses of every cell, without what a clock says."""
    rows = json.loads((run / "comparison.json").read_text())["rows"]
    cells = sorted((run / "comparison").iterdir())
    losses = [
        {"cell": cell.name, **row} for cell in cells for row in pq.read_table(cell / "evaluation.parquet").to_pylist()
    ]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows], losses


@pytest.mark.parametrize("count", [1, 2])
def test_a_comparison_killed_at_random_and_repeated_gives_the_same_table(
    tmp_path: Path, llama: Path, embedder: Path, count: int
) -> None:
    data = write_json_array(tmp_path / "alpaca.json", alpaca_records(120))
    words = [
        *("compare", f"data.path={data}", f"model.name={llama}", f"embed.model={embedder}", "data.holdout=12"),
        *("compare.selectors=[random, clusters, longest]", "compare.seeds=2", "compare.keep=[10]"),
        *("train.max_steps=6", "train.save_steps=2", "train.rank=4", "cluster.count=4", "run.hang_timeout=60"),
        *("train.batch_size=4", "train.gradient_accumulation=1"),
    ]
    log = tmp_path / "log"
    start([*words, f"run.dir={tmp_path / 'warm'}"], log, count=count).wait(TIMEOUT)  # also starts the fork server
    started = time.monotonic()
    assert set(start([*words, f"run.dir={tmp_path / 'once'}"], log, count=count).wait(TIMEOUT)) == {0}
    seconds = time.monotonic() - started
    expected, rng, kills, run = table_of(tmp_path / "once"), random.Random(count), 0, tmp_path / "killed"
    while kills < KILLS:
        launch = start([*words, f"run.dir={run}"], log, count=count)
        end = time.monotonic() + rng.uniform(0, seconds / 2)
        while launch.alive() and time.monotonic() < end:
            time.sleep(0.005)
        if not launch.kill():
            break  # done before it could be killed: what is left is to see what it came to
        kills += 1
    assert kills > 3
    assert set(start([*words, f"run.dir={run}"], log, count=count).wait(TIMEOUT)) == {0}, log.read_text()
    assert table_of(run) == expected
    assert [path for path in run.rglob("*") if "curate-" in path.name] == []
    assert not any((run / "work").glob("cell-*"))
