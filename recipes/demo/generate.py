"""Generates the demo data: instructions with planted flaws, so that it is known which records are flawed.

The data tests that all stages from records to selection work. How a score treats it is no evidence about real data.

    python -m recipes.demo.generate     run at the top of the repository, writes the shipped data into curate/demo/data
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal, get_args

from recipes.demo import language, prose, reckoning
from recipes.demo.drafts import Draft

Flaw = Literal["wrong", "shuffled", "truncated", "empty", "duplicate"]
FLAWS: tuple[Flaw, ...] = get_args(Flaw)
SKILLS: dict[str, Callable[[Random], Draft]] = {
    "arithmetic": reckoning.arithmetic,
    "counting": reckoning.counting,
    "lists": reckoning.lists,
    "units": reckoning.units,
    "dates": reckoning.dates,
    "geography": language.geography,
    "grammar": language.grammar,
    "extraction": language.extraction,
    "sentiment": language.sentiment,
    "story": prose.story,
    "letter": prose.letter,
    "recipe": prose.recipe,
}
SHIPPED_COUNT = 2000
SHIPPED_SEED = 20240208
FLAWED_FRACTION = 0.15
DATA = Path(__file__).parents[2] / "curate" / "demo" / "data"

# Skills in which a wrong number makes a wrong response.
_NUMERIC = ("arithmetic", "counting", "units")
_MIN_WORDS = 6  # a reader would hardly notice that a shorter response is shuffled or cut


@dataclass(frozen=True, slots=True)
class Planted:
    """One generated record, and the truth about it.

    record  Alpaca fields: instruction, input (may be empty), output
    skill   a key of SKILLS
    flaw    how the record was spoilt; None if it was not. Of two equal records, the later one is the duplicate
    """

    record: dict[str, str]
    skill: str
    flaw: Flaw | None = None


def generate(count: int, *, seed: int, flaws: bool) -> list[Planted]:
    """Return `count` records of twelve skills; the same arguments give the same records.

    No two tasks (instruction and input) are equal, except planted duplicates.

    Args:
        count: number of records.
        seed: seed of the generator.
        flaws: spoil FLAWED_FRACTION of the records, equally many of each kind; the others stay the same.
    """
    rng = Random(seed)  # noqa: S311 - data, not secrets
    tasks: dict[tuple[str, str], tuple[str, Draft]] = {}
    while len(tasks) < count:
        skill = rng.choice(tuple(SKILLS))
        draft = SKILLS[skill](rng)
        tasks.setdefault((draft.instruction, draft.input), (skill, draft))
    drafts = list(tasks.values())
    clean = [Planted(_record(draft), skill) for skill, draft in drafts]
    return _plant(clean, [draft.answer for _, draft in drafts], rng) if flaws else clean


def _record(draft: Draft) -> dict[str, str]:
    return {"instruction": draft.instruction, "input": draft.input, "output": draft.output}


def _plant(clean: list[Planted], answers: list[str], rng: Random) -> list[Planted]:
    """Return the records with flaws planted in some of them; `answers` are those of the records."""
    per_kind = int(len(clean) * FLAWED_FRACTION) // len(FLAWS)
    # Only long responses can be shuffled or cut. They are chosen first, so that there are enough of them.
    long = [i for i, p in enumerate(clean) if len(p.record["output"].split()) >= _MIN_WORDS]
    chosen = rng.sample(long, 2 * per_kind)
    # From 1: a duplicate needs a record before it.
    others = sorted(set(range(1, len(clean))) - set(chosen))
    chosen += rng.sample(others, 3 * per_kind)
    kinds: tuple[Flaw, ...] = ("shuffled", "truncated", "wrong", "empty", "duplicate")
    plan = {row: kinds[n // per_kind] for n, row in enumerate(chosen)}
    planted = list(clean)
    for row, flaw in sorted(plan.items()):
        if flaw == "duplicate":
            source = rng.choice([r for r in range(row) if r not in plan] or [0])
            planted[row] = replace(clean[source], flaw=flaw)
        else:
            output = _spoil(row, flaw, clean, answers, rng)
            planted[row] = replace(clean[row], record={**clean[row].record, "output": output}, flaw=flaw)
    return planted


def _spoil(row: int, flaw: Flaw, clean: list[Planted], answers: list[str], rng: Random) -> str:
    """Return the spoilt response of a record."""
    output = clean[row].record["output"]
    if flaw == "empty":
        return ""
    if flaw == "shuffled":
        return shuffle_words(output, rng)
    if flaw == "truncated":
        return cut_short(output, rng)
    skill = clean[row].skill
    if skill in _NUMERIC and re.search(r"\d", output) and rng.random() < 0.5:
        return change_number(output, rng)
    # A response to another task of the same skill: fluent and on the subject, but wrong.
    strangers = [r for r, p in enumerate(clean) if p.skill == skill and answers[r] != answers[row]]
    return clean[rng.choice(strangers)].record["output"]


def shuffle_words(text: str, rng: Random) -> str:
    """Return the words of a text in another order, joined by single spaces."""
    words = text.split()
    shuffled = list(words)
    while shuffled == words:
        rng.shuffle(shuffled)
    return " ".join(shuffled)


def cut_short(text: str, rng: Random) -> str:
    """Return the first 30 to 70 % of the words of a text, without closing punctuation."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return text[: ends[rng.randint(len(ends) * 3 // 10, len(ends) * 7 // 10 - 1)]].rstrip(".,:;!?\"'")


def change_number(text: str, rng: Random) -> str:
    """Return the text with 1 to 9 added to its last number, which is the result."""
    *_, last = re.finditer(r"\d+", text)
    return f"{text[: last.start()]}{int(last[0]) + rng.randint(1, 9)}{text[last.end() :]}"


def main() -> None:
    """Write the shipped data set, and the truth about it."""
    planted = generate(SHIPPED_COUNT, seed=SHIPPED_SEED, flaws=True)
    DATA.mkdir(exist_ok=True)
    (DATA / "instructions.json").write_text(json.dumps([p.record for p in planted], indent=1) + "\n", encoding="utf-8")
    truth = ({"row": row, "skill": p.skill, "flaw": p.flaw} for row, p in enumerate(planted))
    (DATA / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in truth), encoding="utf-8")


if __name__ == "__main__":
    main()
