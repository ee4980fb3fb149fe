"""The selectors of a comparison by name, each as settings of `select.*`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.types import CurateError

# Just below one: select.within has closed ends, and a record whose prompt does not help at all is left out.
_BELOW_ONE = 1 - 1e-12

BUILT_IN: dict[str, Mapping[str, Any]] = {
    # ours: the easiest of every cluster (arXiv 2402.05356 v1, with early exits as subnets)
    "clusters": {"method": "clusters", "by": "complexity", "order": "lowest"},
    "top": {"method": "top", "by": "complexity", "order": "lowest"},
    "hard": {"method": "clusters", "by": "complexity", "order": "highest"},
    "random": {"method": "random"},
    "random_per_cluster": {"method": "clusters", "by": "random"},
    "random_same_lengths": {"method": "random"},  # with the lengths of LENGTHS_OF
    "longest": {"method": "longest"},  # arXiv 2402.04833
    "perplexity": {"method": "top", "by": "perplexity", "order": "lowest"},
    "ifd": {"method": "top", "by": "ifd", "order": "highest", "within": {"ifd": (None, _BELOW_ONE)}},  # 2308.12032
    "flexrand": {"method": "flexrand", "by": "complexity", "order": "lowest"},
    "masked": {"method": "flexrand", "by": "masked_loss", "order": "lowest"},  # DLC, arXiv 2402.05356 v2
    "dropout": {"method": "top", "by": "dropout_confidence", "order": "highest"},  # LC, arXiv 2402.05356 v1
    "k_center": {"method": "k_center"},
}
"""`last_exit` is the same as `clusters` by the last exit alone; which layer that is, the model says."""

LENGTHS_OF = {"random_same_lengths": "clusters"}
"""Built-in selectors that keep as many records of each length as another one does."""


def settings_of(name: str, *, num_layers: int) -> dict[str, Any]:
    """Return the settings of `select.*` that a built-in selector stands for.

    >>> settings_of("longest", num_layers=30)
    {'method': 'longest'}

    Raises:
        CurateError: there is no such selector.
    """
    if name == "last_exit":
        return {**BUILT_IN["clusters"], "exits": (num_layers,)}
    if name not in BUILT_IN:
        raise CurateError(f"expected a selector among {', '.join([*BUILT_IN, 'last_exit'])}, got {name!r}")
    return dict(BUILT_IN[name])
