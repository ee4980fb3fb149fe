"""A small run on disk for the tests of curate.report: drawn from a seed, with texts that try to break out."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.tables.scores import scores_schema
from curate.types import Example, Turn

EXITS, LAYERS = (1, 2, 4), 4
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    '<img src=x onerror="window.hacked = 3"> <!-- <script>',
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u202etxt.exe \u2066hidden\u2069",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f389 caf\u00e9",
    "NUL \x00 escape \x1b[31mred bell \x07",
    "{{ 7 * 7 }} {% raw %} ]]> &lt;b&gt; \\u003c",
    "w" * 3_000,
    "tags \U000e0041\U000e0042 soft\xadhyphen filler \u3164 end",
)
WORDS = {0: "bake bread flour oven", 1: "sum numbers equation", 2: "poem verse rhyme", 3: "city travel hotel"}


class Elements(HTMLParser):
    """Start tags with their attributes, and the text inside scripts and styles by id."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"} and self.cdata_elem:
            self.inside.append((*self.tags[-1], data))
        else:
            self.words.append(data)

    def script(self, name: str) -> str:
        return "".join(data for tag, attrs, data in self.inside if tag == "script" and attrs.get("id") == name)


def texts(rows: int, *, length: int = 3, seed: int = 0) -> list[Example]:
    """Records of Alpaca's kind; the first are hostile, and the last one could not be read."""
    rng = np.random.default_rng(seed)
    examples = []
    for row in range(rows):
        words = WORDS[row % 4].split()
        prompt = HOSTILE[row] if row < len(HOSTILE) else f"Please {' '.join(rng.permutation(words))} the thing {row}"
        answer = " ".join(f"{n:x}" for n in rng.integers(0, 1 << 20, length).tolist())
        examples.append(Example(row, f"{row:064x}", (Turn("user", prompt), Turn("assistant", answer))))
    examples[-1] = Example(rows - 1, f"{rows - 1:064x}", (), problem="data.json:9: not JSON: <b>")
    return examples


def write_run(folder: Path, rows: int = 60, *, groups: bool = False, seed: int = 0) -> Path:
    """A run with the selections `main` (by cluster) and `other` (top of all); the last row is not scored."""
    rng = np.random.default_rng(seed)
    confidence = np.sort(rng.uniform(0.05, 0.9, (rows, len(EXITS))), axis=1).astype(np.float32)
    scored = np.arange(rows) < rows - 1
    complexity = np.where(scored, 1 - confidence.mean(axis=1), np.nan)
    tokens = rng.integers(1, 400, rows).astype(np.int32)
    cluster = np.where(scored, np.arange(rows) % 4, -1).astype(np.int32)
    folder.mkdir(parents=True)
    table = {
        "row": np.arange(rows),
        "id": [f"{row:064x}" for row in range(rows)],
        "status": ["scored"] * (rows - 1) + ["bad_record"],
        "truncated": [False] * rows,
        "prompt_tokens": pa.array(tokens // 2 + 1, mask=~scored),
        "response_tokens": pa.array(tokens, mask=~scored),
        "complexity": pa.array(complexity, mask=~scored),
        "confidence": [list(c) if s else None for c, s in zip(confidence, scored, strict=True)],
        "log_prob": [list(np.log(c)) if s else None for c, s in zip(confidence, scored, strict=True)],
        "perplexity": pa.array(1 / confidence[:, -1].astype(float), mask=~scored),
    }
    pq.write_table(pa.table(table, schema=scores_schema(EXITS, LAYERS)), folder / "scores.parquet")
    vectors = rng.normal(size=(rows, 8)) + 4 * np.eye(8)[np.maximum(cluster, 0)]
    vectors[~scored] = np.nan
    np.save(folder / "embeddings.npy", vectors.astype(np.float32))
    labels = np.array(["red", "<b>green</b>"], object)[np.arange(rows) // 4 % 2] if groups else None
    strata = {"main": cluster, "other": np.where(scored, 0, -1).astype(np.int32)}
    for name, stratum in strata.items():
        _write_selection(folder / "selections" / name, complexity, stratum, cluster, labels)
    _write_manifest(folder, rows, {"main": "clusters", "other": "top"})
    return folder


def _write_selection(folder: Path, score: np.ndarray, stratum: np.ndarray, cluster: np.ndarray, groups: object) -> None:
    rows = len(score)
    rank = np.full(rows, -1, np.int32)
    for label in range(stratum.max() + 1):
        members = np.flatnonzero(stratum == label)
        rank[members[np.argsort(score[members], kind="stable")]] = np.arange(len(members))
    kept = (rank >= 0) & (rank < max(1, rows // 10 // (stratum.max() + 1)))
    columns = {
        "row": pa.array(range(rows), pa.int64()),
        "id": [f"{row:064x}" for row in range(rows)],
        "kept": kept,
        "reason": ["kept" if k else "outranked" if r >= 0 else "bad_record" for k, r in zip(kept, rank, strict=True)],
        "cluster": pa.array(cluster, mask=cluster < 0),
        "rank": pa.array(rank, mask=rank < 0),
    }
    if groups is not None:
        columns["group"] = pa.array(list(groups), pa.string())
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "selection.parquet")


def _write_manifest(folder: Path, rows: int, methods: dict[str, str]) -> None:
    stages: dict[str, object] = {"tokens": {"in": rows, "out": rows - 1, "seconds": 1.5, "tokens": 12_345}}
    for name, method in methods.items():
        key = {"select.method": method, "select.by": "complexity", "select.order": "lowest", "select.exits": None}
        stages[f"selections/{name}"] = {"key": key, "in": rows, "out": rows // 10, "seconds": 0.5}
    manifest = {"versions": {"torch": "2"}, "model": {"name": f"{folder}/the-model"}, "stages": stages}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "recipe.yaml").write_text(f"data:\n  path: {folder}/data.json\nselect:\n  keep: 10%\n")
