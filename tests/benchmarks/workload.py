"""What `bench_score.py` scores: a model of random weights, and random tokens in records of real lengths."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from curate.types import CONTEXT, ROW, SCORED, IntArray, TokenTable

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
    "70m": Shape("llama", 12, 512, 1408, 8, 8, 32_000),
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


def record_lengths(count: int) -> tuple[IntArray, IntArray, str]:
    """Tokens of prompt and response of `count` records, evenly spaced over all lengths, and where they come from.

    Evenly spaced among the sorted, so that a few records already have the mix of lengths of all.
    """
    if ALPACA.exists() and TOKENIZER.exists():
        prompts, responses = _alpaca_lengths()
        source = f"evenly spaced by length among {len(prompts):,} of Alpaca, in GPT-2's tokens"
    else:
        rng = np.random.default_rng(0)  # fitted to Alpaca: mean 53 and 58 tokens
        prompts = 33 + np.ceil(rng.lognormal(2.70, 0.81, 9_000)).clip(1, 324).astype(np.int64)
        responses = np.ceil(rng.lognormal(3.48, 1.08, 9_000)).clip(1, 930).astype(np.int64)
        source = "prompts of 33 + lognormal(2.70, 0.81) tokens, responses of lognormal(3.48, 1.08), as Alpaca has"
    by_length = np.lexsort((responses, prompts + responses))
    chosen = np.sort(by_length[((np.arange(count) + 0.5) * len(by_length) / count).astype(np.int64)])
    return prompts[chosen], responses[chosen], source


def _alpaca_lengths() -> tuple[IntArray, IntArray]:
    records = json.loads(ALPACA.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    prompts = [TEMPLATES[bool(r["input"])].format(**r) for r in records]
    texts = [prompt + r["output"] for prompt, r in zip(prompts, records, strict=True)]
    before, whole = (
        np.array([len(e) for e in tokenizer.encode_batch_fast(t, add_special_tokens=False)]) for t in (prompts, texts)
    )
    return before[whole > before], (whole - before)[whole > before]


def random_table(prompts: IntArray, responses: IntArray, vocabulary: int) -> TokenTable:
    """Random tokens: a record of each pair of lengths, all of its response scored."""
    rng = np.random.default_rng(0)
    rows = np.zeros(len(prompts), ROW)
    rows["end"], rows["scored"], rows["needed"] = np.cumsum(prompts + responses), responses, prompts + responses - 1
    marks = np.repeat(np.tile([CONTEXT, SCORED], len(prompts)), np.stack([prompts, responses], 1).ravel())
    ids = rng.integers(0, vocabulary, len(marks), dtype=np.int32)
    return TokenTable(ids, marks.astype(np.uint8), rows)
