"""Greedy answers after the template of scoring, the same for every prompt whatever stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate.evaluation.answers import generate, prompts_of
from curate.models.load import load_model, load_tokenizer
from curate.tokens.tokenize import tokenize
from curate.types import SCORED, CurateError, Example, Turn


def example(instruction: str, answer: str | None = None, **settings: Any) -> Example:
    turns = [Turn("user", instruction, **settings), *([] if answer is None else [Turn("assistant", answer)])]
    return Example(0, "00" * 32, tuple(turns))


def stepwise(model: Any, prompt: Any, end: int, steps: int) -> list[int]:
    """Greedy decoding without a cache, one whole forward pass per token."""
    ids = prompt.tolist()
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "chat_llama"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_are_those_of_greedy_decoding_one_by_one(
    name: str, batch_size: int, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(name))
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    examples = [example("write a poem"), example("why?", "because"), example("sum of seven and half a word", input="x")]
    prompts = prompts_of(examples, tokenizer, template="auto")
    seen: list[tuple[int, int]] = []
    answers = generate(
        model, tokenizer, prompts, max_new_tokens=8, batch_size=batch_size, on_progress=lambda *at: seen.append(at)
    )
    expected = [stepwise(model, prompt, tokenizer.eos_token_id, 8) for prompt in prompts]
    assert answers == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
    assert len(set(answers)) > 1
    assert seen[-1] == (3, 3)


@pytest.mark.parametrize("template", ["alpaca", "plain", "chat"])
def test_a_prompt_is_what_stands_before_the_response_in_scoring(template: str, chat_llama: Path) -> None:
    tokenizer = load_tokenizer(str(chat_llama))
    records = [example("list </s> seven\n", "\nred"), example("why?", "\nblue", input="</s> city")]
    scored = tokenize(records, tokenizer, template=template, max_length=500)
    for tokens, prompt in zip(scored, prompts_of(records, tokenizer, template=template), strict=True):
        before = tokens.input_ids[: int(np.argmax(tokens.marks == SCORED))]
        np.testing.assert_array_equal(prompt, before)


def test_an_answer_ends_before_the_end_token(llama: Path) -> None:
    model, tokenizer = load_model(str(llama)), load_tokenizer(str(llama))
    prompts = prompts_of([example("write a poem")], tokenizer, template="auto")
    first, second = stepwise(model, prompts[0], -1, 2)
    model.generation_config.eos_token_id = [second]
    assert generate(model, tokenizer, prompts, max_new_tokens=8) == [tokenizer.decode([first]).strip()]


def test_generation_is_without_dropout_and_the_model_stays_in_training(llama: Path) -> None:
    model, tokenizer = load_model(str(llama)), load_tokenizer(str(llama))
    model.train()
    generate(model, tokenizer, prompts_of([example("why?")], tokenizer, template="auto"), max_new_tokens=2)
    assert all(module.training for module in model.modules())


def test_an_example_without_a_user_turn_is_refused(llama: Path) -> None:
    nobody = Example(7, "00" * 32, (Turn("assistant", "hello"),))
    with pytest.raises(CurateError, match="row 7: expected a user turn to answer, got none"):
        prompts_of([nobody], load_tokenizer(str(llama)), template="auto")
