"""The result of a comparison as one value; comparison.json holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.compare.labels import Agreement, KeptShare
from curate.compare.statistics import Lengths, Overlaps, RankCorrelations
from curate.compare.table import Row


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table of a comparison, and what is shown beside it.

    rows               rows of the table
    overlaps           keep -> overlaps between the selections of that keep
    lengths            keep -> selector -> response lengths of the records that it keeps
    rank_correlations  rank correlations between scores; None without scores
    agreements         name of a score or selection -> its agreement with every label
    kept_shares        selection -> label -> how much of each value of the label it keeps
    about              what a person needs to read it: settings, versions, the command
    """

    rows: tuple[Row, ...]
    overlaps: Mapping[str, Overlaps] = field(default_factory=dict)
    lengths: Mapping[str, Mapping[str, Lengths]] = field(default_factory=dict)
    rank_correlations: RankCorrelations | None = None
    agreements: Mapping[str, tuple[Agreement, ...]] = field(default_factory=dict)
    kept_shares: Mapping[str, Mapping[str, tuple[KeptShare, ...]]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
