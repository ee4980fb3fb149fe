"""Keeps the texts to embed on disk; they are written while records are tokenized, so the input is read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from curate.diversity.embed import embedding_text
from curate.types import EmbeddingText, Example, IntArray

_TEXTS, _ENDS = "texts.utf8", "ends.i8"


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of all records, one after the other, memory-mapped.

    utf8  uint8 [total bytes], the texts in UTF-8
    ends  int64 [N], where each record's text ends; it starts where the previous one ends
    """

    utf8: npt.NDArray[np.uint8]
    ends: IntArray

    def __len__(self) -> int:
        """Return N, the number of input records."""
        return len(self.ends)

    def read(self, rows: Sequence[int] | IntArray) -> list[str]:
        """Return the texts of `rows`, in their order."""
        starts = (int(self.ends[row - 1]) if row else 0 for row in rows)
        return [self.utf8[start : self.ends[row]].tobytes().decode() for row, start in zip(rows, starts, strict=True)]


def recording(examples: Iterable[Example], folder: Path, text: EmbeddingText) -> Iterator[Example]:
    """Yield the examples unchanged, and write the text of each into `folder`, which must not exist.

    The files are complete once the last example has been taken.
    """
    folder.mkdir(parents=True)
    end = 0
    with open(folder / _TEXTS, "wb") as texts, open(folder / _ENDS, "wb") as ends:
        for example in examples:
            data = embedding_text(example, text).encode()
            end += len(data)
            texts.write(data)
            ends.write(np.int64(end).tobytes())
            yield example


def open_texts(folder: Path) -> Texts:
    """Return the texts that `recording` wrote, memory-mapped."""
    dtypes: tuple[np.dtype[Any], ...] = (np.dtype(np.uint8), np.dtype(np.int64))
    utf8, ends = (
        np.memmap(folder / name, dtype=dtype, mode="r")
        if (folder / name).stat().st_size
        else np.zeros(0, dtype)  # an empty file cannot be mapped
        for name, dtype in zip((_TEXTS, _ENDS), dtypes, strict=True)
    )
    return Texts(utf8, ends)
