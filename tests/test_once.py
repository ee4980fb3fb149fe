"""What a whole run does once: hash the input, load a tokenizer; twice at most: read the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, alpaca_records, write_json_array

import curate.read.files
import curate.tokens.tokenize
from curate.config import load_recipe
from curate.pipeline import perform


def counted(counts: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        counts[name] += 1
        return function(*args, **options)

    return call


@pytest.mark.usefixtures("workplace")
def test_a_run_reads_hashes_and_tokenizes_no_more_often_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    counts: Counter[str] = Counter()
    monkeypatch.setattr("curate.read.files._sha256", counted(counts, "hash", curate.read.files._sha256))
    load = AutoTokenizer.from_pretrained

    def load_tokenizer(name: str, **options: Any) -> Any:
        counts[f"tokenizer of {Path(name).name}"] += 1
        return load(name, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load_tokenizer)
    write_json_array(Path("alpaca.json"), alpaca_records(300))
    whole = curate.read.files._read
    rows: list[int] = []

    def read(*args: Any) -> Any:
        rows.append(0)
        for found in whole(*args):
            rows[-1] += 1
            yield found

    monkeypatch.setattr("curate.read.files._read", read)
    perform("run", load_recipe(None, [*WORDS, "run.dir=traced"]))
    assert counts["hash"] == 1
    assert counts["tokenizer of llama"] == 1
    # Tokens and kept records are read once each; the format is told from the beginning of the file.
    assert sum(number == 300 for number in rows) == 2, rows
