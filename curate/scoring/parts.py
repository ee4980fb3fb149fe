"""Takes a causal language model apart, without knowing an architecture by name.

One forward pass over eight tokens is watched. The backbone is the submodule that returns `last_hidden_state`. Its
decoder blocks are the list with as many modules as the model has layers. The tail is what stands between the last
block and the LM head, usually the final norm; it is found by following the hidden states from module to module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from curate.types import CurateError


@dataclass(frozen=True, slots=True)
class DecoderParts:
    """A causal LM taken apart: logits = head(tail(blocks(...))).

    model        the causal LM itself, without a PEFT wrapper
    backbone     the submodule whose output has `last_hidden_state`
    blocks       its decoder layers, in order
    tail         modules from the last block's output to `last_hidden_state`, in order (final norm, projection)
    output_type  class of the backbone's output
    """

    model: Any
    backbone: nn.Module
    blocks: nn.ModuleList
    tail: tuple[nn.Module, ...]
    output_type: Callable[..., Any]

    @property
    def num_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device if device.type != "meta" else torch.device(self.model.device)


def find_parts(model: Any) -> DecoderParts:
    """Find backbone, blocks and tail of a causal LM by watching one forward pass over eight tokens.

    Raises:
        CurateError: a part cannot be found, so early exits of this architecture cannot be read.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    num_layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    calls = _watch_forward(model)
    backbone_call = next((c for c in calls if _last_hidden_state(c.output) is not None), None)
    if backbone_call is None or num_layers is None:
        raise _refusal(model, "no submodule returns last_hidden_state")
    backbone, last_hidden = backbone_call.module, _last_hidden_state(backbone_call.output)
    blocks = next((m for m in backbone.modules() if isinstance(m, nn.ModuleList) and len(m) == num_layers), None)
    if blocks is None:
        raise _refusal(model, f"no list of {num_layers} decoder layers")
    tail = _trace_tail(calls, blocks[-1], last_hidden)
    if tail is None:
        raise _refusal(model, "nothing leads from the last decoder layer's output to the LM head")
    hidden = next(first_tensor(c.output) for c in calls if c.module is blocks[-1])
    if hidden is None or hidden.dim() != 3 or hidden.shape[0] != 1:
        shape = None if hidden is None else list(hidden.shape)
        raise _refusal(model, f"decoder layers carry {shape}, not one (batch, sequence, width) stream")
    return DecoderParts(model, backbone, blocks, tail, type(backbone_call.output))


@dataclass(slots=True)
class _Call:
    """A call of a submodule, with its first argument and what it returned."""

    module: nn.Module
    input: Any
    output: Any = None


@torch.inference_mode()
def _watch_forward(model: Any) -> list[_Call]:
    """Return every submodule call of one forward pass, in the order in which they began."""
    calls: list[_Call] = []
    open_calls: list[_Call] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        call = _Call(module, first)
        calls.append(call)
        open_calls.append(call)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        open_calls.pop().output = output

    handles = []
    for module in model.modules():
        if module is not model:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device = model.get_input_embeddings().weight.device
    ids = (torch.arange(8, device=device if device.type != "meta" else model.device) * 7 + 3) % vocabulary
    try:
        model(input_ids=ids[None], use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _trace_tail(
    calls: Sequence[_Call], last_block: nn.Module, last_hidden: Tensor | None
) -> tuple[nn.Module, ...] | None:
    """Return the modules that turn the last block's output into `last_hidden`; None if they cannot be followed."""
    start = next((i for i, call in enumerate(calls) if call.module is last_block), None)
    if start is None:
        return None
    current, tail = first_tensor(calls[start].output), []
    for call in calls[start + 1 :]:  # the block's own submodules come first: they began after it did
        if _same(current, last_hidden):
            break
        if _same(call.input, current) and call.module not in set(last_block.modules()):
            tail.append(call.module)
            current = first_tensor(call.output)
    return tuple(tail) if _same(current, last_hidden) else None


def _same(a: Any, b: Any) -> bool:
    """Return whether two tensors are the same numbers in the same memory."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    # Not identity alone: GPT-2 makes a view of its hidden states before it returns them.
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.data_ptr() == b.data_ptr() != 0)


def first_tensor(output: Any) -> Tensor | None:
    """Return the hidden states from a decoder layer's output, a tensor or a tuple that begins with it; else None."""
    if isinstance(output, (tuple, list)):
        output = output[0] if output else None
    return output if isinstance(output, Tensor) else None


def _last_hidden_state(output: Any) -> Tensor | None:
    return getattr(output, "last_hidden_state", None)


def _refusal(model: Any, why: str) -> CurateError:
    return CurateError(
        f"{type(model).__name__} cannot be scored by early exits: {why}. "
        "Score with a plain decoder-only model instead; train.model may still be this one."
    )
