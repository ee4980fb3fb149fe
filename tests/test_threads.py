"""On a CPU: the same bytes at any number of processes with the same threads each, as a launcher sets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import WORDS
from processes import on_cpus

from curate.config import load_recipe
from curate.pipeline import perform

pytestmark = pytest.mark.usefixtures("workplace")


def score(name: str, *program: str, threads: str | None) -> dict[str, object]:
    """Score in a process of its own into the folder `name`; returns the manifest."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path[1:]), "HF_HUB_OFFLINE": "1"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = threads
    words = [*WORDS, f"run.dir={name}", "score.tokens_per_batch=200"]
    subprocess.run(
        [sys.executable, *program, "-m", "curate", "score", *words], env=environment, check=True, timeout=200
    )
    manifest: dict[str, object] = json.loads(Path(name, "manifest.json").read_text())
    return manifest


def test_a_launch_at_its_own_setting_equals_one_process_with_as_many_threads() -> None:
    launcher = ("-m", "accelerate.commands.accelerate_cli", "launch", *on_cpus(2))
    made = [score("launched", *launcher, threads=None), score("one", threads="1"), score("two", threads="2")]
    assert [manifest["threads"] for manifest in made] == [1, 1, 2], "a launcher sets one thread a process"
    launched, one, two = (Path(name, "scores.parquet") for name in ("launched", "one", "two"))
    assert launched.read_bytes() == one.read_bytes()
    a, b = (pq.read_table(path)["complexity"].to_numpy() for path in (one, two))
    assert np.nanmax(np.abs(a - b)) <= 1e-6


def test_a_run_that_goes_on_keeps_to_its_first_number_of_threads() -> None:
    manifest = json.loads(Path("run/manifest.json").read_text())
    before = torch.get_num_threads()
    other = 2 if before == 1 else 1
    Path("run/manifest.json").write_text(json.dumps(manifest | {"threads": other}))
    try:
        perform("score", load_recipe(None, [*WORDS, "score.ifd=true"]))
        assert torch.get_num_threads() == other
        assert json.loads(Path("run/manifest.json").read_text())["threads"] == other
    finally:
        torch.set_num_threads(before)
