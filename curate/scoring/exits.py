"""Early exits of a causal language model: what a k-layer copy of it would predict, from one forward pass.

Nothing here knows an architecture by name. A probe forward finds the backbone, its decoder blocks and the tail
(what stands between the last block and the LM head: usually the final norm) by following tensors; hooks on the
blocks take the residual stream at the chosen layers; the model's own tail and head are replayed on it, with
whatever scaling, soft-capping or bias they apply. `curate.scoring.selftest` confirms it before anything is scored.

Shape letters: B batch, T sequence, H hidden width, N positions kept (those that predict a response token),
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from curate.types import CurateError

if TYPE_CHECKING:
    from transformers import Cache


@dataclass(frozen=True, slots=True)
class DecoderParts:
    """A causal LM taken apart: `head(tail(blocks(...)))`.

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


def exit_layers(exits: int | Literal["all"] | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """The layers (from 1) after which confidence is read.

    A count n means layers (2*i*L + n) // (2*n) for i = 1..n: the i-th of n equal shares of the L layers, rounded
    half up; all layers when L <= n. A list is taken as it is.

    >>> exit_layers(5, 32)
    (6, 13, 19, 26, 32)

    Raises:
        CurateError: a listed layer that the model does not have.
    """
    if exits == "all":
        return tuple(range(1, num_layers + 1))
    if isinstance(exits, int):
        if num_layers <= exits:
            return tuple(range(1, num_layers + 1))
        return tuple((2 * i * num_layers + exits) // (2 * exits) for i in range(1, exits + 1))
    layers = tuple(sorted(int(k) for k in exits))
    if not layers or layers[0] < 1 or layers[-1] > num_layers:
        raise CurateError(f"score.exits: the model has layers 1 to {num_layers}, got {list(layers)}")
    return layers


def find_parts(model: Any) -> DecoderParts:
    """Take a causal LM apart by watching one forward pass over eight tokens.

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
    hidden = next(_first_tensor(c.output) for c in calls if c.module is blocks[-1])
    if hidden is None or hidden.dim() != 3 or hidden.shape[0] != 1:
        shape = None if hidden is None else list(hidden.shape)
        raise _refusal(model, f"decoder layers carry {shape}, not one (batch, sequence, width) stream")
    return DecoderParts(model, backbone, blocks, tail, type(backbone_call.output))


@torch.inference_mode()
def exit_hidden(
    parts: DecoderParts, input_ids_BT: Tensor, keep_BT: Tensor, layers: Sequence[int], before: Cache | None = None
) -> list[Tensor]:
    """The residual stream after each of `layers`, at the kept positions only: [N, H] per layer.

    Memory is O(N * H) per exit, never (B, T, H) per layer: the hooks cut before they keep. The pass ends after the
    last layer asked for. Input is padded on the right and no attention mask is passed: a causal decoder cannot see
    what comes later, and without a mask its fastest attention kernel applies (`selftest` checks that padding moves
    nothing). `before` holds what every record begins with (`curate.scoring.sharing`); `input_ids_BT` follows it.
    """
    taken: dict[int, Tensor] = {}
    last = max(layers)
    kept_N = keep_BT.flatten().nonzero()[:, 0].to(parts.device)  # once: at every exit a GPU would be waited for

    def take(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = _first_tensor(output)
            assert hidden is not None
            taken[layer] = hidden.flatten(0, 1)[kept_N.to(hidden.device)]
            if layer == last < parts.num_layers:
                raise _Enough

        return hook

    handles = [parts.blocks[k - 1].register_forward_hook(take(k)) for k in layers]
    try:
        parts.backbone(input_ids=input_ids_BT.to(parts.device), past_key_values=before, use_cache=before is not None)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [taken[k] for k in layers]


@contextmanager
def replayed_head(parts: DecoderParts) -> Iterator[Callable[[Tensor], Tensor]]:
    """A function from hidden states [N, H] after any decoder layer to logits [N, V].

    While it is open, the backbone only applies its tail to what it is handed, so that the model's own forward
    does the rest. The norm's statistics are those of the states it is handed.
    """
    handed: list[Tensor] = []
    backbone = parts.backbone

    def only_tail(*args: Any, **kwargs: Any) -> Any:
        hidden = handed.pop()
        for module in parts.tail:
            output = _first_tensor(module(hidden))
            assert output is not None
            hidden = output
        return parts.output_type(last_hidden_state=hidden)

    def head(hidden_NH: Tensor) -> Tensor:
        handed.append(hidden_NH[None])
        dummy = torch.zeros((1, hidden_NH.shape[0]), dtype=torch.long, device=hidden_NH.device)
        logits: Tensor = parts.model(input_ids=dummy, use_cache=False).logits[0]
        return logits

    own = backbone.__dict__.get("forward")  # accelerate's hooks live here
    backbone.forward = only_tail
    try:
        yield head
    finally:
        if own is None:
            del backbone.forward
        else:
            backbone.forward = own


@contextmanager
def first_layers(parts: DecoderParts, k: int) -> Iterator[None]:
    """While open, the model is its own k-layer subnet: the blocks after layer k are taken out.

    The configuration stays: what its number of layers scales or shapes (MiniCPM3's branches, Gemma 4's inputs for
    every layer) belongs to the layers that are left.
    """
    modules = dict(parts.blocks._modules)
    parts.blocks._modules = {name: modules[name] for name in list(modules)[:k]}
    try:
        yield
    finally:
        parts.blocks._modules = modules


class _Enough(Exception):  # noqa: N818 - not an error: ends a forward pass whose later layers nobody asked for
    pass


@dataclass(slots=True)
class _Call:
    module: nn.Module
    input: Any
    output: Any = None


@torch.inference_mode()
def _watch_forward(model: Any) -> list[_Call]:
    """Every submodule call of one forward pass, in the order in which they began."""
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
    """Modules through which the last block's output becomes `last_hidden`, by tensor identity; None if it breaks."""
    start = next((i for i, call in enumerate(calls) if call.module is last_block), None)
    if start is None:
        return None
    current, tail = _first_tensor(calls[start].output), []
    for call in calls[start + 1 :]:
        if _same(current, last_hidden):
            break
        if _same(call.input, current) and call.module not in set(last_block.modules()):
            tail.append(call.module)
            current = _first_tensor(call.output)
    return tuple(tail) if _same(current, last_hidden) else None


def _same(a: Any, b: Any) -> bool:
    """Whether two tensors are the same numbers in the same memory (GPT-2 views its states into shape once more)."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.data_ptr() == b.data_ptr() != 0)


def _first_tensor(output: Any) -> Tensor | None:
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
