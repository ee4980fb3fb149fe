"""Writes token ids and labels as `datasets.Dataset.save_to_disk` does; training programs read them without changes.

The three small files are not written by `datasets` itself, because it would record the folder that it writes in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

TOKENS = "train.tokens"
TABLE = "data-00000-of-00001.arrow"

_ROWS = 1024  # rows of a record batch
_COLUMNS = {"input_ids": "int32", "attention_mask": "int8", "labels": "int32"}

Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
Feature = tuple[Ids, Ids]


def write_token_set(features: Iterable[Feature], folder: Path) -> int:
    """Write input ids and labels of each record; return the length of the longest record in tokens, 0 without records.

    `datasets.load_from_disk(folder)` and `load_dataset("arrow", data_files=...)` read them.

    Args:
        features: input ids [T] and labels [T] of each record; a label of -100 is context, which the loss leaves out.
        folder: folder to create.
    """
    folder.mkdir()
    # Newer versions of datasets call this type List; all of them read "Sequence".
    types: dict[str, Any] = {
        name: {"feature": {"dtype": dtype, "_type": "Value"}, "_type": "Sequence"} for name, dtype in _COLUMNS.items()
    }
    schema = pa.schema([(name, pa.list_(pa.type_for_alias(dtype))) for name, dtype in _COLUMNS.items()])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": types}})})
    longest, rows = 0, iter(features)
    with pa.OSFile(str(folder / TABLE), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
        while chunk := list(islice(rows, _ROWS)):
            ids, labels = zip(*chunk, strict=True)
            columns = zip([ids, [np.ones(len(row), np.int8) for row in ids], labels], schema.types, strict=True)
            arrays = [pa.array(values, type) for values, type in columns]
            out.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            longest = max(longest, *map(len, ids))
    # datasets keys its cache by this fingerprint: the same records have the same, wherever they were written.
    with (folder / TABLE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    state: dict[str, Any] = {
        "_data_files": [{"filename": TABLE}],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    for name, facts in {"state.json": state, "dataset_info.json": {"features": types}}.items():
        (folder / name).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return longest


def read_token_set(folder: Path) -> Iterator[tuple[list[int], list[int]]]:
    """Yield input ids and labels of each record that `write_token_set` wrote."""
    with pa.memory_map(str(folder / TABLE)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield from zip(batch["input_ids"].to_pylist(), batch["labels"].to_pylist(), strict=True)
