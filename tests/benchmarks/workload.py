"""What `bench_score.py` scores: a model of random weights, and records like those of Alpaca."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from curate.types import CONTEXT, ROW, SCORED, IntArray, TokenStore

SHARED = Path(__file__).parents[2].parent / "shared"
ALPACA, TOKENIZER = SHARED / "data" / "alpaca_9k.json", SHARED / "models" / "tokenizer-gpt2" / "tokenizer.json"
ALPACA_52K = 52_002  # records of the whole data set
TEMPLATES = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}"
    "\n\n### Response:\n",
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder; the head is not tied to the embedding."""

    family: str
    layers: int
    width: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int


SHAPES = {
    "0.3m": Shape("llama", 5, 64, 172, 8, 4, 512),
    "7m": Shape("llama", 8, 256, 688, 4, 4, 4_096),
    "70m": Shape("llama", 12, 512, 1408, 8, 8, 32_000),
    "0.5b": Shape("qwen2", 24, 896, 4_864, 14, 2, 151_936),
    "llama2-7b": Shape("llama", 32, 4096, 11_008, 32, 32, 32_000),
    "qwen2.5-7b": Shape("qwen2", 28, 3584, 18_944, 28, 4, 152_064),
}


def random_model(shape: Shape, device: torch.device, dtype: torch.dtype) -> Any:
    config = AutoConfig.for_model(
        shape.family,
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)


def alpaca_table(count: int, vocabulary: int) -> tuple[TokenStore, str]:
    """`count` records evenly spaced over all lengths, and where they come from.

    Evenly spaced among the sorted, so that a few records already have the mix of lengths of all. Beginnings that
    records share are shared here too: real tokens, taken modulo the vocabulary, or two made-up preambles.
    """
    if ALPACA.exists() and TOKENIZER.exists():
        prompts, responses = _alpaca_tokens()
        source = f"evenly spaced by length among {len(prompts):,} of Alpaca, in GPT-2's tokens"
    else:
        prompts, responses = _made_up_tokens()
        source = (
            "lengths as Alpaca has: prompts of 24 or 33 + lognormal(2.70, 0.81), responses of lognormal(3.48, 1.08)"
        )
    lengths = np.array([(len(p) + len(r), len(r)) for p, r in zip(prompts, responses, strict=True)])
    by_length = np.lexsort((lengths[:, 1], lengths[:, 0]))
    chosen = np.sort(by_length[((np.arange(count) + 0.5) * len(by_length) / count).astype(np.int64)])
    ids = [np.array(tokens[i], np.int64) % vocabulary for i in chosen for tokens in (prompts, responses)]
    sizes = np.array([len(part) for part in ids]).reshape(-1, 2)
    return _table(np.concatenate(ids), sizes[:, 0], sizes[:, 1]), source


def random_table(prompts: IntArray, responses: IntArray, vocabulary: int) -> TokenStore:
    """Random tokens: a record of each pair of lengths, all of its response scored."""
    return _table(np.random.default_rng(0).integers(0, vocabulary, (prompts + responses).sum()), prompts, responses)


def _alpaca_tokens() -> tuple[list[list[int]], list[list[int]]]:
    records = json.loads(ALPACA.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    prompts = [TEMPLATES[bool(r["input"])].format(**r) for r in records]
    texts = [prompt + r["output"] for prompt, r in zip(prompts, records, strict=True)]
    before, whole = (
        [e.ids for e in tokenizer.encode_batch_fast(t, add_special_tokens=False)] for t in (prompts, texts)
    )
    pairs = [(w[: len(b)], w[len(b) :]) for b, w in zip(before, whole, strict=True) if len(w) > len(b)]
    return [p for p, _ in pairs], [r for _, r in pairs]


def _made_up_tokens() -> tuple[list[list[int]], list[list[int]]]:
    """Fitted to Alpaca: means of 53 and 58 tokens, two records in five with the longer preamble."""
    rng, count = np.random.default_rng(0), 9_000
    preambles = [rng.integers(0, 50_000, length).tolist() for length in (24, 33)]
    own = np.ceil(rng.lognormal(2.70, 0.81, count)).clip(1, 324).astype(np.int64) + 5
    responses = np.ceil(rng.lognormal(3.48, 1.08, count)).clip(1, 930).astype(np.int64)
    longer = rng.random(count) < 0.4
    prompts = [preambles[which] + rng.integers(0, 50_000, n).tolist() for which, n in zip(longer.astype(int), own)]  # noqa: B905
    return prompts, [rng.integers(0, 50_000, n).tolist() for n in responses]


def _table(ids: IntArray, prompts: IntArray, responses: IntArray) -> TokenStore:
    rows = np.zeros(len(prompts), ROW)
    rows["end"], rows["scored"], rows["needed"] = np.cumsum(prompts + responses), responses, prompts + responses - 1
    marks = np.repeat(np.tile([CONTEXT, SCORED], len(prompts)), np.stack([prompts, responses], 1).ravel())
    return TokenStore(ids.astype(np.int32), marks.astype(np.uint8), rows)
