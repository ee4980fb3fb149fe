"""Models that do not fit: spread over memory and disk they score as they would whole, quantised as their own logits."""

# ruff: noqa: T201 - the figures are for the person who runs it

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import cpu_offload
from conftest import alpaca_records, write_json_array

from curate.config import load_recipe
from curate.models.load import load_model
from curate.pipeline import perform
from curate.scoring.exits import first_layers
from curate.scoring.parts import find_parts
from curate.scoring.score import ScoringModel, score_batch
from curate.scoring.selftest import confirm
from curate.tokens.store import open_tokens, write_tokens
from curate.types import CONTEXT, SCORED, BatchScores, Tokens, TokenStore

LAYERS = (1, 2, 4)
CPU = torch.device("cpu")
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra: quantization"
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Twelve records of 8 to 30 random tokens, the first third of each the prompt."""
    rng = np.random.default_rng(0)
    records = []
    for row in range(12):
        length = int(rng.integers(8, 31))
        marks = np.full(length, SCORED, np.uint8)
        marks[: length // 3] = CONTEXT
        ids = rng.integers(2, 500, length).astype(np.int32)
        records.append(Tokens(row, f"{row:064x}", "scored", False, ids, marks))
    folder = tmp_path_factory.mktemp("table") / "tokens"
    assert list(write_tokens(records, folder))[-1] == 12
    return open_tokens(folder)


def score_all(model: Any, table: TokenStore, batch: int = 12) -> BatchScores:
    parts = find_parts(model)
    confirm(parts)
    scorer = ScoringModel(parts, LAYERS, 1000)
    rows = np.arange(len(table))
    results = [score_batch(scorer, table, rows[i : i + batch]) for i in range(0, len(rows), batch)]
    return BatchScores(
        *(np.concatenate([getattr(r, name) for r in results]) for name in ("rows", "status", "confidence", "log_prob"))
    )


def plain(model: Any, table: TokenStore) -> npt.NDArray[np.float64]:
    """Mean log-probability [R, E] of every record alone, from the logits of the model cut to its first k layers.

    The last token is not read, as in scoring: in int8 every token moves the others.
    """
    parts = find_parts(model)
    out = np.zeros((len(table), len(LAYERS)))
    for row in range(len(table)):
        span = table.span(row)
        ids = torch.from_numpy(np.array(table.input_ids[span], np.int64))
        scored = np.flatnonzero(table.marks[span] == SCORED)
        for exit_, layer in enumerate(LAYERS):
            with torch.no_grad(), first_layers(parts, layer):
                log_probs = model(input_ids=ids[None, :-1], use_cache=False).logits[0].double().log_softmax(-1)
            out[row, exit_] = float(log_probs[scored - 1, ids[scored]].mean())
    return out


# ---------------------------------------------------------------- device maps


def on_disk(folder: Path, offload: Path) -> Any:
    places = {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    others = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    model = load_model(str(folder), device_map=others | places, offload_folder=offload)
    assert [next(block.parameters()).is_meta for block in model.model.layers] == [False, True, False, True]
    return model


def all_on_disk(folder: Path, offload: Path) -> Any:
    places = dict.fromkeys(("model.embed_tokens", "model.rotary_emb"), "cpu")
    places |= dict.fromkeys(("model.layers", "model.norm", "lm_head"), "disk")
    model = load_model(str(folder), device_map=places, offload_folder=offload)
    assert model.lm_head.weight.is_meta
    assert model.model.norm.weight.is_meta
    return model


def layers_brought_when_needed(folder: Path, offload: Path) -> Any:
    """As beside a GPU that is too small: the weights wait in memory and the modules are empty in between."""
    model = load_model(str(folder), device=CPU)
    for block in model.model.layers:
        cpu_offload(block, execution_device=CPU)
        assert all(parameter.is_meta for parameter in block.parameters())
    return model


@pytest.mark.parametrize("spread", [on_disk, all_on_disk, layers_brought_when_needed])
def test_a_model_spread_over_memory_and_disk_scores_as_it_does_whole(
    tmp_path: Path, llama: Path, table: TokenStore, spread: Any
) -> None:
    whole = score_all(load_model(str(llama), device=CPU), table)
    got = score_all(spread(llama, tmp_path / "offload"), table)
    assert got.status.tolist() == whole.status.tolist() == [0] * len(table)
    np.testing.assert_allclose(got.confidence, whole.confidence, atol=1e-6, rtol=0)
    np.testing.assert_allclose(got.log_prob, whole.log_prob, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kilobytes", [None, 200])
def test_device_map_auto_scores_the_same_with_much_memory_and_with_little(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, kilobytes: int | None
) -> None:
    """Through the whole stage; with little memory some layers are left on the disk."""
    data = write_json_array(tmp_path / "alpaca.json", alpaca_records(30))
    words = [f"data.path={data}", f"model.name={llama}"]
    perform("score", load_recipe(None, [*words, f"run.dir={tmp_path / 'whole'}"]))
    placed = []
    if kilobytes:
        memory = {"cpu": kilobytes * 1024}
        monkeypatch.setattr("transformers.integrations.accelerate.accelerate_max_memory", lambda *_: memory)
        monkeypatch.setattr("transformers.integrations.accelerate.get_max_memory", lambda *_: memory)
        monkeypatch.setattr(
            "curate.scoring.parts.find_parts",
            lambda model: placed.append(set(model.hf_device_map.values())) or find_parts(model),
        )
    perform("score", load_recipe(None, [*words, "model.device_map=auto", f"run.dir={tmp_path / 'spread'}"]))
    assert placed == ([{"cpu", "disk"}] if kilobytes else [])
    whole, spread = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("whole", "spread"))
    assert spread["status"] == whole["status"]
    for column in ("confidence", "log_prob"):
        a, b = (np.array([v for v in t[column].to_pylist() if v is not None]) for t in (whole, spread))
        np.testing.assert_allclose(b, a, atol=1e-6, rtol=1e-6)


# ---------------------------------------------------------------- quantised weights


@needs_bitsandbytes
@pytest.mark.parametrize(("quantization", "tolerance"), [("8bit", 1e-5), ("4bit", 1e-5)])
def test_quantised_scores_are_those_of_the_quantised_models_own_logits(
    llama: Path, table: TokenStore, quantization: Literal["8bit", "4bit"], tolerance: float
) -> None:
    """Record by record, so that nothing but our way of reading the exits could make a difference."""
    model = load_model(str(llama), quantization=quantization, device=CPU)
    expected = plain(model, table)
    got = score_all(model, table, batch=1).log_prob
    error = float(np.abs(got - expected).max())
    exact = plain(load_model(str(llama), device=CPU), table)
    moved = float(np.abs(expected - exact).max())
    print(f"\n{quantization}: {error:.2g} nats from its own logits; quantisation itself moves {moved:.2g}")
    assert error < tolerance < moved


@needs_bitsandbytes
@pytest.mark.parametrize(("quantization", "limit"), [("8bit", 0.1), ("4bit", 1e-4)])
def test_how_far_the_batch_moves_quantised_scores(
    llama: Path, table: TokenStore, quantization: Literal["8bit", "4bit"], limit: float
) -> None:
    """int8 rounds activations together with those of the batch; 4-bit arithmetic is that of the dtype."""
    model = load_model(str(llama), quantization=quantization, device=CPU)
    alone, together = score_all(model, table, batch=1), score_all(model, table, batch=12)
    log_prob = float(np.abs(alone.log_prob - together.log_prob).max())
    confidence = float(np.abs(alone.confidence - together.confidence).max())
    print(f"\n{quantization}: batches of 1 and 12 differ by {log_prob:.2g} nats, {confidence:.2g} in confidence")
    assert log_prob < limit
