"""What a selection is made from (`Candidates`) and how it is made (`Rule`): two dataclasses that compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from curate.types import Duplicates, End, FloatArray, Method, Quota

Integers = npt.NDArray[np.integer]


# eq=False: the generated comparison would ask an array for its truth, which raises.
@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All input records as a selection sees them, one entry per row; N rows, D dimensions.

    status           int [N], index into `curate.types.STATUSES`
    response_tokens  int [N]; only read where the row was scored
    columns          name -> float64 [N]: the scores that `Rule.by` and `Rule.within` may name; NaN where a row has none
    clusters         int [N], cluster from 0; negative where the row has no embedding
    duplicate_ids    int [N] from 0, equal for exact duplicates; negative where a row has none
    groups           int [N], index into `group_names`; negative where the record lacks the field
    group_names      the values of the field that makes the groups
    embeddings       float32 [N, D], unit rows, NaN where the row has none; may be a memory map
    held_out         bool [N], rows that are never kept (see `holdout_rows`)
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

    keep                 a percentage of the input rows ("10%") or a count
    method               clusters  from every cluster the first by `by` (by="random": a random draw from every cluster)
                         top       the first by `by` of all rows
                         random    uniform without replacement; a smaller count of the same seed keeps a subset
                         longest   the rows with the most response tokens
                         flexrand  uniform draws from an easy and a hard part (see `flexrand_split`)
                         k_center  farthest first in embedding space (see `farthest_first`)
    by                   a name in `Candidates.columns`, response_tokens, or random
    order                which end of `by` comes first; for flexrand, which end is easy
    quota                how the records are distributed over clusters
    min_response_tokens  a scored row with fewer is never kept
    within               column -> (low, high), both inclusive, None is no bound; a row outside is never kept
    gamma                flexrand: the fraction of the records that is easy
    duplicates           "drop": of exact duplicates only the first by the order can be kept
    near_duplicates      cosine from which a record is passed over (see `near.walk`); None keeps near-duplicates
    group_quota          how the records are distributed over groups, where the candidates have groups: proportional,
                         equal, or {value: percentage of the kept records, or count}
    seed                 seed of every draw
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
