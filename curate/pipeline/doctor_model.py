"""The doctor's checks of a model in one precision: whether it is scored correctly, and what each layer predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch

from curate.models.checks import refuse_bidirectional
from curate.probe.findings import Finding, bar, verdict
from curate.scoring.confidence import token_log_probs
from curate.scoring.exits import exit_hidden, exit_layers, replayed_head
from curate.scoring.parts import DecoderParts, find_parts
from curate.scoring.selftest import prefix_check, run_checks
from curate.tokens.prompts import PREAMBLE
from curate.types import CurateError, FloatArray

SENTENCES = (
    "Once upon a time there was a little girl who lived in a small house near the forest.",
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "The sun rises in the east and sets in the west.",
    "She opened the door, looked at the rain, and went back to get her umbrella.",
    "One, two, three, four, five, six, seven, eight, nine, ten.",
    PREAMBLE,
)
"""Sentences that a language model trained on English, or on instructions, predicts better than a guess would."""

_MARGIN = 0.25  # nats per token by which a trained model must beat a guess


def examine_model(model: Any, exits: int | Literal["all"] | Sequence[int], *, name: str) -> Iterator[Finding]:
    """Yield, for a loaded model, which conditions of correct scoring hold and which fail.

    Args:
        model: a causal LM in eval mode.
        exits: as score.exits.
        name: what the findings are about, such as float32.
    """
    try:
        refuse_bidirectional(name, model)
        yield Finding("pass", f"{name}: order", "predictions do not depend on later tokens")
    except CurateError as error:
        yield Finding("fail", f"{name}: order", str(error))
    try:
        parts = find_parts(model)
        layers = exit_layers(exits, parts.num_layers)
    except CurateError as error:
        yield Finding("fail", f"{name}: parts", str(error))
        return
    yield from examine_parts(parts, layers, name=name)


def examine_parts(parts: DecoderParts, layers: Sequence[int], *, name: str) -> Iterator[Finding]:
    """Yield what a model consists of, and whether exits, padding and prefixes are computed correctly.

    Args:
        parts: the model, taken apart.
        layers: the exits.
        name: what the findings are about, such as float32.
    """
    model, tail = parts.model, ", ".join(type(module).__name__ for module in parts.tail) or "nothing"
    what = f"{type(model).__name__}, {model.num_parameters():,} parameters, {model.dtype}, {parts.device}"
    yield Finding("note", f"{name}: model", what)
    how = f"{parts.num_layers} layers, then {tail}, then the LM head; exits {list(layers)}"
    yield Finding("note", f"{name}: parts", how)
    for check in run_checks(parts, layers):
        seen = f"{check.error:.2g} nats, allowed {check.tolerance:g}"
        yield verdict(check.passed, f"{name}: {check.name}", seen)
    prefixes = prefix_check(parts)
    seen = f"{prefixes.error:.2g} nats, allowed {prefixes.tolerance:g}"
    if prefixes.passed:  # a failure is only a note: scoring then does without cached prefixes, and is still correct
        yield Finding("pass", f"{name}: {prefixes.name}", seen)
    else:
        yield Finding("note", f"{name}: {prefixes.name}", f"no ({seen}); so every record is computed whole")


def examine_signal(parts: DecoderParts, layers: Sequence[int], texts_ids: Sequence[Sequence[int]]) -> Iterator[Finding]:
    """Yield the mean log-probability that every layer gives to a few sentences, and whether the model knows anything.

    A layer that does no better than a uniform guess among all tokens (-ln V nats, V tokens) carries no signal yet. The
    bars begin at the guess and are full at 0, certainty.

    Args:
        parts: the model, taken apart.
        layers: the exits.
        texts_ids: token ids of the sentences.
    """
    vocabulary = parts.model.get_input_embeddings().weight.shape[0]
    chance, by_layer = -math.log(vocabulary), log_prob_by_layer(parts, texts_ids)
    for layer, value in enumerate(by_layer.tolist(), start=1):
        mark = " exit" if layer in layers else ""
        yield Finding("note", f"layer {layer:>3}", f"{value:8.2f} nats  {bar(value, chance, 0.0)}{mark}".rstrip())
    last = float(by_layer[-1])
    knows = last > chance + _MARGIN
    said = f"{last:.2f} nats per token on built-in English sentences, a guess {chance:.2f}"
    if not knows:
        said += ": weights that are damaged, random or of another tokenizer, or a model of no English"
    yield verdict(knows, "knowledge", said)
    blind = [layer for layer in layers if by_layer[layer - 1] <= chance]
    if knows and blind:
        first = next(layer for layer, value in enumerate(by_layer.tolist(), start=1) if value > chance)
        text = f"exits {blind} are no better than a guess; layer {first} is the first that is"
        yield Finding("note", "exits with signal", text)
    elif knows:
        yield Finding("pass", "exits with signal", "every exit is better than a guess")


@torch.inference_mode()
def log_prob_by_layer(parts: DecoderParts, texts_ids: Sequence[Sequence[int]]) -> FloatArray:
    """Return the mean log-probability of the tokens of some texts after every layer, float64 [L], nats per token.

    It is the mean over texts of the mean over tokens. The first token of a text has no prediction and does not count.
    """
    layers, mean = range(1, parts.num_layers + 1), np.zeros(parts.num_layers)
    for ids in texts_ids:
        ids_1T = torch.tensor([list(ids)])
        keep = torch.ones_like(ids_1T, dtype=torch.bool)
        keep[:, -1] = False  # what the last token predicts is not in the text
        hidden = exit_hidden(parts, ids_1T, keep, layers)
        with replayed_head(parts) as head:
            for i, states in enumerate(hidden):
                logits = head(states)
                mean[i] += float(token_log_probs(logits, ids_1T[0, 1:].to(logits.device)).double().mean())
    return mean / len(texts_ids)
