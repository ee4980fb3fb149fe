"""What the README claims is what the comparison found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MARKS = {"better": " +", "worse": " -", "no difference seen": " =", "reference": ""}
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


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("three_seeds", ("random", "clusters", "random_same_lengths", "untuned")),
        ("equal_tokens", ("random", "longest", "clusters", "ifd", "random_ifd_lengths", "untuned")),
        ("two_seeds", ("random", "clusters", "longest", "hard")),
        ("one_seed", ("random", "last_exit")),
        ("one_seed_more", ("random", "random_per_cluster", "ifd", "flexrand")),
    ],
)
def test_the_tables_of_the_readme_are_those_of_the_comparison(part: str, shown: tuple[str, ...]) -> None:
    told = json.loads((ROOT / "recipes" / "results" / "compare-alpaca.json").read_text(encoding="utf-8"))
    evidence = re.search(r"<!-- evidence -->(.*)<!-- /evidence -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert evidence is not None
    expected = lines([row for row in told[part]["rows"] if row["selector"] in shown])
    assert len(expected) == len(shown)
    assert [line for line in expected if line not in evidence[1].splitlines()] == []


def test_the_words_of_the_readme_are_those_of_the_comparison() -> None:
    told = json.loads((ROOT / "recipes" / "results" / "compare-alpaca.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert verdicts(told["three_seeds"], "clusters") == ["worse"] * 8
    assert "worse beyond the interval\non all eight numbers." in readme
    assert verdicts(told["three_seeds"], "random_same_lengths") == ["no difference seen"] * 8
    assert "no difference to a free one is seen on any of the eight" in readme
    assert verdicts(told["one_seed"], "random_same_lengths").count("worse") == 5
    assert "five were worse" in readme
    means = {(row["selector"], row["set"], row["metric"]): row["mean"] for row in told["three_seeds"]["rows"]}
    lost = [
        (means["random_same_lengths", *column] - mean) / (means["clusters", *column] - mean)
        for (selector, *column), mean in means.items()
        if selector == "random"
    ]
    assert "loses less than half as much" in readme
    assert max(lost) < 0.5
    assert len(lost) == 8
    hard = verdicts(told["two_seeds"], "hard")
    assert (hard.count("worse"), hard.count("better"), len(hard)) == (3, 0, 8)
    assert "worse\non three of eight numbers, never better" in readme
    longest = {
        (row["set"], row["metric"]): row["verdict"] for row in told["two_seeds"]["rows"] if row["selector"] == "longest"
    }
    assert {longest[name, "loss_over_tokens"] for name in SETS} == {"better"}
    assert "better" not in verdicts(told["one_seed"], "last_exit")
    more = told["one_seed_more"]
    counts = {
        selector: tuple(verdicts(more, selector).count(verdict) for verdict in ("better", "worse"))
        for selector in ("ifd", "random_per_cluster", "flexrand")
    }
    assert counts == {"ifd": (7, 0), "random_per_cluster": (6, 0), "flexrand": (3, 2)}
    assert (
        "With 2.7 times the tokens of random, the highest IFD is better on seven of eight numbers and never worse"
        in readme
    )
    assert "every cluster is better on six, by little, and FlexRand on three and worse on two" in readme
    assert verdicts(told["equal_tokens_two_seeds"], "flexrand") == ["no difference seen"] * 8
    assert "no difference of FlexRand to random is seen on any of the eight" in readme
    kept = {row["selector"]: row["kept_tokens"] for row in more["rows"]}
    assert f"{kept['ifd'] / kept['random']:.1f}" == "2.7"
    random = [
        {(row["set"], row["metric"]): row["mean"] for row in told[part]["rows"] if row["selector"] == "random"}
        for part in ("one_seed", "one_seed_more")
    ]
    assert max(abs(mean - random[1][column]) for column, mean in random[0].items()) < 0.0011
    found = told["one_seed"]["rank_correlations"]
    names, rho = found["names"], found["rho"]
    for a, b, said in (("complexity", "perplexity", ".72"), ("complexity", "ifd", "-.08"), ("ifd", LENGTH, ".85")):
        assert f"{rho[names.index(a)][names.index(b)]:.2f}".replace("0.", ".") == said
        assert f"({said})" in readme
    by_score = told["one_seed"]["agreements"]
    behind = [
        max(abs(by_score[name][i]["auc"] - 0.5) for name in ("complexity", "perplexity", "ifd"))
        <= abs(length["length_auc"] - 0.5) + 0.005
        for i, length in enumerate(by_score["complexity"])
    ]
    assert (sum(behind), len(behind)) == (7, 8)
    assert "against seven of eight lists" in readme
    tokens = {r["selector"]: r["kept_tokens"] for r in told["two_seeds"]["rows"]}
    assert 3 < tokens["longest"] / tokens["random"] < 3.5


def test_what_is_recommended_is_what_won_with_equal_tokens() -> None:
    told = json.loads((ROOT / "recipes" / "results" / "compare-alpaca.json").read_text(encoding="utf-8"))[
        "equal_tokens"
    ]
    found = {(row["selector"], row["set"], row["metric"]): row for row in told["rows"]}
    assert told["about"]["compare"]["budget"] == "tokens"
    assert {row["seeds"] for row in told["rows"] if row["selector"] != "untuned"} == {3}
    seen = [row["seen_tokens"] for row in told["rows"] if row["selector"] != "untuned"]
    assert 56_500 < min(seen) <= max(seen) < 58_300
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "trains on 56,500 to 58,300 response tokens, in 21 to 68 steps" in readme
    steps = [row["steps"] for row in told["rows"] if row["selector"] != "untuned"]
    assert (min(steps), max(steps)) == (21, 68)
    taken = {row["selector"]: row["steps"] for row in told["rows"]}
    assert [round(taken[name]) for name in ("longest", "ifd", "random")] == [21, 25, 63]
    assert "in 21 and 25 steps against 63" in " ".join(readme.split())
    same = [(row, found["random_ifd_lengths", *place]) for (name, *place), row in found.items() if name == "ifd"]
    assert [ifd["verdict"] for ifd, _ in same] == [drawn["verdict"] for _, drawn in same]
    assert f"{max(abs(ifd['mean'] - drawn['mean']) for ifd, drawn in same):.3f}"[1:] == ".012"
    assert "differs from it by .012 at most" in " ".join(readme.split())
    assert verdicts(told, "clusters") == ["worse"] * 8
    recipe = (ROOT / "recipes" / "recommended.yaml").read_text(encoding="utf-8")
    for selector in ("longest", "ifd"):
        for name in SETS:
            expected = "worse" if name == "holdout" else "better"
            assert found[selector, name, "loss_over_tokens"]["verdict"] == expected
        over_records = [found[selector, name, "loss_over_records"]["verdict"] for name in SETS]
        assert over_records == ["worse", "no difference seen", "no difference seen", "better"]
    words = {"self_instruct": "self-instruct", "dolly": "Dolly", "gsm8k": "GSM8K", "holdout": "held-out Alpaca"}
    for name, word in words.items():
        d = found["longest", name, "loss_over_tokens"]["difference"]
        assert f"{word:16}  {d['value']:+.3f}   {d['low']:+.3f} to {d['high']:+.3f}" in recipe


def test_what_the_readme_says_of_exits_is_what_was_measured() -> None:
    told = json.loads((ROOT / "recipes" / "results" / "exits-alpaca.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    *early, a, b, c = (exit["mean_log_prob"] for exit in told["exits"])
    assert max(early) < -17
    assert f"then {a:.1f},\n{b:.1f} and {c:.1f} at layers 24, 27 and 30" in readme
    shared = told["share_of_kept_in_common"]["all"]
    assert f"five exits keep\n{shared['every second']:.0%}".replace("%", " %") in readme
    assert f"the last exit alone {shared['last']:.0%}".replace("%", " %") in readme
    assert f"chance would be {told['in_common_by_chance']:.0%}".replace("%", " %") in readme
