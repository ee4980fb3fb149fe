"""Early exits of a causal language model: what its first k layers would predict, for many k from one forward pass.

Hooks on the decoder blocks take the residual stream after the chosen layers. The model's own tail (usually the final
norm) and LM head are then applied to it, with whatever scaling, soft-capping or bias they have. The parts come from
`curate.scoring.parts`, so no architecture is known by name. `curate.scoring.selftest` checks the result on every model
before anything is scored.

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
    """Choose the layers (counted from 1) after which confidence is read.

    A count n means the layers i * L / n for i = 1..n, rounded half up: n exits at equal distances, the last one at the
    last layer. Where the model has no more than n layers, all of them are exits. A list is taken as it is, sorted.

    >>> exit_layers(5, 32)  # 6.4, 12.8, 19.2, 25.6 and 32, rounded
    (6, 13, 19, 26, 32)
    >>> exit_layers(5, 4)
    (1, 2, 3, 4)
    >>> exit_layers((8, 4), 32)
    (4, 8)

    Raises:
        CurateError: the list is empty or names a layer that the model does not have.
    """
    if exits == "all":
        return tuple(range(1, num_layers + 1))
    if isinstance(exits, int):
        if num_layers <= exits:
            return tuple(range(1, num_layers + 1))
        # floor(i * L / n + 1/2) in whole numbers: Python's round() goes to the even number at a half.
        return tuple((2 * i * num_layers + exits) // (2 * exits) for i in range(1, exits + 1))
    layers = tuple(sorted(int(k) for k in exits))
    if not layers or layers[0] < 1 or layers[-1] > num_layers:
        raise CurateError(f"score.exits: the model has layers 1 to {num_layers}, got {list(layers)}")
    return layers


@torch.inference_mode()
def exit_hidden(
    parts: DecoderParts, input_ids_BT: Tensor, keep_BT: Tensor, layers: Sequence[int], prefix_cache: Cache | None = None
) -> list[Tensor]:
    """Return the residual stream after each of `layers`, at the kept positions only: [N, H] per layer.

    The forward pass ends after the last of `layers`. Memory is O(N * H) per exit, because the hooks keep no other
    positions.

    Args:
        parts: the model, taken apart.
        input_ids_BT: int64, padded on the right.
        keep_BT: bool, the N positions to keep.
        layers: layer numbers, from 1.
        prefix_cache: KV cache of the prefix that every record begins with (`curate.scoring.prefix_cache`);
            `input_ids_BT` holds what follows it.
    """
    taken: dict[int, Tensor] = {}
    last = max(layers)
    kept_N = keep_BT.flatten().nonzero()[:, 0].to(parts.device)  # once: at every exit it would wait for the GPU

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
        # No attention mask: padding stands on the right, where a causal decoder does not look, and without a mask its
        # fastest attention kernel applies. `selftest` checks that padding moves nothing.
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
    """Yield a function from hidden states [N, H] after any decoder layer to logits [N, V].

    While the context is open, the backbone's forward is replaced: it takes the given hidden states, applies only its
    tail, and the model's own forward does the rest. The final norm uses the statistics of the given states, not those
    of the last layer.
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
        # The model's forward wants token ids; only their shape and device matter, since the backbone ignores them.
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
    """Take out the blocks after layer k while the context is open: the model is then its k-layer subnet.

    The configuration still says L layers. Some models scale or shape things by that number (MiniCPM3 its branches,
    Gemma 4 its inputs for every layer), and the first k layers must keep them.
    """
    modules = dict(parts.blocks._modules)
    parts.blocks._modules = {name: modules[name] for name in list(modules)[:k]}
    try:
        yield
    finally:
        parts.blocks._modules = modules


class _Enough(Exception):  # noqa: N818 - not an error: ends a forward pass whose later layers nobody asked for
    """Raised by a hook after the last layer that is needed."""
