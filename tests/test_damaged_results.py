"""Results of a run that somebody has edited: each is told by name, or what is left is read."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS

import curate
from curate.config import load_recipe
from curate.pipeline.settle import adopt, known_key
from curate.report.results import comparison, evaluation_tables
from curate.report.run_table import read_run
from curate.report.summary import costs
from curate.runs.folder import RunFolder
from curate.runs.manifest import facts_of
from curate.types import CurateError

RUN = Path("run")
DAMAGES: tuple[Any, ...] = (None, [], {}, "x", 1e300, 10**30, math.nan, [None], {"x": None})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value: of a list only its first element, which the others are like."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def damaged(value: Any) -> Iterator[Any]:
    """The value with something else, or nothing, in each of its places."""
    for path in places(value):
        for damage in (*DAMAGES, places):
            whole = {"root": copy.deepcopy(value)}
            at: Any = whole
            *above, last = ("root", *path)
            for key in above:
                at = at[key]
            if damage is not places:
                at[last] = damage
            elif path:
                del at[last]
            yield whole["root"]


def told(read: Callable[[], object]) -> None:
    """Read; a damage may be told by name, and nothing else may be raised."""
    with suppress(CurateError):
        read()


ROW = {
    "selector": "hard", "keep": "8", "set": "holdout", "metric": "loss_over_records", "higher_is_better": False,
    "seeds": 1, "mean": 1.0, "lowest": 1.0, "highest": 1.0, "verdict": "worse", "kept_records": 8.0,
    "kept_tokens": 80.0, "seconds": 2.5,
    "difference": {
        "value": 0.1, "low": 0.05, "high": 0.2, "covers": "records", "level": 0.95, "records": 9, "dropped": 0,
    },
}  # fmt: skip
OVERLAP = {"names": ["random", "hard"], "count": [[8, 1], [1, 8]], "by_chance": [[8.0, 0.8], [0.8, 8.0]]}
COMPARISON = {
    "rows": [ROW | {"selector": "random", "difference": None, "verdict": "reference"}, ROW],
    "overlaps": {"8": OVERLAP},
}
LOSSES = {"records": 9, "dropped": 0, "tokens": 90, "mean_over_records": 2.0, "mean_over_tokens": 2.5}
TASK = {"task": "t", "metric": "acc", "value": 0.5, "stderr": None, "samples": 8, "higher_is_better": True}
EVALUATION = {
    "definitions": {}, "sets": {"holdout": {"untuned": LOSSES, "adapter": LOSSES}}, "tasks": [TASK],
    "judge": {"wins": 1, "losses": 0, "ties": 2, "failed": 0, "first_place": None, "verdicts": []},
}  # fmt: skip
STAGES = {
    f"selections/main/{name}": {"fingerprint": "a", "key": {"adapter": "a"}} for name in ("adapter", "evaluation")
}


def test_a_comparison_with_any_damage_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(COMPARISON))
    found = comparison(tmp_path)
    assert found is not None
    assert found.overlaps[0].rows[1] == ("hard", "1 (1)", "8 (8)")
    values = list(damaged(COMPARISON))
    for value in values:
        path.write_text(json.dumps(value))
        told(lambda: comparison(tmp_path))
    assert len(values) > 200
    path.write_text("[" * 100_000)
    told(lambda: comparison(tmp_path))


def test_an_evaluation_with_any_damage_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "selections" / "main" / "evaluation.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(EVALUATION))
    losses, tasks, judge = evaluation_tables(tmp_path, "main", STAGES)
    assert losses.rows[1] == ("holdout", "mean over tokens", 9, 90, 2.5, 2.5, 0.0)
    assert (tasks.rows[0][2], judge.rows[0][:2]) == (0.5, (1, 0))
    values = list(damaged(EVALUATION))
    for value in values:
        path.write_text(json.dumps(value))
        told(lambda: evaluation_tables(tmp_path, "main", STAGES))
    assert len(values) > 200


@pytest.mark.usefixtures("workplace")
def test_a_manifest_with_any_damage_is_told_by_name() -> None:
    path, recipe = RUN / "manifest.json", load_recipe(None, WORDS)
    whole = json.loads(path.read_text())
    whole["stages"] = {name: whole["stages"][name] for name in ("tokens", "scores", "selections/main")}
    whole = {name: whole[name] for name in ("model", "versions", "stages")}

    def read() -> None:
        folder = RunFolder(RUN)
        costs(folder.stages(), "main")
        str(facts_of(folder.manifest(), "model", path).get("name"))
        facts_of(folder.manifest(), "versions", path)
        read_run(RUN, "main")
        repr(curate.open(RUN))
        adopt(recipe, known_key(folder))

    read()
    values = list(damaged(whole))
    for value in values:
        path.write_text(json.dumps(value))
        told(read)
    assert len(values) > 500


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"state": []}', '{"state": "failed", "message": {}}', "[" * 100_000]
)
def test_a_damaged_status_is_none(text: str) -> None:
    (RUN / "status.json").write_text(text)
    assert repr(curate.open(RUN)).startswith("Run('run': 78 of 80 records scored")
