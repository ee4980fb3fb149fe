"""Tiny random decoders of many families, and the k-layer copies that early exits are held against.

Nothing here imports `curate.scoring`: the reference stands on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForCausalLM

NUM_LAYERS = 4
VOCABULARY = 128
WINDOW = 6  # shorter than the records it is tested on

_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LLAMA = {**_BASE, "intermediate_size": 128, "num_key_value_heads": 4}
_GROUPED = {**_LLAMA, "num_key_value_heads": 2}
_TIED = {**_GROUPED, "tie_word_embeddings": True}
_EXPERTS = {**_GROUPED, "moe_intermediate_size": 32, "num_experts_per_tok": 2}


def _nothing(num_layers: int) -> dict[str, Any]:
    return {}


def _local_and_global(num_layers: int) -> dict[str, Any]:
    return {"layer_types": ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(num_layers)]}


@dataclass(frozen=True)
class Family:
    """A configuration.

    of_depth         the settings that follow from the number of layers
    layers_in_a_row  weights that hold equal parts for every layer, with the dimension along which they do
    """

    name: str
    model_type: str
    settings: Mapping[str, Any]
    of_depth: Callable[[int], Mapping[str, Any]] = _nothing
    num_layers_key: str = "num_hidden_layers"
    layers_in_a_row: Mapping[str, int] = field(default_factory=dict)

    def empty(self, num_layers: int, dtype: torch.dtype = torch.float32) -> Any:
        """A model of that many layers, as its library initialises it."""
        depth = {self.num_layers_key: num_layers, **self.of_depth(num_layers)}
        config = AutoConfig.for_model(self.model_type, **{**self.settings, **depth})
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()

    def build(self, num_layers: int = NUM_LAYERS, dtype: torch.dtype = torch.float32) -> Any:
        """A model whose matrices, norms and biases are random and far from their initial values."""
        torch.manual_seed(0)  # for buffers that are drawn at initialisation
        model = self.empty(num_layers, dtype)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.copy_(0.2 * noise if weight.dim() > 1 else weight + 0.3 * noise)
        parameters = sum(weight.numel() for weight in model.parameters())
        assert 50_000 * num_layers / NUM_LAYERS < parameters < 600_000, f"{self.name} has {parameters} parameters"
        return model


def shorter(family: Family, model: Any, k: int, dtype: torch.dtype = torch.float32) -> Any:
    """A separately built k-layer model with the weights of the first k layers of `model`, and all other weights."""
    small, weights = family.empty(k, dtype), dict(model.state_dict())
    for name in family.layers_in_a_row:
        length = weights[name].shape[family.layers_in_a_row[name]] * k // NUM_LAYERS
        weights[name] = weights[name].narrow(family.layers_in_a_row[name], 0, length)
    kept = {name: weights[name] for name in small.state_dict()}
    dropped = weights.keys() - kept.keys()
    assert all({str(i) for i in range(k, NUM_LAYERS)} & set(name.split(".")) for name in dropped), dropped
    small.load_state_dict(kept, strict=True)
    return small


@torch.no_grad()
def plain_log_probs(model: Any, input_ids: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Log-probability of tokens 1, 2, ... of one record given those before: a softmax of its logits in float64."""
    ids = torch.from_numpy(np.asarray(input_ids, np.int64)).to(model.device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double()
    return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0].cpu().numpy()


@torch.no_grad()
def likely_records(model: Any, lengths: Sequence[int] = (20, 13, 7)) -> list[npt.NDArray[np.int64]]:
    """Records in which every other token is the model's first guess, so that confidence runs from near 0 to near 1."""
    ids = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(2))
    for t in range(1, ids.shape[1], 2):
        ids[:, t] = model(input_ids=ids[:, :t].to(model.device), use_cache=False).logits[:, -1].argmax(-1).cpu()
    return [record[:n].numpy() for record, n in zip(ids, lengths, strict=True)]


def _gpt(**settings: Any) -> dict[str, Any]:
    sizes = {"n_embd": 64, "n_head": 4, "n_positions": 64, "n_inner": 128, "vocab_size": VOCABULARY}
    return {**sizes, "bos_token_id": 1, "eos_token_id": 2, **settings}


FAMILIES: tuple[Family, ...] = (
    Family("llama", "llama", _LLAMA),
    Family("llama_tied_grouped", "llama", {**_TIED, "attention_bias": True, "mlp_bias": True}),
    Family("mistral_window", "mistral", {**_GROUPED, "sliding_window": WINDOW}),
    Family("qwen2", "qwen2", _TIED),
    Family("qwen3", "qwen3", {**_GROUPED, "head_dim": 32}),
    Family("mixtral", "mixtral", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("qwen3_moe", "qwen3_moe", {**_EXPERTS, "num_experts": 4, "head_dim": 16}),
    Family("olmoe", "olmoe", {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    Family(
        "gpt_oss",
        "gpt_oss",
        {
            **_GROUPED,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "sliding_window": WINDOW,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        _local_and_global,
    ),
    Family("gemma", "gemma", {**_TIED, "head_dim": 16}),
    Family(
        "gemma2",
        "gemma2",
        {
            **_TIED,
            "head_dim": 16,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 4.0,
        },
        _local_and_global,
    ),
    Family(
        "gemma3",
        "gemma3_text",
        {**_TIED, "head_dim": 16, "sliding_window": WINDOW, "final_logit_softcapping": 4.0},
        _local_and_global,
    ),
    Family(
        "gemma4",
        "gemma4_text",
        {
            **_TIED,
            "head_dim": 16,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "final_logit_softcapping": 4.0,
        },
        # layers 3 and 4 use the keys and values of layer 2; the last layer of a Gemma 4 is always a global one
        lambda num_layers: {
            "layer_types": ["full_attention"] * num_layers,
            "num_kv_shared_layers": max(0, num_layers - 2),
        },
        layers_in_a_row={"model.embed_tokens_per_layer.weight": 1, "model.per_layer_model_projection.weight": 0},
    ),
    Family("phi", "phi", {**_LLAMA, "partial_rotary_factor": 0.5}),
    Family("phi3_window", "phi3", {**_GROUPED, "sliding_window": WINDOW}),
    Family("gpt2", "gpt2", _gpt(), num_layers_key="n_layer"),
    Family("gptj", "gptj", _gpt(rotary_dim=8, tie_word_embeddings=False), num_layers_key="n_layer"),
    Family(
        "gpt_neo",
        "gpt_neo",
        {
            **{k: v for k, v in _BASE.items() if k != "num_attention_heads"},
            "num_heads": 4,
            "intermediate_size": 128,
            "window_size": WINDOW,
            "tie_word_embeddings": True,
        },
        lambda num_layers: {"attention_types": [[["local" if i % 2 else "global"], 1] for i in range(num_layers)]},
        "num_layers",
    ),
    Family("gpt_neox_parallel", "gpt_neox", {**_BASE, "intermediate_size": 128, "use_parallel_residual": True}),
    Family("gpt_neox_serial", "gpt_neox", {**_BASE, "intermediate_size": 128, "use_parallel_residual": False}),
    Family("opt", "opt", {**_BASE, "ffn_dim": 128, "word_embed_proj_dim": 64, "tie_word_embeddings": True}),
    Family(
        "opt_post_norm_projected",
        "opt",
        {
            **_BASE,
            "ffn_dim": 128,
            "word_embed_proj_dim": 32,
            "do_layer_norm_before": False,
            "tie_word_embeddings": True,
        },
    ),
    Family("cohere", "cohere", {**_TIED, "logit_scale": 1.5}),
    Family("cohere2", "cohere2", {**_TIED, "logit_scale": 1.5, "sliding_window": WINDOW}, _local_and_global),
    Family(
        "granite",
        "granite",
        {
            **_GROUPED,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.3,
            "logits_scaling": 0.6,
        },
    ),
    Family("olmo2", "olmo2", _GROUPED),
    Family("falcon", "falcon", {**_BASE, "ffn_hidden_size": 128, "multi_query": True, "parallel_attn": True}),
    Family("falcon_alibi", "falcon", {**_BASE, "alibi": True, "parallel_attn": False, "bias": True}),
    Family("stablelm", "stablelm", {**_GROUPED, "use_qkv_bias": True}),
    Family("bloom", "bloom", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_head": 4}, num_layers_key="n_layer"),
    Family(
        "mpt",
        "mpt",
        {"vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "max_seq_len": 64, "expansion_ratio": 2},
        num_layers_key="n_layers",
    ),
    Family("starcoder2_window", "starcoder2", {**_TIED, "sliding_window": WINDOW}),
    Family("smollm3", "smollm3", _TIED, lambda num_layers: {"no_rope_layers": [1, 0, 1, 0][:num_layers]}),
    Family("glm4", "glm4", {**_GROUPED, "head_dim": 16}),
    Family("nemotron", "nemotron", _GROUPED),
    Family(
        "minicpm3",
        "minicpm3",
        {
            **_LLAMA,
            "q_lora_rank": 32,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "dim_model_base": 32,
            "scale_emb": 3.0,
            "tie_word_embeddings": True,
        },
        # a layer's branches are multiplied by scale_depth / sqrt(num_hidden_layers), so a copy must undo the second
        lambda num_layers: {"scale_depth": 1.4 * (num_layers / NUM_LAYERS) ** 0.5},
    ),
)

# Several residual streams in one: an early exit of these is not a state of the model's width.
MULTI_STREAM: tuple[Family, ...] = (
    Family(
        "gemma3n",
        "gemma3n_text",
        {
            **_TIED,
            "head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
            "num_kv_shared_layers": 0,
            "sliding_window": WINDOW,
        },
        lambda num_layers: {
            **_local_and_global(num_layers),
            "intermediate_size": [128] * num_layers,
            "activation_sparsity_pattern": [0.0] * num_layers,
        },
    ),
    Family(
        "deepseek_v4",
        "deepseek_v4",
        {
            **_BASE,
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 32,
            "q_lora_rank": 16,
            "o_lora_rank": 16,
            "o_groups": 2,
            "index_n_heads": 2,
            "index_head_dim": 16,
        },
    ),
)
