"""The floor: the time of the matrix products, the attention and the log-sum-exp that scoring cannot do without.

Every part is run as plain torch calls on the same weights, at the shapes of the same batches but without their
padding, into memory that is allocated once. Norms, activations, residuals, gathers and Python are not in it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from variants import Work

from curate.types import IntArray


@dataclass(frozen=True, slots=True)
class Floor:
    """Seconds of the decoder's products, of attention, and of head products with log-sum-exp at one exit.

    once  the decoder's products if every prefix that records share is seen once
    """

    decoder: float
    attention: float
    head: float
    once: float

    def seconds(self, num_exits: int) -> float:
        return self.decoder + self.attention + num_exits * self.head


@torch.inference_mode()
def floor(work: Work) -> Floor:
    shapes = [(len(rows), *_tokens(work, rows)) for rows in work.batches()]
    once = [(0, tokens, 0) for tokens in _tokens_once(work)]
    return Floor(_decoder(work, shapes), _attention(work, shapes), _head(work, shapes), _decoder(work, once))


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def product_flops(work: Work, num_exits: int) -> float:
    """Floating-point operations of the floor's matrix products, attention apart."""
    decoder = sum(w.numel() for w in _weights(work)) * int(work.table.rows["needed"].sum())
    head = work.model.lm_head.weight.numel() * int(work.table.rows["scored"].sum()) * num_exits
    return 2.0 * (decoder + head)


def product_rate(work: Work) -> float:
    """Operations per second of the decoder's largest product at the tokens of a batch, the best of ten."""
    weight = max(_weights(work), key=torch.Tensor.numel)
    tokens = max(_tokens(work, rows)[0] for rows in work.batches())
    hidden, best = weight.new_ones((tokens, weight.shape[1])).normal_(), float("inf")
    out = weight.new_empty((tokens, weight.shape[0]))
    for _ in range(10):
        start = clock(weight.device)
        torch.mm(hidden, weight.t(), out=out)
        best = min(best, clock(weight.device) - start)
    return 2.0 * tokens * weight.numel() / best


def _tokens(work: Work, rows: IntArray) -> tuple[int, int]:
    """Tokens that the model must see, and those to score."""
    table = work.table.rows[rows]
    return int(table["needed"].sum()), int(table["scored"].sum())


def _tokens_once(work: Work) -> list[int]:
    """Tokens of each of our batches but for their prefixes, and of the prefixes."""
    plan, prefixes = work.plan, work.plan.prefixes
    lengths = [len(prefixes[group]) if group >= 0 else 0 for group in plan.prefix_ids]
    rows = [plan.rows_of_batch(batch) for batch in range(len(plan.costs))]
    return [_tokens(work, r)[0] - n * len(r) for r, n in zip(rows, lengths, strict=True)] + [*map(len, prefixes)]


def _weights(work: Work) -> list[torch.Tensor]:
    return [m.weight for m in work.parts.blocks.modules() if isinstance(m, nn.Linear)]


def _decoder(work: Work, shapes: list[tuple[int, int, int]]) -> float:
    most = max(tokens for _, tokens, _ in shapes)
    weights = _weights(work)
    sizes = {size for w in weights for size in w.shape}
    buffers = {(size, side): weights[0].new_ones((most, size)).normal_() for size in sizes for side in "io"}
    start = clock(work.parts.device)
    for _, tokens, _ in shapes:
        for w in weights:
            torch.mm(buffers[w.shape[1], "i"][:tokens], w.t(), out=buffers[w.shape[0], "o"][:tokens])
    return clock(work.parts.device) - start


def _attention(work: Work, shapes: list[tuple[int, int, int]]) -> float:
    config, like = work.model.config, work.model.lm_head.weight
    width, kv_heads = config.hidden_size // config.num_attention_heads, config.num_key_value_heads
    seconds = 0.0
    for records, tokens, _ in shapes:
        length = -(-tokens // records)
        q = like.new_ones((records, config.num_attention_heads, length, width)).normal_()
        k, v = (like.new_ones((records, kv_heads, length, width)).normal_() for _ in "kv")
        grouped = kv_heads != config.num_attention_heads
        start = clock(like.device)
        for _ in range(work.parts.num_layers):
            scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        seconds += clock(like.device) - start
    return seconds


def _head(work: Work, shapes: list[tuple[int, int, int]]) -> float:
    weight, rows = work.model.lm_head.weight, work.head_rows
    hidden = weight.new_ones((rows, weight.shape[1])).normal_()
    logits = weight.new_empty((rows, weight.shape[0]))
    start = clock(weight.device)
    for _, _, scored in shapes:
        for first in range(0, scored, rows):
            count = min(rows, scored - first)
            out_NV = torch.mm(hidden[:count], weight.t(), out=logits[:count])
            for block_NV in torch.split(out_NV, 16 if weight.is_cpu else rows):  # 16 rows stay in a CPU's cache
                block_NV = block_NV.float()
                block_NV.sub_(block_NV.amax(1, keepdim=True)).exp_().sum(1).log_()
    return clock(weight.device) - start
