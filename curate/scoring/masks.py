"""Subnets by L1 masks: the same model with the weights of smallest magnitude set to zero, layer by layer.

    masked_loss = mean over subnets of -log_prob        nats per token, high = hard

In the subnet of sparsity s, round(s * n) (halves up) of the n weights of every Linear are zero. This is the intent of
the language experiments of arXiv 2402.05356 v2: sparsities 0, .2 and .36, each measured from the whole weights.

What counts as a Linear: `nn.Linear`, GPT-2's `Conv1D`, the LM head, and each expert's matrix in a stack of experts (one
3-D parameter where older versions of the library had a Linear for each). Embeddings, norms, biases, convolutions and
routers that are no `nn.Linear` stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from curate.scoring.parts import DecoderParts
from curate.types import CurateError, FloatArray

_AS_BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}
_AS_BITS |= {torch.float64: torch.int64}
_PIECE = 1 << 22  # weights looked at in one go: what is made of them on the way takes 16 times their bytes

# A piece of a weight, what stood where it is zero now, and the sum of all its bits before.
_Zeroed = tuple[Tensor, Tensor, int]


@contextmanager
def masked_weights(parts: DecoderParts, sparsity: float) -> Iterator[None]:
    """While open, the model is its subnet of that sparsity; afterwards every weight has its own bits again.

    Of equal magnitudes those that stand first in the weight as it is stored (row by row) are zeroed. A head that is
    tied to the embedding gets a copy of its own meanwhile. The values that are zeroed wait in the host's memory, that
    is `sparsity` of the bytes of the weights. A KV cache of a prefix belongs to one subnet: compute it inside.

    Raises:
        CurateError: the weights are quantised or not in memory; nothing has been changed then.
    """
    assert 0 <= sparsity < 1
    _refuse_what_cannot_be_masked(parts)
    saved: list[_Zeroed] = []
    with _untied_heads(parts.model) as copies:
        try:
            for weight in linear_weights(parts):
                _zero_smallest(weight, _count(sparsity, weight.numel()), saved, keep=id(weight) not in copies)
            yield
        finally:
            for zeroed in saved:
                _restore(*zeroed)


def masked_loss(log_prob_RK: npt.NDArray[np.floating]) -> FloatArray:
    """Mean over the K subnets of the mean cross-entropy of the response: nats per token, high = hard. float64 [R].

    >>> masked_loss(np.array([[-1.0, -2.0, -3.0]])).tolist()
    [2.0]
    """
    loss: FloatArray = -np.asarray(log_prob_RK, dtype=np.float64).mean(axis=1)
    return loss


def linear_weights(parts: DecoderParts) -> list[Tensor]:
    """Every weight that is masked as one: a matrix of a Linear, or of one expert. A shared one comes once."""
    found: dict[int, Tensor] = {}
    for module in parts.model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            found.setdefault(id(module.weight), module.weight)
    matrices = list(found.values())
    stacks: dict[int, Tensor] = {}
    for module in parts.blocks.modules():
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            for weight in module.parameters(recurse=False):
                if weight.dim() == 3 and min(weight.shape) > 1:
                    stacks.setdefault(id(weight), weight)
    return matrices + [matrix for stack in stacks.values() for matrix in stack.detach()]


def _count(sparsity: float, n: int) -> int:
    """round(sparsity * n), halves up, of the decimal number that the person wrote."""
    return math.floor(Fraction(str(sparsity)) * n + Fraction(1, 2))


def _refuse_what_cannot_be_masked(parts: DecoderParts) -> None:
    name, weights = type(parts.model).__name__, linear_weights(parts)
    strange = sorted({str(w.dtype).removeprefix("torch.") for w in weights if w.dtype not in _AS_BITS})
    if strange or getattr(parts.model, "is_quantized", False):
        raise CurateError(
            f"score.masked: expected weights of {name} in float32, bfloat16 or float16, got quantised ones "
            f"({', '.join(strange) or 'packed'}), whose smallest cannot be set to zero: "
            "use model.quantization=none or score.masked=false"
        )
    if any(weight.device.type == "meta" for weight in weights):
        raise CurateError(
            f"score.masked: expected the weights of {name} in the device's memory, got some offloaded to CPU or disk: "
            "leave model.device_map out, take a larger device, or use score.masked=false"
        )


@contextmanager
def _untied_heads(model: Any) -> Iterator[set[int]]:
    """While open, a Linear that shares its weight with an embedding has a copy; yields the ids of the copies."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = [m for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and id(m.weight) in embeddings]
    own = [module.weight for module in tied]
    copies: set[int] = set()
    try:
        for module in tied:
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
            copies.add(id(module.weight))
        yield copies
    finally:
        for module, weight in zip(tied, own, strict=True):
            module.weight = weight


@torch.no_grad()
def _zero_smallest(weight: Tensor, count: int, saved: list[_Zeroed], *, keep: bool) -> None:
    """Set the `count` weights of smallest magnitude to zero; of equal ones the first."""
    if not count:
        return
    cut, ties = _cut(weight, count)
    for piece in _pieces(weight):
        bits = _magnitude(piece)
        zeroed = bits < cut
        equal = bits == cut
        num_equal = int(equal.sum())
        if num_equal <= ties:
            zeroed |= equal
        elif ties:
            zeroed |= equal & (equal.flatten().cumsum(0).view(equal.shape) <= ties)
        ties = max(0, ties - num_equal)
        if keep:  # noted before it is changed: whenever an interrupt comes, `_restore` knows what to do
            saved.append((piece, piece[zeroed | (bits == 0)].cpu(), _sum_of_bits(piece)))
        piece.masked_fill_(zeroed, 0)


@torch.no_grad()
def _restore(piece: Tensor, values: Tensor, sum_of_bits: int) -> None:
    """Put values back where the piece is zero: the zeros themselves say where, so no index was kept.

    Where the numbers differ, an interrupt came before the piece was changed.
    """
    zero = _magnitude(piece) == 0  # not `piece == 0`: that takes in subnormals where the processor flushes them
    if int(zero.sum()) == len(values):
        piece[zero] = values.to(piece.device)
    assert _sum_of_bits(piece) == sum_of_bits, "weights come back bit for bit"


def _cut(weight: Tensor, count: int) -> tuple[int, int]:
    """Find the `count`-th smallest magnitude: its bits, and how many of the weights equal to it are among them.

    Exact, in time and memory that a sort would not do with: magnitudes of floats are ordered as their bits are, so
    they are counted by 16 bits at a time from the top (a radix select).
    """
    found, left = 0, count
    top = 8 * weight.element_size() - 16
    for shift in range(top, -1, -16):
        histogram = torch.zeros(1 << 16, dtype=torch.int64, device=weight.device)
        for piece in _pieces(weight):
            bits = _magnitude(piece).flatten()
            if shift < top:
                bits = bits[bits >> (shift + 16) == found]
            histogram += torch.bincount((bits >> shift) & 0xFFFF, minlength=1 << 16)
        up_to = histogram.cumsum(0)
        digit = int(torch.searchsorted(up_to, left))
        left -= int(up_to[digit] - histogram[digit])
        found = found << 16 | digit
    return found, left


def _pieces(weight: Tensor) -> Iterator[Tensor]:
    """Views of some rows each, in the order of the weight."""
    yield from torch.split(weight.detach(), max(1, _PIECE // max(1, weight[0].numel())))


def _magnitude(piece: Tensor) -> Tensor:
    """Bits of the absolute values, as integers that are ordered as the values are; NaN comes last."""
    kind = _AS_BITS[piece.dtype]
    bits = piece.view(kind) & torch.iinfo(kind).max
    return bits.to(torch.int32) if kind == torch.int16 else bits


def _sum_of_bits(piece: Tensor) -> int:
    """A checksum of a piece, signs included; it wraps around."""
    return int(piece.view(_AS_BITS[piece.dtype]).sum(dtype=torch.int64))
