"""Names clusters after words that are frequent in them and rare in the others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

# Letters only: numbers and markup name no subject.
_WORD = re.compile(r"[^\W\d_]{3,20}")


def cluster_names(texts: Iterable[tuple[int, str]], *, words: int = 3) -> dict[int, str]:
    """Return a name for every cluster that has texts: its words of highest weight, the highest first.

    The weight of a word in a cluster is p * log(p / q) * log(1 / q). Here p is the fraction of the cluster's texts that
    contain the word, and q the fraction of all texts. The weight is large for words that are frequent in the cluster
    and rare in the others, and near zero for "the". Ties go to the more frequent word, then to alphabetical order. A
    cluster whose texts have no words gets no name.

    Args:
        texts: pairs of a cluster and a text; negative clusters are left out.
        words: number of words in a name.

    >>> cluster_names([(0, "Bake the bread"), (0, "Bake the cake"), *[(1, "Sum the numbers")] * 4], words=1)
    {0: 'bake', 1: 'numbers'}
    """
    inside: dict[int, Counter[str]] = {}
    sizes: Counter[int] = Counter()
    for cluster, text in texts:
        if cluster >= 0:
            sizes[cluster] += 1
            # A set: a word counts once per text, so that one long text cannot name a cluster.
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
