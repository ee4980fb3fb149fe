"""Answers of a model to prompts: greedy, in batches, after the same template as scoring and training.

Shape letters: B batch, T sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from curate.evaluation.losses import evaluating
from curate.tokens.control import Codec, disarm, make_codec, write_names
from curate.tokens.prompts import alpaca, messages_of, plain, resolve_template
from curate.tokens.rendering import RenderWithTools, renderer
from curate.types import CurateError, Example, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Prompt = npt.NDArray[np.int64]


def prompts_of(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    template: str,
    system: str | None = None,
    now: datetime | None = None,
) -> list[Prompt]:
    """Return the token ids that a model is given to write the last response of every example: int64 [T] each.

    What the example holds from its last assistant turn on is left out; the rest is rendered and encoded as for
    scoring, with control tokens in the record's own text as ordinary text. `now` is the date and time that a chat
    template is told (default: the moment of this call).

    Raises:
        CurateError: an unknown template, or an example that has no turn to answer or needs tools.
    """
    resolved, codec = resolve_template(template, tokenizer), make_codec(tokenizer)
    render = renderer(tokenizer, now or datetime.now())
    return [_prompt(_open(example), render, codec, resolved, system) for example in examples]


def generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Return the model's greedy answer to every prompt, in the order of the prompts.

    An answer ends before the model's end token, or is cut after `max_new_tokens`. Prompts of like length are computed
    together, padded on the left, so that all answers begin at the same position; no answer depends on its neighbours
    beyond rounding.

    Args:
        model: a causal LM, as loaded or with an adapter; used without dropout, then as it was.
        tokenizer: of the model.
        prompts: as `prompts_of` gives them.
        max_new_tokens: longest answer.
        batch_size: prompts computed at once.
        on_progress: called with (answers done, prompts) after every batch.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers = [""] * len(prompts)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            texts = _generate_batch(model, tokenizer, [prompts[i] for i in batch], max_new_tokens)
            for i, text in zip(batch, texts, strict=True):
                answers[i] = text
            if on_progress:
                on_progress(start + len(batch), len(order))
    return answers


def _open(example: Example) -> Example:
    """The example up to its last assistant turn, or whole if nobody answered."""
    last = max((i for i, turn in enumerate(example.turns) if turn.role == "assistant"), default=len(example.turns))
    opened = replace(example, turns=example.turns[:last])
    if not any(turn.role == "user" for turn in opened.turns):
        raise CurateError(f"row {example.row}: expected a user turn to answer, got none")
    return opened


def _prompt(example: Example, render: RenderWithTools, codec: Codec, template: str, system: str | None) -> Prompt:
    if template == "chat":
        messages = {"messages": messages_of(example, system=system), "tools": list(example.tools or ()) or None}
        data, originals, _ = disarm(messages, codec)
        rendering = render(data["messages"], data["tools"], True)
        text, opening = write_names(rendering, codec, originals), codec.opening[:0]
    else:
        empty = replace(example, turns=(*example.turns, Turn("assistant", "")))
        rendered = (alpaca if template == "alpaca" else plain)(empty, system=system)
        if rendered is None:
            raise CurateError(f"row {example.row}: tools need a chat template; prompt.template is {template}")
        text, opening = rendered.text, codec.opening
    return np.concatenate([opening, codec.ids[codec.backend.encode(text, add_special_tokens=False).ids]])


@torch.inference_mode()
def _generate_batch(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    longest = max(map(len, prompts))
    ids_BT = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for i, prompt in enumerate(prompts):
        ids_BT[i, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask_BT[i, longest - len(prompt) :] = 1
    device = model.get_input_embeddings().weight.device
    ends = _end_tokens(model, tokenizer)
    out_BT = model.generate(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        # A checkpoint may bring sampling settings of its own, which greedy decoding does not read and warns about.
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    return [_text(tokenizer, answer, set(ends)) for answer in out_BT[:, longest:].tolist()]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and those that the checkpoint names for generation."""
    own = model.generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    return sorted({end for end in [tokenizer.eos_token_id, *named] if end is not None})


def _text(tokenizer: Any, answer: list[int], ends: set[int]) -> str:
    length = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return str(tokenizer.decode(answer[:length], skip_special_tokens=True)).strip()
