"""What a selection is made from, and how it is to be made: two frozen dataclasses that carry and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from curate.types import Duplicates, End, FloatArray, Method, Quota

Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All input records as a selection sees them, one entry per row; N rows, D dimensions.

    status           int [N], index into `curate.types.STATUSES`
    response_tokens  int [N]; only read where the row was scored
    columns          float64 [N] by name: the scores that `Rule.by` and `Rule.within` may name; NaN where a row has none
    clusters         int [N] from 0, negative where the row has no embedding
    duplicate_ids    int [N] from 0, equal for exact duplicates; negative where a row has none
    groups           int [N], index into `group_names`; negative where the record has no such field
    group_names      the values of the field that groups are made by
    embeddings       float32 [N, D], unit rows, NaN where the row has none; may be a memory map
    held_out         bool [N], kept out of every selection (see `holdout_rows`)
    """

    status: Integers
    response_tokens: Integers
    columns: Mapping[str, FloatArray] = field(default_factory=dict)
    clusters: Integers | None = None
    duplicate_ids: Integers | None = None
    groups: Integers | None = None
    group_names: tuple[str, ...] = ()
    embeddings: npt.NDArray[np.float32] | None = None
    held_out: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """N, the number of input records."""
        return len(self.status)


@dataclass(frozen=True, slots=True)
class Rule:
    """How many records are kept, and which come first: the section `select` of a recipe as plain values.

    keep                 a share of the input rows ("10%") or a count
    method               clusters  the first by `by` of every cluster (by="random": a random draw from every cluster)
                         top       the first by `by` of all
                         random    uniform without replacement; a smaller count of the same seed keeps a subset
                         longest   the rows with the most response tokens
                         flexrand  uniform draws from an easy and a hard part (see `flexrand_split`)
                         k_center  farthest first in embedding space (see `farthest_first`)
    by                   a name in `Candidates.columns`, response_tokens, or random
    order                the end of `by` that comes first; for flexrand the end that is easy
    quota                how the records are shared out among clusters
    min_response_tokens  a scored row with fewer is never kept
    within               column: (low, high), both inclusive, either end None; a row outside is never kept
    gamma                flexrand: the fraction of the records that is easy
    duplicates           "drop": of exact duplicates only the first by the order can be kept
    near_duplicates      cosine from which a record is passed over (see `walk`); None keeps near-duplicates
    group_quota          how the records are shared out among groups, where the candidates have groups: proportional,
                         equal, or {value: share of the kept records or count}
    seed                 of everything that is drawn
    """

    keep: int | str = "10%"
    method: Method = "clusters"
    by: str = "complexity"
    order: End = "lowest"
    quota: Quota = "proportional"
    min_response_tokens: int = 1
    within: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    gamma: float = 0.25
    duplicates: Duplicates = "drop"
    near_duplicates: float | None = None
    group_quota: Quota | Mapping[str, int | str] = "proportional"
    seed: int = 0
