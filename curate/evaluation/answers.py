"""Generates a model's answers to prompts: greedy, in batches, with the same template as scoring and training.

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
from curate.tokens.prompts import alpaca, beside_messages, messages_of, plain, resolve_template
from curate.tokens.rendering import RenderRecord, renderer
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
    """Return the token ids of the prompt for the last response of every example: int64 [T] each.

    The last assistant turn and what follows it are left out. The rest is rendered and encoded as for scoring; control
    tokens in the record's own text stay ordinary text. `now` is the date and time that a chat template is told
    (default: the moment of this call).

    Raises:
        CurateError: the template is unknown; an example has no user turn to answer; or it uses tools, and the template
            is not a chat template.
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
    """Generate the model's greedy answer to every prompt, in the order of the prompts.

    An answer ends before the model's end token, or is cut after `max_new_tokens`. Except for rounding, it does not
    depend on the other prompts.

    Args:
        model: a causal LM, as loaded or with an adapter; it is used without dropout and left as it was.
        tokenizer: the model's tokenizer.
        prompts: as `prompts_of` returns them.
        max_new_tokens: most tokens of an answer.
        batch_size: prompts computed at once.
        on_progress: called with (answers done, number of prompts) after every batch.
    """
    # The longest first: what does not fit into memory fails at once, and prompts of similar length need little padding.
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
    """Return the example up to its last assistant turn, or whole if it has none."""
    last = max((i for i, turn in enumerate(example.turns) if turn.role == "assistant"), default=len(example.turns))
    opened = replace(example, turns=example.turns[:last])
    if not any(turn.role == "user" for turn in opened.turns):
        raise CurateError(f"row {example.row}: expected a user turn to answer, got none")
    return opened


def _prompt(example: Example, render: RenderRecord, codec: Codec, template: str, system: str | None) -> Prompt:
    """Render and encode an example that ends before the answer."""
    if template == "chat":
        given = {"messages": messages_of(example, system=system), "beside": beside_messages(example)}
        data, originals, _ = disarm(given, codec)
        rendering = render(data["messages"], data["beside"], True)
        text, opening = write_names(rendering, codec, originals), codec.opening[:0]
    else:
        # An empty assistant turn makes the template write its header ("### Response:") and nothing after it.
        empty = replace(example, turns=(*example.turns, Turn("assistant", "")))
        rendered = (alpaca if template == "alpaca" else plain)(empty, system=system)
        if rendered is None:
            raise CurateError(f"row {example.row}: tools need a chat template; prompt.template is {template}")
        text, opening = rendered.text, codec.opening
    return np.concatenate([opening, codec.ids[codec.backend.encode(text, add_special_tokens=False).ids]])


@torch.inference_mode()
def _generate_batch(model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    """Generate the answers to one batch of prompts."""
    # Padded on the left, so that all answers begin at the same position.
    longest = max(map(len, prompts))
    ids_BT = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for i, prompt in enumerate(prompts):
        ids_BT[i, longest - len(prompt) :] = torch.from_numpy(prompt)
        mask_BT[i, longest - len(prompt) :] = 1
    # A model may lie on several devices; ids go where its embedding is.
    device = model.get_input_embeddings().weight.device
    ends = _end_tokens(model, tokenizer)
    out_BT = model.generate(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        # A checkpoint may hold sampling settings; greedy decoding ignores them, but warns about them.
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    return [_text(tokenizer, answer, set(ends)) for answer in out_BT[:, longest:].tolist()]


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's end token, and those of the model's generation config."""
    own = model.generation_config.eos_token_id
    named = own if isinstance(own, list) else [own]
    return sorted({end for end in [tokenizer.eos_token_id, *named] if end is not None})


def _text(tokenizer: Any, answer: list[int], ends: set[int]) -> str:
    length = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return str(tokenizer.decode(answer[:length], skip_special_tokens=True)).strip()
