"""Subnets by dropout on what every attention and MLP adds to the residual stream.

    dropout_confidence = mean over rates of 1 / perplexity = mean over rates of exp(log_prob)        high = easy

A branch is an attention or an MLP. At rate p every number of its output is dropped with probability p, and the others
are divided by 1 - p, before the output is added to the residual stream. Which numbers are dropped follows from a hash
of (seed, record id, rate), the branch, the token's position in its record and the channel. So a record has the same
masks alone or in any batch, in any process, on CPU and GPU.

No prefix cache is used here: each record has masks of its own over all of its tokens, those of the prefix too.

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

# SplitMix64's constants, less 2**64: torch has no arithmetic on uint64, and int64 wraps around to the same bits.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))


@dataclass(frozen=True, slots=True)
class DropoutSubnets:
    """The dropout subnets of a model.

    branches  the modules whose outputs dropout is applied to, in the order of their calls
    rates     the dropout rates, at least 0 and below 1; a subnet each
    seed      the seed of all masks
    """

    branches: tuple[nn.Module, ...]
    rates: tuple[float, ...]
    seed: int


def dropout_subnets(parts: DecoderParts, rates: Sequence[float], *, seed: int) -> DropoutSubnets:
    """Find the branches of a model that dropout is applied to, once for all batches.

    Raises:
        CurateError: the branches of this architecture cannot be found (`branches.find_branches`).
    """
    branches = tuple(module for layer in find_branches(parts) for module in layer)
    return DropoutSubnets(branches, tuple(rates), seed)


def score_dropout(scorer: ScoringModel, subnets: DropoutSubnets, store: TokenStore, rows: IntArray) -> BatchScores:
    """Score the records of one batch at every dropout rate, at the last layer: a column per rate.

    Out of memory and numbers that are not finite are handled as in `score.score_records`.
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
    """Average 1/perplexity over the K rates: in [0, 1], high = easy. float64 [R].

    >>> dropout_confidence(np.log([[0.5, 0.25]])).round(6).tolist()
    [0.375]
    """
    confidence: FloatArray = np.exp(np.asarray(log_prob_RK, dtype=np.float64)).mean(axis=1)
    return confidence


def record_keys(ids: npt.NDArray[np.void], rate: float, seed: int) -> IntArray:
    """Derive 64 bits for every record from a SHA-256 of the seed, the rate and the record's id: int64 [B]."""
    head = f"curate dropout {seed} {float(rate)!r} ".encode()
    digests = b"".join(hashlib.sha256(head + bytes(id_)).digest()[:8] for id_ in ids)
    return np.frombuffer(digests, "<i8").astype(np.int64)


@contextmanager
def branch_dropout(branches: Sequence[nn.Module], rate: float, keys_B: Tensor) -> Iterator[None]:
    """Apply dropout to the output of every branch while the context is open.

    `keys_B` are the keys of the records of the batch (`record_keys`). The batch must be padded on the right and hold
    every record from its first token on: a mask depends on the token's position in its record.
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
    """Drop numbers of a branch's output [B, T, H] (or [B * T, H]) and divide the others by 1 - rate.

    `number` is the branch's place among the branches, from 0.
    """
    width = hidden.shape[-1]
    # Some models hand over the tokens of the whole batch one after the other, [B * T, H].
    length = hidden.numel() // (len(keys_B) * width)
    keep = keep_mask(keys_B, number, length, width, rate).view(hidden.shape)
    return (hidden * (1 / (1 - rate))).masked_fill_(~keep, 0)


def keep_mask(keys_B: Tensor, number: int, length: int, width: int, rate: float) -> Tensor:
    """Draw which numbers of the branch's output are kept: bool [B, length, width], each with probability 1 - rate.

    Token t has the same mask whatever `length` is, so padding and batches change nothing.
    """
    # Each token of each branch has a SplitMix64 generator of its own. One 64-bit number serves two channels.
    positions = torch.arange(length, device=keys_B.device) + (number << 32)
    states_BT = mix(keys_B[:, None] + (positions + 1) * _GOLDEN)
    steps = torch.arange(1, (width + 1) // 2 + 1, device=keys_B.device) * _GOLDEN
    random = mix(states_BT[..., None] + steps).view(torch.int32)[..., :width]
    # `random` is uniform over the signed 32-bit numbers: the lowest fraction `rate` of them means "drop".
    return random >= min(round(rate * (1 << 32)), (1 << 32) - 1) - (1 << 31)


def mix(z: Tensor) -> Tensor:
    """Apply SplitMix64's output function, a bijection on 64 bits, to every number of an int64 tensor.

    The reference generator, started at 1234567, gives these two numbers first:

    >>> [n % (1 << 64) for n in mix(torch.tensor([1234567]) + _GOLDEN * torch.tensor([1, 2])).tolist()]
    [6457827717110365317, 3203168211198807973]
    """
    z = (z ^ _shifted(z, 30)) * _MIX[0]
    z = (z ^ _shifted(z, 27)) * _MIX[1]
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift to the right and fill with zeros; torch's own shift keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
