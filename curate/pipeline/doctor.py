"""Proves that a model is scored correctly on this machine; `curate doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from curate.config import Recipe
from curate.models.load import load_model
from curate.scoring.exits import exit_layers
from curate.scoring.parts import find_parts
from curate.scoring.selftest import prefix_check, run_checks
from curate.types import CurateError


def examine(recipe: Recipe) -> Iterator[str]:
    """Yield a line for each law that was measured: what, the error seen, what is allowed.

    Raises:
        CurateError: the model cannot be loaded or taken apart, or fails a law.
    """
    if not recipe.model.name:
        raise CurateError("expected the model to examine, got nothing; give it as model.name=...")
    model = load_model(**recipe.model.model_dump(exclude={"allow_tokens"}))
    parts = find_parts(model)
    tail = ", ".join(type(module).__name__ for module in parts.tail) or "nothing"
    yield f"{type(parts.model).__name__}, {model.num_parameters():,} parameters, {model.dtype}, {parts.device}"
    layers = exit_layers(recipe.score.exits, parts.num_layers)
    yield f"{parts.num_layers} layers, then {tail}, then the LM head; exits {list(layers)}"
    checks = run_checks(parts, layers)
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        yield f"{verdict:>6}  {check.name}: {check.error:.2g} nats, allowed {check.tolerance:g}"
    if not all(check.passed for check in checks):
        raise CurateError(f"{recipe.model.name} would be scored wrongly")
    prefixes = prefix_check(parts)
    verdict, unless = ("ok", "") if prefixes.passed else ("no", "; so every record is computed whole")
    yield f"{verdict:>6}  {prefixes.name}: {prefixes.error:.2g} nats, allowed {prefixes.tolerance:g}{unless}"
