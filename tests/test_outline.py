"""Weights that no file holds are missed from the headers, by name, before anything is tokenised or embedded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import FAMILIES, Family
from safetensors.torch import load_file, save_file

from curate.diversity.embed import load_embedder
from curate.models.embedder import check_embedder
from curate.models.outline import refuse_missing_weights
from curate.models.precheck import check_weights
from curate.types import CurateError


def without(path: Path, *parts: str) -> None:
    """Drop the weights in whose name one of these stands."""
    weights = load_file(path)
    kept = {name: weight.clone() for name, weight in weights.items() if not any(part in name for part in parts)}
    assert len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})


def renamed(path: Path, prefix: str) -> None:
    save_file({prefix + name: weight for name, weight in load_file(path).items()}, path, metadata={"format": "pt"})


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_model_as_its_library_saves_it_is_complete(family: Family, tmp_path: Path) -> None:
    family.empty(2).save_pretrained(tmp_path)
    refuse_missing_weights(str(tmp_path))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: without(f / "model.safetensors", "lm_head"), "lacks 1 .*, lm_head.weight among them"),
        (lambda f: without(f / "model.safetensors", "layers.2."), "lacks 9 .*, model.layers.2.input_layernorm.weight"),
        (lambda f: edit(f / "config.json", num_hidden_layers=5), "lacks 9 .*, model.layers.4.input_layernorm.weight"),
        (lambda f: edit(f / "config.json", vocab_size=600), r"lm_head.weight of shape \[600, 32\] .* got \[512, 32\]"),
        (lambda f: renamed(f / "model.safetensors", "x."), "lacks 39 .*, lm_head.weight among them"),
    ],
)
def test_what_no_file_holds_is_missed_before_anything_is_loaded(
    model: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(model)
    with pytest.raises(CurateError, match=message):
        check_weights(str(model))


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 10**9}, {"num_labels": 10**9}, {"text_config": {"num_hidden_layers": 10**9}}]
)
def test_a_configuration_of_a_billion_layers_is_refused_at_once(model: Path, changes: dict[str, object]) -> None:
    edit(model / "config.json", **changes)
    with pytest.raises(CurateError, match=r"config.json is damaged: num_\w+ is 1,000,000,000; download or copy it"):
        check_weights(str(model))


# ---------------------------------------------------------------- embedders


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Path:
    """An embedder of two parts with weights: a transformer and a dense layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    folder = tmp_path_factory.mktemp("dense") / "model"
    torch.manual_seed(0)
    parts = [Transformer(str(embedder)), Pooling(16), Dense(16, 8)]
    SentenceTransformer(modules=parts, device="cpu").save(str(folder), create_model_card=False)
    return folder


def test_a_complete_embedder_is_loaded_and_a_pooler_that_nothing_reads_may_be_missing(
    complete: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "model"))
    before = load_embedder(str(folder)).encode(["red"])
    without(folder / "model.safetensors", "pooler")
    assert (load_embedder(str(folder)).encode(["red"]) == before).all()
    renamed(folder / "model.safetensors", "bert.")  # as a whole language model is saved
    assert (load_embedder(str(folder)).encode(["red"]) == before).all()


@pytest.mark.parametrize("look", [check_embedder, load_embedder])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "2_Dense/model.safetensors").unlink(),
            "lacks 2_Dense/model.safetensors, which its Dense layer",
        ),
        (lambda f: shutil.rmtree(f / "2_Dense"), "lacks 2_Dense/config.json, which its Dense layer"),
        (lambda f: shutil.rmtree(f / "1_Pooling"), "lacks 1_Pooling/config.json, which its Pooling layer"),
        (lambda f: without(f / "model.safetensors", "word_embeddings"), "embeddings.word_embeddings.weight among them"),
        (lambda f: without(f / "model.safetensors", "layer.0.output.dense.bias"), "lacks 1 weight.*output.dense.bias"),
        (lambda f: without(f / "model.safetensors", "embeddings.LayerNorm"), "lacks 2 weight"),
        (lambda f: renamed(f / "model.safetensors", "x."), "would be random"),
        (lambda f: edit(f / "config.json", num_hidden_layers=2), "lacks 16 weight.*encoder.layer.1."),
        (
            lambda f: edit(f / "config.json", vocab_size=600),
            r"of shape \[600, 16\] by its config.json, got \[512, 16\]",
        ),
    ],
)
def test_a_part_of_an_embedder_that_would_be_random_is_missed_by_name(
    complete: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
    look: Callable[[str], object],
) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "model"))
    damage(folder)
    with pytest.raises(CurateError, match=message):
        look(str(folder))


def test_a_missing_bias_of_a_dense_layer_is_an_error(complete: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(complete, tmp_path / "model"))
    without(folder / "2_Dense/model.safetensors", "bias")
    with pytest.raises(CurateError, match=r'cannot load the embedder .* Missing key\(s\) in state_dict: "linear.bias"'):
        load_embedder(str(folder))
