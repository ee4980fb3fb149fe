"""Finds the branches of a decoder: the modules whose outputs its blocks add to the residual stream.

No architecture is known by name. One forward pass over eight tokens is watched, operation by operation, and every
tensor is followed that is a sum of the block's input and of outputs of its modules:

    block_out = c * block_in + sum over branches of c_i * branch_i

A block usually has two branches, an attention and an MLP (or a mixture of experts), one after the other or side by
side. Where a norm stands between a module and the sum, the norm is the branch: its output is what is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from curate.scoring.parts import DecoderParts, first_tensor
from curate.types import CurateError

# A tensor as a sum: {3: 1.0, _STREAM: 0.5} is output number 3 plus half the block's input.
Terms = dict[int, float]
_Place = tuple[torch.device, int, int]

_STREAM = -1
_COPIES = {torch.ops.aten.clone, torch.ops.aten._to_copy}
_SUMS = {torch.ops.aten.add, torch.ops.aten.add_}
_PRODUCTS = {torch.ops.aten.mul, torch.ops.aten.mul_}
_QUOTIENTS = {torch.ops.aten.div, torch.ops.aten.div_}
# Largest error of a rebuilt block output, relative to its norm. In 16 bits the model itself rounds at every sum.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
_HALF_TOLERANCE = 0.05


def find_branches(parts: DecoderParts) -> tuple[tuple[nn.Module, ...], ...]:
    """Find, for every decoder layer, the modules whose outputs it adds to the stream, in the order of their calls.

    Raises:
        CurateError: a block's output is not a sum of its input and two or more branches (for example because a norm
            is applied to the stream itself), or a branch is called more than once.
    """
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    ids_1T = (torch.arange(8, device=parts.device) * 7 + 3)[None] % vocabulary
    watch = _Sums()
    layers: list[tuple[nn.Module, ...]] = []
    handles = [watch.attach(block, layers.append) for block in parts.blocks]
    try:
        with torch.no_grad(), watch:
            parts.backbone(input_ids=ids_1T, use_cache=False)
    finally:
        for handle in (h for block in handles for h in block):
            handle.remove()
    calls = Counter(module for branches in layers for module in branches)
    for number, branches in enumerate(layers, 1):
        if len(branches) < 2 or any(calls[module] > 1 for module in branches):
            raise CurateError(
                f"score.dropout: expected decoder layers of {type(parts.model).__name__} to add an attention and an "
                f"MLP to the residual stream, got {len(branches)} such branches "
                f"in layer {number}: this architecture has no dropout score; use score.dropout=false"
            )
    return tuple(layers)


class _Sums(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class is not typed
    """Records, for every tensor of the running block, which module outputs it is the sum of."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._terms: dict[_Place, Terms] = {}
        # Tensors are told apart by their address in memory; held here, none is freed and its address used again.
        self._alive: list[Tensor] = []
        self._outputs: list[tuple[nn.Module, Tensor]] = []
        self._stream = torch.empty(0)

    def attach(self, block: nn.Module, found: Callable[[tuple[nn.Module, ...]], None]) -> list[Any]:
        """Watch a block and call `found` with its branches, none if its output is no such sum; return hook handles."""

        def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
            self._stream, self._alive, self._outputs = stream.clone(), [stream], []
            self._terms = {_place(stream): {_STREAM: 1.0}}

        def end(module: nn.Module, args: Any, output: Any) -> None:
            found(self._branches(first_tensor(output)))

        handles = [block.register_forward_pre_hook(begin, with_kwargs=True)]
        handles += [m.register_forward_hook(self._note) for m in block.modules() if m is not block]
        return [*handles, block.register_forward_hook(end)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        terms = self._terms_after(func, args, kwargs or {})
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self._alive.append(out)
            if terms is not None:
                self._terms[_place(out)] = terms
            elif func._schema.is_mutable:  # overwritten in place by something that is no sum
                self._terms.pop(_place(out), None)
        return out

    def _terms_after(self, func: Any, args: Any, kwargs: Any) -> Terms | None:
        """Return the sum that an operation computes, or None where its result is not a sum of known tensors.

        A view needs no entry: it has the same place in memory as its tensor.
        """
        packet = func.overloadpacket
        if packet in _COPIES:
            return self._of(args[0])
        if packet in _SUMS:
            a, b = self._of(args[0]), self._of(args[1])
            if a is None or b is None:
                return None
            alpha = float(kwargs.get("alpha", 1))
            return {i: a.get(i, 0.0) + alpha * b.get(i, 0.0) for i in a.keys() | b.keys()}
        if packet in _PRODUCTS | _QUOTIENTS:
            for known, other in ((args[0], args[1]), (args[1], args[0])):
                terms, factor = self._of(known), _number(other)
                if terms is not None and factor is not None and (known is args[0] or packet in _PRODUCTS):
                    factor = factor if packet in _PRODUCTS else 1 / factor
                    return {i: factor * c for i, c in terms.items()}
        return None

    def _of(self, value: Any) -> Terms | None:
        return self._terms.get(_place(value)) if isinstance(value, Tensor) else None

    def _note(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note a module's output as a possible branch, under the next number.

        It is none if it has another size, if the stream is part of it already, or if the module returned its input.
        Of two nested modules that return the same tensor the outer one, whose hook runs last, is the branch.
        """
        hidden = first_tensor(output)
        if hidden is None or hidden.numel() != self._stream.numel() or _STREAM in (self._of(hidden) or {}):
            return
        if args and isinstance(args[0], Tensor) and _place(args[0]) == _place(hidden):
            return
        self._terms[_place(hidden)] = {len(self._outputs): 1.0}
        self._outputs.append((module, hidden.clone()))

    def _branches(self, block_out: Tensor | None) -> tuple[nn.Module, ...]:
        """Return the modules in the block output's sum; none if the sum, computed again, misses the output."""
        terms = self._of(block_out)
        if block_out is None or terms is None or not terms.get(_STREAM):
            return ()
        rebuilt = terms.pop(_STREAM) * self._stream.double().flatten()
        for i, factor in terms.items():
            rebuilt = rebuilt + factor * self._outputs[i][1].double().flatten().to(rebuilt.device)
        exact = block_out.double().flatten().to(rebuilt.device)
        error = float((exact - rebuilt).norm() / exact.norm())
        if not error <= _TOLERANCE.get(block_out.dtype, _HALF_TOLERANCE):
            return ()
        return tuple(self._outputs[i][0] for i in sorted(terms))


def _place(tensor: Tensor) -> _Place:
    """Return where a tensor stands in memory; all its views of full size have the same place."""
    return tensor.device, tensor.data_ptr(), tensor.numel()


def _number(value: Any) -> float | None:
    """Return a factor as a float; None for a tensor of more than one number."""
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value)
