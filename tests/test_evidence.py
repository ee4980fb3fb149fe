"""What the README claims of the pilot is what the comparison found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MARKS = {"better": " +", "worse": " -", "no difference seen": " =", "reference": ""}
SETS = ("holdout", "self_instruct", "dolly", "gsm8k")


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table of the README, from the rows of a comparison."""
    found = {(row["selector"], row["set"], row["metric"]): row for row in rows}
    out = []
    for selector in dict.fromkeys(row["selector"] for row in rows):
        cells = []
        for name in SETS:
            both = (found[selector, name, metric] for metric in ("loss_over_records", "loss_over_tokens"))
            cells.append(" / ".join(f"{row['mean']:.3f}{MARKS[row['verdict']]}" for row in both))
        row = found[selector, SETS[0], "loss_over_records"]
        tokens = "" if row["kept_tokens"] is None else f"{row['kept_tokens']:,.0f}"
        out.append(f"| {selector} | {row['seeds']} | {' | '.join(cells)} | {tokens} |")
    return out


@pytest.mark.parametrize(("part", "expected"), [("two_seeds", 3), ("one_seed", 5)])
def test_the_tables_of_the_readme_are_those_of_the_comparison(part: str, expected: int) -> None:
    told = json.loads((ROOT / "recipes" / "results" / "compare-alpaca-pilot.json").read_text(encoding="utf-8"))
    evidence = re.search(r"<!-- evidence -->(.*)<!-- /evidence -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert evidence is not None
    there = [line for line in lines(told[part]["rows"]) if line in evidence[1].splitlines()]
    assert len(there) == expected
    worse = [row for row in told["two_seeds"]["rows"] if row["selector"] == "clusters" and row["verdict"] == "worse"]
    assert (len(worse) == 6) == ("on six of eight numbers" in evidence[1])
