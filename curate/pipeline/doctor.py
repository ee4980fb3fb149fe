"""`curate doctor`: proves that a model is scored correctly on this machine. It yields findings: pass, fail or note."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from curate.config import Recipe
from curate.models.device import resolve_device, resolve_dtype
from curate.models.load import load_config, load_model, load_tokenizer
from curate.models.locate import locate
from curate.models.size import count_parameters
from curate.pipeline.doctor_model import SENTENCES, examine_model, examine_signal
from curate.pipeline.doctor_tokenizer import examine_tokenizer
from curate.pipeline.environment import environment
from curate.probe.findings import Finding, Level
from curate.scoring.exits import exit_layers
from curate.scoring.parts import find_parts
from curate.types import CurateError

_ROOM = 1.2  # a loaded model takes a little more memory than its weights
_SHOWN = ("torch", "transformers", "accelerate", "peft", "faiss-cpu", "sentence-transformers", "bitsandbytes")


def examine(recipe: Recipe) -> Iterator[Finding]:
    """Yield findings about the machine, the tokenizer and its template, the model in each precision, and its layers.

    After a failure everything is still examined that does not depend on what failed.

    Raises:
        CurateError: no model is named, or its tokenizer or configuration cannot be read.
    """
    model = recipe.model
    if not model.name:
        raise CurateError("expected the model to examine, got nothing; give it as model.name=...")
    revision, trust = model.revision, model.trust_remote_code
    tokenizer = load_tokenizer(model.name, revision=revision, trust_remote_code=trust)
    config = load_config(model.name, revision=revision, trust_remote_code=trust)
    yield from examine_machine(recipe)
    rows = config.get_text_config().vocab_size
    yield from examine_tokenizer(tokenizer, rows=rows, end_ids=_end_ids(recipe, config))
    chosen, parameters = resolve_dtype(model.dtype, resolve_device()), count_parameters(config, trust_remote_code=trust)
    for dtype in _dtypes(recipe):
        if (lacking := _no_room(recipe, parameters, dtype)) is not None:
            yield lacking
            continue
        yield from _examine_precision(recipe, tokenizer, dtype, signal=dtype == chosen)


def examine_machine(recipe: Recipe) -> Iterator[Finding]:
    """Yield findings about versions, the device that will be used, and whether models can be quantised."""
    about = environment(recipe)
    versions = {"python": about["versions"]["python"], **{name: about["versions"].get(name) for name in _SHOWN}}
    yield Finding("note", "versions", ", ".join(f"{name} {version or 'none'}" for name, version in versions.items()))
    free = f"{_free_bytes(resolve_device()) / 1e9:.1f} GB free"
    how = f", {torch.get_num_threads()} threads" if about["device"] == "cpu" else ""
    yield Finding("note", "device", f"{about['device']}, {free}{how}")
    if versions["bitsandbytes"]:
        yield Finding("pass", "quantisation", f"8bit and 4bit, with bitsandbytes {versions['bitsandbytes']}")
    else:
        asked = {recipe.model.quantization, recipe.train.quantization} != {"none"}
        text = 'bitsandbytes is not installed: pip install "lc-curate[quantization]" for 8bit and 4bit'
        yield Finding("fail" if asked else "note", "quantisation", text)


def _examine_precision(recipe: Recipe, tokenizer: Any, dtype: torch.dtype, *, signal: bool) -> Iterator[Finding]:
    """Yield findings about the model in one precision; with `signal`, also what its layers know of sentences."""
    name = str(dtype).removeprefix("torch.")
    settings = recipe.model.model_copy(update={"dtype": name})
    try:
        model = load_model(**settings.model_dump(exclude={"allow_tokens"}))
    except CurateError as error:
        yield Finding("fail", f"{name}: loading", str(error))
        return
    failed = False
    for finding in examine_model(model, recipe.score.exits, name=name):
        failed |= finding.level == "fail"
        yield finding
    if signal and not failed:  # layers of a model that is computed wrongly would tell nothing
        parts = find_parts(model)
        texts = [ids for text in SENTENCES if len(ids := tokenizer(text)["input_ids"]) > 1]
        rows = model.get_input_embeddings().weight.shape[0]
        if all(max(ids) < rows for ids in texts):  # else the embedding would be read outside; examine_tokenizer said so
            yield from examine_signal(parts, exit_layers(recipe.score.exits, parts.num_layers), texts)


def _dtypes(recipe: Recipe) -> list[torch.dtype]:
    """Return the precisions that this device computes in; of a quantised model only the one that was chosen."""
    device = resolve_device()
    chosen = resolve_dtype(recipe.model.dtype, device)
    if recipe.model.quantization != "none":
        return [chosen]
    known = [torch.float32, torch.bfloat16] if device.type == "cpu" else [torch.float32, torch.float16]
    # With emulation every GPU would seem to know bfloat16; older ones only imitate it, slowly.
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        known.insert(1, torch.bfloat16)
    return list(dict.fromkeys([chosen, *known]))


def _no_room(recipe: Recipe, parameters: int, dtype: torch.dtype) -> Finding | None:
    """Return a finding if the model in this precision does not fit into the free memory; else None.

    It is a failure if that precision was chosen, and a note for the others. With a device map the weights may go to
    other devices and to disk, and with quantisation they are smaller: then nothing is said.
    """
    if recipe.model.device_map is not None or recipe.model.quantization != "none":
        return None
    needed, free = _ROOM * parameters * dtype.itemsize, _free_bytes(resolve_device())
    if needed <= free:
        return None
    name = str(dtype).removeprefix("torch.")
    level: Level = "fail" if dtype == resolve_dtype(recipe.model.dtype, resolve_device()) else "note"
    text = f"not looked at: {parameters:,} parameters need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return Finding(level, f"{name}: loading", text)


def _free_bytes(device: torch.device) -> float:
    """Return the bytes that are free on a device; infinity where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    path = Path("/proc/meminfo")
    if not path.exists():
        return float("inf")
    lines = dict(line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines())
    # Available and not free: Linux gives the memory of its file cache back when a program asks. The unit is kB.
    return int(lines["MemAvailable"].split()[0]) * 1024


def _end_ids(recipe: Recipe, config: Any) -> frozenset[int]:
    """Return the token ids at which generation stops, from generation_config.json and config.json."""
    found = [config.get_text_config().eos_token_id]
    place = locate(recipe.model.name)
    with contextlib.suppress(OSError):  # a model need not have that file
        found.append(GenerationConfig.from_pretrained(place.source, revision=recipe.model.revision).eos_token_id)
    # Each of them may be one id, a list of ids, or null.
    flat = [one for ids in found if ids is not None for one in (ids if isinstance(ids, list) else [ids])]
    return frozenset(flat)
