"""What learning complexity costs: ours, the naive ways and the floor, on the same model and records in the same run.

    python tests/benchmarks/bench_score.py                          one table; medians over interleaved rounds
    python tests/benchmarks/bench_score.py --memory                 peak memory on long records
    python tests/benchmarks/bench_score.py --device cuda --dtype bfloat16 --shape llama2-7b --records 2000

Loading is not in the seconds, nor is tokenising. Tokens are those that the model must see. Peak memory is what is
taken beyond the loaded model: private memory on a CPU (Linux only, looked at every 20 ms), the allocator's on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from floor import Floor, clock, floor, product_flops, product_rate
from variants import VARIANTS, Work, lm_eval_available, naive_batched, ours
from workload import ALPACA_52K, SHAPES, Shape, random_model, random_table, record_lengths

from curate.scoring.batching import auto_tokens_per_batch, plan_batches
from curate.scoring.exits import exit_layers, find_parts
from curate.scoring.selftest import confirm
from curate.types import FloatArray, IntArray

LABEL = 50
STATM = Path("/proc/self/statm")


@dataclass(slots=True)
class Measured:
    """What the rounds of one variant took, and what it answered."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[float] = field(default_factory=list)
    log_prob: FloatArray = field(default_factory=lambda: np.empty((0, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="70m")
    parser.add_argument("--exits", type=int, default=5)
    parser.add_argument("--tokens-per-batch", type=int, help="default: what the scorer takes by itself")
    parser.add_argument("--variants", default="abcde", help="some of a, b, c, d, e; the floor is always measured")
    parser.add_argument("--memory", action="store_true", help="peak memory on long records instead")
    options = parser.parse_args()
    (memory if options.memory else speed)(options)


def speed(options: argparse.Namespace) -> None:
    prompts, responses, source = record_lengths(options.records)
    work = make_work(options, SHAPES[options.shape], prompts, responses)
    wanted = [v for v in options.variants if v != "e" or lm_eval_available()]
    measured = {v: Measured() for v in wanted}
    floors = []
    ours(replace(work, plan=plan_batches(work.plan.order[-1:], work.table.rows["needed"].astype(np.int64), 1)))
    for _ in range(options.rounds):
        floors.append(floor(work))
        for v in wanted:
            measure(VARIANTS[v][1], work, measured[v])
    describe(work, options, source)
    table(work, options, measured, median_floor(floors))


def make_work(options: argparse.Namespace, shape: Shape, prompts: IntArray, responses: IntArray) -> Work:
    device = torch.device(options.device)
    parts = find_parts(random_model(shape, device, getattr(torch, options.dtype)))
    confirm(parts)
    records = random_table(prompts, responses, shape.vocabulary)
    tokens_per_batch = options.tokens_per_batch or auto_tokens_per_batch(device_type=device.type)
    plan = plan_batches(np.arange(len(records)), records.rows["needed"].astype(np.int64), tokens_per_batch)
    return Work(parts, records, plan, exit_layers(options.exits, shape.layers))


def measure(variant: Callable[[Work], FloatArray], work: Work, into: Measured) -> None:
    device = work.parts.device
    with peak_bytes(device) as peak:
        start = clock(device)
        into.log_prob = variant(work)
        into.seconds.append(clock(device) - start)
    into.peak_bytes.append(peak[0])


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[list[float]]:
    """A list that, after the block, holds the peak of its memory beyond what was in use before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before, out = torch.cuda.memory_allocated(device), []
        yield out
        out.append(float(torch.cuda.max_memory_allocated(device) - before))
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what earlier variants freed must not hide what this one takes
    peak, done = [0.0], threading.Event()
    before = private_memory()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], private_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def private_memory() -> float:
    """Bytes of this process that no file backs: pages of libraries and maps come and go as the system likes."""
    if not STATM.exists():
        return float("nan")
    _, resident, shared, *_ = map(int, STATM.read_bytes().split())
    return float((resident - shared) * resource.getpagesize())


def median_floor(rounds: list[Floor]) -> Floor:
    return Floor(*(statistics.median(getattr(f, part) for f in rounds) for part in ("decoder", "attention", "head")))


def describe(work: Work, options: argparse.Namespace, source: str) -> None:
    device = work.parts.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    rows, count = work.table.rows, sum(p.numel() for p in work.model.parameters())
    print(f"{name}, {options.dtype}; {options.shape}: {count / 1e6:,.1f} M parameters, exits {list(work.layers)}")
    print(f"{len(rows):,} records ({source}): {rows['needed'].sum():,} tokens, {rows['scored'].sum():,} to score")
    print(f"{len(work.batches())} batches; medians of {options.rounds} rounds, the variants taking turns\n")


def table(work: Work, options: argparse.Namespace, measured: dict[str, Measured], best: Floor) -> None:
    exits, tokens = len(work.layers), int(work.table.rows["needed"].sum())
    print(f"{'':3}{'':{LABEL}}{'seconds':>10}{'tokens/s':>11}{'peak MB':>9}{'x floor':>9}")
    for v in options.variants:
        name, m = f"{v}  {VARIANTS[v][0].format(exits)}", measured.get(v)
        if m is None:
            print(f"{name:{LABEL + 3}}{'not installed':>39}")
            continue
        seconds, unit = statistics.median(m.seconds), best.seconds(exits if v in "acd" else 1)
        peak_mb = f"{statistics.median(m.peak_bytes) / 1e6:,.0f}"
        print(f"{name:{LABEL + 3}}{seconds:>10.2f}{tokens / seconds:>11,.0f}{peak_mb:>9}{seconds / unit:>9.2f}")
    for count in sorted({exits, 1}, reverse=True):
        seconds = best.seconds(count)
        print(f"{f'f  floor, {count} exit(s)':{LABEL + 3}}{seconds:>10.2f}{tokens / seconds:>11,.0f}{'':>9}{1:>9.2f}")
    parts = f"decoder {best.decoder:.2f} s, attention {best.attention:.2f} s, head {best.head:.2f} s an exit"
    print(f"\nfloor: {parts}")
    conclusions(work, measured, best)


def conclusions(work: Work, measured: dict[str, Measured], best: Floor) -> None:
    exits, seconds = len(work.layers), {v: statistics.median(m.seconds) for v, m in measured.items()}
    if {"a", "b"} <= seconds.keys():
        excess = seconds["a"] / seconds["b"] / (best.seconds(exits) / best.seconds(1))
        print(f"a / b is {seconds['a'] / seconds['b']:.2f}, {excess:.2f} x the ratio of their floors")
    for other in "cd":
        if {"a", other} <= seconds.keys():
            gap = np.abs(measured["a"].log_prob - measured[other].log_prob).max()
            ratio = seconds[other] / seconds["a"]
            print(f"{other} / a is {ratio:.2f}; their log-probabilities differ by at most {gap:.1e} nats")
    if "a" in seconds:
        rate, achieved = product_rate(work), product_flops(work, exits) / seconds["a"]
        print(f"a does {achieved / 1e12:.3f} Tflop/s, {achieved / rate:.0%} of a matrix product's {rate / 1e12:.3f}")
        minutes = seconds["a"] / len(work.table) * ALPACA_52K / 60
        print(f"Alpaca-52k would take {minutes:.1f} minutes")


def memory(options: argparse.Namespace) -> None:
    """Peaks of a and d on long records, then of a alone as the vocabulary and the prompts grow."""
    shape = SHAPES[options.shape]
    print(f"{'records of':24}{'vocabulary':>12}{'ours, MB':>12}{'naive batched, MB':>20}{'share':>8}")
    memory_row(options, shape, 1_800, compare=True)
    for vocabulary in (shape.vocabulary // 4, shape.vocabulary, 4 * shape.vocabulary):
        for prompt in (450, 1_800):
            memory_row(options, replace(shape, vocabulary=vocabulary), prompt, compare=False)


def memory_row(options: argparse.Namespace, shape: Shape, prompt: int, *, compare: bool) -> None:
    work = make_work(options, shape, np.full(8, prompt), np.full(8, 200))
    peaks = []
    for variant in (ours, naive_batched)[: 1 + compare]:
        figures = Measured()
        measure(variant, work, figures)
        peaks.append(figures.peak_bytes[0] / 1e6)
    tail = f"{peaks[1]:>20,.0f}{peaks[0] / peaks[1]:>8.2f}" if compare else ""
    print(f"{f'{prompt:,} + 200 tokens':24}{shape.vocabulary:>12,}{peaks[0]:>12,.0f}{tail}", flush=True)


if __name__ == "__main__":
    main()
