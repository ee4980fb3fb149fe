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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curate.scoring.parts import DecoderParts, first_tensor
from curate.types import CurateError, Exits

if TYPE_CHECKING:
    from transformers import Cache


def exit_layers(exits: Exits | Sequence[int], num_layers: int) -> tuple[int, ...]:
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


@torch.inference_mode()
def exit_hidden(
    parts: DecoderParts, input_ids_BT: Tensor, keep_BT: Tensor, layers: Sequence[int], prefix_cache: Cache | None = None
) -> list[Tensor]:
    """The residual stream after each of `layers`, at the kept positions only: [N, H] per layer.

    Memory is O(N * H) per exit, never (B, T, H) per layer: the hooks cut before they keep. The pass ends after the
    last layer asked for. Input is padded on the right and no attention mask is passed: a causal decoder cannot see
    what comes later, and without a mask its fastest attention kernel applies (`selftest` checks that padding moves
    nothing). `prefix_cache` holds the keys and values of the prefix that every
    record begins with (`curate.scoring.prefix_cache`); `input_ids_BT` follows it.
    """
    taken: dict[int, Tensor] = {}
    last = max(layers)
    kept_N = keep_BT.flatten().nonzero()[:, 0].to(parts.device)  # once: at every exit a GPU would be waited for

    def take(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            hidden = first_tensor(output)
            assert hidden is not None
            taken[layer] = hidden.flatten(0, 1)[kept_N.to(hidden.device)]
            if layer == last < parts.num_layers:
                raise _Enough

        return hook

    handles = [parts.blocks[k - 1].register_forward_hook(take(k)) for k in layers]
    try:
        parts.backbone(
            input_ids=input_ids_BT.to(parts.device), past_key_values=prefix_cache, use_cache=prefix_cache is not None
        )
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
            output = first_tensor(module(hidden))
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
