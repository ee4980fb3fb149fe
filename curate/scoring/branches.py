"""Finds what the blocks of a decoder add to the residual stream, without knowing an architecture by name.

One forward pass over eight tokens is watched, operation by operation. In every block the tensors are followed that are
sums of the block's input and of what its modules put out:

    block_out = c * block_in + sum over branches of c_i * branch_i

The branches are usually one attention and one MLP (or mixture of experts), one after the other or side by side; where a
norm stands between a branch and the sum, the norm's output is what is added.
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

Terms = dict[int, float]  # which outputs a tensor is the sum of, with their factors; _STREAM is the block's input
_Place = tuple[torch.device, int, int]

_STREAM = -1
_COPIES = {torch.ops.aten.clone, torch.ops.aten._to_copy}
_SUMS = {torch.ops.aten.add, torch.ops.aten.add_}
_PRODUCTS = {torch.ops.aten.mul, torch.ops.aten.mul_}
_QUOTIENTS = {torch.ops.aten.div, torch.ops.aten.div_}
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}  # of the norm; below float32 every sum was rounded
_HALF_TOLERANCE = 0.05


def find_branches(parts: DecoderParts) -> tuple[tuple[nn.Module, ...], ...]:
    """Return, for every decoder layer, the modules whose outputs it adds to the stream, in the order of their calls.

    Raises:
        CurateError: a block is not such a sum of its input and two or more branches (a norm stands on the stream
            itself), or a branch is called more than once.
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
    """Knows of every tensor of the block that is running which module outputs it is the sum of."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._terms: dict[_Place, Terms] = {}
        self._alive: list[Tensor] = []  # so that no address is used twice within a block
        self._outputs: list[tuple[nn.Module, Tensor]] = []
        self._stream = torch.empty(0)

    def attach(self, block: nn.Module, found: Callable[[tuple[nn.Module, ...]], None]) -> list[Any]:
        """Watch a block; `found` is told its branches, none if its output is no such sum. Returns hook handles."""

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
            elif func._schema.is_mutable:
                self._terms.pop(_place(out), None)
        return out

    def _terms_after(self, func: Any, args: Any, kwargs: Any) -> Terms | None:
        """The sum that an operation gives; None where it gives none, and for views, which are known by their place."""
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
        """What a module puts out is a branch to be, unless the stream is in it already or it did nothing.

        The outer of two modules that put out the same tensor comes later and counts.
        """
        hidden = first_tensor(output)
        if hidden is None or hidden.numel() != self._stream.numel() or _STREAM in (self._of(hidden) or {}):
            return
        if args and isinstance(args[0], Tensor) and _place(args[0]) == _place(hidden):
            return
        self._terms[_place(hidden)] = {len(self._outputs): 1.0}
        self._outputs.append((module, hidden.clone()))

    def _branches(self, block_out: Tensor | None) -> tuple[nn.Module, ...]:
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
    """Where a tensor stands in memory: the same for all its views of full size."""
    return tensor.device, tensor.data_ptr(), tensor.numel()


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value)
