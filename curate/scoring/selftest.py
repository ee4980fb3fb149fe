"""Proves, before anything is scored, that a model's early exits are read correctly on this machine.

Three laws on a few tokens: the last exit is the model itself; a middle exit is the model with its later layers
taken out; a padded record scores as it does alone. Where one fails the model is refused, never scored wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.scoring.confidence import token_log_probs
from curate.scoring.exits import DecoderParts, exit_hidden, first_layers, replayed_head
from curate.types import CurateError

# Largest error of a token's log-probability (nats) that is put down to rounding: (same batch, other padding).
# Quantised weights round activations per batch, so other padding moves them further.
_TOLERANCE = {torch.float64: (1e-8, 1e-8), torch.float32: (1e-4, 1e-4)}
_HALF_TOLERANCE = (0.05, 0.25)
_QUANTIZED_TOLERANCE = (0.1, 1.0)


@dataclass(frozen=True, slots=True)
class Check:
    """One law: its name, the largest error seen over the test tokens (nats), and what is allowed."""

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the tolerance."""
        return self.error <= self.tolerance


@torch.inference_mode()
def run_checks(parts: DecoderParts) -> list[Check]:
    """Measure the three laws on 24 fixed token ids spread over the vocabulary."""
    same_batch, other_batch = _tolerance(parts)
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    ids_1T = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, (1, 24))).to(parts.device)
    middle = max(1, parts.num_layers // 2)
    layers = sorted({middle, parts.num_layers})
    alone = dict(zip(layers, _exit_log_probs(parts, ids_1T, layers), strict=True))
    padded_ids = torch.cat([torch.cat([ids_1T, ids_1T[:, :9]], 1), torch.cat([ids_1T, 0 * ids_1T[:, :9]], 1)])
    keep = torch.zeros(padded_ids.shape, dtype=torch.bool, device=parts.device)
    keep[1, : ids_1T.shape[1] - 1] = True
    padded = _exit_log_probs(parts, padded_ids, layers, keep)[-1]
    full = _model_log_probs(parts, ids_1T)
    with first_layers(parts, middle):
        subnet = _model_log_probs(parts, ids_1T)
    return [
        Check("the last exit equals the model's own logits", _gap(alone[layers[-1]], full), same_batch),
        Check(f"exit {middle} equals the model's first {middle} layers", _gap(alone[middle], subnet), same_batch),
        Check("a padded record scores as it does alone", _gap(alone[layers[-1]], padded), other_batch),
    ]


def confirm(parts: DecoderParts) -> None:
    """Refuse a model that fails a check.

    Raises:
        CurateError: the checks that failed, with their errors.
    """
    failed = [c for c in run_checks(parts) if not c.passed]
    if failed:
        what = "; ".join(f"expected that {c.name} (within {c.tolerance:g} nats), got {c.error:.3g}" for c in failed)
        raise CurateError(
            f"{type(parts.model).__name__} would be scored wrongly and is refused: {what}. "
            "Try model.attention=eager or model.dtype=float32, or score with another model."
        )


def _exit_log_probs(
    parts: DecoderParts, ids_BT: Tensor, layers: list[int], keep_BT: Tensor | None = None
) -> list[Tensor]:
    if keep_BT is None:
        keep_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        keep_BT[:, -1] = False
    targets_N = ids_BT.roll(-1, 1)[keep_BT]
    hidden = exit_hidden(parts, ids_BT, keep_BT, layers)
    with replayed_head(parts) as head:
        return [_target_log_probs(head(h), targets_N) for h in hidden]


def _model_log_probs(parts: DecoderParts, ids_1T: Tensor) -> Tensor:
    return _target_log_probs(parts.model(input_ids=ids_1T, use_cache=False).logits[0, :-1], ids_1T[0, 1:])


def _target_log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """On the CPU: a model spread over devices answers on the device of what it was handed."""
    return token_log_probs(logits_NV, targets_N.to(logits_NV.device)).cpu()


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference; NaN where either is not finite, which no tolerance admits."""
    return float((a.double() - b.double()).abs().max())


def _tolerance(parts: DecoderParts) -> tuple[float, float]:
    if getattr(parts.model, "is_quantized", False):
        return _QUANTIZED_TOLERANCE
    return _TOLERANCE.get(parts.model.dtype, _HALF_TOLERANCE)
