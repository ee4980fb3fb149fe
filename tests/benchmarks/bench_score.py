"""What learning complexity costs: ours, the naive ways and the floor, on the same model and records in the same run.

    python tests/benchmarks/bench_score.py                          one table; medians over interleaved rounds
    python tests/benchmarks/bench_score.py --memory                 peak memory as vocabulary and prompts grow
    python tests/benchmarks/bench_score.py --batches --shape 7m     tokens per second by tokens per batch
    python tests/benchmarks/bench_score.py --device cuda --dtype bfloat16 --shape llama2-7b --records 2000

Loading is not in the seconds, nor is tokenising. Tokens are all that come before the last scored one of every record,
and so are the floor's. Peak memory is what is taken beyond the loaded model: resident memory at its highest, as the
kernel keeps it (Linux only), or the allocator's on a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from floor import Floor, clock, floor, product_flops, product_rate
from variants import VARIANTS, Work, lm_eval_available, naive_batched, ours
from workload import ALPACA_52K, SHAPES, Shape, alpaca_table, random_model, random_table

from curate.scoring.batches import auto_tokens_per_batch, plan_batches, plan_batches_of
from curate.scoring.exits import exit_layers
from curate.scoring.parts import DecoderParts, find_parts
from curate.scoring.selftest import confirm, prefix_check
from curate.types import FloatArray, TokenStore

LABEL = 50
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SIZES = (256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)


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
    parser.add_argument("--variants", default="abgcde", help="some of these; the floor is always measured")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--memory", action="store_true", help="peak memory on long records instead")
    instead.add_argument("--batches", action="store_true", help="speed by tokens per batch instead")
    options = parser.parse_args()
    (memory if options.memory else batches if options.batches else speed)(options)


def speed(options: argparse.Namespace) -> None:
    shape = SHAPES[options.shape]
    records, source = alpaca_table(options.records, shape.vocabulary)
    parts = make_parts(options, shape)
    work = make_work(options, parts, records)
    wanted = [v for v in options.variants if v != "e" or lm_eval_available()]
    measured = {v: Measured() for v in wanted}
    floors = []
    ours(make_work(options, parts, random_table(np.array([9]), np.array([9]), shape.vocabulary)))
    for _ in range(options.rounds):
        floors.append(floor(work))
        for v in wanted:
            measure(VARIANTS[v][1], work, measured[v])
    describe(work, options, source)
    table(work, options, measured, median_floor(floors))


def make_parts(options: argparse.Namespace, shape: Shape) -> DecoderParts:
    parts = find_parts(random_model(shape, torch.device(options.device), getattr(torch, options.dtype)))
    confirm(parts)
    assert prefix_check(parts).passed
    return parts


def make_work(options: argparse.Namespace, parts: DecoderParts, records: TokenStore, budget: int | None = None) -> Work:
    budget = budget or options.tokens_per_batch or auto_tokens_per_batch(device_type=parts.device.type)
    whole = plan_batches(np.arange(len(records)), records.rows["needed"], budget)
    return Work(
        parts,
        records,
        plan_batches_of(records, budget, reuse_prefixes=True),
        whole,
        exit_layers(options.exits, parts.num_layers),
    )


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
        CLEAR.write_text("5")  # the kernel's mark of the highest resident size starts anew
    before, out = resident("VmRSS"), []
    yield out
    out.append(resident("VmHWM") - before)


def resident(name: str) -> float:
    """Bytes in memory now (VmRSS) or at their highest (VmHWM)."""
    if not STATUS.exists():
        return float("nan")
    return 1024.0 * int(next(line for line in STATUS.read_text().splitlines() if line.startswith(name)).split()[1])


def median_floor(rounds: list[Floor]) -> Floor:
    return Floor(
        *(statistics.median(getattr(f, part) for f in rounds) for part in ("decoder", "attention", "head", "once"))
    )


def describe(work: Work, options: argparse.Namespace, source: str) -> None:
    device = work.parts.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    rows, count = work.table.rows, sum(p.numel() for p in work.model.parameters())
    print(f"{name}, {options.dtype}; {options.shape}: {count / 1e6:,.1f} M parameters, exits {list(work.layers)}")
    print(f"{len(rows):,} records ({source}): {rows['needed'].sum():,} tokens, {rows['scored'].sum():,} to score")
    shared = [(len(b), int(np.isin(work.plan.prefix_ids, g).sum())) for g, b in enumerate(work.plan.prefixes)]
    told = ", ".join(f"{length} tokens in {count}" for length, count in shared) or "none"
    print(f"{len(work.plan.costs)} batches, prefixes shared: {told} of them")
    print(f"medians of {options.rounds} rounds, the variants taking turns\n")


def table(work: Work, options: argparse.Namespace, measured: dict[str, Measured], best: Floor) -> None:
    exits, tokens = len(work.layers), int(work.table.rows["needed"].sum())
    print(f"{'':3}{'':{LABEL}}{'seconds':>10}{'tokens/s':>11}{'peak MB':>9}{'x floor':>9}")
    for v in options.variants:
        name, m = f"{v}  {VARIANTS[v][0].format(exits)}", measured.get(v)
        if m is None:
            print(f"{name:{LABEL + 3}}{'not installed':>39}")
            continue
        seconds, unit = statistics.median(m.seconds), best.seconds(exits if v in "acdg" else 1)
        peak_mb = f"{statistics.median(m.peak_bytes) / 1e6:,.0f}"
        print(f"{name:{LABEL + 3}}{seconds:>10.2f}{tokens / seconds:>11,.0f}{peak_mb:>9}{seconds / unit:>9.2f}")
    for count in sorted({exits, 1}, reverse=True):
        seconds = best.seconds(count)
        print(f"{f'f  floor, {count} exit(s)':{LABEL + 3}}{seconds:>10.2f}{tokens / seconds:>11,.0f}{'':>9}{1:>9.2f}")
    decoder = f"decoder {best.decoder:.2f} s ({best.once:.2f} s with every shared prefix once)"
    print(f"\nfloor: {decoder}, attention {best.attention:.2f} s, head {best.head:.2f} s an exit")
    conclusions(work, measured, best)


def conclusions(work: Work, measured: dict[str, Measured], best: Floor) -> None:
    exits, seconds = len(work.layers), {v: statistics.median(m.seconds) for v, m in measured.items()}
    if {"a", "b"} <= seconds.keys():
        excess = seconds["a"] / seconds["b"] / (best.seconds(exits) / best.seconds(1))
        print(f"a / b is {seconds['a'] / seconds['b']:.2f}, {excess:.2f} x the ratio of their floors")
    for other in "gcde":
        if {"a", other} <= seconds.keys():
            gap = np.abs(measured["a"].log_prob[:, -1:] - measured[other].log_prob[:, -1:]).max()
            ratio = seconds[other] / seconds["a"]
            print(f"{other} / a is {ratio:.2f}; at the last exit they differ by at most {gap:.1e} nats")
    if "a" in seconds:
        rate, achieved = product_rate(work), product_flops(work, exits) / seconds["a"]
        doing = f"{achieved / 1e12:.3f} Tflop/s, {achieved / rate:.0%} of a matrix product's {rate / 1e12:.3f}"
        print(f"a does the products of all tokens at {doing}")
        minutes = seconds["a"] / len(work.table) * ALPACA_52K / 60
        print(f"Alpaca-52k would take {minutes:.1f} minutes")


def memory(options: argparse.Namespace) -> None:
    """Peaks of a, and of d where it is not too large, as the vocabulary and the prompts grow."""
    if sys.platform == "linux":
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD: what is freed goes back to the system at once
    shape = SHAPES[options.shape]
    print(f"{'4 records of':24}{'vocabulary':>12}{'a: ours, MB':>14}{'d: naive batched, MB':>24}{'share':>8}")
    for vocabulary in (shape.vocabulary // 4, shape.vocabulary, 4 * shape.vocabulary):
        for prompt in (450, 1_800):
            memory_row(options, replace(shape, vocabulary=vocabulary), prompt, compare=vocabulary <= shape.vocabulary)


def memory_row(options: argparse.Namespace, shape: Shape, prompt: int, *, compare: bool) -> None:
    records = random_table(np.full(4, prompt), np.full(4, 100), shape.vocabulary)
    work = make_work(options, make_parts(options, shape), records, budget=4_096)
    peaks = []
    for variant in (ours, naive_batched)[: 1 + compare]:
        variant(work)  # a first time, for what libraries allocate once
        figures = Measured()
        measure(variant, work, figures)
        peaks.append(figures.peak_bytes[0] / 1e6)
    tail = f"{peaks[1]:>24,.0f}{peaks[0] / peaks[1]:>8.2f}" if compare else ""
    print(f"{f'{prompt:,} + 100 tokens':24}{shape.vocabulary:>12,}{peaks[0]:>14,.0f}{tail}", flush=True)


def batches(options: argparse.Namespace) -> None:
    """Tokens per second of a at each number of tokens per batch; medians over rounds in which the sizes take turns."""
    shape = SHAPES[options.shape]
    parts, (records, _) = make_parts(options, shape), alpaca_table(options.records, shape.vocabulary)
    works = [(size, make_work(options, parts, records, size)) for size in SIZES]
    works = [(size, work) for size, work in works if 4 * size < work.whole.costs.sum()]  # else there is no choice
    seconds: dict[int, list[float]] = {size: [] for size, _ in works}
    for _ in range(options.rounds):
        for size, work in works:
            start = clock(work.parts.device)
            ours(work)
            seconds[size].append(clock(work.parts.device) - start)
    tokens = int(records.rows["needed"].sum())
    for size, taken in seconds.items():
        print(f"{size:>8,} tokens per batch {tokens / statistics.median(taken):>12,.0f} tokens/s")


if __name__ == "__main__":
    main()
