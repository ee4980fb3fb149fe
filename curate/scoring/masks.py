"""Subnets by L1 masks: the same model with the weights of smallest magnitude set to zero, matrix by matrix.

    masked_loss = mean over subnets of -log_prob        nats per token, high = hard

In the subnet of sparsity s, round(s * n) (halves up) of the n weights of every Linear are zero.

Source: arXiv 2402.05356 v2, language experiments: sparsities 0, .2 and .36, each a fraction of all the weights. The
official code removes the mask between rounds, so it measures 0, .2 and .2; this is what the paper intends.

These count as a Linear: `nn.Linear`, GPT-2's `Conv1D`, the LM head, and each expert's matrix in a stack of experts (a
3-D parameter; older versions of transformers had a Linear for each expert). Embeddings, norms, biases, convolutions and
routers that are not an `nn.Linear` are not masked.
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
# Weights that are masked at a time. Intermediate tensors take 16 times their bytes, too much for a whole matrix.
_PIECE = 1 << 22

# What it takes to restore a piece of a weight: the piece, the values that stood where it is zero now, and its checksum.
_Zeroed = tuple[Tensor, Tensor, int]


@contextmanager
def masked_weights(parts: DecoderParts, sparsity: float) -> Iterator[None]:
    """Zero the smallest weights while the context is open; afterwards every weight has its own bits again.

    Of equal magnitudes, those that come first in the matrix (row by row) are zeroed. A head that is tied to the
    embedding is masked as a copy, so the embedding stays whole. The zeroed values are kept in the host's memory: the
    fraction `sparsity` of the bytes of the weights.

    A prefix cache holds the keys and values of one subnet: compute it inside this context.

    Raises:
        CurateError: the weights are quantised or offloaded; nothing has been changed then.
    """
    assert 0 <= sparsity < 1
    _refuse_what_cannot_be_masked(parts)
    saved: list[_Zeroed] = []
    with _untied_heads(parts.model) as copies:
        try:
            for weight in linear_weights(parts):
                _zero_smallest(weight, _count(sparsity, weight.numel()), saved, keep=_place(weight) not in copies)
            yield
        finally:
            for zeroed in reversed(saved):
                _restore(*zeroed)


def masked_loss(log_prob_RK: npt.NDArray[np.floating]) -> FloatArray:
    """Average the response's mean cross-entropy over the K subnets: nats per token, high = hard. float64 [R].

    >>> masked_loss(np.array([[-1.0, -2.0, -3.0]])).tolist()
    [2.0]
    """
    loss: FloatArray = -np.asarray(log_prob_RK, dtype=np.float64).mean(axis=1)
    return loss


def linear_weights(parts: DecoderParts) -> list[Tensor]:
    """List every matrix that is masked: one per Linear and per expert. A matrix that two modules share comes once."""
    found: dict[int, Tensor] = {}
    for module in parts.model.modules():
        if isinstance(module, (nn.Linear, Conv1D)):
            found.setdefault(_place(module.weight), module.weight)
    matrices = list(found.values())
    # A stack of experts is a bare 3-D parameter [experts, out, in]; a convolution's kernel is 3-D too, and is left out.
    stacks: dict[int, Tensor] = {}
    for module in parts.blocks.modules():
        if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            for weight in module.parameters(recurse=False):
                if weight.dim() == 3 and min(weight.shape) > 1:
                    stacks.setdefault(_place(weight), weight)
    return matrices + [matrix for stack in stacks.values() for matrix in stack.detach()]


def _place(weight: Tensor) -> int:
    """Where in memory a weight lies: two parameters that share it are one weight (without memory: its identity)."""
    return weight.data_ptr() or id(weight)


def _count(sparsity: float, n: int) -> int:
    """Return round(sparsity * n), halves up.

    >>> _count(0.29, 50), 0.29 * 50
    (15, 14.499999999999998)
    """
    # Exact arithmetic on the decimal number that the person wrote: the product of floats above misses the half.
    return math.floor(Fraction(str(sparsity)) * n + Fraction(1, 2))


def _refuse_what_cannot_be_masked(parts: DecoderParts) -> None:
    """Raise CurateError for quantised weights and for weights that are not in the device's memory."""
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
    """Give each Linear that shares its weight with an embedding a copy while open; yield the places of the copies."""
    embeddings = {_place(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tied = [m for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)) and _place(m.weight) in embeddings]
    own = [module.weight for module in tied]
    copies: set[int] = set()
    try:
        for module in tied:
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
            copies.add(_place(module.weight))
        yield copies
    finally:
        for module, weight in zip(tied, own, strict=True):
            module.weight = weight


@torch.no_grad()
def _zero_smallest(weight: Tensor, count: int, saved: list[_Zeroed], *, keep: bool) -> None:
    """Set the `count` weights of smallest magnitude to zero; of equal magnitudes the first in the matrix.

    With `keep`, what `_restore` needs is appended to `saved`.
    """
    if not count:
        return
    cut, ties = _cut(weight, count)  # everything below `cut` goes, and the first `ties` of those equal to it
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
        if keep:  # saved before the weight is changed, so that an interrupt between the two loses nothing
            saved.append((piece, piece[zeroed | (bits == 0)].cpu(), _sum_of_bits(piece)))
        piece.masked_fill_(zeroed, 0)


@torch.no_grad()
def _restore(piece: Tensor, values: Tensor, sum_of_bits: int) -> None:
    """Put the saved values back. They belong where the piece is zero, in order, so no index was saved."""
    zero = _magnitude(piece) == 0  # not `piece == 0`: on a processor that flushes subnormals it is true for them too
    if int(zero.sum()) == len(values):  # else an interrupt came before the piece was changed: nothing to put back
        piece[zero] = values.to(piece.device)
    assert _sum_of_bits(piece) == sum_of_bits, "weights come back bit for bit"


def _cut(weight: Tensor, count: int) -> tuple[int, int]:
    """Find the `count`-th smallest magnitude: its bits, and how many weights of just that magnitude are among `count`.

    This is a radix select: magnitudes of floats are ordered as their bits are, so a histogram of the top 16 bits says
    in which bin the answer lies, and one of the next 16 bits, of that bin alone, says which it is. It is exact, and
    takes less time and memory than a sort.

    >>> cut, ties = _cut(torch.tensor([[3.0, -1.0], [2.0, 2.0]]), 2)  # 1 and one of the two 2s
    >>> cut == _magnitude(torch.tensor([2.0])).item(), ties
    (True, 1)
    """
    found, left = 0, count  # the bits known so far; which one of the weights that begin with them is looked for
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
    """Yield views of some rows each, in the order of the weight."""
    yield from torch.split(weight.detach(), max(1, _PIECE // max(1, weight[0].numel())))


def _magnitude(piece: Tensor) -> Tensor:
    """Return the bits of the absolute values, as integers that are ordered as the values are; NaN comes last."""
    kind = _AS_BITS[piece.dtype]
    bits = piece.view(kind) & torch.iinfo(kind).max
    return bits.to(torch.int32) if kind == torch.int16 else bits


def _sum_of_bits(piece: Tensor) -> int:
    """Return a checksum of a piece: the sum of its numbers' bits, signs included, modulo 2**64."""
    return int(piece.view(_AS_BITS[piece.dtype]).sum(dtype=torch.int64))
