"""Keeps tokens on disk: written once, record by record, then memory-mapped by every stage and process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from curate.tokens.labels import training_labels
from curate.types import ROW, SCORED, STATUSES, IntArray, Tokens, TokenStore

_FILES = ("input_ids.i4", "marks.u1", "rows.bin")


def write_tokens(tokens: Iterable[Tokens], folder: Path) -> Iterator[int]:
    """Write every record's tokens into the three files of `folder`; yield the number of records written so far.

    Memory does not grow with the number of records. The files are complete only when the iterator is exhausted: write
    into a temporary folder and rename it then.
    """
    folder.mkdir(parents=True)
    end = 0
    with ExitStack() as stack:
        ids_file, marks_file, rows_file = (stack.enter_context(open(folder / name, "wb")) for name in _FILES)
        for count, record in enumerate(tokens, start=1):
            assert record.row == count - 1, "one Tokens per input row, in order"
            end += len(record.input_ids)
            scored = np.flatnonzero(record.marks == SCORED)
            assert not len(scored) or scored[0] > 0, "nothing predicts the first token"
            row = np.zeros((), ROW)
            # needed: the last scored token is only predicted, so the model must see what is before it and no more.
            row["end"], row["scored"], row["needed"] = end, len(scored), scored[-1] if len(scored) else 0
            row["control_hits"], row["truncated"] = record.control_hits, record.truncated
            row["status"], row["id"] = STATUSES.index(record.status), bytes.fromhex(record.id)
            ids_file.write(np.ascontiguousarray(record.input_ids, np.int32).tobytes())
            marks_file.write(np.ascontiguousarray(record.marks, np.uint8).tobytes())
            rows_file.write(row.tobytes())
            yield count


def open_tokens(folder: Path) -> TokenStore:
    """Memory-map what `write_tokens` wrote."""
    dtypes: tuple[np.dtype[Any], ...] = (np.dtype(np.int32), np.dtype(np.uint8), ROW)
    ids, marks, rows = (
        np.memmap(folder / name, dtype=dtype, mode="r")
        if (folder / name).stat().st_size
        else np.zeros(0, dtype)  # an empty file cannot be mapped
        for name, dtype in zip(_FILES, dtypes, strict=True)
    )
    return TokenStore(ids, marks, rows)


def stored_tokens(store: TokenStore, rows: IntArray) -> Iterator[Tokens]:
    """Yield the Tokens of `rows` as they were written, without `reason` and `notes`, which are not stored."""
    for row in rows.tolist():
        span, about = store.span(row), store.rows[row]
        yield Tokens(
            row,
            about["id"].tobytes().hex(),
            STATUSES[about["status"]],
            bool(about["truncated"]),
            np.asarray(store.input_ids[span]),
            np.asarray(store.marks[span]),
            int(about["control_hits"]),
        )


def training_examples(
    store: TokenStore, rows: IntArray, eos_token_id: int | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (input_ids, labels) of `rows`, as `training_labels` makes them, without reading the records again.

    The rows must be scored. Use them only for a model with the same tokenizer and prompt settings.
    """
    for record in stored_tokens(store, rows):
        yield training_labels(record, eos_token_id)
