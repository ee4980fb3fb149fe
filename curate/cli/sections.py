"""Says which sections of a recipe a verb reads, in its help."""

from __future__ import annotations

_INPUT = ("run", "data", "prompt", "model")
# A setting of another section is accepted and changes nothing, so people must see which ones count.
READS: dict[str, tuple[str, ...]] = {
    "run": (*_INPUT, "score", "embed", "cluster", "select", "train"),
    "score": (*_INPUT, "score"),
    "embed": (*_INPUT, "embed", "cluster"),
    "select": ("run", "data", "cluster", "select"),
    "train": ("run", "data", "prompt", "model", "select", "train"),
    "evaluate": ("run", "data", "prompt", "model", "select", "train", "evaluate"),
    "compare": (*_INPUT, "score", "embed", "cluster", "select", "train", "evaluate", "compare"),
    "report": ("run", "data", "select"),
    "preview": ("data", "prompt", "model"),
    "estimate": (*_INPUT, "score", "embed", "cluster", "select", "train", "evaluate"),
    "doctor": ("model", "score"),
}


def epilog(verb: str) -> str:
    """Return the last lines of a verb's help: the sections that it reads, and where their keys are listed."""
    sections = ", ".join(READS[verb])
    return f"Sections of the recipe that it reads: {sections}. `curate settings SECTION` lists their keys."
