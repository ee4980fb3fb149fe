"""LoRA training: the loss that is minimised, the adapter that is written, and what survives an interruption."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from real import real
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate.config import Train
from curate.models.load import load_model
from curate.models.names import published_name
from curate.training.features import Feature
from curate.training.lora import TrainResult, _tidy, merge_adapter, train_adapter
from curate.training.resume import _seal, last_complete_checkpoint
from curate.types import CurateError

# What PEFT does on reloading, in these tests; `train_adapter` itself is quiet, as one of them checks.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

CPU = torch.device("cpu")
VOCABULARY = 64
FAST = {"rank": 8, "dropout": 0.1, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation": 1, "warmup": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama in a folder; its frozen head is large enough to tell 64 tokens apart."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.15,
    )
    model = LlamaForCausalLM(config)
    # embeddings and head, per layer four of the attention, three of the MLP and two norms, the last norm
    assert model.num_parameters() == 2 * 64 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    path = tmp_path_factory.mktemp("base")
    model.save_pretrained(path)
    return path


def records(count: int = 8, seed: int = 0) -> list[Feature]:
    """Random token ids of odd lengths; the first third of each is context."""
    generator = np.random.default_rng(seed)
    features = []
    for _ in range(count):
        ids = generator.integers(0, VOCABULARY, generator.integers(5, 20))
        features.append((ids, np.where(np.arange(len(ids)) < len(ids) // 3, -100, ids)))
    return features


def train(base: Path, folder: Path, features: list[Feature] | None = None, **changes: object) -> TrainResult:
    quantization = changes.get("quantization", "none")
    return train_adapter(
        features or records(),
        load_model(str(base), device=CPU, quantization=quantization),  # type: ignore[arg-type]
        settings=Train.model_validate(FAST | changes),
        seed=3,
        checkpoint_dir=folder / "checkpoints",
        output_dir=folder / "adapter",
    )


def sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "adapter" / "train_log.jsonl").read_text().splitlines()]


def logits(model: torch.nn.Module, ids: object) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor(np.asarray(ids))[None]).logits  # type: ignore[no-any-return]


def cross_entropy_sum(model: torch.nn.Module, feature: Feature) -> float:
    """Of the learnt tokens, each predicted from those before it: the textbook form in float64."""
    ids, labels = (np.asarray(part) for part in feature)
    log_probs = logits(model, ids)[0].double().log_softmax(-1)
    return -sum(float(log_probs[t - 1, ids[t]]) for t in range(1, len(ids)) if labels[t] != -100)


def test_eight_records_are_learnt_by_heart_and_the_log_shows_it(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_steps=60, dropout=0.0)
    steps = log(tmp_path)
    assert [step["step"] for step in steps] == list(range(1, 61))
    assert steps[0]["loss"] > 0.9 * math.log(VOCABULARY)
    assert steps[-1]["loss"] < 0.5
    assert (result.first_loss, result.loss) == (steps[0]["loss"], steps[-1]["loss"])
    assert (result.steps, result.resumed_from, result.effective_batch_size) == (60, 0, 4)
    assert set(steps[0]) == {"step", "loss", "learning_rate", "grad_norm", "epoch", "seconds"}
    assert steps[0]["learning_rate"] == 1e-2
    assert steps[-1]["learning_rate"] < 1e-4
    assert steps[-1]["epoch"] == 30


def test_the_first_loss_is_the_mean_cross_entropy_of_the_learnt_tokens(base: Path, tmp_path: Path) -> None:
    features = records(6)
    result = train(base, tmp_path, features, batch_size=2, gradient_accumulation=3, max_steps=1)
    model = LlamaForCausalLM.from_pretrained(base)
    learnt = sum(int((np.asarray(labels)[1:] != -100).sum()) for _, labels in features)
    expected = sum(cross_entropy_sum(model, feature) for feature in features) / learnt
    assert result.first_loss == pytest.approx(expected, rel=1e-6)
    assert result.effective_batch_size == 6


def test_what_context_labels_would_have_been_changes_nothing(base: Path, tmp_path: Path) -> None:
    features = [(ids, labels) for ids, labels in records(4)]
    all_learnt = [(ids, ids) for ids, _ in features]
    runs = {"masked": features, "as lists": [(list(i), list(y)) for i, y in features], "all": all_learnt}
    losses = {name: train(base, tmp_path / name, given, max_steps=2).loss for name, given in runs.items()}
    assert losses["masked"] == losses["as lists"]
    assert losses["masked"] != losses["all"]


def test_padding_does_not_move_the_loss(base: Path, tmp_path: Path) -> None:
    features = records(4)
    alone = train(base, tmp_path / "alone", features, batch_size=1, gradient_accumulation=4, max_steps=3, dropout=0)
    together = train(base, tmp_path / "together", features, batch_size=4, max_steps=3, dropout=0)
    assert alone.loss == pytest.approx(together.loss, rel=1e-4)


def test_the_adapter_reloads_to_the_same_logits_and_is_fit_to_publish(base: Path, tmp_path: Path) -> None:
    trained: list[torch.nn.Module] = [load_model(str(base), device=CPU)]
    settings = Train.model_validate(FAST | {"max_steps": 5})
    result = train_adapter(
        records(), trained[0], settings=settings, seed=3, checkpoint_dir=tmp_path / "c", output_dir=tmp_path / "a"
    )
    reloaded = PeftModel.from_pretrained(load_model(str(base), device=CPU), tmp_path / "a")
    ids = records()[0][0]
    assert torch.equal(logits(reloaded, ids), logits(trained[0], ids))
    assert not torch.equal(logits(reloaded, ids), logits(load_model(str(base), device=CPU), ids))
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "train_log.jsonl",
    ]
    for file in ("adapter_config.json", "train_log.jsonl"):
        assert str(base.parent) not in (tmp_path / "a" / file).read_text()
    assert len({file.stat().st_mode for file in (tmp_path / "a").iterdir()}) == 1, "others may read all or none"
    # rank 8 beside each of the seven projections of two layers
    assert result.trainable_parameters == 2 * 8 * (4 * (64 + 64) + 3 * (64 + 128))


def test_a_model_from_the_hub_is_named_with_its_commit(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path, max_steps=1)
    _tidy(tmp_path / "adapter", "meta/Llama", "abc123")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("meta/Llama", "abc123")


def test_a_model_from_the_hub_is_trained_without_a_word_where_there_is_no_network(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT would warn, at every checkpoint, that it cannot ask the hub for the size of the vocabulary."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, settings = load_model(str(base), device=CPU), Train.model_validate(FAST | {"max_steps": 2, "save_steps": 1})
    model.name_or_path = "owner/base"
    folders = {"checkpoint_dir": tmp_path / "checkpoints", "output_dir": tmp_path / "adapter"}
    assert train_adapter(records(), model, settings=settings, seed=0, **folders).steps == 2
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "owner/base"


@pytest.mark.parametrize("above", [1, 2])
def test_a_local_base_has_a_name_that_no_hub_model_has(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: int
) -> None:
    monkeypatch.chdir(base.parents[above - 1])
    train(base, tmp_path, max_steps=1)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"./{base.relative_to(base.parents[above - 1])}"
    monkeypatch.chdir(tmp_path)
    assert published_name(str(base)) == f"./{base.name}"


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(base: Path, tmp_path: Path) -> None:
    hashes = []
    for number, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(number)
        train_adapter(
            records(),
            load_model(str(base), device=CPU),
            settings=Train.model_validate(FAST | {"max_steps": 3}),
            seed=seed,
            checkpoint_dir=folder / "checkpoints",
            output_dir=folder / "adapter",
        )
        hashes.append(sha256(folder))
    assert hashes[0] == hashes[1] != hashes[2]


class PowerCutError(Exception):
    """Stands for a kill: nothing in the library catches it."""


def interrupted_at(base: Path, folder: Path, step: int, **changes: object) -> None:
    def cut(entry: Mapping[str, float]) -> None:
        if entry["step"] == step:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train_adapter(
            records(),
            load_model(str(base), device=CPU),
            settings=Train.model_validate(FAST | changes),
            seed=3,
            checkpoint_dir=folder / "checkpoints",
            output_dir=folder / "adapter",
            on_log=cut,
        )


RESUMABLE = {"epochs": 6, "save_steps": 3, "batch_size": 3}  # 3 steps an epoch, the last one smaller: 18 steps


@pytest.fixture(scope="module")
def uninterrupted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert train(base, folder, **RESUMABLE).steps == 18
    return folder


@pytest.mark.parametrize(("save_steps", "cut", "resumed_from"), [(3, 2, 0), (3, 8, 6), (4, 11, 8), (3, 18, 15)])
def test_an_interrupted_training_ends_in_the_same_bytes(
    base: Path, tmp_path: Path, uninterrupted: Path, save_steps: int, cut: int, resumed_from: int
) -> None:
    settings = RESUMABLE | {"save_steps": save_steps}
    interrupted_at(base, tmp_path, cut, **settings)
    result = train(base, tmp_path, **settings)
    assert (result.steps, result.resumed_from) == (18, resumed_from)
    assert sha256(tmp_path) == sha256(uninterrupted)
    without_time = [[{**line, "seconds": 0} for line in log(folder)] for folder in (tmp_path, uninterrupted)]
    assert without_time[0] == without_time[1]
    assert [line["seconds"] for line in log(tmp_path)] == sorted(line["seconds"] for line in log(tmp_path))


def test_a_training_killed_after_its_last_checkpoint_takes_no_further_step(base: Path, tmp_path: Path) -> None:
    """7 of 18 steps: the last checkpoint stands in the middle of an epoch, and the rate does not end at 0."""
    settings = {"max_steps": 7, "save_steps": 7, "batch_size": 3, "scheduler": "constant"}
    assert train(base, tmp_path, **settings).steps == 7
    before, lines = sha256(tmp_path), log(tmp_path)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    again = train(base, tmp_path, **settings)
    assert (again.steps, again.resumed_from) == (7, 7)
    assert (again.first_loss, again.loss) == (lines[0]["loss"], lines[-1]["loss"])
    assert sha256(tmp_path) == before
    assert log(tmp_path) == lines


def test_a_training_that_was_finished_only_writes_its_adapter_again(base: Path, uninterrupted: Path) -> None:
    before = sha256(uninterrupted)
    (uninterrupted / "adapter" / "adapter_model.safetensors").unlink()
    assert train(base, uninterrupted, **RESUMABLE).resumed_from == 18
    assert sha256(uninterrupted) == before


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"])
@pytest.mark.parametrize("damage", ["gone", "truncated", "a flipped bit"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    for step in (3, 12):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"):
            (checkpoint / name).write_bytes(f"{name} {step}".encode())
        _seal(checkpoint)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-12"
    path = tmp_path / "checkpoint-12" / file
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:5] if damage == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert not path.parent.exists()
    (tmp_path / "checkpoint-3" / "complete.json").unlink()
    assert last_complete_checkpoint(tmp_path) is None


def test_training_goes_on_past_a_damaged_checkpoint_to_the_same_bytes(
    base: Path, tmp_path: Path, uninterrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_at(base, tmp_path, 11, **RESUMABLE)
    optimizer = tmp_path / "checkpoints" / "checkpoint-9" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:100])
    assert train(base, tmp_path, **RESUMABLE).resumed_from == 6
    assert "checkpoint-9 is incomplete and removed; training goes on from the one before" in caplog.text
    assert sha256(tmp_path) == sha256(uninterrupted)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from test_lora import FAST, RESUMABLE, records
from curate.config import Train
from curate.models.load import load_model
from curate.training.lora import train_adapter

def kill(entry):
    if entry["step"] == 8:
        os.kill(os.getpid(), signal.SIGKILL)

train_adapter(
    records(), load_model({base!r}, device=torch.device("cpu")), settings=Train.model_validate(FAST | RESUMABLE),
    seed=3, checkpoint_dir=Path({folder!r}) / "checkpoints", output_dir=Path({folder!r}) / "adapter", on_log=kill,
)
"""


def test_a_killed_process_is_resumed_to_the_same_bytes(base: Path, tmp_path: Path, uninterrupted: Path) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), base=str(base), folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert train(base, tmp_path, **RESUMABLE).resumed_from == 6
    assert sha256(tmp_path) == sha256(uninterrupted)


def test_checkpointing_activations_changes_nothing(base: Path, tmp_path: Path) -> None:
    for checkpointing in (False, True):
        train(base, tmp_path / str(checkpointing), max_steps=3, gradient_checkpointing=checkpointing)
    assert sha256(tmp_path / "True") == sha256(tmp_path / "False")


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_an_adapter_on_quantised_weights_learns(base: Path, tmp_path: Path, quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    result = train(base, tmp_path, quantization=quantization, max_steps=40, dropout=0.0)
    assert result.loss < 0.5 * result.first_loss
    reloaded = PeftModel.from_pretrained(load_model(str(base), device=CPU), tmp_path / "adapter")
    assert sum(cross_entropy_sum(reloaded, f) for f in records()) < sum(
        cross_entropy_sum(load_model(str(base), device=CPU), f) for f in records()
    )


@pytest.mark.parametrize("name", ["stories260K", "base-7m"])
def test_real_models_are_trained(name: str, tmp_path: Path) -> None:
    result = train(real(f"models/{name}"), tmp_path, max_steps=8)
    assert result.loss < 0.8 * result.first_loss


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_the_merged_model_is_the_unquantised_base_plus_the_adapter(
    base: Path, tmp_path: Path, quantization: str
) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    train(base, tmp_path, quantization=quantization, max_steps=10)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    merge_adapter(tmp_path / "adapter", str(base), tokenizer, output_dir=tmp_path / "merged")
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16
    assert (tmp_path / "merged" / "tokenizer.json").is_file()
    together = PeftModel.from_pretrained(load_model(str(base), device=CPU), tmp_path / "adapter")
    ids = records()[0][0]
    expected = logits(together, ids)
    change = (expected - logits(load_model(str(base), device=CPU), ids)).norm()
    assert (logits(merged.float(), ids) - expected).norm() < 0.02 * change
    assert not list(tmp_path.joinpath("merged").glob("*.bin"))
    assert len({file.stat().st_mode for file in (tmp_path / "merged").iterdir()}) == 1


def test_a_step_takes_16_records_by_default_and_says_where_it_cannot(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = train(base, tmp_path / "exact", max_steps=1, batch_size=4, gradient_accumulation=None)
    assert exact.effective_batch_size == 16
    assert not caplog.records
    near = train(base, tmp_path / "near", max_steps=1, batch_size=3, gradient_accumulation=None)
    assert near.effective_batch_size == 15
    assert "1 processes with train.batch_size=3 take 15 records a step, not 16" in caplog.text


@pytest.mark.parametrize(("warmup", "peak"), [(0.0, 1), (0.5, 6)])
def test_warmup_is_a_share_of_the_steps(base: Path, tmp_path: Path, warmup: float, peak: int) -> None:
    train(base, tmp_path, max_steps=10, warmup=warmup)
    rates = [step["learning_rate"] for step in log(tmp_path)]
    assert rates.index(max(rates)) + 1 == peak


def test_nothing_is_printed(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(base, tmp_path, max_steps=2)
    assert capfd.readouterr() == ("", "")


def test_a_loss_that_is_no_number_ends_training_before_a_checkpoint_is_made(base: Path, tmp_path: Path) -> None:
    model = load_model(str(base), device=CPU)
    torch.nn.init.constant_(model.model.norm.weight, math.nan)
    with pytest.raises(CurateError, match=r"not a finite number at step 1 \(loss nan\): use model\.dtype=bfloat16 or"):
        train_adapter(
            records(),
            model,
            settings=Train.model_validate(FAST | {"save_steps": 1}),
            seed=0,
            checkpoint_dir=tmp_path / "checkpoints",
            output_dir=tmp_path / "adapter",
        )
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "there is nothing to train on"),
        ([([1, 2], [-100, 2]), ([1, 2], [1, -100])], "record 1 of those to train on has no response token to learn"),
        ([([1, 64], [-100, 64])], "record 0 has the token id 64, the model's vocabulary ends at 63"),
    ],
)
def test_records_that_cannot_be_learnt_are_refused(
    base: Path, tmp_path: Path, features: list[Feature], message: str
) -> None:
    with pytest.raises(CurateError, match=message):
        train_adapter(
            features,
            load_model(str(base), device=CPU),
            settings=Train(),
            seed=0,
            checkpoint_dir=tmp_path / "checkpoints",
            output_dir=tmp_path / "adapter",
        )


def test_modules_that_are_not_there_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"train\.target_modules=\('c_attn',\): .*c_attn.* not found"):
        train(base, tmp_path, target_modules=("c_attn",))


def test_chosen_modules_alone_are_trained(base: Path, tmp_path: Path) -> None:
    result = train(base, tmp_path, max_steps=1, target_modules=("v_proj", "q_proj"))
    assert result.trainable_parameters == 2 * 2 * 8 * (64 + 64)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]


def test_bfloat16_weights_are_trained_with_an_adapter_in_float32(base: Path, tmp_path: Path) -> None:
    result = train_adapter(
        records(),
        load_model(str(base), dtype="bfloat16", device=CPU),
        settings=Train.model_validate(FAST | {"max_steps": 20}),
        seed=3,
        checkpoint_dir=tmp_path / "checkpoints",
        output_dir=tmp_path / "adapter",
    )
    assert result.loss < 0.7 * result.first_loss
    assert {w.dtype for w in load_file(tmp_path / "adapter" / "adapter_model.safetensors").values()} == {torch.float32}


def test_float16_on_a_cpu_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="training in float16 needs a GPU"):
        train_adapter(
            records(),
            load_model(str(base), dtype="float16", device=CPU),
            settings=Train(),
            seed=0,
            checkpoint_dir=tmp_path,
            output_dir=tmp_path,
        )
