"""Everything that a comparison found, as one value; comparison.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.compare.labels import Agreement, KeptShare
from curate.compare.statistics import Lengths, Overlaps, RankCorrelations
from curate.compare.table import Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table of a comparison, and what stands beside it.

    rows               of the table
    overlaps           between the selections of one keep, by keep
    lengths            of what each selection keeps, by keep and selector
    rank_correlations  between scores; None without scores
    agreements         of scores and selections with labels, by the name of the score or selection
    kept_shares        of every label's values, by selection and label
    about              what the person needs to read it: settings, versions, the command
    """

    rows: tuple[Row, ...]
    overlaps: Mapping[str, Overlaps] = field(default_factory=dict)
    lengths: Mapping[str, Mapping[str, Lengths]] = field(default_factory=dict)
    rank_correlations: RankCorrelations | None = None
    agreements: Mapping[str, tuple[Agreement, ...]] = field(default_factory=dict)
    kept_shares: Mapping[str, Mapping[str, tuple[KeptShare, ...]]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
