"""Subnets by dropout on what every attention and MLP adds to the residual stream.

    dropout_confidence = mean over rates of 1 / perplexity = mean over rates of exp(log_prob)        high = easy

At rate p every number of a branch's output is dropped with probability p, and what is left is divided by 1 - p, before
it is added to the stream. The numbers come from a hash of (seed, record id, rate), the branch, the token's position in
its record and the channel, so a record has the same masks alone or in any batch, in any process, on CPU and GPU.

A prefix that records share is not computed once here: each record has masks of its own over all of its tokens.

Source: arXiv 2402.05356 v1 (dropout subnets, rates .1 to .9). Hash: SplitMix64 (Steele, Lea, Flood: Fast splittable
pseudorandom number generators, OOPSLA 2014).

Shape letters: B batch, T sequence, H hidden width, N response tokens, K rates, R records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from curate.scoring.branches import find_branches
from curate.scoring.parts import DecoderParts, first_tensor
from curate.scoring.score import Batch, ScoringModel, exit_log_probs, full_model, score_records
from curate.types import BatchScores, FloatArray, IntArray, TokenStore

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # SplitMix64's constants as signed numbers
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


@dataclass(frozen=True, slots=True)
class DropoutSubnets:
    """The subnets of a model by dropout.

    branches  the modules whose outputs are dropped from, in a fixed order
    rates     one subnet each, from 0 to below 1
    seed      of all masks
    """

    branches: tuple[nn.Module, ...]
    rates: tuple[float, ...]
    seed: int


def dropout_subnets(parts: DecoderParts, rates: Sequence[float], *, seed: int) -> DropoutSubnets:
    """Find where a model's dropout goes, once for all batches.

    Raises:
        CurateError: this architecture's branches cannot be found.
    """
    branches = tuple(module for layer in find_branches(parts) for module in layer)
    return DropoutSubnets(branches, tuple(rates), seed)


def score_dropout(scorer: ScoringModel, subnets: DropoutSubnets, store: TokenStore, rows: IntArray) -> BatchScores:
    """Score the records of one batch under every rate: a column per rate, of the full model's last layer.

    Out of memory and numbers that are not finite: as in `score.score_records`.
    """
    full = full_model(scorer)

    def forward(batch: Batch) -> Tensor:
        ids = store.rows["id"][batch.rows]
        columns = []
        for rate in subnets.rates:
            keys_B = torch.from_numpy(record_keys(ids, rate, subnets.seed)).to(scorer.parts.device)
            with branch_dropout(subnets.branches, rate, keys_B):
                columns.append(exit_log_probs(full, batch))
        return torch.cat(columns)

    return score_records(forward, store, rows, num_columns=len(subnets.rates))


def dropout_confidence(log_prob_RK: npt.NDArray[np.floating]) -> FloatArray:
    """Mean over the K rates of 1/perplexity: in [0, 1], high = easy. float64 [R].

    >>> dropout_confidence(np.log([[0.5, 0.25]])).round(6).tolist()
    [0.375]
    """
    confidence: FloatArray = np.exp(np.asarray(log_prob_RK, dtype=np.float64)).mean(axis=1)
    return confidence


def record_keys(ids: npt.NDArray[np.void], rate: float, seed: int) -> IntArray:
    """64 bits for every record, from a SHA-256 of the seed, the rate and the record's id: int64 [B]."""
    head = f"curate dropout {seed} {float(rate)!r} ".encode()
    digests = b"".join(hashlib.sha256(head + bytes(id_)).digest()[:8] for id_ in ids)
    return np.frombuffer(digests, "<i8").astype(np.int64)


@contextmanager
def branch_dropout(branches: Sequence[nn.Module], rate: float, keys_B: Tensor) -> Iterator[None]:
    """While open, a forward pass over a batch drops from the output of every branch; `keys_B` are its records' keys.

    The batch is padded on the right and holds every record from its first token on.
    """

    def hook(number: int) -> Callable[..., Any]:
        def drop(module: nn.Module, args: Any, output: Any) -> Any:
            hidden = first_tensor(output)
            assert hidden is not None
            dropped = drop_from(hidden, rate, keys_B.to(hidden.device), number)
            return dropped if isinstance(output, Tensor) else type(output)((dropped, *output[1:]))

        return drop

    handles = [module.register_forward_hook(hook(number)) for number, module in enumerate(branches)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def drop_from(hidden: Tensor, rate: float, keys_B: Tensor, number: int) -> Tensor:
    """A branch's output [B, T, H] (or [B * T, H]) with numbers dropped and the others divided by 1 - rate."""
    width = hidden.shape[-1]
    length = hidden.numel() // (len(keys_B) * width)
    keep = keep_mask(keys_B, number, length, width, rate).view(hidden.shape)
    return (hidden * (1 / (1 - rate))).masked_fill_(~keep, 0)


def keep_mask(keys_B: Tensor, number: int, length: int, width: int, rate: float) -> Tensor:
    """Which numbers of the branch's output are kept: bool [B, length, width], each with probability 1 - rate.

    A longer record or a wider batch has the same mask where both are. Position t of branch `number` has a generator
    of its own; each of its 64-bit numbers serves two channels, 32 bits each.
    """
    positions = torch.arange(length, device=keys_B.device) + (number << 32)
    states_BT = mix(keys_B[:, None] + (positions + 1) * _GOLDEN)
    steps = torch.arange(1, (width + 1) // 2 + 1, device=keys_B.device) * _GOLDEN
    random = mix(states_BT[..., None] + steps).view(torch.int32)[..., :width]
    return random >= min(round(rate * (1 << 32)), (1 << 32) - 1) - (1 << 31)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's output function on int64, which wraps around; every input has an output of its own.

    >>> [n % (1 << 64) for n in mix(torch.tensor([1234567]) + _GOLDEN * torch.tensor([1, 2])).tolist()]
    [6457827717110365317, 3203168211198807973]
    """
    z = (z ^ _shifted(z, 30)) * _MIX[0]
    z = (z ^ _shifted(z, 27)) * _MIX[1]
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
