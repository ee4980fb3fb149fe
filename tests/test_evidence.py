"""What the README claims is what the comparison found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from curate.config.stages import Dropout

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "recipes" / "results" / "README.md"
MARKS = {"better": " +", "worse": " -", "no difference seen": " =", "reference": "", "not compared": " ?"}
LENGTH = "response_tokens"
SETS = ("holdout", "self_instruct", "dolly", "gsm8k")


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table of the README, from the rows of a comparison."""
    found = {(row["selector"], row["set"], row["metric"]): row for row in rows}
    out = []
    for selector in dict.fromkeys(row["selector"] for row in rows):
        cells = []
        for name in SETS:
            both = (found[selector, name, metric] for metric in ("loss_over_records", "loss_over_tokens"))
            cells.append(" / ".join(f"{row['mean']:.3f}{MARKS[row['verdict']]}" for row in both))
        row = found[selector, SETS[0], "loss_over_records"]
        tokens = "" if row["kept_tokens"] is None else f"{row['kept_tokens']:,.0f}"
        out.append(f"| {selector} | {row['seeds']} | {' | '.join(cells)} | {tokens} |")
    return out


def verdicts(told: dict[str, Any], selector: str) -> list[str]:
    return [row["verdict"] for row in told["rows"] if row["selector"] == selector]


def counts(told: dict[str, Any], selector: str) -> tuple[int, int]:
    """On how many of the eight numbers a selector is better than random, and on how many worse."""
    found = verdicts(told, selector)
    assert len(found) == 8
    return found.count("better"), found.count("worse")


def above_untuned(told: dict[str, Any], selector: str) -> list[str]:
    """The sets, one for each number, where the mean of a selector lies above that of the untuned model."""
    means = {(row["selector"], row["set"], row["metric"]): row["mean"] for row in told["rows"]}
    return [
        name for (own, name, metric), mean in means.items() if own == selector and mean > means["untuned", name, metric]
    ]


def words(path: str) -> str:
    """A page in one line, so that a claim is found however its lines break."""
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    whole = json.loads((ROOT / "recipes" / "results" / "compare-alpaca.json").read_text(encoding="utf-8"))
    return whole["comparisons"]  # type: ignore[no-any-return]


def test_the_tables_are_those_of_the_comparisons(told: dict[str, Any]) -> None:
    """Every table is of the comparison that is named last before it, and every comparison has its table."""
    page, seen = PAGE.read_text(encoding="utf-8").splitlines(), []
    for line in page:
        if named := re.search(r"\[(equal_\w+)\]", line):
            seen.append((named[1], lines(told[named[1]]["rows"])))
        elif line.startswith("## ") and "[ifeval]" in line:
            break  # its table is of another kind
        elif line.startswith("| ") and not line.startswith(("| selector", "| kept")):
            assert line in [*seen[-1][1], *sizes(told)]
    assert sorted(name for name, _ in seen) == sorted(name for name in told if not name.startswith("ifeval"))
    evidence = re.search(r"<!-- evidence -->(.*)<!-- /evidence -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert evidence is not None
    in_readme = [line for line in evidence[1].splitlines() if line.startswith("| ")]
    heads = [line for line in in_readme if line.startswith(("| selector", "| kept"))]
    assert [line for line in in_readme if line not in heads] == [*lines(told["equal_tokens"]["rows"]), *sizes(told)]
    assert [line for line in page if line in sizes(told)] == sizes(told)


def sizes(told: dict[str, Any]) -> list[str]:
    """The table of sizes: the loss per token of three selectors on the sets unlike the data, by how much is kept."""

    def cell(part: str, selector: str) -> tuple[str, float]:
        metric = "loss_over_tokens"
        found = {
            row["set"]: row for row in told[part]["rows"] if (row["selector"], row["metric"]) == (selector, metric)
        }
        row = found["gsm8k"]
        return " / ".join(f"{found[name]['mean']:.3f}" for name in SETS[1:]), row["seen_tokens"] / row["kept_tokens"]

    out = []
    for kept, end in (("5 %", "_5_percent"), ("10 %", ""), ("20 %", "_20_percent"), ("50 %", "_50_percent")):
        part = "equal_tokens" + end
        random, seen = cell(part, "random")
        others = cell(part, "longest")[0], cell(part, "clusters")[0]
        out.append(f"| {kept} | {seen:.1f} times | {random} | {' | '.join(others)} |")
    everything, seen = cell("equal_tokens_all", "all")
    return [*out, f"| 100 % | {seen:.1f} times | {everything} | | |"]


def test_what_is_said_of_equal_steps_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    assert verdicts(told["equal_steps"], "clusters") == ["worse"] * 8
    assert "Ours is worse beyond the interval on all eight numbers." in page
    assert "worse beyond the interval on all eight numbers, with equal steps too" in readme
    assert verdicts(told["equal_steps"], "random_same_lengths") == ["no difference seen"] * 8
    assert "no difference to a free one is seen on any of the eight" in page
    assert verdicts(told["equal_steps_last_exit"], "random_same_lengths").count("worse") == 5
    assert "five were worse" in page
    means = {(row["selector"], row["set"], row["metric"]): row["mean"] for row in told["equal_steps"]["rows"]}
    lost = [
        (means["random_same_lengths", *column] - mean) / (means["clusters", *column] - mean)
        for (selector, *column), mean in means.items()
        if selector == "random"
    ]
    assert "loses less than half as much" in page
    assert max(lost) < 0.5
    assert len(lost) == 8
    two_seeds = told["equal_steps_longest_hard"]
    assert counts(two_seeds, "hard") == (0, 3)
    assert "worse on three of eight numbers, never better" in page
    tokens = {row["selector"]: row["kept_tokens"] for row in two_seeds["rows"]}
    assert "The longest responses see three times as many tokens." in page
    assert 2.8 < tokens["longest"] / tokens["random"] < 3.2
    assert "better" not in verdicts(told["equal_steps_last_exit"], "last_exit")
    more = told["equal_steps_ifd_flexrand"]
    assert [counts(more, name) for name in ("ifd", "random_per_cluster", "flexrand")] == [(7, 0), (6, 0), (3, 2)]
    assert "the highest IFD is better on seven of eight numbers and never worse" in page
    assert "every cluster is better on six, by little, and FlexRand on three and worse on two" in page
    kept = {row["selector"]: row["kept_tokens"] for row in more["rows"]}
    assert f"With {kept['ifd'] / kept['random']:.1f} times the tokens of random" in page
    random = [
        {(row["set"], row["metric"]): row["mean"] for row in told[part]["rows"] if row["selector"] == "random"}
        for part in ("equal_steps_last_exit", "equal_steps_ifd_flexrand")
    ]
    assert max(abs(mean - random[1][column]) for column, mean in random[0].items()) < 0.0011
    assert "random comes out within .0011" in page


def test_what_is_said_of_a_twentieth_was_measured(told: dict[str, Any]) -> None:
    page, part = words("recipes/results/README.md"), told["equal_tokens_5_percent"]
    rows = {row["selector"]: row for row in part["rows"]}
    longest, ifd, random, ours = (
        f"{rows[name]['seen_tokens'] / rows[name]['kept_tokens']:.1f}"
        for name in ("longest", "ifd", "random", "clusters")
    )
    assert f"the longest {longest} times, the highest IFD {ifd}, random {random}, ours {ours} times" in page
    assert [counts(part, name) for name in ("ifd", "longest", "clusters")] == [(5, 0), (4, 0), (0, 8)]
    assert (
        "The highest IFD is better on five numbers and worse on none, the longest responses better on four and worse "
        "on none." in page
    )
    assert len(above_untuned(part, "clusters")) == 7
    assert "on seven its means lie above those of the untuned model" in page
    harmed = [row for row in told["equal_tokens_5_percent_to_untuned"]["rows"] if row["verdict"] == "worse"]
    assert {(row["selector"], row["set"]) for row in harmed} == {("clusters", name) for name in SETS[1:]}
    assert len(harmed) == 6
    assert "On self-instruct, Dolly and GSM8K they do so beyond the interval" in page
    readme = words("README.md")
    assert "ours is seen seven times in as many tokens and ends above the loss of the untuned model on seven" in readme
    assert "the highest IFD is better than random on five. The lowest perplexity ends above it on all" in readme
    assert {row["seeds"] for row in part["rows"] if row["selector"] != "untuned"} == {2}
    assert "with 5 % kept (two seeds)" in readme


IFEVAL = [f"{of}_level_{how}_acc" for of in ("prompt", "inst") for how in ("strict", "loose")]


def ifeval_lines(told: dict[str, Any], part: str, seeds: str) -> list[str]:
    """The table of IFEval, from the rows of a comparison."""
    found = {(row["selector"], row["metric"]): row for row in told[part]["rows"]}
    out = []
    for selector in dict.fromkeys(row["selector"] for row in told[part]["rows"]):
        cells = (found[selector, kind] for kind in IFEVAL)
        marked = " | ".join(f"{100 * row['mean']:.1f}{MARKS[row['verdict']]}" for row in cells)
        out.append(f"| {selector} | {'' if selector == 'untuned' else seeds} | {marked} |")
    return out


def test_what_is_said_of_ifeval_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    lines_of_page = PAGE.read_text(encoding="utf-8").splitlines()
    points, worse_than_untuned, better_than_random = list[tuple[float, float, float]](), {}, {}
    for part, seed in (("ifeval", "0"), ("ifeval_seed_2", "2")):
        at = lines_of_page.index(ifeval_lines(told, part, seed)[0])
        assert lines_of_page[at : at + 5] == ifeval_lines(told, part, seed)
        for rows in (told[part]["rows"], told[part + "_to_untuned"]["rows"]):
            assert {row["difference"]["records"] for row in rows if row["difference"]} == {540}, "prompt by prompt"
        assert told[part]["about"]["compare"]["seeds"] == [int(seed)]
        untuned = [row for row in told[part]["rows"] if row["selector"] == "untuned"]
        assert [row["verdict"] for row in untuned] == ["better"] * 4
        points += [tuple(100 * row["difference"][end] for end in ("value", "low", "high")) for row in untuned]
        for selector in ("longest", "ifd", "clusters"):
            better_than_random[selector, seed] = verdicts(told[part], selector).count("better")
            to_untuned = verdicts(told[part + "_to_untuned"], selector)
            worse_than_untuned[selector, seed] = to_untuned.count("worse")
            assert "better" not in to_untuned
        means = {(row["selector"], row["metric"]): row["mean"] for row in told[part]["rows"]}
        for kind in IFEVAL:
            assert means["clusters", kind] > max(means[name, kind] for name in ("random", "longest", "ifd"))
    assert "Ours cost it least." in page
    assert "Ours cost the model least: better than random" in readme
    values, lows, highs = zip(*points, strict=True)
    assert f"with each seed, by {min(values):.1f} to {max(values):.1f} points" in page
    ends = f"the lowest end of the eight intervals is {min(lows):.1f}, the highest {max(highs):.1f}"
    assert ends.replace("0.", ".") in page
    others = [(name, seed) for name in ("longest", "ifd") for seed in "02"]
    assert [worse_than_untuned[other] for other in others] == [4] * 4
    assert "So is it than the longest and the highest IFD" in page
    assert [worse_than_untuned["clusters", seed] for seed in "02"] == [3, 0]
    assert "It is worse than the untuned model on three measures with one seed, on none with the other" in page
    assert [better_than_random["clusters", seed] for seed in "02"] == [1, 4]
    assert "better than random on one and on all four" in page
    assert [better_than_random[other] for other in others] == [0] * 4
    assert "The other two are never better than random." in page
    both = [row for row in told["ifeval_two_seeds_to_untuned"]["rows"] if row["selector"] != "untuned"]
    assert {(row["seeds"], row["verdict"]) for row in both} == {(2, "no difference seen")}
    assert len(both) == 16
    wide = [round(100 * (row["difference"]["high"] - row["difference"]["low"])) for row in both]
    assert f"they are {min(wide)} to {max(wide)} points wide" in page


def test_what_is_said_of_ifeval_with_three_seeds_was_measured(told: dict[str, Any]) -> None:
    page, readme, part = words("recipes/results/README.md"), words("README.md"), told["ifeval_three_seeds"]
    expected, lines_of_page = ifeval_lines(told, "ifeval_three_seeds", "3"), PAGE.read_text("utf-8").splitlines()
    at = lines_of_page.index(expected[0])
    assert lines_of_page[at : at + 3] == expected
    assert {row["seeds"] for row in part["rows"] if row["selector"] != "untuned"} == {3}
    assert verdicts(part, "untuned") == ["better"] * 4
    found = {(row["selector"], row["metric"]): row["difference"] for row in part["rows"]}
    values = [100 * found["untuned", kind]["value"] for kind in IFEVAL]
    points = f"by {min(values):.1f} to {max(values):.1f} points"
    assert f"The untuned model is better than random by all four, {points}, the luck of the draw counted." in page
    assert f"follows fewer instructions than the untuned model, {points} (three seeds, four measures)" in readme
    ours = {row["metric"]: row["verdict"] for row in part["rows"] if row["selector"] == "clusters"}
    assert [ours[kind] for kind in IFEVAL] == [*["no difference seen"] * 3, "better"]
    value, low, high = (100 * found["clusters", IFEVAL[3]][end] for end in ("value", "low", "high"))
    said = f"by one of four, by {value:.1f} points of the instructions, loosely ({low:.1f} to {high:.1f})"
    assert said.replace("(0.", "(.") in page
    begins = [100 * found["clusters", kind]["low"] for kind in IFEVAL[:3]]
    assert f"begin at {min(begins):.1f} to {max(begins):.1f} points".replace("-0.", "-.") in page
    assert "better than random by one of four measures" in readme


def test_what_is_said_of_a_fifth_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    recommended = words("recipes/recommended.yaml")
    part = told["equal_tokens_20_percent"]
    rows = [row for row in part["rows"] if row["selector"] != "untuned"]
    assert {row["seeds"] for row in rows} == {2}
    assert "better" not in {row["verdict"] for row in rows}
    random = next(row for row in rows if row["selector"] == "random")
    assert (
        f"Nothing is better than the random fifth, which is seen "
        f"{random['seen_tokens'] / random['kept_tokens']:.1f} times." in page
    )
    for selector in ("longest", "ifd"):
        marks = {(row["set"], row["verdict"]) for row in rows if row["selector"] == selector}
        assert marks == {("holdout", "worse"), *((name, "no difference seen") for name in SETS[1:])}
    assert (
        "The longest and the highest IFD are worse on held-out Alpaca, and no difference is seen on the other six."
        in page
    )
    assert counts(part, "clusters") == (0, 0)
    means = {(row["selector"], row["set"], row["metric"]): row["mean"] for row in rows}
    above = [mean > means["random", *place] for (name, *place), mean in means.items() if name == "clusters"]
    assert above == [True] * 8
    assert "Of ours no difference is seen, though all eight of its means lie above random's." in page
    assert "With a fifth or half kept (two seeds each) the longest are better than random nowhere." in readme
    assert "With a fifth or half kept, and as many tokens, it won nowhere (two seeds each)" in recommended
    of_both = [
        next(row["mean"] for row in told[part]["rows"] if [row["selector"], row["set"], row["metric"]] == [*place])
        for name in SETS[1:]
        for part, *place in (
            ("equal_tokens_20_percent", "random", name, "loss_over_tokens"),
            ("equal_tokens", "longest", name, "loss_over_tokens"),
        )
    ]
    apart = [fifth - tenth for fifth, tenth in zip(of_both[::2], of_both[1::2], strict=True)]
    assert max(apart[:2]) < 0.005
    assert apart[2] > 0.02
    behind = []
    for line in sizes(told)[:4]:
        random_mean, ours = (line.split(" | ")[place].strip(" |").split(" / ") for place in (2, 4))
        behind.append([float(o) > float(r) for o, r in zip(ours, random_mean, strict=True)])
    assert behind == [[True] * 3] * 3 + [[False, False, True]]
    assert "Ours is behind random with 5, 10 and 20 % kept, on all three sets; with 50 % on GSM8K alone." in page
    assert "comes as low on self-instruct and Dolly as the longest tenth does, within .005, and not on GSM8K" in page


def test_what_is_said_of_half_was_measured(told: dict[str, Any]) -> None:
    page, readme, part = words("recipes/results/README.md"), words("README.md"), told["equal_tokens_50_percent"]
    rows, tenth = (
        {(row["selector"], row["set"]): row for row in told[name]["rows"] if row["metric"] == "loss_over_tokens"}
        for name in ("equal_tokens_50_percent", "equal_tokens")
    )
    seen = {name: row["seen_tokens"] / row["kept_tokens"] for (name, _), row in rows.items() if name != "untuned"}
    shares = " ".join(f"{name} {share:.0%}" for name, share in seen.items())
    assert shares == "random 56% longest 34% clusters 48% ifd 35%"
    assert (
        "training sees 56 % of what random keeps, 34 % of the longest, 48 % of ours, 35 % of the highest IFD." in page
    )
    assert {row["seeds"] for row in part["rows"] if row["selector"] != "untuned"} == {2}
    for selector in ("longest", "ifd"):
        marks = {(row["set"], row["verdict"]) for row in part["rows"] if row["selector"] == selector}
        assert marks == {("holdout", "worse"), *((name, "no difference seen") for name in SETS[1:])}
    assert (
        "The longest responses and the highest IFD are worse than random on held-out Alpaca, and no difference is seen "
        "on the other six." in page
    )
    assert counts(part, "clusters") == (0, 0)
    assert "Of ours no difference is seen on any of the eight." in page
    often = [
        tenth[name, "holdout"]["seen_tokens"] / tenth[name, "holdout"]["kept_tokens"] for name in ("longest", "random")
    ]
    assert [f"{times:.1f}" for times in often] == ["0.9", "2.8"]
    assert "training sees it .9 times, a random tenth 2.8 times" in page
    assert "training sees the longest tenth .9 times, a random one 2.8 times" in readme
    assert "training sees it 2.8 times and more" in page
    half = [f"{rows['random', name]['mean']:.3f}" for name in ("self_instruct", "dolly")]
    longest = [f"{tenth['longest', name]['mean']:.3f}" for name in ("self_instruct", "dolly")]
    assert f"({' and '.join(half)}, against {' and '.join(longest)})" in page
    assert rows["random", "holdout"]["mean"] < tenth["longest", "holdout"]["mean"] - 0.02
    assert rows["random", "gsm8k"]["mean"] > tenth["longest", "gsm8k"]["mean"] + 0.02


def test_what_is_said_of_all_records_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    to_random, to_all = told["equal_tokens_all"], told["equal_tokens_to_all"]
    everything = [row for row in to_random["rows"] if row["selector"] == "all"]
    assert {row["seeds"] for row in to_all["rows"] if row["selector"] != "untuned"} == {3}
    assert everything[0]["seen_tokens"] / everything[0]["kept_tokens"] < 1 / 3
    assert counts(to_random, "all") == (5, 0)
    assert "It is better than a random tenth on five of eight numbers and worse on none." in page
    assert "is better than a random tenth on five of eight numbers and worse on none" in readme
    assert to_all["about"]["compare"]["reference"] == "all"
    tenths = ("random", "longest", "clusters", "ifd", "flexrand", "hard_in_bins")
    assert [counts(to_all, name) for name in tenths] == [(0, 4), (2, 3), (0, 8), (2, 3), (0, 6), (0, 4)]
    assert (
        "A random tenth is worse on four numbers, FlexRand on six, the hardest of ten bins of length on four, ours "
        "on all eight" in page
    )
    assert "the longest tenth is better on GSM8K alone and worse on three numbers, ours worse on all eight" in readme
    for name in ("longest", "ifd"):
        found = {(row["set"], row["metric"]): row for row in to_all["rows"] if row["selector"] == name}
        places = {
            verdict: {place for place, row in found.items() if row["verdict"] == verdict}
            for verdict in ("better", "worse")
        }
        both = ("loss_over_records", "loss_over_tokens")
        assert places["better"] == {("gsm8k", metric) for metric in both}
        assert places["worse"] == {("dolly", both[0]), *(("holdout", metric) for metric in both)}
        d = found["gsm8k", both[1]]["difference"]
        less, most = (f"{-d[end]:.3f}"[1:] for end in ("high", "low"))
        interval = "interval " if name == "longest" else ""
        assert f"{-d['value']:.3f} ({interval}{less} to {most})"[1:] in page
    over_records = next(row for row in everything if (row["set"], row["metric"]) == ("gsm8k", "loss_over_records"))
    luck = f"{over_records['highest'] - over_records['lowest']:.3f}"[1:]
    assert f"The three seeds of all records lie {luck} apart on GSM8K over records" in page


def test_what_is_said_of_long_and_hard_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    part = told["equal_tokens_within_long_to_its_lengths"]
    rows = [row for row in part["rows"] if row["selector"] == "hard_within_long"]
    assert part["about"]["compare"]["reference"] == "random_hard_lengths"
    assert [row["verdict"] for row in rows] == ["no difference seen"] * 8
    assert {row["seeds"] for row in rows} == {3}
    most = f"{max(abs(row['difference']['value']) for row in rows):.3f}"[1:]
    assert f"among long responses complexity adds nothing to length. The two differ by {most} at most." in page
    lengths = part["lengths"]["10%"]["hard_within_long"]
    assert lengths["quantiles"][0] >= 100
    assert "the hardest teach no more than a random choice of the same lengths (three seeds)" in readme


def test_what_is_said_of_bins_of_length_was_measured(told: dict[str, Any]) -> None:
    page, readme = words("recipes/results/README.md"), words("README.md")
    rows = [row for row in told["equal_tokens_bins"]["rows"] if row["selector"] == "hard_in_bins"]
    better = [row["difference"] for row in rows if row["verdict"] == "better"]
    assert {row["set"] for row in rows if row["verdict"] == "better"} == {"gsm8k"}
    assert (counts(told["equal_tokens_bins"], "hard_in_bins"), rows[0]["seeds"]) == ((2, 0), 3)
    assert [f"{d['value']:.3f}" for d in better] == ["-0.019", "-0.017"]
    assert [f"{d['high']:.4f}" for d in better] == ["-0.0004", "-0.0013"]
    assert "by little: .019 and .017 nats, intervals that end at -.0004 and -.0013" in page
    one_seed = told["equal_tokens_bins_one_seed"]
    assert [counts(one_seed, name) for name in ("hard_in_bins", "easy_in_bins")] == [(3, 0), (0, 4)]
    assert "the hardest are better on three and worse on none, the easiest worse on four and better on none" in page
    assert "the easiest are worse on four of eight (one seed)" in readme
    # The one selection by complexity whose loss has beaten that of random with more than one seed.
    by_complexity = {"clusters", "hard", "last_exit", "flexrand"}
    assert not [
        name
        for part_name, part in told.items()
        if not part_name.startswith("ifeval")
        for name in by_complexity & {row["selector"] for row in part["rows"] if row["seeds"] > 1}
        if counts(part, name)[0]
    ]


def test_what_is_said_of_other_selectors_was_measured(told: dict[str, Any]) -> None:
    page, part = words("recipes/results/README.md"), told["equal_tokens_other_selectors"]
    perplexity = next(row for row in part["rows"] if row["selector"] == "perplexity")
    assert len(above_untuned(part, "perplexity")) == 8
    assert f"seen {perplexity['seen_tokens'] / perplexity['kept_tokens']:.1f} times" in page
    assert counts(part, "random_per_cluster") == (0, 4)
    differences = [row["difference"]["value"] for row in part["rows"] if row["selector"] == "random_per_cluster"]
    assert f"worse on four, by {max(differences):.3f} at most".replace("0.", ".") in page


def test_what_is_said_of_hard_far_and_middling_records_was_measured(told: dict[str, Any]) -> None:
    page, part = words("recipes/results/README.md"), told["equal_tokens_other_selectors"]
    assert [counts(part, name) for name in ("k_center", "hard", "last_exit")] == [(0, 3), (0, 8), (0, 8)]
    assert "Farthest first (k_center) is worse on three and better on none." in page
    assert "The hardest and the easiest by the last exit alone (last_exit) are worse on all eight." in page
    hard = next(row for row in part["rows"] if row["selector"] == "hard")
    assert f"are seen {hard['seen_tokens'] / hard['kept_tokens']:.1f} times" in page
    assert len(above_untuned(part, "hard")) == 7
    assert counts(part, "middle_third") == (2, 3)
    better = {row["set"] for row in part["rows"] if (row["selector"], row["verdict"]) == ("middle_third", "better")}
    assert better == {"gsm8k"}
    lengths = part["lengths"]["10%"]
    assert f"({lengths['middle_third']['mean']:.0f} tokens against {lengths['random']['mean']:.0f})" in page


def test_what_is_said_of_masks_was_measured(told: dict[str, Any]) -> None:
    page, part = words("recipes/results/README.md"), told["equal_tokens_masked"]
    assert counts(part, "masked") == (0, 7)
    assert "Worse than random on seven, better on none." in page
    names, rho = part["rank_correlations"]["names"], part["rank_correlations"]["rho"]
    agreement = rho[names.index("masked_loss")][names.index("perplexity")]
    assert f"ranks records as perplexity does ({agreement:.2f})".replace("0.", ".") in page


def test_what_is_said_of_dropout_was_measured(told: dict[str, Any]) -> None:
    page, part = words("recipes/results/README.md"), told["equal_tokens_dropout"]
    assert counts(part, "dropout") == (0, 8)
    assert len(above_untuned(part, "dropout")) == 4
    assert "Worse than random on all eight, and on four its means lie above those of the untuned model." in page
    lengths = part["lengths"]["10%"]
    of_both = f"({lengths['dropout']['mean']:.0f} tokens against {lengths['random']['mean']:.0f})"
    row = next(row for row in part["rows"] if row["selector"] == "dropout")
    assert f"Its answers are short {of_both} and are seen {row['seen_tokens'] / row['kept_tokens']:.1f} times." in page
    assert part["command"].endswith(" score.dropout=true")
    assert Dropout().rates == tuple(i / 10 for i in range(1, 10))
    assert "Nine rates of dropout, .1 to .9" in page
    readme = words("README.md")
    assert counts(told["equal_tokens_masked"], "masked") == (0, 7)
    assert "weight masks are worse than random on seven numbers, dropout on all eight (one seed)" in readme


def test_what_is_said_of_scores_without_training_was_measured(told: dict[str, Any]) -> None:
    page, one_seed = words("recipes/results/README.md"), told["equal_steps_last_exit"]
    names, rho = one_seed["rank_correlations"]["names"], one_seed["rank_correlations"]["rho"]
    for a, b, said in (("complexity", "perplexity", ".72"), ("complexity", "ifd", "-.08"), ("ifd", LENGTH, ".85")):
        assert f"{rho[names.index(a)][names.index(b)]:.2f}".replace("0.", ".") == said
        assert f"({said})" in page
    by_score = one_seed["agreements"]
    behind = [
        max(abs(by_score[name][i]["auc"] - 0.5) for name in ("complexity", "perplexity", "ifd"))
        <= abs(length["length_auc"] - 0.5) + 0.005
        for i, length in enumerate(by_score["complexity"])
    ]
    assert (sum(behind), len(behind)) == (7, 8)
    assert "Against seven of eight lists" in page


def test_what_is_recommended_is_what_won_with_equal_tokens(told: dict[str, Any]) -> None:
    page, readme, equal_tokens = words("recipes/results/README.md"), words("README.md"), told["equal_tokens"]
    found = {(row["selector"], row["set"], row["metric"]): row for row in equal_tokens["rows"]}
    assert equal_tokens["about"]["compare"]["budget"] == "tokens"
    trained = [row for row in equal_tokens["rows"] if row["selector"] != "untuned"]
    assert {row["seeds"] for row in trained} == {3}
    seen, steps = ([row[name] for row in trained] for name in ("seen_tokens", "steps"))
    assert 56_500 < min(seen) <= max(seen) < 58_300
    assert (min(steps), max(steps)) == (21, 68)
    assert "trains on 56,500 to 58,300 response tokens, in 21 to 68 steps" in page
    assert "trains on 56,500 to 58,300 response tokens" in readme
    taken = {row["selector"]: row["steps"] for row in trained}
    assert [round(taken[name]) for name in ("longest", "ifd", "random")] == [21, 25, 63]
    assert "in 21 and 25 steps against 63" in page
    assert "in 21 steps against 63" in readme
    same = [(row, found["random_ifd_lengths", *place]) for (name, *place), row in found.items() if name == "ifd"]
    assert [ifd["verdict"] for ifd, _ in same] == [drawn["verdict"] for _, drawn in same]
    assert f"{max(abs(ifd['mean'] - drawn['mean']) for ifd, drawn in same):.3f}"[1:] == ".012"
    assert "differs from it by .012 at most" in page
    assert verdicts(equal_tokens, "clusters") == ["worse"] * 8
    assert verdicts(equal_tokens, "flexrand") == ["no difference seen"] * 8
    recipe = (ROOT / "recipes" / "recommended.yaml").read_text(encoding="utf-8")
    for selector in ("longest", "ifd"):
        for name in SETS:
            expected = "worse" if name == "holdout" else "better"
            assert found[selector, name, "loss_over_tokens"]["verdict"] == expected
        over_records = [found[selector, name, "loss_over_records"]["verdict"] for name in SETS]
        assert over_records == ["worse", "no difference seen", "no difference seen", "better"]
    sets = {"self_instruct": "self-instruct", "dolly": "Dolly", "gsm8k": "GSM8K", "holdout": "held-out Alpaca"}
    for name, word in sets.items():
        d = found["longest", name, "loss_over_tokens"]["difference"]
        assert f"{word:16}  {d['value']:+.3f}   {d['low']:+.3f} to {d['high']:+.3f}" in recipe


def test_what_is_said_of_exits_was_measured() -> None:
    measured = json.loads((ROOT / "recipes" / "results" / "exits-alpaca.json").read_text(encoding="utf-8"))
    page = words("recipes/results/README.md")
    *early, a, b, c = (exit["mean_log_prob"] for exit in measured["exits"])
    assert max(early) < -17
    assert f"then {a:.1f}, {b:.1f} and {c:.1f} at layers 24, 27 and 30" in page
    shared = measured["share_of_kept_in_common"]["all"]
    assert f"five exits keep {shared['every second']:.0%}".replace("%", " %") in page
    assert f"the last exit alone {shared['last']:.0%}".replace("%", " %") in page
    assert f"chance would be {measured['in_common_by_chance']:.0%}".replace("%", " %") in page
