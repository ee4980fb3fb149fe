"""Many records in bounded memory: what the peak is at two sizes, and by how much it grows per row."""

# ruff: noqa: T201 - the figures are for the person who runs it

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import save_llama
from processes import ENVIRONMENT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc"),
]


def measured(stage: str, count: int, folder: Path, model: Path) -> dict[str, float]:
    """What tests/scale.py prints; memory in bytes beyond what was in use before the stage."""
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).parent / "scale.py"), stage, str(count), str(folder), str(model)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    figures["used"] = figures["peak"] - figures["before"]
    print(f"\n{stage} {count:,} rows: {figures['used'] / 2**20:.0f} MiB at peak, {figures['seconds']} s")
    return figures


def growth(small: dict[str, float], large: dict[str, float]) -> float:
    """Bytes per row."""
    per_row = (large["used"] - small["used"]) / (large["rows"] - small["rows"])
    print(f"{per_row:.0f} bytes a row")
    return per_row


def test_many_records_are_tokenised_and_scored_in_memory_that_hardly_grows(
    tmp_path: Path,
) -> None:
    """Both sizes are far beyond the row groups of scores.parquet, of 65,536 rows, which are made in memory."""
    model = save_llama(tmp_path / "model", hidden=32, layers=2)
    small, large = (measured("score", count, tmp_path / str(count), model) for count in (280_000, 700_000))
    status = pq.read_table(tmp_path / "700000" / "run" / "scores.parquet", columns=["status"])["status"]
    assert status.to_pylist() == ["scored"] * 700_000
    assert growth(small, large) < 40
    assert large["used"] < 200 * 2**20


def test_a_million_rows_are_clustered_and_selected_in_memory_that_hardly_grows(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model", hidden=32, layers=2)
    small, large = (measured("select", count, tmp_path / str(count), model) for count in (300_000, 1_000_000))
    run = tmp_path / "1000000" / "run"
    kept = pq.read_table(run / "selections" / "main" / "selection.parquet", columns=["kept", "cluster"])
    assert np.asarray(kept["kept"]).sum() == 100_000
    stage = json.loads((run / "manifest.json").read_text())["stages"]["clusters"]
    assert (stage["clusters"], stage["training_points"], stage["sampled"]) == (707, 262_144, True)
    assert set(kept["cluster"].to_pylist()) == set(range(707))
    assert growth(small, large) < 45
