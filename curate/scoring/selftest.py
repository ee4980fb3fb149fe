"""Checks, before anything is scored, that a model's early exits are read correctly on this machine.

Three laws are measured on a few tokens:

* the last exit gives the log-probabilities of the model itself;
* an earlier exit gives those of the model with its later layers taken out;
* a padded record scores as it does alone.

A model that breaks one is refused, never scored wrongly. A fourth law says whether a prefix may be computed once for
all records that share it. Where it fails, every record is computed whole.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from curate.scoring.confidence import token_log_probs
from curate.scoring.exits import exit_hidden, first_layers, replayed_head
from curate.scoring.parts import DecoderParts
from curate.scoring.prefix_cache import compute_prefix_cache
from curate.scoring.score import out_of_memory
from curate.types import CurateError, FloatArray

logger = logging.getLogger(__name__)

# Errors of a token's log-probability (nats) that count as rounding: (in the same batch, in a batch of another shape).
# In another batch it is the largest error in float32, else the mean: in 16 bits one rounding can send a token of a
# mixture of experts to another expert. Measured there: rounding moves the mean by up to 0.04, a leak between records
# by 0.12 and more.
_TOLERANCE = (1e-4, 1e-4)
_HALF_TOLERANCE = (0.05, 0.08)
_QUANTIZED_TOLERANCE = (0.1, 0.2)
# Logits of 32 stand 0.25 apart in bfloat16, and a log-probability can be no steadier than they are. SmolLM2-135M on a
# CPU: steps of 0.18 nats on average; rounding moves it by 0.08 (sdpa) to 0.11 (eager), a leak by 0.21 and more.
_MOST_FOR_STEPS = 0.2

_SHARED = 9  # tokens of the prefix that the test records share
# What models raise that do not support a prefix cache; each has its own way.
_CANNOT_GO_ON = (AttributeError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Check:
    """One law, as measured.

    name       the law, in words that go after "expected that"
    error      error over the test tokens, nats
    tolerance  largest error that passes, nats
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance  # False for NaN


@torch.inference_mode()
def run_checks(parts: DecoderParts, layers: Sequence[int] = ()) -> list[Check]:
    """Measure the three laws on 24 fixed token ids spread over the vocabulary.

    Args:
        parts: the model, taken apart.
        layers: exits to compare with the model cut off after that layer; if none is below the last layer, the middle
            layer is compared.
    """
    ids_1T, last = _test_tokens(parts), parts.num_layers
    same_batch, other_batch = _tolerance(parts)[0], _other_batch_tolerance(parts, ids_1T)
    early = sorted(set(layers) - {last}) or [max(1, last // 2)]
    alone = dict(zip([*early, last], _exit_log_probs(parts, ids_1T, [*early, last]), strict=True))
    # The neighbour in the padded batch is longer and has other tokens, so that a leak between records shows.
    longer_1T = torch.cat([ids_1T, ids_1T[:, :9]], 1).flip(1)
    padded_ids = torch.cat([longer_1T, torch.cat([ids_1T, 0 * ids_1T[:, :9]], 1)])
    keep = torch.zeros(padded_ids.shape, dtype=torch.bool, device=parts.device)
    keep[1, : ids_1T.shape[1] - 1] = True
    padded = _exit_log_probs(parts, padded_ids, [last], keep)[-1]
    full = _model_log_probs(parts, ids_1T)
    checks = [Check("the last exit equals the model's own logits", float(_gap(alone[last], full).max()), same_batch)]
    for layer in early:
        with first_layers(parts, layer):
            gap = _gap(alone[layer], _model_log_probs(parts, ids_1T))
        checks.append(Check(f"exit {layer} equals the model's first {layer} layers", float(gap.max()), same_batch))
    error = _moved(alone[last], padded, other_batch)
    return [*checks, Check("a padded record scores as it does alone", error, other_batch)]


@torch.inference_mode()
def prefix_check(parts: DecoderParts) -> Check:
    """Measure whether a record that follows a prefix cache scores as it does whole.

    The error is infinite for a model that does not support a prefix cache.
    """
    ids_1T, last = _test_tokens(parts), parts.num_layers
    tolerance = _other_batch_tolerance(parts, ids_1T)
    rest_1T = ids_1T[:, _SHARED:]
    longer_1T = torch.cat([rest_1T, rest_1T], 1).flip(1)
    batch_BT = torch.cat([longer_1T, torch.cat([rest_1T, 0 * rest_1T], 1)])
    keep = torch.zeros(batch_BT.shape, dtype=torch.bool, device=parts.device)
    keep[1, : rest_1T.shape[1] - 1] = True
    alone = _exit_log_probs(parts, ids_1T, [last])[-1][_SHARED:]
    try:
        prefix_cache = compute_prefix_cache(parts, ids_1T[0, :_SHARED].cpu().numpy().astype(np.int32))
        # Twice, since a batch must leave the cache as it found it.
        shared = [_exit_log_probs(parts, batch_BT, [last], keep, prefix_cache)[-1] for _ in range(2)]
        error = max(_moved(alone, again, tolerance) for again in shared)
    except _CANNOT_GO_ON as cannot:
        if out_of_memory(cannot):
            raise
        logger.debug("%s does not go on from the states of a prefix: %r", type(parts.model).__name__, cannot)
        error = float("inf")
    return Check("a prefix that records share may be computed once", error, tolerance)


def confirm(parts: DecoderParts, layers: Sequence[int] = ()) -> None:
    """Raise if a model fails one of the three laws; `layers` as in `run_checks`.

    Raises:
        CurateError: names the laws that failed, with their errors.
    """
    failed = [c for c in run_checks(parts, layers) if not c.passed]
    if failed:
        what = "; ".join(f"expected that {c.name} (within {c.tolerance:g} nats), got {c.error:.3g}" for c in failed)
        raise CurateError(
            f"{type(parts.model).__name__} would be scored wrongly and is refused: {what}. {_advice(parts)}"
        )


def _advice(parts: DecoderParts) -> str:
    """Say what to try next; settings that the model has already are left out."""
    is_eager = getattr(parts.model.config, "_attn_implementation", None) == "eager"
    is_exact = parts.model.dtype in (torch.float32, torch.float64)
    settings = [*([] if is_eager else ["model.attention=eager"]), *([] if is_exact else ["model.dtype=float32"])]
    return f"Try {' or '.join(settings)}, or score with another model." if settings else "Score with another model."


def _test_tokens(parts: DecoderParts) -> Tensor:
    """Draw 24 fixed token ids spread over the vocabulary: int64 [1, 24]."""
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    return torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, (1, 24))).to(parts.device)


def _exit_log_probs(
    parts: DecoderParts,
    ids_BT: Tensor,
    layers: list[int],
    keep_BT: Tensor | None = None,
    prefix_cache: Cache | None = None,
) -> list[Tensor]:
    """Compute the log-probabilities of the next tokens at each exit; at all positions if `keep_BT` is None."""
    if keep_BT is None:
        keep_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        keep_BT[:, -1] = False
    targets_N = ids_BT.roll(-1, 1)[keep_BT]
    hidden = exit_hidden(parts, ids_BT, keep_BT, layers, prefix_cache)
    with replayed_head(parts) as head:
        return [_target_log_probs(head(h), targets_N) for h in hidden]


def _model_log_probs(parts: DecoderParts, ids_1T: Tensor) -> Tensor:
    """Compute the same from the logits of the model's own forward."""
    return _target_log_probs(parts.model(input_ids=ids_1T, use_cache=False).logits[0, :-1], ids_1T[0, 1:])


def _target_log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Compute the targets' log-probabilities, on the CPU."""
    # A model spread over devices returns its logits on another device than the targets'.
    return token_log_probs(logits_NV, targets_N.to(logits_NV.device)).cpu()


def _gap(a: Tensor, b: Tensor) -> FloatArray:
    """Return absolute differences; NaN where either is not finite, which fails every tolerance."""
    gap: FloatArray = (a.double() - b.double()).abs().numpy()
    return gap


def _moved(alone: Tensor, other: Tensor, tolerance: float) -> float:
    """Return how far another batch moves a record's tokens: the largest error in float32, else the mean."""
    gap = _gap(alone, other)
    return float(gap.max() if tolerance == _TOLERANCE[1] else gap.mean())


def _tolerance(parts: DecoderParts) -> tuple[float, float]:
    if getattr(parts.model, "is_quantized", False):
        return _QUANTIZED_TOLERANCE
    return _TOLERANCE if parts.model.dtype in (torch.float32, torch.float64) else _HALF_TOLERANCE


def _other_batch_tolerance(parts: DecoderParts, ids_1T: Tensor) -> float:
    """Return how far a batch of another shape may move the log-probabilities of the test tokens, nats.

    In 16 bits it is at least one step between neighbouring numbers at each token's largest logit, on average: the shape
    of a batch decides on which side of a step a logit is rounded.
    """
    tolerance = _tolerance(parts)[1]
    if tolerance != _HALF_TOLERANCE[1]:
        return tolerance
    largest_T = parts.model(input_ids=ids_1T, use_cache=False).logits[0].float().abs().amax(-1)
    steps_T = torch.finfo(parts.model.dtype).eps * torch.exp2(torch.floor(torch.log2(largest_T)))
    return min(max(tolerance, float(steps_T.mean())), _MOST_FOR_STEPS)
