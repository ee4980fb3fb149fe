"""Names clusters after the words that are frequent in them and rare elsewhere."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]{3,20}")


def cluster_names(texts: Iterable[tuple[int, str]], *, words: int = 3) -> dict[int, str]:
    """Return a name for every cluster that has texts: its most telling words, the first the most telling.

    A word's weight in a cluster is p * log(p / q) * log(1 / q): p is the fraction of the cluster's texts that hold
    the word, q that of all texts. It is large for words that are frequent here and rare elsewhere, and near zero for
    "the". Ties go to the more frequent word, then to the alphabet. A cluster whose texts have no words has no name.

    Args:
        texts: pairs of a cluster (negative ones are left out) and a text.
        words: how many words make a name.

    >>> cluster_names([(0, "Bake the bread"), (0, "Bake the cake"), *[(1, "Sum the numbers")] * 4], words=1)
    {0: 'bake', 1: 'numbers'}
    """
    inside: dict[int, Counter[str]] = {}
    sizes: Counter[int] = Counter()
    for cluster, text in texts:
        if cluster >= 0:
            sizes[cluster] += 1
            inside.setdefault(cluster, Counter()).update(set(_WORD.findall(text.lower())))
    overall: Counter[str] = Counter()
    for counts in inside.values():
        overall.update(counts)
    total = sizes.total()
    return {
        cluster: _name(counts, sizes[cluster], overall, total, words)
        for cluster, counts in sorted(inside.items())
        if counts
    }


def _name(counts: Counter[str], size: int, overall: Counter[str], total: int, words: int) -> str:
    def weight(word: str) -> float:
        fraction = counts[word] / size
        everywhere = overall[word] / total
        return fraction * math.log(fraction / everywhere) * math.log(1 / everywhere)

    return ", ".join(sorted(counts, key=lambda word: (-weight(word), -counts[word], word))[:words])
