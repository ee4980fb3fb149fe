"""What each exit of a model knows, and how far the kept records depend on which exits are averaged.

    curate score data.path=alpaca.json model.name=FOLDER score.exits=10 run.dir=runs/exits
    curate embed runs/exits/recipe.yaml
    python tests/benchmarks/bench_exits.py runs/exits [RESULT.json]

Nothing is trained: this says how the score behaves, not what it is worth.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from curate.compare.statistics import overlaps, rank_correlations
from curate.selection import Candidates, Rule, select
from curate.tables.clusters import read_clusters
from curate.tables.score_columns import read_about, read_column, read_exit, read_rows

LENGTHS = "response_tokens"


def subsets(exits: list[int]) -> dict[str, list[int]]:
    """Return the averages that are compared, as lists of layers."""
    half = len(exits) // 2
    return {
        "all": exits,
        "every second": exits[1::2],
        "first half": exits[:half],
        "last half": exits[half:],
        "last three": exits[-3:],
        "last": exits[-1:],
    }


def measure(run: Path, keep: str) -> dict[str, Any]:
    """Return what the exits of a scored and clustered run know, and what averages of them have in common."""
    path = run / "scores.parquet"
    exits, rows = read_about(path).exits, read_rows(path)
    lengths = np.where(rows.status == 0, rows.response_tokens, np.nan)
    named = subsets(list(exits))
    scores = {name: read_column(path, "complexity", exits=some) for name, some in named.items()}
    clusters = read_clusters(run / "clusters.parquet")
    kept = {
        name: select(
            Candidates(rows.status, rows.response_tokens, {"complexity": score}, clusters, rows.duplicate_ids),
            Rule(keep=keep),
        ).kept
        for name, score in scores.items()
    }
    correlations = rank_correlations({**scores, LENGTHS: lengths, "perplexity": read_column(path, "perplexity")})
    shared = overlaps(kept)
    return {
        "records": int((rows.status == 0).sum()),
        "exits": [
            {
                "layer": layer,
                "mean_confidence": round(float(np.nanmean(read_exit(path, "confidence", layer))), 4),
                "mean_log_prob": round(float(np.nanmean(read_exit(path, "log_prob", layer))), 3),
            }
            for layer in exits
        ],
        "subsets": named,
        "keep": keep,
        "rank_correlation": {
            name: dict(zip(correlations.names, np.round(row, 3).tolist(), strict=True))
            for name, row in zip(correlations.names, correlations.rho, strict=True)
        },
        "share_of_kept_in_common": {
            name: dict(zip(shared.names, np.round(row / row.max(), 3).tolist(), strict=True))
            for name, row in zip(shared.names, shared.count, strict=True)
        },
        "in_common_by_chance": round(float(shared.by_chance[0, 0] / shared.count[0, 0]), 3),
        "mean_tokens_kept": {name: round(float(lengths[mask].mean()), 1) for name, mask in kept.items()},
        "mean_tokens": round(float(np.nanmean(lengths)), 1),
    }


def main() -> None:
    """Print the figures, and write them to a file if one is named."""
    text = json.dumps(measure(Path(sys.argv[1]), "10%"), indent=1)
    print(text)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
