"""Trains the shipped model: a byte-level tokenizer and a small Llama, on generated text only.

    python -m recipes.demo.train_model --out DIR

Tasks of the shipped data set and of the held-out set are left out of training.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate.tokens.prompts import Rendered, alpaca
from curate.types import Example, Turn
from recipes.demo.generate import SHIPPED_COUNT, SHIPPED_SEED, Planted, generate

TRAIN_COUNT, TRAIN_SEED = 80_000, 1
HELD_OUT_COUNT, HELD_OUT_SEED = 1_000, 2
VOCABULARY = 2048
CONTEXT = 512
TOKENIZER_RECORDS = 20_000
BATCH_TOKENS = 2048
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
EOS, PAD = "<|end|>", "<|pad|>"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One record as token ids that end with the end token; `start` is the position of the first response token."""

    ids: list[int]
    start: int


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of the model card; losses are nats per response token on held-out records, without the end token."""

    parameters: int
    records: int
    held_out: int
    tokens: int
    minutes: float
    loss: float
    untrained_loss: float


def split_records() -> tuple[list[Planted], list[Planted]]:
    """Return training and held-out records, without flaws; no task is in both, or in the shipped data."""
    taken = {_task(p) for p in generate(SHIPPED_COUNT, seed=SHIPPED_SEED, flaws=False)}
    held_out = [p for p in generate(HELD_OUT_COUNT, seed=HELD_OUT_SEED, flaws=False) if _task(p) not in taken]
    taken |= {_task(p) for p in held_out}
    return [p for p in generate(TRAIN_COUNT, seed=TRAIN_SEED, flaws=False) if _task(p) not in taken], held_out


def _task(planted: Planted) -> tuple[str, str]:
    return planted.record["instruction"], planted.record["input"]


def render(planted: Planted) -> Rendered:
    """Return the record in the Alpaca template, by the same function that scoring uses."""
    record = planted.record
    turns = (Turn("user", record["instruction"], input=record["input"]), Turn("assistant", record["output"]))
    rendered = alpaca(Example(row=0, id="", turns=turns))
    assert rendered is not None
    return rendered


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of VOCABULARY tokens, in which every digit is a token of its own."""
    # With one token per digit, a small model can learn to add column by column.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, model_max_length=CONTEXT, padding_side="right"
    )


def encode(records: Sequence[Planted], tokenizer: PreTrainedTokenizerFast) -> list[Sequenced]:
    """Return records as token ids, prompt and response tokenised as one text.

    A token belongs to the response if its last character does.
    """
    sequences = []
    for planted in records:
        rendered = render(planted)
        coded = tokenizer(rendered.text, return_offsets_mapping=True)
        begin = rendered.responses[0].start
        start = next(i for i, (_, end) in enumerate(coded["offset_mapping"]) if end > begin)
        sequences.append(Sequenced([*coded["input_ids"], tokenizer.eos_token_id], start))
    return sequences


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return the untrained model: 6 layers of width 192, tied embeddings, about three million parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # on a CPU, with short sequences, it trains faster than sdpa
    return model


def batches(sequences: Sequence[Sequenced], *, num_tokens: int, seed: int) -> Iterator[list[Sequenced]]:
    """Yield one epoch of batches in random order; records of a batch have similar lengths.

    A batch has at most `num_tokens` tokens, padding included, or is a single record.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = [sequences[i] for i in torch.randperm(len(sequences), generator=generator).tolist()]
    # Shuffled before the stable sort: records of equal length meet in a new batch with every seed.
    shuffled.sort(key=lambda s: len(s.ids))
    plan: list[list[Sequenced]] = [[]]
    for sequence in shuffled:
        if (len(plan[-1]) + 1) * len(sequence.ids) > num_tokens:
            plan.append([])
        plan[-1].append(sequence)
    for i in torch.randperm(len(plan), generator=generator).tolist():
        yield plan[i]


def _padded(batch: Sequence[Sequenced], pad: int) -> torch.Tensor:
    rows = [torch.tensor(s.ids) for s in batch]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)


def train(model: LlamaForCausalLM, sequences: Sequence[Sequenced]) -> int:
    """Train on all tokens for one epoch, and return the number of tokens.

    The optimizer is AdamW, with a short warm-up and a cosine schedule. Matrix products are computed in bfloat16
    (autocast); weights and optimizer are in float32.
    """
    pad = model.config.pad_token_id
    plan = list(batches(sequences, num_tokens=BATCH_TOKENS, seed=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05, betas=(0.9, 0.98))
    model.train()
    for step, batch in enumerate(plan):
        warm, cosine = (step + 1) / WARMUP_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / len(plan))
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(warm, cosine)
        ids = _padded(batch, pad)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=pad)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0:
            logger.info("step %d of %d, loss %.3f", step, len(plan), loss.item())
    return sum(len(s.ids) for s in sequences)


@torch.inference_mode()
def response_loss(model: LlamaForCausalLM, sequences: Sequence[Sequenced]) -> float:
    """Return the mean of -log p(token) over all response tokens, in nats; the end token is left out."""
    total, count = 0.0, 0
    model.eval()
    for s in sequences:
        # Without the last two ids: the last response token would predict the end token, and that nothing.
        logits = model(input_ids=torch.tensor([s.ids[:-2]])).logits[0, s.start - 1 :].float()
        total += F.cross_entropy(logits, torch.tensor(s.ids[s.start : -1]), reduction="sum").item()
        count += logits.shape[0]
    return total / count


def write_card(out: Path, result: Result) -> None:
    """Write the model card, with the figures of this training."""
    card = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    (out / "README.md").write_text(card.format(**asdict(result)), encoding="utf-8")


def main(out: Path) -> None:
    """Train the model, and save model, tokenizer and model card into `out`."""
    torch.set_num_threads(1)  # so that no sum depends on the number of cores
    records, held_out = split_records()
    tokenizer = train_tokenizer([render(p).text for p in records[:TOKENIZER_RECORDS]])
    model = new_model(tokenizer)
    held_out_sequences = encode(held_out, tokenizer)
    untrained = response_loss(model, held_out_sequences)
    started = time.process_time()
    tokens = train(model, encode(records, tokenizer))
    seconds = time.process_time() - started
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    # The loss of the card is that of the saved model, which was rounded to float16.
    saved = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    loss = response_loss(saved, held_out_sequences)
    parameters = sum(p.numel() for p in saved.parameters())
    result = Result(parameters, len(records), len(held_out), tokens, seconds / 60, loss, untrained)
    logger.info("%s", result)
    write_card(out, result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main(parser.parse_args().out)
