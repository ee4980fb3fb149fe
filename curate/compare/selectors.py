"""The built-in selectors of a comparison by name, each as settings of `select.*`. A new one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.types import CurateError

# Just below one: an IFD of 1 means that the prompt does not help, and select.within includes its ends.
_BELOW_ONE = 1 - 1e-12

BUILT_IN: dict[str, Mapping[str, Any]] = {
    # Ours: the easiest of every cluster (arXiv 2402.05356 v1, with early exits as subnets).
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
"""Selector -> settings. `last_exit` is not here: it is `clusters` with the last layer as only exit, which is a number
that depends on the model (`settings_of`)."""

LENGTHS_OF = {"random_same_lengths": "clusters"}
"""Built-in selectors that keep as many records of each length as another one does."""


def settings_of(name: str, *, num_layers: int) -> dict[str, Any]:
    """Return the settings of `select.*` of a built-in selector, for a model of `num_layers` layers.

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
