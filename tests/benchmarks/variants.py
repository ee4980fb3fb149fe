"""The ways of scoring that `bench_score.py` compares. Each returns mean log-probabilities, nats per token: [R, E].

The naive ones share no code with `curate.scoring`. Shape letters as there: B batch, T sequence, R records, E exits.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from curate.pipeline.compute import batch_scores
from curate.scoring.batches import BatchPlan
from curate.scoring.confidence import head_rows
from curate.scoring.parts import DecoderParts
from curate.scoring.score import ScoringModel, join_scores
from curate.types import SCORED, FloatArray, IntArray, TokenStore


@dataclass(frozen=True, slots=True)
class Work:
    """One model and its records, the same for every variant.

    plan   our batches: records that share a prefix are together, and it is computed once
    whole  batches of whole records, as the other variants compute them; `naive` has none
    """

    parts: DecoderParts
    table: TokenStore
    plan: BatchPlan
    whole: BatchPlan
    layers: tuple[int, ...]

    @property
    def model(self) -> Any:
        return self.parts.model

    @property
    def head_rows(self) -> int:
        return head_rows(self.model.config.vocab_size, on_gpu=self.parts.device.type == "cuda")

    def batches(self) -> list[IntArray]:
        return [self.whole.rows_of_batch(b) for b in range(len(self.whole.costs))]

    def record(self, row: int) -> tuple[Tensor, int]:
        """All tokens of a record, and how many of them are its prompt."""
        span = self.table.span(row)
        ids = torch.from_numpy(self.table.input_ids[span].astype(np.int64))
        return ids, int((self.table.marks[span] != SCORED).sum())


def ours(work: Work) -> FloatArray:
    return _ours(work, work.layers, work.plan)


def ours_last_exit(work: Work) -> FloatArray:
    return _ours(work, work.layers[-1:], work.plan)


def ours_whole(work: Work) -> FloatArray:
    return _ours(work, work.layers, work.whole)


def _ours(work: Work, layers: tuple[int, ...], plan: BatchPlan) -> FloatArray:
    scorer = ScoringModel(work.parts, layers, work.head_rows)
    scores_of = batch_scores(lambda: scorer, work.table, plan)
    scores = join_scores([scores_of(batch) for batch in range(len(plan.costs))])
    assert not scores.split, "a batch did not fit into memory"
    return scores.log_prob[np.argsort(scores.rows)].astype(np.float64)


@torch.inference_mode()
def naive(work: Work) -> FloatArray:
    """One record at a time through a k-layer model per exit."""
    out = np.empty((len(work.table), len(work.layers)))
    for exit_, k in enumerate(work.layers):
        model = _first_layers(work.model, k)
        for row in range(len(work.table)):
            ids, prompt = work.record(row)
            ids_1T = ids[None].to(work.parts.device)
            log_probs_TV = model(ids_1T, use_cache=False).logits[0].float().log_softmax(-1)
            chosen_T = log_probs_TV[:-1].gather(1, ids_1T[0, 1:, None])[:, 0]
            out[row, exit_] = chosen_T[prompt - 1 :].mean().item()
    return out


def _first_layers(model: Any, k: int) -> Any:
    """A model of the first k layers, which shares its weights with `model`."""
    config = type(model.config).from_dict({**model.config.to_dict(), "num_hidden_layers": k})
    with torch.device("meta"):
        small = type(model)(config).eval()
    small.lm_head = model.lm_head
    for name, module in model.model.named_children():
        setattr(small.model, name, nn.ModuleList(module[:k]) if name == "layers" else module)
    return small


@torch.inference_mode()
def naive_batched(work: Work) -> FloatArray:
    """Batches with every hidden state of every layer, then logits of every position at every exit."""
    out, model = np.empty((len(work.table), len(work.layers))), work.model
    for rows in work.batches():
        ids = [work.record(int(row))[0] for row in rows]
        ids_BT = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask_BT = nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
        scored_BT = torch.zeros_like(mask_BT)
        for i, row in enumerate(rows):
            scored_BT[i, work.record(int(row))[1] : len(ids[i])] = 1
        ids_BT, mask_BT, scored_BT = (t.to(work.parts.device) for t in (ids_BT, mask_BT, scored_BT[:, 1:]))
        states = model.model(ids_BT, attention_mask=mask_BT, output_hidden_states=True, use_cache=False).hidden_states
        for exit_, k in enumerate(work.layers):
            hidden_BTH = states[k] if k == len(states) - 1 else model.model.norm(states[k])
            log_probs_BTV = model.lm_head(hidden_BTH).float().log_softmax(-1)
            chosen_BT = log_probs_BTV[:, :-1].gather(2, ids_BT[:, 1:, None])[..., 0]
            del log_probs_BTV
            out[rows, exit_] = ((chosen_BT * scored_BT).sum(1) / scored_BT.sum(1)).cpu().numpy()
    return out


def lm_eval_available() -> bool:
    return importlib.util.find_spec("lm_eval") is not None


def lm_eval(work: Work) -> FloatArray:
    """lm-eval's log-likelihood of tokenised requests: the full model only; its batches have as many records as ours."""
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    words = WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), eos_token="</s>", pad_token="</s>")
    batch_size = -(-len(work.table) // len(work.whole.costs))
    harness = HFLM(work.model, tokenizer=tokenizer, batch_size=batch_size, max_length=4096)
    requests = []
    for row in range(len(work.table)):
        ids, prompt = work.record(row)
        requests.append((("", ""), ids[:prompt].tolist(), ids[prompt:].tolist()))
    answers = harness._loglikelihood_tokens(requests, disable_tqdm=True)
    tokens = work.table.rows["scored"]
    return np.array([[total / n] for (total, _), n in zip(answers, tokens, strict=True)])


VARIANTS: dict[str, tuple[str, Callable[[Work], FloatArray]]] = {
    "a": ("ours, {} exits", ours),
    "b": ("ours, last exit", ours_last_exit),
    "g": ("ours, {} exits, shared prefixes not used", ours_whole),
    "c": ("naive: {} models, one record at a time", naive),
    "d": ("naive: batched, all hidden states, full logits", naive_batched),
    "e": ("lm-eval loglikelihood (last exit)", lm_eval),
}
