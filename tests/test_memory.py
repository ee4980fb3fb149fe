"""What a batch holds in memory: the vocabulary and the prompt each cost their part, never one times the other."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families import FAMILIES
from test_score import record, table_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from curate.scoring.parts import find_parts
from curate.scoring.score import ScoringModel, score_batch
from curate.types import CONTEXT, SCORED, TokenStore

LLAMA = next(family for family in FAMILIES if family.name == "llama")
RESPONSE = 12


class Peak(TorchDispatchMode):
    """The most bytes of tensors that lived at once while it was open, of those that were made in it."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address and address not in self._known:
            self._known.add(address)
            self.live += storage.nbytes()
            self.most = max(self.most, self.live)
            weakref.finalize(storage, self._forget, address, storage.nbytes())

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.live -= size


def model_of(vocabulary: int) -> Any:
    torch.manual_seed(0)
    settings = {**LLAMA.settings, "vocab_size": vocabulary, "max_position_embeddings": 512}
    return type(LLAMA)("llama", "llama", settings).empty(2)


def table_with(prompt: int, folder: Path) -> TokenStore:
    marks = [CONTEXT] * prompt + [SCORED] * RESPONSE
    ids = np.random.default_rng(0).integers(3, 100, (2, len(marks)))
    return table_of([record(row, ids[row], marks) for row in range(2)], folder)


def ours(model: Any, table: TokenStore) -> int:
    scorer = ScoringModel(find_parts(model), (1, 2), head_rows=8)
    with Peak() as peak:
        score_batch(scorer, table, np.arange(2))
    return peak.most


def naive(model: Any, table: TokenStore) -> int:
    ids = torch.from_numpy(np.array(table.input_ids, np.int64)).view(2, -1)
    with Peak() as peak, torch.no_grad():
        model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    return peak.most


def cost_of_more_words(way: Callable[[Any, TokenStore], int], prompt: int, folder: Path) -> int:
    """Bytes at the peak that 100,000 words take beyond what 50,000 take."""
    table = table_with(prompt, folder)
    return way(model_of(100_000), table) - way(model_of(50_000), table)


def test_a_larger_vocabulary_costs_the_same_whatever_the_prompt(tmp_path: Path) -> None:
    """Logits and their log-softmax for eight positions: the head is what takes most, at every length of these."""
    for prompt in (20, 60, 240, 480):
        assert cost_of_more_words(ours, prompt, tmp_path / str(prompt)) == 2 * 8 * 50_000 * 4


def test_the_measure_sees_logits_of_every_prompt_position(tmp_path: Path) -> None:
    short, long = (cost_of_more_words(naive, prompt, tmp_path / str(prompt)) for prompt in (20, 60))
    assert long - short == 2 * 2 * (60 - 20) * 50_000 * 4
