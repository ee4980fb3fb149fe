"""Refuses loaded models with random weights, and models whose predictions can see later tokens."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from curate.models.explain import first_line
from curate.models.weights import split_layer
from curate.types import CurateError

logger = logging.getLogger(__name__)


def refuse_incomplete(
    name: str,
    info: Mapping[str, Any],
    model: PreTrainedModel,
    *,
    what: str = "causal language model, not a base model or an adapter",
    warn: bool = True,
) -> None:
    """Refuse a model if weights are missing, have another shape, or are an unused layer or part of a used one.

    The library fills missing weights with random numbers and goes on, so such a model would be scored wrongly.

    Args:
        name: the model, as the person wrote it.
        info: what `from_pretrained` returns with `output_loading_info=True`.
        model: what was loaded.
        what: the kind of model that was expected, for the message.
        warn: log a warning if single weights of the files are unused.

    Raises:
        CurateError: the model is incomplete; the message names a weight.
    """
    missing = sorted(info["missing_keys"])
    if missing:
        raise CurateError(
            f"{name} lacks {len(missing)} weight(s) that would be random, {missing[0]} among them: "
            f"expected a complete {what}"
        )
    mismatched = sorted(info["mismatched_keys"], key=str)
    if mismatched:
        key, got, expected = mismatched[0]
        raise CurateError(f"{name}: expected {key} of shape {list(expected)} by its config.json, got {list(got)}")
    if info["error_msgs"]:
        raise CurateError(f"{name}: {first_line(info['error_msgs'][0])}")
    if unused := sorted(info["unexpected_keys"]):
        _refuse_unused_layers(name, unused, model)
        _refuse_unused_parts(name, unused, model)
        if not warn:
            return
        logger.warning("%s: %d weight(s) are not part of the model and unused, e.g. %s", name, len(unused), unused[0])


def _refuse_unused_layers(name: str, unused: Sequence[str], model: PreTrainedModel) -> None:
    """Refuse unused weights of a layer beyond the last one of a stack that the model has.

    Example: layers.3.mlp.weight is unused, and the last layer of the model's stack `layers` is layer 2.
    """
    depth: dict[str, int] = {}
    # Layers that predict several tokens ahead are stored behind the others; causal models do not use them.
    ahead = getattr(model.config.get_text_config(), "num_nextn_predict_layers", None) or 0
    for stack, layer in filter(None, map(split_layer, model.state_dict())):
        depth[stack] = max(depth.get(stack, 0), layer + 1)
    for key in unused:
        stack, layer = split_layer(key) or ("", 0)
        if layer >= depth.get(stack, layer + 1) + ahead:
            raise CurateError(
                f"{name}: its config.json says {depth[stack]} layers, its weights hold more ({key} is unused): "
                "expected a configuration of the whole model; download it again, or save the shorter model by itself"
            )


def _refuse_unused_parts(name: str, unused: Sequence[str], model: PreTrainedModel) -> None:
    """Refuse unused biases and scales of modules that the model has: without them it computes something else.

    Example: q_proj.bias is unused beside q_proj.weight, since config.json lacks attention_bias. Quantised models may
    have biases that are all zero, and are left alone.
    """
    if getattr(model.config, "quantization_config", None) is not None:
        return
    modules = {key.rpartition(".")[0] for key in model.state_dict()}
    for key in unused:
        module, _, part = key.rpartition(".")
        if module in modules and (part == "bias" or "scale" in part):
            raise CurateError(
                f"{name}: its weights hold {key}, and the model of its config.json has no place for it: "
                "expected the configuration that belongs to these weights; download it again"
            )


@torch.no_grad()
def refuse_bidirectional(name: str, model: PreTrainedModel) -> None:
    """Refuse a model whose predictions depend on later tokens.

    Encoders such as BERT load as causal models too. Two inputs that differ in the last token only show it: the
    predictions at the earlier positions must not differ.

    Args:
        name: the model, as the person wrote it.
        model: on any device; a model over several devices is given ids on that of its embedding.

    Raises:
        CurateError: the predictions at an earlier position changed.
    """
    embedding = model.get_input_embeddings()
    # An embedding that is offloaded to RAM or disk lies on "meta", where nothing can be computed.
    device = embedding.weight.device if embedding.weight.device.type != "meta" else model.device
    ids_BT = torch.arange(8, device=device).remainder(embedding.weight.shape[0]).repeat(2, 1)
    ids_BT[1, -1] = 0
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits.float()
    change_T = (logits_BTV[0] - logits_BTV[1]).abs().amax(-1)
    # Relative to the change at the last position, so that the scale of the logits does not matter.
    rounding = 1e-4 if model.dtype == torch.float32 else 3e-2
    if change_T[:-1].max() > rounding * change_T[-1]:
        raise CurateError(
            f"{name} ({type(model).__name__}) is not a causal language model: its predictions depend on later tokens"
        )
